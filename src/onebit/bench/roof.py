"""The roofline: rates of the products over the multiply-adds that a byte feeds."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = {"onebit": "1 bit", "torch int8": "8 bits", "torch float32": "32 bits"}


def roofline(report: dict[str, Any]) -> str:
    """Draw the products of a report under the machine's ceilings, for one thread.

    Parameters
    ----------
    report : dict
        What `run` writes as JSON.

    Returns
    -------
    str
        An SVG that names itself for screen readers.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If the report holds no ceilings.

    Examples
    --------
    >>> ceilings = {"xnor": 1200.0, "int8": 340.0, "fma": 85.0, "read memory": 12.0}
    >>> roofline({"ceilings": {"1": ceilings}, "results": []}).startswith('<svg role="img"')
    True
    """
    from onebit.figures import figure_svg

    svg = figure_svg(drawn(report))
    best = {
        name: max((rate for _, rate in places), default=0.0)
        for name, places in _products(report).items()
    }
    alt = (
        "Roofline of one core, both axes logarithmic: rates rise with the multiply-adds for each "
        "byte until arithmetic bounds them. Fastest products, in thousand million multiply-adds a "
        "second: " + ", ".join(f"{name} {rate:.0f}" for name, rate in best.items()) + "."
    )
    title = f"<title>{html.escape(alt)}</title>"
    return svg.replace("<svg", '<svg role="img"', 1).replace(">", f">{title}", 1)


def _products(report: dict[str, Any]) -> dict[str, list[tuple[list[int], float]]]:
    """Give by name the shapes and rates of a report's binary products on one thread."""
    return {
        name: [
            (result["shape"], result["giga_macs_a_second"])
            for result in report["results"]
            if (result["case"], result["threads"], result["name"]) == ("binary", 1, name)
        ]
        for name in _SHOWN
    }


def drawn(report: dict[str, Any]) -> Figure:
    """Draw what `roofline` tells, as a figure."""
    from onebit.figures import SERIES, figure

    roofs = report["ceilings"].get("1", {})
    if "read memory" not in roofs:
        raise ValueError("the report holds no ceilings to draw; run the benchmark from a clone")
    bits = {"onebit": 1, "torch int8": 8, "torch float32": 32}
    kinds = {"xnor": "XNOR and popcount", "int8": "int8 dot product", "fma": "float32 FMA"}
    x = np.geomspace(0.1, 2e4, 200)
    with figure(size=(7.2, 4.4)) as (fig, ax):
        for (kind, label), (colour, dash, marker), (name, places) in zip(
            kinds.items(), SERIES, _products(report).items(), strict=False
        ):
            if kind in roofs:
                roof = np.minimum(x * roofs["read memory"], roofs[kind])
                ax.loglog(x, roof, color=colour, linestyle=dash, label=label)
            spots = [
                (m * n * k / ((m + n) * k * bits[name] / 8 + 4 * m * n), rate)
                for (m, n, k), rate in places
            ]
            if spots:
                ax.loglog(*zip(*spots, strict=True), color=colour, linestyle="none", marker=marker,
                          label=f"{name}, {_SHOWN[name]}")  # fmt: skip
        ax.set_xlabel("multiply-adds for each byte")
        ax.set_ylabel("thousand millions a second")
        ax.legend(fontsize=9)
    return fig
