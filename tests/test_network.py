"""A packed network returns the very floats of the network it was made from, from memory or file."""

import copy
import json
import pickle
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import onebit
from onebit import network
from onebit.blocks import Sign, binarynet_block, binarynet_conv_block, xnornet_block
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
from onebit.models import binaryconnect_mlp, binarynet_mlp
from onebit.network import PackSigns, load, pack, save
from onebit.packing import PackedLinear
from onebit.quantizers import BinarySign, TernaryAbsMean

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


@given(SEEDS, images(), st.integers(0, 3))
@settings(max_examples=50)
def test_packed_convolutional_networks_give_the_same_floats(seed, drawn, n):
    model, channels, dtype = drawn
    packed = same(shake(model, seed), torch.randn(n, channels, 9, 9, dtype=dtype))
    # Everything is binary, so only the entrance sees floats.
    assert kinds(packed) == ["PackSigns"] + ["PackedBlock"] * (len(packed) - 1)
    assert all(block.thresholds is not None for block in packed[1:-1])


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
    for images in (x, x.to(memory_format=torch.channels_last), x.double()):
        assert torch.equal(packed(images), model(images))
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


# ---- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("net", NETS)
def test_a_network_from_a_file_gives_the_same_floats(net, dtype, tmp_path):
    build, size = NETS[net]
    model, x = shake(build(dtype), 0), torch.randn(5, *size, dtype=dtype)
    packed, path = pack(model), tmp_path / "net.safetensors"
    save(packed, path)
    loaded = load(path)
    assert torch.equal(loaded(x), model(x)) and repr(loaded) == repr(packed)
    assert not any(m.training for m in loaded.modules())
    assert not any(p.requires_grad for p in loaded.parameters())
    again = tmp_path / "again.safetensors"
    save(loaded, again)
    assert again.read_bytes() == path.read_bytes()


@given(SEEDS, images())
@settings(max_examples=25)
def test_every_convolution_and_pooling_survives_a_file(tmp_path_factory, seed, drawn):
    model, channels, dtype = drawn
    path = tmp_path_factory.mktemp("files") / "net.safetensors"
    save(pack(shake(model, seed)), path)
    x = torch.randn(2, channels, 9, 9, dtype=dtype)
    assert torch.equal(load(path)(x), model(x))


