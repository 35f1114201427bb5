"""An experiment as data: which networks, trained how, how long, from which seeds."""

import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How a network is trained, but for the length of it.

    Attributes
    ----------
    data
        ``"module:function"`` that returns the task: the data, the loss and the metric.
    optimizer
        ``"sgd"`` (without momentum), ``"adam"``, or ``"bitnet"``, which is
        `onebit.language.BitNetRecipe`: AdamW with a two-stage learning rate.
    rate
        Learning rate at the start; None where validation chooses it among `rates`.
    rates
        The rates to choose from, rising. Each trains for the budget's `search_epochs` on the first
        seed, and the one with the lowest validation metric trains all seeds. If that is the lowest
        or the highest of them, further rates are tried on its side, by the same factor.
    final
        The rate at the end over that at the start. In between it falls exponentially, step by
        step. (``"bitnet"`` has its own schedule.)
    batch_size
        Examples a step, over all processes.
    loss
        ``"squared_hinge"`` or ``"cross_entropy"``, for images.
    glorot
        Power of Glorot's coefficients that multiplies the rate of quantised weights: 0 none, 1 for
        Adam, 2 for SGD.
    clip
        Whether latent weights are clipped to [−1, 1] after each step.
    weight_decay
        For ``"bitnet"``, in the first half of training.
    """

    data: str
    optimizer: str
    rate: float | None
    rates: tuple[float, ...] = ()
    final: float = 1e-3
    batch_size: int = 100
    loss: str = "squared_hinge"
    glorot: int = 0
    clip: bool = False
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Network:
    """A network as the function that builds it, ``"module:function"``, and its arguments."""

    builder: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """How long each arm trains, and from how many seeds, counted from 0.

    Attributes
    ----------
    name
        ``"smoke"`` shows that all runs, ``"short"`` is a first result of a minute or two a run,
        ``"book"`` is what the book wants, ``"paper"`` the original's.
    epochs, seeds
    rows
        Training examples used; None is all.
    search_epochs, search_rows
        Epochs, and training examples, for each rate that validation chooses from.
    arms
        Names of the arms to train; None is all.
    compiled
        Whether ``torch.compile`` joins the network's small operations, which takes a C++ compiler,
        and a minute or two once for each arm. The small Transformers then train nearly twice as
        fast, the image networks hardly faster or slower. Sums are rounded otherwise.
    """

    name: str
    epochs: int
    seeds: int
    rows: int | None = None
    search_epochs: int = 1
    search_rows: int | None = None
    arms: tuple[str, ...] | None = None
    compiled: bool = False


@dataclass(frozen=True)
class Arm:
    """One row of a table: a network, and how it is trained.

    Attributes
    ----------
    name, label
        For programs, and for readers.
    network, recipe
    probes
        ``"module:function"`` of each further measurement at the best epoch; each takes model and
        task, and returns names and numbers.
    keep
        Whether the first seed's weights are stored in ``results/weights``.
    seeds
        At most so many seeds, whatever the budget; None is as many as it has.
    """

    name: str
    label: str
    network: Network
    recipe: Recipe
    probes: tuple[str, ...] = ()
    keep: bool = False
    seeds: int | None = None


@dataclass(frozen=True)
class Run:
    """One training: everything that decides its result on a given machine.

    `epochs` is what the schedule is laid out for; a search for a rate stops earlier.
    """

    table: str
    budget: str
    arm: Arm
    seed: int
    epochs: int
    rows: int | None
    search_epochs: int
    metric: str
    unit: str
    search_rows: int | None = None
    compiled: bool = False

    def as_data(self) -> dict[str, Any]:
        """Give the run as dictionaries, lists, numbers and words, for a JSON file."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Run":
        """Rebuild the run that `as_data` wrote down."""
        arm = data["arm"]
        recipe = Recipe(**{**arm["recipe"], "rates": tuple(arm["recipe"]["rates"])})
        rebuilt = Arm(
            **{
                **arm,
                "network": Network(**arm["network"]),
                "recipe": recipe,
                "probes": tuple(arm["probes"]),
            }
        )
        return cls(**{**data, "arm": rebuilt})

    @property
    def digest(self) -> str:
        """Name the run by its content, so that no checkpoint of another is taken for its own."""
        text = json.dumps(self.as_data(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Experiment:
    """A table to measure: its arms, its budgets, and what is measured.

    Attributes
    ----------
    name
        As ``make reproduce TABLE=…`` takes it.
    about
        One line for the list.
    metric, unit
        What the arms are compared by, less being better: ``"test error"`` in ``"%"``.
    decimals
        Digits that `onebit.experiments.Measured` prints.
    arms, budgets
    """

    name: str
    about: str
    metric: str
    unit: str
    decimals: int
    arms: tuple[Arm, ...]
    budgets: tuple[Budget, ...]

    def budget(self, name: str) -> Budget:
        """Give the budget of that name.

        Raises
        ------
        KeyError
            If the table declares none.
        """
        for budget in self.budgets:
            if budget.name == name:
                return budget
        raise KeyError(
            f"{self.name} has no budget {name!r}; it has: {', '.join(b.name for b in self.budgets)}"
        )

    def arms_of(self, budget: str) -> tuple[Arm, ...]:
        """Give the arms that a budget trains, in the order of the table."""
        chosen = self.budget(budget).arms
        return tuple(arm for arm in self.arms if chosen is None or arm.name in chosen)

    def runs(self, budget: str) -> Iterator[Run]:
        """Yield a budget's runs: every arm from the first seed, then from the next."""
        plan = self.budget(budget)
        for seed in range(plan.seeds):
            for arm in self.arms_of(budget):
                if arm.seeds is None or seed < arm.seeds:
                    yield Run(
                        self.name, budget, arm, seed, plan.epochs, plan.rows, plan.search_epochs,
                        self.metric, self.unit, plan.search_rows, plan.compiled,
                    )  # fmt: skip


def resolve(name: str) -> Any:
    """Import what ``"module:function"`` names, from this package only.

    Raises
    ------
    ValueError
        If the module is not part of the package: a file of results must not run other code.

    Examples
    --------
    >>> resolve("onebit.training:squared_hinge").__name__
    'squared_hinge'
    """
    module, _, short = name.partition(":")
    if module.split(".")[0] != "onebit":
        raise ValueError(f"only functions of onebit can be named in a run, got {name!r}")
    return getattr(importlib.import_module(module), short)
