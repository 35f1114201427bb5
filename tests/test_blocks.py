"""Blocks keep the papers' order, and their gradients reach every layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onebit.blocks import Sign, binarynet_block, binarynet_conv_block, xnornet_block
from onebit.layers import BinaryConv2d, QuantLinear, XNORConv2d
from onebit.packing import PackedConv2d, PackedLinear
from onebit.ste import binary_sign


def kinds(block):
    return [type(module) for module in block]


def test_the_papers_orders():
    assert kinds(binarynet_block(4, 3)) == [QuantLinear, nn.BatchNorm1d, Sign]
    assert kinds(binarynet_conv_block(2, 4)) == [BinaryConv2d, nn.BatchNorm2d, Sign]
    assert kinds(binarynet_conv_block(2, 4, pool=2)) == [
        BinaryConv2d, nn.MaxPool2d, nn.BatchNorm2d, Sign
    ]  # fmt: skip
    assert kinds(xnornet_block(2, 4)) == [nn.BatchNorm2d, XNORConv2d]
    assert kinds(xnornet_block(2, 4, pool=2)) == [nn.BatchNorm2d, XNORConv2d, nn.MaxPool2d]


def test_binarynet_block_is_signs_times_signs_normalised_and_cut():
    block = binarynet_block(6, 5, dtype=torch.float64)
    x = binary_sign(torch.randn(40, 6, dtype=torch.float64))
    z = F.linear(x, binary_sign(block[0].weight))
    z = (z - z.mean(0)) / (z.var(0, correction=0) + block[1].eps).sqrt()
    assert torch.equal(block(x), binary_sign(z))


def test_the_first_block_takes_its_input_as_it_is():
    first, other = binarynet_block(6, 5, first=True), binarynet_block(6, 5)
    assert first[0].input_quant is None and other[0].input_quant is not None
    pixels = torch.rand(4, 6)
    assert torch.equal(first[0](pixels), F.linear(pixels, binary_sign(first[0].weight)))


@pytest.mark.parametrize("clip_value", [0.25, 0.5, 1.0, 2.0, None])
def test_gradients_reach_the_first_of_three_blocks_at_every_bound(clip_value):
    torch.manual_seed(0)
    net = nn.Sequential(*[
        binarynet_block(16, 16, first=i == 0, clip_value=clip_value, dtype=torch.float64)
        for i in range(3)
    ])  # fmt: skip
    net(torch.randn(64, 16, dtype=torch.float64)).square().sum().backward()
    for block in net:
        assert bool((block[0].weight.grad != 0).any())


def test_the_bound_of_a_block_cancels_the_gradient_behind_its_batch_norm():
    block = binarynet_block(2, 2, clip_value=0.5)
    z = torch.tensor([[0.4, -0.6]], requires_grad=True)
    block[2](z).sum().backward()
    assert z.grad.tolist() == [[1, 0]]


@pytest.mark.parametrize("input_scale", [False, True])
def test_xnornet_block_pools_last(input_scale):
    block = xnornet_block(2, 4, pool=2, input_scale=input_scale).eval()
    x = torch.randn(3, 2, 8, 8)
    assert torch.equal(block(x), F.max_pool2d(block[1](block[0](x)), 2))
    assert block[1].input_scale is input_scale


def test_blocks_run_packed():
    for block, x in [
        (binarynet_block(70, 9), torch.randn(5, 70)),
        (binarynet_conv_block(3, 4, pool=2), torch.randn(2, 3, 8, 8)),
        (xnornet_block(3, 4, input_scale=True), torch.randn(2, 3, 8, 8)),
    ]:
        block.eval()
        packed = nn.Sequential(*[
            PackedLinear.from_layer(m) if isinstance(m, QuantLinear)
            else PackedConv2d.from_layer(m) if isinstance(m, nn.Conv2d) else m
            for m in block
        ])  # fmt: skip
        assert torch.equal(packed(x), block(x))


@pytest.mark.parametrize(("pool", "error"), [(0, ValueError), (-2, ValueError), (1.5, TypeError)])
@pytest.mark.parametrize("block", [binarynet_conv_block, xnornet_block])
def test_pooling_windows_are_positive_whole_numbers(block, pool, error):
    with pytest.raises(error, match="pool must"):
        block(2, 4, pool=pool)


def test_sizes_and_bounds_are_checked():
    with pytest.raises(ValueError, match="out_features must"):
        binarynet_block(4, 0)
    with pytest.raises(ValueError, match="clip_value must be positive"):
        binarynet_block(4, 3, clip_value=-1.0)
