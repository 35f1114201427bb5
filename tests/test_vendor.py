"""The vendored browser runtime: nothing missing, nothing changed, nothing that looks elsewhere."""

import importlib.util
import json
import re
import shutil
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASSETS = ROOT / "chapters" / "assets"


@pytest.fixture(scope="module")
def vendor():
    spec = importlib.util.spec_from_file_location("vendor", ROOT / "tools" / "vendor.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_vendored_file_is_as_its_checksum_says(vendor):
    assert vendor.faults() == []


def test_a_changed_a_missing_and_an_unknown_file_are_each_named(vendor, tmp_path):
    copy = tmp_path / "vendor"
    shutil.copytree(vendor.VENDOR, copy)
    with (copy / "widgets" / "require.js").open("a") as file:
        file.write(" ")
    (copy / "widgets" / "runtime.LICENSE.txt").unlink()
    (copy / "stray.js").touch()
    assert vendor.faults(copy) == [
        "widgets/runtime.LICENSE.txt is missing",
        "stray.js has no checksum",
        "widgets/require.js differs from its checksum",
    ]


def test_anywidget_s_script_is_the_installed_package_s(vendor):
    assert version("anywidget") == vendor.ANYWIDGET
    installed = vendor.files("anywidget") / "nbextension" / "index.js"
    assert (vendor.VENDOR / "widgets" / "anywidget.js").read_bytes() == installed.read_bytes()


def test_third_party_notice_names_every_package_with_its_version(vendor):
    notice = (ROOT / "THIRD_PARTY.md").read_text("utf-8")
    section = notice.split("## Vendored browser runtime")[1].split("\n## ")[0]
    for package in vendor.PACKAGES:
        assert f"{package.name} {package.version}" in section
    assert f"anywidget {vendor.ANYWIDGET}" in section


def test_own_scripts_and_styles_name_no_other_machine():
    for path in [*ASSETS.glob("*.js"), *ASSETS.glob("*.css"), *ASSETS.glob("*.svg")]:
        addresses = re.findall(r"https?://[^\s\"')]+", path.read_text("utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path


def test_configuration_loads_what_is_vendored():
    config = (ROOT / "_config.yml").read_text("utf-8")
    for script in re.findall(r"(?:vendor/widgets/\w+|widgets|course|print)\.js", config):
        assert (ASSETS / script).is_file(), script
    assert re.findall(r"https?://[^\s\"'>]+", config) == [
        "https://creativecommons.org/licenses/by/4.0/"
    ]


def test_the_theme_looks_for_what_scrolls_by_the_words_that_the_course_s_script_knows():
    theme = files("pydata_sphinx_theme") / "theme" / "pydata_sphinx_theme" / "static" / "scripts"
    script = (theme / "pydata-sphinx-theme.js").read_text("utf-8")
    (listed,) = re.findall(r'querySelectorAll\((\["pre".*?\])\.join\(", "\)\)', script)
    (known,) = re.findall(r'const THEIRS = "(.*)";', (ASSETS / "course.js").read_text("utf-8"))
    assert known == ", ".join(json.loads(listed))
