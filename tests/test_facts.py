"""The ledger is sound, and its tables say the same to eye, ear and terminal."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onebit.facts import Table, compare, fact, ledger, table

ROOT = Path(__file__).parents[1]
NO_SPACE = dict.fromkeys(map(ord, " \n"))


class Words(HTMLParser):
    """Collect what an HTML table says: cells by row, and the caption."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.caption = ""
        self.scopes: list[str | None] = []
        self._into = ""
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self.scopes += [dict(attrs).get("scope")] if tag == "th" else []
        if tag in ("th", "td", "caption"):
            self._into = tag
        if tag == "br":
            self.caption += "\n"

    def handle_endtag(self, tag):
        if tag in ("th", "td", "caption"):
            self._into = ""

    def handle_data(self, data):
        if self._into == "caption":
            self.caption += data.strip("\n")
        elif self._into:
            self.rows[-1][-1] += data


def all_facts():
    return [pytest.param(f, id=key) for key, f in ledger().items()]


@pytest.mark.parametrize("f", all_facts())
def test_every_fact_says_what_whose_and_where(f):
    assert f.about and f.cite and f.where
    assert f.seen in ("primary", "repository", "second-hand")
    assert bool(f.through) == (f.seen == "second-hand"), "second-hand facts name who quotes them"
    assert f.seen != "repository" or not f.url or f.url.startswith(("https://", "http://"))
    assert f.text == f.text.strip() and "  " not in f.text
    assert f.text.endswith(f.unit)


@pytest.mark.parametrize("f", all_facts())
def test_the_value_is_the_number_in_the_text(f):
    head = re.match(r"[^\d−-]*([−-]?\d[\d ]*(?:\.\d+)?(?:e-?\d+)?)", f.text)
    assert f.value == float(head[1].replace(" ", "").replace("−", "-"))


def test_every_source_is_in_the_bibliography():
    bibliography = ROOT / "references.bib"
    keys = set(re.findall(r"^@\w+\{([^,]+),", bibliography.read_text(), flags=re.M))
    quoted = {f.source for f in ledger().values()}
    quoted |= {f.quoted_in for f in ledger().values() if f.quoted_in}
    assert quoted <= keys, f"not in references.bib: {sorted(quoted - keys)}"


def test_figures_that_several_texts_give_agree():
    """What the ledger holds twice, because two texts print it, must be the same twice."""
    for bc, bnn in (("mnist", "mnist"), ("svhn", "svhn"), ("cifar10", "cifar10")):
        quoted = fact(f"bnn.table1.{bnn}.binaryconnect")
        assert fact(f"bc.table2.{bc}.det").text == quoted.text
    for name in ("mnist", "cifar10", "svhn"):
        assert fact(f"bnn_code.{name}_error").text == fact(f"bnn.table1.{name}.theano").text
    for name in ("kernel_naive", "kernel_cublas", "kernel_mlp"):
        assert fact(f"bnn_code.{name}").text == fact(f"bnn.{name}").text
    for operation in ("int8", "fp16", "fp32"):
        for kind in ("mul", "add"):
            name = f"arithmetic.{kind}.{operation}"
            assert fact(f"energy.{name}").text == fact(f"energy_b1.{name}").text
    for name, row in (("alpha_closed", "bwn"), ("bacp", "xnor")):
        assert fact(f"xnor.table3.top1.{name}").text == fact(f"xnor.table1.top1.{row}").text
    assert fact("xnor_code.alexnet_bwn").text == fact("xnor.table1.top1.bwn").text
    assert fact("bnn.qnn_alexnet").text == fact("qnn.alexnet").text
    assert fact("bnn.table1.svhn.none").text == fact("bc.table2.svhn.none").text


def test_figures_that_follow_from_others_do():
    connections, cycles = fact("bnn.kernel_theory_connections"), fact("bnn.kernel_theory_cycles")
    assert fact("bnn.kernel_theory").write(connections.value / cycles.value) == "5.3×"
    assert fact("bnn.kernels_possible").value == 2 ** (3 * 3)
    xnor, n = fact("xnor.speedup_theory"), fact("xnor.speedup_channels").value * 9
    assert xnor.write(64 * n / (n + 64)) == xnor.text
    mul, add = (fact(f"energy7nm.arithmetic.{op}.fp16").value for op in ("mul", "add"))
    saving = fact("b158.energy")
    assert saving.write((mul + add) / fact("energy7nm.arithmetic.add.int8").value) == saving.text
    assert fact("bitnetcpp.tl2_bits").write(5 / 3) == fact("bitnetcpp.tl2_bits").text
    throughput = fact("b158.throughput_b158").value / fact("b158.throughput_llama").value
    assert fact("b158.throughput").write(throughput) == fact("b158.throughput").text
    for size in ("700m", "1b", "3b"):
        for what in ("memory", "latency"):
            llama, b158 = (
                fact(f"b158.tables12.{what}.{model}_{size}").value for model in ("llama", "b158")
            )
            ratio = fact(f"b158.ratios.{what}.b158_{size}")
            assert abs(llama / b158 - ratio.value) <= 0.011 * ratio.value
    assert fact("mnist.all").value == fact("mnist.train").value + fact("mnist.test").value


