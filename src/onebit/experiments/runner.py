"""Train one declared run: an epoch, a checkpoint, and so on, however often it is interrupted.

A checkpoint holds all that the next epoch depends on, the states of the random generators
included, so that a run that was killed goes on where it was and ends with the same result as one
that was not. Under ``torchrun`` each process takes its share of every batch; batch norm measures
the share, not the whole.
"""

import fcntl
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from onebit import __version__
from onebit.experiments.declare import Recipe, Run, resolve
from onebit.experiments.results import FORMAT, rates_file, read_result, result_file, weights_file
from onebit.language import BitNetRecipe
from onebit.optim import clip_after_step, glorot_rates

#: How many rates a search may add to a grid whose end is best.
FURTHER_RATES = 3


@dataclass(frozen=True)
class Processes:
    """The processes that share a run: several under ``torchrun``, otherwise one."""

    rank: int = 0
    size: int = 1

    def agree(self, value: Any) -> Any:
        """Give every process the first one's value."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Give every process the values of all."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the other processes that ``torchrun`` started, if it did, for a while."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    dist.init_process_group("gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def checkpoint_folder() -> Path:
    """Give the folder of checkpoints: $ONEBIT_CHECKPOINTS, or onebit/checkpoints in the cache."""
    if chosen := os.environ.get("ONEBIT_CHECKPOINTS"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "onebit" / "checkpoints"


class Training:
    """One network on its way: model, optimizer, generators and curve, after `done` epochs.

    Parameters
    ----------
    run, rate
        What is trained, and the learning rate that it starts with.
    device
        Where.
    group
        The processes that share the batches.
    """

    def __init__(self, run: Run, rate: float, device: torch.device, group: Processes) -> None:
        recipe = run.arm.recipe
        if recipe.batch_size % group.size:
            raise ValueError(
                f"{group.size} processes cannot share a batch of {recipe.batch_size} evenly; "
                "start a number of processes that divides it"
            )
        self.run, self.recipe, self.rate, self.device, self.group = run, recipe, rate, device, group
        self.task = resolve(recipe.data)(run.rows)
        self.task.to(device)
        torch.manual_seed(run.seed)
        network = run.arm.network
        model = resolve(network.builder)(**network.arguments)
        self.model: nn.Module = model.to(device, memory_format=torch.channels_last)
        if run.compiled:
            # Each size of batch apart: which sizes came first must not decide how sums are rounded.
            torch.compiler.reset()
            self.model.compile(dynamic=False)
        self.shared = (
            nn.parallel.DistributedDataParallel(self.model) if group.size > 1 else self.model
        )
        self.steps = max(1, self.task.rows // recipe.batch_size)
        self.bitnet: BitNetRecipe | None = None
        if recipe.optimizer == "bitnet":
            self.bitnet = BitNetRecipe(
                self.model, rate, run.epochs * self.steps, recipe.weight_decay
            )
        self.optimizer = self.bitnet.optimizer if self.bitnet else _optimizer(model, recipe, rate)
        if recipe.clip:
            clip_after_step(self.optimizer, self.model)
        # Orders are the same in every process and every arm; draws inside the network are not
        # the same in every process, or all would see the same dropout.
        self.orders = torch.Generator().manual_seed(run.seed)
        torch.manual_seed(run.seed + 1_000_003 * group.rank)
        self.curve: dict[str, list[float]] = {"loss": [], "validation": [], "test": [], "rate": []}
        self.best: dict[str, torch.Tensor] = {}
        self.wall = self.cpu = 0.0

    @property
    def done(self) -> int:
        """How many epochs are behind."""
        return len(self.curve["loss"])

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, whose validation metric is lowest; of equals the first."""
        return 1 + min(range(self.done), key=lambda i: _or_worst(self.curve["validation"][i]))

    def epoch(self, on_step: Any) -> None:
        """Train one epoch, and measure on the validation and test sets."""
        wall, cpu = time.perf_counter(), time.process_time()
        self.shared.train()
        total = 0.0
        size = self.recipe.batch_size
        for i, batch in enumerate(self.task.order(self.orders).split(size)[: self.steps]):
            self._set_rate(self.done * self.steps + i)
            share = batch[self.group.rank :: self.group.size].to(self.device)
            loss = self.task.loss(self.shared, share, self.recipe.loss)
            total += self._step(loss)
            on_step()
        loss_mean = sum(self.group.gather(total / self.steps)) / self.group.size
        # Running statistics are the first process's.
        scores = self.group.agree(
            {split: self.task.evaluate(self.model, split) for split in ("validation", "test")}
            if self.group.rank == 0
            else None
        )
        self.curve["loss"].append(round(loss_mean, 6))
        # The last group is that of the parameters without Glorot's factor.
        self.curve["rate"].append(float(f"{self.optimizer.param_groups[-1]['lr']:.6g}"))
        for split, score in scores.items():
            self.curve[split].append(round(score, 6))
        if self.best_epoch == self.done:
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu

    def _step(self, loss: torch.Tensor) -> float:
        if self.bitnet:
            return self.bitnet.step(loss)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _set_rate(self, step: int) -> None:
        if not self.bitnet:
            factor = self.recipe.final ** (step / (self.run.epochs * self.steps))
            for group in self.optimizer.param_groups:
                group["lr"] = group["first"] * factor

    def state(self) -> dict[str, Any]:
        """Give all that the next epoch depends on."""
        generators = {"cpu": torch.get_rng_state()}
        if self.device.type != "cpu":
            generators["device"] = torch.get_device_module(self.device).get_rng_state()
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "taken": self.bitnet.taken if self.bitnet else 0,
            "orders": self.orders.get_state(),
            "generators": self.group.gather(generators),
            "curve": self.curve,
            "best": self.best,
            "times": (self.wall, sum(self.group.gather(self.cpu))),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a state that `state` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.bitnet:
            self.bitnet.taken = state["taken"]
        self.orders.set_state(state["orders"])
        generators = state["generators"][self.group.rank]
        torch.set_rng_state(generators["cpu"])
        if self.device.type != "cpu":
            torch.get_device_module(self.device).set_rng_state(generators["device"])
        self.curve, self.best = state["curve"], state["best"]
        self.wall, cpu = state["times"]
        self.cpu = cpu if self.group.rank == 0 else 0.0


