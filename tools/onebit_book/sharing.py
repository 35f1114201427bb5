"""What a shared link shows: a description and a card on each page, and the page at the root.

Readers are given the address of ``index.html``; it carries the tags and leads to the book at once.
"""

import re
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

CARD = "_static/card.png"
CARD_SIZE = (1200, 630)
CARD_TEXT = (
    "One Bit at a Time: two rows of 64 bits, their XNOR below, and the dot product that its "
    "ones count out."
)
DESCRIPTION = (
    "An interactive course on binary neural networks, from BinaryConnect to BitNet: every figure "
    "computed in front of you, sliders and quizzes that work offline, and a C kernel that "
    "multiplies by XNOR and popcount."
)
MOST = 200  # characters of a description that services show


def tags(title: str, description: str, *, site: str = "", page: str = "") -> str:
    """Return the tags of a page for its head; those that need an absolute address, with a site.

    Parameters
    ----------
    title, description
        In plain text.
    site
        Where the book is published, ending in a slash, or "".
    page
        The page's address within the book.
    """
    named = {"description": description}
    shared = {
        "og:title": title,
        "og:description": description,
        "og:type": "website",
        "og:site_name": "One Bit at a Time",
    }
    if site:
        width, height = CARD_SIZE
        shared |= {
            "og:url": site + page,
            "og:image": site + CARD,
            "og:image:type": "image/png",
            "og:image:width": str(width),
            "og:image:height": str(height),
            "og:image:alt": CARD_TEXT,
        }
    named["twitter:card"] = "summary_large_image" if site else "summary"
    lines = [f'<meta name="{key}" content="{escape(text)}" />' for key, text in named.items()]
    lines += [f'<meta property="{key}" content="{escape(text)}" />' for key, text in shared.items()]
    return "\n".join(lines)


def shortened(text: str) -> str:
    """Return the beginning of a text, cut between words."""
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= MOST else text[: MOST - 1].rsplit(" ", 1)[0] + "…"


def describe(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document
) -> None:
    """Add the tags of a page; its description is its first paragraph."""
    if doctree is None:
        return
    root = pagename == app.config.root_doc
    first = next(doctree.findall(nodes.paragraph), None)
    text = DESCRIPTION if root or first is None else shortened(first.astext())
    title = app.config.html_title if root else app.env.titles[pagename].astext()
    page = f"{pagename}.html"
    context["metatags"] += "\n" + tags(title, text, site=app.config.html_baseurl, page=page)


def root_page(title: str, target: str, site: str = "") -> str:
    """Return the page at the root, which leads to ``target`` with JavaScript and without."""
    canonical = f'\n<link rel="canonical" href="{escape(site + target)}" />' if site else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<title>{escape(title)}</title>
<meta http-equiv="refresh" content="0; url={escape(target)}" />
{tags(title, DESCRIPTION, site=site)}{canonical}
<link rel="icon" href="data:," />
<meta name="color-scheme" content="light dark" />
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>{escape(DESCRIPTION)}</p>
<p><a href="{escape(target)}">Open the book</a></p>
</main>
</body>
</html>
"""


def write_root(app: Sphinx, exception: Exception | None) -> None:
    """Write the page at the root, in place of the bare redirection that Sphinx's helper leaves."""
    if exception is None and app.builder.format == "html":
        page = root_page(
            app.config.html_title, f"{app.config.root_doc}.html", app.config.html_baseurl
        )
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register tags and root page with Sphinx."""
    app.connect("html-page-context", describe)
    app.connect("build-finished", write_root)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
