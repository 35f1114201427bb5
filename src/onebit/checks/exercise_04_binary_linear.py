"""Checks of exercise 4: a binary linear layer, from the sign of a weight to a third value."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn, tensor

from onebit.checks.digits import Linear, fit, network
from onebit.checks.tasks import Case, Exercise, gradient

EXERCISE = Exercise(__name__)

SEEDS = (0, 1, 2)
OnWeights = Callable[[Tensor], Tensor]

# ---- 04.1 ------------------------------------------------------------------------------------

signs = EXERCISE.task("04.1", "Signs in the product", "binary_linear")


@signs.check
def signs_multiply(binary_linear: Any) -> None:
    """Positive weights count as +1 and negative ones as −1, whatever their size."""
    x, w = tensor([[2.0]]), tensor([[-0.3]])
    case = Case(x=x, w=w)
    case.expect(
        binary_linear(x, w), tensor([[-2.0]]), cause="The weight −0.3 has to count as −1.",
        mistakes={
            "The weights themselves were multiplied: their signs are wanted.": x @ w.T,
            "The weights became 0 and 1, as bits are stored; in the product the bit 0 counts as "
            "−1.": tensor([[0.0]]),
        },
    )  # fmt: skip


@signs.check
def zero_counts_as_plus_one(binary_linear: Any) -> None:
    """A weight of zero counts as +1."""
    x, w = tensor([[4.0]]), tensor([[0.0]])
    case = Case(x=x, w=w)
    case.expect(
        binary_linear(x, w), tensor([[4.0]]), cause="The sign of zero has to be +1.",
        mistakes={
            "torch.sign(0) is 0, and one bit has no third value: use w >= 0.": tensor([[0.0]]),
            "Zero came out as −1: use w >= 0, not w > 0.": tensor([[-4.0]]),
        },
    )  # fmt: skip


@signs.check
def every_output_has_its_row(binary_linear: Any) -> None:
    """X (m, k) and w (n, k) give (m, n): output i belongs to row i of w."""
    for m, n, k in itertools.product((1, 2), (1, 2, 3), (1, 2, 3)):
        x = torch.arange(1.0, m * k + 1).reshape(m, k)
        for bits in itertools.product((1.0, -1.0), repeat=n * k):
            w = tensor(bits).reshape(n, k)
            case = Case(x=x, w=w)
            case.expect(
                binary_linear(x, w), torch.nn.functional.linear(x, w),
                cause="Each output is the product of a row of x and a row of w: x @ w_b.T.",
            )  # fmt: skip


@signs.check
def latent_weights_stay(binary_linear: Any) -> None:
    """The latent weights are the same after the call."""
    x, w = tensor([[1.0, 2.0]]), tensor([[0.5, -2.0]])
    case = Case(x=x, w=w)
    binary_linear(x, w)
    case.expect(
        w, tensor([[0.5, -2.0]]), what="w after the call",
        cause="w was changed in place: a method that ends in _ does so, and so does w[...] = …",
        mistakes={
            "The latent weights were overwritten by their signs, so no small step can move them "
            "any more: compute the signs into a new tensor.": tensor([[1.0, -1.0]]),
        },
    )  # fmt: skip


@signs.check
def dtype_is_that_of_x(binary_linear: Any) -> None:
    """The output has the dtype of x."""
    x, w = tensor([[1.0, 2.0]], dtype=torch.float64), tensor([[0.5, -2.0]], dtype=torch.float64)
    case = Case(x="[[1, 2]] in float64", w="[[0.5, -2]] in float64")
    case.expect(binary_linear(x, w), tensor([[-1.0]], dtype=torch.float64), cause="")


# ---- 04.2 ------------------------------------------------------------------------------------

through = EXERCISE.task("04.2", "A gradient through the sign", "SignSTE")


@through.check
def forward_gives_signs(SignSTE: Any) -> None:
    """Forward gives −1 or +1 for every float, and +1 for zero."""
    for value in (0.5, -0.5, 3.0, -1e-30, 0.0, -0.0):
        w = tensor([value])
        case = Case(w=w, clip_value=1.0)
        case.expect(
            SignSTE.apply(w, 1.0), tensor([1.0 if value >= 0 else -1.0]),
            cause="Forward is the sign, as in 04.1.",
            mistakes={
                "torch.sign(0) is 0, and one bit has no third value: use w >= 0.": tensor([0.0]),
                "Forward gave w itself (or its hard tanh); only backward goes past the sign.": w,
            },
        )  # fmt: skip


@through.check
def gradient_passes(SignSTE: Any) -> None:
    """Inside the clip value the gradient leaves as it came."""
    for value, arriving in itertools.product((0.3, -0.3), (1.0, 3.0, -2.0)):
        w, g = tensor([value]), tensor([arriving])
        case = Case(w=w, clip_value=1.0, gradient_arriving=g)
        case.expect(
            gradient(SignSTE.apply, w, g, 1.0), g,
            what="the gradient of w", cause="Return the gradient that arrives.",
            mistakes={
                # Only what asks about the gradient lets 1 pass, the first that arrives, and not 3.
                "The mask asks about the gradient; it has to ask about w: |w| <= clip_value.":
                    g * (g.abs() <= 1),
                "The gradient is zero, as the sign's own is: nothing would ever be learned. "
                "Straight through means that backward returns the gradient that arrives.":
                    tensor([0.0]),
                "The gradient was multiplied by the sign of w, so negative weights would learn "
                "the wrong way round.": g * w.sign(),
                "The gradient was clipped. Clipping asks about w, not about the gradient.":
                    g.clamp(-1, 1),
                "The gradient was replaced by its sign or by ones.": g.sign(),
            },
        )  # fmt: skip


@through.check
def gradient_is_cancelled_beyond(SignSTE: Any) -> None:
    """Beyond the clip value no gradient passes."""
    for clip_value, value in ((1.0, 1.5), (1.0, -1.5), (0.5, 0.75), (2.0, -3.0)):
        w, g = tensor([value]), tensor([1.0])
        case = Case(w=w, clip_value=clip_value, gradient_arriving=g)
        case.expect(
            gradient(SignSTE.apply, w, g, clip_value), tensor([0.0]),
            what="the gradient of w", cause="The mask is 1 where |w| <= clip_value, else 0.",
            mistakes={
                "The gradient is not clipped: where |w| > clip_value, it has to be 0. Multiply it "
                "by a mask.": tensor([1.0]),
            },
        )  # fmt: skip


@through.check
def gradient_passes_at_the_bound(SignSTE: Any) -> None:
    """At the clip value itself, and nearer, the gradient passes, whatever the clip value is."""
    for clip_value, value in ((1.0, 1.0), (1.0, -1.0), (0.5, 0.5), (2.0, 1.5)):
        w, g = tensor([value]), tensor([1.0])
        case = Case(w=w, clip_value=clip_value, gradient_arriving=g)
        case.expect(
            gradient(SignSTE.apply, w, g, clip_value), g,
            what="the gradient of w",
            cause="The bound belongs to the inside: |w| <= clip_value. Clipped latent weights lie "
            "exactly there, and would never move again.",
        )  # fmt: skip


@through.check
def none_cancels_nothing(SignSTE: Any) -> None:
    """With clip_value None the gradient passes everywhere."""
    w, g = tensor([-7.0, -0.3, 0.0, 7.0]), tensor([1.0, 2.0, 3.0, 4.0])
    case = Case(w=w, clip_value=None, gradient_arriving=g)
    case.expect(
        gradient(SignSTE.apply, w, g, None), g,
        what="the gradient of w", cause="None stands for no mask at all.",
    )  # fmt: skip


# ---- 04.3 ------------------------------------------------------------------------------------

layer = EXERCISE.task("04.3", "Train on digits", "BinaryLinear", "clip_latent", seconds=120)


@layer.check
def one_latent_matrix(BinaryLinear: Any) -> None:
    """The layer holds one parameter, `weight`, of shape (out_features, in_features)."""
    case = Case(in_features=3, out_features=2)
    made = BinaryLinear(3, 2)
    held = {name: tuple(p.shape) for name, p in made.named_parameters()}
    cause = "A bias or a second parameter was not asked for."
    if not held:
        cause = "A plain tensor is no parameter: the optimizer does not find it, and state_dict() "
        cause += "does not store it. Wrap it in nn.Parameter."
    elif held == {"weight": (3, 2)}:
        cause = "Rows are outputs: the shape is (out_features, in_features), as in nn.Linear."
    case.expect(held, {"weight": (2, 3)}, what="parameters", cause=cause)


@layer.check
def starts_spread_out(BinaryLinear: Any) -> None:
    """Latent weights start as a uniform draw within 1 / sqrt(in_features) of zero."""
    case = Case(in_features=100, out_features=100)
    w = BinaryLinear(100, 100).weight.detach()
    if not 0.09 < w.abs().max() <= 0.1:
        case.fail(
            "the largest magnitude just below 1 / sqrt(100) = 0.1", f"{w.abs().max():.3g}",
            "The bound: 1 / sqrt(in_features), to both sides of zero.",
        )  # fmt: skip
    if not 0.45 < (w > 0).float().mean() < 0.55 or not 0.045 < w.abs().mean() < 0.055:
        case.fail(
            "half of the weights above zero, and a mean magnitude of 0.05",
            f"{(w > 0).float().mean():.0%} above zero, mean magnitude {w.abs().mean():.3g}",
            "Draw uniformly, from minus the bound to the bound.",
        )  # fmt: skip


@layer.check
def multiplies_by_signs(BinaryLinear: Any) -> None:
    """Forward is x times the signs of the latent weights, which stay as they are."""
    made = BinaryLinear(2, 1)
    x, w = tensor([[1.0, 2.0]]), tensor([[0.5, -0.25]])
    case = Case(x=x, weight=w)
    with torch.no_grad():
        made.weight.copy_(w)
    case.expect(
        made(x), tensor([[-1.0]]), cause="Use the signs of self.weight.",
        mistakes={"The latent weights themselves were multiplied: take their signs.": x @ w.T},
    )  # fmt: skip
    case.expect(
        made.weight.detach(), w, what="weight after forward",
        cause="Forward changed the latent weights.",
        mistakes={"Forward overwrote the latent weights by their signs: the small steps of "
                  "training are lost. Compute the signs into a new tensor.": w.sign()},
    )  # fmt: skip


@layer.check
def learns_through_the_sign(BinaryLinear: Any) -> None:
    """The gradient of the product with the signs reaches the latent weights."""
    made = BinaryLinear(2, 1)
    x, w = tensor([[1.0, 2.0]]), tensor([[0.5, -3.0]])
    case = Case(x=x, weight=w, gradient_arriving=tensor([[1.0]]))
    with torch.no_grad():
        made.weight.copy_(w)
    product = made(x)
    if product.grad_fn is not None:
        product.backward(tensor([[1.0]]))
    case.expect(
        made.weight.grad, x, what="the gradient of weight",
        cause="It is x, since the gradient passes the sign everywhere.",
        mistakes={
            "No gradient arrives: no STE. The signs have to come from SignSTE.apply.": None,
            "The gradient is zero: no STE. The signs have to come from SignSTE.apply.":
                torch.zeros(1, 2),
            "The gradient of the weight −3 was cancelled; here it passes everywhere: clip_value "
            "None.": tensor([[1.0, 0.0]]),
        },
    )  # fmt: skip


@layer.check
def clipping_touches_latent_weights_only(BinaryLinear: Any, clip_latent: Any) -> None:
    """`clip_latent` sets latent weights beyond ±1 to ±1, and nothing else."""
    clipped = BinaryLinear(3, 1)
    model = nn.Sequential(clipped, nn.BatchNorm1d(1), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
        clipped.weight.copy_(tensor([[-2.0, 0.5, 1.5]]))
    case = Case(latent_weights=clipped.weight, all_other_parameters=3.0)
    latent = clipped.weight
    clip_latent(model)
    if clipped.weight is not latent:
        case.fail(
            "the same parameter, with other values", "a new parameter in its place",
            "The optimizer knows the old parameter and goes on stepping that one, so the layer "
            "never learns. Change it in place, under torch.no_grad().",
        )  # fmt: skip
    case.expect(
        clipped.weight.detach(), tensor([[-1.0, 0.5, 1.0]]), what="latent weights",
        cause="Clamp to [−1, 1].",
        mistakes={
            "Nothing changed: clamp returns a new tensor, clamp_ changes the old one. And do look "
            "into model.modules(), not only at the model.": tensor([[-2.0, 0.5, 1.5]]),
            "The weights became their signs; only those beyond ±1 are to move.":
                tensor([[-1.0, 1.0, 1.0]]),
        },
    )  # fmt: skip
    others = [p.detach().flatten()[0] for p in itertools.islice(model.parameters(), 1, None)]
    case.expect(
        torch.stack(others), torch.full((4,), 3.0), what="batch norm's and nn.Linear's parameters",
        cause="Only modules that are a BinaryLinear are to be clipped: batch norm has to be free "
        "to scale.",
    )  # fmt: skip


@layer.check
def learns_digits(BinaryLinear: Any, clip_latent: Any) -> str:
    """A network of three such layers learns digits, from each of three seeds."""
    errors = []
    for seed in SEEDS:
        case = Case(network="784-32-32-10 with batch norm", digits=10_000, passes=1, seed=seed)
        model = network(BinaryLinear, seed)
        errors.append(fit(model, 0.01, clip_latent))
        largest = max(w.abs().max().item() for w in model.parameters() if w.dim() == 2)
        if largest > 1:
            case.fail("latent weights within ±1", f"{largest:.3g}", "clip_latent is not in place.")
        if errors[-1] >= 20:
            case.fail(
                "a test error below 20 %", f"{errors[-1]:.1f} %",
                "Each part passed alone: look at what forward and clip_latent do to a layer that "
                "is used many times.",
            )  # fmt: skip
    return f"Test errors after one pass over 10 000 digits: {_percent(errors)}."


def _percent(errors: Sequence[float]) -> str:
    return ", ".join(f"{error:.1f} %" for error in errors)


# ---- 04.4 ------------------------------------------------------------------------------------

comparison = EXERCISE.task("04.4", "Compare with full precision", "compare", seconds=120)


def _full(k: int, n: int) -> nn.Linear:
    return nn.Linear(k, n, bias=False)


class _Latent(nn.Module):
    """A layer without bias that multiplies by `rule` of its weights."""

    def __init__(self, rule: OnWeights, k: int, n: int) -> None:
        super().__init__()
        self.rule = rule
        self.weight = nn.Parameter(torch.empty(n, k).uniform_(-(k**-0.5), k**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.rule(self.weight).T


def _plain_signs(w: Tensor) -> Tensor:
    return w + (torch.where(w >= 0, 1.0, -1.0) - w).detach()


def _clip(model: nn.Module) -> None:
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _Latent):
                module.weight.clamp_(-1, 1)


@comparison.check
def every_seed_at_the_best_rate(compare: Any) -> None:
    """The errors of all seeds come back, at the one rate with the lowest mean."""
    tables = [
        {0.1: [5.0]},
        {0.1: [5.0, 7.0]},
        {0.1: [5.0, 7.0], 0.2: [4.0, 6.0]},
        {0.1: [4.0, 6.0], 0.2: [5.0, 7.0]},
        {0.1: [1.0, 9.0], 0.2: [4.0, 4.0]},
    ]
    for table in tables:
        seeds = list(range(len(table[0.1])))
        wanted = min(table.values(), key=sum)
        columns = list(zip(*table.values(), strict=True))
        case = Case(seeds=seeds, rates=list(table), errors_at_each_rate=list(table.values()))
        got = compare(
            {"binary": _full}, seeds, list(table), lambda _, seed, rate, t=table: t[rate][seed]
        )
        case.expect(
            got, {"binary": wanted}, cause="Choose the rate by the mean of its seeds.",
            mistakes={
                "The mean came: choose the rate by it, and return the errors of its seeds, so that "
                "one sees how far they spread.": {"binary": sum(wanted) / len(wanted)},
                "Only the best seed was kept: that is luck, and not the method's error.":
                    {"binary": [min(min(row) for row in table.values())]},
                "The best rate was chosen for each seed by itself, which mixes two methods into "
                "one that does not exist.": {"binary": [min(column) for column in columns]},
                "The last rate was taken, not the best.": {"binary": list(table.values())[-1]},
                "The rate was chosen by its best seed instead of its mean.":
                    {"binary": min(table.values(), key=min)},
            },
        )  # fmt: skip


@comparison.check
def each_combination_once(compare: Any) -> None:
    """Every kind is trained from the same seeds at the same rates, once each."""
    layers = {"full": _full, "binary": partial(_Latent, _plain_signs)}
    calls = []

    def error(linear: Linear, seed: int, rate: float) -> float:
        name = next((name for name, made in layers.items() if made is linear), "?")
        calls.append((name, seed, rate))
        return 100 * rate + seed

    case = Case(layers=list(layers), seeds=[3, 5], rates=[0.02, 0.01])
    compare(layers, [3, 5], [0.02, 0.01], error)
    wanted = sorted(itertools.product(layers, (3, 5), (0.02, 0.01)))
    case.expect(
        sorted(calls), wanted, what="calls of error",
        cause="A kind that gets other seeds, or more tries, is not compared but favoured.",
    )  # fmt: skip


@comparison.check
def bits_have_a_price(compare: Any) -> str:
    """On digits, small binary networks err more than those in full precision."""

    def error(linear: Linear, seed: int, rate: float) -> float:
        return fit(network(linear, seed, width=16), rate, _clip)

    layers = {"full precision": _full, "binary": partial(_Latent, _plain_signs)}
    case = Case(layers=list(layers), seeds=list(SEEDS), rates=[0.01, 0.02], error="on digits")
    errors = compare(layers, SEEDS, (0.01, 0.02), error)
    gap = (sum(errors["binary"]) - sum(errors["full precision"])) / len(SEEDS)
    if gap < 1:
        case.fail("binary at least one point worse", f"{gap:.1f} points", "Were the kinds mixed?")
    return "\n".join(
        [*(f"{name}: {_percent(each)} test error" for name, each in errors.items()),
         f"At this width the bits cost {gap:.1f} points."]
    )  # fmt: skip


# ---- 04.5 ------------------------------------------------------------------------------------

scaling = EXERCISE.task("04.5", "Scaling factors", "scaled_sign", seconds=120)


@scaling.check
def one_scale_for_each_row(scaled_sign: Any) -> None:
    """Each row gets the mean magnitude of its own weights."""
    for rows, wanted in (
        ([[1.0, -3.0]], [[2.0, -2.0]]),
        ([[1.0, -3.0], [0.5, 0.5]], [[2.0, -2.0], [0.5, 0.5]]),
        ([[1.0, -3.0, 5.0], [0.0, 0.5, 1.0]], [[3.0, -3.0, 3.0], [0.5, 0.5, 0.5]]),
    ):
        w = tensor(rows)
        s = torch.where(w >= 0, 1.0, -1.0)
        case = Case(w=w)
        got = scaled_sign(w)
        spread = {
            "alpha has shape (n,), and so was spread over the columns: the right means, at the "
            "wrong weights. keepdim=True gives it shape (n, 1).": s * w.abs().mean(1),
        } if w.shape == (2, 2) else {}  # fmt: skip
        case.expect(
            got, tensor(wanted), within=1e-6,
            cause="Each alpha is w.abs().mean(dim=1), over the inputs of one output.",
            mistakes={
                **spread,
                "The scale was taken of the signs, whose mean magnitude is always 1: take it of "
                "the latent weights.": s,
                "One scale for the whole matrix: each row is to have its own.":
                    s * w.abs().mean(),
                "The mean ran over the wrong axis, the outputs: dim 0 is n, dim 1 is k.":
                    s * w.abs().mean(0, keepdim=True),
                "The magnitudes were summed and not divided by their number.":
                    s * w.abs().sum(1, keepdim=True),
                "The largest magnitude was taken in place of the mean.":
                    s * w.abs().amax(1, keepdim=True),
                "The mean of w itself was taken, in which signs cancel: take |w| first.":
                    s * w.mean(1, keepdim=True),
                "A weight of zero came out as 0; its sign is +1.":
                    w.sign() * w.abs().mean(1, keepdim=True),
            },
        )  # fmt: skip


@scaling.check
def no_scale_comes_closer(scaled_sign: Any) -> None:
    """No other scale comes closer to w."""
    for seed in range(5):
        torch.manual_seed(seed)
        w = torch.randn(3, 6)
        case = Case(w=f"torch.randn(3, 6) of seed {seed}")
        w_b = scaled_sign(w)
        distance, *others = ((w - f * w_b).square().sum().item() for f in (1.0, 0.99, 1.01))
        if min(others) < distance:
            case.fail(
                "the squared distance to w grows with 0.99 and with 1.01 times the result",
                f"{distance:.4g}, and then {others[0]:.4g} and {others[1]:.4g}",
                "The mean of |w| over a row is the scale that comes closest.",
            )  # fmt: skip


@scaling.check
def a_convolution_has_a_scale_for_each_output(scaled_sign: Any) -> None:
    """For a convolution's weights (n, c, height, width) there are n scales."""
    w = tensor([[[[1.0, -2.0]], [[3.0, 4.0]]]])
    case = Case(w=w)
    alpha = w.abs().mean(dim=1, keepdim=True)
    case.expect(
        scaled_sign(w), tensor([[[[2.5, -2.5]], [[2.5, 2.5]]]]), within=1e-6,
        cause="Average over all dimensions but the first.",
        mistakes={
            "mean(dim=1) leaves height · width scales for an output: average over all dimensions "
            "but the first.": alpha * torch.where(w >= 0, 1.0, -1.0),
        },
    )  # fmt: skip


