"""With the repository's address, pages offer Binder and Colab and notebooks set themselves up;
without it nothing of that is there, and nothing is broken."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from sphinx.errors import ConfigError

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

from onebit_book import address, launch  # noqa: E402

GITHUB = "https://github.com/owner/one-bit"
SITE = "https://owner.github.io/one-bit/"


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("", ""),
        (GITHUB, GITHUB),
        (f" {GITHUB}.git/ ".replace(".git/", "/"), GITHUB),
        (f"{GITHUB}.git", GITHUB),
        ("https://git.example.org:8443/group/sub/name", None),
    ],
)
def test_a_repository_s_address_is_taken_without_its_trimmings(given, plain):
    assert address.checked_repository(given) == (given if plain is None else plain)


@pytest.mark.parametrize("given", ["owner/name", "https://github.com/owner", "git@host:a/b", "x y"])
def test_what_is_no_repository_s_address_is_refused_with_an_example(given):
    with pytest.raises(ConfigError, match=r"ONEBIT_REPOSITORY_URL .*https://github.com/owner/name"):
        address.checked_repository(given)


@pytest.mark.parametrize("given", ["owner.github.io", "ftp://host/book", "https://"])
def test_what_is_no_book_s_address_is_refused_with_an_example(given):
    with pytest.raises(ConfigError, match=r"ONEBIT_SITE_URL .*https://owner.github.io/name"):
        address.checked_site(given)


def test_each_service_is_asked_for_the_page_in_its_own_way():
    page = "chapters/01_small.ipynb"
    lab = "?urlpath=lab%2Ftree%2Fchapters%2F01_small.ipynb"
    assert launch.launchers("", page) == []
    assert launch.launchers(GITHUB, page) == [
        ("Binder", f"https://mybinder.org/v2/gh/owner/one-bit/HEAD{lab}"),
        ("Colab", f"https://colab.research.google.com/github/owner/one-bit/blob/colab/{page}"),
    ]
    assert launch.launchers("https://gitlab.com/a/b", page) == [
        ("Binder", f"https://mybinder.org/v2/gl/a%2Fb/HEAD{lab}")
    ]
    ((_, elsewhere),) = launch.launchers("https://git.example.org/a/b", page)
    assert unquote(elsewhere.split("/v2/git/")[1]).startswith("https://git.example.org/a/b/HEAD?")


def test_the_set_up_cell_is_put_in_once_replaced_and_taken_away():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title")])
    for repository in (GITHUB, "https://github.com/owner/other"):
        launch.with_setup(notebook, repository)
        assert [cell.cell_type for cell in notebook.cells] == ["code", "markdown"]
        assert f'"{repository}"' in notebook.cells[0].source
        nbformat.validate(notebook)
    launch.with_setup(notebook, "")
    assert [cell.source for cell in notebook.cells] == ["# Title"]


def imported(source):
    """Return the top-level modules that a cell imports."""
    code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line
                     for line in source.split("\n"))  # fmt: skip
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_the_set_up_installs_whatever_the_notebooks_and_the_package_import():
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    course = {Requirement(r).name for r in project["optional-dependencies"]["course"]}
    always = {Requirement(r).name for r in project["dependencies"]} | {"onebit"}
    assert set(launch.NEEDED) <= course
    used = {
        name
        for path in (ROOT / "chapters").glob("*.ipynb")
        for cell in nbformat.read(path, 4).cells
        if cell.cell_type == "code"
        for name in imported(cell.source)
    }
    used |= {
        name
        for path in (ROOT / "src/onebit").rglob("*.py")
        for name in imported(path.read_text("utf-8"))
    }
    # What a kernel, ipywidgets and matplotlib bring along, and what only the benchmark needs.
    given = {"IPython", "jupyter_client", "traitlets", "cycler"} | {
        Requirement(r).name for r in project["optional-dependencies"]["bench"]
    }
    peers = {"faiss", "openvino", "bnn_lab"}
    outside = used - set(sys.stdlib_module_names) - always - given - peers
    assert outside - set(launch.NEEDED) == set()


# --- a small book, built both ways


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    """Return a function that builds a book of two pages with an environment."""

    def build(**environment):
        folder = tmp_path_factory.mktemp("book")
        (folder / "chapters").mkdir()
        for name in ("_config.yml", "references.bib"):
            shutil.copy(ROOT / name, folder)
        for name in ("tools", "chapters/assets"):
            (folder / name).symlink_to(ROOT / name)
        toc = {
            "format": "jb-book",
            "root": "chapters/index",
            "parts": [
                {
                    "caption": "Chapters",
                    "numbered": True,
                    "chapters": [{"file": "chapters/01_small"}],
                }
            ],
        }
        (folder / "_toc.yml").write_text(yaml.safe_dump(toc), encoding="utf-8")
        first = (
            "# One Bit at a Time\n\nThe first words.\n\n:::{div} course-map\n"
            "1. **[Small](01_small.ipynb)**, 2015.\n:::"
        )
        texts = {
            "index": first,
            "01_small": '# Small\n\nOf "signs" & 3 < 4.\n\nReading takes some forty-five minutes.',
        }
        for name, text in texts.items():
            notebook = nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_markdown_cell(text, id="text")],
                metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
            )
            nbformat.write(notebook, folder / "chapters" / f"{name}.ipynb")
        done = subprocess.run(
            [
                sys.executable,
                Path(sys.executable).with_name("jupyter-book"),
                *("build", "-q", "-W", "."),
            ],
            cwd=folder,
            env={k: v for k, v in os.environ.items() if not k.startswith("ONEBIT_")} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return folder / "_build" / "html"

    return build


class Tags(HTMLParser):
    """The tags of a page: (name, attributes)."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def links(self):
        return {a["href"] for tag, a in self.found if tag == "a" and "href" in a}

    def metas(self):
        return {
            a.get("name") or a.get("property"): a["content"]
            for tag, a in self.found
            if tag == "meta" and ("name" in a or "property" in a)
        }


