"""The command line: ``python -m onebit doctor``."""

import argparse
import sys
from collections.abc import Sequence

from onebit import __version__, doctor


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; without a command, show the usage.

    Parameters
    ----------
    arguments
        What stands after ``python -m onebit``; by default, what was typed there.

    Examples
    --------
    >>> main([])  # doctest: +ELLIPSIS
    usage: python -m onebit [-h] [--version] {doctor} ...
    ...
    0
    """
    parser = argparse.ArgumentParser(
        prog="python -m onebit",
        description="Binary neural networks, one bit at a time.",
    )
    parser.add_argument("--version", action="version", version=f"onebit {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="{doctor}")
    check = commands.add_parser("doctor", help="check what this machine has, and tell the cures")
    check.set_defaults(run=doctor.run)
    chosen = parser.parse_args(arguments)
    if "run" not in chosen:
        parser.print_help()
        return 0
    return chosen.run()


if __name__ == "__main__":
    sys.exit(main())
