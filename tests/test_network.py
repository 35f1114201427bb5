"""A packed network returns the very floats of the network it was made from, on every path."""

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import DTYPES, NETS, SEEDS, binarynet_cnn, images, kinds, same, shake, xnornet_cnn
from torch import nn

import onebit
from onebit.blocks import Sign
from onebit.kernels import available_kernels
from onebit.layers import (
    BinaryConnectLinear,
    BinaryConv2d,
    BinaryLinear,
    BitLinear,
    QuantLinear,
    XNORLinear,
)
from onebit.models import binarynet_mlp
from onebit.network import PackSigns, pack
from onebit.quantizers import BinarySign, TernaryAbsMean

# ---- same outputs ------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 3), st.integers(1, 150), st.integers(0, 9), DTYPES)
@settings(max_examples=40)
def test_a_packed_binarynet_mlp_gives_the_same_floats(seed, depth, width, m, dtype):
    model = binarynet_mlp(width=width, depth=depth, in_features=20, dtype=dtype)
    packed = same(shake(model, seed), torch.randn(m, 20, dtype=dtype))
    blocks = ["PackedBlock"] * depth
    assert kinds(packed) == ["PackedLinear", "BatchNorm1d", "PackSigns", *blocks, "BatchNorm1d"]


LINEAR = {
    "bias, no batch norm, sign between": lambda d: [
        BinaryLinear(30, 70, dtype=d), Sign(), BinaryLinear(70, 9, dtype=d)],
    "no sign but the next layer's": lambda d: [
        XNORLinear(30, 70, dtype=d), nn.BatchNorm1d(70, dtype=d), XNORLinear(70, 9, dtype=d)],
    "nothing between": lambda d: [XNORLinear(30, 65, dtype=d), XNORLinear(65, 9, dtype=d)],
    "batch norm without γ": lambda d: [
        BinaryLinear(30, 8, dtype=d), nn.BatchNorm1d(8, affine=False, dtype=d), Sign(),
        BinaryLinear(8, 3, dtype=d)],
    "dropout and identity": lambda d: [
        BinaryLinear(30, 8, dtype=d), nn.Identity(), nn.BatchNorm1d(8, dtype=d), Sign(),
        nn.Dropout(0.5), BinaryLinear(8, 3, dtype=d)],
    "beta of XNOR-Net": lambda d: [
        XNORLinear(30, 8, input_scale=True, dtype=d), nn.BatchNorm1d(8, dtype=d),
        XNORLinear(8, 5, input_scale=True, dtype=d), XNORLinear(5, 3, dtype=d)],
    "ReLU": lambda d: [
        BinaryLinear(30, 8, dtype=d), nn.BatchNorm1d(8, dtype=d), nn.ReLU(),
        BinaryLinear(8, 3, dtype=d), nn.ReLU()],
    "float layers at both ends": lambda d: [
        nn.Linear(30, 40, dtype=d), nn.BatchNorm1d(40, dtype=d), BinaryLinear(40, 50, dtype=d),
        nn.BatchNorm1d(50, dtype=d), BinaryLinear(50, 20, dtype=d), nn.BatchNorm1d(20, dtype=d),
        nn.Linear(20, 3, dtype=d)],
    "zero is minus": lambda d: [
        QuantLinear(30, 8, weight_quant=BinarySign(), input_quant=BinarySign(zero=-1), dtype=d),
        nn.BatchNorm1d(8, dtype=d), BinaryLinear(8, 4, dtype=d),
        QuantLinear(4, 3, weight_quant=BinarySign(), input_quant=BinarySign(zero=-1), dtype=d)],
    "float weights behind bits": lambda d: [
        BinaryLinear(30, 8, dtype=d), nn.BatchNorm1d(8, dtype=d), Sign(),
        BinaryConnectLinear(8, 4, dtype=d)],
}  # fmt: skip


@pytest.mark.parametrize("case", LINEAR)
@given(SEEDS, DTYPES)
@settings(max_examples=10)
def test_packed_linear_networks_give_the_same_floats(case, seed, dtype):
    model = shake(nn.Sequential(*LINEAR[case](dtype)), seed)
    x = torch.randn(7, 30, dtype=dtype)
    x[x.abs() < 0.1] = 0.0
    same(model, x)


