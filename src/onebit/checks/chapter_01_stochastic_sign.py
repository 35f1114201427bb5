"""Checks of chapter 1's exercises: drawn bits, clipped steps, and what a network is tested with."""

import copy
import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, tensor

from onebit.checks.digits import digits, fit, network
from onebit.checks.tasks import Case, Exercise, gradient
from onebit.training import error_rate

EXERCISE = Exercise(__name__)

SEEDS = (0, 1, 2)
CLOSE = 1e-6

#: So many draws that their mean is within 0.03 of the true one, six standard errors away.
DRAWS = 40_000


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _signs(w: Tensor) -> Tensor:
    return torch.where(w >= 0, 1.0, -1.0).to(w.dtype)


REAL = "w itself came back (or its hard tanh): a sign is to be drawn for it."


def _expect_signs(case: Case, got: Any, w: Tensor, *, what: str = "", real: str = REAL) -> None:
    """Report drawn values that are not exactly ±1, or of another shape or dtype than w."""
    if not isinstance(got, Tensor) or got.shape != w.shape:
        case.expect(got, torch.ones_like(w), what=what, cause="")
        return
    values = got.detach().double()
    nearest = _signs(values)
    wrong = values[values != nearest]
    if not len(wrong):
        case.expect(got, nearest.to(w.dtype), what=what, cause="", mistakes={
            "torch.where(…, 1.0, −1.0) gives float32, whatever w is: .to(w.dtype) at the end.":
                nearest.float(),
        })  # fmt: skip
        return
    if torch.allclose(values, w.double()):
        cause = real
    elif torch.allclose(values, (w.double().clamp(-1, 1) + 1) / 2):
        cause = "The probabilities themselves came back: draw by them."
    elif bool(((values == 0) | (values == 1)).all()):
        cause = "The bits came as 0 and 1: signs are 2 · bit − 1."
    elif (values - nearest).abs().max() < 1e-3:
        cause = (
            "These are ±1 up to rounding only, and a bit is exact. w + (w_b − w).detach() rounds "
            "twice; w_b + (w − w.detach()) adds an exact zero."
        )
    else:
        cause = "There is a third value: each has to be exactly −1 or +1."
    expected = f"{what}: −1 or +1 each".removeprefix(": ")
    case.fail(expected, f"{wrong[0].item():.9g} among them", cause)


# ---- ch01.1 ----------------------------------------------------------------------------------

probability = EXERCISE.task("ch01.1", "How likely is plus one", "plus_probability")


@probability.check
def hard_sigmoid_of_w(plus_probability: Any) -> None:
    """The probability of +1 rises from 0 at w = −1 to 1 at w = 1, and is flat beyond."""
    for value in (0.5, 0.0, -0.5, 1.0, -1.0, 2.0, -2.0):
        w = tensor([value])
        case = Case(w=w)
        wanted = min(max((value + 1) / 2, 0.0), 1.0)
        case.expect(
            plus_probability(w), tensor([wanted]), within=CLOSE,
            cause="It is clip((w + 1) / 2, 0, 1): one half at zero, and certain from ±1 on.",
            mistakes={
                "w itself was taken for the probability. It is the mean of the draws, which goes "
                "from −1 to 1; the probability is (w + 1) / 2.": w,
                "w itself was taken for the probability, clipped: a weight of zero has to be a "
                "fair coin. The probability is (w + 1) / 2.": w.clamp(0, 1),
                "It is not clipped: beyond ±1 the probability stays 0 or 1.": (w + 1) / 2,
                "This is the smooth sigmoid, which is never certain.": w.sigmoid(),
                "PyTorch's hardsigmoid is another one, certain from ±3 on.": F.hardsigmoid(w),
                "w + 1 goes from 0 to 2: halve it.": (w + 1).clamp(0, 1),
                "This is the probability of −1.": (1 - w).clamp(0, 2) / 2,
                "It was rounded to 0 or 1: that is the sign as a bit, and no probability.":
                    (w >= 0).float(),
            },
        )  # fmt: skip