def _optimizer(model: nn.Module, recipe: Recipe, rate: float) -> torch.optim.Optimizer:
    """Build the optimizer, and note in each group the rate that it starts with."""
    groups = (
        glorot_rates(model, rate, power=recipe.glorot)
        if recipe.glorot
        else [{"params": list(model.parameters()), "lr": rate}]
    )
    optimizers = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    optimizer = optimizers[recipe.optimizer](groups, lr=rate, fused=True)
    for group in optimizer.param_groups:
        group["first"] = group["lr"]
    return optimizer


def train(
    run: Run, rate: float, epochs: int, device: torch.device, group: Processes, label: str
) -> tuple[Training, Path]:
    """Train to the given epoch from wherever the last attempt stopped.

    Returns
    -------
    training : Training
    checkpoint : Path
        Of its last epoch, for the caller to delete when the result is safe.
    """
    from tqdm.auto import tqdm

    training = Training(run, rate, device, group)
    place = f"{device.type}-{torch.get_num_threads()}x{group.size}-{torch.__version__}-{rate:g}"
    folder = checkpoint_folder() / run.table
    path = folder / f"{run.budget}-{run.arm.name}-{run.seed}-{run.digest}-{place}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    if group.agree(path.is_file()):
        # To the CPU, where generators keep their states; the rest is copied to its device.
        training.load(torch.load(path, map_location="cpu", weights_only=True))
    with tqdm(
        total=epochs * training.steps,
        initial=training.done * training.steps,
        desc=label,
        unit="step",
        mininterval=1,
        # None leaves it to TQDM_DISABLE.
        **({"disable": True} if group.rank else {}),
    ) as bar:
        while training.done < epochs:
            training.epoch(bar.update)
            state = training.state()
            if group.rank == 0:
                _replace(path, lambda new: torch.save(state, new))  # noqa: B023
            latest = training.curve["validation"][-1]
            bar.set_postfix_str(f"validation {latest:.4g} {run.unit}")
    return training, path