@scaling.check
def gradient_takes_both_ways(scaled_sign: Any) -> None:
    """The gradient reaches w through the signs and through alpha."""
    for rows in ([[0.5, -1.5]], [[0.5, -1.5, 3.0, -1.0], [0.25, 0.5, -0.5, 2.0]]):
        w = tensor(rows)
        g = torch.zeros_like(w)
        g[0, 0] = 4.0
        case = Case(w=w, gradient_arriving=g)
        alpha = w.abs().mean(1, keepdim=True)
        s = w.sign()
        by_alpha = s * (g * s).mean(1, keepdim=True)
        case.expect(
            gradient(scaled_sign, w, g), alpha * g + by_alpha, within=1e-6,
            what="the gradient of w", cause="By the product rule: alpha · g, and through alpha "
            "sign(w) · mean(g · sign(w)) of the row.",
            mistakes={
                "Nothing passes the signs: no STE. They have to come from SignSTE.apply.": by_alpha,
                "Nothing passes alpha: it was detached, or computed under no_grad.": alpha * g,
                "No gradient arrives at all.": None,
                "The signs passed no gradient where |w| > 1; here it passes everywhere: "
                "clip_value None.": alpha * g * (w.abs() <= 1) + by_alpha,
            },
        )  # fmt: skip