def test_an_unknown_key_is_refused_with_those_near_it():
    with pytest.raises(KeyError, match=r"no fact 'bc\.table2\.mnist\.stochastic'") as refusal:
        fact("bc.table2.mnist.stochastic")
    assert "bc.table2.mnist.stoch" in str(refusal.value)
    with pytest.raises(KeyError, match=r"no table 'bc\.tabel2'.*bc\.table2"):
        table("bc.tabel2")
    with pytest.raises(KeyError, match=r"no row of bc\.table2 'stochastic'.*stoch"):
        table("bc.table2", rows=["stochastic"])
    with pytest.raises(KeyError, match=r"no column of bc\.table2 'cifar'.*cifar10"):
        table("bc.table2", columns=["cifar"])


def test_a_measured_number_is_written_like_the_reported_one():
    assert fact("bc.table2.mnist.det").write(2.3149) == "2.31 %"
    assert fact("bnn.kernel_cublas").write(12.96) == "13.0×"
    assert fact("bc.mnist_units").write(255.6) == "256"


def test_a_table_shows_the_chosen_rows_and_columns_in_the_given_order():
    shown = table("bc.table2", rows=["det", "none"], columns=["svhn", "mnist"])
    assert shown.headings == ("", "SVHN", "MNIST")
    assert shown.rows == (
        ("BinaryConnect, deterministic", "2.30 %", "1.29 ± 0.08 %"),
        ("no regulariser, full precision", "2.44 %", "1.30 ± 0.04 %"),
    )


def test_what_the_source_leaves_empty_is_a_dash():
    assert table("bc.table2", rows=["dropout"]).rows == (
        ("50 % dropout", "1.01 ± 0.04 %", "–", "–"),
    )


def names_of_tables():
    return sorted({key.rsplit(".", 2)[0] for key in ledger() if key.count(".") == 3})


def some_comparison():
    return compare(
        [
            ("full precision", "bc.table2.mnist.none", 2.0871),
            ("a <b> & c", None, "3.1 % by hand"),
            ("stochastic", "bc.table2.mnist.stoch", None),
        ],
        what="test error on MNIST",
        measured="this cell, 3 epochs",
    )


@pytest.mark.parametrize("name", [*names_of_tables(), None])
def test_html_and_text_say_the_same(name):
    shown = table(name) if name else some_comparison()
    words = Words(shown._repr_html_())
    body, caption = repr(shown).split("\n\n", 1)
    assert words.rows == [list(shown.headings), *map(list, shown.rows)]
    assert body.translate(NO_SPACE) == "".join(map("".join, words.rows)).translate(NO_SPACE)
    assert caption == words.caption


def test_html_tells_a_screen_reader_what_heads_what():
    shown = some_comparison()
    assert Words(shown._repr_html_()).scopes == ["col"] * 2 + ["row"] * 3
    assert "a &lt;b&gt; &amp; c" in shown._repr_html_()
    assert '<a href="https://arxiv.org/abs/1511.00363">Courbariaux' in shown._repr_html_()


def test_a_source_is_linked_wherever_a_caption_names_it():
    link = ("Somebody, 2016", "https://example.org/a?b&c")
    lines = tuple(f"Reported: {link[0]}, Table {i}." for i in (1, 3))
    page = Table(("", "reported"), (("a", "1"),), lines, (link,))._repr_html_()
    assert page.count('<a href="https://example.org/a?b&amp;c">Somebody, 2016</a>, Table') == 2


def test_a_source_whose_name_begins_like_another_has_its_own_link():
    links = (("Ma 2024", "https://a.example"), ("Ma 2024, Tips", "https://b.example"))
    page = Table(("", "x"), (("a", "1"),), ("Ma 2024, Tips; Ma 2024.",), links)._repr_html_()
    assert '<a href="https://b.example">Ma 2024, Tips</a>; ' in page
    assert '; <a href="https://a.example">Ma 2024</a>.' in page and page.count("<a ") == 2


def test_a_comparison_names_source_budget_and_both_figures():
    shown = some_comparison()
    assert shown.rows == (
        ("full precision", "1.30 ± 0.04 %", "2.09 %"),
        ("a <b> & c", "–", "3.1 % by hand"),
        ("stochastic", "1.18 ± 0.04 %", "–"),
    )
    assert shown.caption == (
        "Test error on MNIST.",
        "Reported: Courbariaux, Bengio and David 2015, Table 2.",
        "Measured: this cell, 3 epochs.",
    )


def test_a_second_hand_figure_says_in_whose_words_it_was_seen():
    assert compare([("a", "twn.resnet18_top1", 61.0)], what="x", measured="y").caption[1] == (
        "Reported: Li et al. 2016, as seen in Yang et al. 2019, Table 2."
    )
    assert table("b2b4t.int4").caption[1] == (
        "Source: Ma et al. 2025, as seen in a translation and a digest of the report, "
        "comparison with INT4."
    )


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="want at least one that names a ledger key"):
        compare([], what="x", measured="y")
    with pytest.raises(ValueError, match=r"'own' has the number 2\.0 but no fact"):
        compare(
            [("own", None, 2.0), ("theirs", "bc.table2.mnist.det", 2.0)], what="x", measured="y"
        )


def test_text_columns_line_up():
    lines = repr(Table(("", "a"), (("long label", "1"), ("b", "100")), ("c",))).splitlines()
    assert lines == ["              a", "long label    1", "b           100", "", "c"]
