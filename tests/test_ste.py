"""Every estimator returns its value exactly and the gradient its docstring states."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import onebit
from onebit.ste import (
    approx_sign,
    binary_sign,
    hard_sigmoid,
    ste_round,
    ste_sign,
    stochastic_sign,
    straight_through,
)

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
NAN, INF = math.nan, math.inf


def gradient(f, x, dtype=torch.float64, upstream=1.0):
    x = torch.tensor(x, dtype=dtype, requires_grad=True)
    y = f(x)
    y.backward(torch.full_like(y, upstream))
    return x.grad.tolist()


# ---- values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", FLOATS)
def test_sign_of_every_kind_of_float(dtype):
    tiny = torch.finfo(dtype).smallest_normal
    x = torch.tensor([-INF, -1, -tiny, -0.0, 0.0, tiny, 1, INF], dtype=dtype)
    assert binary_sign(x).tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    assert binary_sign(x, zero=-1).tolist() == [-1, -1, -1, -1, -1, 1, 1, 1]
    assert binary_sign(x).dtype == dtype
    # From one element to well past any vector width, so that body and tail of the loop both run.
    for k in (1, 3, 8, 17, 67):
        assert binary_sign(torch.full((k,), -0.0, dtype=dtype)).tolist() == [1] * k
        assert binary_sign(torch.full((k,), NAN, dtype=dtype)).isnan().all()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
def test_sign_of_integers_keeps_their_dtype(dtype):
    least = torch.iinfo(dtype).min
    y = binary_sign(torch.tensor([least, -1, 0, 1], dtype=dtype))
    assert y.tolist() == [-1, -1, 1, 1] and y.dtype == dtype
    assert binary_sign(torch.tensor([0, 2], dtype=dtype), zero=-1).tolist() == [-1, 1]


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=40), st.sampled_from([1, -1]))
def test_sign_is_plus_or_minus_one_and_has_the_sign_of_x(values, zero):
    x = torch.tensor(values, dtype=torch.float32)
    y = binary_sign(x, zero=zero)
    assert bool((y.abs() == 1).all())
    assert y.tolist() == [zero if v == 0 else math.copysign(1, v) for v in values]


@given(st.lists(st.floats(width=32), max_size=40))
def test_every_estimator_returns_its_value_exactly(values):
    x = torch.tensor(values, dtype=torch.float32)

    def same(a, b):
        return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())

    assert same(ste_sign(x), binary_sign(x))
    assert same(ste_sign(x, None, zero=-1), binary_sign(x, zero=-1))
    assert same(approx_sign(x), binary_sign(x))
    assert same(ste_round(x), x.round())


def test_the_sum_with_detach_is_not_exact_where_straight_through_is():
    x = torch.tensor([0.1, 0.7, 1e8], dtype=torch.float32)
    value = torch.tensor([1 / 3, -1 / 3, 1 / 3])
    assert torch.equal(straight_through(x, value), value)
    assert not torch.equal(x + (value - x).detach(), value)


def test_straight_through_copies_its_value():
    value = torch.zeros(3)
    y = straight_through(torch.zeros(3), value)
    value += 5
    assert y.tolist() == [0, 0, 0]


def test_hard_sigmoid_is_the_clipped_line():
    x = torch.tensor([-INF, -2, -1, -0.5, 0, 0.5, 1, 2, INF])
    assert hard_sigmoid(x).tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


# ---- gradients --------------------------------------------------------------------------------

POINTS = [-INF, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, INF]


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (ste_sign, [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]),
        (lambda x: ste_sign(x, 0.5), [0, 0, 0, 1, 1, 1, 1, 0, 0, 0]),
        (lambda x: ste_sign(x, 2), [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]),
        (lambda x: ste_sign(x, None), [1] * 10),
        (lambda x: ste_sign(x, zero=-1), [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]),
        (approx_sign, [0, 0, 0, 1, 2, 2, 1, 0, 0, 0]),
        (ste_round, [1] * 10),
        (stochastic_sign, [1] * 10),
        (lambda x: stochastic_sign(x, 1.0), [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]),
        (binary_sign, [0] * 10),
    ],
    ids=[
        "ste_sign", "clip 0.5", "clip 2", "no clip", "zero to -1", "approx_sign", "ste_round",
        "stochastic_sign", "stochastic_sign clipped", "binary_sign",
    ],
)  # fmt: skip
@pytest.mark.parametrize("upstream", [1.0, -0.75])
def test_gradient_table(f, expected, upstream):
    assert gradient(f, POINTS, upstream=upstream) == [upstream * e for e in expected]


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_bound_itself_passes_its_gradient_in_every_dtype(dtype):
    for bound in (1e-3, 0.1, 0.5, 0.75, 1, 1.999, 1.99999999, 2.0, 3.0, 100.0):
        at = torch.tensor(bound, dtype=dtype).item()
        above = at * (1 + torch.finfo(dtype).eps)
        got = gradient(lambda x, c=bound: ste_sign(x, c), [above, at, -at, -above], dtype)
        assert got == [0, 1, 1, 0], (bound, at, above)


@given(st.floats(-3, 3), st.floats(0.01, 3), st.sampled_from([-1, 0, 1]))
def test_ste_sign_gradient_is_the_indicator(x, clip_value, steps):
    neighbour = clip_value if steps == 0 else math.nextafter(clip_value, steps * INF)
    points = [x, neighbour, -neighbour]
    expected = [float(abs(p) <= clip_value) for p in points]
    assert gradient(lambda t: ste_sign(t, clip_value), points) == expected


@given(st.floats(-3, 3))
def test_approx_sign_gradient_is_the_triangle(x):
    assert gradient(approx_sign, [x])[0] == pytest.approx(max(0.0, 2 - 2 * abs(x)), abs=1e-15)


def test_the_gradient_is_that_of_the_surrogate():
    """Each surrogate, as a function of its own, has the gradient that finite differences find."""
    x = torch.tensor([-1.7, -0.6, 0.4, 0.9, 1.4], dtype=torch.float64, requires_grad=True)
    surrogates = {
        ste_sign: lambda t: t.clamp(-1, 1),
        approx_sign: lambda t: 2 * t.clamp(-1, 1) - t.clamp(-1, 1) * t.clamp(-1, 1).abs(),
        ste_round: lambda t: t * 1.0,
    }
    g = torch.randn(5, dtype=torch.float64)
    for estimator, surrogate in surrogates.items():
        assert torch.autograd.gradcheck(surrogate, x)
        (through,) = torch.autograd.grad(estimator(x), x, g)
        (true,) = torch.autograd.grad(surrogate(x), x, g)
        assert torch.equal(through, true)


def test_straight_through_feeds_the_surrogate_and_starves_the_value():
    x = torch.tensor([2.0], requires_grad=True)
    v = torch.tensor([3.0], requires_grad=True)
    straight_through(x * x, v * 1).backward()
    assert x.grad.item() == 4 and v.grad is None


def test_second_derivatives_go_through_the_surrogate():
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad(straight_through(x**3, x.detach().round()), x, create_graph=True)
    assert torch.autograd.grad(g, x)[0].item() == 3.0


# ---- chance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("w", [-1.5, -1.0, -0.7, 0.0, 0.3, 0.95, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_stochastic_sign_has_the_stated_mean_and_variance(w, dtype):
    n = 100_000
    w = torch.tensor(w, dtype=dtype).item()
    draws = stochastic_sign(
        torch.full((n,), w, dtype=dtype), generator=torch.Generator().manual_seed(1)
    ).double()
    mean = min(max(w, -1), 1)
    # Hoeffding: a mean of n draws from [−1, 1] is off by more than t with chance 2 exp(−n t² / 2).
    bound = math.sqrt(2 * math.log(2 / 1e-9) / n)
    assert bool((draws.abs() == 1).all())
    assert abs(draws.mean().item() - mean) <= bound
    # The second moment is exactly 1, so the variance is 1 − mean².
    assert abs(draws.var(correction=0).item() - (1 - mean**2)) <= bound * (bound + 2 * abs(mean))


def test_stochastic_sign_draws_from_the_generator_it_is_given():
    x = torch.zeros(100)
    a = stochastic_sign(x, generator=torch.Generator().manual_seed(5))
    b = stochastic_sign(x, generator=torch.Generator().manual_seed(5))
    assert torch.equal(a, b)
    torch.manual_seed(5)
    assert torch.equal(a, stochastic_sign(x))


def test_stochastic_sign_is_certain_from_one_on_and_keeps_nan():
    x = torch.tensor([-INF, -1.0, 1.0, INF]).repeat(1000, 1)
    assert bool((stochastic_sign(x) == torch.tensor([-1.0, -1, 1, 1])).all())
    assert stochastic_sign(torch.tensor([NAN])).isnan().all()


# ---- transforms -------------------------------------------------------------------------------


def test_vmap_and_functional_gradient():
    x = torch.tensor([[0.5, 2.0], [1.0, -1.0], [-0.0, -3.0]])
    assert torch.equal(torch.func.vmap(ste_sign)(x), ste_sign(x))
    per_row = torch.func.vmap(torch.func.grad(lambda row: ste_sign(row).sum()))(x)
    assert per_row.tolist() == [[1, 0], [1, 1], [1, 0]]


def test_export_gives_the_same_values():
    x = torch.tensor([[0.5, -2.0, -0.0, NAN]])
    exported = torch.export.export(onebit.Sign(), (x,)).module()
    assert torch.equal(exported(x)[:, :3], torch.tensor([[1.0, -1.0, 1.0]]))
    assert exported(x)[0, 3].isnan()


@pytest.mark.slow
def test_compile_traces_values_and_gradients_in_one_graph():
    x = torch.tensor([0.5, -2.0, -0.0, 1.0], requires_grad=True)
    y = torch.compile(ste_sign, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    assert y.tolist() == [1, -1, 1, 1] and x.grad.tolist() == [1, 0, 1, 1]


@pytest.mark.slow
def test_compiled_code_keeps_the_sign_of_minus_zero():
    x = torch.tensor([-0.0, 0.0, NAN, -1.0, INF, -INF, 1e-45, -1e-45]).repeat(9)[:67]
    compiled = torch.compile(lambda t: (binary_sign(t), binary_sign(t, zero=-1)), fullgraph=True)
    for got, want in zip(compiled(x), (binary_sign(x), binary_sign(x, zero=-1)), strict=True):
        assert torch.equal(got.nan_to_num(9), want.nan_to_num(9))


# ---- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f", [ste_sign, approx_sign, ste_round, stochastic_sign, hard_sigmoid],
    ids=lambda f: f.__name__,
)  # fmt: skip
@pytest.mark.parametrize("bad", [[1.0], torch.tensor([1, 2]), torch.tensor([True]), None])
def test_estimators_refuse_what_carries_no_gradient(f, bad):
    with pytest.raises(TypeError, match=r"^x must (be a torch\.Tensor|have a float dtype)"):
        f(bad)


@pytest.mark.parametrize(
    "bad",
    [
        torch.tensor([1], dtype=torch.uint8),
        torch.tensor([1], dtype=torch.uint16),
        torch.tensor([True]),
        torch.tensor([1j]),
    ],
    ids=lambda x: str(x.dtype),
)
def test_what_has_no_sign_is_refused(bad):
    with pytest.raises(TypeError, match="has no sign; use a signed real dtype"):
        binary_sign(bad)


def test_binary_sign_refuses_what_is_no_tensor():
    with pytest.raises(TypeError, match=r"x must be a torch\.Tensor, got float"):
        binary_sign(1.0)


@pytest.mark.parametrize("zero", [0, 2, "1", None])
def test_zero_has_one_of_two_signs(zero):
    for f in (binary_sign, ste_sign, lambda x, zero: onebit.BinarySign(zero=zero)):
        with pytest.raises(ValueError, match="zero must be 1 or -1"):
            f(torch.ones(1), zero=zero)


@pytest.mark.parametrize("make", [lambda c: ste_sign(torch.ones(1), c), onebit.Sign])
@pytest.mark.parametrize(
    ("clip_value", "error"),
    [(0, ValueError), (-1.0, ValueError), (NAN, ValueError), ("1", TypeError), (True, TypeError)],
)
def test_clip_value_is_a_positive_number_or_none(make, clip_value, error):
    with pytest.raises(error, match="clip_value must be"):
        make(clip_value)


def test_straight_through_refuses_what_does_not_fit():
    x = torch.ones(3)
    with pytest.raises(ValueError, match=r"surrogate has shape \(3,\) and value \(2,\)"):
        straight_through(x, torch.ones(2))
    with pytest.raises(TypeError, match=r"use value\.to\(surrogate\.dtype\)"):
        straight_through(x, x.double())
    with pytest.raises(TypeError, match="value must have a float dtype"):
        straight_through(x, x.int())
    with pytest.raises(TypeError, match=r"surrogate must be a torch\.Tensor, got int"):
        straight_through(1, x)


def test_sign_module_shows_its_bound_and_has_no_parameters():
    sign = onebit.Sign(0.5)
    assert repr(sign) == "Sign(clip_value=0.5)" and isinstance(sign, nn.Module)
    assert not list(sign.parameters())