LAUNCHED = re.compile("mybinder|colab|github.com/owner")


@pytest.mark.slow
def test_without_addresses_the_pages_launch_nothing_and_lack_nothing(small_book):
    book = small_book()
    for page in [book / "index.html", *book.glob("chapters/*.html")]:
        assert not LAUNCHED.search(page.read_text(encoding="utf-8")), page.name
        metas = Tags(page).metas()
        assert metas["twitter:card"] == "summary"
        assert metas["og:title"] and metas["og:description"] == metas["description"]
        assert {"og:url", "og:image"}.isdisjoint(metas)
        assert 'rel="canonical"' not in page.read_text(encoding="utf-8")
    chapter = Tags(book / "chapters/01_small.html")
    assert chapter.metas()["og:title"] == "Small"
    assert chapter.metas()["description"] == "Of “signs” & 3 < 4."
    (download,) = {a["href"] for tag, a in chapter.found if tag == "a" and "download" in a}
    notebook = nbformat.read((book / "chapters" / download).resolve(), 4)
    assert notebook.cells[0].source.startswith("# Small")
    text = (book / "chapters/01_small.html").read_text(encoding="utf-8")
    assert "Chapter 1" in text and "45 minutes" in text
    assert '<span class="minutes">45 minutes</span>' in (
        (book / "chapters/index.html").read_text(encoding="utf-8")
    )


@pytest.mark.slow
def test_with_addresses_pages_launch_notebooks_set_up_and_links_show_the_card(small_book):
    book = small_book(ONEBIT_REPOSITORY_URL=f"{GITHUB}.git", ONEBIT_SITE_URL=SITE.rstrip("/"))
    for name in ("index", "01_small"):
        page = book / "chapters" / f"{name}.html"
        source = f"chapters/{name}.ipynb"
        wanted = {url for _, url in launch.launchers(GITHUB, source)} | {GITHUB}
        assert wanted <= Tags(page).links()
        notebook = nbformat.read(book / "_sources" / source, 4)
        nbformat.validate(notebook)
        assert notebook.cells[0].source == launch.setup_source(GITHUB)
        assert [cell.cell_type for cell in notebook.cells] == ["code", "markdown"]
        metas = Tags(page).metas()
        assert metas["og:url"] == f"{SITE}chapters/{name}.html"
    for page in (book / "index.html", book / "chapters/01_small.html"):
        metas = Tags(page).metas()
        assert metas["twitter:card"] == "summary_large_image"
        card = book / metas["og:image"].removeprefix(SITE)
        assert card.read_bytes() == (ROOT / "chapters/assets/card.png").read_bytes()
    assert Tags(book / "index.html").metas()["og:url"] == SITE
    line = re.search(
        r'<p class="chapter-line">.*?</p>', (book / "chapters/01_small.html").read_text("utf-8")
    )[0]
    assert unescape(re.sub(r"<[^>]+>", " ", line)).split() == [
        *("Chapter", "1", "45", "minutes", "Download", "notebook"),
        *("Run", "on", "Binder", "Run", "on", "Colab"),
    ]


