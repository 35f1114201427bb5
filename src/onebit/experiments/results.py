"""What the long runs measured, read from ``results/`` with its provenance.

A run leaves one file, ``results/<table>/<budget>/<arm>-<seed>.json``:

``format``
    1, the version of this layout.
``run``
    The declaration (`onebit.experiments.declare.Run`), from which the run can be repeated.
``outcome``
    ``value``, the metric at the epoch with the best validation; ``epoch``, which that was;
    ``validation``, the metric there; ``rate``, the learning rate that the run started with;
    ``probes``, further measurements there, by name.
``curve``
    Lists with one entry an epoch: ``loss`` (mean over the training steps), ``validation`` and
    ``test`` (the metric on both sets), ``rate``.
``provenance``
    ``command``, ``commit`` (with a ``+`` where the tree had changes), ``versions``, ``cpu``,
    ``device``, ``threads``, ``processes``, ``wall_seconds``, ``cpu_seconds``, ``finished``.

Where validation chose the learning rate, ``results/<table>/<budget>/<arm>-rates.json`` holds the
curves of all rates tried. Stored weights lie in ``results/weights``.
"""

import difflib
import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from onebit.experiments.declare import Experiment
from onebit.facts import Table, _links, _source_lines, compare, fact

FORMAT = 1

#: The 97.5 % points of Student's t with 1, 2, … 9 degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def results_folder() -> Path:
    """Give the folder of stored results: $ONEBIT_RESULTS, or results/ of the clone."""
    chosen = os.environ.get("ONEBIT_RESULTS")
    return Path(chosen).expanduser() if chosen else Path(__file__).parents[3] / "results"


def result_file(table: str, budget: str, arm: str, seed: int) -> Path:
    """Name the file of one run."""
    return results_folder() / table / budget / f"{arm}-{seed}.json"


def rates_file(table: str, budget: str, arm: str) -> Path:
    """Name the file of an arm's search for a learning rate."""
    return results_folder() / table / budget / f"{arm}-rates.json"


def weights_file(table: str, budget: str, arm: str, seed: int) -> Path:
    """Name the file of one run's weights."""
    return results_folder() / "weights" / f"{table}-{budget}-{arm}-{seed}.safetensors"


