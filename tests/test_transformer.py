"""The small Transformer is causal, changes with precision only as said, and learns at each."""

import itertools

import pytest
import torch
from torch import nn

import onebit
from onebit.language import BitNetRecipe, next_character_loss, random_windows
from onebit.models import Transformer, sample
from onebit.models.transformer import PRECISIONS, rotary_angles, rotate

QUANTISED = [p for p in PRECISIONS if p != "full"]


def small(precision, *, seed=0, dtype=torch.float64, **sizes):
    torch.manual_seed(seed)
    sizes = {"vocabulary": 11, "width": 16, "depth": 2, "heads": 2} | sizes
    return Transformer(precision=precision, dtype=dtype, **sizes)


def codes(batch=2, length=9, seed=1):
    torch.manual_seed(seed)
    return (torch.rand(batch, length) * 11).long()


def quant_layers(model):
    return [m for m in model.modules() if isinstance(m, onebit.QuantLinear)]


@torch.no_grad()
def change_ahead(model, place):
    """Largest change of the logits up to `place` when every later code changes."""
    before = codes()
    after = before.clone()
    after[:, place + 1 :] = (after[:, place + 1 :] + 3) % 11
    return (model(before) - model(after))[:, : place + 1].abs().max().item()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_prediction_sees_a_later_character_in_evaluation(precision):
    model = small(precision).eval()
    for place in (0, 4, 7):
        assert change_ahead(model, place) < 1e-12


@pytest.mark.parametrize("precision", ["full", "b1.58", "w1a1"])
def test_nor_in_training_with_one_scale_per_token(precision):
    assert change_ahead(small(precision).train(), 4) < 1e-12


def test_b1_sees_ahead_in_training_through_its_scale_per_tensor():
    assert change_ahead(small("b1").train(), 4) > 1e-6


def test_rotation_keeps_lengths_and_makes_products_depend_on_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 8, dtype=torch.float64)
    angles = rotary_angles(20, 8, q)

    def product(i, j):
        return rotate(q[None], angles[i : i + 1])[0] @ rotate(k[None], angles[j : j + 1])[0]

    assert torch.allclose(rotate(q.expand(20, 8), angles).norm(dim=-1), q.norm())
    for distance in (0, 1, 5):
        products = [product(i + distance, i) for i in range(15)]
        assert torch.allclose(torch.stack(products), products[0])
    assert not torch.allclose(product(5, 0), product(0, 0))


@pytest.mark.parametrize("precision", QUANTISED)
def test_all_precisions_start_from_the_same_latent_weights(precision):
    ours, full = (
        [p for p in small(which).parameters() if p.dim() == 2] for which in (precision, "full")
    )
    assert len(ours) == len(full) == 2 + 2 * 7
    assert all(map(torch.equal, ours, full))


@pytest.mark.parametrize(
    "precision, values", [("b1.58", [-1, 0, 1]), ("b1", [-1, 1]), ("w1a1", [-1, 1])]
)
def test_the_seven_projections_of_each_block_are_quantised_and_nothing_else(precision, values):
    model = small(precision)
    layers = quant_layers(model)
    assert len(layers) == 2 * 7
    for layer in layers:
        assert layer.weight_quant.quantize(layer.weight)[0].unique().tolist() == values
        assert layer.bias is None
    assert type(model.head) is nn.Linear and type(model.embedding) is nn.Embedding


def test_full_precision_has_no_quantised_layer():
    assert not quant_layers(small("full"))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("norm, kind", [("rms", nn.RMSNorm), ("layer", nn.LayerNorm)])
def test_every_precision_takes_either_norm(precision, norm, kind):
    model = small(precision, norm=norm)
    norms = [m for m in model.blocks.modules() if isinstance(m, nn.RMSNorm | nn.LayerNorm)]
    assert len(norms) == 2 * 7 and all(type(each) is kind for each in norms)
    assert model(codes()).isfinite().all()


@pytest.mark.parametrize("precision, norm", [("full", "rms"), ("b1.58", "rms"), ("b1", "layer")])
def test_the_papers_own_norm_is_the_default(precision, norm):
    assert torch.equal(small(precision)(codes()), small(precision, norm=norm)(codes()))


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("precision", ["b1.58", "b1"])
def test_with_one_norm_only_the_quantizers_differ(precision, norm):
    model = small(precision, norm=norm)
    for layer in quant_layers(model):
        layer.weight_quant = layer.input_quant = None
    assert torch.equal(model(codes()), small("full", norm=norm)(codes()))


@pytest.mark.parametrize("norm", ["layernorm", "RMS", 1])
def test_another_norm_is_refused(norm):
    with pytest.raises(ValueError, match="norm must be"):
        small("full", norm=norm)