@probability.check
def keeps_shape_and_dtype(plus_probability: Any) -> None:
    """Weights of any shape and floating dtype give probabilities of the same."""
    for dtype, shape in itertools.product((torch.float32, torch.float64), ((3,), (2, 3, 1))):
        w = torch.linspace(-2, 2, torch.Size(shape).numel(), dtype=dtype).reshape(shape)
        case = Case(w=w, dtype=str(dtype))
        case.expect(
            plus_probability(w), (w.clamp(-1, 1) + 1) / 2, within=CLOSE,
            cause="Element by element.",
        )  # fmt: skip


# ---- ch01.2 ----------------------------------------------------------------------------------

drawing = EXERCISE.task("ch01.2", "Draw the bit", "draw_signs")


@drawing.check
def one_of_two_values(draw_signs: Any) -> None:
    """Each draw is −1 or +1."""
    for w in (torch.zeros(8), torch.linspace(-1, 1, 12).reshape(3, 4)):
        case = Case(w=w, generator="of seed 0")
        _expect_signs(case, draw_signs(w, _seeded()), w)


@drawing.check
def certain_from_one_on(draw_signs: Any) -> None:
    """At ±1 and beyond nothing is left to chance."""
    for value in (1.0, -1.0, 3.0, -3.0):
        w = torch.full((16,), value)
        case = Case(w=f"16 times {value:g}", generator="of seed 0")
        case.expect(
            draw_signs(w, _seeded()), _signs(w),
            cause="The probability of +1 has to be exactly 1 from w = 1 on, and 0 from w = −1 on.",
            mistakes={
                "The draw is the wrong way round: torch.rand(…) < p is true with probability p, "
                "and true has to be +1.": -_signs(w),
            },
        )  # fmt: skip


@drawing.check
def mean_is_the_weight(draw_signs: Any) -> None:
    """The mean of many draws is w."""
    for value in (0.4, -0.4, 0.0, 0.8, -0.8):
        w = torch.full((DRAWS,), value)
        case = Case(w=f"{DRAWS:,} times {value:g}", generator="of seed 0")
        got = draw_signs(w, _seeded())
        _expect_signs(case, got, w)
        case.expect(
            got.double().mean().item(), value, within=0.03, what="the mean of the draws",
            cause="With p = (w + 1) / 2 the mean is p − (1 − p) = w.",
            mistakes={
                "w itself was taken for the probability, in place of (w + 1) / 2.":
                    2 * max(value, 0) - 1,
                "The draw is the wrong way round: torch.rand(…) < p is true with probability p, "
                "and true has to be +1.": -value,
                "The sign was taken, and nothing drawn.": float(_signs(tensor(value))),
                "It is a fair coin for every weight: w has no part in it.": 0.0,
                "The probability is that of the smooth sigmoid.":
                    2 * tensor(value).sigmoid().item() - 1,
                "torch.randn is Gaussian; a probability is compared with torch.rand.":
                    2 * torch.distributions.Normal(0.0, 1.0).cdf(tensor((value + 1) / 2)).item()
                    - 1,
            },
        )  # fmt: skip


@drawing.check
def each_weight_by_itself(draw_signs: Any) -> None:
    """Every weight is drawn by itself."""
    w = torch.zeros(30, 40)
    case = Case(w="zeros of shape (30, 40)", generator="of seed 0")
    got = draw_signs(w, _seeded())
    for dim, name in ((0, "rows"), (1, "columns")):
        if (got == got.select(dim, 0).unsqueeze(dim)).all():
            case.fail(
                f"{name} that differ", f"all {name} alike",
                "One number was drawn for several weights: torch.rand needs the shape of w, "
                "torch.rand(w.shape, …).",
            )  # fmt: skip


@drawing.check
def chance_comes_from_the_generator(draw_signs: Any) -> None:
    """The same generator state gives the same draws, and a second call gives others."""
    case = Case(w="64 zeros", generator="two of the same seed")
    first, again = (draw_signs(torch.zeros(64), _seeded(5)) for _ in range(2))
    if not torch.equal(first, again):
        case.fail(
            "the same draws", "others", "The generator is not used: pass generator=generator on."
        )
    for generator, whose in ((_seeded(5), "The generator"), (None, "torch's own generator")):
        case = Case(w="64 zeros", generator=None if generator is None else "one, for two calls")
        first, second = (draw_signs(torch.zeros(64), generator) for _ in range(2))
        if torch.equal(first, second):
            case.fail(
                "other draws at the second call", "the same",
                f"{whose} was seeded anew at each call, so every step of a training would see the "
                "same noise.",
            )  # fmt: skip


