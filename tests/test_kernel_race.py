"""The race in the page: its WebAssembly is the kernel's own source, exact, and runs to the end."""

import json
import os
import re
import shutil
import subprocess
import warnings
from base64 import b64decode
from pathlib import Path

import numpy as np
import playwright
import pytest
from chromium import chromium, overflow
from test_widget_pages import contrasts, show  # noqa: F401  a fixture

from onebit import pack_signs
from onebit.widgets import KernelRace

ROOT = Path(__file__).parents[1]
BINARY = ROOT / "src" / "onebit" / "widgets" / "kernel_race.wasm"
PATHS = ["scalar", "simd128"]
SHAPES = [
    (1, 1, 1), (1, 16, 64), (2, 17, 31), (3, 15, 32), (5, 33, 33), (4, 8, 63), (7, 9, 65),
    (9, 40, 127), (2, 7, 992), (3, 16, 993), (17, 19, 1024), (8, 23, 2304), (300, 5, 70),
    (257, 16, 129), (1, 3, 8192), (2, 2, 9001),
]  # fmt: skip

# Multiplies every case in float32 and on every path, and writes all that comes out.
RUN = """
const fs = require("fs");
const [, , binary, folder] = process.argv;
const bytes = fs.readFileSync(binary);
const module_ = new WebAssembly.Module(bytes);
const c = new WebAssembly.Instance(module_).exports;
const told = { imports: WebAssembly.Module.imports(module_), nan: [], paths: [] };
for (let path = 0; path < c.onebit_path_count(); path++) {
  const start = c.onebit_path_name(path);
  const text = Buffer.from(c.memory.buffer, start);
  told.paths.push(text.subarray(0, text.indexOf(0)).toString());
}
JSON.parse(fs.readFileSync(`${folder}/shapes.json`)).forEach(([m, n, k], number) => {
  let top = c.__heap_base.value;
  const place = (size) => {
    const start = Math.ceil(top / 64) * 64;
    top = start + size;
    const missing = top - c.memory.buffer.byteLength;
    if (missing > 0) c.memory.grow(Math.ceil(missing / 65536));
    return start;
  };
  const words = Math.ceil(k / 64);
  const a = place(4 * m * k), b = place(4 * n * k);
  const bits = place(8 * m * words), rows = place(8 * n * words);
  const lanes = place(4 * Number(c.onebit_lanes_size(BigInt(n), BigInt(k))));
  const panels = place(4 * c.onebit_float32_panels_size(n, k)), out = place(4 * m * n);
  const file = (name) => `${folder}/${number}.${name}`;
  const load = (name, at) => new Uint8Array(c.memory.buffer).set(fs.readFileSync(file(name)), at);
  const store = (name, at, size) =>
    fs.writeFileSync(file(name), Buffer.from(c.memory.buffer, at, size));
  load("a", a);
  load("b", b);
  c.onebit_float32_panels(b, n, k, panels);
  c.onebit_float32_gemm(a, panels, m, n, k, out);
  store("float32", out, 4 * m * n);
  told.paths.forEach((name, path) => {
    told.nan.push(c.onebit_pack_signs(path, 2, a, BigInt(m), BigInt(k), bits));
    c.onebit_pack_signs(path, 2, b, BigInt(n), BigInt(k), rows);
    store(`bits.${name}`, bits, 8 * m * words);
    c.onebit_lanes_from_words(rows, words, BigInt(n), BigInt(k), lanes);
    new Int32Array(c.memory.buffer, out, m * n).fill(-k - 1);
    c.onebit_xnor_gemm(path, 1, bits, words, lanes, BigInt(m), BigInt(n), BigInt(k), out, n);
    store(`product.${name}`, out, 4 * m * n);
  });
});
console.log(JSON.stringify(told));
"""