@given(SEEDS, images(), st.integers(0, 3))
@settings(max_examples=50)
def test_packed_convolutional_networks_give_the_same_floats(seed, drawn, n):
    model, channels, dtype = drawn
    packed = same(shake(model, seed), torch.randn(n, channels, 9, 9, dtype=dtype))
    # Everything is binary, so only the entrance sees floats.
    assert kinds(packed) == ["PackSigns"] + ["PackedBlock"] * (len(packed) - 1)
    assert all(block.thresholds is not None for block in packed[1:-1])


@pytest.mark.parametrize("kernel", available_kernels())
@pytest.mark.parametrize("net", NETS)
def test_the_papers_networks_give_the_same_floats_on_every_kernel_path(net, kernel, monkeypatch):
    monkeypatch.setenv("ONEBIT_KERNEL", kernel)
    build, size = NETS[net]
    for seed, dtype in enumerate([torch.float32, torch.float64]):
        same(shake(build(dtype), seed), torch.randn(5, *size, dtype=dtype))


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS)
def test_the_papers_networks_compile_and_export_whole(net):
    build, size = NETS[net]
    model, x = shake(build(), 0), torch.randn(4, *size)
    packed = pack(model)
    torch._dynamo.reset()
    # Exported before it ever ran: tracing leaves nothing behind in the network.
    assert torch.equal(torch.export.export(packed, (x,)).module()(x), model(x))
    assert torch.equal(packed(x), model(x))
    compiled = torch.compile(packed, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), model(x))
    packed.load_state_dict(pack(shake(build(), 1)).state_dict())
    assert torch.equal(torch.export.export(packed, (x,)).module()(x), packed(x))


def test_bits_flow_wherever_the_next_layer_takes_them():
    chain = ["PackSigns", "PackedBlock", "PackedBlock"]
    assert kinds(pack(binarynet_cnn())) == [
        "PackedConv2d", "BatchNorm2d", *chain, *chain[1:], "BatchNorm1d"]  # fmt: skip
    plain = kinds(pack(xnornet_cnn()))
    assert plain[:5] == ["Conv2d", "BatchNorm2d", *chain]
    assert plain[5:] == ["PackedBlock", "BatchNorm1d", "ReLU", "Linear"]
    scaled = pack(xnornet_cnn(input_scale=True))
    assert kinds(scaled)[:5] == [
        "Conv2d",
        "BatchNorm2d",
        "PackedConv2d",
        "MaxPool2d",
        "BatchNorm2d",
    ]
    grouped = [BinaryConv2d(4, 4, 1, groups=2), BinaryConv2d(4, 4, 1, groups=2)]
    assert kinds(pack(nn.Sequential(*grouped))) == ["PackedConv2d"] * 2


def test_a_trained_network_gives_the_same_predictions():
    torch.manual_seed(0)
    x, model = torch.randn(300, 784), binarynet_mlp(width=64)
    y = (x[:, :10] @ torch.randn(10, 10)).argmax(1)
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    for _ in range(20):
        optimizer.zero_grad()
        onebit.training.squared_hinge(model(x), y).backward()
        optimizer.step()
    same(model.eval(), x)


def test_a_layer_that_stands_twice_runs_twice():
    layer = BinaryLinear(30, 30)
    model = shake(nn.Sequential(layer, Sign(), layer, Sign(), layer), 0)
    assert len(same(model, torch.randn(5, 30))) == 4


@pytest.mark.parametrize("size", [(2, 66, 8, 5), (2, 66, 5, 8), (0, 66, 8, 8)])
def test_one_packed_network_serves_images_of_several_sizes_and_layouts(size):
    convs = [BinaryConv2d(66, 66, 3, padding=1), nn.BatchNorm2d(66), BinaryConv2d(66, 5, 3)]
    model = shake(nn.Sequential(*convs), 0)
    packed = same(model, torch.randn(2, 66, 6, 6))
    x = torch.randn(size)
    for laid_out in (x, x.to(memory_format=torch.channels_last), x.double()):
        assert torch.equal(packed(laid_out), model(laid_out))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(packed(x), model(x))


def test_values_that_round_to_zero_in_the_layer_are_plus():
    x = torch.tensor([[-1e-60, 1.0, -1.0]], dtype=torch.float64)
    packed = same(nn.Sequential(BinaryLinear(3, 2)).eval(), x)
    assert onebit.unpack_signs(packed[0](x), 3).tolist() == [[1, 1, -1]]


