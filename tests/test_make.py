"""The Makefile does what it says, does it once, and tells the cure for what is missing."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
BOOTSTRAP = (ROOT / "tools" / "bootstrap.sh").read_text(encoding="utf-8")
TARGETS = re.search(r"^\.PHONY: (.+)$", MAKEFILE, re.M).group(1).split()[:-1]
TOOLS = "awk cat cksum cmp cp dirname echo env find make mkdir printf rm sed sh sort touch uname"

# An interpreter's stand-in: it runs what follows -c in the real one after a line of its own, and
# writes down everything else that it is asked to do.
PYTHON = """#!/bin/sh
case "$1 $2" in
"-c import onebit"*) echo scalar ;;
"-c "*) exec "{real}" -c 'import sys; {first}
exec(sys.argv[1])' "$2" ;;
*) echo "$@" >>"{log}"
   case "$1 $2" in
   "-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
   *"jupyter-book build") mkdir -p _build/html && touch _build/html/index.html ;;
   esac ;;
esac
"""


class Tree:
    """A small tree with the Makefile in it, and a PATH that holds only what a test puts there."""

    def __init__(self, folder: Path):
        self.root = folder / "a tree with spaces"
        self.bin = folder / "bin"
        self.log = folder / "log"
        for part in ("tools", "chapters", "src/onebit", "kernels"):
            (self.root / part).mkdir(parents=True)
        for name in ("Makefile", "tools/bootstrap.sh", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("setup.py", "kernels/kernel.c", "_config.yml", "_toc.yml", "references.bib"):
            (self.root / name).touch()
        for name in ("chapters/index.md", "chapters/old.md", "src/onebit/ste.py"):
            (self.root / name).touch()
        self.bin.mkdir()
        self.log.touch()
        for tool in [*TOOLS.split(), "xcode-select"]:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)

    def command(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(script)
        path.chmod(0o755)

    def python(self, name: str = "python3", first: str = "pass") -> None:
        script = PYTHON.format(real=sys.executable, first=first, log=self.log)
        self.command(name, script)

    def compiler(self, headers: bool = True) -> None:
        refused = "nothing" if headers else "Python.h"
        self.command("cc", f"#!/bin/sh\nread -r line; case $line in *{refused}*) exit 1;; esac\n")

    def make(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments],
            cwd=self.root,
            env={"PATH": str(self.bin), "HOME": str(self.root), **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def done(self) -> list[str]:
        """Return what the interpreter was asked to do since the last call."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.fixture
def built(tree):
    """A tree whose book stands, made with a compiler."""
    tree.python()
    tree.compiler()
    made = tree.make("book")
    assert made.returncode == 0, made.stderr
    tree.done()
    return tree


