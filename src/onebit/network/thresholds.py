"""Thresholds: scale, bias, batch norm and sign compare an integer with another, and no more."""

from collections.abc import Callable

import torch
from torch import Tensor

MOST_PIXEL = 255


@torch.no_grad()
def find_thresholds(
    least: Tensor,
    most: Tensor,
    step: int,
    normalised: Callable[[Tensor], Tensor],
    sign: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Return each output's threshold and flip, by asking the modules themselves.

    Scales are not negative, so the answer can change once between the least accumulator and the
    most: to +1 where γ is positive, to −1 where it is negative. Bisection finds where. (A formula
    from γ, β, μ and σ rounds otherwise than the modules do.)

    Parameters
    ----------
    least, most : Tensor of int64, shape (n,)
        The reachable accumulators of every output: least, least + step, …, most.
    step : int
    normalised : callable
        What maps n accumulators to what the sign gets, n numbers in any shape.
    sign : callable
        What makes ±1 of that.

    Returns
    -------
    thresholds : Tensor of int32, shape (n,)
        The least accumulator that gives +1 before the flip.
    flip : Tensor of bool, shape (n,)

    Raises
    ------
    ValueError
        If `normalised` gives NaN or infinity.

    Examples
    --------
    >>> least = torch.tensor([-4, -4])
    >>> gamma = torch.tensor([1.0, -1.0])
    >>> find_thresholds(least, -least, 2, lambda acc: gamma * acc - 1.0, torch.sign)
    (tensor([2, 0], dtype=torch.int32), tensor([False,  True]))
    """
    if not all(bool(torch.isfinite(normalised(end)).all()) for end in (least, most)):
        raise ValueError(
            f"the scale, bias or batch norm behind a layer of {len(least)} outputs gives NaN or "
            "infinity"
        )

    def plus(steps: Tensor) -> Tensor:
        return (sign(normalised(least + step * steps)) > 0).reshape(-1)

    low, high = torch.zeros_like(least), (most - least) // step
    first, last = plus(low), plus(high)
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        as_first = plus(middle) == first
        low, high = torch.where(as_first, middle, low), torch.where(as_first, high, middle)
    thresholds = torch.where(first == last, least, least + step * high).to(torch.int32)
    return thresholds, torch.where(first == last, ~first, first)


def grey_levels(pixels: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Return scale and shift of the floats that stand for 8-bit pixels: ``scale · pixel + shift``.

    Parameters
    ----------
    pixels : callable
        What maps a uint8 tensor of shape (N, H, W) to floats, pixel by pixel.

    Raises
    ------
    TypeError
        If `pixels` cannot be called, or gives no float tensor.
    ValueError
        If it gives other than one finite float a pixel, on a straight line.

    Examples
    --------
    >>> from onebit.data import normalise
    >>> grey_levels(normalise) == (1 / 127.5, -1.0)
    True
    """
    if not callable(pixels):
        raise TypeError(
            f"pixels must be a function of a uint8 tensor, got {pixels!r}; for example "
            "pixels=onebit.data.normalise, or pixels=lambda p: p / 255"
        )
    grey = torch.arange(MOST_PIXEL + 1, dtype=torch.uint8)
    levels = pixels(grey.reshape(1, 16, 16))
    if not isinstance(levels, Tensor) or not levels.is_floating_point():
        given = levels.dtype if isinstance(levels, Tensor) else type(levels).__name__
        raise TypeError(f"pixels must map uint8 pixels to a float tensor, got {given}")
    line = levels.detach().double().flatten()
    if line.numel() != grey.numel():
        raise ValueError(f"pixels must give one float a pixel, got {tuple(levels.shape)} for 256")
    shift = line[0].item()
    scale = (line[-1].item() - shift) / MOST_PIXEL
    off = (line - (scale * grey.double() + shift)).abs().max().item()
    if not off <= 1e-6 * line.abs().max().item() or scale == 0:
        raise ValueError(
            "pixels must lie on a straight line, scale · pixel + shift, with a scale other than 0: "
            "other inputs are no integers behind a factor"
        )
    return scale, shift
