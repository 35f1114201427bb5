"""``python -m onebit reproduce``: list the tables with their cost, or run one."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onebit.experiments import experiment, experiments
from onebit.experiments.declare import Experiment, Run
from onebit.experiments.results import read_result, result_file, results_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what may stand behind ``reproduce``."""
    parser.add_argument("table", nargs="?", help="the table to run; without one, list them all")
    parser.add_argument("--budget", help="smoke, short, book (by default) or paper")
    parser.add_argument("--arm", action="append", help="only this arm; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="only this seed; likewise")
    parser.add_argument("--device", default="cpu", help="where to train (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (default: 1)")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="train a stored run anew and compare"
    )


def reproduce(chosen: argparse.Namespace) -> int:
    """Do what was asked for, and return the exit status."""
    if chosen.again:
        return _again(chosen.again)
    if chosen.table is None:
        print(listing())
        return 0
    try:
        runs = _choose(experiment(chosen.table), chosen)
    except KeyError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    return _execute(runs, chosen)


def _choose(table: Experiment, chosen: argparse.Namespace) -> list[Run]:
    """Give the runs that were asked for."""
    budget = chosen.budget or "book"
    runs = list(table.runs(budget))
    for arm in chosen.arm or ():
        if arm not in {run.arm.name for run in runs}:
            known = ", ".join(a.name for a in table.arms_of(budget))
            raise KeyError(f"{table.name} has no arm {arm!r} on budget {budget}; it has: {known}")
    seeds = chosen.seed or range(table.budget(budget).seeds)
    if unknown := set(seeds) - {run.seed for run in runs}:
        raise KeyError(f"budget {budget} has {table.budget(budget).seeds} seeds, from 0; "
                       f"not: {', '.join(map(str, sorted(unknown)))}")  # fmt: skip
    return [r for r in runs if r.seed in seeds and (not chosen.arm or r.arm.name in chosen.arm)]


def _execute(runs: list[Run], chosen: argparse.Namespace) -> int:
    import torch

    from onebit.experiments.runner import execute, processes

    torch.set_num_threads(chosen.threads)
    with processes() as group:
        for run in runs:
            path = execute(run, chosen.device, group)
            if group.rank:
                continue
            name = f"{run.table} {run.budget} {run.arm.name} {run.seed}"
            if path is None:
                print(f"{name}: another process is at it", flush=True)
                continue
            value = f"{read_result(path)['outcome']['value']:.{experiment(run.table).decimals}f}"
            print(f"{name}: {run.metric} {value} {run.unit}".rstrip(), flush=True)
    return 0


def _again(path: Path) -> int:
    from onebit.experiments.runner import repeat

    reason = "no stored run"
    try:
        run = read_result(path)
    except (OSError, ValueError) as error:
        run, reason = {}, str(error)
    if "outcome" not in run:
        example = results_folder() / "width" / "book" / "mnist-float-16-0.json"
        print(f"--again {path}: {reason}; it takes the file of one run, such as {example}",
              file=sys.stderr)  # fmt: skip
        return 2
    stored, found = repeat(path)
    same = stored == found
    print(f"stored {stored}, trained anew {found}: {'the same' if same else 'not the same'}")
    if not same:
        print("Float32 training gives the same figure only on the same kind of processor, with "
              f"the same versions; this run's: {run['provenance']}")  # fmt: skip
    return 0 if same else 1


def listing() -> str:
    """Say of every table and budget what is there and what the rest costs.

    The cost comes from the stored runs: processor time an example, of the same arm on any budget.
    """
    lines = []
    for table in experiments().values():
        lines += [f"{table.name}: {table.about}"]
        for budget in table.budgets:
            runs = list(table.runs(budget.name))
            left = [r for r in runs if not _file(r).is_file()]
            hours, left_hours = _hours(table, runs), _hours(table, left)
            lines.append(
                f"  {budget.name:<6}{len(table.arms_of(budget.name)):>3} arms ×{budget.seeds:>2} "
                f"seeds, {budget.epochs:>4} epochs: {len(runs) - len(left):>3} of {len(runs):>3} "
                f"runs there; all cost {hours}, the rest {left_hours}"
            )
    lines += [
        "",
        f"Results are in {results_folder()}.",
        "make reproduce TABLE=xnor-fashion [BUDGET=smoke|short|book|paper] runs one, book by "
        "default; started twice, two processes share it.",
    ]
    return "\n".join(lines)


def _file(run: Run) -> Path:
    return result_file(run.table, run.budget, run.arm.name, run.seed)


def _hours(table: Experiment, runs: list[Run]) -> str:
    """Estimate the processor time of runs, search for rates included, where we can."""
    seconds = {arm.name: _seconds_an_example(table, arm.name) for arm in table.arms}
    total, untimed = 0.0, False
    for run in runs:
        each = seconds[run.arm.name]
        if each is None:
            untimed = True
            continue
        rows = run.rows or _rows(table, run.arm.name)
        examples = run.epochs * rows
        if run.seed == 0 and run.arm.recipe.rate is None:
            examples += run.search_epochs * len(run.arm.recipe.rates) * (run.search_rows or rows)
        total += each * examples
    if untimed:
        # Arms that never ran have no known cost.
        return f"over {total / 3600:.1f} core-hours" if total else "? core-hours"
    return f"{total / 3600:.1f} core-hours"


def _stored(table: Experiment, arm: str) -> list[Mapping[str, Any]]:
    return [
        read_result(path)
        for budget in table.budgets
        if budget.name != "smoke"
        for seed in range(budget.seeds)
        if (path := result_file(table.name, budget.name, arm, seed)).is_file()
    ]


def _rows(table: Experiment, arm: str) -> int:
    """Give the training examples that stored runs of an arm used at most."""
    return max(run["outcome"]["rows"] for run in _stored(table, arm))


def _seconds_an_example(table: Experiment, arm: str) -> float | None:
    """Give the least processor time an example that a stored run of this arm took."""
    found = [
        run["provenance"]["cpu_seconds"] / (len(run["curve"]["loss"]) * run["outcome"]["rows"])
        for run in _stored(table, arm)
    ]
    return min(found, default=None)
