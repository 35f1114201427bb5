"""Networks for tests of packing: the papers', random ones, and what training may leave in them."""

import torch
from hypothesis import strategies as st
from torch import nn

from onebit.blocks import Sign, binarynet_block, binarynet_conv_block, xnornet_block
from onebit.layers import (
    BinaryConv2d,
    BinaryLinear,
    QuantConv2d,
    QuantLinear,
    XNORConv2d,
    XNORLinear,
)
from onebit.models import binaryconnect_mlp, binarynet_mlp
from onebit.network import pack
from onebit.quantizers import BinarySign

SEEDS = st.integers(0, 2**32)
DTYPES = st.sampled_from([torch.float32, torch.float64])


def shake(model, seed):
    """Give a network what training may leave: γ of both signs and zero, extreme statistics."""
    torch.manual_seed(seed)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            n = m.num_features
            spread = 10.0 ** torch.randint(-1, 3, (n,))
            m.running_mean.copy_((torch.randn(n) * spread).to(m.running_mean.dtype))
            # A whole mean and no shift put y on zero, where rounding decides the sign.
            whole = torch.rand(n) < 0.4
            m.running_mean[whole] = m.running_mean[whole].round()
            m.running_var.copy_(torch.rand(n) * 10.0 ** torch.randint(-9, 6, (n,)))
            if m.affine:
                m.weight.data.normal_()
                m.weight.data[torch.rand(n) < 0.15] = 0.0
                m.bias.data.normal_()
                m.bias.data[whole] = 0.0
                m.bias.data[torch.rand(n) < 0.1] = -0.0
        elif isinstance(m, QuantLinear | QuantConv2d) and m.bias is not None:
            m.bias.data.normal_().mul_(3)
    return model.eval()


def same(model, x):
    packed = pack(model)
    y = packed(x)
    assert torch.equal(y, model(x)) and y.dtype == model(x).dtype and not y.requires_grad
    return packed


def kinds(packed):
    return [type(stage).__name__ for stage in packed]


@st.composite
def images(draw):
    """Draw a chain of convolutions, in either paper's order, and a linear head."""
    dtype = draw(DTYPES)
    channels, size = draw(st.integers(1, 5)), 9
    first = channels
    layers = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.sampled_from([1, 3, 8, 64, 70]))
        make = draw(st.sampled_from([BinaryConv2d, XNORConv2d]))
        kernel = draw(st.sampled_from([1, 2, 3]))
        options = {
            "stride": draw(st.sampled_from([1, 1, 2])), "padding": draw(st.integers(0, 2)),
            "dilation": draw(st.sampled_from([1, 1, 2])), "bias": draw(st.booleans()),
            "pad_value": draw(st.sampled_from([-1, 0, 1])), "dtype": dtype,
        }  # fmt: skip
        conv = make(channels, n, kernel, **options)
        (out, _) = conv.geometry.output_size((size, size))
        if out < 1:
            continue
        layers.append(conv)
        size, channels = out, n
        if size >= 3 and draw(st.booleans()):
            width, stride = draw(st.integers(2, 3)), draw(st.integers(1, 2))
            padding = draw(st.integers(0, 1))
            layers.append(nn.MaxPool2d(width, stride, padding))
            size = (size + 2 * padding - width) // stride + 1
        if draw(st.booleans()):
            layers.append(nn.BatchNorm2d(n, dtype=dtype))
        if draw(st.booleans()):
            layers.append(Sign())
    head = BinaryLinear(channels * size * size, 4, dtype=dtype)
    return nn.Sequential(*layers, nn.Flatten(), head), first, dtype


def binarynet_cnn(dtype=None):
    first = QuantConv2d(3, 20, 3, padding=1, bias=False, weight_quant=BinarySign(), dtype=dtype)
    return nn.Sequential(
        nn.Sequential(first, nn.BatchNorm2d(20, dtype=dtype), Sign()),
        binarynet_conv_block(20, 66, pool=2, dtype=dtype),
        binarynet_conv_block(66, 12, dtype=dtype),
        nn.Flatten(),
        binarynet_block(12 * 16, 30, dtype=dtype),
        BinaryLinear(30, 10, bias=False, dtype=dtype),
        nn.BatchNorm1d(10, dtype=dtype),
    )


def xnornet_cnn(dtype=None, input_scale=False):
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1, dtype=dtype),
        xnornet_block(20, 66, pool=2, input_scale=input_scale, dtype=dtype),
        xnornet_block(66, 12, dtype=dtype),
        nn.BatchNorm2d(12, dtype=dtype),
        nn.Flatten(),
        XNORLinear(12 * 16, 30, dtype=dtype),
        nn.BatchNorm1d(30, dtype=dtype),
        nn.ReLU(),
        nn.Linear(30, 10, dtype=dtype),
    )


NETS = {
    "BinaryNet MLP": (lambda d=None: binarynet_mlp(width=90, dtype=d), (784,)),
    "BinaryNet CNN": (binarynet_cnn, (3, 8, 8)),
    "XNOR-Net": (xnornet_cnn, (3, 8, 8)),
    "XNOR-Net with K": (lambda d=None: xnornet_cnn(d, input_scale=True), (3, 8, 8)),
    "BinaryConnect": (lambda d=None: binaryconnect_mlp(width=30, dtype=d), (784,)),
}
