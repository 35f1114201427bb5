"""Layers compute an integer product, then the scales, then the bias, and say what they refuse."""

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onebit.layers import (
    BinaryConnectLinear,
    BinaryConv2d,
    BinaryLinear,
    BitLinear,
    QuantConv2d,
    QuantLinear,
    XNORConv2d,
    XNORLinear,
    no_autocast,
    rescale,
)
from onebit.quantizers import (
    BinaryAbsMean,
    BinarySign,
    Int8AbsMax,
    Quantizer,
    ScaledBinary,
    TernaryAbsMean,
)
from onebit.ste import binary_sign

LINEARS = {
    "BinaryConnect": lambda k, n, **o: BinaryConnectLinear(k, n, **o),
    "stochastic BinaryConnect": lambda k, n, **o: BinaryConnectLinear(k, n, stochastic=True, **o),
    "BinaryNet": lambda k, n, **o: BinaryLinear(k, n, **o),
    "XNOR-Net": lambda k, n, **o: XNORLinear(k, n, **o),
    "XNOR-Net with input scale": lambda k, n, **o: XNORLinear(k, n, input_scale=True, **o),
    "b1.58": lambda k, n, **o: BitLinear(k, n, **o),
    "b1": lambda k, n, **o: BitLinear(k, n, version="b1", **o),
    "bare b1.58": lambda k, n, **o: BitLinear(k, n, norm=False, **o),
    "float": lambda k, n, **o: QuantLinear(k, n, **o),
}


@pytest.fixture(params=LINEARS)
def make(request):
    return LINEARS[request.param]


# ---- what they compute -------------------------------------------------------------------------


def test_scales_are_applied_one_by_one_each_step_rounded():
    torch.manual_seed(0)
    product = torch.randint(-300, 300, (50, 7)).float()
    w_scale, a_scale, K, bias = torch.rand(7), torch.rand(50, 1), torch.rand(50, 1), torch.randn(7)
    steps = [v.numpy() for v in (product, w_scale, a_scale, K, bias)]
    expected = ((steps[0] * steps[1]) * steps[2]) * steps[3] + steps[4]
    assert torch.equal(rescale(product, w_scale, a_scale, K, bias), torch.from_numpy(expected))
    folded = product * (w_scale * a_scale) * K + bias
    assert not torch.equal(rescale(product, w_scale, a_scale, K, bias), folded)


def test_binaryconnect_multiplies_real_inputs_by_signs():
    layer = BinaryConnectLinear(7, 3)
    x = torch.randn(5, 7)
    assert torch.equal(layer(x), F.linear(x, binary_sign(layer.weight)) + layer.bias)


def test_stochastic_binaryconnect_is_tested_with_its_real_weights():
    layer = BinaryConnectLinear(7, 3, bias=False, stochastic=True)
    x = torch.randn(5, 7)
    assert torch.equal(layer.eval()(x), F.linear(x, layer.weight))
    assert not torch.equal(layer.train()(x), layer(x))


def test_binarynet_counts_agreements_exactly():
    layer = BinaryLinear(64, 3, bias=False)
    x = torch.randn(5, 64)
    agree = ((x >= 0)[:, None, :] == (layer.weight >= 0)[None]).sum(2)
    assert torch.equal(layer(x), (2 * agree - 64).float())


@pytest.mark.parametrize("input_scale", [False, True])
def test_xnor_net_scales_each_output_and_if_asked_each_row(input_scale):
    layer = XNORLinear(9, 4, input_scale=input_scale)
    x = torch.randn(5, 9)
    y = F.linear(binary_sign(x), binary_sign(layer.weight)) * layer.weight.abs().mean(1)
    if input_scale:
        y = y * x.abs().mean(1, keepdim=True)
    assert torch.equal(layer(x), y + layer.bias)