def only_sentence(made: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that explains a failure, beside make's own."""
    assert made.returncode != 0
    lines = [line for line in made.stderr.splitlines() if not line.startswith("make: ")]
    assert len(lines) == 1, made.stderr
    assert "Debian" in lines[0] and "macOS" in lines[0]
    return lines[0]


def test_help_is_the_default_and_has_one_line_for_each_target(tree):
    listed = tree.make().stdout.splitlines()
    assert listed == tree.make("help").stdout.splitlines()
    assert [line.split()[1] for line in listed] == TARGETS
    assert all(len(line) <= 100 for line in listed)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_has_a_recipe(tree, target):
    tree.python()
    plan = tree.make("-n", target)
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.strip()


def test_everything_runs_with_threads_that_do_not_spin(tree):
    printed = tree.make("-p", "-n", "help").stdout
    assert re.search(r"^export OMP_WAIT_POLICY|^OMP_WAIT_POLICY := PASSIVE$", printed, re.M)


def test_the_versions_of_python_are_those_of_pyproject():
    with open(ROOT / "pyproject.toml", "rb") as file:
        wanted = tomllib.load(file)["project"]["requires-python"]
    low, high = re.search(
        r"\(3, (\d+)\) <= sys.version_info\[:2\] <= \(3, (\d+)\)", BOOTSTRAP
    ).groups()
    assert wanted == f">=3.{low},<3.{int(high) + 1}"


def test_no_python_at_all_is_told_with_the_cure(tree):
    sentence = only_sentence(tree.make("book"))
    assert "python3 is not to be found" in sentence
    assert "apt-get install python3 python3-venv python3-dev" in sentence


def test_an_old_python_is_told_with_its_version(tree):
    tree.python(first="sys.version_info = (3, 9, 6)")
    assert "python3 is 3.9.6" in only_sentence(tree.make("book"))


def test_a_newer_python_beside_an_old_one_is_found(tree):
    tree.python(first="sys.version_info = (3, 9, 6)")
    tree.python("python3.12")
    assert tree.make("book").returncode == 0
    assert tree.done()[0] == "-m venv --clear .venv"


def test_the_interpreter_that_was_asked_for_is_used_or_refused(built):
    assert built.make("book", PYTHON="python3").returncode == 0
    assert built.done() == []
    assert "no-such-python is not to be found" in only_sentence(
        built.make("book", PYTHON="no-such-python")
    )
    built.python("python3.12", first='sys.base_prefix = "/elsewhere"')
    assert built.make("book", PYTHON="python3.12").returncode == 0
    assert built.done()[0] == "-m venv --clear .venv"


def test_a_missing_venv_module_is_told_with_the_cure(tree):
    tree.python(first='sys.modules["ensurepip"] = None')
    assert "apt-get install python3-venv" in only_sentence(tree.make("book"))


def test_without_a_compiler_the_book_is_made_and_the_cure_told(tree):
    tree.python()
    tree.command("uname", "#!/bin/sh\necho Linux\n")
    made = tree.make("book", CC="")
    assert made.returncode == 0, made.stderr
    assert "compiler: none" in (tree.root / ".venv/toolchain").read_text()
    (tree.root / ".venv/installed").write_text("numpy\n")
    told = tree.make("book").stdout
    assert "Kernel:  numpy" in told and "no working C compiler" in told
    assert "apt-get install gcc" in told and "xcode-select --install" in told


def test_missing_headers_are_told_with_the_cure(tree):
    tree.python()
    tree.compiler(headers=False)
    assert tree.make("book").returncode == 0
    assert "headers: no" in (tree.root / ".venv/toolchain").read_text()
    (tree.root / ".venv/installed").write_text("numpy\n")
    assert "apt-get install python3-dev" in tree.make("book").stdout


@pytest.mark.parametrize("headers", [None, False], ids=["no compiler", "no headers"])
def test_a_required_kernel_that_cannot_be_built_is_a_failure(tree, headers):
    tree.python()
    if headers is not None:
        tree.compiler(headers)
    sentence = only_sentence(tree.make("book", ONEBIT_REQUIRE_KERNEL="1"))
    assert "ONEBIT_REQUIRE_KERNEL=1" in sentence


def test_a_required_kernel_that_was_not_built_is_tried_again(built):
    (built.root / ".venv/installed").write_text("numpy\n")
    assert built.make("book").returncode == 0
    assert not any("pip install" in line for line in built.done())
    assert built.make("book", ONEBIT_REQUIRE_KERNEL="1").returncode == 0
    assert any("pip install" in line for line in built.done())


def test_a_compiler_that_comes_later_triggers_the_build(tree):
    tree.python()
    tree.command("uname", "#!/bin/sh\necho Linux\n")
    assert tree.make("book").returncode == 0
    tree.done()
    assert tree.make("book").returncode == 0
    assert tree.done() == []
    tree.compiler()
    assert tree.make("book").returncode == 0
    assert any("--no-deps -e ." in line for line in tree.done())


def test_the_book_is_made_once(built):
    again = built.make("book")
    assert again.returncode == 0
    assert built.done() == []
    assert "file:///" in again.stdout and "a%20tree%20with%20spaces/_build/html/index.html" in (
        again.stdout
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "chapters/index.md").write_text("changed"),
        lambda root: (root / "chapters/new.md").touch(),
        lambda root: (root / "chapters/old.md").unlink(),
        lambda root: (root / "src/onebit/ste.py").write_text("changed"),
        lambda root: (root / "_config.yml").write_text("changed"),
        lambda root: shutil.rmtree(root / "_build/html"),
    ],
    ids=["chapter", "new file", "lost file", "docstring", "configuration", "pages deleted"],
)
def test_a_change_makes_the_book_again_without_installing(built, change):
    change(built.root)
    assert built.make("book").returncode == 0
    assert built.done() == [".venv/bin/jupyter-book build -q -W -n --keep-going --all ."]


