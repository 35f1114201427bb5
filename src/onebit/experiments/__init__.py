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
    from onebit.experiments import xnor_fashion

    return {table.name: table for table in (xnor_fashion.TABLE,)}


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
