"""Codes, scales and gradients of every quantizer, against closed forms and the papers' own code."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from onebit.quantizers import (
    BinaryAbsMean,
    BinarySign,
    Int8AbsMax,
    Int8AbsMaxB1,
    Quantizer,
    ScaledBinary,
    StochasticBinary,
    TernaryAbsMean,
)
from onebit.ste import binary_sign

ALL = [
    BinarySign, StochasticBinary, ScaledBinary, BinaryAbsMean, TernaryAbsMean, Int8AbsMax,
    Int8AbsMaxB1,
]  # fmt: skip
EPS64 = torch.finfo(torch.float64).eps


def matrices(limit=100.0):
    """Draw float64 matrices, dense with ties, zeros and repeated values."""
    values = st.floats(-limit, limit, allow_subnormal=False) | st.sampled_from([0.0, -0.0, 0.5, 1])
    return arrays("float64", array_shapes(min_dims=2, max_dims=2, max_side=8), elements=values).map(
        torch.from_numpy
    )


def through(quantizer, x, g):
    """Return the fake-quantised x and the gradient that g leaves at x."""
    x = x.clone().requires_grad_()
    y = quantizer(x)
    y.backward(g)
    return y.detach(), x.grad


# ---- BinarySign, StochasticBinary -------------------------------------------------------------

POINTS = torch.tensor([-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
MASK = torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 0], dtype=torch.float64)


@pytest.mark.parametrize(("clip_value", "mask"), [(1.0, MASK), (None, torch.ones(8).double())])
def test_binary_sign_has_codes_without_a_scale_and_a_masked_gradient(clip_value, mask):
    quantizer = BinarySign(clip_value)
    codes, scale = quantizer.quantize(POINTS)
    assert codes.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    assert scale.shape == () and scale.item() == 1
    g = torch.randn(8, dtype=torch.float64)
    assert torch.equal(through(quantizer, POINTS, g)[1], g * mask)


def test_zero_of_binary_sign_can_be_minus_one():
    assert BinarySign(zero=-1)(torch.tensor([0.0, -0.0])).tolist() == [-1, -1]


def test_stochastic_binary_draws_in_training_and_is_the_identity_in_evaluation():
    x = torch.linspace(-1, 1, 100)
    quantizer = StochasticBinary()
    assert bool((quantizer(x).abs() == 1).all())
    assert torch.equal(quantizer.eval()(x), x)
    g = torch.randn(8, dtype=torch.float64)
    assert torch.equal(through(quantizer.train(), POINTS, g)[1], g)
    assert torch.equal(through(quantizer.eval(), POINTS, g)[1], g)


# ---- ScaledBinary -----------------------------------------------------------------------------


def summed_gradient(w, g, clip_value):
    """The gradient with the term of α summed over the filter, element by element (n elements)."""
    out = torch.zeros_like(w)
    n = w.shape[1]
    for row in range(w.shape[0]):
        alpha = sum(abs(v) for v in w[row].tolist()) / n
        shared = sum(g[row, j] * binary_sign(w[row, j]) for j in range(n))
        for i in range(n):
            passes = abs(w[row, i]) <= clip_value
            slope = 0.0 if w[row, i] == 0 else binary_sign(w[row, i])
            out[row, i] = slope / n * shared + g[row, i] * alpha * passes
    return out


def test_scaled_binary_gradient_is_the_summed_form():
    torch.manual_seed(0)
    w = torch.randn(3, 5, dtype=torch.float64)
    w[0, 0], w[0, 1], w[1, 0], w[1, 1] = 1.0, -1.0, 0.0, 1.0 + 1e-12
    g = torch.randn(3, 5, dtype=torch.float64)
    _, grad = through(ScaledBinary(), w, g)
    torch.testing.assert_close(grad, summed_gradient(w, g, 1.0), rtol=1e-14, atol=1e-15)


def test_scaled_binary_gradient_is_not_the_printed_form():
    w = torch.tensor([[0.5, -0.25]], dtype=torch.float64)
    g = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    printed = g * (1 / 2 + 0.375)
    summed = torch.tensor([[-1 / 2, 1 / 2]], dtype=torch.float64) + g * 0.375
    assert torch.equal(through(ScaledBinary(), w, g)[1], summed)
    assert not torch.allclose(summed, printed)


def test_alpha_is_shared_by_channel_token_or_tensor():
    x = torch.arange(1.0, 25).reshape(2, 3, 4) - 12
    for granularity, dims, shape in [
        ("channel", (1, 2), (2, 1, 1)), ("token", (2,), (2, 3, 1)), ("tensor", (0, 1, 2), (1, 1, 1))
    ]:  # fmt: skip
        codes, alpha = ScaledBinary(granularity=granularity).quantize(x)
        assert alpha.shape == shape
        assert torch.equal(alpha, x.abs().mean(dims, keepdim=True))
        assert torch.equal(codes, binary_sign(x))


@given(matrices(), st.floats(-2, 2))
def test_alpha_minimises_the_squared_error(w, step):
    codes, alpha = ScaledBinary().quantize(w)

    def error(a):
        return (w - a * codes).square().sum()

    # error(alpha + d) − error(alpha) is n · d² for each filter, never negative.
    grow = (error(alpha + step) - error(alpha)).item()
    rounding = 1e-13 * (w.square().sum().item() + w.numel())
    assert grow == pytest.approx(w.numel() * step**2, rel=1e-13, abs=rounding)
    # No other signs do better with their own best scale: the residual is ‖w‖² − n · alpha².
    flipped = codes.clone()
    flipped[:, 0] *= -1
    best = (w * flipped).mean(1, keepdim=True)
    assert (
        error(alpha) <= error(0) and error(alpha) <= (w - best * flipped).square().sum() + rounding
    )


def test_residual_of_gaussian_weights_is_one_minus_two_over_pi():
    n = 1_000_000
    w = torch.randn(1, n, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    share = ((w - ScaledBinary()(w)).square().sum() / w.square().sum()).item()
    # The mean |w| has standard error sqrt((1 − 2/π) / n), and the mean w² sqrt(2 / n): six of each.
    assert abs(share - (1 - 2 / math.pi)) < 6 * (2 * 0.8 * 0.61 + 0.64 * 1.42) / math.sqrt(n)


# ---- BitNet: the FAQ's formulation, written out as it is ---------------------------------------


def faq_ternary(w):
    scale = 1.0 / w.abs().mean().clamp_(min=1e-5)
    return (w * scale).round().clamp_(-1, 1) / scale


def faq_int8(x):
    scale = 127.0 / x.abs().max(dim=-1, keepdim=True).values.clamp_(min=1e-5)
    return (x * scale).round().clamp_(-128, 127) / scale


def b1_weights(w):
    e = w.mean()
    return torch.where(w > e, 1.0, -1.0).to(w) * w.abs().mean().clamp_(min=1e-5)


@pytest.mark.parametrize(
    ("quantizer", "formula"),
    [(TernaryAbsMean(), faq_ternary), (Int8AbsMax(), faq_int8), (BinaryAbsMean(), b1_weights)],
    ids=["b1.58", "int8", "b1"],
)
def test_bitnet_quantizers_equal_the_detach_formulation(quantizer, formula):
    torch.manual_seed(0)
    for _ in range(20):
        w = torch.randn(16, 24, dtype=torch.float64)
        g = torch.randn_like(w)
        reference = w.clone().requires_grad_()
        fake = reference + (formula(reference) - reference).detach()
        fake.backward(g)
        ours, grad = through(quantizer, w, g)
        # w · (1 / γ) and w / γ, and q + (w − w), differ in the last bits of a float64 and no more.
        torch.testing.assert_close(ours, fake.detach(), rtol=4 * EPS64, atol=4 * EPS64)
        torch.testing.assert_close(grad, reference.grad, rtol=2 * EPS64, atol=0)
        assert torch.equal(reference.grad, g)


@pytest.mark.parametrize("quantizer", [TernaryAbsMean(), Int8AbsMax(), BinaryAbsMean()])
def test_bitnet_gradient_has_no_mask(quantizer):
    w = torch.tensor([[-9.0, -1.0, -0.0, 0.0, 0.4, 30.0]], dtype=torch.float64)
    g = torch.ones_like(w)
    torch.testing.assert_close(through(quantizer, w, g)[1], g, rtol=2 * EPS64, atol=0)


def test_b1_centres_the_weights_scales_by_their_mean_size_and_maps_the_mean_to_minus_one():
    w = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    codes, beta = BinaryAbsMean().quantize(w)
    assert codes.tolist() == [[-1, -1], [-1, 1]] and beta.item() == 3
    assert BinaryAbsMean().quantize(-w)[0].tolist() == [[1, 1], [-1, -1]]


@given(matrices())
def test_ternary_threshold_lies_at_half_the_mean_size(w):
    codes, gamma = TernaryAbsMean().quantize(w)
    mean = w.abs().mean()
    assert gamma == mean.clamp(min=1e-5)
    ratio = w.abs() / gamma
    assert torch.equal(codes, torch.where(ratio > 0.5, w.sign(), torch.zeros_like(w)))


def test_the_ternary_threshold_itself_gives_zero():
    step = 2.0**-23
    w = torch.tensor([0.5, -0.5, 1.5, -1.5, 0.5 + step, step - 1.5])
    codes, gamma = TernaryAbsMean().quantize(w)
    assert gamma == 1
    assert codes.tolist() == [0, 0, 1, -1, 1, -1]


@given(matrices(), st.sampled_from(["token", "tensor"]))
def test_int8_codes_are_integers_whose_largest_is_127(x, granularity):
    codes, scale = Int8AbsMax(granularity).quantize(x)
    assert torch.equal(codes, codes.round()) and codes.abs().max() <= 127
    rows = (-1,) if granularity == "token" else (0, 1)
    largest = x.abs().amax(rows, keepdim=True)
    reached = codes.abs().amax(rows, keepdim=True)
    assert bool((reached[largest >= 1e-5] == 127).all())
    # Half a step, and the rounding of the division and the product.
    assert bool(((codes * scale - x).abs() <= scale / 2 * (1 + 1e-12)).all())


def test_b1_activations_share_a_maximum_in_training_and_not_in_evaluation():
    x = torch.tensor([[1.0, -0.5], [2.0, 0.0]])
    quantizer = Int8AbsMaxB1()
    train_codes, train_scale = quantizer.quantize(x)
    assert train_codes[:, 0].tolist() == [64, 127] and train_scale.shape == (1, 1)
    eval_codes, eval_scale = quantizer.eval().quantize(x)
    assert eval_codes[:, 0].tolist() == [127, 127] and eval_scale.shape == (2, 1)


# ---- all of them ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
@given(x=matrices())
def test_fake_quantised_tensor_is_codes_times_scale(kind, x):
    quantizer = kind().eval()
    codes, scale = quantizer.quantize(x)
    assert codes.shape == x.shape
    assert torch.equal(quantizer(x), codes * scale)
    if kind is not StochasticBinary:
        assert bool((codes.abs() <= quantizer.max_code).all())
        assert torch.equal(codes, codes.round())


@pytest.mark.parametrize("kind", ALL)
def test_zeros_have_a_finite_code_and_scale(kind):
    codes, scale = kind().quantize(torch.zeros(2, 3))
    assert bool(codes.isfinite().all()) and bool(scale.isfinite().all())


@pytest.mark.parametrize("kind", [k for k in ALL if k is not StochasticBinary])
def test_nan_stays_visible(kind):
    codes, scale = kind().quantize(torch.tensor([[1.0, math.nan]]))
    assert bool((codes * scale).isnan().any())


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_stays_empty(kind, training):
    codes, _ = kind().train(training).quantize(torch.zeros(0, 3))
    assert codes.shape == (0, 3)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("bad", [torch.tensor([[1, 2]]), [[1.0]]], ids=["integers", "a list"])
@pytest.mark.parametrize("training", [True, False])
def test_quantizers_refuse_what_is_no_float_tensor(kind, bad, training):
    with pytest.raises(TypeError, match=r"x must (be a torch\.Tensor|have a float dtype)"):
        kind().train(training).quantize(bad)


def test_granularity_is_checked_when_made_and_when_used():
    with pytest.raises(ValueError, match="granularity must be one of"):
        ScaledBinary(granularity="row")
    with pytest.raises(ValueError, match="granularity must be one of"):
        Int8AbsMax("channel")
    with pytest.raises(ValueError, match=r"shape \(3,\).*use granularity='tensor'"):
        ScaledBinary().quantize(torch.ones(3))
    with pytest.raises(ValueError, match="x is a scalar"):
        ScaledBinary(granularity="token").quantize(torch.ones(()))


@pytest.mark.parametrize("kind", [BinarySign, ScaledBinary])
@pytest.mark.parametrize("clip_value", [0.0, -1.0, math.nan])
def test_a_clip_value_that_is_not_positive_is_refused_when_made(kind, clip_value):
    with pytest.raises(ValueError, match="clip_value must be positive"):
        kind(clip_value)


@pytest.mark.parametrize("kind", ALL)
def test_quantizers_copy_and_pickle(kind):
    x = torch.randn(2, 3)
    quantizer = kind().eval()
    for twin in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert torch.equal(twin(x), quantizer(x)) and repr(twin) == repr(quantizer)


def test_the_base_class_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="Quantizer does not define quantize"):
        Quantizer()(torch.ones(1))