def _replace(path: Path, write: Any) -> None:
    """Write a file whole or not at all, whenever the process may be killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    write(new)
    new.replace(path)


@contextmanager
def _lock(name: str, group: Processes, wait: bool) -> Iterator[bool]:
    """Keep other processes of this user away from a run; yield whether it is ours."""
    path = checkpoint_folder() / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = True
    with path.open("w") as file:
        if group.rank == 0:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                mine = False
        mine = group.agree(mine)
        try:
            yield mine
        finally:
            if mine and group.rank == 0:
                # Whoever still waits on this file finds the result that it would make.
                path.unlink(missing_ok=True)


def execute(run: Run, device: str = "cpu", group: Processes = Processes()) -> Path | None:
    """Train a run to its end and store what came out; if that is there already, do nothing.

    Parameters
    ----------
    run
        What to train.
    device
        As torch names it.
    group
        The processes that share it.

    Returns
    -------
    Path or None
        The file of the result; None if another process is training this run.
    """
    path = result_file(run.table, run.budget, run.arm.name, run.seed)
    with _lock(f"{run.table}-{run.budget}-{run.arm.name}-{run.seed}", group, wait=False) as mine:
        if not mine:
            return None
        if group.agree(path.is_file()):
            return path
        rate = _rate(run, torch.device(device), group)
        content, best, checkpoint = _result(run, rate, torch.device(device), group)
        if group.rank == 0:
            if run.arm.keep and run.seed == 0:
                _store_weights(run, content, best)
            _replace(path, lambda new: new.write_text(_as_json(content), encoding="utf-8"))
            checkpoint.unlink()
        group.agree(None)  # nobody goes on before the file is there
    return path


def _result(
    run: Run, rate: float, device: torch.device, group: Processes
) -> tuple[dict[str, Any], dict[str, torch.Tensor], Path]:
    label = f"{run.table} {run.budget} {run.arm.name} {run.seed}"
    training, checkpoint = train(run, rate, run.epochs, device, group, label)
    training.model.load_state_dict(training.best)
    best = training.best_epoch - 1
    probes: dict[str, float] = {}
    if group.rank == 0:
        for probe in run.arm.probes:
            probes |= resolve(probe)(training.model, training.task)
    content = {
        "format": FORMAT,
        "run": run.as_data(),
        "outcome": {
            "value": training.curve["test"][best],
            "validation": training.curve["validation"][best],
            "epoch": best + 1,
            "rate": rate,
            "rows": training.task.rows,
            "probes": {name: round(value, 6) for name, value in probes.items()},
        },
        "curve": training.curve,
        "provenance": _provenance(run, training, sum(group.gather(training.cpu))),
    }
    return content, training.best, checkpoint


def _rate(run: Run, device: torch.device, group: Processes) -> float:
    """Give the declared rate, or the one that validation on the first seed chooses."""
    recipe = run.arm.recipe
    if recipe.rate is not None:
        return recipe.rate
    path = rates_file(run.table, run.budget, run.arm.name)
    with _lock(f"{run.table}-{run.budget}-{run.arm.name}-rates", group, wait=True):
        if not group.agree(path.is_file()):
            _search(replace(run, seed=0), path, device, group)
        return float(
            group.agree(
                json.loads(path.read_text(encoding="utf-8"))["chosen"] if group.rank == 0 else None
            )
        )


def rate_beyond(scores: Mapping[float, float], limit: int) -> float | None:
    """Give the rate to try next, where the best of those tried has no neighbour on one side.

    Parameters
    ----------
    scores
        The validation metric of every rate tried, less being better.
    limit
        So many rates are tried at most.

    Returns
    -------
    float or None
        As far from the best rate as that is from its other neighbour, in factors; None if the best
        has two neighbours, or nothing to be compared with, or there were enough.

    Examples
    --------
    >>> rate_beyond({0.1: 5.0, 0.2: 4.0, 0.4: 3.0}, limit=6)
    0.8
    >>> rate_beyond({0.1: 5.0, 0.2: 4.0, 0.4: 4.5}, limit=6) is None
    True
    """
    best = min(scores, key=scores.__getitem__)
    rates = sorted(scores)
    if len(rates) < 2 or len(rates) >= limit or best not in (rates[0], rates[-1]):
        return None
    neighbour = rates[1] if best == rates[0] else rates[-2]
    # Six digits, so that a file of results and a checkpoint name the same rate.
    return float(f"{best * best / neighbour:.6g}")


def _or_worst(score: float) -> float:
    """Give a training that diverged, whose score is no number, the worst of all."""
    return math.inf if math.isnan(score) else score


def _search(run: Run, path: Path, device: torch.device, group: Processes) -> None:
    """Train briefly at every rate of the grid, and store the curves and the choice."""
    tried: list[dict[str, Any]] = []
    scores: dict[float, float] = {}
    checkpoints = []
    rates = list(run.arm.recipe.rates)
    limit = len(rates) + FURTHER_RATES
    run = replace(run, rows=run.search_rows or run.rows)
    if run.arm.recipe.optimizer == "bitnet":
        # A rate that ends at zero is judged at its end.
        run = replace(run, epochs=run.search_epochs)
    for rate in rates:  # which grows while its best is at an end
        label = f"{run.table} {run.budget} {run.arm.name} at rate {rate:g}"
        last, checkpoint = train(run, rate, run.search_epochs, device, group, label)
        tried.append({"rate": rate, "curve": last.curve, "cpu_seconds": round(last.cpu, 1)})
        checkpoints.append(checkpoint)
        scores[rate] = min(map(_or_worst, last.curve["validation"]))
        if rate == rates[-1] and (further := rate_beyond(scores, limit)) is not None:
            rates.append(further)
    content = {
        "format": FORMAT,
        "run": run.as_data(),
        "chosen": min(scores, key=scores.__getitem__),
        "tried": tried,
        "provenance": _provenance(run, last, sum(entry["cpu_seconds"] for entry in tried)),
    }
    if group.rank == 0:
        _replace(path, lambda new: new.write_text(_as_json(content), encoding="utf-8"))
        for checkpoint in checkpoints:
            checkpoint.unlink()
    group.agree(None)


def _store_weights(run: Run, content: Mapping[str, Any], best: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save

    path = weights_file(run.table, run.budget, run.arm.name, run.seed)
    tensors = {name: t.cpu().contiguous() for name, t in best.items()}
    about = {
        "run": f"{run.table}/{run.budget}/{run.arm.name}-{run.seed}",
        run.metric: f"{content['outcome']['value']} {run.unit}",
    }
    packed = save(tensors, metadata=about)
    _replace(path, lambda new: new.write_bytes(packed))


def _provenance(run: Run, training: Training, cpu_seconds: float) -> dict[str, Any]:
    command = (
        f"python -m onebit reproduce {run.table} --budget {run.budget} --arm {run.arm.name} "
        f"--seed {run.seed} --device {training.device} --threads {torch.get_num_threads()}"
    )
    size = training.group.size
    return {
        "command": command if size == 1 else command.replace(
            "python", f"torchrun --nproc-per-node {size}", 1),
        "commit": _commit(),
        "versions": {
            "onebit": __version__,
            "torch": torch.__version__,
            "numpy": importlib.metadata.version("numpy"),
            "python": platform.python_version(),
        },
        "cpu": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": str(training.device),
        "threads": torch.get_num_threads(),
        "processes": size,
        "wall_seconds": round(training.wall, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip


def _processor() -> str:
    """Name the processor, by Linux's or else Python's word for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n")
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    """Name the commit of this tree, with a + where the package differs from it."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + (
            "+" if git("status", "-s", "-uno", "..") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _as_json(content: Mapping[str, Any]) -> str:
    """Write JSON with a line for each entry, and lists of numbers in one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    flat = re.sub(
        r"\[\s+([^\[\]{}\"]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text
    )
    return flat + "\n"


def repeat(path: Path) -> tuple[float, float]:
    """Train anew what a file of results declares, and give its value as stored and as found.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    stored = read_result(path)
    run = Run.from_data(stored["run"])
    device = torch.device(stored["provenance"]["device"])
    threads = torch.get_num_threads()
    torch.set_num_threads(stored["provenance"]["threads"])
    try:
        content, _, checkpoint = _result(run, stored["outcome"]["rate"], device, Processes())
    finally:
        torch.set_num_threads(threads)
    checkpoint.unlink()
    return stored["outcome"]["value"], content["outcome"]["value"]
