"""Draw the card that a shared link shows: chapters/assets/card.png.

    python tools/card.py

Two vectors of 64 signs, the XNOR of their bits, and the dot product, all computed here; drawn by
Chromium or Chrome in the book's own typeface.
"""

import sys
from pathlib import Path

import numpy as np

import onebit

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

from chromium import chromium  # noqa: E402
from onebit_book.sharing import CARD_SIZE  # noqa: E402

ASSETS = ROOT / "chapters" / "assets"
FONTS = ASSETS / "vendor" / "fonts"

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>One Bit at a Time</title>
<style>
@font-face {{ font-family: Sans; src: url("{fonts}/ibm-plex-sans-latin-400-normal.woff2"); }}
@font-face {{ font-family: Sans; font-weight: 600;
  src: url("{fonts}/ibm-plex-sans-latin-600-normal.woff2"); }}
@font-face {{ font-family: Mono; src: url("{fonts}/ibm-plex-mono-latin-400-normal.woff2"); }}
* {{ box-sizing: border-box; margin: 0; }}
body {{ width: {width}px; height: {height}px; padding: 82px 76px; background: #16191e;
  color: #e6e9ee; font: 34px/1.4 Sans; }}
h1 {{ font-size: 92px; font-weight: 600; line-height: 1.1; letter-spacing: -0.02em; }}
.row {{ display: flex; align-items: center; height: 40px; font: 22px/1 Mono; color: #a3abb8; }}
.row b {{ width: 84px; font-weight: 400; }}
.row i {{ width: 12px; height: 26px; margin-right: 3px; border: 2px solid #ffa570;
  border-radius: 3px; }}
.row .on {{ border: 0; background: #79b8ff; }}
.rows {{ margin: 50px 0 44px; }}
.sum {{ font: 34px/1.3 Mono; }}
em {{ color: #79b8ff; font-style: normal; }}
</style>
<h1>One Bit at a Time</h1>
<p>Binary neural networks, from BinaryConnect to BitNet</p>
<div class="rows">{rows}</div>
<p class="sum">2 · popcount(XNOR) − 64 = 2 · <em>{agree}</em> − 64 = <em>{dot}</em></p>
</html>
"""


def page() -> str:
    """Return the card as a web page; its bits are those of the book's first page."""
    rng = np.random.default_rng(2015)
    a, w = rng.choice([-1, 1], size=(2, 64))
    dot = int(onebit.xnor_gemm(onebit.pack_signs(a[None]), onebit.pack_signs(w[None]), 64)[0, 0])
    rows = "".join(
        f'<div class="row"><b>{name}</b>{"".join(map(square, signs))}</div>'
        for name, signs in (("a", a), ("w", w), ("XNOR", a * w))
    )
    width, height = CARD_SIZE
    return PAGE.format(
        fonts=FONTS.as_uri(), width=width, height=height, rows=rows,
        agree=(dot + 64) // 2, dot=dot,
    )  # fmt: skip


def square(sign: int) -> str:
    """Return one bit."""
    return '<i class="on"></i>' if sign > 0 else "<i></i>"


def draw(target: Path) -> None:
    """Write the card as a PNG file."""
    source = target.with_suffix(".html")
    source.write_text(page(), encoding="utf-8")
    width, height = CARD_SIZE
    with chromium() as browser:
        sheet = browser.new_page(viewport={"width": width, "height": height})
        sheet.goto(source.as_uri())
        sheet.evaluate("document.fonts.ready.then(() => null)")
        sheet.screenshot(path=target)
    source.unlink()


if __name__ == "__main__":
    draw(ASSETS / "card.png")