@drawing.check
def latent_weights_stay(draw_signs: Any) -> None:
    """The latent weights are the same after the call."""
    values = [0.5, -2.0, 0.0]
    w = tensor(values)
    case = Case(w=w)
    draw_signs(w, _seeded())
    case.expect(
        w, tensor(values), what="w after the call",
        cause="The latent weights were overwritten: methods that end in _ change their tensor, and "
        "what the small steps of training added up is lost. Compute into a new one.",
    )  # fmt: skip


@drawing.check
def shape_and_dtype_are_those_of_w(draw_signs: Any) -> None:
    """The draws have the shape and dtype of w."""
    for dtype, shape in itertools.product((torch.float32, torch.float64), ((3,), (2, 3, 1))):
        w = torch.zeros(shape, dtype=dtype)
        case = Case(w=w, dtype=str(dtype), generator="of seed 0")
        _expect_signs(case, draw_signs(w, _seeded()), w)


# ---- ch01.3 ----------------------------------------------------------------------------------

through = EXERCISE.task("ch01.3", "Straight through a draw", "draw_through")


@through.check
def values_are_drawn(draw_through: Any) -> None:
    """Forward gives drawn signs, exactly ±1, whose mean is w."""
    w = torch.linspace(-1, 1, 201)
    case = Case(w="201 weights from −1 to 1", generator="of seed 0")
    _expect_signs(case, draw_through(w, _seeded()), w)
    w = torch.full((DRAWS,), 0.4)
    case = Case(w=f"{DRAWS:,} times 0.4", generator="of seed 0")
    case.expect(
        draw_through(w, _seeded()).double().mean().item(), 0.4, within=0.03,
        what="the mean of the draws", cause="Forward is draw_signs(w, generator).",
        mistakes={"The sign was taken; here it is to be drawn.": 1.0},
    )  # fmt: skip


@through.check
def gradient_passes(draw_through: Any) -> None:
    """The gradient leaves as it came."""
    for value, arriving in itertools.product((0.3, -0.3, 0.0), (1.0, 3.0, -2.0)):
        w, g = tensor([value]), tensor([arriving])
        case = Case(w=w, gradient_arriving=g, generator="of seed 1")
        case.expect(
            gradient(draw_through, w, g, _seeded(1)), g,
            what="the gradient of w", cause="Return the gradient that arrives.",
            mistakes={
                "No gradient arrives: no STE. The graph ends at a comparison or a draw, and "
                "torch.where over constants knows nothing of w.": None,
                "The gradient is zero: no STE. A draw has no slope, and torch.bernoulli's gradient "
                "is 0; straight through means that the gradient passes as it came.":
                    tensor([0.0]),
                "Half of the gradient arrives: the slope of (w + 1) / 2 was left in it.": g / 2,
                "Twice the gradient arrives: 2 · p − 1 has the slope 2 in p.": 2 * g,
                "The gradient was multiplied by w.": g * w,
                "The gradient was multiplied by the sign that was drawn.": -g,
            },
        )  # fmt: skip


@through.check
def gradient_passes_everywhere(draw_through: Any) -> None:
    """The gradient passes at ±1 and beyond as well."""
    for value in (1.0, -1.0, 3.0, -3.0):
        w, g = tensor([value]), tensor([1.0])
        case = Case(w=w, gradient_arriving=g)
        case.expect(
            gradient(draw_through, w, g, _seeded()), g,
            what="the gradient of w", cause="It passes as it came, whatever w is.",
            mistakes={
                "The gradient was cancelled: BinaryConnect has no mask, it clips the weights. Did "
                "it pass the clamp of the probability?": tensor([0.0]),
                "The gradient was multiplied by the sign that was drawn.": -g,
            },
        )  # fmt: skip


@through.check
def chance_is_that_of_the_generator(draw_through: Any) -> None:
    """The draw is decided by the generator, and w stays as it is."""
    w = torch.linspace(-1, 1, 64)
    kept = w.clone()
    case = Case(w="64 weights from −1 to 1", generator="two of the same seed")
    if not torch.equal(draw_through(w, _seeded(5)), draw_through(w, _seeded(5))):
        case.fail("the same draws", "others", "Pass the generator on to draw_signs.")
    case.expect(w, kept, what="w after the call", cause="The latent weights were overwritten.")