# ---- thresholds --------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 40), DTYPES, st.booleans(), st.booleans())
@settings(max_examples=30)
def test_a_threshold_answers_as_the_modules_do_at_every_accumulator(seed, k, dtype, bias, affine):
    n = 25
    layer = XNORLinear(k, n, bias=bias, dtype=dtype)
    norm = nn.BatchNorm1d(n, affine=affine, dtype=dtype)
    model = shake(nn.Sequential(layer, norm, Sign(), BinaryLinear(n, 2, dtype=dtype)), seed)
    block = pack(model)[1]
    # An input with j signs of the weight's row flipped has the accumulator k − 2 j there.
    rows = layer.weight.detach().sign()
    rows[rows == 0] = 1.0
    for j in range(k + 1):
        x = rows.clone()
        x[:, :j] *= -1
        acc = torch.full((n,), k - 2 * j)
        asked = model[:3](x).diagonal() > 0
        assert torch.equal((acc >= block.thresholds) ^ block.flip, asked)
    falls = norm.weight < 0 if affine else torch.zeros(n, dtype=torch.bool)
    constant = block.thresholds == -k
    assert torch.equal(block.flip[~constant], falls[~constant])


def test_a_zero_gamma_is_a_constant():
    model = nn.Sequential(BinaryLinear(9, 3), nn.BatchNorm1d(3), Sign(), BinaryLinear(3, 2)).eval()
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    block = same(model, torch.randn(20, 9))[1]
    assert block.thresholds.tolist() == [-9, -9, -9] and block.flip.tolist() == [False, False, True]


def test_pooling_is_or_where_gamma_is_positive_and_and_where_it_is_negative():
    pool = nn.MaxPool2d(2)
    convs = [BinaryConv2d(1, 2, 1, bias=False), pool, nn.BatchNorm2d(2), BinaryConv2d(2, 1, 1)]
    model = nn.Sequential(*convs).eval()
    with torch.no_grad():
        convs[0].weight.fill_(1.0)
        convs[2].weight.copy_(torch.tensor([1.0, -1.0]))
    block = same(model, torch.randn(1, 1, 8, 8))[1]
    corners = torch.tensor([[bool(i >> b & 1) for b in range(4)] for i in range(16)])
    x = torch.where(corners, 1.0, -1.0).reshape(16, 1, 2, 2)
    bits = onebit.unpack_signs(block(PackSigns(1, True)(x)), 2).reshape(16, 2) > 0
    assert torch.equal(bits[:, 0], corners.any(1))
    assert torch.equal(bits[:, 1], (~corners).all(1))
    same(model, x)


# ---- modes, state ------------------------------------------------------------------------------


