"""The costs that a summary prints are those counted by hand and those of the packed layers."""

import pytest
import torch
from torch import nn

from onebit import network
from onebit.blocks import xnornet_block
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
from onebit.model_summary import flip_ratio, latent_signs, summary
from onebit.models import binarynet_mlp
from onebit.packing import PackedConv2d, PackedLinear


def pack(model):
    """Return the model with every quantised layer packed."""
    for name, child in model.named_children():
        if isinstance(child, QuantLinear):
            setattr(model, name, PackedLinear.from_layer(child))
        elif isinstance(child, QuantConv2d):
            setattr(model, name, PackedConv2d.from_layer(child))
        else:
            pack(child)
    return model


def test_a_perceptron_counted_by_hand():
    model = nn.Sequential(
        nn.Linear(784, 100), nn.BatchNorm1d(100), BinaryLinear(100, 70, bias=False), nn.ReLU(),
        XNORLinear(70, 10),
    )  # fmt: skip
    costs = summary(model, (784,))
    linear, norm, binary, xnor = costs.rows
    assert [row.name for row in costs.rows] == ["0", "1", "2", "4"]
    assert (linear.weights, linear.nbytes, linear.macs) == (78_500, 314_000, 78_400)
    assert (norm.weights, norm.nbytes, norm.macs) == (200, 4 * 400, 0)
    # Two words a row, one scale; two words a row, ten scales, ten biases.
    assert (binary.weights, binary.nbytes, binary.macs) == (7_000, 70 * 16 + 4, 7_000)
    assert (xnor.weights, xnor.nbytes, xnor.macs) == (710, 10 * 16 + 40 + 40, 700)
    assert costs.weights == 78_500 + 200 + 7_000 + 710
    assert costs.nbytes == 314_000 + 1_600 + 1_124 + 240
    assert costs.float_nbytes == 4 * (78_500 + 400 + 7_000 + 710)
    assert costs.macs == {"W32A32": 78_400, "W1A1": 7_700}
    assert [row.precision for row in costs.rows] == ["W32A32", "W32A32", "W1A1", "W1A1"]
    assert [row.bits for row in costs.rows] == [32, 32, 1, 1]
    assert binary.output_shape == (70,)


def test_a_convolution_counted_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), XNORConv2d(8, 16, 3, stride=2, padding=1)
    )
    plain, binary = summary(model, (3, 12, 10)).rows
    assert (plain.weights, plain.macs) == (216, 8 * 12 * 10 * 27)
    assert binary.output_shape == (16, 6, 5)
    assert binary.macs == 16 * 6 * 5 * 72
    assert binary.nbytes == 16 * 2 * 8 + 16 * 4 + 16 * 4
    grouped = summary(BinaryConv2d(8, 16, 3, groups=4), (8, 5, 5)).rows[0]
    assert grouped.macs == 16 * 9 * 2 * 9 and grouped.name == "(model)"


@pytest.mark.parametrize(
    ("layer", "bits", "precision"),
    [
        (BinaryConnectLinear(70, 9), 1, "W1A32"),
        (BinaryConnectLinear(70, 9, stochastic=True), 32, "W32A32"),
        (XNORLinear(70, 9, input_scale=True), 1, "W1A1"),
        (BitLinear(70, 9), 2, "W2A8"),
        (BitLinear(70, 9, version="b1", bias=True), 2, "W1A8"),
        (QuantLinear(70, 9), 32, "W32A32"),
    ],
    ids=["BinaryConnect", "stochastic", "XNOR-Net", "b1.58", "b1", "float"],
)
def test_bits_and_precision_are_those_of_evaluation(layer, bits, precision):
    row = summary(layer, (70,)).rows[-1]
    assert (row.bits, row.precision) == (bits, precision)


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (binarynet_mlp(width=130), (784,)),
        (nn.Sequential(BitLinear(70, 33), BitLinear(33, 5, bias=True)), (70,)),
        (nn.Sequential(BitLinear(70, 33, version="b1"), nn.Linear(33, 5)), (70,)),
        (nn.Sequential(XNORLinear(70, 33), BinaryConnectLinear(33, 5)), (70,)),
        (nn.Sequential(xnornet_block(3, 8, input_scale=True), xnornet_block(8, 4)), (3, 8, 8)),
    ],
    ids=["BinaryNet", "b1.58", "b1", "XNOR-Net", "convolutions"],
)
def test_bytes_are_those_that_the_packed_model_stores(model, size):
    costs = summary(model, size)
    packed = summary(pack(model), size)
    stored = (t for t in model.state_dict().values() if t.dim())  # not batch norm's step counters
    assert costs.nbytes == sum(t.numel() * t.element_size() for t in stored)
    layers = [m for m in model.modules() if isinstance(m, PackedLinear | PackedConv2d)]
    assert sum(layer.nbytes() for layer in layers) <= costs.nbytes and layers
    for total in ("nbytes", "float_nbytes", "weights", "macs"):
        assert getattr(packed, total) == getattr(costs, total)


