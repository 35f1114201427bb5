"""The line below a page's title: the chapter's number in bits, minutes, and the notebook to take.

The minutes are those that the page itself names, so that the line, the map of the course and the
text cannot differ: a chapter in a sentence ("Reading takes some forty minutes"), an exercise task
by task in a table.
"""

import re
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from onebit_book.launch import launchers

_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70}
_UNITS = {"five": 5}
_SENTENCE = re.compile(r"Reading takes some ([a-z]+)(?:-([a-z]+))? minutes")
BITS = 8


def minutes(text: str) -> int | None:
    """Return the minutes that a chapter's text names, None if it names none.

    Raises
    ------
    ValueError
        If it names a number that is not a multiple of five up to 75.
    """
    found = _SENTENCE.search(text)
    if not found:
        return None
    tens, unit = found.groups()
    if tens not in _TENS or unit not in (None, *_UNITS):
        raise ValueError(f"{found[0]!r}: round to five minutes, in words such as forty-five")
    return _TENS[tens] + _UNITS.get(unit, 0)


def minutes_of_tasks(page: nodes.document) -> int | None:
    """Return the sum of a table's column ``minutes``, None on a page that has no such table."""
    for table in page.findall(nodes.table):
        heads, *rows = ([cell.astext() for cell in row] for row in table.findall(nodes.row))
        if "minutes" in heads:
            return sum(int(row[heads.index("minutes")]) for row in rows)
    return None


def bits(number: int) -> str:
    """Return a chapter's number as eight signs, to look at."""
    cells = "".join(f"<i{' class=on' if bit == '1' else ''}></i>" for bit in f"{number:0{BITS}b}")
    return f'<span class="bits" aria-hidden="true">{cells}</span>'


def line(number: int | None, time: int | None, download: str, run: list[tuple[str, str]]) -> str:
    """Return the line as HTML."""
    parts = []
    if number is not None:
        parts.append(f"{bits(number)}Chapter {number}")
    if time is not None:
        parts.append(f"{time} minutes")
    parts.append(f'<a href="{escape(download)}" download>Download notebook</a>')
    parts += [f'<a href="{escape(url)}">Run on {name}</a>' for name, url in run]
    return '<p class="chapter-line">' + "".join(f"<span>{part}</span>" for part in parts) + "</p>"


def chapter_number(app: Sphinx, pagename: str) -> int | None:
    """Return the number of a numbered page."""
    number = app.env.toc_secnumbers.get(pagename, {}).get("")
    return number[0] if number else None


def time_of(app: Sphinx, pagename: str) -> int | None:
    """Return the minutes of a page that says them."""
    return minutes(app.env.get_doctree(pagename).astext())


def add_line(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Put the line below the title of every page that has a notebook, except the first page."""
    source = context.get("sourcename", "")
    if doctree is None or not source.endswith(".ipynb"):
        return
    if pagename == app.config.root_doc:
        context["body"] = with_times(app, context["body"])
        return
    written = line(
        chapter_number(app, pagename),
        minutes(doctree.astext()) or minutes_of_tasks(doctree),
        context["pathto"](f"_sources/{source}", 1),
        launchers(app.config.onebit_repository, source),
    )
    context["body"] = context["body"].replace("</h1>", "</h1>\n" + written, 1)


def with_times(app: Sphinx, body: str) -> str:
    """Write the minutes behind each chapter on the map of the course."""
    folder = app.config.root_doc.rpartition("/")[0]

    def timed(station: re.Match[str]) -> str:
        time = time_of(app, f"{folder}/{station['page']}".lstrip("/"))
        said = f' <span class="minutes">{time} minutes</span>' if time else ""
        return f"{station['text']}{said}</p>"

    before, mark, rest = body.partition('class="course-map')
    course_map, end, after = rest.partition("</div>")
    station = r'(?P<text><strong><a [^>]*href="(?P<page>\w+)\.html"[^>]*>.*?)</p>'
    return before + mark + re.sub(station, timed, course_map, flags=re.S) + end + after


def name_downloads(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Say in words what the buttons at the head of a page download."""
    words = {
        ".ipynb": ("Notebook", "Download notebook"),
        ".md": ("Text", "Download the text in Markdown"),
        ".pdf": ("Print", "Print, or save as PDF"),
    }
    for group in context.get("header_buttons", ()):
        for button in group.get("buttons", ()):
            if button.get("text") in words:
                button["text"], button["tooltip"] = words[button["text"]]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the line with Sphinx."""
    app.connect("html-page-context", add_line)
    # After the theme has made its buttons.
    app.connect("html-page-context", name_downloads, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