def run(binary, folder, operands):
    """Give pairs of float32 matrices to the binary under node; return what it told."""
    node = shutil.which("node") or Path(playwright.__file__).parent / "driver" / "node"
    shapes = [(len(a), len(b), a.shape[1]) for a, b in operands]
    (folder / "shapes.json").write_text(json.dumps(shapes))
    for number, (a, b) in enumerate(operands):
        (folder / f"{number}.a").write_bytes(a.astype("<f4").tobytes())
        (folder / f"{number}.b").write_bytes(b.astype("<f4").tobytes())
    (folder / "run.cjs").write_text(RUN)
    command = [node, folder / "run.cjs", binary, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def prove_exact(binary, folder):
    rng = np.random.default_rng(0)
    operands = [tuple(rng.choice([-1.0, 1.0], (rows, k)) for rows in (m, n)) for m, n, k in SHAPES]
    told = run(binary, folder, operands)
    assert told["imports"] == []
    assert told["paths"] == PATHS
    assert not any(told["nan"])
    for number, (a, b) in enumerate(operands):
        product = (a @ b.T).astype(np.int32)
        found = np.frombuffer((folder / f"{number}.float32").read_bytes(), "<f4")
        assert np.array_equal(found.reshape(product.shape), product)
        for path in PATHS:
            bits = np.frombuffer((folder / f"{number}.bits.{path}").read_bytes(), "<u8")
            assert np.array_equal(bits.reshape(len(a), -1), pack_signs(a)), (path, a.shape)
            found = np.frombuffer((folder / f"{number}.product.{path}").read_bytes(), "<i4")
            assert np.array_equal(found.reshape(product.shape), product), (path, SHAPES[number])


# ---- the binary ----------------------------------------------------------------------------------


def test_the_binary_multiplies_exactly_at_every_tail(tmp_path):
    prove_exact(BINARY, tmp_path)


@pytest.mark.parametrize("k", [5, 64, 83])
def test_the_binary_packs_zeros_infinities_and_nan_as_the_package_does(tmp_path, k):
    values = [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45]
    row = np.resize(values, (1, k))
    poisoned = [row.copy() for _ in range(2)]
    poisoned[0][0, 0], poisoned[1][0, -1] = np.nan, -np.nan
    told = run(BINARY, tmp_path, [(x, row) for x in (row, *poisoned)])
    assert told["nan"] == [0, 0, 1, 1, 1, 1]
    for path in PATHS:
        bits = np.frombuffer((tmp_path / f"0.bits.{path}").read_bytes(), "<u8")
        assert np.array_equal(bits, pack_signs(row)[0])


def test_the_binary_is_small_and_travels_with_the_widget():
    assert len(BINARY.read_bytes()) < 16_384
    assert b64decode(KernelRace().wasm) == BINARY.read_bytes()


def test_the_page_of_the_book_carries_this_binary():
    chapter = json.loads((ROOT / "chapters" / "04_xnor_popcount.ipynb").read_text(encoding="utf-8"))
    widgets = chapter["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    carried = [model["state"]["wasm"] for model in widgets.values() if "wasm" in model["state"]]
    assert carried == [KernelRace().wasm], "run `make execute`"


@pytest.mark.slow
def test_the_binary_is_what_the_kernel_s_source_compiles_to(tmp_path):
    if not (shutil.which("clang") and shutil.which("wasm-ld") and shutil.which("make")):
        missing = "clang and wasm-ld are not here; apt-get install clang lld"
        (pytest.fail if os.environ.get("ONEBIT_REQUIRE_KERNEL") == "1" else pytest.skip)(missing)
    again = tmp_path / "again.wasm"
    command = ["make", "-s", "wasm", f"WASM={again}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert made.stderr == "", "the compiler warns"
    here, there = compiler(again), compiler(BINARY)
    if here == there:
        assert again.read_bytes() == BINARY.read_bytes(), "run `make wasm` and commit the result"
    else:
        told = f"{there} made the committed binary and {here} this one: compared by their products"
        warnings.warn(told, stacklevel=1)
        prove_exact(again, tmp_path)


def compiler(binary):
    """Return who compiled it, as the section `producers` says."""
    found = re.search(rb"processed-by.*?clang[^\d]*([\d.]+)", binary.read_bytes(), re.DOTALL)
    assert found, "the binary does not say what compiled it"
    return f"clang {found[1].decode()}"


# ---- what Python stores and refuses --------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KernelRace(sizes=[]), "one size or more"),
        (lambda: KernelRace(sizes=[(1, 2, 3), (1, 2, 3)]), "each once"),
        (lambda: KernelRace(sizes=[(1, 2)]), "three positive integers"),
        (lambda: KernelRace(sizes=[(1, 2, 0)]), "three positive integers"),
        (lambda: KernelRace(sizes=[(1, 2, 3.5)]), "three positive integers"),
        (lambda: KernelRace(sizes=[(4096, 1, 4096)]), "too large for a page"),
        (lambda: KernelRace({(1, 2, 3): 9}, machine="m"), r"\(1, 2, 3\), which is none of"),
        (lambda: KernelRace({(64, 64, 512): 0}, machine="m"), "must be a positive ratio, got 0"),
        (lambda: KernelRace({(64, 64, 512): 9}), "machine is empty"),
    ],
)
def test_bad_input_is_refused_in_words(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_without_scripts_the_native_ratios_and_their_machine_are_told():
    text = KernelRace({(64, 64, 512): 9.54}, machine="a <laptop>").without_script()
    assert (
        "9.54× as fast as float32 for 64 × 64 sums of 512 signs" in text
        and "a &lt;laptop&gt;" in text
    )
    assert "native" not in KernelRace().without_script()


# ---- in a browser --------------------------------------------------------------------------------

SMALL = (20, 33, 100)
NATIVE = {"native": {SMALL: 12.34}, "machine": "one core of a laptop", "sizes": [SMALL, (8, 8, 8)]}


class Lacking:
    """A browser in whose pages a script runs before any other, to take something away."""

    def __init__(self, browser, script):
        self.browser, self.script = browser, script

    def new_context(self, **options):
        context = self.browser.new_context(**options)
        context.add_init_script(self.script)
        return context


@pytest.fixture(scope="module")
def whole_browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(whole_browser, request):
    return Lacking(whole_browser, getattr(request, "param", ""))


def race(page):
    """Run the race and return the ratio, the sentences said and the table."""
    page.get_by_role("button", name="Lock in my prediction and race").click()
    page.get_by_role("button", name="Race again").wait_for()
    said = page.get_by_role("status").inner_text().replace("\xa0", " ")
    found = re.match(r"Bits were ([\d.]+)× as fast as float32", said)
    assert found, said
    table = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr").all()]
    return float(found[1]), said, table


def with_change(old, new):
    """Return a script that changes the worker's text before a worker is made of it."""
    return (
        "const Blob_ = Blob; self.Blob = function ([text], options) {"
        f" return new Blob_([text.replace({json.dumps(old)}, {json.dumps(new)})], options); }}"
    )


@pytest.mark.browser
def test_race_is_predicted_and_run_by_keyboard_and_ends_with_equal_sums(show):  # noqa: F811
    with show(KernelRace(**NATIVE)) as page:
        page.get_by_label("Size").focus()
        page.keyboard.press("Tab")
        slider = page.get_by_role("slider", name="My prediction")
        assert slider.evaluate("node => node === document.activeElement")
        page.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == "33 times"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Race again").wait_for()
        assert page.evaluate("document.activeElement.textContent") == "Race again"
        said = page.get_by_role("status").inner_text()
        assert "you predicted 33×" in said and "All 660 sums are equal." in said
        assert "In native code (one core of a laptop): 12.3×" in said
        assert slider.is_disabled() and page.get_by_label("Size").is_disabled()
        page.keyboard.press("Enter")
        assert page.get_by_role("status").inner_text() == ""
        assert slider.is_enabled()
        assert "Lock in" in page.evaluate("document.activeElement.textContent")


@pytest.mark.browser
def test_ratio_is_that_of_the_times_and_packing_is_told_apart(show):  # noqa: F811
    with show(KernelRace(sizes=[(64, 64, 512)])) as page:
        ratio, _, table = race(page)
        factors = [float(row[-1]) for row in table]
        assert factors[0] == 1
        assert ratio == max(factors[1:3]) > factors[3] > 0, "packing costs time"
        rates = [float(row[1]) for row in table]
        for factor, rate in zip(factors, rates, strict=True):
            assert rate / rates[0] == pytest.approx(factor, rel=0.1)
        assert "Packing the activations A alone:" in page.locator(".ob-race").inner_text()


BLURRED = """(() => {
    let readings = 0;
    return () => Math.floor(performance.now()) + 25 * Math.floor(++readings / 3);
  })()"""


@pytest.mark.browser
@pytest.mark.parametrize(
    "browser",
    [with_change("() => performance.now()", BLURRED)],
    ids=["whole milliseconds, and a pause at every third reading"],
    indirect=True,
)
def test_a_clock_that_is_blurred_and_pauses_gives_no_time_of_nothing(show, browser):  # noqa: F811
    with show(KernelRace(sizes=[(1, 1, 64)])) as page:
        _, _, table = race(page)
        assert all(float(row[-1]) > 0 for row in table)


@pytest.mark.browser
def test_race_can_be_cancelled_and_run_again(show):  # noqa: F811
    with show(KernelRace(sizes=[(1024, 1024, 1024), SMALL])) as page:
        page.get_by_role("button", name="Lock in").click()
        assert page.get_by_role("progressbar", name="the race").is_visible()
        page.get_by_role("button", name="Cancel").click()
        assert page.get_by_role("status").inner_text() == "Cancelled. Nothing was measured."
        assert page.get_by_role("progressbar").count() == 0
        page.get_by_label("Size").select_option("1")
        assert "All 660 sums are equal." in race(page)[1]


@pytest.mark.browser
@pytest.mark.parametrize(
    ("browser", "said"),
    [
        ("WebAssembly.validate = () => false", "no vector instructions (SIMD)"),
        ("delete self.WebAssembly", "runs no WebAssembly"),
        ("delete self.Worker", "has no workers"),
    ],
    indirect=["browser"],
)
def test_what_a_browser_lacks_is_said_and_the_native_ratios_stand(show, said):  # noqa: F811
    with show(KernelRace(**NATIVE)) as page:
        status = page.get_by_role("status")
        status.get_by_text(said).wait_for()
        assert "so there is no race here" in status.inner_text()
        assert "12.3×" in status.inner_text()
        assert page.get_by_role("button").count() == page.get_by_role("slider").count() == 0
        page.get_by_label("Size").select_option("1")
        assert "12.3×" not in status.inner_text()


@pytest.mark.browser
@pytest.mark.parametrize(
    "browser",
    [
        "self.Worker = class { constructor() { throw new DOMException('not here') } }",
        "self.Worker = class { terminate() {}"
        " postMessage() { setTimeout(() => this.onerror(new Event('error'))) } }",
    ],
    ids=["throws", "tells later"],
    indirect=True,
)
def test_a_page_that_may_not_start_workers_says_so(show, browser):  # noqa: F811
    with show(KernelRace(**NATIVE)) as page:
        page.get_by_role("button", name="Lock in").click()
        page.get_by_text("This page may not start workers here").wait_for()
        assert "12.3×" in page.get_by_role("status").inner_text()
        page.get_by_role("button", name="Race again").click()
        assert page.get_by_role("button", name="Lock in").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize(
    "browser",
    [with_change("await WebAssembly.instantiate(wasm)", "null.exports")],
    ids=["fault"],
    indirect=True,
)
def test_a_fault_in_the_worker_is_told_and_ends_the_race(show, browser):  # noqa: F811
    with show(KernelRace(sizes=[SMALL])) as page:
        page.get_by_role("button", name="Lock in").click()
        page.get_by_text("The race broke off: TypeError").wait_for()
        assert page.get_by_role("progressbar").count() == 0


@pytest.mark.browser
@pytest.mark.parametrize(
    "browser",
    [with_change("runs.float32(m);", "runs.float32(m - 1);")],
    ids=["a row too few"],
    indirect=True,
)
def test_sums_that_differ_are_noticed_and_no_ratio_is_shown(show, browser):  # noqa: F811
    with show(KernelRace(sizes=[SMALL])) as page:
        page.get_by_role("button", name="Lock in").click()
        page.get_by_text("The products differ in").wait_for()
        assert "×" not in page.get_by_role("status").inner_text()
        assert page.locator("table").count() == 0


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_race_fits_a_phone_and_is_readable_in_both_themes(show, theme):  # noqa: F811
    with show(KernelRace(**NATIVE), width=390, theme=theme) as page:
        page.locator(".ob-race").wait_for()
        assert overflow(page) == 0
        race(page)
        assert overflow(page) == 0
        texts = page.locator(".ob-race :is(p, label, select, th, td)")
        for text, ratio in contrasts(texts, theme):
            assert ratio >= 4.5, f"contrast {ratio:.2f}: {text}"