@dataclass(frozen=True)
class Difference:
    """How much one arm lies above another, over runs paired by their seed.

    Attributes
    ----------
    mean
        Mean difference, in the metric's unit.
    low, high
        Its 95 % interval by Student's t; infinite where there is a single pair.
    pairs
        Number of seeds that both arms have.
    decimals
        Digits that it prints.
    """

    mean: float
    low: float
    high: float
    pairs: int
    decimals: int = 2

    @property
    def resolved(self) -> bool:
        """Whether the interval leaves out zero, so that the runs tell the two arms apart."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        mean, low, high = (
            f"{x:+.{self.decimals}f}".replace("-", "−") for x in (self.mean, self.low, self.high)
        )
        if self.pairs == 1:
            return f"{mean} (one pair)"
        return f"{mean} ({low} to {high})" + ("" if self.resolved else ", not resolved")


@dataclass(frozen=True)
class Measured:
    """What the runs of one table measured, on one budget.

    Made by `measured`. All numbers come from files in ``results/``.

    Attributes
    ----------
    table, budget
        ``"xnor-fashion"``, ``"book"``.
    metric, unit
        ``"test error"``, ``"%"``.
    decimals
        Digits that `write` prints.
    labels
        What readers call each arm, by its name, in the order of the table.
    runs
        The content of each file, by arm and seed.
    """

    table: str
    budget: str
    metric: str
    unit: str
    decimals: int
    labels: Mapping[str, str]
    runs: Mapping[tuple[str, int], Mapping[str, Any]]

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms that have runs, in the order of the table."""
        return tuple(self.labels)

    def run(self, arm: str, seed: int = 0) -> Mapping[str, Any]:
        """Return the whole content of one run's file.

        Raises
        ------
        KeyError
            If there is no such run; the message names those that are there.
        """
        self._check(arm)
        if (arm, seed) not in self.runs:
            raise KeyError(f"{arm!r} has no run from seed {seed}; it has: {self.seeds(arm)}")
        return self.runs[arm, seed]

    def seeds(self, arm: str) -> list[int]:
        """Return the seeds that an arm was run from."""
        self._check(arm)
        return [seed for name, seed in self.runs if name == arm]

    def values(self, arm: str, probe: str | None = None) -> list[float]:
        """Return one value a seed: the metric at the best validation epoch, or a probe there.

        Parameters
        ----------
        arm : str
        probe : str, optional
            A further measurement of these runs, such as ``"signs, recalibrated"``.

        Raises
        ------
        KeyError
            If there is no such arm or probe.
        """
        outcomes = [self.run(arm, seed)["outcome"] for seed in self.seeds(arm)]
        if probe is None:
            return [outcome["value"] for outcome in outcomes]
        for outcome in outcomes:
            if probe not in outcome["probes"]:
                raise KeyError(f"{arm!r} has no probe {probe!r}; it has: {[*outcome['probes']]}")
        return [outcome["probes"][probe] for outcome in outcomes]

    def mean(self, arm: str, probe: str | None = None) -> float:
        """Return the mean over seeds."""
        return statistics.fmean(self.values(arm, probe))

    def write(self, arm: str, probe: str | None = None) -> str:
        """Print an arm as the papers do: mean ± standard deviation over seeds, with the unit.

        A single seed prints without ±.
        """
        values = self.values(arm, probe)
        text = f"{statistics.fmean(values):.{self.decimals}f}"
        if len(values) > 1:
            text += f" ± {statistics.stdev(values):.{self.decimals}f}"
        return f"{text} {self.unit}".rstrip()

    def curve(self, arm: str, seed: int = 0) -> Mapping[str, list[float]]:
        """Return the lists ``loss``, ``validation``, ``test`` and ``rate``, one entry an epoch."""
        curve: Mapping[str, list[float]] = self.run(arm, seed)["curve"]
        return curve

    def difference(self, arm: str, other: str) -> Difference:
        """Return how much `arm` lies above `other`, paired by seed.

        Runs from the same seed begin with the same draws and see the same order of examples.

        Raises
        ------
        ValueError
            If the two arms share no seed.
        """
        return self._over_seeds(self._gaps(arm, other))

    def trend(self, pairs: Mapping[int, tuple[str, str]]) -> Difference:
        """Return by how much the difference of two arms changes when their size doubles.

        For each seed a straight line is fitted, by least squares, through the differences over the
        logarithm of the size; over the seeds' slopes the mean and the interval are taken. Below
        zero, the gap closes with size.

        Parameters
        ----------
        pairs
            For each size the arm and the other.

        Raises
        ------
        ValueError
            If there are fewer than two sizes, or no seed has runs of all.

        Examples
        --------
        >>> pairs = {n: (f"mnist-binary-{n}", f"mnist-float-{n}") for n in (32, 64, 128)}
        >>> closing = measured("width", "book").trend(pairs)
        >>> closing.mean < 0 and closing.resolved
        True
        """
        if len(pairs) < 2:
            raise ValueError(f"pairs: a trend takes two sizes or more, got {[*pairs]}")
        gaps = [self._gaps(arm, other) for arm, other in pairs.values()]
        seeds = [seed for seed in gaps[0] if all(seed in others for others in gaps)]
        if not seeds:
            raise ValueError(f"no seed has runs of all of {[*pairs.values()]}")
        doublings = [math.log2(size) for size in pairs]
        return self._over_seeds(
            {
                seed: statistics.linear_regression(doublings, [gap[seed] for gap in gaps]).slope
                for seed in seeds
            }
        )

    def _gaps(self, arm: str, other: str) -> dict[int, float]:
        """Give for each seed that both arms have how much the first lies above the second."""
        seeds = [seed for seed in self.seeds(arm) if seed in self.seeds(other)]
        if not seeds:
            raise ValueError(f"{arm!r} and {other!r} have no seed in common, so no pairs")
        return {
            s: self.run(arm, s)["outcome"]["value"] - self.run(other, s)["outcome"]["value"]
            for s in seeds
        }

    def _over_seeds(self, gaps: Mapping[int, float]) -> Difference:
        """Give the mean of one value a seed with its interval."""
        found = [*gaps.values()]
        mean, pairs = statistics.fmean(found), len(found)
        if pairs == 1:
            return Difference(mean, -math.inf, math.inf, 1, self.decimals)
        t = _STUDENT[min(pairs - 2, len(_STUDENT) - 1)]
        half = t * statistics.stdev(found) / math.sqrt(pairs)
        return Difference(mean, mean - half, mean + half, pairs, self.decimals)

    def weights(self, arm: str, seed: int = 0) -> dict[str, Tensor]:
        """Return the stored weights of one run, for the `load_state_dict` of its network.

        `build` gives that network.

        Raises
        ------
        FileNotFoundError
            If the run's weights were not kept.
        """
        from safetensors.torch import load_file

        self.run(arm, seed)
        path = weights_file(self.table, self.budget, arm, seed)
        if not path.is_file():
            kept = [name for name, s in self.runs
                    if weights_file(self.table, self.budget, name, s).is_file()]  # fmt: skip
            raise FileNotFoundError(f"{path.name} was not kept; weights are there for: {kept}")
        return load_file(path)

    def build(self, arm: str) -> Any:
        """Return an arm's network, newly drawn, as the runs built it."""
        from onebit.experiments.declare import Run, resolve

        network = Run.from_data(self.run(arm, self.seeds(arm)[0])["run"]).arm.network
        return resolve(network.builder)(**network.arguments)

    def provenance(self, *arms: str) -> str:
        """Say how the numbers came about: budget, epochs, seeds, machine and time.

        Parameters
        ----------
        arms
            Names of the arms meant; all by default.
        """
        chosen = arms or self.arms
        found = [self.run(arm, seed) for arm in chosen for seed in self.seeds(arm)]
        rows = sorted({run["outcome"]["rows"] for run in found})
        seconds = [run["provenance"]["cpu_seconds"] for run in found]
        times = (
            _span([round(s) for s in seconds], "CPU second")
            if max(seconds) < 120
            else _span([round(s / 60) for s in seconds], "CPU minute")
        )
        machines = sorted({_machine(run["provenance"]) for run in found})
        return (
            f"budget “{self.budget}”, "
            f"{_span([len(run['curve']['loss']) for run in found], 'epoch')} of "
            f"{_span(rows, 'example')}, {_span([len(self.seeds(arm)) for arm in chosen], 'seed')}; "
            f"{' and '.join(machines)}; "
            f"{times} a run"
        )

    def as_table(self, *arms: str) -> Table:
        """Return a table of the measured arms, with the provenance in its caption.

        Parameters
        ----------
        arms
            Names of the arms to show, in this order; all by default.
        """
        chosen = arms or self.arms
        rows = [(self.labels[arm], self.write(arm), str(len(self.seeds(arm)))) for arm in chosen]
        return Table(
            headings=("", self.metric, "seeds"),
            rows=tuple(rows),
            caption=(f"Measured: {self.provenance(*chosen)}.",),
        )

    def late_gain(self, arm: str, last: float = 0.5) -> float:
        """Return by how much the best validation metric fell in the last part of the epochs.

        In the metric's unit, as a mean over seeds; never negative. A run laid out for half the
        epochs lowers its rate sooner and loses less than the second half brings, so that is more
        than a doubling has brought, and what a further doubling would bring is likely to be less.

        Parameters
        ----------
        arm
            Name of the arm.
        last
            The part of the epochs, between 0 and 1: 0.5 is the second half, 0.25 the last quarter.

        Raises
        ------
        KeyError
            If no run of the arm is stored.
        ValueError
            If ``last`` is no part of the epochs.

        Examples
        --------
        >>> binarynet = measured("binarynet-mnist", "book")
        >>> round(binarynet.late_gain("1024"), 2), round(binarynet.late_gain("1024", 0.25), 2)
        (0.12, 0.01)
        """
        if not 0 < last < 1:
            raise ValueError(
                f"last is {last}; it is a part of the epochs, between 0 and 1, such as 0.25"
            )
        falls = []
        for seed in self.seeds(arm):
            validation = self.curve(arm, seed)["validation"]
            before = len(validation) - math.floor(len(validation) * last)
            falls.append(min(validation[:before]) - min(validation))
        return statistics.fmean(falls)

    def compare(self, rows: Sequence[tuple[str, str | None, str]], *, what: str) -> Table:
        """Set what a paper reports beside what these runs measured, and say what differs.

        Parameters
        ----------
        rows
            One ``(arm, key, why)`` a line: the ledger's key of the reported figure, or None where
            nothing was reported, and in words in what the two differ. An arm that has no run yet
            keeps its line.
        what
            What both columns hold, as in `onebit.facts.compare`.
        """
        there = [arm for arm, _, _ in rows if arm in self.labels]
        table = compare(
            [
                (self._label(arm), key, self.write(arm) if arm in there else None)
                for arm, key, _ in rows
            ],
            what=what,
            measured=self.provenance(*there),
        )
        further = [
            (str(len(self.seeds(arm))) if arm in there else "0", why) for arm, _, why in rows
        ]
        return replace(
            table,
            headings=(*table.headings, "seeds", "what differs"),
            rows=tuple((*row, *more) for row, more in zip(table.rows, further, strict=True)),
            remarks=True,
        )

    def effects(
        self, rows: Sequence[tuple[str, str, str, tuple[str, str] | None, str]], *, what: str
    ) -> Table:
        """Set the differences between a paper's rows beside differences of these runs, in pairs.

        Parameters
        ----------
        rows
            One ``(label, arm, other, keys, why)`` a line: how much `arm` lies above `other`, where
            the paper has the accuracy of the first of ``keys`` against that of the second, or
            nothing; and in words in what the two differ. An arm without runs keeps its line.
        what
            What both columns hold, as in `onebit.facts.compare`.
        """
        lines, quoted = [], []
        there = set()
        for label, arm, other, keys, why in rows:
            reported = measured = "–"
            if keys:
                worse, better = map(fact, keys)
                quoted += [worse, better]
                reported = f"{better.value - worse.value:+.1f}".replace("-", "−")
            if {arm, other} <= set(self.labels):
                there |= {arm, other}
                measured = str(self.difference(arm, other))
            lines.append((label, reported, measured, why))
        arms = [arm for arm in self.arms if arm in there]
        return Table(
            headings=("", "reported", "measured here", "what differs"),
            rows=tuple(lines),
            caption=(
                f"{what[:1].upper()}{what[1:]}.",
                *_source_lines(quoted, "Reported"),
                f"Measured: {self.provenance(*arms)}.",
            ),
            links=_links(quoted),
            remarks=True,
        )

    def _label(self, arm: str) -> str:
        from onebit.experiments import experiment

        names = {a.name: a.label for a in experiment(self.table).arms}
        if arm not in names:
            raise KeyError(_no_such(f"arm of {self.table}", arm, [*names]))
        return names[arm]

    def _check(self, arm: str) -> None:
        if arm not in self.labels:
            raise KeyError(_no_such(f"measured arm of {self.table}", arm, self.arms))


