"""Checks of chapter 5's exercises: flips, widths, activations of few bits, and Bop."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, tensor

from onebit.checks.digits import fit, network
from onebit.checks.tasks import Case, Exercise, gradient

EXERCISE = Exercise(__name__)

SEEDS = (0, 1, 2)

# ---- ch05.1 ----------------------------------------------------------------------------------

flips = EXERCISE.task("ch05.1", "The share that flipped", "flip_ratio")


@flips.check
def changes_of_sign_count(flip_ratio: Any) -> None:
    """A weight counts if its sign changed, and not if only its size did."""
    for before, after, wanted in (
        ([1.0], [-1.0], 1.0),
        ([0.5, -0.5], [0.4, -0.6], 0.0),
        ([0.5, -0.5, 0.3, 0.2], [0.4, 0.1, 0.3, 0.1], 0.25),
    ):
        case = Case(before=[before], after=[after])
        a, b = tensor(before), tensor(after)
        changed = (a != b).sum().item()
        case.expect(
            flip_ratio([a], [b]), wanted, within=1e-9, cause="Compare signs, and divide by all.",
            mistakes={
                "All weights that changed were counted; a flip is a change of sign.":
                    changed / len(before),
                "The flips were divided by the weights that changed; divide by all weights.":
                    wanted * len(before) / max(changed, 1),
                "These are per cent; a share is wanted.": 100 * wanted,
                "The flips were not divided by the number of weights.": wanted * len(before),
                "The share that kept its sign came.": 1 - wanted,
            },
        )  # fmt: skip


@flips.check
def zero_is_on_the_positive_side(flip_ratio: Any) -> None:
    """Zero is positive: from it to a positive weight nothing flips, to a negative one it does."""
    for before, after, wanted in ((0.0, 0.5, 0.0), (0.5, 0.0, 0.0), (0.0, -0.5, 1.0)):
        case = Case(before=[[before]], after=[[after]])
        case.expect(
            flip_ratio([tensor([before])], [tensor([after])]), wanted, within=1e-9,
            cause="torch.sign(0) is 0, a third value, and a product with 0 is never negative: "
            "compare w >= 0 with w >= 0.",
        )  # fmt: skip


@flips.check
def layers_count_by_their_weights(flip_ratio: Any) -> None:
    """Over several layers, it is the share of all their weights."""
    before = [torch.ones(1, 1), torch.ones(1, 3)]
    after = [-torch.ones(1, 1), torch.ones(1, 3)]
    case = Case(before=before, after=after)
    case.expect(
        flip_ratio(before, after), 0.25, within=1e-9, cause="One weight of four has flipped.",
        mistakes={
            "The ratios of the layers were averaged, so that a small layer counts as much as a "
            "large one: add up flips and weights, and divide once.": 0.5,
            "The ratios of the layers were added up.": 1.0,
            "Only the last layer was counted.": 0.0,
        },
    )  # fmt: skip


# ---- ch05.2 ----------------------------------------------------------------------------------

gap = EXERCISE.task("ch05.2", "A gap in width", "width_for")


@gap.check
def measured_widths_come_back(width_for: Any) -> None:
    """For an error that was measured, its width comes."""
    errors = {8: 40.0, 16: 30.0, 32: 25.0}
    for n, error in errors.items():
        case = Case(errors=str(errors), target=error)
        case.expect(
            float(width_for(errors, error)), float(n), within=1e-6,
            cause="At a measured error there is nothing to interpolate.",
        )  # fmt: skip


@gap.check
def between_widths_it_is_a_line_in_the_logarithm(width_for: Any) -> None:
    """Between two widths, the error is a straight line in the logarithm of the width."""
    for errors, target in (
        ({8: 40.0, 32: 20.0}, 30.0),
        ({8: 40.0, 32: 20.0}, 25.0),
        ({8: 40.0, 16: 30.0, 64: 26.0}, 28.0),
    ):
        pairs = itertools.pairwise(errors.items())
        (n, e), (m, f) = next((p, q) for p, q in pairs if q[1] <= target)
        way = (e - target) / (e - f)
        first, highest = next(iter(errors.items()))
        case = Case(errors=str(errors), target=target)
        case.expect(
            float(width_for(errors, target)), n * (m / n) ** way, within=1e-4,
            cause="As far between log(n) and log(m) as the target is between the errors.",
            mistakes={
                "The line was drawn in the width itself; it is one in its logarithm, as in the "
                "chapter's picture.": n + way * (m - n),
                "The way was counted from the wrong end: it is 0 at the error of the smaller "
                "width.": n * (m / n) ** (1 - way),
                "One line was drawn from the first width to the last: take the two neighbours.":
                    first * (m / first) ** ((highest - target) / (highest - f)),
                "The next width that was measured came: interpolate.": float(m),
            },
        )  # fmt: skip


@gap.check
def what_no_width_reaches_is_infinite(width_for: Any) -> None:
    """A target below all errors needs math.inf, and one above them the smallest width."""
    errors = {8: 40.0, 16: 30.0}
    for target, wanted in ((29.0, math.inf), (45.0, 8.0)):
        case = Case(errors=str(errors), target=target)
        case.expect(
            float(width_for(errors, target)), wanted, within=0.0 if wanted == math.inf else 1e-6,
            cause="Nothing is known beyond the widths that were tried." if wanted == math.inf
            else "The smallest width does it already.",
            mistakes={
                "The largest width came, which does not reach the target: np.interp holds on to "
                "the ends. A gap that was not closed is not to look closed.": 16.0,
                "The line was drawn on beyond the widths that were tried, where nothing was "
                "measured.": 8 * 2 ** ((40 - target) / 10),
            },
        )  # fmt: skip


# ---- ch05.3 ----------------------------------------------------------------------------------

activations = EXERCISE.task("ch05.3", "Activations of few bits", "levels")


@activations.check
def one_bit_is_the_sign(levels: Any) -> None:
    """One bit gives −1 and +1, and +1 for zero."""
    for value in (0.7, -0.7, 0.1, -0.1, 2.0, -2.0, 0.0):
        x = tensor([value])
        case = Case(x=x, bits=1)
        case.expect(
            levels(x, 1), tensor([1.0 if value >= 0 else -1.0]), within=1e-6,
            cause="The two levels are −1 and +1.",
            mistakes={
                "The levels are 0 and 1: map them back to −1 and +1, 2 · level − 1.":
                    tensor([float(value >= 0)]),
                "The levels are ±0.5, the middles of two halves; the ends, ±1, are levels.":
                    tensor([0.5 if value >= 0 else -0.5]),
                "There is a third level, 0: 2 ** bits levels are 2 ** bits − 1 steps.":
                    tensor([value]).clamp(-1, 1).round(),
                "Zero went down. torch.round takes halves to the even number, here 0, and so to "
                "−1: floor(… + 0.5) goes up.": tensor([-1.0]) if value == 0 else x,
                "torch.sign(0) is 0, and one bit has no third value.": x.sign(),
            },
        )  # fmt: skip


@activations.check
def levels_are_evenly_spaced(levels: Any) -> None:
    """B bits give the nearest of 2 ** b levels from −1 to +1, both included."""
    for bits in (1, 2, 3, 8):
        steps = 2**bits - 1
        grid = torch.linspace(-1, 1, steps + 1)
        for value in (-1.0, 1.0, 0.55, -0.55, 0.2, -0.9, 1.7, -3.0):
            x = tensor([value])
            case = Case(x=x, bits=bits)
            nearest = grid[(grid - value).abs().argmin()].reshape(1)
            soft = x.clamp(-1, 1)
            case.expect(
                levels(x, bits), nearest, within=1e-5,
                cause="(x + 1) / 2 runs from 0 to 1: times the steps, rounded, and mapped back.",
                mistakes={
                    "Values beyond ±1 were not clipped.":
                        ((x + 1) / 2 * steps).round() / steps * 2 - 1,
                    "There are 2 ** bits steps here, and so one level too many: between 2 ** bits "
                    "levels lie 2 ** bits − 1 steps.":
                        ((soft + 1) / 2 * (steps + 1)).round() / (steps + 1) * 2 - 1,
                    "The next level below was taken: round to the nearest.":
                        ((soft + 1) / 2 * steps).floor() / steps * 2 - 1,
                    "The levels run from 0 to 1: map them back to −1 and +1.":
                        ((soft + 1) / 2 * steps).round() / steps,
                },
            )  # fmt: skip


@activations.check
def gradient_is_that_of_the_hard_tanh(levels: Any) -> None:
    """The gradient passes unchanged where |x| <= 1, whatever the bits are, and nowhere else."""
    for bits, value in itertools.product((1, 3), (0.3, -0.8, 1.0, -1.0, 1.5, -2.0)):
        x, g = tensor([value]), tensor([3.0])
        case = Case(x=x, bits=bits, gradient_arriving=g)
        inside = abs(value) <= 1
        case.expect(
            gradient(levels, x, g, bits), g if inside else tensor([0.0]),
            what="the gradient of x", cause="soft + (rounded − soft).detach(), with soft the "
            "clipped x.",
            mistakes={
                "No gradient arrives: round and comparisons have none. Straight through: "
                "soft + (rounded − soft).detach().": None,
                "The gradient is not cancelled beyond ±1: the clipping has to stand outside of "
                "what is detached.": g,
                "The gradient is zero, as that of rounding is. Straight through: "
                "soft + (rounded − soft).detach().": tensor([0.0]),
            },
        )  # fmt: skip


# ---- ch05.4 ----------------------------------------------------------------------------------

bop = EXERCISE.task("ch05.4", "A step of Bop", "bop_step")


@bop.check
def the_average_moves(bop_step: Any) -> None:
    """The average becomes (1 − gamma) times itself plus gamma times grad, in place."""
    for start, g, gamma in ((0.0, 4.0, 0.25), (1.0, 3.0, 0.25), (0.0, 1.0, 1.0)):
        average = tensor([start])
        case = Case(average=average.clone(), grad=tensor([g]), gamma=gamma, threshold=100.0)
        bop_step(tensor([1.0]), average, tensor([g]), gamma, 100.0)
        case.expect(
            average, tensor([(1 - gamma) * start + gamma * g]), within=1e-6,
            what="average after the step", cause="(1 − gamma) · average + gamma · grad.",
            mistakes={
                "The average did not change: average = … gives the name to a new tensor. Change "
                "the old one, by mul_ and add_, or lerp_.": tensor([start]),
                "gamma and 1 − gamma are the wrong way round: gamma goes with the gradient.":
                    tensor([gamma * start + (1 - gamma) * g]),
                "The old average was not shrunk by 1 − gamma.": tensor([start + gamma * g]),
                "The average became the gradient itself.": tensor([g]),
            },
        )  # fmt: skip


@bop.check
def flips_where_the_average_insists(bop_step: Any) -> None:
    """A weight flips where the average has its own sign and is beyond the threshold."""
    for w, m in itertools.product((1.0, -1.0), (0.7, -0.7, 0.3, -0.3)):
        w_b = tensor([w])
        case = Case(w_b=w_b.clone(), grad=tensor([m]), gamma=1.0, threshold=0.5)
        bop_step(w_b, tensor([0.0]), tensor([m]), 1.0, 0.5)
        large, same = abs(m) > 0.5, m * w > 0

        def flipped(yes: bool, w: float = w) -> Tensor:
            return tensor([-w if yes else w])

        cause = "Flip if |average| > threshold and sign(average) == w_b."
        if not same:
            cause = (
                "The weight flipped where the gradient has the other sign. Descent goes against "
                "the gradient: a weight is to flip where the average has its own sign."
            )
        elif not large:
            cause = "The average is not beyond the threshold, so the weight is to stay."
        elif m < 0:
            cause = (
                "A weight of −1 is to flip too, where the average is far below 0: compare the "
                "magnitude of the average with the threshold."
            )
        case.expect(
            w_b, flipped(large and same), what="w_b after the step", cause=cause,
            mistakes={
                "w_b did not change, and has to: w_b = … gives the name to a new tensor. Change "
                "the old one, or the weight flips in the wrong case: where the average has the "
                "other sign.": flipped(False),
            } if large and same and w > 0 else {},
        )  # fmt: skip


@bop.check
def the_average_decides_and_not_the_gradient(bop_step: Any) -> None:
    """The new average decides, not the gradient of this step, nor the old average."""
    for start, g in ((0.0, 1.0), (0.6, -1.0), (0.45, 1.0)):
        gamma, threshold = 0.25, 0.5
        new = (1 - gamma) * start + gamma * g
        w_b, average = tensor([1.0]), tensor([start])
        case = Case(w_b=1.0, average=start, grad=g, gamma=gamma, threshold=threshold)
        bop_step(w_b, average, tensor([g]), gamma, threshold)
        case.expect(
            w_b, tensor([-1.0 if new > threshold else 1.0]), what="w_b after the step",
            cause=f"The new average is {new:g}: it decides, and is computed first.",
        )  # fmt: skip
        case.expect(
            average, tensor([new]), within=1e-6, what="average after the step",
            cause="It stays as it is, also where a weight flips.",
            mistakes={"The average was set back where the weight flipped; it goes on as it is.":
                      tensor([0.0])},
        )  # fmt: skip


@bop.check
def at_the_threshold_nothing_flips(bop_step: Any) -> None:
    """An average of just the threshold, and one of 0 with a threshold of 0, flips nothing."""
    for w, m, threshold in ((1.0, 0.5, 0.5), (-1.0, -0.5, 0.5), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)):
        w_b = tensor([w])
        case = Case(w_b=w, grad=m, gamma=1.0, threshold=threshold)
        bop_step(w_b, tensor([0.0]), tensor([m]), 1.0, threshold)
        case.expect(
            w_b, tensor([w]), what="w_b after the step",
            cause="Larger than the threshold, it says: >, not >=.",
        )  # fmt: skip


# ---- ch05.5 ----------------------------------------------------------------------------------

experiment = EXERCISE.task(
    "ch05.5", "The rate sets the number of flips", "flips_at_rates", seconds=120
)

Watch = Callable[[nn.Module], None]


def _scripted(script: dict[float, list[list[list[float]]]]) -> Callable[[float, Watch], float]:
    """Give a run that sets the weights of its layers as a script has them, in place."""

    def run(rate: float, watch: Watch) -> float:
        steps = script[rate]
        layers = [nn.Linear(len(row), 1) for row in steps[0]]
        model = nn.Sequential(*layers)
        for rows in steps:
            with torch.no_grad():
                for layer, row in zip(layers, rows, strict=True):
                    layer.weight.copy_(tensor([row]))
                    layer.bias.neg_()
            watch(model)
        return 50.0

    return run


def _own_ratio(before: list[list[float]], after: list[list[float]]) -> float:
    pairs = [(a >= 0, b >= 0) for p, q in zip(before, after, strict=True)
             for a, b in zip(p, q, strict=True)]  # fmt: skip
    return 100 * sum(a != b for a, b in pairs) / len(pairs)


@experiment.check
def each_step_is_compared_with_the_one_before(flips_at_rates: Any) -> None:
    """The result is the mean over the steps of how many per cent flip in each."""
    scripts: list[list[list[list[float]]]] = [
        [[[1.0, 1.0]], [[-1.0, 1.0]]],
        [[[1.0, 1.0]], [[-1.0, 1.0]], [[1.0, 1.0]]],
        [[[1.0, 1.0]], [[-1.0, 1.0]], [[1.0, 1.0]], [[1.0, 0.5]]],
        [[[1.0], [1.0, 2.0, 3.0]], [[-1.0], [1.0, 2.0, 3.0]]],
        [[[0.5, -0.5]], [[0.0, -0.5]], [[0.2, -0.1]]],
    ]
    for steps in scripts:
        case = Case(weights_at_each_call=str(steps))
        each = [_own_ratio(a, b) for a, b in itertools.pairwise(steps)]
        since = [_own_ratio(steps[0], b) for b in steps[1:]]
        got = flips_at_rates([0.1], _scripted({0.1: steps}))
        mean = sum(each) / len(each)
        case.expect(list(got), [0.1], what="rates", cause="One entry for each rate.")
        case.expect(
            float(got[0.1]), mean, within=1e-6, what="% that flip in a step",
            cause="The mean of the flip ratios of neighbouring steps, in per cent. Zero is "
            "positive, biases do not count, and layers count by their weights.",
            mistakes={
                "Each step was compared with the start, so that a weight which flipped once counts "
                "at every later step: compare with the step before.": sum(since) / len(since),
                "The first weights were compared with the last; weights that flip back and forth "
                "are lost so.": since[-1] / len(each),
                "This is the share of weights that differ between the start and the end.":
                    since[-1],
                "Nothing ever flipped: what was kept is the parameter itself, which the optimizer "
                "changes in place, so that it was compared with itself. Keep a copy: clone().":
                    0.0,
                "The ratios were added up and not divided by the number of steps.": sum(each),
                "There is one step less than there are calls: the first call comes before any.":
                    sum(each) / len(steps),
                "This is a share; per cent are wanted.": mean / 100,
                "The ratio of the last step came; the mean over all is wanted.": each[-1],
            },
        )  # fmt: skip


@experiment.check
def rates_do_not_mix(flips_at_rates: Any) -> None:
    """Each rate begins anew."""
    script = {
        0.1: [[[1.0, 1.0]], [[1.0, 1.0]]],
        0.2: [[[-1.0, -1.0]], [[1.0, -1.0]], [[1.0, -1.0]]],
    }
    case = Case(weights_at_each_rate=str(script))
    got = flips_at_rates(list(script), _scripted(script))
    case.expect(
        {rate: float(value) for rate, value in got.items()}, {0.1: 0.0, 0.2: 25.0},
        cause="What was kept from the rate before got in: make the lists anew for each rate.",
    )  # fmt: skip


class _Signs(nn.Module):
    """A layer that multiplies by the signs of its latent weights."""

    def __init__(self, k: int, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n, k).uniform_(-(k**-0.5), k**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        return x @ (w + (torch.where(w >= 0, 1.0, -1.0) - w).detach()).T


@experiment.check
def higher_rates_flip_more(flips_at_rates: Any) -> str:
    """On digits, ten times the rate flips more than twice as many weights, from each seed."""
    rates = (0.0003, 0.003)
    lines = []
    for seed in SEEDS:
        errors: dict[float, float] = {}

        def run(rate: float, watch: Watch, seed: int = seed, errors: dict = errors) -> float:
            model = network(_Signs, seed)
            watch(model)
            errors[rate] = fit(model, rate, watch)
            return errors[rate]

        case = Case(network="784-32-32-10 with batch norm", rates=list(rates), seed=seed)
        few, many = (float(v) for v in flips_at_rates(rates, run).values())
        if not 2 * few < many < 100:
            case.fail(
                "at rate 0.003 more than twice the flips of rate 0.0003",
                f"{many:.3g} % and {few:.3g} %", "The scripted weights passed: is each rate run?",
            )  # fmt: skip
        low, high = errors.values()
        lines.append(
            f"seed {seed}: {few:.2f} % flip in a step and {low:.1f} % test error at rate 0.0003, "
            f"{many:.2f} % and {high:.1f} % at 0.003"
        )
    return "\n".join(lines)
