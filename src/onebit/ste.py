"""Straight-through estimators: the value of one function, the gradient of another."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _StraightThrough(torch.autograd.Function):
    """Pass `value` forward and hand its gradient to `surrogate` unchanged."""

    generate_vmap_rule = True

    @staticmethod
    def forward(surrogate: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def straight_through(surrogate: Tensor, value: Tensor) -> Tensor:
    """Return `value` exactly, with the gradient of `surrogate`.

    Every estimator below is one call of this function. The common spelling
    ``surrogate + (value - surrogate).detach()`` has the same gradient, but its sum is rounded,
    so that it returns only nearly `value`.

    Parameters
    ----------
    surrogate : Tensor
        Any float shape; where the gradient flows.
    value : Tensor
        The same shape and dtype; what the forward pass returns. Its own gradient is cut.

    Returns
    -------
    Tensor
        A copy of `value`.

    Raises
    ------
    TypeError
        If either is not a float tensor, or their dtypes differ.
    ValueError
        If the shapes differ.

    References
    ----------
    Bengio, Léonard and Courville 2013, arXiv:1308.3432, give the estimator its name.

    Examples
    --------
    >>> x = torch.tensor([0.1, 0.7], requires_grad=True)
    >>> y = straight_through(3 * x, x.round())
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 1.0], [3.0, 3.0])
    """
    check_float("surrogate", surrogate)
    check_float("value", value)
    if surrogate.dtype != value.dtype:
        raise TypeError(
            f"surrogate has dtype {surrogate.dtype} and value {value.dtype}; both must be the "
            "same: use value.to(surrogate.dtype)"
        )
    if surrogate.shape != value.shape:
        raise ValueError(
            f"surrogate has shape {tuple(surrogate.shape)} and value {tuple(value.shape)}; "
            "both must be the same, since each element passes its gradient to its own surrogate"
        )
    return _StraightThrough.apply(surrogate, value.detach())


def check_float(name: str, x: object) -> None:
    """Refuse what is not a float tensor and so can carry no gradient.

    Raises
    ------
    TypeError
        Naming the argument, what was given, and the cure.

    Examples
    --------
    >>> check_float("x", torch.ones(2))
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"{name} must have a float dtype to carry a gradient, got {x.dtype}; use {name}.float()"
        )


def check_clip_value(clip_value: object) -> None:
    """Refuse a gradient cancellation bound that is neither a positive number nor None.

    Raises
    ------
    TypeError
        If it is no number.
    ValueError
        If it is not positive.

    Examples
    --------
    >>> check_clip_value(1.0)
    """
    if clip_value is None:
        return
    if isinstance(clip_value, bool) or not isinstance(clip_value, int | float):
        raise TypeError(
            f"clip_value must be a number or None (no cancellation), got {clip_value!r}"
        )
    if not clip_value > 0:
        raise ValueError(
            f"clip_value must be positive, got {clip_value!r}; None cancels no gradient"
        )


def check_zero(zero: object) -> None:
    """Refuse a sign of zero that is neither 1 nor −1.

    Raises
    ------
    ValueError
        Naming what was given.

    Examples
    --------
    >>> check_zero(-1)
    """
    if zero not in (1, -1):
        raise ValueError(f"zero must be 1 or -1, since one bit has no third value; got {zero!r}")


def _clipped(x: Tensor, clip_value: float | None) -> Tensor:
    """Return the hard tanh whose gradient is 1{|x| <= clip_value}, or `x` itself for None.

    The bound itself must keep its gradient: clipping puts latent weights exactly there. torch's
    hard tanh cancels it, so it gets the next float as its bound. (`clamp` keeps it, but takes ten
    times as long backwards on the CPU.)
    """
    check_clip_value(clip_value)
    if clip_value is None:
        return x
    bound = _float_above(clip_value, x.dtype)
    return F.hardtanh(x, -bound, bound)


def _float_above(bound: float, dtype: torch.dtype) -> float:
    """Return the float of `dtype` that follows `bound`, itself rounded to `dtype`."""
    if math.isinf(bound):
        return bound
    for steps in (0, 1):
        gap = math.ldexp(torch.finfo(dtype).eps, math.frexp(bound)[1] - 1)
        bound = (round(bound / gap) + steps) * gap
    return bound


