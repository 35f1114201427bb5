"""The papers' networks have the papers' layers, and learn."""

import pytest
import torch
from torch import nn

from onebit.layers import BinaryConnectLinear, QuantLinear
from onebit.models import binaryconnect_mlp, binarynet_mlp
from onebit.optim import clip_after_step, glorot_rates
from onebit.quantizers import StochasticBinary
from onebit.training import train


def linears(model):
    return [m for m in model.modules() if isinstance(m, nn.Linear)]


@pytest.mark.parametrize("weights", ["real", "deterministic", "stochastic"])
def test_binaryconnect_has_three_hidden_layers_and_all_of_its_weights_are_alike(weights):
    model = binaryconnect_mlp(weights)
    shapes = [tuple(layer.weight.shape) for layer in linears(model)]
    assert shapes == [(1024, 784), (1024, 1024), (1024, 1024), (10, 1024)]
    assert sum(isinstance(m, nn.ReLU) for m in model) == 3
    assert sum(isinstance(m, nn.BatchNorm1d) for m in model) == 4
    for layer in linears(model):
        assert layer.bias is None
        assert isinstance(layer, BinaryConnectLinear) is (weights != "real")
        if weights != "real":
            assert isinstance(layer.weight_quant, StochasticBinary) is (weights == "stochastic")


def test_binarynet_takes_pixels_first_and_signs_after():
    model = binarynet_mlp(width=32)
    first, *others = linears(model)
    assert first.input_quant is None and all(m.input_quant is not None for m in others)
    assert all(isinstance(m, QuantLinear) for m in linears(model))
    assert [m.in_features for m in linears(model)] == [784, 32, 32, 32]
    assert isinstance(model[-1], nn.BatchNorm1d)


@pytest.mark.parametrize("clip_value", [0.25, 1.0, None])
def test_every_layer_of_binarynet_learns_at_every_bound(clip_value):
    torch.manual_seed(0)
    model = binarynet_mlp(width=32, in_features=20, clip_value=clip_value)
    model(torch.randn(64, 20)).square().sum().backward()
    assert all(bool((layer.weight.grad != 0).any()) for layer in linears(model))


def test_weights_start_as_glorot_draws_them_whatever_their_kind():
    nets = []
    for weights in ("real", "deterministic", "stochastic"):
        torch.manual_seed(3)
        nets.append(binaryconnect_mlp(weights, width=64))
    for layer, *others in zip(*map(linears, nets), strict=True):
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.95 * bound < layer.weight.abs().max() <= bound
        assert all(torch.equal(layer.weight, other.weight) for other in others)


@pytest.mark.parametrize("build", [binaryconnect_mlp, binarynet_mlp])
def test_sizes_and_dtype_are_free(build):
    model = build(width=7, depth=2, in_features=5, classes=3, dtype=torch.float64)
    assert model(torch.randn(4, 5, dtype=torch.float64)).shape == (4, 3)
    assert {t.dtype for t in model.parameters()} == {torch.float64}


@pytest.mark.parametrize("build", [binaryconnect_mlp, binarynet_mlp])
def test_without_hidden_layers_the_output_layer_sees_the_input(build):
    assert build(depth=0, in_features=5, classes=3)(torch.randn(4, 5)).shape == (4, 3)


def test_other_weights_are_refused():
    with pytest.raises(ValueError, match="weights must be 'real', 'deterministic' or 'stochastic'"):
        binaryconnect_mlp("binary")


@pytest.mark.parametrize("build", [binaryconnect_mlp, binarynet_mlp])
@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"width": 0}, ValueError, "width"),
        ({"depth": -1}, ValueError, "depth"),
        ({"classes": 2.5}, TypeError, "classes"),
        ({"in_features": "784"}, TypeError, "in_features"),
    ],
)
def test_sizes_that_make_no_network_are_refused(build, options, error, name):
    with pytest.raises(error, match=f"{name} must"):
        build(**options)


@pytest.mark.parametrize("build", [binaryconnect_mlp, binarynet_mlp])
def test_the_networks_learn_a_separable_task(build):
    torch.manual_seed(0)
    x = torch.randn(600, 20)
    y = (x @ torch.randn(20, 3)).argmax(1)
    model = build(width=64, in_features=20, classes=3)
    optimizer = torch.optim.Adam(glorot_rates(model, 0.003))
    clip_after_step(optimizer, model)
    history = train(model, optimizer, (x, y), (x, y), epochs=8, batch_size=50)
    assert history[-1].loss < history[0].loss
    assert history[-1].error < 15  # two thirds, when guessed
