"""The closed forms of binary and ternary residuals agree with integrals and with drawn weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import onebit
from onebit.residuals import (
    GAUSSIAN,
    LAPLACE,
    UNIFORM,
    best_scale,
    best_threshold,
    residual,
    zeros,
)

ALL = (GAUSSIAN, LAPLACE, UNIFORM)
DENSITY = {  # of |w|, with mean 1
    "Gaussian": lambda w: 2 / math.pi * torch.exp(-(w**2) / math.pi),
    "Laplace": lambda w: torch.exp(-w),
    "uniform": lambda w: 0.5 * (w <= 2).double(),
}
distributions = pytest.mark.parametrize("distribution", ALL, ids=lambda d: d.name)


def integral(f, start, end=20.0):
    w = torch.linspace(start, end, 200_001, dtype=torch.float64)
    return torch.trapezoid(f(w), w).item()


@distributions
@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0, 1.7])
def test_tails_are_the_integrals_of_the_density(distribution, t):
    p = DENSITY[distribution.name]
    assert distribution.beyond(t) == pytest.approx(integral(p, t), abs=1e-4)
    assert distribution.mass_beyond(t) == pytest.approx(integral(lambda w: w * p(w), t), abs=2e-4)
    assert distribution.mean_square == pytest.approx(integral(lambda w: w**2 * p(w), 0), abs=4e-4)


@distributions
def test_the_absmean_is_one(distribution):
    assert distribution.beyond(0) == distribution.mass_beyond(0) == 1
    assert best_scale(distribution, 0) == 1


@distributions
@settings(max_examples=25)
@given(t=st.floats(0, 1.5), scale=st.floats(0.1, 3))
def test_the_residual_is_the_integral_of_the_squared_error(distribution, t, scale):
    p = DENSITY[distribution.name]
    inside = integral(lambda w: w**2 * p(w), 0, t) if t else 0.0
    outside = integral(lambda w: (w - scale) ** 2 * p(w), t)
    wanted = (inside + outside) / distribution.mean_square
    assert residual(distribution, t, scale) == pytest.approx(wanted, abs=1e-3)


@distributions
@given(t=st.floats(0, 1.5), scale=st.floats(0.1, 3))
def test_no_scale_and_no_threshold_does_better_than_the_best(distribution, t, scale):
    assert residual(distribution, t) <= residual(distribution, t, scale) + 1e-12
    assert residual(distribution, best_threshold(distribution)) <= residual(distribution, t) + 1e-12


@distributions
def test_the_best_threshold_is_half_its_scale(distribution):
    t = best_threshold(distribution)
    assert t == pytest.approx(best_scale(distribution, t) / 2, rel=1e-12)


def test_the_gaussian_residuals_of_the_literature():
    found = (
        residual(GAUSSIAN, 0),
        residual(GAUSSIAN, 0.5, scale=1),
        residual(GAUSSIAN, 0.5),
        residual(GAUSSIAN, best_threshold(GAUSSIAN)),
    )
    assert found == pytest.approx((0.363, 0.263, 0.213, 0.190), abs=5e-4)
    assert found[0] == pytest.approx(1 - 2 / math.pi)


@pytest.mark.parametrize(
    "distribution, draw",
    [
        (GAUSSIAN, lambda n: torch.randn(n, dtype=torch.float64)),
        (UNIFORM, lambda n: 2 * torch.rand(n, dtype=torch.float64) - 1),
        (LAPLACE, lambda n: torch.rand(n, dtype=torch.float64).log() * torch.randn(n).sign()),
    ],
    ids=["Gaussian", "uniform", "Laplace"],
)
def test_the_packages_quantizers_leave_these_residuals_of_drawn_weights(distribution, draw):
    torch.manual_seed(0)
    w = draw(400_000)
    for quantizer, threshold in ((onebit.TernaryAbsMean(), 0.5), (onebit.BinaryAbsMean(), 0.0)):
        codes, scale = quantizer.quantize(w)
        left = ((w - codes * scale).square().sum() / w.square().sum()).item()
        assert left == pytest.approx(residual(distribution, threshold, scale=1), abs=5e-3)
        share = (codes == 0).double().mean().item()
        assert share == pytest.approx(zeros(distribution, threshold), abs=4e-3)


@distributions
@pytest.mark.parametrize("ask", [zeros, best_scale, residual])
@pytest.mark.parametrize("threshold", [-0.1, float("nan")])
def test_thresholds_below_zero_are_refused(distribution, ask, threshold):
    with pytest.raises(ValueError, match="threshold must be 0 or more"):
        ask(distribution, threshold)


def test_a_threshold_beyond_all_weights_is_refused():
    with pytest.raises(ValueError, match="leaves no weight"):
        best_scale(UNIFORM, 2.0)
    assert residual(UNIFORM, 2.0, scale=1) == 1