def binary_sign(x: Tensor, *, zero: int = 1) -> Tensor:
    """Return the sign of every element, with no zero among them.

    Parameters
    ----------
    x : Tensor
        Any shape and signed dtype. 0 and −0 map to `zero`; NaN stays NaN.
    zero : {1, -1}
        The sign given to zero: +1 in BinaryConnect, BinaryNet and XNOR-Net, −1 in BitNet b1.

    Returns
    -------
    Tensor
        Same shape and dtype, every element −1 or +1. Its gradient is zero everywhere, as the
        derivative of a step is: to train through it, use `ste_sign`.

    Raises
    ------
    TypeError
        If `x` is no tensor, or of a dtype that has no sign.
    ValueError
        If `zero` is neither 1 nor −1.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Eq. 1; BitNet (arXiv:2310.11453), Eq. 2.

    Examples
    --------
    >>> binary_sign(torch.tensor([-2.0, -0.0, 0.0, 0.5])).tolist()
    [-1.0, 1.0, 1.0, 1.0]
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor, got {type(x).__name__}")
    if not x.dtype.is_signed or x.is_complex():
        raise TypeError(f"x has dtype {x.dtype}, which has no sign; use a signed real dtype")
    check_zero(zero)
    if not x.is_floating_point():
        return (x >= 0 if zero == 1 else x > 0).to(x.dtype) * 2 - 1
    # On the CPU several times as fast as `torch.where`. Clamping to [1, 1] gives 1, or NaN where x
    # is NaN; adding or subtracting zero makes −0 a +0, so that its sign bit no longer counts.
    magnitude = x.detach().clamp(1, 1)
    return magnitude.copysign_(x + 0) if zero == 1 else magnitude.copysign_(0 - x).neg_()


def ste_sign(x: Tensor, clip_value: float | None = 1.0, *, zero: int = 1) -> Tensor:
    """Return `binary_sign(x)` with the gradient ``g · 1{|x| ≤ clip_value}``.

    Parameters
    ----------
    x : Tensor
        Any shape, float.
    clip_value : float or None
        Beyond it the gradient is cancelled; None passes it everywhere (the identity estimator).
    zero : {1, -1}
        The sign given to zero.

    Returns
    -------
    Tensor
        Same shape and dtype, every element −1 or +1 (NaN stays NaN).

    Raises
    ------
    TypeError
        If `x` is not a float tensor, or `clip_value` no number.
    ValueError
        If `clip_value` is not positive, or `zero` neither 1 nor −1.

    References
    ----------
    BinaryNet (NIPS 2016), Eqs. 4 and 5: the gradient is that of the hard tanh.

    Examples
    --------
    >>> x = torch.tensor([-1.5, -1.0, 0.0, 2.0], requires_grad=True)
    >>> ste_sign(x).sum().backward()
    >>> x.grad.tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    check_float("x", x)
    return straight_through(_clipped(x, clip_value), binary_sign(x.detach(), zero=zero))


def approx_sign(x: Tensor) -> Tensor:
    """Return `binary_sign(x)` with the triangular gradient ``g · max(0, 2 − 2|x|)``.

    Parameters
    ----------
    x : Tensor
        Any shape, float.

    Raises
    ------
    TypeError
        If `x` is not a float tensor.

    References
    ----------
    Bi-Real Net (ECCV 2018): the derivative of a piecewise quadratic that hugs the step.

    Examples
    --------
    >>> x = torch.tensor([-1.5, -0.5, 0.0, 0.75], requires_grad=True)
    >>> approx_sign(x).sum().backward()
    >>> x.grad.tolist()
    [0.0, 1.0, 2.0, 0.5]
    """
    check_float("x", x)
    clipped = x.clamp(-1, 1)
    return straight_through(2 * clipped - clipped * clipped.abs(), binary_sign(x.detach()))


def ste_round(x: Tensor) -> Tensor:
    """Round to the nearest integer, ties to even, with the identity's gradient.

    Parameters
    ----------
    x : Tensor
        Any shape, float.

    Returns
    -------
    Tensor
        Same shape and dtype, whole numbers.

    Raises
    ------
    TypeError
        If `x` is not a float tensor.

    References
    ----------
    BitNet b1.58, "Training Tips, Code and FAQ", Figure 3.

    Examples
    --------
    >>> x = torch.tensor([0.5, 1.5, -0.6], requires_grad=True)
    >>> y = ste_round(x)
    >>> y.sum().backward()
    >>> y.tolist(), x.grad.tolist()
    ([0.0, 2.0, -1.0], [1.0, 1.0, 1.0])
    """
    check_float("x", x)
    return straight_through(x, x.detach().round())


def hard_sigmoid(x: Tensor) -> Tensor:
    """Return clip((x + 1) / 2, 0, 1), the probability that `stochastic_sign` draws +1.

    Parameters
    ----------
    x : Tensor
        Any shape, float.

    Returns
    -------
    Tensor
        Same shape and dtype, in [0, 1].

    Raises
    ------
    TypeError
        If `x` is not a float tensor.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Eq. 3.

    Examples
    --------
    >>> hard_sigmoid(torch.tensor([-3.0, 0.0, 0.5])).tolist()
    [0.0, 0.5, 0.75]
    """
    check_float("x", x)
    return ((x + 1) / 2).clamp(0, 1)


def stochastic_sign(
    x: Tensor, clip_value: float | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw +1 with probability `hard_sigmoid(x)` and −1 otherwise.

    The expectation is ``clip(x, −1, 1)`` and the variance ``1 − x²`` for ``|x| ≤ 1``.

    Parameters
    ----------
    x : Tensor
        Any shape, float. NaN stays NaN.
    clip_value : float or None
        As in `ste_sign`; BinaryConnect clips the latent weights instead and leaves it None.
    generator : torch.Generator, optional
        Source of the draws; torch's global one if None.

    Returns
    -------
    Tensor
        Same shape and dtype, every element −1 or +1.

    Raises
    ------
    TypeError
        If `x` is not a float tensor, or `clip_value` no number.
    ValueError
        If `clip_value` is not positive.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Eqs. 2 and 3.

    Examples
    --------
    >>> stochastic_sign(torch.tensor([-1.0, 1.0])).tolist()
    [-1.0, 1.0]
    """
    check_float("x", x)
    # Half precision has too few fractions between 0 and 1 to draw from.
    dtype = torch.promote_types(x.dtype, torch.float32)
    draw = torch.rand(x.shape, dtype=dtype, device=x.device, generator=generator)
    margin = hard_sigmoid(x.detach().to(dtype)) - draw
    return straight_through(_clipped(x, clip_value), binary_sign(margin, zero=-1).to(x.dtype))
