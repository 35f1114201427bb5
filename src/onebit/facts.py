"""The ledger of quoted figures, and the tables that set them beside what a cell measured.

A figure that the course takes from someone else stands once, in ``ledger.toml``, with its source,
its place in that source and how we know it. A figure that the course computes never stands there:
it comes from the cell.
"""

import difflib
import html
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_FIELDS_OF_A_SOURCE = ("source", "cite", "url", "where", "seen", "through", "quoted_in")
_NUMBER = re.compile(r"[-−]?\d+(?: \d{3})*(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Fact:
    """One quoted figure: what it says, and who says it where.

    Attributes
    ----------
    key
        Name in the ledger, such as ``"bc.table2.mnist.det"``.
    text
        The figure as prose prints it, with its unit: ``"1.29 ± 0.08 %"``.
    value
        The (first) number in it: ``1.29``.
    unit
        ``"%"``, ``"×"``, ``"pJ"`` …; empty for a bare number.
    about
        What is counted or measured.
    source
        Key in references.bib.
    cite
        Short form of the source for captions.
    url
        Address of the source.
    where
        Place in the source: table, section, or file of a repository.
    seen
        ``"primary"``, ``"repository"`` or ``"second-hand"``.
    through
        For a second-hand figure, the text that quotes it, in words.
    quoted_in
        The key of that text, if it is in references.bib.
    """

    key: str
    text: str
    value: float
    unit: str
    about: str
    source: str
    cite: str
    url: str
    where: str
    seen: str
    through: str = ""
    quoted_in: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def decimals(self) -> int:
        """How many digits follow the decimal point."""
        number = _NUMBER.search(self.text)
        assert number is not None
        return len(number[0].partition(".")[2])

    def write(self, measured: float) -> str:
        """Print a measured number as this one is printed: same decimals, same unit.

        Examples
        --------
        >>> fact("bnn.table1.mnist.torch7").write(2.34567)
        '2.35 %'
        """
        return _with_unit(f"{measured:.{self.decimals}f}", self.unit)


@dataclass(frozen=True)
class Table:
    """A small table that a notebook shows as accessible HTML and a terminal as aligned text.

    Both hold the same words, cell by cell. The first column heads the rows and has no heading
    of its own. With `remarks` the last column holds words, which begin at the left and wrap.
    """

    headings: tuple[str, ...]  # the first is empty
    rows: tuple[tuple[str, ...], ...]
    caption: tuple[str, ...]
    links: tuple[tuple[str, str], ...] = ()
    remarks: bool = False

    def __repr__(self) -> str:
        lines = (self.headings, *self.rows)
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.headings))]
        to_the_left = {0, len(widths) - 1} if self.remarks else {0}
        aligned = [
            "  ".join(
                cell.ljust(width) if i in to_the_left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*aligned, "", *self.caption])

    def _repr_html_(self) -> str:
        head = "<td></td>" + "".join(
            f'<th scope="col">{html.escape(heading)}</th>' for heading in self.headings[1:]
        )
        body = "\n".join(
            f'<tr><th scope="row">{html.escape(row[0])}</th>'
            + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
            + "</tr>"
            for row in self.rows
        )
        caption = "<br>\n".join(html.escape(line) for line in self.caption)
        # In one pass and the longest first: a name may be the beginning of another.
        urls = {html.escape(words): html.escape(url) for words, url in self.links}
        if urls:
            names = "|".join(map(re.escape, sorted(urls, key=len, reverse=True)))
            caption = re.sub(names, lambda m: f'<a href="{urls[m[0]]}">{m[0]}</a>', caption)
        return (
            f'<table class="facts{" remarks" if self.remarks else ""}">\n'
            f"<caption>{caption}</caption>\n"
            f"<thead>\n<tr>{head}</tr>\n</thead>\n"
            f"<tbody>\n{body}\n</tbody>\n</table>"
        )


def fact(key: str) -> Fact:
    """Look up one quoted figure.

    Raises
    ------
    KeyError
        If the ledger has no such key; the message gives the nearest ones.

    Examples
    --------
    >>> error = fact("bc.table2.mnist.stoch")
    >>> error.value, error.unit, error.where
    (1.18, '%', 'Table 2')
    """
    try:
        return ledger()[key]
    except KeyError:
        raise KeyError(_no_such("fact", key, ledger())) from None


def table(
    name: str, rows: Iterable[str] | None = None, columns: Iterable[str] | None = None
) -> Table:
    """Show a table of the ledger as its source prints it, with the source in the caption.

    Parameters
    ----------
    name
        Section and table, such as ``"bc.table2"``.
    rows, columns
        Names of those to show, in this order; all by default.

    Raises
    ------
    KeyError
        If there is no such table, row or column; the message gives the nearest ones.

    Examples
    --------
    >>> table("bnn.imagenet")
                top-1   top-5
    AlexNet    36.1 %  60.1 %
    GoogLeNet  47.1 %  69.1 %
    <BLANKLINE>
    Reported: ImageNet accuracy of a BNN, the authors' own runs.
    Source: Hubara, Courbariaux, Soudry, El-Yaniv and Bengio 2016, §2.
    """
    section, entry = _tables().get(name, (None, None))
    if section is None or entry is None:
        raise KeyError(_no_such("table", name, _tables()))
    row_names = _choose("row", name, entry["rows"], rows)
    column_names = _choose("column", name, entry["columns"], columns)
    cells = [
        [ledger().get(f"{name}.{column}.{row}") for column in column_names] for row in row_names
    ]
    lines = [
        (entry["rows"][row][0], *("–" if cell is None else cell.text for cell in line))
        for row, line in zip(row_names, cells, strict=True)
    ]
    note = f"; {entry['note']}" if "note" in entry else ""
    shown = [cell for line in cells for cell in line if cell is not None]
    return Table(
        headings=("", *(entry["columns"][column]["heading"] for column in column_names)),
        rows=tuple(lines),
        caption=(f"Reported: {entry['about']}{note}.", *_source_lines(shown)),
        links=_links(shown),
    )