def test_bitlinear_normalises_quantises_and_rescales():
    layer = BitLinear(16, 4, dtype=torch.float64)
    x = torch.randn(5, 16, dtype=torch.float64)
    a = x / (x.square().mean(1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt()
    step = a.abs().amax(1, keepdim=True) / 127
    gamma = layer.weight.abs().mean()
    w_b = (layer.weight / gamma).round().clamp(-1, 1)
    expected = F.linear((a / step).round(), w_b) * gamma * step
    torch.testing.assert_close(layer(x), expected, rtol=1e-13, atol=1e-13)


def test_b1_layer_has_a_layer_norm_and_binary_weights():
    layer = BitLinear(16, 4, version="b1")
    assert isinstance(layer.norm, nn.LayerNorm) and isinstance(layer.weight_quant, BinaryAbsMean)
    assert isinstance(BitLinear(16, 4).norm, nn.RMSNorm)
    assert layer.bias is None and isinstance(BitLinear(16, 4, norm=False).norm, nn.Identity)


def test_a_layer_without_quantizers_is_a_linear_layer():
    layer, plain = QuantLinear(6, 4), nn.Linear(6, 4)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize("pad_value", [-1, 0, 1])
def test_padding_is_put_on_after_quantising(pad_value):
    layer = BinaryConv2d(2, 3, 3, padding=(1, 2), pad_value=pad_value, bias=False)
    x = torch.randn(2, 2, 5, 6)
    padded = torch.full((2, 2, 7, 10), float(pad_value))
    padded[:, :, 1:-1, 2:-2] = binary_sign(x)
    assert torch.equal(layer(x), F.conv2d(padded, binary_sign(layer.weight)))


def test_input_scale_is_the_mean_size_over_channels_averaged_over_each_window():
    layer = XNORConv2d(3, 4, 3, stride=2, padding=1, input_scale=True, dtype=torch.float64)
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    A = F.pad(x.abs().mean(1, keepdim=True), (1, 1, 1, 1))
    K = A.unfold(2, 3, 2).unfold(3, 3, 2).mean((-1, -2))
    product = F.conv2d(binary_sign(x), binary_sign(layer.weight), stride=2, padding=1)
    alpha = layer.weight.abs().mean((1, 2, 3)).reshape(-1, 1, 1)
    expected = product * alpha * K + layer.bias.reshape(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-13, atol=1e-13)


# ---- gradients ---------------------------------------------------------------------------------


def test_gradients_are_those_of_the_paper():
    """BinaryNet, Algorithm 1: the weight's gradient is taken at w_b, the input's is masked."""
    layer = BinaryLinear(3, 2, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.5, 1.0], [1.5, -2.0, 0.0]]))
    x = torch.tensor([[0.3, -1.0, 1.2]], dtype=torch.float64, requires_grad=True)
    g = torch.tensor([[1.0, 10.0]], dtype=torch.float64)
    layer(x).backward(g)
    assert layer.weight.grad.tolist() == [[1, -1, 1], [0, 0, 10]]
    assert x.grad.tolist() == [[1 + 10, -1 - 10, 0]]
    assert torch.equal(layer.bias.grad, g[0])


def test_every_parameter_and_the_input_get_a_finite_gradient(make):
    layer = make(12, 5)
    x = torch.randn(4, 12, requires_grad=True)
    layer(x).square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert bool(tensor.grad.isfinite().all()) and bool((tensor.grad != 0).any())


@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 9))
@settings(max_examples=25)
def test_shapes_of_any_number_of_dimensions(m, k, n):
    layer = XNORLinear(k, n)
    x = torch.randn(m, 2, k)
    y = layer(x)
    assert y.shape == (m, 2, n)
    assert torch.equal(y[0, 0], layer(x[0, 0])) and torch.equal(y[:, 1], layer(x[:, 1]))


# ---- dtypes and devices ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_are_converted_to_the_weights_dtype(make, dtype):
    layer = make(12, 5).eval()
    x = torch.randn(4, 12).to(dtype)
    assert torch.equal(layer(x), layer(x.float())) and layer(x).dtype == torch.float32


def test_autocast_changes_nothing(make):
    layer = make(300, 5).eval()
    x = torch.randn(4, 300)
    plain = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain)