def test_packing_leaves_the_model_as_it_was():
    model = shake(binarynet_cnn(), 0).train()
    before = copy.deepcopy(model.state_dict())
    packed = pack(model)
    assert all(m.training for m in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    x = torch.randn(4, 3, 8, 8)
    y = packed(x)
    with torch.no_grad():
        for p in model.parameters():
            p.neg_()
    assert torch.equal(packed(x), y)


def test_a_packed_network_stays_in_evaluation_mode():
    model = shake(binarynet_mlp(width=20), 0)
    net, x = nn.Sequential(pack(model)).train(), torch.randn(4, 784)
    assert torch.equal(net(x), model(x)) and not net[0][1].training


def test_state_copies_and_pickles_give_the_same_outputs():
    first, second = (shake(binarynet_cnn(), seed) for seed in (1, 2))
    x = torch.randn(4, 3, 8, 8)
    packed, other = pack(first), pack(second)
    assert not torch.equal(packed(x), other(x))
    other.load_state_dict(packed.state_dict())
    for twin in (other, copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
        assert torch.equal(twin(x), first(x))


# ---- refusals ----------------------------------------------------------------------------------


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Doubled(BinaryLinear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Tanh(), "model.0.1 is a Tanh, which pack does not know"),
        (nn.AvgPool2d(2), "model.0.1 is a AvgPool2d"),
        (Residual(BinaryLinear(4, 4)), "model.0.1 is a Residual"),
        (Doubled(4, 4), "model.0.1 is a Doubled"),
        (BitLinear(4, 4), "model.0.1 is a BitLinear.*PackedLinear.from_layer"),
        (nn.LayerNorm(4), "model.0.1 is a LayerNorm"),
        (
            QuantLinear(4, 4, weight_quant=TernaryAbsMean(), input_quant=BinarySign()),
            "model.0.1 has ternary weights",
        ),
        (
            QuantLinear(4, 4, weight_quant=BinarySign(), input_quant=TernaryAbsMean()),
            "model.0.1 quantises its input with TernaryAbsMean",
        ),
        (BinaryLinear(4, 4).half(), "model.0.1: layer has weights of torch.float16"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_pack_does_not_know_is_refused_by_name(module, message):
    with pytest.raises(TypeError, match=message):
        pack(nn.Sequential(nn.Sequential(BinaryLinear(4, 4), module)))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (BinaryConnectLinear(4, 4, stochastic=True), "model.1: layer draws its weights at random"),
        (QuantLinear(4, 4, input_quant=BinarySign()), "model.1: layer has weight_quant=None"),
        (BinaryLinear(4, 4, device="meta"), "model.1: layer is on meta"),
        (nn.BatchNorm1d(4, track_running_stats=False), "model.1 has no running statistics"),
        (nn.MaxPool2d(2, return_indices=True), "model.1 returns indices"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_its_place(module, message):
    with pytest.raises(ValueError, match=message):
        pack(nn.Sequential(BinaryLinear(4, 4), module))


@pytest.mark.parametrize("model", [None, BinaryLinear, [BinaryLinear(2, 2)]])
def test_only_modules_are_packed(model):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        pack(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["weight", "bias", "running_mean"])
def test_a_batch_norm_that_gives_no_number_is_not_folded(name, value):
    model = nn.Sequential(BinaryLinear(4, 3), nn.BatchNorm1d(3), Sign(), BinaryLinear(3, 2))
    getattr(model[1], name).data[1] = value
    with pytest.raises(ValueError, match="gives NaN or infinity"):
        pack(model)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.ones(3, 11), ValueError, "PackSigns wants x with 12 features in dimension -1"),
        (torch.ones(2, 3, 12), ValueError, r"PackSigns wants x of shape \(N, 12\)"),
        (torch.ones(3, 12, dtype=torch.int8), TypeError, "PackSigns wants a float tensor"),
        (torch.full((3, 12), float("nan")), ValueError, "x holds NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, error, message):
    packed = pack(nn.Sequential(BinaryLinear(12, 3), Sign(), BinaryLinear(3, 2)))
    with pytest.raises(error, match=message):
        packed(x)


def test_images_that_do_not_fit_are_refused():
    convs = [BinaryConv2d(2, 3, 3), Sign(), BinaryConv2d(3, 3, 3)]
    packed = pack(nn.Sequential(*convs, nn.Flatten(), BinaryLinear(12, 2)))
    packed(torch.ones(1, 2, 6, 6))
    for shape, message in [
        ((1, 3, 6, 6), "PackSigns wants x with 2 features in dimension 1"),
        ((2, 6, 6), r"PackSigns wants x of shape \(N, C, H, W\)"),
        ((1, 2, 4, 4), r"images of size \(2, 2\) are smaller than \(3, 3\)"),
        ((1, 2, 7, 7), "PackedBlock wants 4 words a sample"),
    ]:
        with pytest.raises(ValueError, match=message):
            packed(torch.ones(shape))
    with pytest.raises(ValueError, match=r"PackedBlock wants words of shape \(N, H, W, 1\)"):
        packed[1](torch.ones(3, 2, dtype=torch.int64))


def test_a_packed_network_in_half_precision_refuses_to_run():
    packed = pack(nn.Sequential(BinaryLinear(12, 3), Sign(), BinaryLinear(3, 2))).half()
    with pytest.raises(TypeError, match=r"converted to torch\.float16"):
        packed(torch.ones(1, 12))


# ---- one call of C -----------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", available_kernels())
@given(SEEDS, images(), st.integers(0, 40))
@settings(max_examples=15)
def test_stages_in_one_call_give_what_they_give_one_by_one(kernel, seed, drawn, n):
    model, channels, dtype = drawn
    packed = pack(shake(model, seed))
    x = torch.randn(n, channels, 9, 9, dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBIT_KERNEL", kernel)
        y = packed(x)
        for stage in packed:
            x = stage(x)
    assert torch.equal(y, x)


@pytest.mark.parametrize("threads", ["1", "2", "5"])
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 200])
def test_threads_and_tiles_change_nothing(threads, n, monkeypatch):
    monkeypatch.setenv("ONEBIT_NUM_THREADS", threads)
    monkeypatch.setattr("onebit._chain.WORK_FOR_A_THREAD", 1)
    same(shake(binarynet_mlp(width=150, in_features=30), 0), torch.randn(n, 30))
    same(shake(binarynet_cnn(), 1), torch.randn(n, 3, 8, 8))


def test_python_threads_share_a_network(monkeypatch):
    monkeypatch.setattr("onebit._chain.WORK_FOR_A_THREAD", 1)
    model = shake(binarynet_cnn(), 0)
    packed = pack(model)
    sizes = [(n, 3, 8, 8) for n in (1, 5, 40)] * 4
    xs = [torch.randn(size) for size in sizes]
    with torch.no_grad():
        expected = [model(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            assert all(map(torch.equal, pool.map(packed, xs), expected))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_network_runs_on_after_a_fork(monkeypatch):
    monkeypatch.setattr("onebit._chain.WORK_FOR_A_THREAD", 1)
    monkeypatch.setenv("ONEBIT_NUM_THREADS", "2")
    x = torch.randint(0, 256, (50, 20), dtype=torch.uint8)
    packed = pack(shake(binarynet_mlp(width=70, in_features=20), 0), pixels=torch.Tensor.float)
    block = packed[:2]  # bits only: torch's own threads do not survive a fork
    before = block(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(block(x), before) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_stage_put_in_the_place_of_another_counts():
    first, second = (pack(shake(binarynet_mlp(width=40), seed)) for seed in (1, 2))
    x = torch.randn(4, 784)
    expected, mixed = second(x), first(x)
    assert not torch.equal(expected, mixed)
    for i in range(len(first)):
        first[i] = second[i]
    assert torch.equal(first(x), expected)
    words = second[:4](x)
    del first[4:]
    assert torch.equal(first(x), words) and words.dtype == torch.int64


def test_a_packed_network_follows_its_state_and_dtype():
    model = shake(binarynet_cnn(), 0)
    packed, x = pack(model), torch.randn(4, 3, 8, 8)
    assert torch.equal(packed(x), model(x))
    y = packed.double()(x.double())
    assert y.dtype == torch.float64


def test_what_is_no_word_is_refused_where_words_go_in():
    packed = pack(nn.Sequential(BinaryLinear(12, 3), Sign(), BinaryLinear(3, 2)))[1:]
    with pytest.raises(TypeError, match=r"wants packed words, int64.*got torch\.float32"):
        packed(torch.ones(3, 1))
    with pytest.raises(TypeError, match="got list"):
        packed([1])
    with pytest.raises(ValueError, match=r"use \.cpu\(\)"):
        packed(torch.ones(3, 1, dtype=torch.int64, device="meta"))


def test_no_memory_between_layers_is_an_error(monkeypatch):
    packed = pack(nn.Sequential(BinaryLinear(12, 3), Sign(), BinaryLinear(3, 2)))
    x = torch.ones(1, 12)
    packed(x)
    chain = packed._plan.steps[1].known[2]
    chain._layers[0].n = 2**58  # bytes that no address reaches
    with pytest.raises(MemoryError, match="no memory for what lies between the layers"):
        packed(x)


@pytest.mark.skipif(available_kernels() == ["numpy"], reason="the C kernel is not built")
def test_hooks_fire_where_the_documentation_says_and_stages_run_one_by_one():
    packed, x = pack(shake(binarynet_mlp(width=70, in_features=20), 0)), torch.randn(3, 20)
    fired = []
    for module in (packed, *packed):
        module.register_forward_hook(lambda m, *_: fired.append(type(m).__name__))
    whole = packed(x)
    assert fired == ["PackedLinear", "PackSigns", "PackedNetwork"]
    fired.clear()
    y = x
    for stage in packed:
        y = stage(y)
    assert torch.equal(y, whole)
    assert fired == kinds(packed)