@scaling.check
def alpha_sets_the_size(scaled_sign: Any) -> str:
    """Without batch norm, plain signs learn no digits, and scaled signs do, from each seed."""
    kinds: dict[str, OnWeights] = {"plain signs": _plain_signs, "scaled signs": scaled_sign}
    errors: dict[str, list[float]] = {name: [] for name in kinds}
    for seed in SEEDS:
        for name, rule in kinds.items():
            case = Case(network="784-32-32-10 without batch norm", weights=name, seed=seed)
            model = network(partial(_Latent, rule), seed, norm=False)
            errors[name].append(fit(model, 0.01, _clip))
        worse, better = (each[-1] for each in errors.values())
        if better > worse - 20:
            case.fail(
                f"20 points below the {worse:.1f} % of plain signs", f"{better:.1f} %",
                "Does the scale follow the weights while they learn?",
            )  # fmt: skip
    lines = (f"{name}: {_percent(each)} test error" for name, each in errors.items())
    return "\n".join(["Without batch norm:", *lines])


# ---- 04.6 ------------------------------------------------------------------------------------

third = EXERCISE.task("04.6", "The third value", "ternary", "TernaryLinear", seconds=240)


@third.check
def rounds_to_three_values(ternary: Any) -> None:
    """The weights become −gamma, 0 and gamma, with gamma the mean magnitude."""
    for values in ([2.0], [1.0, -3.0], [0.1, -0.5, 2.0, -3.0], [1.0, -1.0, 4.0, 0.0]):
        w = tensor(values)
        gamma = w.abs().mean()
        codes = tensor([float(abs(v) > gamma / 2) for v in values]) * w.sign()
        ratio = (w / gamma).round()
        case = Case(w=w)
        case.expect(
            ternary(w), gamma * codes, within=1e-6,
            cause="Divide by the mean magnitude, round, clip to [−1, 1], multiply it back.",
            mistakes={
                "w itself came: the detour is the wrong way round. Forward gives the values: "
                "w + (values − w).detach().": w,
                "The codes −1, 0, 1 came without their scale: multiply by gamma.": codes,
                "Large weights were not clipped: round(w / gamma) goes beyond ±1.": gamma * ratio,
                "There is no zero: these are scaled signs.":
                    gamma * torch.where(w >= 0, 1.0, -1.0),
                "w was not divided by gamma before it was rounded.": gamma * w.round().clamp(-1, 1),
                "The largest magnitude was taken for gamma; it is the mean.":
                    w.abs().max() * (w / w.abs().max()).round(),
            },
        )  # fmt: skip