# --- the environments that Colab and Binder set up, made from a clone


@pytest.fixture
def bare(tmp_path):
    """Make an environment that sees the packages of this one, but not this tree's onebit."""
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # A path line adds a directory without reading the .pth files in it, where an editable
    # installation of this tree would be found.
    Path(site, "packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


@pytest.fixture
def clone(tmp_path):
    """Commit what git would check out of this tree to a repository of its own."""
    tree = tmp_path / "repository"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    wanted = ("src/", "kernels/", "binder/", "data/mnist/", "LICENSE", "README", "THIRD_PARTY",
              "CITATION", "MANIFEST", "setup.py", "pyproject.toml", "constraints")  # fmt: skip
    for name in filter(None, listed):
        if name.startswith(wanted) and (ROOT / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    git = ["git", "-C", str(tree), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        subprocess.run([*git, *command], check=True)
    return tree


# pip takes everything from here: nothing is fetched.
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
USED = """
import onebit, onebit.data
assert onebit.data.mnist("test")[0].shape == (10000, 28, 28)
print(onebit.__file__, onebit.kernel_name())
"""


def environment(python):
    names = ("PYTHONPATH", "CC", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if k not in names and not k.startswith("ONEBIT_")}
    return kept | OFFLINE | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}


def run(command, folder, python):
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment(python),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_set_up_cell_installs_the_course_from_a_clone_and_later_does_nothing(
    bare, clone, tmp_path
):
    session = tmp_path / "session"
    session.mkdir()
    cell = launch.setup_source(f"file://{clone}")
    # In one process, as in a notebook: the cell, then what a chapter does.
    told = run([bare, "-c", cell + USED], session, bare).split()
    assert Path(told[-2]) == session / launch.FOLDER / "src/onebit/__init__.py"
    assert told[-1] != "numpy"
    shutil.rmtree(clone)
    # The next session finds it installed, and needs no repository any more.
    assert run([bare, "-c", cell + USED], session, bare).split() == told[-2:]


@pytest.mark.slow
def test_binder_s_last_step_installs_the_course_and_builds_the_kernel(bare, clone):
    assert os.access(clone / "binder/postBuild", os.X_OK)
    told = run(["binder/postBuild"], clone, bare)
    assert re.search(r"The kernel is (?!numpy)\w+", told)
    assert run([bare, "-c", USED], clone.parent, bare).startswith(str(clone / "src/onebit"))


def test_binder_s_environment_is_one_that_the_package_supports():
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)["project"]
    wanted = {Requirement(r).name: Requirement(r).specifier for r in project["dependencies"]}
    environment = yaml.safe_load((ROOT / "binder/environment.yml").read_text("utf-8"))
    python, torch, _ = environment["dependencies"]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(
        python.removeprefix("python=")
    )
    assert torch == f"pytorch-cpu{wanted['torch']}"


def test_the_workflow_tells_the_build_its_addresses_and_fills_colab_s_branch():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text("utf-8"))
    steps = workflow["jobs"]["publish"]["steps"]
    (make,) = [step for step in steps if step.get("run") == "make book"]
    assert set(make["env"]) == {address.REPOSITORY, address.SITE}
    (push,) = [step for step in steps if "push" in step.get("run", "")]
    assert f"git init -q -b {launch.COLAB_BRANCH}" in push["run"]
    assert push["working-directory"] == "_build/html/_sources"
    order = [steps.index(make), steps.index(push)]
    assert order == sorted(order)
