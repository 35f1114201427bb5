"""A slider over a table computed beforehand: curves with a marker, drawings, or whole figures."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from itertools import pairwise
from math import isfinite, log10
from typing import Any

import ipywidgets
import traitlets

from onebit.widgets.display import Piece, WithoutScript, filled, module, paragraph

Readout = str | Callable[[dict[str, Any]], str]
KINDS = ("line", "steps", "bars", "points")
MOST_SERIES = 4
MOST_CHARACTERS = 600_000  # a page has to load on a phone
MOST_OPEN = 12  # rows of a table that are not folded away


class SweepView(Piece):
    """What the slider moves: position ``index`` of ``texts`` and of the drawing in ``spec``."""

    _esm = module("sweep.js")

    spec = traitlets.Dict().tag(sync=True)
    texts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    index = traitlets.Int().tag(sync=True)

    def __repr__(self) -> str:
        return f"SweepView({len(self.texts)} positions)"


class Slid(WithoutScript, ipywidgets.VBox):
    """A slider linked in the browser, with no kernel, to a `SweepView`."""

    def __init__(self, spec: dict[str, Any], texts: list[str], start: int) -> None:
        filled("label", spec["label"])
        filled("alt", spec["alt"])
        size = len(json.dumps([spec, texts]))
        if size > MOST_CHARACTERS:
            raise ValueError(
                f"the table takes {size} characters and every reader loads it; at most "
                f"{MOST_CHARACTERS} are allowed: sweep fewer positions or draw fewer points"
            )
        self.view = SweepView(spec=spec, texts=texts, index=start)
        self.slider = ipywidgets.IntSlider(
            value=start, min=0, max=len(texts) - 1, description=spec["label"], readout=False,
            layout={"width": "100%"}, style={"description_width": "initial"},
        )  # fmt: skip
        self.link = ipywidgets.jslink((self.slider, "value"), (self.view, "index"))
        super().__init__([self.slider, self.view])
        self.add_class("onebit-sweep")

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.slider.description!r}, {len(self.view.texts)} positions)"
        )

    def rows(self) -> list[list[str]]:
        """Return the table in words: its heads, then what is shown at each position."""
        return [["what the drawing shows"], *([text] for text in self.view.texts)]

    def without_script(self) -> str:
        """Return what the drawing shows, and the table that the slider would move through."""
        spec = self.view.spec
        first, *_, last = spec["positions"]
        told = (
            f"{spec['alt']} With JavaScript, a slider moves {spec['label']} from {first} to {last}."
        )
        heads, *rows = self.rows()
        is_open = " open" if len(rows) <= MOST_OPEN else ""
        body = "".join(_line("td", row) for row in rows)
        return (
            f"{paragraph(told)}<details{is_open}><summary>All {len(rows)} positions</summary>"
            f"<table><thead>{_line('th', heads)}</thead><tbody>{body}</tbody></table></details>"
        )


class Computed(Slid):
    """A sweep whose positions are what a function gave for a list of values.

    Attributes
    ----------
    table : list of dict
        What ``f`` gave for each value, as stored: integers exactly, other numbers to six
        significant digits, a drawing as ``[x, y]``.
    """

    table: list[dict[str, Any]]

    def __init__(
        self,
        f: Callable[[Any], Mapping[str, Any]],
        values: list[Any],
        table: list[dict[str, Any]],
        readout: Readout | None,
        start: Any,
        spec: dict[str, Any],
    ) -> None:
        self._f, self._values, self.table = f, values, table
        spec["positions"] = [_position(value) for value in values]
        texts = [
            _text(readout, spec["label"], value, row)
            for value, row in zip(values, table, strict=True)
        ]
        if start is not None and start not in values:
            raise ValueError(f"start must be one of the values swept over, got {start!r}")
        super().__init__(spec, texts, 0 if start is None else values.index(start))

    def rows(self) -> list[list[str]]:
        """Return the swept values and every number of the table, or the readouts without any."""
        names = [name for name, entry in self.table[0].items() if not isinstance(entry, list)]
        if not names:
            return super().rows()
        positions = self.view.spec["positions"]
        return [[self.view.spec["label"], *names]] + [
            [position, *(_brief(row[name]) for name in names)]
            for position, row in zip(positions, self.table, strict=True)
        ]

    def verify(self) -> None:
        """Compute the table anew at every position and compare it with the stored one.

        Raises
        ------
        AssertionError
            At the first position that differs.
        """
        for value, stored in zip(self._values, self.table, strict=True):
            again = _row(self._f, value)
            assert again == stored, f"at {value!r} the table holds {stored}, but f gives {again}"


class Sweep(Computed):
    """Curves against the swept value, a marker on each at the slider's position, and a readout.

    Parameters
    ----------
    f : callable
        A pure function of one value that returns a dict of named finite numbers.
    values : sequence of float
        Two or more values to sweep over, ascending.
    label : str
        What is swept, with its unit: the slider's name and the x axis.
    alt : str
        What the drawing shows, for those who do not see it.
    y_label : str
        What the curves measure, with its unit; by default the names of the curves.
    curves : sequence of str, optional
        The names to draw, four at most; by default all. The others can stand in ``readout``.
    marks, levels : mapping of str to float, optional
        Vertical lines at x and horizontal lines at y, each with its text.
    readout : str or callable, optional
        A format string over the names and ``value``, as ``"α = {value:.2f} · error {error:.3f}"``,
        or a function of the dict of these. By default all names, four significant digits.
    start : float, optional
        Where the slider stands first; by default at the first value.
    y_range : (float, float), optional
        Ends of the y axis; by default the data's.
    log_x, log_y : bool
        Draw an axis logarithmically.

    Raises
    ------
    TypeError
        If ``f`` returns anything but a dict of numbers.
    ValueError
        If a number is not finite, names differ between positions, values do not ascend, ``start``
        is not among them, a curve is unknown, or the table is too large for a page.

    Examples
    --------
    >>> bowl = Sweep(
    ...     lambda a: {"error": (a - 0.8) ** 2}, [0.0, 0.4, 0.8, 1.2], label="α",
    ...     alt="A parabola with its minimum at 0.8.", marks={"α*": 0.8},
    ...     readout="α = {value:.1f} · error {error:.2f}",
    ... )
    >>> bowl
    Sweep('α', 4 positions)
    >>> bowl.table[1]
    {'error': 0.16}
    >>> bowl.view.texts[1]
    'α = 0.4 · error 0.16'
    >>> bowl.verify()
    """

    def __init__(
        self,
        f: Callable[[Any], Mapping[str, Any]],
        values: Iterable[Any],
        *,
        label: str,
        alt: str,
        y_label: str | None = None,
        curves: Sequence[str] | None = None,
        marks: Mapping[str, float] | None = None,
        levels: Mapping[str, float] | None = None,
        readout: Readout | None = None,
        start: Any = None,
        y_range: tuple[float, float] | None = None,
        log_x: bool = False,
        log_y: bool = False,
    ) -> None:
        swept, table = _tabulate(f, values)
        x = _numbers(swept, "values")
        if any(after <= before for before, after in pairwise(x)):
            raise ValueError("values must ascend, since they are the x axis; sort them")
        drawings = [name for name, value in table[0].items() if isinstance(value, list)]
        if drawings:
            raise TypeError(f"f({swept[0]!r})[{drawings[0]!r}] is a drawing; use Frames for those")
        names = _known(curves, table[0])
        data = [{"x": x, "y": [row[name] for row in table]} for name in names]
        spec = _axes(
            data, x_label=label, y_label=y_label or ", ".join(names), marks=marks, levels=levels,
            x_range=(x[0], x[-1]), y_range=y_range, log_x=log_x, log_y=log_y,
        )  # fmt: skip
        spec |= {"label": label, "alt": alt, "series_data": data}
        spec["series"] = [{"name": name, "kind": "curve"} for name in names]
        super().__init__(f, swept, table, readout, start, spec)


class Frames(Computed):
    """A small drawing for each position of the slider, all on the same axes, and a readout.

    Parameters
    ----------
    f : callable
        A pure function of one value that returns a dict. A pair ``(x, y)`` of sequences is a named
        drawing, a number can stand in ``readout``.
    values : sequence
        Two or more values to sweep over: numbers, or strings that name the positions.
    label, alt, marks, levels, readout, start, y_range, log_x, log_y
        As for `Sweep`.
    kind : str or mapping of str to str
        ``"line"``, ``"steps"``, ``"points"`` or ``"bars"``, for all drawings or for each by its
        name. Bars have one x more than y: the edges, as in ``numpy.histogram``.
    x_label, y_label : str
        What the axes measure, with units.
    x_range : (float, float), optional
        Ends of the x axis; by default the data's over all positions.

    Raises
    ------
    TypeError, ValueError
        As for `Sweep`, and if x and y do not fit each other or ``kind`` is unknown.

    Examples
    --------
    >>> powers = Frames(
    ...     lambda p: {"x^p": ([0, 1, 2], [0**p, 1**p, 2**p]), "at 2": 2**p}, [1, 2, 3],
    ...     label="p", alt="The curve bends up as p grows.", x_label="x", y_label="x to the p",
    ...     readout="p = {value} · 2^p = {at 2}",
    ... )
    >>> powers.view.texts
    ['p = 1 · 2^p = 2', 'p = 2 · 2^p = 4', 'p = 3 · 2^p = 8']
    >>> powers.table[2]["x^p"]
    [[0, 1, 2], [0, 1, 8]]
    """

    def __init__(
        self,
        f: Callable[[Any], Mapping[str, Any]],
        values: Iterable[Any],
        *,
        label: str,
        alt: str,
        x_label: str,
        y_label: str,
        kind: str | Mapping[str, str] = "line",
        marks: Mapping[str, float] | None = None,
        levels: Mapping[str, float] | None = None,
        readout: Readout | None = None,
        start: Any = None,
        x_range: tuple[float, float] | None = None,
        y_range: tuple[float, float] | None = None,
        log_x: bool = False,
        log_y: bool = False,
    ) -> None:
        swept, table = _tabulate(f, values)
        names = [name for name, value in table[0].items() if isinstance(value, list)]
        if not 1 <= len(names) <= MOST_SERIES:
            raise ValueError(f"f must return 1 to {MOST_SERIES} drawings (x, y), got {len(names)}")
        kinds = dict(kind) if isinstance(kind, Mapping) else dict.fromkeys(names, kind)
        for name in names:
            if kinds.get(name) not in KINDS:
                raise ValueError(
                    f"kind of {name!r} must be one of {KINDS}, got {kinds.get(name)!r}"
                )
        frames = [
            [_drawing(row[name], kinds[name], f"f({value!r})[{name!r}]") for name in names]
            for value, row in zip(swept, table, strict=True)
        ]
        everything = [drawing for frame in frames for drawing in frame]
        if "bars" in kinds.values() and not log_y:
            everything.append({"x": [], "y": [0]})
        spec = _axes(
            everything, x_label=x_label, y_label=y_label, marks=marks, levels=levels,
            x_range=x_range, y_range=y_range, log_x=log_x, log_y=log_y,
        )  # fmt: skip
        spec |= {"label": label, "alt": alt, "frames": frames}
        spec["series"] = [{"name": name, "kind": kinds[name]} for name in names]
        super().__init__(f, swept, table, readout, start, spec)

    def without_script(self) -> str:
        """Return the drawing where the slider starts, then what there is at each position."""
        picture = _picture(self.view.spec, self.view.index)
        return _pictured(picture, self.view.texts[self.view.index]) + super().without_script()


class FrameSweep(Slid):
    """A finished figure for each position of the slider.

    Parameters
    ----------
    figures : sequence of matplotlib figures or str
        Two or more figures, or SVG texts.
    labels : sequence of str
        The name of each position, which the readout shows after ``label``.
    label, alt : str
        As for `Sweep`.
    start : int
        The position where the slider stands first.

    Raises
    ------
    ValueError
        If there are fewer than two figures, not as many labels, or too many for a page.

    Examples
    --------
    >>> FrameSweep(["<svg></svg>"] * 2, ["before", "after"], label="step", alt="Nothing, twice.")
    FrameSweep('step', 2 positions)
    """

    def __init__(
        self,
        figures: Sequence[Any],
        labels: Sequence[str],
        *,
        label: str,
        alt: str,
        start: int = 0,
    ) -> None:
        figures, labels = list(figures), [str(name) for name in labels]
        if len(figures) < 2 or len(figures) != len(labels):
            raise ValueError(
                f"two or more figures and as many labels are wanted, "
                f"got {len(figures)} and {len(labels)}"
            )
        if not 0 <= start < len(figures):
            raise ValueError(f"start must be from 0 to {len(figures) - 1}, got {start!r}")
        spec = {
            "label": label, "alt": alt, "positions": labels, "series": [],
            "drawings": [_svg(figure) for figure in figures],
        }  # fmt: skip
        super().__init__(spec, [f"{label} = {name}" for name in labels], start)

    def without_script(self) -> str:
        """Return the figure where the slider starts, then what there is at each position."""
        picture = self.view.spec["drawings"][self.view.index]
        return _pictured(picture, self.view.texts[self.view.index]) + super().without_script()


def _line(cell: str, texts: list[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{escape(text)}</{cell}>' for text in texts)}</tr>"


def _pictured(svg: str, text: str) -> str:
    """Return a drawing and below it, for those who do not see it as well, its text."""
    return f'<div aria-hidden="true">{svg}</div>{paragraph(text)}'


def _picture(spec: dict[str, Any], index: int) -> str:
    """Return what `sweep.js` draws of ``spec`` at a position of a `Frames`, as an SVG text."""
    from onebit.figures import INK, SERIES, figure, figure_svg

    with figure() as (fig, ax):
        for look, series, data in zip(SERIES, spec["series"], spec["frames"][index], strict=False):
            (colour, dash, marker), x, y = look, data["x"], data["y"]
            named = {"color": colour, "label": series["name"]}
            if series["kind"] == "bars":
                ax.stairs(y, x, fill=True, alpha=0.4, **named)
            elif series["kind"] == "points":
                ax.plot(x, y, linestyle="none", marker=marker, clip_on=False, **named)
            else:
                step = "steps-post" if series["kind"] == "steps" else "default"
                ax.plot(x, y, linestyle=dash, drawstyle=step, **named)
        thin = {"color": INK, "linestyle": ":", "linewidth": 1}
        for text, value in spec["marks"]:
            ax.axvline(value, **thin)
            ax.text(value, 1, text, transform=ax.get_xaxis_transform())
        for text, value in spec["levels"]:
            ax.axhline(value, **thin)
            ax.text(1, value, text, transform=ax.get_yaxis_transform(), ha="right", va="bottom")
        ax.set(
            xscale="log" if spec["log_x"] else "linear", xlim=spec["x_range"],
            yscale="log" if spec["log_y"] else "linear", ylim=spec["y_range"],
            xlabel=spec["x_label"], ylabel=spec["y_label"],
        )  # fmt: skip
        if len(spec["series"]) > 1:
            fig.legend(loc="outside upper left", ncols=len(spec["series"]))
    return figure_svg(fig)


def _svg(figure: Any) -> str:
    if not isinstance(figure, str):
        from onebit.figures import figure_svg

        figure = figure_svg(figure)
    return figure[figure.index("<svg") :]  # an XML declaration has no place inside a page


def _number(value: Any, where: str) -> float | int:
    """Return a finite number as it is stored: integers exactly, others to six digits."""
    value = value.item() if hasattr(value, "item") else value
    if not isinstance(value, (int, float)):
        raise TypeError(f"{where} must be a number, got {type(value).__name__}")
    if not isfinite(value):
        raise ValueError(f"{where} is {value}; only finite numbers can be drawn")
    return int(value) if isinstance(value, int) else float(f"{value:.6g}")


def _numbers(values: Any, where: str) -> list[float | int]:
    values = values.tolist() if hasattr(values, "tolist") else values
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{where} must be a sequence of numbers, got {type(values).__name__}")
    return [_number(value, f"{where}[{i}]") for i, value in enumerate(values)]


def _row(f: Callable[[Any], Mapping[str, Any]], value: Any) -> dict[str, Any]:
    """Return ``f(value)`` as it is stored: numbers, and drawings as [x, y]."""
    result, where = f(value), f"f({value!r})"
    if not isinstance(result, Mapping) or not result:
        raise TypeError(f"{where} must be a dict with something in it, got {result!r}")
    row: dict[str, Any] = {}
    for name, entry in result.items():
        what = f"{where}[{name!r}]"
        if isinstance(entry, (tuple, list)):
            if len(entry) != 2:
                raise ValueError(
                    f"{what} must be a number or a pair (x, y), got {len(entry)} items"
                )
            row[name] = [_numbers(entry[0], f"{what} x"), _numbers(entry[1], f"{what} y")]
        else:
            row[name] = _number(entry, what)
    return row


def _tabulate(
    f: Callable[[Any], Mapping[str, Any]], values: Iterable[Any]
) -> tuple[list[Any], list[dict[str, Any]]]:
    swept = [value.item() if hasattr(value, "item") else value for value in values]
    if len(swept) < 2:
        raise ValueError(f"values must hold two positions at least, got {len(swept)}")
    table = [_row(f, value) for value in swept]
    for value, row in zip(swept, table, strict=True):
        if list(row) != list(table[0]):
            raise ValueError(
                f"f({value!r}) names {list(row)}, but f({swept[0]!r}) {list(table[0])}"
            )
    return swept, table


def _known(curves: Sequence[str] | None, row: dict[str, Any]) -> list[str]:
    names = list(row) if curves is None else list(curves)
    unknown = [name for name in names if name not in row]
    if unknown:
        raise ValueError(f"curves names {unknown[0]!r}, but f returns {list(row)}")
    if not 1 <= len(names) <= MOST_SERIES:
        raise ValueError(
            f"1 to {MOST_SERIES} curves can be told apart, got {len(names)}; use curves="
        )
    return names


def _drawing(pair: list[list[float]], kind: str, where: str) -> dict[str, list[float]]:
    x, y = pair
    wanted = len(y) + 1 if kind == "bars" else len(y)
    if not y or len(x) != wanted:
        raise ValueError(f"{where}: {kind} with {len(y)} y need {wanted} x, got {len(x)}")
    return {"x": x, "y": y}


def _axes(
    data: Sequence[Mapping[str, list[float]]],
    *,
    marks: Mapping[str, float] | None,
    levels: Mapping[str, float] | None,
    x_range: Sequence[float] | None,
    y_range: Sequence[float] | None,
    **labels: Any,
) -> dict[str, Any]:
    """Return the part of a drawing's ``spec`` that says where the axes lie."""
    marked = {text: _number(x, f"marks[{text!r}]") for text, x in (marks or {}).items()}
    leveled = {text: _number(y, f"levels[{text!r}]") for text, y in (levels or {}).items()}
    x = [number for part in data for number in part["x"]] + list(marked.values())
    y = [number for part in data for number in part["y"]] + list(leveled.values())
    return labels | {
        "marks": list(marked.items()),
        "levels": list(leveled.items()),
        "x_range": _limits(x, labels["log_x"], x_range),
        "y_range": _limits(y, labels["log_y"], y_range),
    }


