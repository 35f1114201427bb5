"""A packed layer returns the very floats of the layer it was made from, or refuses by name."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onebit.kernels import available_kernels
from onebit.layers import (
    BinaryConnectLinear,
    BinaryConv2d,
    BinaryLinear,
    BitLinear,
    QuantConv2d,
    QuantLinear,
    XNORConv2d,
    XNORLinear,
)
from onebit.packing import PackedConv2d, PackedLinear, pack_images, pack_signs
from onebit.quantizers import (
    BinaryAbsMean,
    BinarySign,
    Int8AbsMax,
    Quantizer,
    ScaledBinary,
    StochasticBinary,
    TernaryAbsMean,
)

WEIGHTS = [
    BinarySign, lambda: BinarySign(zero=-1), ScaledBinary, BinaryAbsMean, TernaryAbsMean,
    lambda: ScaledBinary(granularity="tensor"),
]  # fmt: skip
INPUTS = [
    lambda: None, BinarySign, lambda: BinarySign(zero=-1), Int8AbsMax, TernaryAbsMean,
    lambda: Int8AbsMax("tensor"), lambda: ScaledBinary(granularity="tensor"), BinaryAbsMean,
]  # fmt: skip
ROW_INPUTS = [*INPUTS, lambda: ScaledBinary(granularity="token")]
IMAGE_INPUTS = [q for q in INPUTS if q is not Int8AbsMax]
PRESETS = {
    "BinaryConnect": BinaryConnectLinear,
    "BinaryNet": BinaryLinear,
    "XNOR-Net": XNORLinear,
    "XNOR-Net, input scale": lambda k, n, **o: XNORLinear(k, n, input_scale=True, **o),
    "b1.58": BitLinear,
    "b1": lambda k, n, **o: BitLinear(k, n, version="b1", **o),
    "bare b1": lambda k, n, **o: BitLinear(k, n, version="b1", norm=False, **o),
}
DTYPES = st.sampled_from([torch.float32, torch.float64])
SEEDS = st.integers(0, 2**32)


def dirty(x):
    """Put in what random draws leave out: zeros of both signs, ties, the bound of the mask."""
    flat = x.view(-1)
    special = torch.tensor([0.0, -0.0, 1.0, -1.0, 0.5], dtype=x.dtype)
    where = torch.randint(0, 8, flat.shape)
    flat[where < 5] = torch.where(torch.rand(flat.shape) < 0.3, special[where % 5], flat)[where < 5]
    return x


def build(make, seed, *args, **options):
    torch.manual_seed(seed)
    layer = make(*args, **options).eval()
    with torch.no_grad():
        dirty(layer.weight)
        for p in layer.parameters():
            if p.dim() == 1:
                p.normal_()
    return layer


# ---- linear layers -----------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@given(SEEDS, st.integers(0, 9), st.integers(1, 200), st.integers(1, 40), DTYPES, st.booleans())
@settings(max_examples=15)
def test_packed_presets_equal_their_layers(preset, seed, m, k, n, dtype, bias):
    layer = build(PRESETS[preset], seed, k, n, bias=bias, dtype=dtype)
    packed = PackedLinear.from_layer(layer)
    x = dirty(torch.randn(m, k, dtype=dtype))
    y = packed(x)
    assert y.dtype == dtype and not y.requires_grad
    assert torch.equal(y, layer(x))
    with torch.no_grad():
        assert torch.equal(y, layer(x))


@given(
    SEEDS, st.sampled_from(WEIGHTS), st.sampled_from(ROW_INPUTS), st.integers(1, 150),
    st.integers(1, 20), DTYPES, st.booleans(),
)  # fmt: skip
@settings(max_examples=60)
def test_packed_combinations_equal_their_layers(seed, w, a, k, n, dtype, bias):
    options = {"weight_quant": w(), "input_quant": a(), "bias": bias, "dtype": dtype}
    layer = build(QuantLinear, seed, k, n, **options)
    x = dirty(torch.randn(3, 2, k, dtype=dtype))
    assert torch.equal(PackedLinear.from_layer(layer)(x), layer(x))


@pytest.mark.parametrize("kernel", available_kernels())
@pytest.mark.parametrize("preset", PRESETS)
def test_every_kernel_path_equals_the_layer(preset, kernel, monkeypatch):
    monkeypatch.setenv("ONEBIT_KERNEL", kernel)
    layer = build(PRESETS[preset], 7, 131, 37, bias=True)
    x = dirty(torch.randn(33, 131))
    assert torch.equal(PackedLinear.from_layer(layer)(x), layer(x))


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_strides_dtypes_and_autocast(preset):
    layer = build(PRESETS[preset], 0, 70, 9, bias=True)
    packed = PackedLinear.from_layer(layer)
    x = torch.randn(70, 8)
    for rows in (
        x.T,
        x.T[::2],
        x.T[0],
        x.T.reshape(2, 2, 2, 70),
        x.T[:0],
        x.T.half(),
        x.T.double(),
    ):
        assert torch.equal(packed(rows), layer(rows))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(packed(x.T), layer(x.T))


def test_the_largest_sum_allowed_is_still_exact():
    k = (2**24 - 1) // 127
    layer = QuantLinear(k, 1, weight_quant=TernaryAbsMean(), input_quant=Int8AbsMax())
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight[0, 0] = 1e-9
    x = torch.ones(1, k)
    assert torch.equal(PackedLinear.from_layer(layer)(x), layer(x))


# ---- convolutions ------------------------------------------------------------------------------


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 3))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    options = {
        "in_channels": groups * draw(st.integers(1, 3)),
        "out_channels": groups * draw(st.integers(1, 4)),
        "kernel_size": draw(pair),
        "stride": draw(pair),
        "padding": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        "dilation": draw(pair),
        "groups": groups,
        "bias": draw(st.booleans()),
        "pad_value": draw(st.sampled_from([-1, 0, 1])),
        "dtype": draw(DTYPES),
        "weight_quant": draw(st.sampled_from(WEIGHTS))(),
        "input_quant": draw(st.sampled_from(IMAGE_INPUTS))(),
    }
    options["input_scale"] = groups == 1 and draw(st.booleans())
    return options


@given(SEEDS, convolutions(), st.integers(0, 3), st.integers(7, 9), st.integers(7, 10))
@settings(max_examples=120)
def test_packed_convolutions_equal_their_layers(seed, options, n, height, width):
    layer = build(QuantConv2d, seed, **options)
    packed = PackedConv2d.from_layer(layer)
    x = dirty(torch.randn(n, options["in_channels"], height, width, dtype=options["dtype"]))
    assert torch.equal(packed(x), layer(x))


def test_one_packed_convolution_serves_images_of_several_sizes():
    layer = build(BinaryConv2d, 0, 3, 5, 3, padding=1)
    packed = PackedConv2d.from_layer(layer)
    for size in ((5, 5), (8, 6), (5, 5), (6, 8)):
        x = torch.randn(2, 3, *size)
        assert torch.equal(packed(x), layer(x))


def test_convolutions_take_other_layouts_dtypes_and_autocast():
    layer = build(XNORConv2d, 0, 8, 5, 3, padding=1, input_scale=True)
    packed = PackedConv2d.from_layer(layer)
    x = torch.randn(2, 8, 6, 6)
    for images in (x.to(memory_format=torch.channels_last), x.transpose(2, 3), x.half()):
        assert torch.equal(packed(images), layer(images))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(packed(x), layer(x))


# ---- modes, state, size ------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_packed_layer_stays_in_evaluation_mode(preset):
    layer = build(PRESETS[preset], 0, 20, 4)
    net = nn.Sequential(PackedLinear.from_layer(layer)).train()
    x = torch.randn(5, 20)
    assert not any(m.training for m in net[0].modules())
    assert torch.equal(net(x), layer(x))


def test_a_packed_layer_keeps_the_weights_it_was_made_from():
    layer = build(BinaryLinear, 0, 20, 4)
    x = torch.randn(5, 20)
    packed, y = PackedLinear.from_layer(layer), layer(x)
    with torch.no_grad():
        layer.weight.neg_()
        layer.bias.zero_()
    assert torch.equal(packed(x), y)


@pytest.mark.parametrize("preset", PRESETS)
def test_state_survives_a_file_and_replaces_what_was_laid_out(preset):
    first, second = (build(PRESETS[preset], seed, 70, 9, bias=True) for seed in (1, 2))
    packed, other = PackedLinear.from_layer(first), PackedLinear.from_layer(second)
    x = torch.randn(5, 70)
    assert not torch.equal(packed(x), other(x))
    file = io.BytesIO()
    torch.save(packed.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(x), first(x))
    for twin in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(twin(x), first(x))


def test_state_of_a_convolution_replaces_its_border_too():
    first, second = (build(BinaryConv2d, seed, 3, 5, 3, padding=1) for seed in (1, 2))
    packed, other = PackedConv2d.from_layer(first), PackedConv2d.from_layer(second)
    x = torch.randn(2, 3, 6, 6)
    assert not torch.equal(packed(x), other(x))
    other.load_state_dict(packed.state_dict())
    assert torch.equal(other(x), first(x))


def test_bytes_are_words_scales_bias_and_normalisation():
    assert PackedLinear.from_layer(BinaryLinear(130, 10)).nbytes() == 10 * 3 * 8 + 4 + 10 * 4
    assert PackedLinear.from_layer(XNORLinear(64, 10, bias=False)).nbytes() == 10 * 8 + 10 * 4
    assert PackedLinear.from_layer(BitLinear(33, 10)).nbytes() == 10 * 2 * 8 + 4 + 33 * 4


def test_a_float64_layer_converted_to_float32_still_runs():
    packed = PackedLinear.from_layer(BinaryLinear(20, 4, dtype=torch.float64)).float()
    assert packed(torch.randn(5, 20)).dtype == torch.float32


# ---- stochastic layers -------------------------------------------------------------------------


def test_stochastic_layers_are_refused_unless_their_signs_are_asked_for():
    layer = BinaryConnectLinear(20, 4, stochastic=True)
    with pytest.raises(ValueError, match="weights='sign' packs their signs"):
        PackedLinear.from_layer(layer)
    signs = BinaryConnectLinear(20, 4)
    signs.load_state_dict(layer.state_dict())
    x = torch.randn(5, 20)
    assert torch.equal(PackedLinear.from_layer(layer, weights="sign")(x), signs(x))
    conv = QuantConv2d(2, 3, 3, weight_quant=StochasticBinary())
    with pytest.raises(ValueError, match="weights='sign' packs their signs"):
        PackedConv2d.from_layer(conv)
    assert PackedConv2d.from_layer(conv, weights="sign").codes().abs().min() == 1


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Linear(3, 2), "layer must be a QuantLinear, got Linear"),
        (nn.Sequential(BinaryLinear(3, 2)), "got Sequential; pack layer by layer"),
        (BinaryLinear, "layer must be a QuantLinear, got BinaryLinear"),
        (BinaryConv2d(3, 2, 3), "layer must be a QuantLinear, got BinaryConv2d"),
        (torch.ones(3, 2), "layer must be a QuantLinear, got Tensor"),
        (BinaryLinear(3, 2).half(), r"weights of torch\.float16.*use layer\.float\(\)"),
    ],
    ids=["float layer", "model", "class", "convolution", "tensor", "half precision"],
)
def test_what_is_no_packable_layer_is_refused(layer, message):
    with pytest.raises(TypeError, match=message):
        PackedLinear.from_layer(layer)


def test_a_linear_layer_is_no_convolution():
    with pytest.raises(TypeError, match="layer must be a QuantConv2d, got BinaryLinear"):
        PackedConv2d.from_layer(BinaryLinear(3, 2))


def test_weights_is_one_of_two_words():
    with pytest.raises(ValueError, match="weights must be 'quantized' or 'sign', got 'real'"):
        PackedLinear.from_layer(BinaryLinear(3, 2), weights="real")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("preset", PRESETS)
def test_weights_that_are_not_finite_are_refused(preset, value):
    layer = build(PRESETS[preset], 0, 20, 4)
    with torch.no_grad():
        layer.weight[1, 2] = value
    with pytest.raises(ValueError, match=r"layer\.weight holds NaN or infinity"):
        PackedLinear.from_layer(layer)


def test_real_weights_are_refused():
    with pytest.raises(ValueError, match="weight_quant=None: its weights are real numbers"):
        PackedLinear.from_layer(QuantLinear(3, 2, input_quant=BinarySign()))


def test_layers_on_other_devices_are_refused():
    with pytest.raises(ValueError, match=r"layer is on meta.*use layer\.cpu\(\)"):
        PackedLinear.from_layer(BinaryLinear(3, 2, device="meta"))


def test_codes_that_two_bits_cannot_hold_are_refused():
    layer = QuantLinear(30, 20, weight_quant=Int8AbsMax())
    with pytest.raises(ValueError, match="Int8AbsMax gives codes that 8"):
        PackedLinear.from_layer(layer)


def test_a_quantizer_put_in_later_is_held_to_the_exact_range():
    class Wide(Quantizer):
        bits, max_code = 32.0, 2**22

        def quantize(self, x):
            return x.round(), x.new_ones(())

    layer = BinaryLinear(4, 2)
    layer.input_quant = Wide()
    with pytest.raises(ValueError, match="float32 is exact only below"):
        PackedLinear.from_layer(layer)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(3, 11), ValueError, r"wants x with 12 features in dimension -1, got \(3, 11\)"),
        (torch.ones(()), ValueError, "wants x with 12 features"),
        (torch.ones(3, 12, dtype=torch.int8), TypeError, r"float tensor as x, got torch\.int8"),
        ([[1.0] * 12], TypeError, "float tensor as x, got list"),
        (torch.ones(3, 12, device="meta"), ValueError, r"x on the CPU.*got meta; use x\.cpu\(\)"),
    ],
    ids=["width", "scalar", "integers", "list", "device"],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_inputs_that_do_not_fit_are_refused(preset, x, error, message):
    with pytest.raises(error, match=message):
        PackedLinear.from_layer(PRESETS[preset](12, 5))(x)


@pytest.mark.parametrize("preset", [p for p in PRESETS if p != "BinaryConnect"])
def test_nan_has_no_bit_and_no_int8(preset):
    packed = PackedLinear.from_layer(PRESETS[preset](12, 5))
    x = torch.ones(3, 12)
    x[1, 4] = float("nan")
    with pytest.raises(ValueError, match="x holds NaN"):
        packed(x)


def test_infinity_has_no_int8():
    packed = PackedLinear.from_layer(BitLinear(12, 5, norm=False))
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        packed(torch.full((1, 12), float("inf")))


@pytest.mark.parametrize("shape", [(3, 6, 6), (1, 2, 6, 6)])
def test_images_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match="PackedConv2d wants x"):
        PackedConv2d.from_layer(BinaryConv2d(3, 4, 3))(torch.ones(shape))


def test_a_packed_layer_in_half_precision_refuses_to_run():
    packed = PackedLinear.from_layer(BinaryLinear(12, 5)).half()
    with pytest.raises(TypeError, match=r"converted to torch\.float16.*use \.float\(\)"):
        packed(torch.ones(1, 12))


# ---- every path of C ---------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", available_kernels())
@given(SEEDS, convolutions(), st.integers(0, 3), st.integers(7, 9), st.integers(7, 10))
@settings(max_examples=25)
def test_every_kernel_path_convolves_as_the_layer(kernel, seed, options, n, height, width):
    layer = build(QuantConv2d, seed, **options)
    packed = PackedConv2d.from_layer(layer)
    x = dirty(torch.randn(n, options["in_channels"], height, width, dtype=options["dtype"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_KERNEL", kernel)
        assert torch.equal(packed(x), layer(x))


@pytest.mark.parametrize("kernel", available_kernels())
@pytest.mark.parametrize("channels", [1, 31, 32, 33, 64, 65, 100])
def test_images_are_packed_place_by_place(channels, kernel, monkeypatch):
    monkeypatch.setenv("ONEBIT_KERNEL", kernel)
    for dtype in (torch.float16, torch.float32, torch.float64):
        x = dirty(torch.randn(2, channels, 17, 19, dtype=dtype))
        for laid_out in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3)):
            assert torch.equal(pack_images(laid_out), pack_signs(laid_out.permute(0, 2, 3, 1)))
        x[1, channels // 2, 16, 18] = float("nan")
        with pytest.raises(ValueError, match="x holds NaN"):
            pack_images(x)


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("n", [1, 3])
def test_threads_share_a_large_convolution(threads, n, monkeypatch):
    monkeypatch.setenv("ONEBIT_NUM_THREADS", threads)
    for options in ({"pad_value": 1}, {"pad_value": 0, "groups": 2}):
        layer = build(BinaryConv2d, 0, 64, 66, 3, padding=1, **options)
        x = dirty(torch.randn(n, 64, 30, 41))
        assert torch.equal(PackedConv2d.from_layer(layer)(x), layer(x))


def test_a_convolution_follows_its_state_and_dtype():
    layer = build(BinaryConv2d, 0, 3, 5, 3, padding=1)
    packed = PackedConv2d.from_layer(layer)
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(packed(x), layer(x))
    for twin in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(twin(x), layer(x))
    y = packed.double()(x.double())
    assert y.dtype == torch.float64 and torch.equal(y, layer.double()(x.double()))


def test_images_of_an_absurd_size_are_refused():
    layer = QuantConv2d(
        1, 2, 1, padding=2**30, pad_value=1, weight_quant=BinarySign(), input_quant=BinarySign()
    )
    with pytest.raises(ValueError, match="fit in no memory"):
        PackedConv2d.from_layer(layer)(torch.ones(1, 1, 2, 2))
