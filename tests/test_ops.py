"""The operators pass torch's own checks, and run inside compiled and exported programs."""

import pytest
import torch
from torch import nn

import onebit
import onebit.ops
from onebit.layers import BinaryConnectLinear, XNORConv2d, XNORLinear
from onebit.packing import PackedConv2d, PackedLinear

OPS = torch.ops.onebit


def signs(*shape):
    return torch.randint(0, 2, shape) * 2 - 1


def words(rows, k):
    return onebit.pack_signs(signs(rows, k))


def ternary(n, k):
    return torch.randint(-1, 2, (n, k))


CALLS = {
    "pack_signs": lambda m, n, k: (torch.randn(m, k),),
    "unpack_signs": lambda m, n, k: (words(m, k), k),
    "xnor_gemm": lambda m, n, k: (words(m, k), words(n, k), k),
    "ternary_gemm": lambda m, n, k: (
        torch.randint(-128, 128, (m, k), dtype=torch.int8),
        onebit.pack_ternary(ternary(n, k)),
    ),
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
    x = torch.randint(-128, 128, (6, 131), dtype=torch.int8)
    packed = OPS.pack_signs(a.float().reshape(2, 3, 131))
    assert torch.equal(packed, onebit.pack_signs(a).reshape(2, 3, -1))
    assert torch.equal(OPS.unpack_signs(packed, 131).reshape(6, 131).long(), a)
    product = OPS.xnor_gemm(packed.reshape(6, -1), OPS.pack_signs(b), 131)
    assert torch.equal(product.long(), a @ b.T)
    assert torch.equal(OPS.ternary_gemm(x, onebit.pack_ternary(w)).long(), x.long() @ w.T)


def test_operators_refuse_what_does_not_fit_as_the_package_does():
    with pytest.raises(ValueError, match="x holds NaN"):
        OPS.pack_signs(torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match=r"b has shape \(5, 2\); k = 200"):
        OPS.xnor_gemm(words(3, 200), words(5, 70), 200)
    with pytest.raises(TypeError, match="x_int8 must have dtype int8"):
        OPS.ternary_gemm(torch.ones(3, 32), onebit.pack_ternary(ternary(5, 32)))


@pytest.mark.slow
@pytest.mark.parametrize("input_scale", [False, True])
def test_packed_binary_layers_compile_and_export_whole(input_scale):
    linear = PackedLinear.from_layer(XNORLinear(100, 10, input_scale=input_scale))
    conv = PackedConv2d.from_layer(XNORConv2d(4, 6, 3, padding=1, input_scale=input_scale))
    floats = PackedLinear.from_layer(BinaryConnectLinear(100, 10))
    for layer, x in (
        (linear, torch.randn(4, 100)),
        (conv, torch.randn(2, 4, 9, 9)),
        (floats, torch.randn(4, 100)),
    ):
        assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
        assert torch.equal(torch.export.export(layer, (x,)).module()(x), layer(x))


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
