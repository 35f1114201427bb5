"""Windows, BitNet's two-stage recipe and bits per character are what their definitions say."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onebit.language import (
    BitNetRecipe,
    bits_per_character,
    next_character_loss,
    random_windows,
    two_stage,
)
from onebit.models import Transformer


def net(precision="b1.58"):
    torch.manual_seed(0)
    return Transformer(7, width=16, depth=1, heads=2, precision=precision, dtype=torch.float64)


def text(length, seed=1):
    torch.manual_seed(seed)
    return (torch.rand(length) * 7).long()


def test_targets_are_the_inputs_one_character_later():
    torch.manual_seed(0)
    inputs, targets = random_windows(torch.arange(50), context=8, batch_size=100)
    assert inputs.shape == targets.shape == (100, 8)
    assert torch.equal(targets, inputs + 1)
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(8))


def test_windows_start_everywhere_they_fit():
    torch.manual_seed(0)
    inputs, targets = random_windows(torch.arange(12), context=8, batch_size=200)
    assert inputs[:, 0].unique().tolist() == [0, 1, 2, 3]
    assert targets.max() == 11


@pytest.mark.parametrize("codes", [torch.arange(8), torch.arange(0), torch.zeros(2, 20).long()])
@pytest.mark.parametrize("cut", ["random_windows", "bits_per_character"])
def test_a_text_no_longer_than_a_window_is_refused(codes, cut):
    with pytest.raises(ValueError, match="more than context=8 characters"):
        if cut == "random_windows":
            random_windows(codes, 8, 2)
        else:
            bits_per_character(net(), codes, 8)


@pytest.mark.parametrize("size", [0, -1, 2.5])
def test_sizes_of_windows_that_do_not_fit_are_refused(size):
    for context, batch_size in ((size, 4), (4, size)):
        with pytest.raises((TypeError, ValueError), match=r"context|batch_size"):
            random_windows(text(50), context, batch_size)
        with pytest.raises((TypeError, ValueError), match=r"context|batch_size"):
            bits_per_character(net(), text(50), context, batch_size=batch_size)


def test_the_rate_drops_by_a_third_in_the_middle_and_decay_stops_there():
    rates, decays = zip(*(two_stage(step, 1000) for step in range(1000)), strict=True)
    assert decays == (1.0,) * 500 + (0.0,) * 500
    line = [1 - step / 1000 for step in range(1000)]
    assert rates[100:500] == pytest.approx(line[100:500])
    assert rates[500:] == pytest.approx([2 / 3 * each for each in line[500:]])
    assert rates[:50] == pytest.approx([(s + 1) / 50 * line[s] for s in range(50)])
    assert all(0 < rate <= 1 for rate in rates)


def test_the_rate_may_begin_at_its_peak():
    assert two_stage(0, 10, warm_up=0) == (1.0, 1.0)


@pytest.mark.parametrize("step, steps", [(-1, 10), (10, 10), (0, 0)])
def test_a_step_outside_the_training_is_refused(step, steps):
    with pytest.raises(ValueError, match="step must be from 0"):
        two_stage(step, steps)


def test_matrices_shrink_in_the_first_half_and_vectors_never():
    model = nn.Linear(3, 2).double()
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    recipe = BitNetRecipe(model, lr=0.1, steps=8, weight_decay=0.5)
    for step in range(8):
        recipe.step(0 * (model.weight.sum() + model.bias.sum()))
        rate, decay = two_stage(step, 8)
        weight *= 1 - 0.1 * rate * 0.5 * decay
        assert torch.allclose(model.weight, weight, rtol=1e-12)
        assert torch.equal(model.bias, bias)
        assert decay == (1.0 if step < 4 else 0.0)
    with pytest.raises(ValueError, match="step must be from 0"):
        recipe.step(model.weight.sum())


def test_a_step_returns_the_loss_and_goes_down_its_gradient():
    model = nn.Linear(1, 1).double()
    start = model.weight.item()
    recipe = BitNetRecipe(model, lr=0.05, steps=40, weight_decay=0.0)
    losses = [recipe.step((model.weight - 3).square().sum()) for _ in range(40)]
    assert losses[0] == pytest.approx((start - 3) ** 2)
    assert losses == sorted(losses, reverse=True) and start < model.weight.item() < 3


@pytest.mark.parametrize("precision", ["full", "b1.58", "b1", "w1a1"])
def test_bits_per_character_is_the_mean_over_windows_each_on_its_own(precision):
    model, codes = net(precision), text(5 * 6 + 4)
    by_hand = []
    model.eval()
    with torch.no_grad():
        for start in range(0, 30, 6):
            logits = model(codes[None, start : start + 6])[0]
            chances = F.log_softmax(logits, -1)
            by_hand += [chances[i, codes[start + i + 1]].item() for i in range(6)]
    wanted = -sum(by_hand) / len(by_hand) / math.log(2)
    model.train()
    for batch_size in (1, 2, 64):
        assert bits_per_character(model, codes, 6, batch_size=batch_size) == pytest.approx(wanted)
    assert model.training


def test_a_rest_that_fills_no_window_is_left_out():
    codes = text(25)
    changed = codes.clone()
    changed[-1] = (changed[-1] + 1) % 7  # the target of the last place of the fourth window
    assert bits_per_character(net(), codes, 6) != bits_per_character(net(), changed, 6)
    longer = torch.cat((codes, text(5)))
    assert bits_per_character(net(), codes, 6) == bits_per_character(net(), longer, 6)


def test_equal_chances_take_the_logarithm_of_the_vocabulary():
    model = net()
    model.head.weight.data.zero_()
    assert bits_per_character(model, text(50), 8) == pytest.approx(math.log2(7))
    loss = next_character_loss(model, *random_windows(text(50), 8, 3))
    assert loss.item() == pytest.approx(math.log2(7))
