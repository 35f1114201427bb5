"""The pages around the chapters: a whole API, examples that hold, a map of what is there."""

import doctest
import importlib
import inspect
import pkgutil
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import yaml
from torch import nn
from traitlets import HasTraits

import onebit

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "chapters"


def public_names():
    """Map every public class and function of the package to the name users import it by.

    A module without `__all__` offers what it defines without an underscore.
    """
    modules = [onebit] + [
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(onebit.__path__, "onebit.")
        if not found.name.startswith("onebit._")
    ]
    names = {}
    for module in modules:
        listed = getattr(module, "__all__", None)
        for name, value in vars(module).items():
            if not inspect.isclass(value) and not inspect.isfunction(inspect.unwrap(value)):
                continue
            own = value.__module__ == module.__name__ and not name.startswith("_")
            if (name in listed) if listed is not None else own:
                names.setdefault(value, f"{module.__name__}.{name}")
    return names


def documented():
    """Yield (name, members, signature if it is written out) for every entry of the API page."""
    module = ""
    for kind, name, signature, options in re.findall(
        r"^\.\. (currentmodule|autofunction|autoclass):: ([\w.]+)(\(.*\))?\n((?:   :.*\n)*)",
        (CHAPTERS / "api.md").read_text(encoding="utf-8"),
        re.M,
    ):
        if kind == "currentmodule":
            module = name
            continue
        members = re.search(r":members: (.*)", options)
        full = name if name.startswith("onebit.") else f"{module}.{name}"
        yield full, set(members[1].split(", ")) if members else set(), signature


def resolved(name):
    module, _, short = name.rpartition(".")
    return getattr(importlib.import_module(module), short)


def own_signature(value):
    """Write a class's signature as Sphinx does without types."""
    if not value.__init__.__module__.startswith("onebit"):
        return "()"
    signature = inspect.signature(value.__init__)
    bare = [
        p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"
    ]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def test_the_api_page_documents_every_public_name_once_and_nothing_else():
    shown = Counter(name for name, _, _ in documented())
    wanted = set(public_names().values())
    assert {name for name, count in shown.items() if count > 1} == set()
    assert wanted - set(shown) == set(), (
        "enter it in chapters/api.md, or name it with an underscore"
    )
    assert set(shown) - wanted == set(), "on the API page, but not public under this name"


CLASSES = [entry for entry in documented() if inspect.isclass(resolved(entry[0]))]


@pytest.mark.parametrize("name, members, signature", CLASSES, ids=[entry[0] for entry in CLASSES])
def test_the_api_page_shows_how_a_class_is_made_and_its_public_members(name, members, signature):
    value = resolved(name)
    kinds = (property, classmethod, staticmethod)
    own = {
        member
        for member, found in vars(value).items()
        if (inspect.isfunction(found) or isinstance(found, kinds)) and not member.startswith("_")
    }
    told_by_the_base = {m for m in own if any(hasattr(base, m) for base in value.__bases__)}
    assert own - told_by_the_base <= members
    assert all(hasattr(value, member) for member in members)
    # Sphinx reads (*args, **kwargs) off the bases of widgets and modules.
    if signature:
        assert signature == own_signature(value)
    else:
        assert not issubclass(value, HasTraits)
        assert not issubclass(value, nn.Module) or "__init__" in vars(value)


@pytest.mark.parametrize("name", [name for name, _, _ in documented()])
def test_an_entry_of_the_api_page_says_what_it_does_in_one_sentence(name):
    summary = inspect.getdoc(resolved(name)).split("\n\n")[0]
    assert summary.endswith((".", ":")), summary


PAGES = sorted(CHAPTERS.glob("*.md"))


def sessions(page):
    return re.findall(r"^```python\n(>>>.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("page", [p for p in PAGES if sessions(p)], ids=lambda page: page.name)
def test_the_examples_of_a_page_give_what_it_prints(page):
    test = doctest.DocTestParser().get_doctest(
        "\n".join(sessions(page)), {}, page.name, str(page), 0
    )
    assert doctest.DocTestRunner().run(test).failed == 0


def entries():
    """Yield the terms of every glossary entry, and its text."""
    text = (CHAPTERS / "glossary.md").read_text(encoding="utf-8")
    body = re.search(r"^```\{glossary\}\n:sorted:\n\n(.*?)^```", text, re.M | re.S)[1]
    for entry in body.strip().split("\n\n"):
        lines = entry.split("\n")
        terms = [line for line in lines if not line.startswith(" ")]
        yield terms, " ".join(line.strip() for line in lines[len(terms) :])


def prose(page):
    if page.suffix == ".md":
        return page.read_text(encoding="utf-8")
    return "\n".join(c.source for c in nbformat.read(page, 4).cells if c.cell_type == "markdown")


@pytest.mark.parametrize("terms, text", list(entries()), ids=[terms[0] for terms, _ in entries()])
def test_a_glossary_entry_is_two_or_three_sentences_about_a_word_that_the_book_uses(terms, text):
    sentences = re.findall(r"[.:](?= [A-Z`{]|$)", re.sub(r"\{cite:\w\}`[^`]*`", "", text))
    assert 2 <= len(sentences) <= 3, text
    others = [other for names, other in entries() if names != terms]
    pages = [prose(p) for p in CHAPTERS.iterdir() if p.suffix in (".md", ".ipynb")
             and p.name != "glossary.md"]  # fmt: skip
    docstrings = [inspect.getdoc(value) for value in public_names()]
    used = "\n".join([*others, *pages, *docstrings]).lower()
    # Spaces and line breaks are one; a plural is the same word.
    assert any(re.search(rf"\b{re.sub('[ -]', '[ -]', t.lower())}", used) for t in terms)


def test_the_map_on_the_first_page_opens_the_chapters_that_the_book_has():
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    chapters = next(part for part in parts if part["caption"] == "Chapters")["chapters"]
    story = re.search(
        r":::\{div\} course-map\n(.*?)^:::", prose(CHAPTERS / "index.ipynb"), re.M | re.S
    )
    opened = re.findall(r"^(\d)\. \*\*\[.*?\]\((\w+)\.ipynb\)", story[1], re.M)
    assert [name for _, name in opened] == [Path(c["file"]).name for c in chapters]
    assert all(name.startswith(f"0{number}_") for number, name in opened)