def compare(
    rows: Sequence[tuple[str, str | None, float | str | None]],
    *,
    what: str,
    measured: str,
) -> Table:
    """Set what papers report beside what this cell measured.

    Parameters
    ----------
    rows
        One ``(label, key, value)`` a line. ``key`` is a fact, or None where nothing was
        reported; ``value`` is the measured number in the fact's unit (printed with the fact's
        decimals and unit), a string printed as it is, or None where nothing was measured.
    what
        What both columns hold, such as ``"test error on MNIST"``.
    measured
        How the measured column came about: where it ran, and on what budget. Both stand in the
        caption.

    Raises
    ------
    KeyError
        If a key is not in the ledger.
    ValueError
        If there are no rows, or a row has a number but no fact to print it like.

    Examples
    --------
    >>> compare(
    ...     [
    ...         ("full precision", "bc.table2.mnist.none", 2.0871),
    ...         ("deterministic", "bc.table2.mnist.det", 2.31),
    ...     ],
    ...     what="test error on MNIST",
    ...     measured="this cell, 3 epochs of 1 000, 256 units a layer",
    ... )
                         reported  measured here
    full precision  1.30 ± 0.04 %         2.09 %
    deterministic   1.29 ± 0.08 %         2.31 %
    <BLANKLINE>
    Test error on MNIST.
    Reported: Courbariaux, Bengio and David 2015, Table 2.
    Measured: this cell, 3 epochs of 1 000, 256 units a layer.
    """
    quoted = [None if key is None else fact(key) for _, key, _ in rows]
    shown = [f for f in quoted if f is not None]
    if not shown:
        raise ValueError(
            f"rows: got {len(rows)} rows without a fact, want at least one that names a ledger key"
        )
    lines = []
    for (label, _, value), reported in zip(rows, quoted, strict=True):
        if value is None or isinstance(value, str):
            here = value or "–"
        elif reported is None:
            raise ValueError(
                f"rows: {label!r} has the number {value} but no fact to print it like; "
                "give it as a string"
            )
        else:
            here = reported.write(value)
        lines.append((label, "–" if reported is None else reported.text, here))
    return Table(
        headings=("", "reported", "measured here"),
        rows=tuple(lines),
        caption=(
            f"{what[:1].upper()}{what[1:].rstrip('.')}.",
            *_source_lines(shown, "Reported"),
            f"Measured: {measured.rstrip('.')}.",
        ),
        links=_links(shown),
    )


@cache
def ledger() -> Mapping[str, Fact]:
    """Read every fact of the ledger, by key."""
    facts: dict[str, Fact] = {}

    def add(key: str, section: Mapping[str, Any], entry: Mapping[str, Any], text: str) -> None:
        number = _NUMBER.search(text)
        if number is None:
            raise ValueError(f"ledger: {key} has no number in {text!r}")
        if key in facts:
            raise ValueError(f"ledger: {key} stands twice")
        unit = entry.get("unit", "")
        facts[key] = Fact(
            key=key,
            text=_with_unit(text, unit),
            value=float(number[0].replace(" ", "").replace("−", "-")),
            unit=unit,
            about=entry["about"],
            **{field: entry.get(field, section.get(field, "")) for field in _FIELDS_OF_A_SOURCE},
        )

    for name, section in _sections().items():
        for short, entry in section.get("fact", {}).items():
            add(f"{name}.{short}", section, entry, entry["text"])
        for short, entry in section.get("table", {}).items():
            for row, (label, *cells) in entry["rows"].items():
                for (column, heading), text in zip(entry["columns"].items(), cells, strict=True):
                    if text:
                        about = f"{entry['about']}, {heading['heading']}, {label}"
                        cell = {**entry, **heading, "about": about}
                        add(f"{name}.{short}.{column}.{row}", section, cell, text)
    return facts


@cache
def _sections() -> Mapping[str, Any]:
    return tomllib.loads((files("onebit") / "ledger.toml").read_text(encoding="utf-8"))


@cache
def _tables() -> Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return {
        f"{name}.{short}": (section, entry)
        for name, section in _sections().items()
        for short, entry in section.get("table", {}).items()
    }


def _choose(
    kind: str, name: str, known: Mapping[str, Any], wanted: Iterable[str] | None
) -> list[str]:
    """Give the wanted names if all are known, or all names."""
    chosen = list(known if wanted is None else wanted)
    for each in chosen:
        if each not in known:
            raise KeyError(_no_such(f"{kind} of {name}", each, known))
    return chosen


def _no_such(kind: str, name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), known, n=4, cutoff=0.4)
    return f"the ledger has no {kind} {name!r}; near it: {', '.join(near or known)}"


def _with_unit(text: str, unit: str) -> str:
    gap = "" if unit in ("", "×") else " "
    return f"{text}{gap}{unit}"


def _source_lines(shown: Sequence[Fact], lead: str = "Source") -> list[str]:
    """Name each source once, and say when we know it only through another text."""
    places: dict[str, None] = {}
    for f in shown:
        if f.seen == "second-hand":
            place = f"as seen in {f.through}"
            place += "" if f.where in f.through else f", {f.where}"
        else:
            place = f.where
        places[f"{lead}: {f.cite}, {place}."] = None
    return list(places)


def _links(shown: Sequence[Fact]) -> tuple[tuple[str, str], ...]:
    return tuple({(f.cite, f.url): None for f in shown if f.url})
