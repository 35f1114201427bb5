"""Quantizers: a tensor becomes small integer codes and the scale that gives them back their size.

Every quantizer is a module with `quantize(x) -> (codes, scale)`; calling it returns their product,
the fake-quantised tensor. The codes carry the straight-through gradient. The scale is a separate
factor, applied after the matrix product, so that the product runs on integers alone.
"""

from typing import ClassVar, Literal

from torch import Tensor, nn

from onebit.ste import (
    binary_sign,
    check_clip_value,
    check_float,
    check_zero,
    ste_sign,
    stochastic_sign,
    straight_through,
)

Granularity = Literal["channel", "token", "tensor"]


def _reduced_dims(x: Tensor, granularity: Granularity) -> tuple[int, ...]:
    """Return the dimensions that share one scale: all, all but the first, or the last."""
    if granularity == "channel" and x.dim() < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but granularity='channel' wants (channels, ...); "
            "for one scale over all elements use granularity='tensor'"
        )
    if granularity == "token" and x.dim() < 1:
        raise ValueError("x is a scalar, but granularity='token' wants (..., features)")
    dims = {
        "tensor": tuple(range(x.dim())),
        "channel": tuple(range(1, x.dim())),
        "token": (-1,),
    }
    return dims[granularity]


def _check_granularity(granularity: str, allowed: tuple[str, ...]) -> None:
    if granularity not in allowed:
        raise ValueError(f"granularity must be one of {allowed}, got {granularity!r}")


