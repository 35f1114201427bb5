"""The checked claims: all are there, each with its source, and none repeated as if it were true."""

import re
from pathlib import Path

import nbformat
import pytest
from chromium import chromium, missing, opened

ROOT = Path(__file__).parents[1]
CHAPTERS = ROOT / "chapters"
SOURCES = set(re.findall(r"^@\w+\{(\w+),", (ROOT / "references.bib").read_text("utf-8"), re.M))
PLACE = re.compile(
    r"§\d|\bTables? \d|\bFigure \d|\bEqs?\. \d|\bAlgorithm \d|\babstracts?\b|\bREADME\b|\btitle\b"
    r"|\bFAQ\b|\bmodel zoo\b|\bnews report\b|`\w[\w-]*\.(?:cpp|cu|md)`"
)


def prose(page):
    if page.suffix == ".md":
        return page.read_text("utf-8")
    return "\n\n".join(
        c.source for c in nbformat.read(page, as_version=4).cells if c.cell_type == "markdown"
    )


PAGE = prose(CHAPTERS / "claims_checked.ipynb").replace("\N{NO-BREAK SPACE}", " ")
ROWS = re.findall(
    r"^\(claim-(\d+)\)=\n### “(.+)”\n\n\*\*(.+?)\.\*\* (.+)\\\n\*\*Better:\*\* (.+)$", PAGE, re.M
)
NUMBERED = pytest.mark.parametrize(
    "row", ROWS, ids=[f"{n}-{said[:30]}".replace(" ", "-") for n, said, *_ in ROWS]
)

# What each claim gets wrong, in the order of the page. Each is found in the claim as it is quoted,
# and must not be found in what the page itself says about it.
UNCORRECTED = (
    r"clearly less accurate",
    r"by the sign at test time",
    r"only ever tried",
    r"introduced the straight-through",
    r"one idea is",
    r"networks began in 2015",
    r"w\.sign\(\)\.T",
    r"gives −1 or \+1",
    r"everything is ±1",
    r"is by Courbariaux",
    r"broke down",
    r"with scaling factors or without",
    r"18 % of accuracy",
    r"BinaryNet plus scaling",
    r"mean\(dim=1\) is",
    r"58 times faster|58× faster",
    r"become three instructions",
    r"2·count − 64",
    r"network is 32 times",
    r"saves memory 64-fold|64× less",
    r"about 15 pJ",
    r"costs 0\.1 pJ",
    r"energy is saved in the arithmetic",
    r"10 to 20",
    r"never used",
    r"2ᵏ functions|infinitely many",
    r"All research",
    r"nobody tried",
    r"was the first Transformer",
    r"as good as floats",
    r"insight was",
    r"takes 1\.58 bits",
    r"30 to 50 %|is? a learned pruning|, a learned",
    r"a discovery of BitNet",
    r"touches the weights alone",
    r"From 3B parameters on|match full precision",
    r"Only models below 1B",
    r"is the first open",
)


def test_there_are_thirty_eight_claims_and_no_row_escaped_the_form():
    assert [int(n) for n, *_ in ROWS] == list(range(1, 39))
    assert len(re.findall(r"^### ", PAGE, re.M)) == len(UNCORRECTED) == 38


@NUMBERED
def test_a_claim_has_a_verdict_and_names_a_source_and_the_place_in_it(row):
    _, _, verdict, found, _ = row
    assert verdict in ("Wrong", "Loose", "Broken code")
    cited = {key for keys in re.findall(r"\{cite:\w\}`([\w,]+)`", found) for key in keys.split(",")}
    assert cited and cited <= SOURCES
    assert PLACE.search(found)


@NUMBERED
def test_a_claim_is_quoted_and_not_repeated(row):
    n, said, _, found, better = row
    pattern = re.compile(UNCORRECTED[int(n) - 1], re.I)
    assert pattern.search(said), "the pattern is not about this claim"
    assert not pattern.search(f"{found} {better}")


def heading_ids(page):
    """Give the names by which links reach a page's headings and labels."""
    text = prose(page)
    headings = re.findall(r"^#{1,3} (.+)$", text, re.M)
    slugs = {re.sub(r"[^\w\- ]", "", h.lower().strip()).replace(" ", "-") for h in headings}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.M))