def test_stochastic_layers_are_stored_as_real_numbers():
    layer = BinaryConnectLinear(70, 9, stochastic=True)
    assert summary(layer, (70,)).nbytes == 4 * (70 * 9 + 9)


def test_a_layer_that_runs_twice_is_stored_once_and_computes_twice():
    layer = BinaryLinear(64, 64, bias=False)
    costs = summary(nn.Sequential(layer, nn.ReLU(), layer), (64,))
    assert len(costs.rows) == 1
    assert costs.weights == 64 * 64 and costs.macs == {"W1A1": 2 * 64 * 64}


def test_token_numbers_and_sequences():
    model = nn.Sequential(nn.Embedding(50, 16), BitLinear(16, 4))
    rows = {row.name: row for row in summary(model, (7,), dtype=torch.long).rows}
    assert rows["0"].macs == 0 and rows["0"].nbytes == 50 * 16 * 4
    assert rows["1.norm"].macs == 0 and rows["1.norm"].nbytes == 16 * 4
    assert rows["1"].macs == 7 * 4 * 16 and rows["1"].output_shape == (7, 4)


def test_every_module_is_put_back_into_its_own_mode():
    model = nn.Sequential(BinaryLinear(4, 4), nn.BatchNorm1d(4).eval(), nn.Dropout())
    before = {k: v.clone() for k, v in model.state_dict().items()}
    summary(model, (4,))
    assert [m.training for m in model] == [True, False, True]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="wants x with 4 features"):
        summary(model, (5,))
    assert [m.training for m in model] == [True, False, True]
    assert not any(m._forward_hooks for m in model.modules())


def test_it_prints_as_text_and_as_an_accessible_table():
    costs = summary(nn.Sequential(BinaryLinear(128, 10, bias=False)), (128,))
    assert str(costs).splitlines()[0].split() == [
        "layer", "kind", "output", "weights", "bits", "bytes", "MACs", "precision"
    ]  # fmt: skip
    assert str(costs).splitlines()[1].split() == [
        "0", "BinaryLinear", "10", "1,280", "1", "164", "1,280", "W1A1"
    ]  # fmt: skip
    assert f"{1280 * 4 / 164:.1f}× smaller than float32" in str(costs)
    page = costs._repr_html_()
    assert page.count('<th scope="col">') == 8 and "<caption>" in page


def test_a_model_without_parameters_costs_nothing():
    costs = summary(nn.ReLU(), (3,))
    assert costs.rows == () and costs.nbytes == 0 and costs.macs == {} and str(costs)


def test_what_is_no_model_or_no_shape_is_refused():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got type"):
        summary(BinaryLinear, (4,))
    for size in (4, (4.0,), "4"):
        with pytest.raises(TypeError, match="input_size must be a tuple of whole numbers"):
            summary(BinaryLinear(4, 4), size)
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        latent_signs([BinaryLinear(4, 4)])


# ---- flips -------------------------------------------------------------------------------------


def test_flip_ratio_counts_signs_that_changed_over_all_layers():
    model = nn.Sequential(BinaryLinear(4, 2), nn.Linear(2, 2), BinaryConnectLinear(2, 1))
    with torch.no_grad():
        model[0].weight.fill_(0.5)
        model[2].weight.fill_(-0.5)
    before = latent_signs(model)
    assert list(before) == ["0", "2"]
    with torch.no_grad():
        model[0].weight[0, :2] = -0.1
        model[0].weight[1, 0] = -0.0  # still +1
        model[2].weight[0, 1] = 0.0  # now +1
        model[1].weight.neg_()
    assert flip_ratio(before, latent_signs(model)) == 3 / 10
    assert flip_ratio(before, before) == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, {}), ({"0": torch.ones(2)}, {"1": torch.ones(2)}), ({"0": torch.ones(2)}, {})],
)
def test_flip_ratio_wants_the_same_layers(before, after):
    with pytest.raises(ValueError, match="must name the same layers, at least one"):
        flip_ratio(before, after)


def test_flip_ratio_wants_the_same_shapes():
    with pytest.raises(ValueError, match=r"'0' has shape \(2,\) in before and \(1,\) in after"):
        flip_ratio({"0": torch.ones(2)}, {"0": torch.ones(1)})


def test_a_packed_network_is_refused_since_its_folded_layers_never_run():
    packed = network.pack(binarynet_mlp(width=64).eval())
    with pytest.raises(TypeError, match="packed network"):
        summary(packed, (784,))
