"""The command line: ``python -m onebit doctor``, ``bench``, ``reproduce`` and the exercises'."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from onebit import __version__, doctor
from onebit.checks import hint, places, progress
from onebit.experiments import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; without a command, show the usage.

    Parameters
    ----------
    arguments
        What stands after ``python -m onebit``; by default, what was typed there.

    Examples
    --------
    >>> main([])  # doctest: +ELLIPSIS
    usage: python -m onebit [-h] [--version]
    ...
    0
    """
    parser = argparse.ArgumentParser(
        prog="python -m onebit",
        description="Binary neural networks, one bit at a time.",
    )
    parser.add_argument("--version", action="version", version=f"onebit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command")
    check = commands.add_parser("doctor", help="check what this machine has, and tell the cures")
    check.set_defaults(run=lambda _: doctor.run())
    measure = commands.add_parser(
        "bench", help="time the kernels against their peers and the machine, some minutes long"
    )
    measure.add_argument("--quick", action="store_true", help="small shapes: does all run?")
    measure.add_argument("--json", metavar="FILE", help="write everything measured here")
    measure.add_argument("--svg", metavar="FILE", help="draw the roofline here")
    measure.add_argument(
        "--even-if-loaded", action="store_true", help="measure though others use the machine"
    )
    measure.set_defaults(run=_bench)
    again = commands.add_parser(
        "reproduce", help="measure the papers' tables again: list them, or train one"
    )
    command.add_arguments(again)
    again.set_defaults(run=command.reproduce)
    copied = commands.add_parser("exercises", help="copy the exercises to where you write answers")
    copied.set_defaults(run=lambda _: places.copy())
    helped = commands.add_parser("hint", help="show the next hint of an exercise's task")
    helped.add_argument("task", help="its id, such as 04.2")
    helped.set_defaults(run=_hint)
    shown = commands.add_parser("progress", help="list the exercises' tasks, passed and open")
    shown.set_defaults(run=_progress)
    chosen = parser.parse_args(arguments)
    if "run" not in chosen:
        parser.print_help()
        return 0
    return chosen.run(chosen)


def _bench(chosen: argparse.Namespace) -> int:
    """Run the benchmark where waiting threads sleep, so that none spins beside its successor."""
    if "OMP_WAIT_POLICY" not in os.environ:
        options = [f"--{name}" for name in ("quick", "even-if-loaded")
                   if getattr(chosen, name.replace("-", "_"))]  # fmt: skip
        options += [
            f"--{name}={file}" for name in ("json", "svg") if (file := getattr(chosen, name))
        ]
        # OpenMP reads the variable when torch loads it, which has happened here already.
        command = [sys.executable, "-m", "onebit", "bench", *options]
        return subprocess.call(command, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    from onebit import bench

    return bench.run(
        quick=chosen.quick,
        json_file=chosen.json,
        svg_file=chosen.svg,
        even_if_loaded=chosen.even_if_loaded,
    )


def _hint(chosen: argparse.Namespace) -> int:
    """Show one more hint."""
    try:
        hint(chosen.task)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _progress(_: argparse.Namespace) -> int:
    """List every task with its state."""
    print(progress())
    return 0


if __name__ == "__main__":
    sys.exit(main())