@pytest.mark.parametrize("name", ["claims_checked.ipynb", "takeaways.md", "exercise.ipynb"])
def test_links_lead_to_pages_and_headings_that_are_there(name):
    links = re.findall(r"\]\(([\w.-]*)(?:#([\w-]+))?\)", prose(CHAPTERS / name))
    assert len(links) > 10
    pages = [page for page in CHAPTERS.iterdir() if page.suffix in (".md", ".ipynb")]
    labels = set().union(*(heading_ids(page) for page in pages))
    for page, anchor in links:
        target = CHAPTERS / (page or name)
        assert target.exists(), f"{name} links to {page}, which is not there"
        known = heading_ids(target) if page else labels
        assert not anchor or anchor in known, f"{page} has no heading #{anchor}"


BUILT = ROOT / "_build" / "html" / "chapters" / "claims_checked.html"


@pytest.fixture(scope="module")
def browser():
    if not BUILT.exists():
        missing("the book is not built", "make book")
    with chromium() as browser:
        yield browser


def shown(page):
    """Return the numbers of the claims that can be seen."""
    seen = page.locator("[id^=claim-]").evaluate_all(
        "spans => spans.filter(s => s.closest('section').checkVisibility()).map(s => s.id)"
    )
    return [int(name.removeprefix("claim-")) for name in seen]


ALL = list(range(1, 39))


@pytest.mark.browser
def test_without_scripts_all_claims_are_there_and_the_groups_are_links(browser):
    with opened(browser, BUILT, scripts=False) as page:
        assert shown(page) == ALL
        assert page.locator(".claims-filter a").count() == 5
        assert page.get_by_role("searchbox", name="Search the claims").count() == 0


@pytest.mark.browser
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (360, "dark")])
def test_each_button_shows_its_group_and_the_five_share_all_claims(browser, width, theme):
    with opened(browser, BUILT, width=width, theme=theme) as page:
        row = page.get_by_role("search").get_by_role("group", name="Group")
        row.get_by_role("button", name="All", pressed=True).focus()
        by_group = []
        for name in row.get_by_role("button").all_text_contents()[1:]:
            page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            assert row.get_by_role("button", pressed=True).all_text_contents() == [name]
            assert page.evaluate("document.activeElement.textContent") == name
            assert page.get_by_role("heading", level=2, name=name).is_visible()
            by_group.append(shown(page))
            assert page.get_by_role("status").text_content() == f"{len(by_group[-1])} of 38 claims"
        assert len(by_group) == 5 and all(by_group)
        assert [n for group in by_group for n in group] == ALL
        row.get_by_role("button", name="All").click()
        assert shown(page) == ALL


@pytest.mark.browser
def test_every_word_typed_must_be_in_a_claim_whatever_the_cells_below_it_say(browser):
    with opened(browser, BUILT) as page:
        box = page.get_by_role("searchbox", name="Search the claims")
        for words in ("AlexNet", "perplexity", "batch norm  CONVOLUTION", "1×1 zzz", "pJ", "print"):
            box.fill(words)
            expected = [
                int(n)
                for n, *texts in ROWS
                if all(word in " ".join(texts).lower() for word in words.lower().split())
            ]
            assert shown(page) == expected, words
            status = page.get_by_role("status").text_content()
            assert status.startswith(f"{len(expected)} of 38" if expected else "None of the 38")
        box.fill("ImageNet")
        page.get_by_role("button", name="BinaryConnect").click()
        assert shown(page) == [1]
        box.press("Control+a")
        box.press("Delete")
        assert shown(page) == list(range(1, 9))


@pytest.mark.browser
def test_a_link_to_a_claim_that_is_filtered_away_brings_all_back(browser):
    with opened(browser, BUILT) as page:
        page.get_by_role("searchbox").fill("nothing says this")
        assert shown(page) == []
        page.evaluate("location.hash = '#claim-20'")
        page.locator("#claim-20").wait_for(state="attached")
        page.wait_for_function(
            "document.querySelector('#claim-20').closest('section').checkVisibility()"
        )
        assert shown(page) == ALL
        assert page.get_by_role("button", name="All", pressed=True).count() == 1