@pytest.mark.parametrize("address", ["ONEBIT_REPOSITORY_URL", "ONEBIT_SITE_URL"])
def test_another_address_makes_the_book_again(built, address):
    for url in ("https://example.org/owner/name", ""):
        assert built.make("book", **{address: url}).returncode == 0
        assert built.done() == [".venv/bin/jupyter-book build -q -W -n --keep-going --all ."]
        assert built.make("book", **{address: url}).returncode == 0
        assert built.done() == []


def test_a_change_of_the_kernel_installs_without_resolving_again(built):
    (built.root / "kernels/kernel.c").write_text("changed")
    assert built.make("book").returncode == 0
    assert [line for line in built.done() if "pip" in line] == [
        "-m pip install -c constraints.txt --no-build-isolation --no-deps -e ."
    ]


def test_a_change_of_the_pins_installs_everything_again(built):
    with open(built.root / "constraints.txt", "a") as file:
        file.write("# changed\n")
    assert built.make("book").returncode == 0
    assert any(line.endswith("-e .[course,test]") for line in built.done())


def test_a_tree_that_moved_is_installed_again(built):
    moved = built.root.with_name("moved")
    built.root = built.root.rename(moved)
    assert built.make("test").returncode == 0
    asked = built.done()
    assert asked[0] == "-m venv --clear .venv"
    assert asked[-1].startswith("-m pytest")


def test_a_failed_build_of_the_book_is_tried_again(built):
    stand_in = (built.root / ".venv/bin/python").read_text()
    failing = stand_in.replace("touch _build/html/index.html", "exit 1")
    (built.root / "chapters/index.md").write_text("changed")
    (built.root / ".venv/bin/python").write_text(failing)
    assert built.make("book").returncode != 0
    assert built.make("book").returncode != 0
    (built.root / ".venv/bin/python").write_text(stand_in)
    built.done()
    assert built.make("book").returncode == 0
    assert built.done() == [".venv/bin/jupyter-book build -q -W -n --keep-going --all ."]


def test_clean_leaves_sources_data_and_environment(built):
    kept = sorted(p for p in built.root.rglob("*") if "_build" not in p.parts)
    (built.root / "src/onebit/_xnor_popcount.abi3.so").touch()
    for _ in range(2):
        assert built.make("clean").returncode == 0
    kept.remove(built.root / ".venv/installed")
    assert sorted(built.root.rglob("*")) == kept


def test_ci_and_the_workflow_run_make_test_and_require_kernel_and_browser():
    ci = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci/run", os.X_OK)
    assert ci.rstrip().endswith("exec make test </dev/null")
    assert "ONEBIT_REQUIRE_KERNEL=1 ONEBIT_REQUIRE_BROWSER=1" in ci
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    runs = [step["run"].split("\n") for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert ["bash .ci/run"] in runs
    assert any("make test" in lines for lines in runs)


def test_every_pin_is_exact_and_every_dependency_pinned():
    pins = [
        line.split(";")[0].strip()
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    with open(ROOT / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["course"], *extras["test"]]
    wanted += project["build-system"]["requires"]

    def name(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()

    assert {name(w) for w in wanted} <= {name(pin) for pin in pins}
