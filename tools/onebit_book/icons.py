"""The theme's icons stand in the pages as drawings; the script that would draw them is left out.

The theme sends ``fontawesome.js``, two thousand icons in 1.5 MB, with every page for the dozen that
a page shows. Drawn while the book is built, they are there at once, and without scripts too.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pydata_sphinx_theme
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme"
SCRIPT = "scripts/fontawesome.js"

# name: [width, height, [other names and code points], "code point", path]  or  ("fas",
_ICON_OR_PACK = re.compile(
    r'(?:"([\w-]+)"|([\w$]+)):\[(\d+),(\d+),\[([^\]]*)\],"[0-9a-f]+","([^"]*)"\]|\("(fa[brs])",'
)
_MARK = re.compile(
    r'<(i|span) class="(?P<words>[^"]*\bfa-[^"]*)"(?P<mode> data-mode="\w+")?[^>]*></\1>'
)
_SCRIPT_TAG = re.compile(r"<script[^>]*fontawesome\.js[^>]*></script>\s*")
_PACKS = {
    "fab": "fab", "far": "far", "fas": "fas", "fa-brands": "fab", "fa-regular": "far",
    "fa-solid": "fas",
}  # fmt: skip


class Icon(NamedTuple):
    """The size of an icon's drawing, and its outline as an SVG path."""

    width: int
    height: int
    path: str


def read(script: str) -> dict[tuple[str, str], Icon]:
    """Return the icons of Font Awesome's script by pack and name, ``("fas", "sun")`` for one.

    Examples
    --------
    >>> icons = read('p={"x-ray":[640,512,["x"],"f497","M0"]};d("fas",p)')
    >>> icons["fas", "x"]
    Icon(width=640, height=512, path='M0')
    """
    icons: dict[tuple[str, str], Icon] = {}
    unpacked: dict[str, Icon] = {}
    for quoted, bare, width, height, others, path, pack in _ICON_OR_PACK.findall(script):
        if pack:  # is named after its icons
            icons |= {(pack, name): icon for name, icon in unpacked.items()}
            unpacked = {}
            continue
        for name in (quoted or bare, *re.findall(r'"([\w-]+)"', others)):
            unpacked[name] = Icon(int(width), int(height), path)
    return icons


def draw(page: str, icons: dict[tuple[str, str], Icon]) -> str:
    """Return a page with its icons drawn, and without the script.

    Raises
    ------
    ValueError
        If the page asks for an icon that is not there.

    Examples
    --------
    >>> draw('<i class="fas fa-dot fa-lg"></i>', {("fas", "dot"): Icon(8, 8, "M0 0")})
    '<svg class="icon fa-dot fa-lg" viewBox="0 0 8 8" aria-hidden="true"><path d="M0 0"/></svg>'
    """

    def drawing(mark: re.Match[str]) -> str:
        words = mark["words"].split()
        packs = [_PACKS[word] for word in words if word in _PACKS]
        classes = [word for word in words if word not in _PACKS]
        for key in ((pack, word.removeprefix("fa-")) for pack in packs for word in classes):
            if key in icons:
                width, height, path = icons[key]
                return (
                    f'<svg class="{" ".join(["icon", *classes])}"{mark["mode"] or ""} '
                    f'viewBox="0 0 {width} {height}" aria-hidden="true"><path d="{path}"/></svg>'
                )
        raise ValueError(f"the theme has no icon for {mark[0]}")

    return _SCRIPT_TAG.sub("", _MARK.sub(drawing, page))


def draw_all(app: Sphinx, exception: Exception | None) -> None:
    """Draw the icons of every page of the book."""
    if exception or app.builder.format != "html":
        return
    icons = read((THEME / "static" / SCRIPT).read_text("utf-8"))
    for path in Path(app.outdir).rglob("*.html"):
        page = path.read_text("utf-8")
        try:
            path.write_text(draw(page, icons), encoding="utf-8")
        except ValueError as error:
            raise ExtensionError(f"{path.name}: {error}") from error
    for suffix in ("", ".map"):
        (Path(app.outdir) / "_static" / f"{SCRIPT}{suffix}").unlink(missing_ok=True)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the work with Sphinx."""
    app.connect("build-finished", draw_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