def measured(table: str, budget: str | None = None) -> Measured:
    """Read what the runs of one table measured.

    Parameters
    ----------
    table : str
        As ``make reproduce`` lists it, such as ``"xnor-fashion"``.
    budget : str, optional
        ``"short"``, ``"book"``, ``"paper"``. By default the largest of them whose runs are all
        there, and if none is complete, the one with most runs.

    Raises
    ------
    KeyError
        If no experiment has that name, or it has no such budget.
    FileNotFoundError
        If there are no results.

    Examples
    --------
    >>> ablations = measured("xnor-fashion")
    >>> ablations.metric, ablations.arms[:3]
    ('test error', ('float', 'float-cbap', 'bwn'))
    >>> ablations.mean("xnor") > ablations.mean("float")
    True
    """
    from onebit.experiments import experiment

    declared = experiment(table)
    if budget is not None:
        declared.budget(budget)
    names = [budget] if budget else [b.name for b in declared.budgets if b.name != "smoke"]
    stored = {name: _read(declared, name) for name in names}
    complete = [n for n in names if stored[n] and len(stored[n]) == len(list(declared.runs(n)))]
    chosen = complete[-1] if complete else max(names, key=lambda name: len(stored[name]))
    if not stored[chosen]:
        raise FileNotFoundError(
            f"no results of {table} ({', '.join(names)}) in {results_folder()}; run "
            f"`make reproduce TABLE={table}` in a clone of the course, or set ONEBIT_RESULTS to "
            "the clone's folder results"
        )
    present = {arm for arm, _ in stored[chosen]}
    return Measured(
        table=table,
        budget=chosen,
        metric=declared.metric,
        unit=declared.unit,
        decimals=declared.decimals,
        labels={arm.name: arm.label for arm in declared.arms if arm.name in present},
        runs=stored[chosen],
    )


