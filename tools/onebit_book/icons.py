"""Of the theme's two thousand icons the book carries those that it shows, a twentieth of the bytes.

Every page loads the theme's ``fontawesome.js``, which would be the heaviest file of the book.
"""

import re
from collections.abc import Container
from pathlib import Path
from typing import Any

import pydata_sphinx_theme
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

SCRIPT = "static/scripts/fontawesome.js"
THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme"

# name: [width, height, [other names and code points], "code point", path or two paths],
_ICON = re.compile(
    r'(?:"([\w-]+)"|([\w$]+)):'
    r'\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\["[^"]*","[^"]*"\])\],?'
)
_ASKED_FOR = re.compile(r"\bfa-([a-z0-9-]+)")


def keep(script: str, names: Container[str]) -> str:
    """Return Font Awesome's script with the icons of these names, or with such an alias, alone.

    Raises
    ------
    ValueError
        If no icon is found in the script.

    Examples
    --------
    >>> keep('t={sun:[512,512,[],"f185","M3"],"x-ray":[512,512,["x"],"f497","M0"]}', {"sun"})
    't={sun:[512,512,[],"f185","M3"],}'
    """
    if not _ICON.search(script):
        raise ValueError(f"no icon is found in the theme's {SCRIPT}; is it written differently?")

    def kept(icon: re.Match[str]) -> str:
        quoted, bare, others = icon.groups()
        own = (quoted or bare, *re.findall(r'"([\w-]+)"', others))
        return icon[0] if any(name in names for name in own) else ""

    return _ICON.sub(kept, script)


def trim(app: Sphinx, exception: Exception | None) -> None:
    """Write the theme's script anew, with what pages and scripts ask for."""
    if exception or app.builder.format != "html":
        return
    book = Path(app.outdir)
    target = book / "_static" / "scripts" / "fontawesome.js"
    asking = (
        path
        for kind in ("*.html", "*.js")  # styles show icons of the font, not of this script
        for path in book.rglob(kind)
        if path != target and "vendor" not in path.parts
    )
    names = {name for path in asking for name in _ASKED_FOR.findall(path.read_text("utf-8"))}
    try:
        # From the theme itself: what lies in the book may have been trimmed for fewer pages.
        target.write_text(keep((THEME / SCRIPT).read_text("utf-8"), names), encoding="utf-8")
    except ValueError as error:
        raise ExtensionError(str(error)) from error


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the work with Sphinx."""
    app.connect("build-finished", trim)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