# ---- ch01.4 ----------------------------------------------------------------------------------

clipping = EXERCISE.task("ch01.4", "Clip after the step", "clipped_step")


def _parameter(values: list[float], grads: list[float]) -> nn.Parameter:
    w = nn.Parameter(tensor(values))
    w.grad = tensor(grads)
    return w


@clipping.check
def step_first_then_clip(clipped_step: Any) -> None:
    """After the step, latent weights beyond ±1 lie at ±1, and the others where it left them."""
    for values, grads in (
        ([0.5], [1.0]), ([0.75], [-3.0]), ([-0.75], [3.0]), ([1.5], [-0.5]),
        ([1.5, 0.75, 0.25], [0.0, -3.0, 1.0]),
    ):  # fmt: skip
        w = _parameter(values, grads)
        start, grad = tensor(values), tensor(grads)
        case = Case(w=start, gradient=grad, optimizer="torch.optim.SGD([w], lr=0.5)")
        clipped_step(torch.optim.SGD([w], lr=0.5), [w])
        moved = start - 0.5 * grad
        case.expect(
            w.detach(), moved.clamp(-1, 1), within=CLOSE, what="w after the call",
            cause="First optimizer.step(), then w.clamp_(-1, 1) for each of the latent weights.",
            mistakes={
                "The weights left the interval: they were not clipped, or into a new tensor, which "
                "nobody keeps. clamp_ changes w itself.": moved,
                "The weights were clipped before the step, which carried them out again.":
                    start.clamp(-1, 1) - 0.5 * grad,
                "No step was taken.": start.clamp(-1, 1),
                "Nothing changed.": start,
                "The gradient was clipped. It is the weight that is to stay within ±1.":
                    start - 0.5 * grad.clamp(-1, 1),
                "Two steps were taken.": (start - grad).clamp(-1, 1),
                "The weights became their signs, so no small step can add up any more: only those "
                "beyond ±1 are to move.": _signs(moved),
                "The weights were clipped to [0, 1]: −1 is the other bound.": moved.clamp(0, 1),
            },
        )  # fmt: skip


@clipping.check
def all_else_is_free(clipped_step: Any) -> None:
    """Parameters that are not latent weights are moved by the step and not clipped."""
    w, other = _parameter([0.75], [-3.0]), _parameter([0.75], [-3.0])
    scale = _parameter([1.5], [-2.0])
    case = Case(latent="two weights of 0.75", batch_norm_weight=1.5, gradients="−3, −3 and −2",
                optimizer="torch.optim.SGD, lr=0.5, of all three")  # fmt: skip
    clipped_step(torch.optim.SGD([scale, w, other], lr=0.5), [w, other])
    case.expect(
        torch.cat([w, other]).detach(), tensor([1.0, 1.0]), what="the latent weights",
        cause="Each tensor of the list has to be clipped.",
        mistakes={
            "Only the first tensor of the list was clipped.": tensor([1.0, 2.25]),
            "Only the last tensor of the list was clipped.": tensor([2.25, 1.0]),
        },
    )  # fmt: skip
    case.expect(
        scale.detach(), tensor([2.5]), within=CLOSE, what="batch norm's weight",
        cause="The step moves it by 1, and nothing else does.",
        mistakes={
            "Batch norm was clipped too. Its scale has to be free; clip what is in `latent`, and "
            "not all that the optimizer holds.": tensor([1.0]),
        },
    )  # fmt: skip


@clipping.check
def goes_on_learning(clipped_step: Any) -> None:
    """After the call the latent weights are parameters as before, and a next step works."""
    w = _parameter([0.75], [-3.0])
    optimizer = torch.optim.Adam([w], lr=0.1)
    case = Case(w=w.detach(), gradient=-3.0, optimizer="torch.optim.Adam, lr=0.1", steps=5)
    for _ in range(5):
        w.grad = tensor([-3.0])
        clipped_step(optimizer, [w])
    case.expect(w.detach(), tensor([1.0]), within=CLOSE, what="w after the steps", cause="")
    case.expect(
        (w.requires_grad, w.is_leaf), (True, True), what="(w.requires_grad, w.is_leaf)",
        cause="w is no parameter any more: clip under torch.no_grad(), or by w.data.",
    )  # fmt: skip