@third.check
def one_gamma_for_the_matrix(ternary: Any) -> None:
    """Gamma is one number for the whole matrix."""
    w = tensor([[1.0, -1.0], [3.0, 3.0]])
    case = Case(w=w)
    case.expect(
        ternary(w), tensor([[0.0, 0.0], [2.0, 2.0]]), within=1e-6,
        cause="gamma = w.abs().mean(), over all elements.",
        mistakes={
            "Each row has a gamma of its own: this is per channel, and b1.58's is per tensor.": w,
        },
    )  # fmt: skip


@third.check
def a_third_becomes_zero(ternary: Any) -> None:
    """Of a large Gaussian matrix, about 31 in a hundred become zero."""
    w = torch.randn(400, 400)
    case = Case(w="torch.randn(400, 400)")
    zeros = 100 * (ternary(w) == 0).double().mean().item()
    if abs(zeros - 31) > 1:
        case.fail("31 % zeros", f"{zeros:.1f} %", "The threshold is gamma / 2, by rounding.")


@third.check
def gradient_passes_unchanged(ternary: Any) -> None:
    """The gradient passes to every weight as it came, to those rounded to zero as well."""
    w, g = tensor([0.1, -0.5, 2.0, -3.0]), tensor([1.0, 2.0, 3.0, 4.0])
    case = Case(w=w, gradient_arriving=g)
    gamma = w.abs().mean()
    codes = (w / gamma).round().clamp(-1, 1)
    by_gamma = w.sign() * (g * codes).mean()
    case.expect(
        gradient(ternary, w, g), g, within=1e-6, what="the gradient of w",
        cause="Backward is the identity: w + (values − w).detach() does it.",
        mistakes={
            "No gradient arrives: round has none. Straight through, as in 04.2.": None,
            "The gradient is zero, as that of round is. Straight through, as in 04.2.":
                torch.zeros(4),
            "Only gamma passed a gradient: that of round is zero. Straight through, as in 04.2.":
                by_gamma,
            "gamma passed a gradient besides: detach the whole difference.": g + by_gamma,
            "Weights rounded to zero get no gradient, so they can never come back.":
                g * (w.abs() > gamma / 2),
            "Large weights get no gradient: they were clipped before the detour. Detach the whole "
            "difference.": g * ((w / gamma).abs() <= 1),
            "The gradient was scaled by gamma.": gamma * g,
        },
    )  # fmt: skip


