"""Exercises of chapter 6: ternary weights by their absmean, and int8 activations.

Six tasks, two and a half hours; the chapter "BitNet (2023–2025)" tells the story to them, from its
section "BitNet b1.58: a third value" to "Activations of eight bits". `make exercises` copies this
file to exercises/work: write there, in place of each NotImplementedError.

    pytest exercises -k chapter_06         check all, or -k ch06.2 for one task
    python -m onebit hint ch06.2           one hint, and one more each time
    check("ch06.2", absmax)                the same in a notebook: from onebit.checks import check

Weights have shape (n, k), n outputs and k inputs; activations (…, k), a token in each row. Ties
round to the even neighbour, as torch.round does.
"""

from torch import Tensor, nn

#: No absmean and no absmax is taken for smaller than this.
EPS = 1e-5


def absmean(w: Tensor) -> tuple[Tensor, Tensor]:
    """ch06.1 Three codes and a scale (warm-up, 10 minutes, about 3 lines).

    Return the codes of w, each −1, 0 or 1, in its shape and dtype, and gamma, the mean of |w| over
    the whole tensor, or EPS if that is larger: clip(round(w / gamma), −1, 1). gamma is a tensor
    without dimensions.
    """
    raise NotImplementedError


def int_product(a: Tensor, w_b: Tensor) -> Tensor:
    """ch06.2 Integers in the middle (easy, 10 minutes, about 2 lines).

    Return the product of a (m, k) and w_b (n, k), both int8: (m, n), in int32 and exact, however
    long the rows are.
    """
    raise NotImplementedError


def absmax(x: Tensor) -> tuple[Tensor, Tensor]:
    """ch06.3 Eight bits a token (easy, 20 minutes, about 4 lines).

    Return the codes round(x / scale) in int8, of the shape (…, k) of x, and the scale of each
    token, of shape (…, 1) and the dtype of x: the token's largest magnitude, or EPS if that is
    larger, over 127. So codes run from −127 to 127.
    """
    raise NotImplementedError


def pack_trits(codes: Tensor) -> Tensor:
    """ch06.4 Five trits in a byte (medium, 25 minutes, about 8 lines).

    Write codes −1, 0 and 1, in int8 and one dimension, as bytes: code + 1 is a trit, and five trits
    are a number in base 3, the first its lowest digit. What is missing to the last five is 0 as a
    code. Return uint8. `unpack_trits` below belongs to the task.
    """
    raise NotImplementedError


def unpack_trits(packed: Tensor, count: int) -> Tensor:
    """Return the first `count` codes of what `pack_trits` packed, in int8."""
    raise NotImplementedError


class BitLinear(nn.Module):
    """ch06.5 The layer, to be trained (hard, 40 minutes, about 12 lines).

    A layer without bias. Its parameter `weight`, of shape (out_features, in_features), is drawn
    uniformly within 1 / sqrt(in_features) of zero. Backward, each rounding passes the gradient on
    unchanged, and gamma and the scales count as constants: w + (values − w).detach(). There, no
    int8 is needed: take the values, codes times scale.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the product of x (m, in_features), (m, out_features).

        RMSNorm without parameters first (F.rms_norm); then the values of `absmax`, times those of
        `absmean` of the weights.
        """
        raise NotImplementedError


def best_ternary(w: Tensor) -> tuple[Tensor, Tensor]:
    """ch06.6 The best three values (stretch, 40 minutes, about 6 lines).

    Return the codes −1, 0 and 1 and the scale, a tensor without dimensions, for which the squared
    error of scale * codes against w is as small as any can be. w has one dimension, and is not all
    zeros. To sort helps; to try all codes does not: there are 3 to the power of len(w).
    """
    raise NotImplementedError
