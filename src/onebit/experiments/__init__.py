"""The papers' tables, measured again: what ``make reproduce`` runs, and what came out."""

from onebit.experiments.declare import Experiment
from onebit.experiments.results import Difference, Measured, _no_such, measured

__all__ = ["Difference", "Experiment", "Measured", "experiment", "experiments", "measured"]


def experiments() -> dict[str, Experiment]:
    """Return every declared table, by the name that ``make reproduce TABLE=…`` takes.

    Examples
    --------
    >>> "xnor-fashion" in experiments()
    True
    """
    from onebit.experiments import (
        binaryconnect_mnist,
        binarynet_mnist,
        bitnet_shakespeare,
        width,
        xnor_fashion,
    )

    files = (binaryconnect_mnist, binarynet_mnist, xnor_fashion, bitnet_shakespeare, width)
    return {file.TABLE.name: file.TABLE for file in files}


def experiment(name: str) -> Experiment:
    """Return one declared table.

    Raises
    ------
    KeyError
        If there is none of that name; the message gives the nearest ones.

    Examples
    --------
    >>> experiment("xnor-fashion").unit
    '%'
    """
    known = experiments()
    if name not in known:
        raise KeyError(_no_such("table", name, list(known)))
    return known[name]