@third.check
def a_layer_of_three_values(TernaryLinear: Any) -> None:
    """The layer multiplies by the ternary values of its parameter `weight`, and learns."""
    made = TernaryLinear(4, 1)
    x, w = tensor([[1.0, 10.0, 100.0, 1000.0]]), tensor([[0.1, -0.5, 2.0, -3.0]])
    case = Case(x=x, weight=w)
    held = {name: tuple(p.shape) for name, p in made.named_parameters()}
    case.expect(held, {"weight": (1, 4)}, what="parameters", cause="One nn.Parameter, no bias.")
    with torch.no_grad():
        made.weight.copy_(w)
    product = made(x)
    case.expect(
        product.detach(), tensor([[-1260.0]]), within=1e-3, cause="x @ ternary(self.weight).T",
        mistakes={"The latent weights themselves were multiplied.": x @ w.T},
    )  # fmt: skip
    if product.grad_fn is not None:
        product.sum().backward()
    case.expect(made.weight.grad, x, what="the gradient of weight", cause="It has to be x.")


@third.check
def three_values_beat_two(ternary: Any, TernaryLinear: Any) -> str:
    """Three values miss less of trained weights than two, and err less on average on digits."""
    trained = network(_full, 0)
    fit(trained, 0.01)
    w = trained.get_parameter("3.weight").detach()
    alpha = w.abs().mean(1, keepdim=True)
    missed = [
        100 * ((w - values).square().sum() / w.square().sum()).item()
        for values in (alpha * w.sign(), ternary(w))
    ]
    case = Case(w="the middle layer of a trained network")
    if missed[1] > missed[0] - 5:
        case.fail(
            f"well below the {missed[0]:.1f} % of the squares that scaled signs miss",
            f"{missed[1]:.1f} %", "Is gamma the mean magnitude?",
        )  # fmt: skip
    case = Case(network="784-24-24-10 with batch norm", seeds=list(SEEDS), digits=20_000, passes=3)
    kinds: dict[str, Linear] = {
        "two values": partial(_Latent, _plain_signs),
        "three values": TernaryLinear,
    }
    errors = {
        name: [
            fit(network(kind, seed, width=24), 0.01, _clip, epochs=3, count=20_000)
            for seed in SEEDS
        ]
        for name, kind in kinds.items()
    }
    two, three = (sum(each) / len(SEEDS) for each in errors.values())
    if three > two - 0.1:
        case.fail(
            f"a mean below the {two:.1f} % of two values", f"{three:.1f} %",
            "The layer alone passed: does it draw its weights within 1 / sqrt(in_features)?",
        )  # fmt: skip
    return "\n".join(
        [f"Of trained weights, scaled signs miss {missed[0]:.0f} % of the squares, three values "
         f"{missed[1]:.0f} %.", *(f"{n}: {_percent(e)} test error" for n, e in errors.items())]
    )  # fmt: skip
