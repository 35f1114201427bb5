"""No built page and no style of the book asks another machine for anything; links to read may."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium import missing

BOOK = Path(__file__).parents[1] / "_build" / "html"

REMOTE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.I)
IN_CSS = re.compile(
    r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^"')]*))|(?:@import|image-set\()\s*(?:"([^"]*)"|'([^']*)')""",
    re.I,
)
LOADS = {"src", "srcset", "imagesrcset", "poster", "data", "background", "href", "xlink:href"}
# Elements whose address is opened when a reader follows it, and links that only tell relations.
FOLLOWED = {"a", "area"}
TOLD = {"canonical", "alternate", "author", "license", "help", "index", "search", "next", "prev"}


def loaded_by_css(css):
    """Yield the addresses that a style sheet loads."""
    for found in IN_CSS.finditer(re.sub(r"/\*.*?\*/", "", css, flags=re.S)):
        yield next(filter(None, found.groups()), "")


class Loads(HTMLParser):
    """Collects the addresses that a page loads by itself."""

    def __init__(self):
        super().__init__()
        self.addresses, self.in_style = [], False

    def handle_starttag(self, tag, attributes):
        attributes = {name: value or "" for name, value in attributes}
        self.in_style = tag == "style"
        self.addresses += loaded_by_css(attributes.get("style", ""))
        self.addresses += loaded_by_html(attributes.get("srcdoc", ""))
        if tag == "meta" and attributes.get("http-equiv", "").lower() == "refresh":
            self.addresses += re.findall(r"url=\s*['\"]?([^'\"]*)", attributes["content"], re.I)
        if tag in FOLLOWED or set(attributes.get("rel", "").lower().split()) & TOLD:
            return
        for name in attributes.keys() & LOADS:
            value = attributes[name]
            self.addresses += re.split(r",\s+", value) if name.endswith("srcset") else [value]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.in_style = False

    def handle_endtag(self, tag):
        self.in_style = False

    def handle_data(self, text):
        if self.in_style:
            self.addresses += loaded_by_css(text)


def loaded_by_html(html):
    """Return the addresses that a page loads by itself."""
    parser = Loads()
    parser.feed(html)
    parser.close()
    return parser.addresses


def remote(folder):
    """Return (file, address) for whatever a page or a style sheet of a folder asks elsewhere."""
    files = [path for suffix in ("html", "css") for path in sorted(folder.rglob(f"*.{suffix}"))]
    return [
        (path.relative_to(folder).as_posix(), address)
        for path in files
        for address in (loaded_by_css if path.suffix == ".css" else loaded_by_html)(
            path.read_text("utf-8")
        )
        if REMOTE.match(address)
    ]


def test_the_book_asks_no_other_machine_for_anything():
    if not (BOOK / "chapters").is_dir():
        missing("the book is not built", "make book")
    assert len(list(BOOK.rglob("*.html"))) > 10 and len(list(BOOK.rglob("*.css"))) > 5
    assert remote(BOOK) == []


ELSEWHERE = "https://example.org/x"


@pytest.mark.parametrize(
    "markup",
    [
        '<script src="{}"></script>',
        "<script async SRC={}></script>",
        '<link rel="stylesheet" href="{}">',
        '<link rel="preload" as="font" href="{}">',
        '<link rel="preconnect" href="{}">',
        '<link rel="modulepreload" href="{}" />',
        '<link rel="icon" href="{}">',
        '<img src="{}">',
        '<img src="here.png" srcset="here.png 1x, {} 2x">',
        '<picture><source srcset="{}"></picture>',
        '<iframe src="{}"></iframe>',
        """<iframe srcdoc='<img src="{}">'></iframe>""",
        '<video poster="{}"></video>',
        '<object data="{}"></object>',
        '<svg><image href="{}"/></svg>',
        '<svg><use xlink:href="{}"/></svg>',
        '<noscript><img src="{}"></noscript>',
        '<p style="background: url({})">',
        '<style>@import "{}";</style>',
        "<style>@font-face {{ src: url('{}') }}</style>",
        '<meta http-equiv="refresh" content="0; url={}">',
        '<base href="{}">',
    ],
)
@pytest.mark.parametrize("address", [ELSEWHERE, "//example.org/x", "HTTP://example.org/x"])
def test_what_a_page_loads_from_elsewhere_is_found(tmp_path, markup, address):
    (tmp_path / "page.html").write_text(f"<p>Text</p>{markup.format(address)}<p>More</p>", "utf-8")
    ((file, found),) = remote(tmp_path)
    assert file == "page.html" and found.startswith(address)


@pytest.mark.parametrize(
    "css",
    [
        '@import "{}";',
        "@import url({});",
        "p {{ background: URL( '{}' ) }}",
        "@font-face {{ src: url(near.woff2), url({}) }}",
        'p {{ background: image-set("{}" 1x) }}',
    ],
)
def test_what_a_style_sheet_loads_from_elsewhere_is_found(tmp_path, css):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "style.css").write_text(css.format(ELSEWHERE), "utf-8")
    assert remote(tmp_path) == [("deep/style.css", ELSEWHERE)]


def test_links_to_read_and_what_lies_beside_the_page_are_allowed(tmp_path):
    (tmp_path / "page.html").write_text(
        f'<link rel="canonical" href="{ELSEWHERE}"><meta property="og:image" content="{ELSEWHERE}">'
        f'<a href="{ELSEWHERE}">read</a><script src="../_static/a.js"></script>'
        '<svg xmlns="http://www.w3.org/2000/svg"><use href="#here"/></svg><img src="data:,">',
        "utf-8",
    )
    (tmp_path / "style.css").write_text(
        f"/* from {ELSEWHERE}, url({ELSEWHERE}) */ p {{ background: url(a.png) }}"
        "q { background: url(\"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>\") }",
        "utf-8",
    )
    assert remote(tmp_path) == []