class Quantizer(nn.Module):
    """Base class: subclasses define `quantize`, and say what their codes need.

    Attributes
    ----------
    bits : float
        Bits that one code takes when stored.
    max_code : int
        Largest absolute code.

    Examples
    --------
    >>> import torch
    >>> class Halves(Quantizer):
    ...     bits, max_code = 8.0, 127
    ...     def quantize(self, x):
    ...         return (2 * x).round().clamp(-127, 127), x.new_tensor(0.5)
    >>> Halves()(torch.tensor([0.7, 100.0])).tolist()
    [0.5, 63.5]
    """

    bits: ClassVar[float]
    max_code: ClassVar[int]

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(codes, scale)`: codes of x's shape, and a scale that broadcasts to it.

        Parameters
        ----------
        x : Tensor
            Any float dtype; codes and scale have the same.

        Raises
        ------
        TypeError
            If `x` is not a float tensor.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define quantize")

    def forward(self, x: Tensor) -> Tensor:
        """Return the fake-quantised tensor, codes · scale."""
        codes, scale = self.quantize(x)
        return codes * scale


class BinarySign(Quantizer):
    """Signs without a scale: codes ±1, gradient ``g · 1{|x| ≤ clip_value}``.

    Parameters
    ----------
    clip_value : float or None
        Gradient cancellation bound; None is the identity estimator of BinaryConnect.
    zero : {1, -1}
        The sign given to zero.

    Raises
    ------
    TypeError, ValueError
        If `clip_value` is no positive number, or `zero` neither 1 nor −1.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Eq. 1; BinaryNet (NIPS 2016), Eqs. 1 and 4.

    Examples
    --------
    >>> import torch
    >>> codes, scale = BinarySign().quantize(torch.tensor([-0.3, 0.0, 2.0]))
    >>> codes.tolist(), scale.item()
    ([-1.0, 1.0, 1.0], 1.0)
    """

    bits = 1.0
    max_code = 1

    def __init__(self, clip_value: float | None = 1.0, *, zero: int = 1) -> None:
        super().__init__()
        check_clip_value(clip_value)
        check_zero(zero)
        self.clip_value = clip_value
        self.zero = zero

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signs, and a scale of one."""
        return ste_sign(x, self.clip_value, zero=self.zero), x.new_ones(())

    def extra_repr(self) -> str:
        """Show the clipping bound, and the sign of zero where it is not +1."""
        zero = "" if self.zero == 1 else f", zero={self.zero}"
        return f"clip_value={self.clip_value}{zero}"


class StochasticBinary(Quantizer):
    """BinaryConnect's stochastic rule: random signs in training, the real weights in evaluation.

    The paper tests networks trained this way with their real-valued weights, by analogy with
    dropout. In evaluation mode `quantize` therefore returns x itself.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Eqs. 2 and 3 and Section 2.6.

    Examples
    --------
    >>> import torch
    >>> quantizer = StochasticBinary()
    >>> sorted(quantizer(torch.zeros(1000)).unique().tolist())
    [-1.0, 1.0]
    >>> quantizer.eval()(torch.tensor([0.25])).item()
    0.25
    """

    bits = 1.0
    max_code = 1

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return drawn signs (training) or x (evaluation), and a scale of one."""
        check_float("x", x)
        return (stochastic_sign(x) if self.training else x), x.new_ones(())


class ScaledBinary(Quantizer):
    """XNOR-Net's ``α · sign(x)`` with ``α = mean |x|``, the best scale by least squares.

    With g the gradient at ``α · sign(x)``, the gradient at x_i is
    ``α · g_i · 1{|x_i| ≤ clip_value}`` from the codes, plus ``sign(x_i) / n · Σ_j g_j · sign(x_j)``
    from α, over the n elements that share it (left out at ``x_i = 0``, where ``|x|`` has no slope).
    The paper prints the second term without its sum.

    Parameters
    ----------
    clip_value : float or None
        Gradient cancellation bound.
    granularity : {"channel", "token", "tensor"}
        Which elements share one α: a weight's output channel (all dimensions but the first), a
        row of activations (the last dimension), or the whole tensor.

    Raises
    ------
    TypeError, ValueError
        If `clip_value` is no positive number, `granularity` is another word, or the tensor to
        quantise has too few dimensions for it.

    References
    ----------
    XNOR-Net (arXiv:1603.05279), Eqs. 2 to 6, and Section 3.1 for the gradient.

    Examples
    --------
    >>> import torch
    >>> codes, alpha = ScaledBinary().quantize(torch.tensor([[1.0, -3.0], [0.5, 0.5]]))
    >>> codes.tolist(), alpha.tolist()
    ([[1.0, -1.0], [1.0, 1.0]], [[2.0], [0.5]])
    """

    bits = 1.0
    max_code = 1

    def __init__(
        self, clip_value: float | None = 1.0, *, granularity: Granularity = "channel"
    ) -> None:
        super().__init__()
        check_clip_value(clip_value)
        _check_granularity(granularity, ("channel", "token", "tensor"))
        self.clip_value = clip_value
        self.granularity = granularity

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signs and α, which keeps the reduced dimensions with size one."""
        check_float("x", x)
        alpha = x.abs().mean(_reduced_dims(x, self.granularity), keepdim=True)
        return ste_sign(x, self.clip_value), alpha

    def extra_repr(self) -> str:
        """Show the clipping bound and what shares an α."""
        return f"clip_value={self.clip_value}, granularity={self.granularity!r}"


class BinaryAbsMean(Quantizer):
    """BitNet b1's weights: ``sign(w − mean w)``, scaled by ``β = mean |w|`` of the whole matrix.

    The gradient reaching the weights is the fake-quantised weights' own (identity, no mask, both
    mean and β detached).

    References
    ----------
    BitNet (arXiv:2310.11453), Eqs. 1 to 3 and 12. Zero maps to −1, as Eq. 2 has it.

    Examples
    --------
    >>> import torch
    >>> codes, beta = BinaryAbsMean().quantize(torch.tensor([1.0, 2.0, 6.0]))
    >>> codes.tolist(), beta.item()
    ([-1.0, -1.0, 1.0], 3.0)
    """

    bits = 1.0
    max_code = 1
    eps: ClassVar[float] = 1e-5

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the signs of the centred weights, and β as a zero-dimensional tensor."""
        check_float("x", x)
        beta = x.detach().abs().mean().clamp(min=self.eps)
        w = x.detach()
        return straight_through(x / beta, binary_sign(w - w.mean(), zero=-1)), beta


class TernaryAbsMean(Quantizer):
    """BitNet b1.58's weights: ``round(w / γ)`` clipped to {−1, 0, 1}, ``γ = mean |w|``.

    The gradient reaching the weights is the fake-quantised weights' own (identity, no mask, γ
    detached). Ties round to even, so the threshold γ / 2 itself gives 0. γ is at least `eps`.

    References
    ----------
    BitNet b1.58 (arXiv:2402.17764), Eqs. 1 to 3; "Training Tips, Code and FAQ", Figure 3.

    Examples
    --------
    >>> import torch
    >>> codes, gamma = TernaryAbsMean().quantize(torch.tensor([0.1, -1.0, 1.9]))
    >>> codes.tolist(), round(gamma.item(), 6)
    ([0.0, -1.0, 1.0], 1.0)
    """

    bits = 2.0
    max_code = 1
    eps: ClassVar[float] = 1e-5

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes in {−1, 0, 1}, and γ as a zero-dimensional tensor."""
        check_float("x", x)
        gamma = x.detach().abs().mean().clamp(min=self.eps)
        ratio = x / gamma
        return straight_through(ratio, ratio.detach().round().clamp(-1, 1)), gamma


class Int8AbsMax(Quantizer):
    """BitNet's activations: ``round(127 · x / max |x|)``, integers from −127 to 127.

    The gradient reaching the activations is the fake-quantised ones' own (identity, maximum
    detached). The maximum is at least `eps`.

    Parameters
    ----------
    granularity : {"token", "tensor"}
        Whether each row (last dimension) or the whole tensor has its own maximum.

    Raises
    ------
    ValueError
        If `granularity` is another word.

    References
    ----------
    BitNet b1.58, "Training Tips, Code and FAQ", Figure 3.

    Examples
    --------
    >>> import torch
    >>> codes, scale = Int8AbsMax().quantize(torch.tensor([[0.5, -1.0], [12.7, 0.0]]))
    >>> codes.tolist()
    [[64.0, -127.0], [127.0, 0.0]]
    """

    bits = 8.0
    max_code = 127
    eps: ClassVar[float] = 1e-5

    def __init__(self, granularity: Literal["token", "tensor"] = "token") -> None:
        super().__init__()
        _check_granularity(granularity, ("token", "tensor"))
        self.granularity: Granularity = granularity

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return integer codes, and the scale ``max |x| / 127``."""
        return self._codes(x, self.granularity)

    def _codes(self, x: Tensor, granularity: Granularity) -> tuple[Tensor, Tensor]:
        check_float("x", x)
        dims = _reduced_dims(x, granularity)
        magnitude = x.detach().abs()
        # An empty batch has no maximum; its sum is 0, and the scale then eps.
        absmax = (magnitude.amax if x.numel() else magnitude.sum)(dims, keepdim=True)
        scale = absmax.clamp(min=self.eps) / self.max_code
        ratio = x / scale
        codes = ratio.detach().round().clamp(-self.max_code, self.max_code)
        return straight_through(ratio, codes), scale

    def extra_repr(self) -> str:
        """Show what shares a maximum."""
        return f"granularity={self.granularity!r}"


class Int8AbsMaxB1(Int8AbsMax):
    """BitNet b1's rule for activations: per tensor in training, per token in evaluation.

    References
    ----------
    BitNet (arXiv:2310.11453), Section 2.1.

    Examples
    --------
    >>> import torch
    >>> quantizer = Int8AbsMaxB1()
    >>> x = torch.tensor([[1.0], [2.0]])
    >>> quantizer.quantize(x)[1].shape, quantizer.eval().quantize(x)[1].shape
    (torch.Size([1, 1]), torch.Size([2, 1]))
    """

    def __init__(self) -> None:
        super().__init__("token")

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return integer codes and their scale, by the rule of the current mode."""
        return self._codes(x, "tensor" if self.training else "token")

    def extra_repr(self) -> str:
        """Show nothing: the mode decides what shares a maximum."""
        return ""
