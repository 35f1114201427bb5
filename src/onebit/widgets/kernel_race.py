"""The kernel as WebAssembly: a race against float32 in the reader's own browser."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from onebit.widgets.display import Piece, filled, module, paragraph

Size = tuple[int, int, int]
BINARY = Path(__file__).with_name("kernel_race.wasm")
MOST_NUMBERS = 2**22  # in each of the two operands and the product: 16 MiB of float32


class KernelRace(Piece):
    """Race XNOR and popcount against float32 in the browser, after the reader's prediction.

    Both products are C compiled to WebAssembly with vectors of 128 bits: the package's own kernel,
    and a float32 product with its sums in registers. They run in a worker, take turns, are compared
    output by output, and the fastest turn counts. Packing is timed apart. A browser that
    lacks what this takes is told so, and shows the native ratios.

    Parameters
    ----------
    native : mapping of (m, n, k) to float, optional
        How many times as fast as float32 the bits were in native code, for some of ``sizes``, to
        stand beside the browser's ratio.
    machine : str
        Where and how ``native`` was measured: processor, cores, opponent. Wanted if it is given.
    sizes : sequence of (m, n, k), optional
        The products to choose from: m rows of activations by n of weights, k signs each; by
        default ``SIZES``.

    Raises
    ------
    ValueError
        If a size is not three positive integers, is too large for a page, or stands there twice;
        if ``native`` names another size or a ratio that is not positive, or ``machine`` is empty.

    Examples
    --------
    >>> KernelRace({(64, 64, 512): 9.5}, machine="a laptop, one core, against NumPy")
    KernelRace(4 sizes)
    >>> KernelRace(sizes=[(8, 8, 100)]).sizes
    [(8, 8, 100)]
    """

    SIZES: ClassVar[tuple[Size, ...]] = (
        (1024, 1024, 1024),
        (256, 256, 2304),
        (64, 64, 512),
        (256, 10, 1024),
    )
    """The ladder's matrices, a convolution of 256 channels, a small product, a last layer."""

    _esm = module("kernel_race.js")

    wasm = traitlets.Unicode().tag(sync=True)
    sizes: Any = traitlets.List().tag(sync=True)
    native: Any = traitlets.List().tag(sync=True)
    machine = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        native: Mapping[Size, float] | None = None,
        *,
        machine: str = "",
        sizes: Sequence[Size] | None = None,
    ) -> None:
        sizes = [_size(size) for size in (self.SIZES if sizes is None else sizes)]
        if not sizes or len(set(sizes)) < len(sizes):
            raise ValueError(f"sizes must hold one size or more, each once, got {sizes}")
        ratios = {_size(size): float(ratio) for size, ratio in (native or {}).items()}
        for size, ratio in ratios.items():
            if size not in sizes:
                raise ValueError(f"native has a ratio for {size}, which is none of {sizes}")
            if not isfinite(ratio) or ratio <= 0:
                raise ValueError(f"native[{size}] must be a positive ratio, got {ratio}")
        if ratios:
            filled("machine", machine)
        super().__init__(
            wasm=b64encode(BINARY.read_bytes()).decode(),
            sizes=sizes,
            native=[ratios.get(size) for size in sizes],
            machine=machine,
        )

    def __repr__(self) -> str:
        count = len(self.sizes)
        return f"KernelRace({count} size{'s' if count > 1 else ''})"

    def without_script(self) -> str:
        """Return what would be raced, and the native ratios if there are any."""
        text = (
            "With JavaScript, your browser multiplies matrices of signs here, in float32 and by "
            "XNOR and popcount, both compiled to WebAssembly, and shows both times."
        )
        ratios = [
            f"{ratio:.3g}× as fast as float32 for {m} × {n} sums of {k} signs"
            for (m, n, k), ratio in zip(self.sizes, self.native, strict=True)
            if ratio
        ]
        if ratios:
            text += f" In native code ({self.machine}), bits are {'; '.join(ratios)}."
        return paragraph(text)


def _size(size: Size) -> Size:
    numbers = tuple(size)
    if len(numbers) != 3 or not all(isinstance(x, int) and x > 0 for x in numbers):
        raise ValueError(f"a size must be three positive integers (m, n, k), got {size!r}")
    m, n, k = numbers
    if max(m * k, n * k, m * n) > MOST_NUMBERS:
        raise ValueError(
            f"the size {size!r} is too large for a page: m·k, n·k and m·n may each be "
            f"{MOST_NUMBERS} at most"
        )
    return m, n, k