def _read(declared: Experiment, budget: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Read the files of a budget's runs, in the order of the declaration."""
    found = {}
    for arm in declared.arms_of(budget):
        for seed in range(declared.budget(budget).seeds):
            path = result_file(declared.name, budget, arm.name, seed)
            if path.is_file():
                found[arm.name, seed] = read_result(path)
    return found


def read_result(path: Path) -> Mapping[str, Any]:
    """Read the file of one run.

    Raises
    ------
    ValueError
        If it is damaged, or written by another version of the format.
    """
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}; restore it, or run it again") from error
    found = content.get("format") if isinstance(content, Mapping) else None
    if found != FORMAT:
        raise ValueError(f"{path} has format {found!r}, want {FORMAT}")
    return content


def _machine(provenance: Mapping[str, Any]) -> str:
    where = provenance["cpu"] if provenance["device"] == "cpu" else provenance["device"]
    processes = provenance["processes"]
    each = f"{provenance['threads']} thread" + ("" if provenance["threads"] == 1 else "s")
    return f"{where}, {each}" + ("" if processes == 1 else f" in each of {processes} processes")


def _span(numbers: Sequence[int], unit: str) -> str:
    low, high = min(numbers), max(numbers)
    text = _thousands(low) if low == high else f"{_thousands(low)} to {_thousands(high)}"
    return f"{text} {unit}" + ("" if high == 1 else "s")


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", " ") if number >= 1000 else str(number)


def _no_such(kind: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=4, cutoff=0.4)
    return f"there is no {kind} {name!r}; near it: {', '.join(near or known)}"
