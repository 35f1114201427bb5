"""Weigh the built pages and time how a browser opens them from a local server.

    python tools/page_speed.py [page …]

For each page, by name such as 03_xnor_net, or all: its own weight packed with gzip, when something
is seen, and when it answers, which is after its scripts and the last task of more than 50 ms.
Nothing is kept from page to page. The times mean something on a quiet machine only.
"""

import functools
import gzip
import http.server
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

from chromium import chromium, settle  # noqa: E402

BOOK = ROOT / "_build" / "html"
WATCH = """
  last = 0;
  new PerformanceObserver((list) => {
    for (const task of list.getEntries()) last = task.startTime + task.duration;
  }).observe({ type: "longtask", buffered: true });
"""
TIMES = """() => [
  performance.getEntriesByName("first-contentful-paint")[0].startTime,
  Math.max(performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd, last),
]"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves without a word."""

    def log_message(self, *_):
        """Say nothing."""


def times(browser, address: str) -> list[float]:
    """Return after how many milliseconds a page shows something, and answers."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(address)
    settle(page)
    page.wait_for_timeout(500)
    found = page.evaluate(TIMES)
    context.close()
    return found


def main(names: list[str]) -> None:
    """Print a line for each page."""
    pages = [BOOK / "chapters" / f"{name}.html" for name in names] or sorted(
        BOOK.glob("chapters/*.html")
    )
    for path in pages:
        if not path.is_file():
            sys.exit(f"page_speed: there is no page {path.stem!r} in the built book")
    handler = functools.partial(Quiet, directory=BOOK)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        chromium() as browser,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"{'page':24}{'kB':>8}{'seen, ms':>12}{'answers, ms':>14}")
        for path in pages:
            size = len(gzip.compress(path.read_bytes())) / 1000
            address = f"http://127.0.0.1:{server.server_port}/chapters/{path.name}"
            seen, answers = times(browser, address)
            print(f"{path.stem:24}{size:8.0f}{seen:12.0f}{answers:14.0f}", flush=True)
        server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
