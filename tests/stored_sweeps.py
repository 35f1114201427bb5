"""What is asked of a notebook after its last cell: the sweeps that it computed are those it stores.

nbval's run has called each sweep's function at every position anew, and the tables in the kernel
must be those that the page shows. The points of a drawing may differ by a thousandth of its axis,
which nobody sees and another processor's last digit may need; the readouts, in words, not at all.
"""

import json
from itertools import chain
from math import isclose

import pytest
from nbval.plugin import IPyNbFile

STATE = "application/vnd.jupyter.widget-state+json"
VISIBLE = 1e-3
TELL = """
import json as _json
from ipywidgets.widgets.widget import _instances
from onebit.widgets.sweep import SweepView as _View
print(_json.dumps([[w.spec, w.texts] for w in _instances.values() if isinstance(w, _View)]))
"""


def differences(stored: list, computed: list) -> list[str]:
    """Return what a page shows otherwise than the run computed, one sentence each."""
    found = {(spec["label"], spec["alt"]): (spec, texts) for spec, texts in computed}
    told = []
    for spec, texts in stored:
        label = spec["label"]
        if (label, spec["alt"]) not in found:
            told.append(f"{label}: the run made no such sweep")
            continue
        again, words = found[label, spec["alt"]]
        told += [
            f"{label}: {b!r}, but stored is {a!r}"
            for a, b in zip(texts, words, strict=False)
            if a != b
        ]
        if len(texts) != len(words) or spec["positions"] != again["positions"]:
            told.append(f"{label}: the positions are {again['positions']}")
        elif not same(drawn(spec), drawn(again), spec):
            told.append(f"{label}: the drawing differs")
    return told


def drawn(spec: dict) -> list:
    """Return all series of a sweep, or of every frame of one."""
    return spec["frames"] if "frames" in spec else [spec.get("series_data", [])]


def same(stored: list, computed: list, spec: dict) -> bool:
    """Tell whether two lists of drawings look the same on the axes of ``spec``."""
    if [len(frame) for frame in stored] != [len(frame) for frame in computed]:
        return False
    for before, after in zip(chain(*stored), chain(*computed), strict=True):
        for axis in "xy":
            low, high = spec[f"{axis}_range"]
            room = 0 if spec[f"log_{axis}"] else VISIBLE * (high - low)
            if len(before[axis]) != len(after[axis]) or not all(
                isclose(a, b, rel_tol=VISIBLE, abs_tol=room)
                for a, b in zip(before[axis], after[axis], strict=True)
            ):
                return False
    return True


class StoredTables(pytest.Item):
    """The check of one notebook, after its cells."""

    def runtest(self):
        """Compare what the kernel holds with what the notebook stores."""
        kernel = self.parent.kernel
        if not kernel.is_alive() or self.parent.timed_out:
            pytest.fail("the notebook did not run to its end")
        computed = json.loads(self.answer(kernel, TELL))
        models = self.parent.nb.metadata.widgets[STATE]["state"].values()
        stored = [
            [m["state"]["spec"], m["state"]["texts"]] for m in models if "texts" in m["state"]
        ]
        told = differences(stored, computed)
        assert not told, "\n".join([*told, "The cure: make execute"])

    def answer(self, kernel, code):
        """Return what the kernel prints for ``code``."""
        request = kernel.execute_cell_input(code, allow_stdin=False)
        kernel.await_reply(request, timeout=60)
        printed = ""
        while True:
            message = kernel.get_message("iopub", timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed += message["content"]["text"]
            if message["msg_type"] == "error":
                raise AssertionError("\n".join(message["content"]["traceback"]))
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return printed

    def reportinfo(self):
        """Name the check in reports."""
        return self.path, 0, f"{self.path.name}: the sweeps' tables"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """Add the check to every notebook that stores a sweep."""
    report = yield
    if isinstance(collector, IPyNbFile) and report.passed:
        models = collector.nb.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
        if any("texts" in model["state"] for model in models.values()):
            report.result.append(StoredTables.from_parent(collector, name="sweeps' tables"))
    return report
