"""Figures in one style: inline SVG whose ink follows the page, light or dark, with alt text."""

import html
import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

#: Ink that becomes `currentColor`, the text colour of whatever page the figure stands on.
INK = "#010203"

#: Colours that keep a contrast of 3:1 on white and on near-black, and differ for colour-blind eyes.
BLUE, VERMILLION, GREEN, PURPLE, GREY = "#1a78b8", "#d55e00", "#0b8f6a", "#b0609a", "#7a7f87"

#: One (colour, dash, marker) a series, so that no two differ by colour alone.
SERIES = (
    (BLUE, "-", "o"),
    (VERMILLION, "--", "s"),
    (GREEN, "-.", "^"),
    (PURPLE, ":", "D"),
)

#: Inches across that a drawing for a phone has: its text is as large there as the page's.
NARROW = 4.6

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "onebit",
    "font.family": "sans-serif",
    "font.size": 11,
    "figure.figsize": (6.4, 3.4),
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "axes.prop_cycle": cycler(color=[s[0] for s in SERIES], linestyle=[s[1] for s in SERIES]),
}


@contextmanager
def figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] | None = None, **kwargs: Any
) -> Iterator[tuple[Figure, Any]]:
    """Give a matplotlib figure and its axes in the book's style.

    Parameters
    ----------
    rows, columns : int
        Grid of axes, as in `matplotlib.pyplot.subplots`.
    size : (float, float), optional
        Width and height in inches.
    **kwargs
        Passed to `Figure.subplots`.

    Examples
    --------
    >>> with figure() as (fig, ax):
    ...     _ = ax.plot([0, 1], [0, 1])
    >>> figure_svg(fig).startswith("<svg")
    True
    """
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=size)
        yield fig, fig.subplots(rows, columns, **kwargs)


def figure_svg(fig: Figure) -> str:
    """Return a figure as SVG text that scales with its container and follows the page's ink.

    Parameters
    ----------
    fig : Figure
        Made by `figure`, so that its ink can be told from its colours.

    Returns
    -------
    str
        One `<svg>` element, the same bytes for the same drawing.

    Examples
    --------
    >>> with figure() as (fig, ax):
    ...     _ = ax.set_title("title")
    >>> "currentColor" in figure_svg(fig)
    True
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        fig.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="([\d.]+)pt" height="[\d.]+pt"', 'width="100%"', svg, count=1)
    svg = re.sub(r"<g id=\"[^\"]*\"", "<g", svg)  # matplotlib numbers groups anew in every figure
    return _with_short_coordinates(svg.replace(INK, "currentColor").strip())


def _narrow_svg(fig: Figure) -> str | None:
    """Draw a wide figure once more for a phone, its panels below each other; leave it as it was."""
    width, height = fig.get_size_inches()
    panels = [(ax, place) for ax in fig.axes if (place := ax.get_subplotspec()) is not None]
    if width <= NARROW or not panels:
        return None
    grid = panels[0][1].get_gridspec()
    columns = max(1, int(NARROW * grid.ncols / width))
    rows = math.ceil(len(panels) / columns)
    places = fig.add_gridspec(rows, columns)
    kept = [(ax.get_ylabel(), ax.yaxis.get_tick_params()["labelleft"]) for ax, _ in panels]
    try:
        fig.set_size_inches(NARROW, height * rows / grid.nrows)
        for i, (ax, _) in enumerate(panels):
            ax.set_subplotspec(places[i // columns, i % columns])
            if i % columns == 0:  # its axis may have stood at its left neighbour only
                ax.yaxis.set_tick_params(labelleft=True)
                leftmost, _ = panels[i - i % grid.ncols]
                ax.set_ylabel(ax.get_ylabel() or leftmost.get_ylabel())
        return figure_svg(fig)
    finally:
        fig.set_size_inches(width, height)
        for (ax, place), (label, ticks) in zip(panels, kept, strict=True):
            ax.set_subplotspec(place)
            ax.set_ylabel(label)
            ax.yaxis.set_tick_params(labelleft=ticks)


def _with_short_coordinates(svg: str) -> str:
    """Round the numbers inside tags to a thousandth of a point; text between tags stays.

    The last digits of a trained value differ between two runs on several threads. In six decimals
    that sometimes shows in the drawing's bytes, though never to the eye.

    >>> _with_short_coordinates('<path d="M 48.216256 -0.0001"/><text>0.0001</text>')
    '<path d="M 48.216 0"/><text>0.0001</text>'
    """

    def rounded(number: re.Match[str]) -> str:
        short = f"{float(number[0]):.3f}".rstrip("0").rstrip(".")
        return "0" if short == "-0" else short

    return re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{4,}", rounded, tag[0]), svg)


class ShownFigure:
    """A figure as a notebook output: inline SVG, its alt text, and an optional caption.

    A wide figure holds a second drawing, for phones, hidden until the book's styles swap the two.
    """

    def __init__(
        self, svg: str, narrow: str | None, alt: str, caption: str | None, width: float
    ) -> None:
        self.svg = svg
        self.narrow = narrow
        self.alt = alt
        self.caption = caption
        self.width = width

    def __repr__(self) -> str:
        return f"Figure: {self.alt}"

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        image = f'role="img" aria-label="{html.escape(self.alt, quote=True)}"'
        narrow = f"<div {image} hidden>{self.narrow}</div>" if self.narrow else ""
        return (
            f'<figure class="onebit-figure" style="max-width:{self.width:.0f}px;margin:1em auto">'
            f"<div {image}>{self.svg}</div>{narrow}{caption}</figure>"
        )


def show(fig: Figure, alt: str, *, caption: str | None = None) -> ShownFigure:
    """Return what a notebook cell ends with to display a figure.

    Parameters
    ----------
    fig : Figure
        Made by `figure`.
    alt : str
        What the figure shows, in a sentence or two, for those who do not see it.
    caption : str, optional
        Text under the figure.

    Returns
    -------
    ShownFigure
        Its HTML is the SVG, and after a wide one a second for phones, both named by `alt` for
        screen readers; its text is the alt text.

    Raises
    ------
    TypeError
        If `fig` is no Figure, or `alt` no string.
    ValueError
        If `alt` is empty: a figure without it is not there for everyone.

    Examples
    --------
    >>> with figure() as (fig, ax):
    ...     _ = ax.plot([0, 1], [0, 1])
    >>> show(fig, alt="A line rises from 0 to 1.")
    Figure: A line rises from 0 to 1.
    """
    if not isinstance(fig, Figure):
        raise TypeError(
            f"fig must be a matplotlib Figure, got {type(fig).__name__}; make it with "
            "onebit.figures.figure"
        )
    if not isinstance(alt, str):
        raise TypeError(f"alt must be a sentence, got {type(alt).__name__}")
    if not alt.strip():
        raise ValueError("alt is empty; say in a sentence what the figure shows")
    return ShownFigure(
        figure_svg(fig), _narrow_svg(fig), alt, caption, width=fig.get_figwidth() * 100
    )
