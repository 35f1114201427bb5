"""Checks of the exercises, hints and progress: `check` in a notebook, `pytest exercises` elsewhere.

The checks of a file stand in the module of its name. They know the answers by closed forms, by
trying all small cases, or from torch itself, and never from the solutions.
"""

from onebit.checks.hints import hint
from onebit.checks.judge import CheckFailed, NotWrittenYet, check
from onebit.checks.logbook import Progress, progress

__all__ = ["CheckFailed", "NotWrittenYet", "Progress", "check", "hint", "progress"]
