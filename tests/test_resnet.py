"""ResNet-18 has the paper's layers, in full precision and in bits, and its gradients reach all."""

import pytest
import torch
from torch import nn

from onebit import XNORConv2d, summary
from onebit.layers import QuantConv2d
from onebit.models import resnet18
from onebit.models.resnet import ResidualBlock

BINARISED = 4 * 64 * 64 * 9 + sum(3 * c * c * 9 + c * c // 2 * 9 for c in (128, 256, 512))


def convolutions(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


def quantised(model):
    return [m for m in convolutions(model) if isinstance(m, QuantConv2d)]


def test_the_real_network_is_the_resnet18_that_everybody_knows():
    model = resnet18()
    assert sum(p.numel() for p in model.parameters()) == 11_689_512
    assert len(convolutions(model)) == 1 + 16 + 3
    assert not quantised(model)
    layers = summary(model, (3, 224, 224))
    assert sum(layers.macs.values()) == 1_814_073_344
    assert [row.output_shape for row in layers.rows][-1] == (1000,)


@pytest.mark.parametrize("kind", ["bwn", "xnor"])
def test_sixteen_convolutions_are_binary_and_the_ends_are_not(kind):
    model = resnet18(kind)
    assert len(quantised(model)) == 16
    assert sum(conv.weight.numel() for conv in quantised(model)) == BINARISED
    assert all(conv.kernel_size == (3, 3) for conv in quantised(model))
    assert not isinstance(model[0], QuantConv2d)
    assert type(model[-1]) is nn.Linear
    assert all(isinstance(conv, XNORConv2d) is (kind == "xnor") for conv in quantised(model))


def test_deployed_it_is_eleven_times_smaller_not_thirty_two():
    costs = summary(resnet18("xnor"), (3, 224, 224))
    assert 11.0 < costs.float_nbytes / costs.nbytes < 11.1
    binary = [row for row in costs.rows if row.precision == "W1A1"]
    scales = sum(4 * row.output_shape[0] for row in binary)
    packed = sum(row.nbytes for row in binary) - scales
    assert sum(row.float_nbytes for row in binary) == 32 * packed
    shortcuts = summary(resnet18("xnor", binary_shortcuts=True), (3, 224, 224))
    assert 13.0 < shortcuts.float_nbytes / shortcuts.nbytes < 13.2


def test_binary_shortcuts_bring_three_more():
    assert len(quantised(resnet18("bwn", binary_shortcuts=True))) == 19


@pytest.mark.parametrize("kind", ["real", "bwn", "xnor"])
def test_gradients_reach_every_parameter(kind):
    torch.manual_seed(0)
    model = resnet18(kind, classes=4, dtype=torch.float64)
    model(torch.randn(4, 3, 64, 64, dtype=torch.float64)).square().sum().backward()
    assert all(bool((p.grad != 0).any()) for p in model.parameters())


@pytest.mark.parametrize("kind", ["real", "bwn", "xnor"])
def test_a_block_that_keeps_its_shape_adds_its_input_itself(kind):
    torch.manual_seed(0)
    block = ResidualBlock(4, 4, convolutions=kind).eval()
    x = torch.randn(2, 4, 5, 5)
    expected = block.body(x) + x
    if kind != "xnor":
        expected = expected.relu()
    assert torch.equal(block(x), expected)


def test_the_xnor_block_normalises_before_each_sign():
    kinds = [type(layer) for layer in ResidualBlock(4, 8, stride=2, convolutions="xnor").body]
    assert kinds == [nn.BatchNorm2d, XNORConv2d, nn.BatchNorm2d, XNORConv2d]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"convolutions": "binary"}, ValueError, "convolutions must be 'real', 'bwn' or 'xnor'"),
        ({"classes": 0}, ValueError, "classes"),
        ({"classes": 10.0}, TypeError, "classes"),
    ],
)
def test_wrong_arguments_are_named(given, error, message):
    with pytest.raises(error, match=message):
        resnet18(**given)