def test_autocast_changes_nothing_in_a_convolution():
    layer = XNORConv2d(64, 4, 3, padding=1, input_scale=True)
    x = torch.randn(2, 64, 6, 6)
    plain = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain)


def test_autocast_stays_off_only_inside():
    x = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with no_autocast(x):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


def test_shapes_can_be_inferred_on_the_meta_device():
    layer = BinaryLinear(6, 4, device="meta")
    assert layer(torch.empty(3, 6, device="meta")).shape == (3, 4)
    conv = XNORConv2d(2, 4, 3, device="meta")
    assert conv(torch.empty(3, 2, 8, 8, device="meta")).shape == (3, 4, 6, 6)


def test_non_contiguous_inputs_and_empty_batches(make):
    torch.manual_seed(0)
    layer = make(12, 5)
    x = torch.randn(12, 8)
    torch.manual_seed(1)
    strided = layer(x.T[::2])
    torch.manual_seed(1)
    # Not equal: torch adds up a mean in the order in which the elements stand in memory.
    torch.testing.assert_close(strided, layer(x.T[::2].contiguous()))
    assert layer(torch.empty(0, 12)).shape == (0, 5)


def test_empty_batch_of_images():
    assert XNORConv2d(2, 4, 3, input_scale=True)(torch.empty(0, 2, 5, 5)).shape == (0, 4, 3, 3)


def test_nan_in_the_input_reaches_the_output():
    for layer in (BinaryLinear(4, 2), XNORLinear(4, 2), BitLinear(4, 2), BinaryConnectLinear(4, 2)):
        assert bool(layer(torch.tensor([[1.0, float("nan"), 1, 1]])).isnan().all())


# ---- copies, files, transforms -----------------------------------------------------------------


def test_layers_copy_pickle_save_and_load(make):
    layer = make(12, 5).eval()
    x = torch.randn(4, 12)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x)) and twin.weight is not layer.weight
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = make(12, 5).eval()
    assert not torch.equal(fresh(x), layer(x))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(x), layer(x))


def test_state_dict_of_a_layer_is_that_of_its_float_counterpart():
    assert BinaryLinear(3, 2).state_dict().keys() == nn.Linear(3, 2).state_dict().keys()
    assert BinaryConv2d(3, 2, 3).state_dict().keys() == nn.Conv2d(3, 2, 3).state_dict().keys()


def test_a_layer_exports():
    layer = BinaryLinear(12, 5)
    x = torch.randn(4, 12)
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))


def test_per_example_gradients_by_vmap():
    layer = BinaryLinear(12, 5)
    x = torch.randn(4, 12)

    def loss(parameters, row):
        return torch.func.functional_call(layer, parameters, (row,)).square().sum()

    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    layer(x).square().sum().backward()
    torch.testing.assert_close(each["weight"].sum(0), layer.weight.grad)


@pytest.mark.slow
def test_layers_compile_in_one_graph(make):
    layer = make(12, 5).eval()
    x = torch.randn(4, 12, requires_grad=True)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(y, layer(x))
    (compiled,) = torch.autograd.grad(y.sum(), x)
    (eager,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(compiled, eager)


@pytest.mark.slow
def test_a_convolution_compiles_in_one_graph():
    layer = XNORConv2d(3, 4, 3, padding=1, input_scale=True)
    x = torch.randn(2, 3, 6, 6)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), layer(x))


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(3, 11), ValueError, r"wants x with 12 features in dimension -1, got \(3, 11\)"),
        (torch.ones(()), ValueError, r"wants x with 12 features in dimension -1, got \(\)"),
        (torch.ones(3, 12, dtype=torch.int64), TypeError, r"float tensor as x, got torch\.int64"),
        ([[1.0] * 12], TypeError, "float tensor as x, got list"),
    ],
    ids=["width", "scalar", "integers", "list"],
)
def test_linear_layers_refuse_inputs_that_do_not_fit(make, x, error, message):
    with pytest.raises(error, match=message):
        make(12, 5)(x)