@pytest.mark.slow
def test_another_process_gives_the_same_floats(tmp_path):
    model, x = shake(binarynet_cnn(), 0), torch.randn(5, 3, 8, 8)
    save(pack(model), tmp_path / "net.safetensors")
    torch.save((x, model(x).detach()), tmp_path / "xy.pt")
    code = (
        "import onebit, torch; x, y = torch.load('xy.pt'); "
        "assert torch.equal(onebit.load('net.safetensors')(x), y)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_neither_packing_nor_loading_draws_random_numbers(tmp_path):
    model = shake(binarynet_cnn(), 0)
    before = torch.get_rng_state()
    save(pack(model), tmp_path / "net")
    load(tmp_path / "net")
    assert torch.equal(torch.get_rng_state(), before)


def test_bytes_on_disk_are_those_of_summary_with_thresholds_for_batch_norms(tmp_path):
    model = binarynet_mlp(width=100)
    packed, path = pack(model), tmp_path / "net"
    save(packed, path)
    counted = onebit.summary(model, (784,)).nbytes
    # The first batch norm stays, behind floats; the next two become thresholds and flips.
    assert packed.nbytes() == counted - 2 * 100 * 16 + 2 * 100 * 5
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    assert len(whole) == 8 + header + packed.nbytes()
    cnn = pack(binarynet_cnn())
    folded = 66 + 12 + 30
    counted = onebit.summary(binarynet_cnn(), (3, 8, 8)).nbytes
    assert cnn.nbytes() == counted - folded * 16 + folded * 5


def test_files_hold_the_raw_bits_of_the_layers_own_order(tmp_path):
    model = shake(binarynet_cnn(), 0)
    save(pack(model), tmp_path / "net")
    tensors = safetensors.torch.load_file(tmp_path / "net")
    weight = model[1][0].weight.detach().flatten(1)
    assert torch.equal(tensors["3.layer.weight_words"], onebit.pack_signs(weight))


@pytest.fixture
def small(tmp_path):
    """Save a network with one stage of almost every kind."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), BinaryConv2d(2, 3, 2), nn.MaxPool2d(2),
        nn.BatchNorm2d(3), nn.Flatten(), BinaryLinear(3, 2), nn.BatchNorm1d(2),
        XNORLinear(2, 2, input_scale=True),
    )  # fmt: skip
    save(pack(shake(model, 0)), tmp_path / "small")
    return tmp_path / "small"


@pytest.fixture
def tiny(tmp_path):
    """Save the smallest network that has a threshold."""
    save(pack(nn.Sequential(BinaryLinear(3, 2), Sign(), BinaryLinear(2, 1))), tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_file_cut_short_or_grown_is_refused(tiny):
    whole = tiny.read_bytes()
    for length in range(len(whole)):
        tiny.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="tiny is no safetensors file, or damaged"):
            load(tiny)
    tiny.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        load(tiny)


def test_a_file_with_any_bit_changed_is_refused(tiny):
    whole = bytearray(tiny.read_bytes())
    for i in range(len(whole)):
        bit = 1 << i % 7
        whole[i] ^= bit
        tiny.write_bytes(whole)
        with pytest.raises(ValueError, match=r"^tiny (is|has|was|describes) "):
            load(tiny)
        whole[i] ^= bit


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "foreign"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="is no safetensors file"):
        load(path)
    for metadata in (None, {"onebit": "{"}, {"onebit": "3"}, {"onebit": "{}"}):
        safetensors.torch.save_file({"w": torch.ones(2)}, path, metadata=metadata)
        with pytest.raises(ValueError, match=r"was not written by onebit\.save"):
            load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")


def rewrite(path, change):
    """Change what a file says, and give it the checksum of what it says now."""
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["onebit"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    header.setdefault("sha256", network._digest(header["stages"], tensors))
    metadata = {"onebit": json.dumps(header)}
    safetensors.torch.save_file(tensors, path, metadata=metadata)


def setting(where, value):
    """Return a change to the value at a path in the header or the tensors."""

    def change(header, tensors):
        del header["sha256"]
        *parents, last = where
        target = {**header, "tensors": tensors}
        for key in parents:
            target = target[key]
        if value is None:
            del target[last]
        else:
            target[last] = value(target[last]) if callable(value) else value

    return change


def test_a_newer_version_and_another_format_are_refused(small):
    whole = small.read_bytes()
    rewrite(small, lambda header, tensors: header.update(version=2))
    with pytest.raises(ValueError, match=r"has version 2 of the format.*install a newer one"):
        load(small)
    small.write_bytes(whole)
    rewrite(small, lambda header, tensors: header.update(format="other"))
    with pytest.raises(ValueError, match="has the format 'other'"):
        load(small)


def test_the_stages_of_the_small_file_are_as_the_next_test_takes_them(small):
    assert kinds(load(small)) == [
        "Conv2d", "BatchNorm2d", "PackSigns", "PackedBlock", "PackedBlock", "BatchNorm1d",
        "PackedLinear",
    ]  # fmt: skip
    rewrite(small, setting(["stages"], lambda stages: stages))
    load(small)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["tensors", "3.layer.weight_words"], lambda t: t | 1 << 8, "bits set past the last"),
        (["tensors", "3.layer.weight_words"], lambda t: t[:2].clone(), "must be torch.int64"),
        (["tensors", "3.layer.weight_words"], lambda t: t.to(torch.int32), "got torch.int32"),
        (["tensors", "3.layer.weight_words"], None, "weight_words must be"),
        (["tensors", "3.layer.weight_scale"], lambda t: -t, "finite and not negative"),
        (["tensors", "3.layer.weight_scale"], lambda t: t * float("nan"), "finite and not"),
        (["tensors", "3.layer.bias"], lambda t: t[:1].clone(), "bias must be"),
        (["tensors", "3.thresholds"], lambda t: t + 100, "thresholds must lie between -8 and 8"),
        (["tensors", "3.thresholds"], lambda t: t * 0 - 2**31, "thresholds must lie between"),
        (["tensors", "3.thresholds"], lambda t: t.long(), "thresholds must be torch.int32"),
        (["tensors", "3.thresholds"], None, "thresholds must be"),
        (["tensors", "3.flip"], lambda t: t[:1].clone(), "flip must be"),
        (["tensors", "3.flip"], None, "flip must be"),
        (["tensors", "1.running_var"], lambda t: t[:1].clone(), "size mismatch"),
        (["tensors", "1.running_var"], lambda t: t.half(), "must be float32 or float64"),
        (["tensors", "1.running_var"], None, "Missing key"),
        (["tensors", "0.weight"], lambda t: t[:1].clone(), "size mismatch"),
        (["stages", 0, "kind"], "Flatten", "describes no network"),
        (["stages", 0, "kind"], "Bilinear", "'Bilinear' is no stage"),
        (["stages", 0, "kind"], "__import__", "'__import__' is no stage"),
        (["stages", 0, "kind"], None, "describes no network"),
        (["stages", 0, "color"], 1, "describes no network"),
        (["stages", 0], "Conv2d", "describes no network"),
        (["stages", 2, "dtype"], "int8", "dtype must be float32, float64 or null"),
        (["stages", 2, "features"], 5, "stage 2 does not give what the next one takes"),
        (["stages", 2], None, "describes no network"),
        (["stages", 3, "channels"], 4, "channels is 4, but the layer takes 2"),
        (["stages", 3, "channels"], 0, "whole words of channels"),
        (["stages", 4, "channels"], 1, "stage 3 does not give what the next one takes"),
        (["stages", 4, "pool"], {}, "describes no network"),
        (["stages", 3, "layer", "kernel_size"], [9, 9], "weight_words must be"),
        (["stages", 3, "layer", "stride"], 0, "stride must lie between"),
        (["stages", 3, "pool", "dilation"], [0, 1], "dilation must lie between"),
        (["stages", 3, "pool", "padding"], [1], "describes no network"),
        (["stages", 3, "layer", "pad_value"], 3, "pad_value must be 0, 1 or -1"),
        (["stages", 3, "layer", "input_scale"], True, "a layer that takes bits"),
        (["stages", 3, "layer", "input_quant", "kind"], "Int8AbsMax", "describes no network"),
        (["stages", 3, "layer", "out_features"], 3, "describes no network"),
        (["stages", 3, "layer", "out_channels"], 10**12, "out_channels must lie between"),
        (["stages", 6], None, "belong to no stage"),
    ],
)
def test_a_description_that_does_not_fit_its_tensors_is_refused(small, where, value, message):
    rewrite(small, setting(where, value))
    with pytest.raises(ValueError, match=message) as error:
        load(small)
    assert str(error.value).startswith("small describes no network that fits: ")


def test_only_packed_networks_are_saved(tmp_path):
    layer = PackedLinear.from_layer(BinaryLinear(3, 2))
    for model in (binarynet_mlp(width=8), nn.Sequential(layer), layer):
        with pytest.raises(TypeError, match=r"must be a PackedNetwork.*use onebit\.pack"):
            save(model, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_without_safetensors_files_say_how_to_get_it(small, monkeypatch):
    packed = load(small)
    for name in ("safetensors", "safetensors.torch"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: load(small), lambda: save(packed, small)):
        with pytest.raises(ImportError, match="pip install safetensors"):
            call()


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
        ((1, 2, 7, 7), "a_bits has shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            packed(torch.ones(shape))
    with pytest.raises(ValueError, match=r"PackedBlock wants words of shape \(N, H, W, 1\)"):
        packed[1](torch.ones(3, 2, dtype=torch.int64))


def test_a_packed_network_in_half_precision_refuses_to_run():
    packed = pack(nn.Sequential(BinaryLinear(12, 3), Sign(), BinaryLinear(3, 2))).half()
    with pytest.raises(TypeError, match=r"converted to torch\.float16"):
        packed(torch.ones(1, 12))
