"""A session: refuse a loaded machine, measure everything, tell it, and keep it."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from onebit.bench.cases import measure_all
from onebit.bench.contest import handing_over
from onebit.bench.limits import ceilings_alone
from onebit.bench.machine import OTHERS_LIMIT, OtherLoad, cores, describe
from onebit.bench.report import print_end, table
from onebit.bench.roof import roofline
from onebit.bench.turns import QUICK, Effort


def run(
    *,
    quick: bool = False,
    json_file: str | os.PathLike[str] | None = None,
    svg_file: str | os.PathLike[str] | None = None,
    even_if_loaded: bool = False,
) -> int:
    """Measure, print a table for each case, and return the exit status: 1 on a loaded machine.

    Parameters
    ----------
    quick
        Small shapes and few rounds: proves that everything runs, measures nothing worth quoting.
    json_file
        Where to write everything measured, every turn included.
    svg_file
        Where to draw the roofline; skipped with a word where matplotlib is missing.
    even_if_loaded
        Measure although others use the machine's cores; the report says so.
    """
    before = OtherLoad()
    time.sleep(0.2 if quick else 1.0)
    load_before = before.cores()
    if load_before > OTHERS_LIMIT and not even_if_loaded:
        print(
            f"Other processes use {load_before:.2f} cores; more than {OTHERS_LIMIT:g} would decide "
            "what is measured. Stop them and run again, or measure all the same, which the report "
            "then tells, with --even-if-loaded.",
            file=sys.stderr,
        )
        return 1
    during, start = OtherLoad(), time.perf_counter()
    report: dict[str, Any] = {"machine": describe(), "quick": quick}
    print("{processor}, cores {cores}, kernel {kernel}".format_map(report["machine"]))
    report["ceilings"] = ceilings_alone(QUICK if quick else Effort())
    for threads, rates in report["ceilings"].items():
        told = ", ".join(f"{name} {rate:.4g}" for name, rate in rates.items())
        print(f"ceilings, threads {threads}, in thousand millions a second: {told or 'none'}")
    report["handing_over_seconds"] = handing_over(cores())
    print(
        f"to begin and end a call in {cores()} threads of Python takes "
        f"{report['handing_over_seconds'] * 1e6:.3g} µs"
    )
    report["results"], report["gaps"] = measure_all(
        quick, lambda records: print(table(records), flush=True)
    )
    report["load"] = {
        "other_cores_before": load_before,
        "other_cores_during": during.cores(),
        "limit": OTHERS_LIMIT,
        "even_if_loaded": even_if_loaded,
    }
    report["seconds"] = time.perf_counter() - start
    print_end(report)
    if json_file is not None:
        text = json.dumps(report, indent=1, ensure_ascii=False)
        Path(json_file).write_text(text + "\n", encoding="utf-8")
    if svg_file is not None:
        try:
            Path(svg_file).write_text(roofline(report) + "\n", encoding="utf-8")
        except (ImportError, ValueError) as error:
            print(f"no roofline drawn: {error}")
    return 0