@pytest.mark.parametrize("shape", [(3, 6, 6), (1, 2, 6, 6), (1, 3, 6)])
def test_convolutions_refuse_inputs_that_do_not_fit(shape):
    with pytest.raises(ValueError, match="BinaryConv2d wants x"):
        BinaryConv2d(3, 4, 3)(torch.ones(shape))


@pytest.mark.parametrize("quantizer", [BinarySign, "sign", torch.sign, nn.Identity()])
@pytest.mark.parametrize("name", ["weight_quant", "input_quant"])
def test_quantizers_are_instances(quantizer, name):
    for build in (lambda **q: QuantLinear(3, 2, **q), lambda **q: QuantConv2d(3, 2, 3, **q)):
        with pytest.raises(TypeError, match=rf"{name} must be a Quantizer instance or None, got"):
            build(**{name: quantizer})


@pytest.mark.parametrize(
    ("sizes", "error"),
    [((0, 3), ValueError), ((3, -1), ValueError), ((3.0, 2), TypeError), ((3, "2"), TypeError)],
)
def test_sizes_are_positive_whole_numbers(sizes, error):
    with pytest.raises(error, match=r"(in|out)_features must"):
        BinaryLinear(*sizes)
    with pytest.raises(error, match=r"(in|out)_channels must"):
        BinaryConv2d(*sizes, 3)


def test_sums_that_float32_cannot_hold_are_refused():
    k = 2**24 // 127
    quantizers = {"weight_quant": TernaryAbsMean(), "input_quant": Int8AbsMax()}
    QuantLinear(k, 1, **quantizers, device="meta")
    with pytest.raises(ValueError, match=r"float32 is exact only below 2\*\*24"):
        QuantLinear(k + 1, 1, **quantizers, device="meta")
    BinaryLinear(2**24 - 1, 1, device="meta")
    with pytest.raises(ValueError, match="sum over 16777216 products"):
        BinaryLinear(2**24, 1, device="meta")
    BinaryConnectLinear(2**24, 1, device="meta")
    with pytest.raises(ValueError, match="sum over 16777216 products"):
        BinaryConv2d(2**20, 1, (4, 4), device="meta")
    BinaryConv2d(2**20, 2, (4, 4), groups=2, device="meta")


def test_the_bound_on_sums_is_needed():
    largest = torch.tensor(2.0**24)
    assert largest - 1 < largest and largest + 1 == largest


@pytest.mark.parametrize("padding", ["same", -1, (0, -2)])
def test_padding_is_given_in_numbers(padding):
    with pytest.raises(ValueError, match="padding must"):
        BinaryConv2d(3, 4, 3, padding=padding)


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match="pad_value must be 0, 1 or -1, got 2"):
        BinaryConv2d(3, 4, 3, pad_value=2)
    with pytest.raises(ValueError, match="needs groups=1, got 2"):
        XNORConv2d(4, 4, 3, groups=2, input_scale=True)
    with pytest.raises(ValueError, match=r"version must be 'b1\.58' or 'b1', got 'b2'"):
        BitLinear(3, 4, version="b2")
    with pytest.raises(ValueError, match="clip_value must be positive"):
        BinaryLinear(3, 4, clip_value=0)


class PerInput(Quantizer):
    """A scale for every input feature, which cannot leave the sum."""

    bits, max_code = 1.0, 1

    def quantize(self, x):
        return binary_sign(x), x.abs().mean(0)


def test_scales_that_vary_inside_a_sum_are_refused():
    x = torch.ones(4, 4)
    with pytest.raises(ValueError, match="weight_quant gives scales of shape"):
        QuantLinear(4, 4, weight_quant=PerInput())(x)
    with pytest.raises(ValueError, match="input_quant gives scales of shape"):
        QuantLinear(4, 4, input_quant=PerInput())(x)
    images = torch.ones(2, 3, 5, 5)
    with pytest.raises(ValueError, match="weight_quant gives scales of shape"):
        QuantConv2d(3, 4, 3, weight_quant=ScaledBinary(granularity="token"))(images)
    with pytest.raises(ValueError, match="vary inside an image"):
        QuantConv2d(3, 4, 3, weight_quant=BinarySign(), input_quant=Int8AbsMax())(images)