# ---- ch01.5 ----------------------------------------------------------------------------------

layer = EXERCISE.task(
    "ch01.5", "Drawn in training, real in the test", "StochasticLinear", seconds=120
)


@layer.check
def one_latent_matrix(StochasticLinear: Any) -> None:
    """The layer holds one parameter, `weight`, of shape (out_features, in_features)."""
    case = Case(in_features=3, out_features=2)
    made = StochasticLinear(3, 2)
    held = {name: tuple(p.shape) for name, p in made.named_parameters()}
    cause = "A bias or a second parameter was not asked for."
    if not held:
        cause = "A plain tensor is no parameter, and the optimizer does not find it: nn.Parameter."
    elif held == {"weight": (3, 2)}:
        cause = "Rows are outputs: the shape is (out_features, in_features), as in nn.Linear."
    case.expect(held, {"weight": (2, 3)}, what="parameters", cause=cause)
    case = Case(in_features=100, out_features=100)
    w = StochasticLinear(100, 100).weight.detach()
    if not 0.09 < w.abs().max() <= 0.1 or not 0.045 < w.abs().mean() < 0.055:
        case.fail(
            "a uniform draw within 1 / sqrt(100) = 0.1 of zero",
            f"a largest magnitude of {w.abs().max():.3g}, a mean of {w.abs().mean():.3g}",
            "The bound is 1 / sqrt(in_features), to both sides of zero.",
        )  # fmt: skip


def _weights_seen(made: Any) -> Any:
    """Give what the layer multiplies by: its answer to each input by itself."""
    inputs = torch.eye(made.weight.shape[1])
    return made(inputs)


@layer.check
def training_draws(StochasticLinear: Any) -> None:
    """In training mode the layer multiplies by signs that are drawn anew at each call."""
    made = StochasticLinear(16, 1).train()
    with torch.no_grad():
        made.weight.zero_()
    case = Case(weight="16 zeros", mode="training", x="each input by itself")
    seen = [_weights_seen(made) for _ in range(2)]
    for got in seen:
        _expect_signs(
            case, got, torch.zeros(16, 1), what="weights that x meets",
            real="The real weights were used in training. The modes are mixed up, or nothing is "
            "drawn: self.training is true in training.",
        )  # fmt: skip
    case.expect(
        made.weight.detach(), torch.zeros(1, 16), what="weight afterwards",
        cause="Forward overwrote the latent weights: the small steps of training are lost. Draw "
        "into a new tensor.",
    )  # fmt: skip
    if torch.equal(*seen):
        cause = "The draw was made once and kept: it belongs into forward."
        if (seen[0] == 1).all():
            cause = "The sign was taken; in training it is drawn."
        case.fail("other signs at the second call", "the same", cause)


@layer.check
def test_uses_real_weights(StochasticLinear: Any) -> None:
    """In evaluation mode the layer multiplies by the real latent weights."""
    made = StochasticLinear(16, 1).eval()
    w = tensor([[0.125, -0.25, 0.0, 1.0] * 4])
    with torch.no_grad():
        made.weight.copy_(w)
    case = Case(weight="0.125, −0.25, 0 and 1, four times", mode="evaluation",
                x="each input by itself")  # fmt: skip
    got = _weights_seen(made)
    mistakes = {
        "The signs were used in the test. They are another network: batch norm has seen sums of "
        "other weights. The paper tests the stochastic network with its real weights.": _signs(w).T,
    }
    if isinstance(got, Tensor) and bool((got.abs() == 1).all()):
        mistakes["Bits are still drawn in the test: the noise is for training only. Ask "
                 "self.training."] = got.detach()  # fmt: skip
    case.expect(
        got.detach() if isinstance(got, Tensor) else got, w.T, what="weights that x meets",
        cause="x @ self.weight.T in evaluation mode.", mistakes=mistakes,
    )  # fmt: skip


