"""Levels are where they should be, and nets trained side by side are trained as if alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import onebit
from onebit.bottleneck import (
    GroupedLinear,
    Levels,
    errors_side_by_side,
    side_by_side,
    train_side_by_side,
    uniform_levels,
)
from onebit.training import error_rate

FLOATS = st.floats(-3, 3, allow_subnormal=False)


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_one_bit_is_the_sign(values):
    x = torch.tensor(values, dtype=torch.float64)
    assert torch.equal(uniform_levels(x, 1), onebit.binary_sign(x))


@given(st.lists(FLOATS, min_size=1, max_size=20), st.integers(1, 16))
def test_b_bits_have_2_to_the_b_levels_and_none_lies_nearer(values, bits):
    x = torch.tensor(values, dtype=torch.float64)
    steps = 2**bits - 1
    levels = uniform_levels(x, bits)
    codes = (levels + 1) / 2 * steps
    assert torch.allclose(codes, codes.round(), atol=1e-9)
    assert ((levels - x.clamp(-1, 1)).abs() <= 1 / steps + 1e-12).all()
    assert levels.abs().max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 32])
def test_all_bits_share_the_gradient_of_the_hard_tanh(bits):
    x = torch.tensor([-1.5, -0.9, -0.0, 0.0, 0.7, 1.2], requires_grad=True)
    uniform_levels(x, bits).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_32_bits_leave_the_hard_tanh():
    x = torch.linspace(-2, 2, 101)
    assert torch.equal(uniform_levels(x, 32), x.clamp(-1, 1))


def test_each_feature_can_have_its_own_bits():
    x = torch.full((3, 3), 0.2)
    mixed = Levels([1, 2, 32])(x)
    assert torch.equal(mixed[:, 0], uniform_levels(x[:, 0], 1))
    assert torch.equal(mixed[:, 1], uniform_levels(x[:, 1], 2))
    assert torch.equal(mixed[:, 2], x[:, 2])


@pytest.mark.parametrize("binary", [False, True])
def test_a_grouped_layer_is_its_layers_one_by_one(binary):
    torch.manual_seed(0)
    layer = GroupedLinear(3, 5, 4, binary=binary, dtype=torch.float64)
    x = torch.randn(7, 15, dtype=torch.float64)
    w = onebit.binary_sign(layer.weight) if binary else layer.weight
    alone = torch.cat([x[:, 5 * i : 5 * i + 5] @ w[i].T for i in range(3)], dim=1)
    assert torch.allclose(layer(x), alone)


@pytest.mark.parametrize("binary", [False, True])
def test_nets_side_by_side_are_trained_as_if_alone(binary):
    torch.manual_seed(0)
    x = torch.randn(240, 12, dtype=torch.float64)
    y = (x[:, 0] * x[:, 1] > 0).long()
    bits = [1, 2, 32]
    torch.manual_seed(1)
    together = side_by_side(bits, 6, binary=binary, in_features=12, classes=2)
    train_side_by_side(together, (x, y), epochs=3, batch_size=40)
    for i, b in enumerate(bits):
        torch.manual_seed(1)
        side_by_side(bits, 6, binary=binary, in_features=12, classes=2)  # the same draws
        alone = _same_first_weights(b, binary)
        _train_alone(alone, x, y, binary)
        with torch.no_grad():
            outputs = together(x)[:, 2 * i : 2 * i + 2]
            assert torch.allclose(outputs, alone(x), atol=1e-6)
        assert errors_side_by_side(together, x, y)[i].item() == pytest.approx(
            error_rate(alone, x, y)
        )


def _same_first_weights(bits, binary):
    """Build the net of QuantLinear layers that side_by_side draws from seed 1."""
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    twin = side_by_side([1, 2, 32], 6, binary=binary, in_features=12, classes=2)
    layers: list[nn.Module] = []
    for module in twin:
        if isinstance(module, GroupedLinear):
            quant = onebit.BinarySign() if binary else None
            linear = onebit.QuantLinear(module.in_features, module.out_features, bias=False,
                                        weight_quant=quant, dtype=torch.float64)  # fmt: skip
            linear.weight.data = module.weight.data[0].clone()
            layers.append(linear)
        elif isinstance(module, nn.BatchNorm1d):
            features = module.num_features // 3
            norm = nn.BatchNorm1d(features, dtype=torch.float64)
            norm.bias.data = module.bias.data[:features].clone()
            layers.append(norm)
        else:
            layers.append(Levels(bits))
    torch.random.set_rng_state(state)
    return nn.Sequential(*layers)


def _train_alone(net, x, y, binary):
    from onebit.training import train

    groups = onebit.glorot_rates(net, 0.004) if binary else net.parameters()
    optimizer = torch.optim.Adam(groups, lr=0.004)
    onebit.clip_after_step(optimizer, net)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1 ** (step / 18))
    train(net, optimizer, (x, y), (x, y), epochs=3, batch_size=40, scheduler=decay)
    net.eval()


@pytest.mark.parametrize("call, error, told", [
    (lambda: uniform_levels(torch.ones(2).long(), 1), TypeError, "float"),
    (lambda: uniform_levels(torch.ones(2), 0), ValueError, "bits"),
    (lambda: uniform_levels(torch.ones(2), 20), ValueError, "1 to 16"),
    (lambda: uniform_levels(torch.ones(2), 1.5), TypeError, "bits"),
    (lambda: uniform_levels(torch.ones(2), [1, 2, 3]), ValueError, "one number"),
    (lambda: GroupedLinear(0, 2, 2), ValueError, "nets"),
    (lambda: side_by_side([], 4, binary=True, in_features=3), ValueError, "nets"),
    (lambda: train_side_by_side(side_by_side([1], 4, binary=True, in_features=3),
                                (torch.zeros(5, 3).double(), torch.zeros(5).long())),
     ValueError, "fewer than batch_size"),
])  # fmt: skip
def test_bad_input_is_refused_by_name(call, error, told):
    with pytest.raises(error, match=told):
        call()
