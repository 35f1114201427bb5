"""Clipping touches latent weights only, rates follow Glorot, and Bop flips as it is defined."""

import copy

import pytest
import torch
from torch import nn

from onebit.layers import BinaryConnectLinear, BinaryConv2d, BinaryLinear, QuantLinear
from onebit.models import binaryconnect_mlp
from onebit.optim import (
    Bop,
    clip_after_step,
    clip_latent_weights_,
    glorot_rates,
    quantized_layers,
)


def mixed():
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), BinaryLinear(6, 5), QuantLinear(5, 3),
        nn.Sequential(BinaryConnectLinear(3, 2)),
    )  # fmt: skip


# ---- clipping ----------------------------------------------------------------------------------


def test_clipping_touches_the_weights_of_quantised_layers_and_nothing_else():
    model = mixed()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.linspace(-3, 3, p.numel()).reshape(p.shape))
    before = copy.deepcopy(model.state_dict())
    clip_latent_weights_(model, 0.5)
    for name, after in model.state_dict().items():
        quantised = name in ("2.weight", "4.0.weight")
        assert torch.equal(after, before[name].clamp(-0.5, 0.5) if quantised else before[name])


def test_clipping_follows_every_step_until_its_handle_is_removed():
    layer = BinaryConnectLinear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=100.0)
    handle = clip_after_step(optimizer, layer)

    def step():
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    for _ in range(2):
        step()
        assert layer.weight.tolist() == [[-1.0] * 3] * 2
        assert layer.bias.max() < -90
    handle.remove()
    step()
    assert layer.weight.max() < -90


def test_quantized_layers_are_found_once_each_in_order():
    model = mixed()
    model.append(model[2])
    assert list(quantized_layers(model)) == [model[2], model[4][0]]
    assert list(quantized_layers(model[2])) == [model[2]]


@pytest.mark.parametrize("bound", [0, -1.0, float("nan")])
def test_a_bound_that_is_not_positive_is_refused_at_once(bound):
    layer = BinaryLinear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    for clip in (clip_latent_weights_, lambda m, b: clip_after_step(optimizer, m, b)):
        with pytest.raises(ValueError, match="bound must be positive, got"):
            clip(layer, bound)


