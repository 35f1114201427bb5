"""A release carries the book as one zip file, the same bytes for the same book, to read offline."""

import hashlib
import importlib.util
import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from chromium import chromium, missing, opened, settle

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "_build" / "html"


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def book(tmp_path):
    book = tmp_path / "html"
    for name in ("index.html", "chapters/b.html", "chapters/a.html", "_static/course.css"):
        (book / name).parent.mkdir(parents=True, exist_ok=True)
        (book / name).write_text(name, encoding="utf-8")
    (book / ".complete").touch()
    (book / "_static" / "course.css.map").touch()
    return book


def test_the_same_book_gives_the_same_bytes_whenever_it_was_built(release, book, tmp_path):
    first = release.pack(book, tmp_path / "1" / "book.zip")
    for n, path in enumerate(sorted(book.rglob("*"))):
        os.utime(path, (n * 1e6, n * 1e6))
        path.chmod(0o700)
    assert release.pack(book, tmp_path / "2" / "book.zip") == first
    (book / "chapters/a.html").write_text("changed", encoding="utf-8")
    assert release.pack(book, tmp_path / "3" / "book.zip") != first


def test_it_holds_every_page_and_the_licences_and_nothing_of_the_build(release, book, tmp_path):
    release.pack(book, tmp_path / "book.zip")
    with zipfile.ZipFile(tmp_path / "book.zip") as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    folder = f"{release.NAME}/"
    assert names == sorted(names)
    assert {name.removeprefix(folder) for name in names} == {
        "index.html", "chapters/a.html", "chapters/b.html", "_static/course.css",
        "LICENSE", "LICENSE-CONTENT", "THIRD_PARTY.md",
    }  # fmt: skip


def test_the_checksum_beside_it_is_one_that_sha256sum_reads(release, book, tmp_path):
    checksum = release.pack(book, tmp_path / "book.zip")
    assert checksum == hashlib.sha256((tmp_path / "book.zip").read_bytes()).hexdigest()
    assert (tmp_path / "book.zip.sha256").read_text() == f"{checksum}  book.zip\n"


def test_a_book_that_is_not_built_is_told_with_the_cure(release, tmp_path):
    with pytest.raises(FileNotFoundError, match="make book"):
        release.pack(tmp_path, tmp_path / "book.zip")


def test_the_workflow_attaches_what_make_zip_writes(release):
    text = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["book"]["steps"]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs[0] == "make zip"
    assert f"sha256sum -c {release.NAME}-*.zip.sha256" in runs[1]
    assert f"{release.NAME}-*.zip {release.NAME}-*.zip.sha256" in runs[1]
    assert "python tools/release.py" in release.__doc__
    recipe = subprocess.run(
        ["make", "-n", "zip"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "tools/release.py" in recipe


@pytest.mark.browser
def test_the_unpacked_book_opens_offline(release, tmp_path):
    if not (BOOK / "index.html").is_file():
        missing("the book is not built", "make book")
    release.pack(BOOK, tmp_path / "book.zip")
    with zipfile.ZipFile(tmp_path / "book.zip") as archive:
        archive.extractall(tmp_path / "somewhere else")
    first = tmp_path / "somewhere else" / release.NAME / "index.html"
    with chromium() as browser, opened(browser, first) as page:
        page.wait_for_url("**/chapters/index.html")
        settle(page)
        page.get_by_role("button", name="flip all of b").click()
        assert page.locator(".ob-readout").first.text_content()
