"""A packed network survives a file, and whatever is no whole such file is refused."""

import json
import subprocess
import sys

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from networks import NETS, SEEDS, binarynet_cnn, images, kinds, shake
from torch import nn

import onebit
from onebit.blocks import Sign
from onebit.layers import (
    BinaryConv2d,
    BinaryLinear,
    XNORLinear,
)
from onebit.models import binarynet_mlp
from onebit.network import files, load, pack, save
from onebit.packing import PackedLinear

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
    header.setdefault("sha256", files._digest(header["stages"], tensors))
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
