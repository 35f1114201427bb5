"""The operators pass torch's own checks, and run inside compiled and exported programs."""

import pytest
import torch
from torch import nn

import onebit
import onebit.ops
from onebit.layers import (
    BinaryConnectLinear,
    BitLinear,
    QuantConv2d,
    QuantLinear,
    XNORConv2d,
    XNORLinear,
)
from onebit.packing import PackedConv2d, PackedLinear
from onebit.quantizers import Int8AbsMax, TernaryAbsMean

OPS = torch.ops.onebit


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    """Torch gives up on a function that it has compiled for eight kinds of modules."""
    torch._dynamo.reset()


def signs(*shape):
    return torch.randint(0, 2, shape) * 2 - 1


def words(rows, k):
    return onebit.pack_signs(signs(rows, k))


def ternary(n, k):
    return torch.randint(-1, 2, (n, k))


def integers(m, k):
    return torch.randint(-128, 128, (m, k), dtype=torch.int8)


CALLS = {
    "pack_signs": lambda m, n, k: (torch.randn(m, k),),
    "unpack_signs": lambda m, n, k: (words(m, k), k),
    "xnor_gemm": lambda m, n, k: (words(m, k), words(n, k), k),
    "ternary_gemm": lambda m, n, k: (integers(m, k), onebit.pack_ternary(ternary(n, k))),
    "unpack_ternary": lambda m, n, k: (onebit.pack_ternary(ternary(m, k)), k),
    "prepack": lambda m, n, k: (words(n, k), k),
    "prepack_ternary": lambda m, n, k: (onebit.pack_ternary(ternary(n, k)), k),
    "xnor_gemm_lanes": lambda m, n, k: (words(m, k), OPS.prepack(words(n, k), k), n, k),
    "ternary_gemm_lanes": lambda m, n, k: (
        integers(m, k),
        OPS.prepack_ternary(onebit.pack_ternary(ternary(n, k)), k),
        n,
    ),
    "int8_codes": lambda m, n, k: (integers(m, k).float(),),
}


@pytest.mark.parametrize("shape", [(3, 5, 70), (1, 17, 64), (0, 5, 130)], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_an_operator_passes_the_checks_of_torch(name, shape):
    operator = getattr(OPS, name).default
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(operator, CALLS[name](*shape), test_utils=tests)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_an_operator_passes_the_check_of_dynamic_shapes_too(name):
    torch.library.opcheck(getattr(OPS, name).default, CALLS[name](3, 5, 70))


@pytest.mark.parametrize("kernel", onebit.available_kernels())
def test_operators_give_the_integers_of_the_package(kernel, monkeypatch):
    monkeypatch.setenv("ONEBIT_KERNEL", kernel)
    a, b, w = signs(6, 131), signs(9, 131), ternary(9, 131)
    x = integers(6, 131)
    packed = OPS.pack_signs(a.float().reshape(2, 3, 131))
    assert torch.equal(packed, onebit.pack_signs(a).reshape(2, 3, -1))
    assert torch.equal(OPS.unpack_signs(packed, 131).reshape(6, 131).long(), a)
    product = OPS.xnor_gemm(packed.reshape(6, -1), OPS.pack_signs(b), 131)
    assert torch.equal(product.long(), a @ b.T)
    codes = onebit.pack_ternary(w)
    assert torch.equal(OPS.ternary_gemm(x, codes).long(), x.long() @ w.T)
    assert torch.equal(OPS.unpack_ternary(codes, 131).long(), w)
    lanes = OPS.prepack(OPS.pack_signs(b), 131)
    product = OPS.xnor_gemm_lanes(packed.reshape(6, -1), lanes, 9, 131)
    assert torch.equal(product.long(), a @ b.T)
    lanes = OPS.prepack_ternary(codes, 131)
    assert torch.equal(OPS.ternary_gemm_lanes(x, lanes, 9).long(), x.long() @ w.T)
    assert torch.equal(OPS.int8_codes(x.double()), x)


def test_operators_refuse_what_does_not_fit_as_the_package_does():
    with pytest.raises(ValueError, match="x holds NaN"):
        OPS.pack_signs(torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match=r"b has shape \(5, 2\); k = 200"):
        OPS.xnor_gemm(words(3, 200), words(5, 70), 200)
    with pytest.raises(TypeError, match="x_int8 must have dtype int8"):
        OPS.ternary_gemm(torch.ones(3, 32), onebit.pack_ternary(ternary(5, 32)))
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        OPS.int8_codes(torch.tensor([1.0, float("nan")]))


@pytest.mark.parametrize(
    "lanes",
    [
        torch.zeros(1, 4, 16, dtype=torch.int32),
        torch.zeros(2, 3, 16, dtype=torch.int32),
        torch.zeros(2, 4, 16, dtype=torch.int64),
    ],
    ids=["outputs", "inputs", "dtype"],
)
def test_lanes_of_other_weights_are_refused_before_c_reads_them(lanes):
    with pytest.raises(ValueError, match="lanes must be an int32 tensor of shape"):
        OPS.xnor_gemm_lanes(words(3, 100), lanes, 20, 100)


def test_lanes_with_gaps_between_them_are_read_right():
    a, b = words(3, 100), words(20, 100)
    lanes = OPS.prepack(b, 100)
    strided = torch.stack([lanes, lanes], dim=-1)[..., 0]
    assert torch.equal(OPS.xnor_gemm_lanes(a, strided, 20, 100), onebit.xnor_gemm(a, b, 100))


PACKED = {
    "XNORLinear": lambda: XNORLinear(100, 10),
    "XNORLinear with K": lambda: XNORLinear(100, 10, input_scale=True),
    "BinaryConnectLinear": lambda: BinaryConnectLinear(100, 10),
    "BitLinear": lambda: BitLinear(100, 10),
    "BitLinear b1": lambda: BitLinear(100, 10, version="b1"),
    "ternary weights": lambda: QuantLinear(100, 10, weight_quant=TernaryAbsMean()),
    "XNORConv2d": lambda: XNORConv2d(4, 6, 3, padding=1),
    "XNORConv2d with K": lambda: XNORConv2d(4, 6, 3, padding=1, input_scale=True),
    "ternary convolution": lambda: QuantConv2d(
        4, 6, 3, groups=2, weight_quant=TernaryAbsMean(), input_quant=Int8AbsMax("tensor")
    ),
}


def packed_with_input(name):
    layer = PACKED[name]().eval()
    if isinstance(layer, QuantConv2d):
        return PackedConv2d.from_layer(layer), torch.randn(2, 4, 9, 9)
    return PackedLinear.from_layer(layer), torch.randn(4, 100)


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKED)
def test_packed_layers_compile_and_export_whole(name):
    layer, x = packed_with_input(name)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))


