"""The loss is flat between sign crossings, and flips are promised and done as they should be."""

import pytest
import torch
from torch import nn

import onebit
from onebit.landscape import (
    latent_vector,
    loss_along,
    predicted_flips,
    real_flips,
    sign_crossings,
)
from onebit.models import binaryconnect_mlp, binarynet_mlp
from onebit.training import squared_hinge

X = torch.randn(40, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
Y = torch.arange(40) % 3


def loss(model):
    return squared_hinge(model(X), Y)


@pytest.fixture(params=[binaryconnect_mlp, binarynet_mlp])
def model(request):
    torch.manual_seed(0)
    net = request.param(width=9, depth=2, in_features=12, classes=3, dtype=torch.float64)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.bias.data = 0.01 * torch.randn_like(norm.bias)
    return net


def test_crossings_are_where_the_signs_change():
    torch.manual_seed(0)
    latent, direction = torch.randn(2, 200, dtype=torch.float64)
    t = sign_crossings(latent, direction)
    assert (t[1:] >= t[:-1]).all()
    for n in (0, 1, 50, len(t) - 1):
        between = (t[n] + t[n + 1]) / 2 if n + 1 < len(t) else t[n] + 1
        changed = (latent >= 0) != (latent + between * direction >= 0)
        assert changed.sum() == n + 1


def test_a_weight_at_zero_crosses_at_once_downwards_and_never_upwards():
    assert sign_crossings(torch.zeros(1), torch.tensor([-1.0])).tolist() == [0.0]
    assert sign_crossings(torch.zeros(1), torch.tensor([1.0])).tolist() == []


def test_the_loss_is_one_number_on_each_plateau(model):
    torch.manual_seed(1)
    latent = latent_vector(model)
    ray = torch.randn_like(latent)
    t = sign_crossings(latent, ray)[:12]
    points = t[-1] * torch.rand(60, dtype=torch.float64)
    losses = loss_along(model, ray, points, loss)
    for plateau in torch.bucketize(points, t).unique():
        on_it = torch.bucketize(points, t) == plateau
        assert len({v for v, here in zip(losses, on_it, strict=True) if here}) == 1
    assert len(set(losses)) > 3


def test_the_model_is_left_as_it_was(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss_along(model, torch.ones_like(latent_vector(model)), [0.5], loss)
    real_flips(model, [[0], [1, 2]], loss)
    if all(isinstance(m.weight_quant, onebit.BinarySign)
           for m in onebit.optim.quantized_layers(model)):  # fmt: skip
        predicted_flips(model, loss)
    assert model.training
    assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_real_flip_is_the_loss_of_the_flipped_network(model):
    layer = next(onebit.optim.quantized_layers(model))
    change = real_flips(model, [[5]], loss).item()
    model.eval()
    with torch.no_grad():
        start = loss(model)
        layer.weight.view(-1)[5].neg_()
        assert (loss(model) - start).item() == pytest.approx(change, abs=1e-12)


def test_the_promise_is_exact_where_the_loss_is_linear_in_the_weights():
    torch.manual_seed(0)
    layer = onebit.QuantLinear(6, 2, bias=False, weight_quant=onebit.BinarySign(),
                               dtype=torch.float64)  # fmt: skip
    x = torch.randn(5, 6, dtype=torch.float64)

    def linear(m):
        return (m(x) * torch.arange(10.0).view(5, 2)).sum()

    sets = [[i] for i in range(12)] + [[0, 3, 7]]
    promised = predicted_flips(layer, linear)
    real = real_flips(layer, sets, linear)
    assert torch.allclose(torch.stack([promised[s].sum() for s in sets]), real)


def test_latent_magnitudes_do_not_change_the_promise():
    torch.manual_seed(0)
    layer = onebit.QuantLinear(6, 2, bias=False, weight_quant=onebit.BinarySign(),
                               dtype=torch.float64)  # fmt: skip
    x = torch.randn(5, 6, dtype=torch.float64)
    before = predicted_flips(layer, lambda m: m(x).square().sum())
    layer.weight.data *= 50  # beyond the estimator's bound
    assert torch.equal(before, predicted_flips(layer, lambda m: m(x).square().sum()))


def test_bad_input_is_refused_by_name(model):
    with pytest.raises(ValueError, match="no quantised layer"):
        latent_vector(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="direction"):
        loss_along(model, torch.ones(3), [0.0], loss)
    with pytest.raises(ValueError, match="direction"):
        sign_crossings(torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="outside"):
        real_flips(model, [[10**6]], loss)
    with pytest.raises(TypeError, match="ScaledBinary"):
        predicted_flips(onebit.XNORLinear(3, 2), lambda m: m(torch.ones(1, 3)).sum())