@layer.check
def gradient_passes_the_draw(StochasticLinear: Any) -> None:
    """In training the gradient of the drawn signs reaches the latent weights."""
    made = StochasticLinear(2, 1).train()
    x, w = tensor([[1.0, 2.0]]), tensor([[0.5, -0.25]])
    case = Case(x=x, weight=w, gradient_arriving=tensor([[1.0]]), mode="training")
    with torch.no_grad():
        made.weight.copy_(w)
    product = made(x)
    if product.grad_fn is not None:
        product.backward(tensor([[1.0]]))
    case.expect(
        made.weight.grad, x, what="the gradient of weight", cause="It is x.",
        mistakes={
            "No gradient arrives: no STE. Draw with draw_through, not with draw_signs.": None,
            "The gradient is zero: no STE. Draw with draw_through, not with draw_signs.":
                torch.zeros(1, 2),
        },
    )  # fmt: skip


class _Drawn(nn.Module):
    """A layer that draws its weights in training, and computes with the real ones otherwise."""

    def __init__(self, k: int, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n, k).uniform_(-(k**-0.5), k**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        w: Tensor = self.weight
        if self.training:
            w_b = 2 * torch.bernoulli((w.detach() + 1) / 2) - 1
            w = w_b + (w - w.detach())
        return x @ w.T


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.dim() == 2]


@torch.no_grad()
def _clip(model: nn.Module) -> None:
    for w in _matrices(model):
        w.clamp_(-1, 1)


@torch.no_grad()
def _with_signs(model: nn.Module) -> nn.Module:
    """Copy a network, with the signs of its weights in place of them."""
    by_sign = copy.deepcopy(model).eval()
    for w in _matrices(by_sign):
        w.copy_(_signs(w))
    return by_sign


def _percent(errors: list[float]) -> str:
    return ", ".join(f"{error:.1f} %" for error in errors)


@layer.check
def learns_digits(StochasticLinear: Any) -> str:
    """A network of three such layers learns digits, from each of three seeds."""
    errors, by_sign = [], []
    for seed in SEEDS:
        case = Case(network="784-32-32-10 with batch norm", digits=10_000, passes=1, seed=seed)
        model = network(StochasticLinear, seed)
        errors.append(fit(model, 0.2, _clip))
        if errors[-1] >= 30:
            case.fail(
                "a test error below 30 %", f"{errors[-1]:.1f} %",
                "Each part passed alone: look at what forward does when it is called many times.",
            )  # fmt: skip
        by_sign.append(error_rate(_with_signs(model), *digits()[2:]))
    return (
        f"Test errors with the real weights: {_percent(errors)}.\n"
        f"The same networks with their signs: {_percent(by_sign)}; ch01.6 mends that."
    )


# ---- ch01.6 ----------------------------------------------------------------------------------

measuring = EXERCISE.task("ch01.6", "Measure batch norm anew", "remeasure", seconds=120)


def _old_norm(mean: float = 10.0, var: float = 4.0) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(1)
    norm.running_mean, norm.running_var = tensor([mean]), tensor([var])
    return norm


@measuring.check
def statistics_of_x_alone(remeasure: Any) -> None:
    """Running mean and variance are those of x, and nothing of the old ones is left."""
    x = tensor([[1.0], [3.0], [8.0]])
    norm = _old_norm()
    case = Case(model="one nn.BatchNorm1d(1) with running_mean 10 and running_var 4", x=x)
    remeasure(nn.Sequential(norm), x)
    case.expect(
        norm.running_mean, tensor([4.0]), within=1e-4, what="running_mean",
        cause="It is the mean of x.",
        mistakes={
            "Nothing was measured: batch norm does so in training mode only, during a pass.":
                tensor([10.0]),
            "The old statistics are still in it: with its momentum of 0.1 one pass puts in a tenth "
            "of the new. Set momentum to 1 for the pass, or to None after reset_running_stats().":
                tensor([9.4]),
            "The statistics were reset, but with its momentum of 0.1 one pass puts in only a tenth "
            "of the new. Set momentum to None for the pass.": tensor([0.4]),
            "The statistics were reset, and then nothing was measured: batch norm measures in "
            "training mode only.": tensor([0.0]),
        },
    )  # fmt: skip
    case.expect(
        norm.running_var, tensor([13.0]), within=1e-4, what="running_var",
        cause="It is the variance of x.",
        mistakes={
            "The sum of squares was divided by the number of rows; for its running variance batch "
            "norm divides by one less.": tensor([26 / 3]),
            "The standard deviation was stored in place of the variance.": tensor([13.0]).sqrt(),
        },
    )  # fmt: skip


