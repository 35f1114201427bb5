"""What the README shows is true: its code runs, its picture adds up, its links lead somewhere."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PICTURE = ROOT / "chapters" / "assets" / "xnor-popcount.svg"
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "THIRD_PARTY.md"]


def python_blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def test_the_code_trains_packs_and_runs_a_binary_layer(capsys):
    (code,) = python_blocks()
    torch.manual_seed(0)
    names: dict = {}
    exec(code, names)
    told = re.search(r"# (True), and (\d+) bytes instead of (\d+)", code).groups()
    assert capsys.readouterr().out.split() == [told[0], told[1]]
    weights = [names["layer"].weight, names["layer"].bias]
    assert sum(w.numel() * w.element_size() for w in weights) == int(told[2])
    error = names["training"].error_rate(names["packed"], *names["test_set"])
    assert error < 45, "half of the digits and more must be right; guessing gives 90 %"


def test_the_code_is_six_lines_beside_the_imports():
    (code,) = python_blocks()
    lines = [line for line in code.splitlines() if line and not re.match("import|from", line)]
    assert len(lines) == 6


def test_the_picture_computes_what_it_says():
    root = ElementTree.parse(PICTURE).getroot()
    space = "{http://www.w3.org/2000/svg}"
    rows = {g.get("id"): g.findall(f"{space}text") for g in root.iter(f"{space}g")}
    bits = {k: [int(t.text) for t in v if t.get("class") == "bit"] for k, v in rows.items()}
    signs = {
        k: [int(t.text.replace("−", "-")) for t in v if t.get("class") == "sign"]
        for k, v in rows.items()
    }
    assert {k: [2 * bit - 1 for bit in v] for k, v in bits.items()} == signs
    assert bits["xnor"] == [int(a == w) for a, w in zip(bits["a"], bits["w"], strict=True)]
    count = sum(bits["xnor"])
    dot = sum(a * w for a, w in zip(signs["a"], signs["w"], strict=True))
    words = " ".join(t.text for t in root.iter(f"{space}text"))
    assert f"popcount = {count}" in words
    assert f"2 · {count} − 8 = {dot:+d}" in words
    assert f"2 · {count} − 8 = {dot:+d}" in README


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_inside_the_repository_lead_somewhere(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_that_are_named_exist(name):
    targets = re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    text = (ROOT / name).read_text(encoding="utf-8")
    assert set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.M)) <= set(targets)


def test_the_cost_of_the_book_budget_is_what_its_runs_and_searches_took():
    files = [*(ROOT / "results").glob("*/book/*.json")]
    hours = sum(json.loads(f.read_text())["provenance"]["cpu_seconds"] for f in files) / 3600
    assert f"took {hours:.1f} core-hours" in README