def test_a_packed_transformer_returns_the_same_logits():
    model = small("b1.58", dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = model(codes())
        for block in model.blocks:
            for part in (block.attention, block.feed_forward):
                for name, layer in list(part.named_children()):
                    packed = onebit.PackedLinear.from_layer(layer)
                    assert packed.weight_words.dtype == torch.int64
                    setattr(part, name, packed)
        assert torch.equal(model(codes()), wanted)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gradient_reaches_every_parameter(precision):
    model = small(precision)
    model(codes()).square().sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_learns_a_text_that_repeats(precision):
    text = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6]).repeat(50)
    model = small(precision, width=32, depth=1)
    recipe = BitNetRecipe(model, lr=1e-2, steps=150)
    losses = [
        recipe.step(next_character_loss(model, *random_windows(text, 16, 8))) for _ in range(150)
    ]
    assert losses[0] > 3 and losses[-1] < 0.5
    torch.manual_seed(0)
    drawn = sample(model, text[:8], 24, context=16, temperature=0.05)
    assert drawn.tolist() == text[:32].tolist()


class Constant(nn.Module):
    """The same logits everywhere, which remembers the length of what it saw."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)
        self.seen = []

    def forward(self, codes):
        self.seen.append(codes.shape[1])
        return self.logits.expand(*codes.shape, -1)


def test_sampling_draws_as_often_as_the_softmax_says():
    torch.manual_seed(0)
    model = Constant([0.0, 1.0, 2.0])
    for temperature in (0.5, 1.0, 2.0):
        drawn = sample(model, torch.tensor([0]), 4000, context=1, temperature=temperature)[1:]
        share = drawn.bincount(minlength=3) / 4000
        wanted = (model.logits / temperature).softmax(0)
        assert torch.allclose(share, wanted, atol=4 * 0.5 / 4000**0.5)


def test_sampling_never_draws_what_has_no_chance():
    torch.manual_seed(0)
    drawn = sample(Constant([-torch.inf, 0.0, -torch.inf]), torch.tensor([0]), 500)
    assert (drawn[1:] == 1).all()


def test_sampling_shows_the_last_characters_only_keeps_the_prompt_and_the_mode():
    model = Constant([0.0, 0.0]).train()
    text = sample(model, torch.tensor([1, 0, 1]), 4, context=5)
    assert text[:3].tolist() == [1, 0, 1] and len(text) == 7
    assert model.seen == [3, 4, 5, 5] and model.training
    assert sample(model, torch.tensor([1]), 0).tolist() == [1]


def test_sampling_repeats_from_a_seed():
    model = small("b1.58")
    texts = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        texts.append(sample(model, torch.tensor([0]), 30).tolist())
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"width": 18, "heads": 4}, r"width must be a multiple of 2 · heads"),
        ({"width": 6, "heads": 2}, r"width must be a multiple of 2 · heads"),
        ({"width": 0}, "width"),
        ({"depth": 0}, "depth"),
        ({"vocabulary": 0}, "vocabulary"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        small("full", **sizes)


@pytest.mark.parametrize("name", ["width", "depth", "heads", "vocabulary"])
def test_sizes_that_are_no_whole_numbers_are_refused(name):
    with pytest.raises(TypeError, match=name):
        small("full", **{name: 2.0})


@pytest.mark.parametrize("precision", ["b158", "B1", None, 1])
def test_another_precision_is_refused(precision):
    with pytest.raises(ValueError, match="precision must be one of"):
        small(precision)


def test_inputs_that_are_no_codes_are_refused():
    model = small("full")
    for wrong in (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int32), [[0, 1]]):
        with pytest.raises(TypeError, match="codes must be an int64 tensor"):
            model(wrong)
    for shape in ((), (3,), (1, 2, 3)):
        with pytest.raises(ValueError, match=r"codes must have shape \(batch, length\)"):
            model(torch.zeros(shape, dtype=torch.int64))
    with pytest.raises(IndexError):
        model(torch.full((1, 2), 11))


def test_prompts_and_numbers_that_do_not_fit_are_refused():
    model, prompt = Constant([0.0, 0.0]), torch.tensor([0])
    with pytest.raises(TypeError, match="prompt must be an int64 tensor"):
        sample(model, torch.tensor([0.0]), 3)
    with pytest.raises(ValueError, match="prompt is empty"):
        sample(model, prompt[:0], 3)
    with pytest.raises(ValueError, match="prompt must have shape"):
        sample(model, prompt[None], 3)
    for temperature in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="temperature must be positive"):
            sample(model, prompt, 3, temperature=temperature)
    for name, value in itertools.product(("length", "context"), (-1, 1.5)):
        with pytest.raises((TypeError, ValueError), match=name):
            sample(model, prompt, **{"length": 3, "context": 4, name: value})