class _Watch(nn.Module):
    """Hand on what comes, and note in which mode."""

    def forward(self, x: Tensor) -> Tensor:
        self.was_training = self.training
        return x + 100 if self.training else x


@measuring.check
def only_norms_are_in_training_mode(remeasure: Any) -> None:
    """During the pass all modules but batch norm are in evaluation mode."""
    x = tensor([[1.0], [3.0], [8.0]])
    norm, watch = _old_norm(), _Watch()
    model = nn.Sequential(watch, norm).train()
    case = Case(model="a layer that adds noise in training mode, and nn.BatchNorm1d(1)", x=x)
    remeasure(model, x)
    if getattr(watch, "was_training", False):
        case.fail(
            "the layer in evaluation mode during the pass", "it was in training mode",
            "The whole model was put into training mode. Then stochastic layers draw, and what is "
            "measured are sums of drawn weights. Put only batch norms into it.",
        )  # fmt: skip
    case.expect(norm.running_mean, tensor([4.0]), within=1e-4, what="running_mean", cause="")


@measuring.check
def later_norms_see_the_new_ones(remeasure: Any) -> None:
    """A batch norm behind another one is measured on what the new statistics make of x."""
    x = torch.randn(1000, 1)
    first, second = _old_norm(5.0, 1.0), _old_norm()
    case = Case(model="batch norm, ReLU, batch norm", x="torch.randn(1000, 1)")
    remeasure(nn.Sequential(first, nn.ReLU(), second), x)
    normed = ((x - x.mean()) / x.std()).relu()
    old = ((x - 5) / (1 + first.eps) ** 0.5).relu()
    case.expect(
        second.running_mean, normed.mean(0), within=0.01, what="running_mean of the second",
        cause="One pass with all batch norms in training mode does it.",
        mistakes={
            "The second was measured behind the first's old statistics: all have to measure in one "
            "pass, or one after the other from the front.": old.mean(0),
            "The second was left as it was: take all of model.modules().": tensor([10.0]),
        },
    )  # fmt: skip


@measuring.check
def all_else_is_as_before(remeasure: Any) -> None:
    """The model is in evaluation mode, with its momenta and weights, and computes no gradient."""
    norm = _old_norm()
    norm.momentum = 0.3
    model = nn.Sequential(nn.Linear(2, 1), nn.Sequential(norm, nn.Dropout()))
    weights = copy.deepcopy([p.detach() for p in model.parameters()])
    case = Case(model="linear, batch norm with momentum 0.3, dropout", x="torch.randn(5, 2)")
    remeasure(model, torch.randn(5, 2))
    modes = {type(m).__name__: m.training for m in model.modules() if not list(m.children())}
    case.expect(
        modes, dict.fromkeys(modes, False), what="training mode afterwards",
        cause="Something was left in training mode: model.eval() at the end. Otherwise the next "
        "test measures again, on the test images.",
    )  # fmt: skip
    case.expect(
        norm.momentum, 0.3, what="momentum afterwards",
        cause="The momentum was not put back: a training that goes on would use the new one.",
    )  # fmt: skip
    if not all(map(torch.equal, weights, [p.detach() for p in model.parameters()])):
        case.fail("the weights as before", "others", "Only running statistics are to change.")


@measuring.check
def repairs_a_network_of_signs(remeasure: Any) -> str:
    """Trained stochastically and tested with signs, a network errs far less afterwards."""
    lines = []
    for seed in SEEDS:
        case = Case(network="784-32-32-10, trained with drawn weights", seed=seed)
        model = network(_Drawn, seed)
        real = fit(model, 0.2, _clip)
        by_sign = _with_signs(model)
        x, _, x_test, y_test = digits()
        before = error_rate(by_sign, x_test, y_test)
        remeasure(by_sign, x[:2000])
        after = error_rate(by_sign, x_test, y_test)
        if after > before - 15:
            case.fail(
                f"a test error far below the {before:.1f} % of before", f"{after:.1f} %",
                "Are the statistics of all batch norms those of x?",
            )  # fmt: skip
        lines.append(
            f"seed {seed}: real weights {real:.1f} % test error, signs {before:.1f} %, signs with "
            f"statistics of their own {after:.1f} %"
        )
    return "\n".join(lines)
