"""The small convolutional network has the arms of XNOR-Net's ablation, and nothing else differs."""

import itertools

import pytest
import torch
from torch import nn

from onebit import QuantConv2d, Sign, pack
from onebit.models import xnornet_cnn
from onebit.optim import quantized_layers
from onebit.quantizers import BinarySign, ScaledBinary

ARMS = [
    {"weights": w, "activations": a, "order": order, "norm": norm}
    for w, a, order, norm in itertools.product(
        ("real", "sign", "scaled"), ("real", "sign"), ("B-A-C-P", "C-B-A-P"), (True, False)
    )
]
X = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(5))


def build(seed=0, **arm):
    torch.manual_seed(seed)
    return xnornet_cnn(**arm)


def kinds(model):
    return [type(module).__name__ for module in model]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: " ".join(map(str, arm.values())))
def test_every_arm_learns_in_every_convolution_and_has_the_same_head(arm):
    model = build(**arm)
    assert model(X).shape == (6, 10)
    model(X).square().sum().backward()
    assert [m.out_channels for m in model if isinstance(m, nn.Conv2d)] == [16, 32, 64]
    assert bool((model.output.weight.grad != 0).any())
    assert bool((model.conv3.weight.grad != 0).any())
    head = ["MaxPool2d", "BatchNorm2d", "ReLU", "Flatten", "Linear"]
    assert kinds(model)[-len(head) + (not arm["norm"]) :] == [
        kind for kind in head if arm["norm"] or kind != "BatchNorm2d"
    ]


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: " ".join(map(str, arm.values())))
def test_arms_with_the_same_seed_start_from_the_same_weights(arm):
    model, other = build(**arm), build(norm=arm["norm"], weights="real", activations="real")
    for name in ("conv1", "conv2", "conv3", "output"):
        ours, theirs = (getattr(m, name).weight for m in (model, other))
        assert torch.equal(ours, theirs)


def test_the_two_orders_hold_the_same_modules_and_differ_in_where_pooling_stands():
    after, before = build(), build(order="C-B-A-P")
    assert kinds(after)[:8] == [
        "Conv2d", "MaxPool2d", "BatchNorm2d", "QuantConv2d",
        "MaxPool2d", "BatchNorm2d", "QuantConv2d", "MaxPool2d",
    ]  # fmt: skip
    assert kinds(before)[:9] == [
        "Conv2d", "BatchNorm2d", "Sign", "MaxPool2d", "QuantConv2d",
        "BatchNorm2d", "Sign", "MaxPool2d", "QuantConv2d",
    ]  # fmt: skip
    assert sum(p.numel() for p in after.parameters()) == sum(p.numel() for p in before.parameters())


@pytest.mark.parametrize("order", ["B-A-C-P", "C-B-A-P"])
def test_each_binary_convolution_multiplies_signs_by_signs(order):
    model = build(order=order, weights="sign").eval()
    seen = []
    for conv in (model.conv2, model.conv3):
        conv.register_forward_hook(lambda layer, x, y: seen.append((x[0], y)))
    model(X)
    for x, y in seen:
        assert torch.equal(y, y.round()) and y.abs().max() <= 9 * x.shape[1]
        assert order == "B-A-C-P" or bool((x.abs() == 1).all())


def test_without_pooling_between_them_sign_and_maximum_give_mostly_plus_one():
    before = build(order="C-B-A-P")
    pooled = []
    before.pool1.register_forward_hook(lambda layer, x, y: pooled.append((x[0], y)))
    before(X)
    ((signs, maxima),) = pooled
    assert (maxima > 0).float().mean() > (signs > 0).float().mean()


def test_only_what_an_arm_names_is_quantised():
    def quantizers(**arm):
        return [
            (type(layer.weight_quant), type(layer.input_quant))
            for layer in quantized_layers(build(**arm))
        ]

    none = type(None)
    assert quantizers(weights="real", activations="real") == []
    assert quantizers(weights="scaled", activations="real") == [(ScaledBinary, none)] * 2
    assert quantizers() == [(ScaledBinary, BinarySign)] * 2
    assert quantizers(weights="sign") == [(BinarySign, BinarySign)] * 2
    assert quantizers(weights="sign", binary_first=True)[0] == (BinarySign, none)
    real = build(weights="real")
    assert [type(real.conv2.input_quant), real.conv2.weight_quant] == [BinarySign, None]


def test_real_networks_hold_plain_layers():
    model = build(weights="real", activations="real")
    assert not any(isinstance(m, QuantConv2d | Sign) for m in model.modules())


def test_the_input_scale_is_the_mean_size_of_each_window():
    plain, scaled = build().eval(), build(input_scale=True).eval()
    x = torch.randn(2, 16, 14, 14)
    K = plain.conv2.geometry.window_scale(x)
    torch.testing.assert_close(scaled.conv2(x), plain.conv2(x) * K)


@pytest.mark.parametrize("arm", [{}, {"weights": "sign"}, {"order": "C-B-A-P"},
                                 {"input_scale": True}], ids=str)  # fmt: skip
def test_the_network_packs_to_the_same_outputs(arm):
    model = build(**arm)
    model(X)
    model.eval()
    assert torch.equal(pack(model)(X), model(X))


@pytest.mark.parametrize(
    ("arm", "error", "message"),
    [
        ({"weights": "binary"}, ValueError, "weights must be one of"),
        ({"activations": "relu"}, ValueError, "activations must be one of"),
        ({"order": "B-C-A-P"}, ValueError, "order must be one of"),
        ({"input_scale": True, "order": "C-B-A-P"}, ValueError, "input_scale=True needs"),
        ({"input_scale": True, "activations": "real"}, ValueError, "input_scale=True needs"),
        ({"width": 0}, ValueError, "width must"),
        ({"size": 4}, ValueError, "size must"),
        ({"classes": 2.5}, TypeError, "classes must"),
    ],
)
def test_what_makes_no_network_is_refused(arm, error, message):
    with pytest.raises(error, match=message):
        xnornet_cnn(**arm)


def test_sizes_and_dtype_are_free():
    model = build(width=3, classes=4, in_channels=2, size=17, dtype=torch.float64)
    assert model(torch.randn(2, 2, 17, 17, dtype=torch.float64)).shape == (2, 4)
