"""Two ±1 vectors whose bits can be flipped, with XNOR, popcount and dot product following."""

from collections.abc import Sequence
from typing import Any

import traitlets

from onebit.widgets.display import Piece, module, paragraph


def _signs(name: str, values: Sequence[int] | Any, k: int) -> list[int]:
    signs = [int(value) if value in (-1, 1) else None for value in list(values)]
    if None in signs:
        wrong = list(values)[signs.index(None)]
        raise ValueError(f"{name} must hold +1 and −1 only, got {wrong!r}; take binary_sign first")
    if len(signs) != k:
        raise ValueError(f"{name} has {len(signs)} elements, but k = {k}; give k of them")
    return signs  # type: ignore[return-value]


def _default(k: int, period: int) -> list[int]:
    """Return k signs in a pattern that looks irregular and is always the same."""
    return [1 if (i * i + i // period) % 3 else -1 for i in range(k)]


class BitDot(Piece):
    """Show the dot product of two ±1 vectors as ``2 · popcount(a XNOR b) − k``, live.

    Every element is a toggle button. The XNOR row, the products, the count and the dot product
    follow each flip. The identity is that of BinaryNet (Hubara et al. 2016).

    Parameters
    ----------
    k : int
        Number of elements, 1 to 128.
    a, b : sequence of +1 and −1, optional
        The vectors at the start; a fixed pattern if not given.
    bits : int, optional
        Another name for ``k``.
    word : int, optional
        Bits in a machine word. The vectors are then padded with zero bits to whole words, and the
        widget shows what counting the padding as agreement would give, and both cures.

    Raises
    ------
    ValueError
        If ``k`` or ``word`` is out of range or a vector holds anything but k signs.

    Examples
    --------
    >>> pair = BitDot(4, a=[1, -1, 1, 1], b=[1, 1, 1, -1])
    >>> pair
    BitDot(k=4, dot=0)
    >>> BitDot(k=12, word=16).bits
    16
    """

    _esm = module("bitdot.js")

    a = traitlets.List(traitlets.Int()).tag(sync=True)
    b = traitlets.List(traitlets.Int()).tag(sync=True)
    bits = traitlets.Int().tag(sync=True)

    def __init__(
        self,
        k: int = 8,
        a: Sequence[int] | Any | None = None,
        b: Sequence[int] | Any | None = None,
        *,
        bits: int | None = None,
        word: int | None = None,
    ) -> None:
        k = k if bits is None else bits
        if not isinstance(k, int) or not 1 <= k <= 128:
            raise ValueError(f"k must be an integer from 1 to 128, got {k!r}")
        if word is not None and (not isinstance(word, int) or not 1 <= word <= 128):
            raise ValueError(f"word must be an integer from 1 to 128, got {word!r}")
        super().__init__(
            a=_default(k, 2) if a is None else _signs("a", a, k),
            b=_default(k, 3) if b is None else _signs("b", b, k),
            bits=k if word is None else -(-k // word) * word,
        )

    @property
    def k(self) -> int:
        """Number of elements in each vector."""
        return len(self.a)

    @property
    def dot(self) -> int:
        """The dot product of the vectors as they stand."""
        return sum(x * y for x, y in zip(self.a, self.b, strict=True))

    def __repr__(self) -> str:
        return f"BitDot(k={self.k}, dot={self.dot})"

    def without_script(self) -> str:
        """Return the vectors and their dot product as a sentence."""
        agree = (self.k + self.dot) // 2
        return paragraph(
            f"a = {self.a}, b = {self.b}: {agree} of {self.k} elements agree, so the dot product "
            f"is 2·{agree} − {self.k} = {self.dot}. With JavaScript each element can be flipped."
        )
