"""How a widget enters a notebook: its JavaScript, its style, and its text without JavaScript."""

from html import escape
from pathlib import Path
from typing import Any

import anywidget
from IPython.display import display

_HERE = Path(__file__).parent
STYLE = (_HERE / "widgets.css").read_text(encoding="utf-8")


def module(name: str) -> str:
    """Return the JavaScript module ``name`` with the shared ``dom.js`` in front of it."""
    return "\n".join((_HERE / file).read_text(encoding="utf-8") for file in ("dom.js", name))


class WithoutScript:
    """Mixin: store, beside the live view, a ``<noscript>`` text for a page without JavaScript.

    The text representation names no address, so a stored notebook stays the same from run to run.
    """

    def without_script(self) -> str:
        """Return the HTML that a reader without JavaScript gets instead of the widget."""
        raise NotImplementedError

    def _ipython_display_(self) -> None:
        live = {
            "text/plain": repr(self),
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.model_id,  # type: ignore[attr-defined]
            },
        }
        display(live, raw=True)
        display(
            {"text/plain": "", "text/html": f"<noscript>{self.without_script()}</noscript>"},
            raw=True,
        )


class Piece(WithoutScript, anywidget.AnyWidget):
    """A widget drawn by one JavaScript module of this package."""

    _css = STYLE


def paragraph(text: str) -> str:
    """Return ``text`` as an HTML paragraph."""
    return f"<p>{escape(text)}</p>"


def filled(name: str, value: Any) -> str:
    """Return ``value`` if it is a string with something in it; refuse it otherwise.

    Raises
    ------
    TypeError
        If ``value`` is not a string.
    ValueError
        If ``value`` is empty or blank.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{name} is empty; give the text a reader is to see or hear")
    return value
