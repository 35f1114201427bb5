"""Hold every number in the prose to a source: an output of the notebook, or the ledger.

    python tools/lint_numbers.py                      all chapters
    python tools/lint_numbers.py chapters/index.md    one page

Read are the Markdown pages and cells, outside code, mathematics, headings, addresses of links,
options of directives and roles. What needs a source is

- a decimal,
- an integer from 1 000 up,
- an integer with a unit: a percentage, a factor (58×, 23-fold, 7 times faster), a time, a size, an
  energy, a rate, thousands to trillions (3B, 30 billion). Bits, bytes, epochs, layers and the
  like are counted, not measured, and need none below 1 000.

It has one if the same number, digit for digit, stands in a text output that the notebook stores
(or that a notebook stores which the paragraph links to), or in a ledger entry whose source, or
whose quoting text, the paragraph cites. An integer below 1 000 has to stand there with its unit.
Outputs of cells tagged `timing` do not count, since the next run changes them; neither do
figures, whose alt texts are written by hand.

A year needs none: four digits from 1900 to 2039 without separator, after a word such as "in" or
"since", a name, an opening bracket or the start of a sentence, and not followed by a unit or a
plural ("2000 images"). Nor do numbers of sections, tables, figures, equations and versions.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from html import unescape
from pathlib import Path
from typing import NamedTuple

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.front_matter import front_matter_plugin
from mdit_py_plugins.myst_role import myst_role_plugin

from onebit.facts import Fact, ledger

CHAPTERS = Path(__file__).parents[1] / "chapters"
LEFT_OUT = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for code, mathematics, a role

MARKDOWN = MarkdownIt("commonmark").enable("table")
for plugin in (amsmath_plugin, colon_fence_plugin, deflist_plugin, dollarmath_plugin,
               footnote_plugin, front_matter_plugin, myst_role_plugin):  # fmt: skip
    MARKDOWN.use(plugin)

# Directives that hold no prose; the contents of all others are read.
NO_PROSE = {
    "bibliography", "code", "code-block", "code-cell", "eval-rst", "image", "include",
    "literalinclude", "math", "mermaid", "raw", "tableofcontents", "toctree",
}  # fmt: skip
TABLES = {"csv-table", "list-table", "table"}

UNITS = {
    "%": "%", "‰": "‰", "percent": "%", "percentage points": "%", "percentage point": "%",
    "points": "%", "×": "×", "x": "×", "-fold": "×",
    "ns": "ns", "us": "µs", "µs": "µs", "μs": "µs", "ms": "ms", "s": "s", "sec": "s",
    "second": "s", "seconds": "s", "min": "min", "minute": "min", "minutes": "min", "h": "h",
    "hour": "h", "hours": "h", "day": "d", "days": "d", "weeks": "weeks",
    "kB": "kB", "KB": "kB", "MB": "MB", "GB": "GB", "TB": "TB", "KiB": "KiB", "MiB": "MiB",
    "GiB": "GiB", "MB/s": "MB/s", "GB/s": "GB/s",
    "pJ": "pJ", "nJ": "nJ", "µJ": "µJ", "mJ": "mJ", "J": "J", "kJ": "kJ",
    "Hz": "Hz", "MHz": "MHz", "GHz": "GHz", "nm": "nm",
    "tokens/s": "tokens/s", "images/s": "images/s", "FLOP/s": "FLOP/s", "GFLOP/s": "GFLOP/s",
    "Gop/s": "Gop/s", "K": "K", "M": "M", "B": "B", "T": "T", "thousand": "K",
    "million": "M", "billion": "B", "trillion": "T",
}  # fmt: skip
ATTACHED = {"x", "K", "M", "B", "T"}  # apart, each is more often a name than a unit
UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
COMPARED = r"(?=\s+(?:as|the|faster|slower|fewer|less|more|smaller|larger|better|cheaper|lower)\b)"
SPACE = "[ \N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}]"
NUMBER = re.compile(
    rf"""
    (?<![\w.])(?<![A-Za-z][-‑])                  # not inside a name: b1.58, ResNet-18
    (?P<number>
        (?P<grouped>[0-9]{{1,3}}(?:(?:{SPACE}|,)[0-9]{{3}})+(?![0-9]))(?:\.[0-9]+)?
      | [0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?
    )
    (?!\.?[0-9])                                 # not a version: 3.11.7
    (?:{SPACE}?(?:(?P<unit>{UNIT})(?![\w/])(?!{SPACE}?[0-9])|(?P<times>times){COMPARED}))?
    """,
    re.VERBOSE,
)
RANGE = re.compile(r"^(?:–|‑|-| to | or )$")

# Numbers that name a place, a version or an address.
SECTION = r"[0-9]+(?:\.[0-9]+)*(?![\d%×])"
ITEM = r"[0-9]+[a-z]?(?![.\d]*\d)(?!\w)"
NAMES = re.compile(
    rf"""
    https?://\S+ | \bdoi:\S+ | \barXiv[:\s]\s*[0-9]{{4}}\.[0-9]{{4,5}}(?:v[0-9]+)?
  | (?:§§|\bSections|\bChapters){SPACE}?{SECTION}(?:(?:,?\s+and\s+|–|,\s){SECTION})*
  | (?:§|\b(?:Section|Sec\.|Chapter|Appendix|Exercise|Task)){SPACE}?{SECTION}
  | \b(?:Tables|Figures|Figs\.|Equations|Eqs\.|pp\.){SPACE}?{ITEM}(?:(?:,?\s+and\s+|–|,\s){ITEM})*
  | \b(?:Table|Figure|Fig\.|Equation|Eq\.|Algorithm|Alg\.|p\.){SPACE}?{ITEM}
  | \b(?:Python|PyTorch|torch|NumPy|version|CC\sBY(?:-SA)?)
      [\s≥<>=]*[0-9]+(?:\.[0-9]+)*(?:(?:–|\s+to\s+)[0-9]+(?:\.[0-9]+)+)?
  | \b[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}\b
    """,
    re.VERBOSE,
)
BEFORE_YEAR = re.compile(
    r"""(?:^|[(\[,;:.!?|–/-]|['’]s
    |\b(?:in|since|of|from|until|till|by|before|after|during|around|between|and|to|year|early
    |late|mid|[Tt]he|[A-Z][\w.&’'-]*|al\.,?))\s*$""",
    re.VERBOSE,
)
PLURAL_AFTER = re.compile(r"^\s+(?!(?:was|is|as|has|its|this|does|versus|across|plus)\b)[a-z-]+s\b")


class Number(NamedTuple):
    """A number in a text: its digits without separators, its unit in one spelling, as written."""

    digits: str
    unit: str
    written: str

    @property
    def is_small_integer(self) -> bool:
        """Whether it takes a unit to make it a claim."""
        return self.digits.isdigit() and int(self.digits) < 1000


@dataclass
class Paragraph:
    """What is read at once: a paragraph, a list item or a table; whom it cites, where it links."""

    text: str = ""
    cites: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)

    def __iadd__(self, other: "Paragraph") -> "Paragraph":
        self.text += f" | {other.text}"
        self.cites |= other.cites
        self.links |= other.links
        return self


class Unsourced(NamedTuple):
    """A number without a source, where it stands, and what would mend it."""

    place: str
    number: Number
    cure: str

    def __str__(self) -> str:
        return f"{self.place}: {self.number.written!r} has no source. {self.cure}"


def main() -> int:
    """Check the pages named on the command line, or all chapters."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, help="by default, all of chapters/")
    pages = parser.parse_args().pages or pages_of(CHAPTERS)
    found = [problem for page in pages for problem in check(page)]
    for problem in found:
        print(problem)
    return 1 if found else 0


def pages_of(folder: Path) -> list[Path]:
    """List the Markdown pages and notebooks of a folder."""
    return sorted([*folder.glob("*.ipynb"), *folder.glob("*.md")])


def check(page: Path) -> list[Unsourced]:
    """Find the numbers of a page that have no source."""
    printed = numbers_printed(page)
    return [
        Unsourced(place, number, cure_for(number, paragraph))
        for place, text in prose(page)
        for paragraph in paragraphs(text)
        for number in claims(paragraph.text)
        if not has_source(number, paragraph, printed, page.parent)
    ]


def prose(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the Markdown of a page and where it stands."""
    if page.suffix == ".ipynb":
        for n, cell in enumerate(nbformat.read(page, as_version=4).cells):
            if cell.cell_type == "markdown":
                yield f"{page}, cell {n}", cell.source
    else:
        yield str(page), page.read_text(encoding="utf-8")


def paragraphs(text: str) -> Iterator[Paragraph]:
    """Take Markdown apart into what is read at once, without code, mathematics and headings."""
    tokens = iter(MARKDOWN.parse(text))
    for token in tokens:
        if token.type == "heading_open":
            next(tokens)
        elif token.type == "table_open":
            table = Paragraph()
            while (token := next(tokens)).type != "table_close":
                if token.type == "inline":
                    table += inline(token)
            yield table
        elif token.type == "inline":
            yield inline(token)
        elif token.type in ("fence", "colon_fence"):
            yield from directive(token)
        elif token.type == "html_block":
            yield Paragraph(without_tags(token.content))


def directive(token: Token) -> Iterator[Paragraph]:
    """Read the content of a MyST directive, without its argument and options."""
    named = re.match(r"\{([\w:-]+)\}\s*(.*)", token.info.strip())
    if named is None or named[1] in NO_PROSE or named[1].startswith("auto"):
        return
    content = re.sub(r"\A---\n.*?^---\n", "", token.content, flags=re.DOTALL | re.MULTILINE)
    content = re.sub(r"\A(?:\s*:[\w-]+:.*\n)+", "", content)
    if named[1] in TABLES:
        table = Paragraph()
        for part in paragraphs(f"{named[2]}\n\n{content}"):
            table += part
        yield table
    else:
        yield from paragraphs(content)


def inline(token: Token) -> Paragraph:
    """Read running text: what it says, whom it cites, where it links."""
    found = Paragraph()
    skipping = False
    for child in token.children or ():
        if child.type == "link_open":
            found.links.add(str(child.attrs["href"]))
            skipping = child.info == "auto"
        elif child.type == "link_close":
            skipping = False
        elif skipping:
            continue
        elif child.type == "text":
            found.text += child.content
        elif child.type in ("softbreak", "hardbreak"):
            found.text += " "
        elif child.type == "image":
            found.text += f" {inline(child).text} "
        elif child.type == "myst_role":
            name = child.meta["name"]
            if name.startswith("cite"):
                found.cites |= {key.strip() for key in child.content.split(",")}
            elif name == "doc":
                found.links.add(re.sub(r".*<(.*)>", r"\1", child.content))
            found.text += LEFT_OUT
        elif child.type not in ("em_open", "em_close", "strong_open", "strong_close"):
            found.text += LEFT_OUT
    return found


def claims(text: str) -> list[Number]:
    """Find the numbers that need a source."""
    return [n for n in numbers(NAMES.sub(LEFT_OUT, text)) if not n.is_small_integer or n.unit]


def numbers(text: str) -> list[Number]:
    """Find all numbers but years and those inside names; a range shares its unit."""
    found: list[Number] = []
    matches = list(NUMBER.finditer(text))
    unit_after = ""
    for n, match in reversed(list(enumerate(matches))):
        unit = UNITS.get(match["unit"] or "", "") or ("×" if match["times"] else "")
        if match["unit"] in ATTACHED and not match[0][-2].isdigit():
            unit = ""
        if match[0] in ("0s", "1s"):  # zeros and ones, not seconds
            unit = ""
        after = text[match.end() : matches[n + 1].start()] if n + 1 < len(matches) else ""
        if not unit and RANGE.match(after):
            unit = unit_after
        if not unit and is_factor(text[: match.start()].rstrip()):
            unit = "×"
        unit_after = unit
        attached = re.match(r"[A-Za-z_]", text[match.end() :])
        if not attached and not is_year(text, match, unit):
            digits = re.sub(rf"{SPACE}|,", "", match["number"])
            found.append(Number(digits, unit, match[0]))
    return found[::-1]


def is_factor(before: str) -> bool:
    """Tell "×3" from the second half of "28 × 3"."""
    product = re.search(rf"[0-9)\]{LEFT_OUT}]\s*×$|\w×$", before)
    return before.endswith("×") and product is None


def is_year(text: str, match: re.Match[str], unit: str) -> bool:
    """Tell a year from a count, by how it is written and what stands around it."""
    written = match["number"]
    return (
        re.fullmatch(r"19\d\d|20[0-3]\d", written) is not None
        and unit in ("", "s")
        and (unit == "" or match[0] == f"{written}s")  # the 1990s
        and BEFORE_YEAR.search(text[: match.start()]) is not None
        and PLURAL_AFTER.match(text[match.end() :]) is None
    )


def numbers_printed(page: Path) -> set[Number]:
    """Collect the numbers in the outputs that a notebook stores and nbval compares."""
    if page.suffix != ".ipynb" or not page.exists():
        return set()
    printed: set[Number] = set()
    for cell in nbformat.read(page, as_version=4).cells:
        if cell.cell_type == "code" and "timing" not in cell.metadata.get("tags", ()):
            for output in cell.outputs:
                for text in texts(output):
                    printed |= all_numbers(text)
    return printed


def texts(output: nbformat.NotebookNode) -> Iterator[str]:
    """Yield what an output says in words, unless it is a figure."""
    data = output.get("data", {})
    if "<figure" in data.get("text/html", ""):
        return
    if output.output_type == "stream" and output.name == "stdout":
        yield output.text
    for kind, content in data.items():
        if kind == "text/html":
            yield without_tags(content)
        elif kind.startswith("text/"):
            yield content


def all_numbers(text: str) -> set[Number]:
    """Find numbers with and without joining groups of three, which in a row of numbers are none."""
    apart = re.sub(r"(?<=[0-9])[ ,](?=[0-9])", " | ", text)
    return {
        Number(n.digits, unit, "")
        for t in (text, apart)
        for n in numbers(t)
        for unit in ("", n.unit)
    }


def without_tags(html: str) -> str:
    """Give the text of an HTML fragment, without drawings, comments and tags."""
    html = re.sub(
        r"<!--.*?-->|<svg\b.*?</svg>|<(style|script)\b.*?</\1>", " ", html, flags=re.DOTALL
    )
    return unescape(re.sub(r"<[^>]*>", " | ", html))


def has_source(number: Number, paragraph: Paragraph, printed: set[Number], folder: Path) -> bool:
    """Look for a number in this notebook and those linked to, and in the ledger's cited entries."""
    wanted = Number(number.digits, number.unit if number.is_small_integer else "", "")
    if wanted in printed:
        return True
    notebooks = {Path(link.partition("#")[0]).stem for link in paragraph.links if ":" not in link}
    if any(wanted in numbers_printed(folder / f"{name}.ipynb") for name in notebooks if name):
        return True
    return any(wanted in numbers_of(f) for f in ledger().values() if cited(f, paragraph.cites))


def cited(fact: Fact, keys: Iterable[str]) -> bool:
    """Whether the source of a fact, or the text that quotes it, is among the cited keys."""
    return fact.source in keys or (fact.quoted_in != "" and fact.quoted_in in keys)


@cache
def numbers_of(fact: Fact) -> set[Number]:
    """Find the numbers of a ledger entry, those of its description included."""
    unit = UNITS.get(fact.unit, fact.unit)
    own = {Number(n.digits, unit, "") for n in all_numbers(fact.text)}
    return own | all_numbers(fact.text) | all_numbers(fact.about)


def cure_for(number: Number, paragraph: Paragraph) -> str:
    """Say what would give a number its source."""
    wanted = Number(number.digits, number.unit if number.is_small_integer else "", "")
    holders = [f for f in ledger().values() if wanted in numbers_of(f)]
    if holders:
        sources = {f.source: f.key for f in reversed(holders)}
        named = ", ".join(f"{{cite}}`{source}` for {key}" for source, key in sources.items())
        return f"If it is quoted, cite its source in this paragraph ({named}); if not, print it."
    with_unit = " with its unit" if number.is_small_integer else ""
    return (
        f"Print it{with_unit} in a cell of this notebook, digit for digit and not in a cell tagged "
        "timing, or enter it in ledger.toml and cite its source in this paragraph."
    )


if __name__ == "__main__":
    sys.exit(main())
