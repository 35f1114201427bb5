"""A headless Chromium that may reach no other machine, and a page that tells what went wrong."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
VIEW = "script[type='application/vnd.jupyter.widget-view+json']"
LOCAL = ("file:", "data:", "blob:", "http://127.0.0.1:")


def missing(what: str, cure: str) -> None:
    """Skip the test with the cure, or fail it where ONEBIT_REQUIRE_BROWSER=1 asks for a browser."""
    if os.environ.get("ONEBIT_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{what}, and ONEBIT_REQUIRE_BROWSER=1; {cure}")
    pytest.skip(f"{what}; {cure}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium or Chrome, or else Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        except Error:
            missing(
                "no browser to test in", "apt-get install chromium, or playwright install chromium"
            )
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser,
    address: str | Path,
    *,
    width: int = 1280,
    theme: str = "light",
    scripts: bool = True,
) -> Iterator[Page]:
    """Open a page; at the end, fail on requests to other machines and on what went wrong.

    That is a script error, an error or a warning in the console, or something not found. A page
    opened from a file is opened with the network off.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=theme,
        java_script_enabled=scripts,
        reduced_motion="reduce",
        offline=isinstance(address, Path),
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []

    def guard(request):
        if not request.url.startswith(LOCAL):
            faults.append(f"asked another machine for {request.url}")

    def read(line):
        if line.type in ("error", "warning"):
            faults.append(f"console: {line.text}")

    def failed(request):
        # A page that is left gives up what it still waited for, such as its icon.
        if request.failure != "net::ERR_ABORTED":
            faults.append(f"not found: {request.url}")

    page.on("request", guard)
    page.on("console", read)
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    if scripts:  # without them, Chromium cancels what it began to load
        page.on("requestfailed", failed)
    page.goto(address.as_uri() if isinstance(address, Path) else address)
    try:
        yield page
    except Exception as error:
        error.add_note(f"the page said: {faults or 'nothing'}")
        raise
    finally:
        context.close()
    assert not faults, f"{address}: {faults}"


def settle(page: Page) -> None:
    """Wait until every widget of the page is drawn and whatever scrolls can be reached."""
    steps = ["widgets"] if page.locator(VIEW).count() else []
    if page.locator("script[src*='/course.js']").count():
        steps.append("scrollers")
    page.wait_for_function(
        "steps => steps.every((step) => document.documentElement.dataset[step])", arg=steps
    )


def wear(page: Page, *, width: int, theme: str) -> None:
    """Give the window another width and the page another theme, as the reader's system would."""
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    settle(page)


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than the window."""
    return page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