def _limits(numbers: list[float], log: bool, given: Sequence[float] | None) -> list[float]:
    """Return the ends of an axis: those given, or the data's with a twentieth of room."""
    low, high = given if given is not None else (min(numbers), max(numbers))
    if log and low <= 0:
        raise ValueError(f"a logarithmic axis needs numbers above 0, got {low}")
    if given is not None:
        if not low < high:
            raise ValueError(f"an axis needs low < high, got {(low, high)}")
        return [float(low), float(high)]
    if low == high:
        return [low / 2, high * 2] if log else [low - 0.5, high + 0.5]
    if log:
        room = (log10(high) - log10(low)) / 20
        return [low / 10**room, high * 10**room]
    room = (high - low) / 20
    return [0.0 if 0 <= low < room else low - room, high + room]


def _minus(text: str) -> str:
    """Return ``text`` with the hyphen before a number as the minus sign that it is."""
    return re.sub(r"(?<![\w.])-(?=\d)", "−", text)


def _position(value: Any) -> str:
    return _minus(f"{value:g}") if isinstance(value, float) else _minus(str(value))


def _brief(value: float | int) -> str:
    return _minus(f"{value:.4g}" if isinstance(value, float) else str(value))


def _text(readout: Readout | None, label: str, value: Any, row: dict[str, Any]) -> str:
    fields = {"value": value} | row
    if callable(readout):
        return _minus(readout(fields))
    if readout is not None:
        return _minus(readout.format_map(fields))
    numbers = [f"{name} {entry:.4g}" for name, entry in row.items() if not isinstance(entry, list)]
    return _minus(" · ".join([f"{label} = {_position(value)}", *numbers]))
