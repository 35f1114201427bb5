"""A first layer of 8-bit pixels: exact integer sums, thresholds, and the network behind them."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import DTYPES, SEEDS, shake
from torch import Tensor, nn

import onebit
from onebit.blocks import Sign
from onebit.data import mnist, normalise
from onebit.kernels import available_kernels
from onebit.layers import BinaryConnectLinear, BinaryLinear, QuantLinear
from onebit.models import binaryconnect_mlp, binarynet_mlp
from onebit.network import PixelBlock, load, pack, save
from onebit.network.thresholds import grey_levels
from onebit.packing import PackedLinear
from onebit.quantizers import ScaledBinary


def drawn_pixels(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("kernel", available_kernels())
@given(SEEDS, st.integers(0, 70), st.integers(1, 200), st.integers(1, 300))
@settings(max_examples=25)
def test_sums_of_pixels_are_exact_on_every_kernel_path(kernel, seed, m, n, k):
    torch.manual_seed(seed)
    layer = PackedLinear.from_layer(BinaryConnectLinear(k, n, bias=False))
    x = drawn_pixels(m, k)
    x[x < 40], x[x > 200] = 0, 255
    sums = x.long() @ layer.codes().long().T
    near = sums[0] if m else torch.zeros(n, dtype=torch.long)
    thresholds = (near + torch.randint(-1, 2, (n,))).to(torch.int32)
    flip = torch.rand(n) < 0.3
    packed = onebit.network.PackedNetwork(PixelBlock(layer, thresholds, flip))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_KERNEL", kernel)
        assert torch.equal(packed(x), onebit.pack_signs((sums >= thresholds) ^ flip))
        assert torch.equal(packed[0](x), packed(x))


@pytest.mark.parametrize("kernel", available_kernels())
@pytest.mark.parametrize("value", [0, 255])
def test_the_largest_sums_do_not_overflow(kernel, value, monkeypatch):
    monkeypatch.setenv("ONEBIT_KERNEL", kernel)
    k = 2**19
    layer = BinaryConnectLinear(k, 2, bias=False)
    with torch.no_grad():
        layer.weight[0], layer.weight[1] = 1.0, -1.0
    x = torch.full((1, k), value, dtype=torch.uint8)
    for extra, bits in ((0, 3), (1, 0)):
        thresholds = torch.tensor([value * k + extra, -value * k + extra], dtype=torch.int32)
        block = PixelBlock(PackedLinear.from_layer(layer), thresholds, torch.zeros(2).bool())
        assert onebit.network.PackedNetwork(block)(x).item() == bits


@pytest.mark.parametrize("kernel", available_kernels())
@given(SEEDS, st.integers(1, 3), st.integers(1, 150), st.integers(0, 70), DTYPES)
@settings(max_examples=15)
def test_whole_numbers_as_inputs_give_the_same_floats(kernel, seed, depth, width, m, dtype):
    model = binarynet_mlp(width=width, depth=depth, in_features=36, dtype=dtype)
    packed = pack(shake(model, seed), pixels=lambda p: p.to(dtype))
    x = drawn_pixels(m, 6, 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_KERNEL", kernel)
        y = packed(x)
    assert torch.equal(y, model(x.flatten(1).to(dtype))) and y.dtype == dtype


@given(SEEDS, DTYPES, st.booleans(), st.booleans())
@settings(max_examples=20)
def test_scales_biases_and_a_layers_own_sign_are_folded_too(seed, dtype, bias, signed):
    layers = [
        nn.Flatten(),
        QuantLinear(12, 40, bias=bias, weight_quant=ScaledBinary(), dtype=dtype),
        nn.BatchNorm1d(40, dtype=dtype),
        *([Sign()] if signed else []),
        BinaryLinear(40, 3, dtype=dtype),
    ]
    model = shake(nn.Sequential(*layers), seed)
    packed = pack(model, pixels=lambda p: p.to(dtype))
    x = drawn_pixels(30, 3, 4)
    assert [type(stage).__name__ for stage in packed] == ["PixelBlock", "PackedBlock"]
    assert torch.equal(packed(x), model(x.to(dtype)))


def test_scaled_pixels_of_mnist_give_the_predictions_of_the_float_network():
    images, labels = mnist("test")
    x = normalise(images, torch.float64)
    torch.manual_seed(0)
    model = binarynet_mlp(width=128, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    for batch in torch.randperm(len(x))[:5000].split(100):
        optimizer.zero_grad()
        onebit.training.squared_hinge(model(x[batch]), labels[batch]).backward()
        optimizer.step()
    model.eval()
    packed = pack(model, pixels=normalise)
    with torch.no_grad():
        outputs = model(x)
    assert (outputs.argmax(1) == labels).double().mean() > 0.5
    assert torch.equal(packed(images), outputs)


def test_a_threshold_is_that_of_the_exact_sum():
    layer = BinaryConnectLinear(3, 4, bias=False)
    norm = nn.BatchNorm1d(4)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        norm.running_mean.copy_(torch.tensor([0.5, 0.5, -9.0, 9.0]))
        norm.weight.copy_(torch.tensor([1.0, -1.0, 1.0, 1.0]))
    model = nn.Sequential(layer, norm, Sign(), BinaryLinear(4, 2)).eval()
    block = pack(model, pixels=lambda p: p / 255)[0]
    # The sum s / 255 reaches 1/2 from s = 128 on, and lies between 0 and 3.
    assert block.thresholds.tolist() == [128, 128, 0, 0]
    assert block.flip.tolist() == [False, True, False, True]


def test_copies_pickles_and_files_take_pixels_too(tmp_path):
    model = shake(binarynet_mlp(width=70, in_features=20), 0)
    packed, x = pack(model, pixels=Tensor.float), drawn_pixels(9, 20)
    y = packed(x)
    save(packed, tmp_path / "net")
    loaded = load(tmp_path / "net")
    assert repr(loaded) == repr(packed)
    for twin in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed)), loaded):
        assert torch.equal(twin(x), y)
    other = pack(shake(model, 1), pixels=Tensor.float)
    assert not torch.equal(other(x), y)
    other.load_state_dict(packed.state_dict())
    assert torch.equal(other(x), y)


@pytest.mark.slow
def test_a_network_of_pixels_compiles_and_exports_whole():
    model = shake(binarynet_mlp(width=70, in_features=20), 0)
    packed, x = pack(model, pixels=Tensor.float), drawn_pixels(9, 20)
    assert torch.equal(torch.export.export(packed, (x,)).module()(x), packed(x))
    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), packed(x))


def test_pixels_may_lie_anyhow_in_memory():
    packed = pack(binarynet_mlp(width=20, in_features=12).eval(), pixels=Tensor.float)
    x = drawn_pixels(12, 8)
    assert torch.equal(packed(x.T), packed(x.T.contiguous()))
    assert torch.equal(packed(x.T[::2]), packed(x.T)[::2])


def test_grey_levels_are_scale_and_shift():
    assert grey_levels(Tensor.float) == (1.0, 0.0)
    assert grey_levels(lambda p: p / 255)[0] == pytest.approx(1 / 255)
    scale, shift = grey_levels(lambda p: (p / 255 - 0.1307) / 0.3081)
    assert np.allclose([scale, shift], [1 / 255 / 0.3081, -0.1307 / 0.3081])


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (True, TypeError, "pixels must be a function of a uint8 tensor, got True"),
        (lambda p: p, TypeError, "to a float tensor, got torch.uint8"),
        (lambda p: 3, TypeError, "to a float tensor, got int"),
        (lambda p: p.float().mean(), ValueError, "one float a pixel"),
        (lambda p: p.float().sqrt(), ValueError, "straight line"),
        (lambda p: p.float() * 0, ValueError, "straight line"),
        (lambda p: p.float() * float("nan"), ValueError, "straight line"),
    ],
)
def test_what_does_not_scale_pixels_is_refused(pixels, error, message):
    with pytest.raises(error, match=message):
        pack(binarynet_mlp(width=8), pixels=pixels)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(),
        nn.Sequential(nn.Linear(4, 4), BinaryLinear(4, 2)),
        nn.Sequential(BinaryLinear(4, 4), Sign(), BinaryLinear(4, 2)),
        nn.Sequential(BinaryConnectLinear(4, 4)),
        binaryconnect_mlp(width=8),
    ],
)
def test_a_network_that_does_not_begin_with_pixels_and_signs_is_refused(model):
    with pytest.raises(ValueError, match="model must begin with a QuantLinear"):
        pack(model, pixels=Tensor.float)


@pytest.mark.parametrize("kernel", available_kernels())
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(3, 12), TypeError, "wants x as a uint8 tensor, got torch.float32"),
        ([[1] * 12], TypeError, "got list"),
        (torch.ones(12, dtype=torch.uint8), ValueError, r"12 pixels a sample.*got \(12,\)"),
        (torch.ones(3, 11, dtype=torch.uint8), ValueError, "12 pixels a sample"),
        (torch.ones(3, 12, dtype=torch.uint8, device="meta"), ValueError, r"use x\.cpu\(\)"),
    ],
    ids=["floats", "list", "one dimension", "size", "device"],
)
def test_inputs_that_are_no_pixels_are_refused(x, error, message, kernel, monkeypatch):
    monkeypatch.setenv("ONEBIT_KERNEL", kernel)
    packed = pack(binarynet_mlp(width=8, in_features=12).eval(), pixels=Tensor.float)
    packed(drawn_pixels(3, 12))
    with pytest.raises(error, match=message):
        packed(x)