def test_what_is_no_model_is_refused_at_once():
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)
    parameters = nn.Linear(1, 1).parameters()
    for f in (
        quantized_layers, clip_latent_weights_, lambda m: clip_after_step(optimizer, m),
        lambda m: glorot_rates(m, 0.1),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got generator"):
            f(parameters)
    with pytest.raises(TypeError, match="optimizer must be a"):
        clip_after_step(nn.Linear(1, 1), optimizer)


# ---- rates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1, 2])
def test_rates_are_divided_by_the_papers_coefficient(power):
    """BinaryConnect's code: the coefficient of a layer is 1 / sqrt(1.5 / (fan_in + fan_out))."""
    model = nn.Sequential(
        BinaryLinear(784, 256), nn.BatchNorm1d(256), BinaryConv2d(3, 8, (3, 5)), nn.Linear(2, 2)
    )
    *scaled, rest = glorot_rates(model, 0.01, power=power)
    coefficients = [(1.5 / (784 + 256)) ** -0.5, (1.5 / (3 * 15 + 8 * 15)) ** -0.5]
    assert [g["lr"] for g in scaled] == pytest.approx([0.01 * c**power for c in coefficients])
    assert [g["params"] for g in scaled] == [[model[0].weight], [model[2].weight]]
    assert rest["lr"] == 0.01
    given = [p for group in (*scaled, rest) for p in group["params"]]
    assert {id(p) for p in given} == {id(p) for p in model.parameters()}
    assert len(given) == len(list(model.parameters()))


def test_rates_suit_every_optimizer_and_leave_shared_weights_single():
    model = nn.Sequential(BinaryLinear(4, 4, bias=False), BinaryLinear(4, 4, bias=False))
    model[1].weight = model[0].weight
    groups = glorot_rates(model, 0.1)
    assert len(groups) == 1
    torch.optim.Adam(groups)
    torch.optim.SGD(glorot_rates(mixed(), 0.1, power=2))


def test_power_is_one_or_two():
    with pytest.raises(ValueError, match=r"power must be 1 \(Adam\) or 2 \(SGD\), got 3"):
        glorot_rates(BinaryLinear(2, 2), 0.1, power=3)


def test_a_real_network_has_one_rate():
    groups = glorot_rates(binaryconnect_mlp("real", width=8), 0.1)
    assert [g["lr"] for g in groups] == [0.1]


# ---- Bop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "threshold"), [(1.0, 0.5), (0.5, 0.5), (0.25, 0.0), (0.1, 0.2)])
def test_bop_flips_as_defined(gamma, threshold):
    gradients = [[1, -1, 0.4, 0, 2], [1, 1, 0.6, 0, -2], [-3, -1, 0.7, 0, -2], [-3, 1, 9, 0, 1]]
    w = torch.tensor([1.0, -1, 1, -1, -1], dtype=torch.float64, requires_grad=True)
    optimizer = Bop([w], gamma=gamma, threshold=threshold)
    expected, m = w.tolist(), [0.0] * 5
    for g in gradients:
        w.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        m = [(1 - gamma) * mi + gamma * gi for mi, gi in zip(m, g, strict=True)]
        expected = [
            -wi if abs(mi) > threshold and (mi > 0) == (wi > 0) else wi
            for wi, mi in zip(expected, m, strict=True)
        ]
        assert w.tolist() == expected
    torch.testing.assert_close(
        optimizer.state[w]["average"], torch.tensor(m, dtype=torch.float64), rtol=1e-15, atol=1e-15
    )


def test_bop_needs_more_than_the_threshold_and_the_weights_own_sign():
    w = torch.tensor([1.0, 1.0, 1.0, -1.0], requires_grad=True)
    optimizer = Bop([w], gamma=1.0, threshold=0.5)
    w.grad = torch.tensor([0.5, 0.5000001, -9.0, 9.0])
    optimizer.step()
    assert w.tolist() == [1, -1, 1, -1]


def test_bop_leaves_weights_without_a_gradient_alone_and_runs_a_closure():
    w, idle = (torch.ones(2, requires_grad=True) for _ in range(2))
    optimizer = Bop([w, idle], gamma=1.0, threshold=0.0)

    def closure():
        optimizer.zero_grad()
        loss = w.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2
    assert w.tolist() == [-1, -1] and idle.tolist() == [1, 1]


def test_bop_state_survives_a_checkpoint():
    w = torch.ones(2, requires_grad=True)
    optimizer = Bop([w], gamma=0.5, threshold=0.6)
    w.grad = torch.ones(2)
    optimizer.step()
    twin = w.detach().clone().requires_grad_()
    other = Bop([twin])
    other.load_state_dict(optimizer.state_dict())
    twin.grad = torch.ones(2)
    other.step()
    optimizer.step()
    assert w.tolist() == twin.tolist() == [-1, -1]


def test_bop_trains_a_layer():
    torch.manual_seed(0)
    target = torch.where(torch.rand(1, 31) < 0.5, -1.0, 1.0)
    x = torch.where(torch.rand(400, 31) < 0.5, -1.0, 1.0)
    y = x @ target.T
    w = torch.ones(1, 31, requires_grad=True)
    optimizer = Bop([w], gamma=0.1, threshold=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        (x @ w.T - y).square().mean().backward()
        optimizer.step()
    assert torch.equal(w.detach(), target)


@pytest.mark.parametrize("values", [[1.0, 0.5], [0.0], [float("nan")], [2.0]])
def test_bop_refuses_weights_that_are_not_plus_or_minus_one(values):
    with pytest.raises(ValueError, match=r"params must hold only -1 and \+1"):
        Bop([torch.tensor(values, requires_grad=True)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, r"gamma must be in \(0, 1\], got 0\.0"),
        ({"gamma": 1.5}, r"gamma must be in \(0, 1\]"),
        ({"threshold": -1.0}, "threshold must not be negative"),
        ({"threshold": float("nan")}, "threshold must not be negative"),
    ],
)
def test_bop_refuses_values_out_of_range_in_defaults_and_groups(options, message):
    w = torch.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match=message):
        Bop([w], **options)
    with pytest.raises(ValueError, match=message):
        Bop([{"params": [w], **options}])


def test_bop_checks_groups_added_later_and_stays_usable():
    w = torch.ones(1, requires_grad=True)
    optimizer = Bop([w])
    with pytest.raises(ValueError, match="params must hold only"):
        optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})
    assert len(optimizer.param_groups) == 1