@pytest.mark.parametrize("name", ["XNORLinear", "BitLinear"])
def test_an_exported_layer_takes_weights_that_were_laid_out_once(name):
    layer, x = packed_with_input(name)
    batch = {0: torch.export.Dim("m", min=1)}
    program = torch.export.export(layer, (x,), dynamic_shapes=(batch,))
    code = "".join(m.code for m in program.graph_module.modules())
    assert "gemm_lanes" in code and "prepack" not in code
    more = torch.randn(9, 100)
    assert torch.equal(program.module()(more), layer(more))


REAL_INPUTS = {"BinaryConnectLinear", "ternary weights"}


@pytest.mark.parametrize("name", ["network", *sorted(PACKED.keys() - REAL_INPUTS)])
def test_an_exported_program_refuses_nan_and_leaves_gradients_on(name):
    if name == "network":
        module, x = onebit.pack(nn.Sequential(XNORLinear(70, 33), XNORLinear(33, 5))), signs(4, 70)
    else:
        module, x = packed_with_input(name)
    x = torch.full(x.shape, float("nan"))
    for forward in (module, torch.export.export(module, (x,)).module()):
        with pytest.raises(ValueError, match="NaN"):
            forward(x)
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["XNORLinear", "BitLinear"])
def test_lanes_follow_the_words_and_are_in_no_file(name):
    layer, x = packed_with_input(name)
    other, _ = packed_with_input(name)
    assert "weight_lanes" not in layer.state_dict()
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer.weight_lanes, other.weight_lanes)
    assert torch.equal(layer(x), other(x))
    layer.share_memory()  # moves every buffer, the lanes among them
    assert torch.equal(layer(x), other(x))


class BitLayer(nn.Module):
    """A binary layer written with the operators."""

    def __init__(self, k, n):
        super().__init__()
        self.k = k
        self.register_buffer("weight_words", words(n, k))

    def forward(self, x):
        return OPS.xnor_gemm(OPS.pack_signs(x), self.weight_words, self.k).float()


@pytest.mark.slow
def test_a_network_of_operators_compiles_into_one_graph():
    net = nn.Sequential(BitLayer(100, 70), BitLayer(70, 10))
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=True)
    for m in (4, 7):
        x = torch.randn(m, 100)
        assert torch.equal(compiled(x), net(x))


@pytest.mark.slow
def test_a_network_of_operators_is_exported_for_every_batch():
    net = nn.Sequential(BitLayer(100, 70), BitLayer(70, 10))
    batch = {0: torch.export.Dim("m", min=1)}
    program = torch.export.export(net, (torch.randn(4, 100),), dynamic_shapes=(batch,))
    assert "onebit.xnor_gemm" in program.graph_module.code
    x = torch.randn(9, 100)
    assert torch.equal(program.module()(x), net(x))
