"""Checks of chapter 6's exercises: absmean ternary weights, int8 activations, and the layer."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn, tensor

from onebit.checks.digits import fit, network
from onebit.checks.tasks import Case, Exercise

EXERCISE = Exercise(__name__)

EPS = 1e-5
SEEDS = (0, 1, 2)


def _away(x: Tensor) -> Tensor:
    """Round ties away from zero."""
    return x.sign() * (x.abs() + 0.5).floor()


# ---- ch06.1 ----------------------------------------------------------------------------------

three = EXERCISE.task("ch06.1", "Three codes and a scale", "absmean")


@three.check
def gamma_is_the_mean_size(absmean: Any) -> None:
    """Gamma is the mean of |w|, one number without dimensions."""
    for values in ([2.0], [-1.0, 3.0], [0.5, -0.5, 4.0]):
        w = tensor(values)
        case = Case(w=w)
        case.expect(
            absmean(w)[1], w.abs().mean(), within=1e-6, what="gamma", cause="w.abs().mean().",
            mistakes={
                "The mean of w itself was taken, in which signs cancel: take |w| first.": w.mean(),
                "The largest magnitude was taken; gamma is the mean.": w.abs().max(),
                "The magnitudes were summed and not divided by their number.": w.abs().sum(),
                "The root mean square was taken; gamma is the mean magnitude.":
                    w.square().mean().sqrt(),
                "EPS was added to gamma; it is to be a lower bound: clamp(min=EPS).":
                    w.abs().mean() + EPS,
                "The mean kept a dimension, so that each row of a matrix would have a gamma of its "
                "own, per channel; b1.58's is one for the tensor.":
                    w.abs().mean(-1, keepdim=True),
                "One over gamma came; gamma is what codes are multiplied by.": 1 / w.abs().mean(),
            },
        )  # fmt: skip


@three.check
def codes_are_rounded_and_clipped(absmean: Any) -> None:
    """Codes are w / gamma, rounded and clipped to [−1, 1]."""
    for size in (1.0, 4.0, 0.25):
        w = size * tensor([0.7, -0.8, 0.3, -2.2])
        ratio = w / w.abs().mean()
        case = Case(w=w, gamma=size)
        case.expect(
            absmean(w)[0], tensor([1.0, -1.0, 0.0, -1.0]),
            cause="(w / gamma).round().clamp(-1, 1).",
            mistakes={
                "Large weights were not clipped: round(w / gamma) goes beyond ±1.": ratio.round(),
                "floor rounds down: −0.2 becomes −1, and 0.7 becomes 0. Take round.":
                    ratio.floor().clamp(-1, 1),
                "The fraction was cut off, so that 0.7 became 0: round first.":
                    ratio.trunc().clamp(-1, 1),
                "w was multiplied by gamma; it has to be divided.":
                    (w * w.abs().mean()).round().clamp(-1, 1),
                "w was not divided by gamma before it was rounded.": w.round().clamp(-1, 1),
                "These are the values gamma · code; the codes themselves are wanted, −1, 0 and 1.":
                    size * tensor([1.0, -1.0, 0.0, -1.0]),
                "There is no zero: these are signs.": w.sign(),
            },
        )  # fmt: skip


@three.check
def ties_go_to_the_even_code(absmean: Any) -> None:
    """A weight of exactly half of gamma becomes 0, which is even."""
    w = tensor([0.5, -0.5, 1.5, -1.5])
    case = Case(w=w, gamma=1.0)
    case.expect(
        absmean(w)[0], tensor([0.0, 0.0, 1.0, -1.0]), cause="torch.round does it.",
        mistakes={
            "Halves were rounded away from zero, as floor(|x| + 0.5) does: torch.round, and IEEE "
            "arithmetic, take the even neighbour, so that rounding leans neither way.":
                tensor([1.0, -1.0, 1.0, -1.0]),
            "Halves were rounded up, as floor(x + 0.5) does: torch.round takes the even neighbour.":
                tensor([1.0, 0.0, 1.0, -1.0]),
        },
    )  # fmt: skip


@three.check
def one_gamma_for_the_tensor(absmean: Any) -> None:
    """Gamma is one number for the whole matrix."""
    w = tensor([[1.0, -1.0], [3.0, 3.0]])
    case = Case(w=w)
    codes, gamma = absmean(w)
    per_row = "Each row has a gamma of its own: that is per channel, and b1.58's is per tensor."
    per_column = "The mean ran over one dimension only: b1.58's gamma is one for the tensor."
    case.expect(
        gamma, tensor(2.0), within=1e-6, what="gamma", cause="w.abs().mean().",
        mistakes={per_row: w.abs().mean(1, keepdim=True), f"{per_row} ": w.abs().mean(1),
                  per_column: w.abs().mean(0)},
    )  # fmt: skip
    case.expect(codes, tensor([[0.0, 0.0], [1.0, 1.0]]), what="codes", cause="w / gamma, rounded.")


@three.check
def nothing_divides_by_zero(absmean: Any) -> None:
    """Where gamma would be smaller than EPS it is EPS, and zeros stay zeros."""
    for values in ([0.0, 0.0], [1e-6, -3e-6]):
        w = tensor(values)
        case = Case(w=w)
        codes, gamma = absmean(w)
        case.expect(
            codes, torch.zeros(2), what="codes", cause="gamma is EPS here, so all codes are 0.",
            mistakes={"0 / 0 is NaN, and one such tensor spoils the whole network: keep gamma at "
                      "EPS at least.": torch.full((2,), math.nan),
                      "gamma was not kept at EPS at least, so noise became codes of full size.":
                      (w / w.abs().mean()).round().clamp(-1, 1)},
        )  # fmt: skip
        case.expect(gamma, tensor(EPS), within=1e-9, what="gamma", cause="clamp(min=EPS).")


@three.check
def codes_keep_the_dtype(absmean: Any) -> None:
    """Codes and gamma have the dtype of w."""
    w = tensor([1.0, -3.0], dtype=torch.float64)
    case = Case(w="[1, −3] in float64")
    for got, wanted, what in zip(
        absmean(w), (tensor([0.0, -1.0]), tensor(2.0)), ("codes", "gamma"), strict=True
    ):
        case.expect(got, wanted.double(), what=what, cause="Compute in the dtype of w.")


# ---- ch06.2 ----------------------------------------------------------------------------------

integers = EXERCISE.task("ch06.2", "Integers in the middle", "int_product")


@integers.check
def rows_meet_rows(int_product: Any) -> None:
    """Place (i, j) holds the product of row i of a and row j of w_b, in int32."""
    for m, n, k in itertools.product((1, 2), (1, 3), (1, 2, 3)):
        a = torch.randint(-9, 10, (m, k), dtype=torch.int8)
        w_b = torch.randint(-1, 2, (n, k), dtype=torch.int8)
        case = Case(a=a, w_b=w_b)
        right = [[sum(x * w for x, w in zip(p, q, strict=True)) for q in w_b.tolist()]
                 for p in a.tolist()]  # fmt: skip
        case.expect(
            int_product(a, w_b), tensor(right, dtype=torch.int32),
            cause="a @ w_b.T, in a wider type.",
        )  # fmt: skip


@integers.check
def sums_outgrow_eight_bits(int_product: Any) -> None:
    """Sums past 127 are exact."""
    for k in (2, 300, 200_001):
        a = torch.full((1, k), 127, dtype=torch.int8)
        w_b = torch.ones(1, k, dtype=torch.int8)
        case = Case(a=f"{k} elements, all 127", w_b=f"{k} elements, all 1")
        right = tensor([[127 * k]], dtype=torch.int32)
        case.expect(
            int_product(a, w_b), right, cause="Add up in int32.",
            mistakes={
                "The sum wrapped around at 127, in int8: integer sums need a wider accumulator "
                "than their operands. Convert before you multiply, not after.":
                    right.to(torch.int8).int(),
                "The sum wrapped around in int16: take int32.": right.to(torch.int16).int(),
                "Float32 is exact for integers up to 2^24 only, and this sum is larger: take "
                "int32.": (a.float() @ w_b.float().T).int(),
                "Sums were limited to those of 8 bits; let them grow, in int32.":
                    right.clamp(-128, 127),
            },
        )  # fmt: skip


# ---- ch06.3 ----------------------------------------------------------------------------------

eight = EXERCISE.task("ch06.3", "Eight bits a token", "absmax")


@eight.check
def scale_is_absmax_over_127(absmax: Any) -> None:
    """The scale is the largest magnitude over 127."""
    for values in ([[254.0]], [[1.0, -2.0]], [[0.5, -0.25, 3.0]]):
        x = tensor(values)
        largest = x.abs().amax(-1, keepdim=True)
        case = Case(x=x)
        case.expect(
            absmax(x)[1], largest / 127, within=1e-6, what="scale", cause="absmax / 127.",
            mistakes={
                "The quotient is upside down: x is divided by the scale, so that the largest "
                "magnitude becomes 127.": 127 / largest,
                "The scale was not divided by 127.": largest,
                "It was divided by 128: the largest code would be +128, which int8 has not; 127 is "
                "the largest.": largest / 128,
                "255 levels to both sides are too many: codes run from −127 to 127.": largest / 255,
                "The largest element was taken, not the largest magnitude: take |x| first.":
                    x.amax(-1, keepdim=True) / 127,
                "One scale came for the whole tensor. Each token has one, of shape (…, 1): take "
                "the maximum along the last dimension, with keepdim=True.": largest.max() / 127,
                "The mean magnitude was taken; activations go by the largest.":
                    x.abs().mean(-1, keepdim=True) / 127,
            },
        )  # fmt: skip


@eight.check
def codes_are_rounded(absmax: Any) -> None:
    """Codes are x / scale, rounded, in int8."""
    ratio = tensor([[127.0, -127.0, 63.3, -0.7, 0.7, -2.3]])
    for scale in (1.0, 2.0, 0.5):
        x = scale * ratio
        case = Case(x=x, scale=scale)
        case.expect(
            absmax(x)[0], ratio.round().to(torch.int8), cause="(x / scale).round(), and then int8.",
            mistakes={
                "The fraction was cut off, as a conversion to int8 does: round first.":
                    ratio.to(torch.int8),
                "floor rounds down: take round.": ratio.floor().to(torch.int8),
                "x was multiplied by the scale; it has to be divided.":
                    (x * scale).round().to(torch.int8),
                "x was not divided by the scale.": x.round().to(torch.int8),
                "−128 came for −127: codes run from −127 to 127, so that −x has the codes of x, "
                "negated.": (ratio * 128 / 127).round().clamp(-128, 127).to(torch.int8),
            },
        )  # fmt: skip


@eight.check
def halves_go_to_the_even_code(absmax: Any) -> None:
    """A value halfway between two codes becomes the even one."""
    x = tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]])
    case = Case(x=x, scale=1.0)
    case.expect(
        absmax(x)[0], tensor([[127, 0, 2, 2, 0, -2]], dtype=torch.int8),
        cause="torch.round does it.",
        mistakes={
            "Halves were rounded away from zero: torch.round takes the even neighbour, and the "
            "kernels of the book with it.": _away(x).to(torch.int8),
            "Halves were rounded up, as floor(x + 0.5) does: torch.round takes the even neighbour.":
                (x + 0.5).floor().to(torch.int8),
        },
    )  # fmt: skip


@eight.check
def each_token_has_its_own_scale(absmax: Any) -> None:
    """Each token, a row along the last dimension, has a scale of its own."""
    for values in ([[1.0, -2.0], [100.0, 50.0]], [[[1.0, -2.0]], [[8.0, 50.0]]]):
        x = tensor(values)
        case = Case(x=x)
        codes, scale = absmax(x)
        largest = x.abs().amax(-1, keepdim=True)
        per_tensor = (
            "One scale for all tokens: the largest of them decides for all, and in training a "
            "token would see those that come after it. Take the maximum along the last dimension."
        )
        case.expect(
            scale, largest / 127, within=1e-6, what="scale", cause="amax(-1, keepdim=True) / 127.",
            mistakes={
                per_tensor: x.abs().max() / 127,
                f"{per_tensor} ": (x.abs().max() / 127).expand(largest.shape),
                "The maximum ran over the wrong dimension, across tokens: the last one is a "
                "token's.": x.abs().amax(0, keepdim=True) / 127,
                "The maximum ran over the wrong dimension: the last one is a token's.":
                    x.abs().amax(1, keepdim=True) / 127,
                "The last dimension is gone, so that the scale does not divide row by row: "
                "keepdim=True.": largest[..., 0] / 127,
            },
        )  # fmt: skip
        case.expect(
            codes, (x / (largest / 127)).round().to(torch.int8), what="codes",
            cause="Divide each token by its own scale.",
        )  # fmt: skip


@eight.check
def a_token_of_zeros_stays_zero(absmax: Any) -> None:
    """A token of zeros has the scale EPS / 127, and codes 0."""
    x = tensor([[0.0, 0.0], [1.0, 127.0]])
    case = Case(x=x)
    codes, scale = absmax(x)
    case.expect(
        scale, tensor([[EPS / 127], [1.0]]), within=1e-9, what="scale", cause="clamp(min=EPS).",
        mistakes={
            "The scale of a token of zeros is 0, and 0 / 0 is NaN, which as int8 is whatever the "
            "processor makes of it: keep the maximum at EPS at least.": tensor([[0.0], [1.0]]),
            "EPS bounds the largest magnitude, before it is divided by 127.":
                tensor([[EPS], [1.0]]),
            "EPS was added; it is to be a lower bound: clamp(min=EPS).":
                (x.abs().amax(-1, keepdim=True) + EPS) / 127,
        },
    )  # fmt: skip
    case.expect(
        codes, tensor([[0, 0], [1, 127]], dtype=torch.int8), what="codes", cause="x / scale."
    )


# ---- ch06.4 ----------------------------------------------------------------------------------

trits = EXERCISE.task("ch06.4", "Five trits in a byte", "pack_trits", "unpack_trits")

POWERS = 3 ** torch.arange(5)


@trits.check
def five_codes_make_a_byte(pack_trits: Any) -> None:
    """Five codes plus 1 are the digits of a number in base 3, the first the lowest."""
    for first in itertools.chain(
        ((-1,) * 5, (0,) * 5, (1, -1, -1, -1, -1)), itertools.product((-1, 0, 1), repeat=5)
    ):
        codes = tensor(first, dtype=torch.int8)
        case = Case(codes=codes)
        digits = codes.int() + 1
        case.expect(
            pack_trits(codes), (digits * POWERS).sum(0, keepdim=True).to(torch.uint8),
            cause="(codes + 1) times 1, 3, 9, 27, 81, added up.",
            mistakes={
                "The codes were packed as they are: add 1 first, for digits 0, 1 and 2.":
                    (codes.int() * POWERS).sum(0, keepdim=True).to(torch.uint8),
                "The first code became the highest digit: it is the lowest.":
                    (digits * POWERS.flip(0)).sum(0, keepdim=True).to(torch.uint8),
                "Digits were given two bits each, as in base 4: here they are in base 3.":
                    (digits * 4 ** torch.arange(5)).sum(0, keepdim=True).to(torch.uint8),
            },
        )  # fmt: skip


@trits.check
def missing_codes_are_zero(pack_trits: Any) -> None:
    """The last byte is filled up with codes 0."""
    for count in (1, 2, 4, 6, 9):
        codes = torch.ones(count, dtype=torch.int8)
        case = Case(codes=codes)
        missing = -count % 5

        def packed(trit: int, codes: Tensor = codes, missing: int = missing) -> Tensor:
            digits = torch.cat([codes.int() + 1, torch.full((missing,), trit)])
            return (digits.reshape(-1, 5) * POWERS).sum(1).to(torch.uint8)

        case.expect(
            pack_trits(codes), packed(1), cause="Append trits 1, which are codes 0.",
            mistakes={
                "The last byte was filled up with trits 0, which are codes −1, and not nothing: "
                "append trits 1, or codes 0.": packed(0),
                "The last codes were left out: 5 codes to a byte, rounded up.":
                    packed(1)[: count // 5],
            },
        )  # fmt: skip


@trits.check
def every_byte_unpacks(unpack_trits: Any) -> None:
    """Each of the 243 bytes gives its five codes."""
    for byte in (121, 0, 242, *range(243)):
        packed = tensor([byte], dtype=torch.uint8)
        case = Case(packed=packed, count=5)
        right = tensor([byte // 3**i % 3 - 1 for i in range(5)], dtype=torch.int8)
        case.expect(
            unpack_trits(packed, 5), right, cause="Digit i is packed // 3**i % 3, and a code is "
            "one less.",
            mistakes={
                "The digits came, 0 to 2: a code is a digit minus 1.": right + 1,
                "The codes stand in reverse: the lowest digit is the first.": right.flip(0),
            },
        )  # fmt: skip


@trits.check
def codes_come_back(pack_trits: Any, unpack_trits: Any) -> str:
    """What is packed comes back, as many codes as asked for."""
    for count in (1, 5, 7, 1000):
        codes = torch.randint(-1, 2, (count,), dtype=torch.int8)
        case = Case(codes=f"{count} random codes", count=count)
        packed = pack_trits(codes)
        case.expect(
            unpack_trits(packed, count), codes, cause="Five codes a byte, in the order of bytes.",
            mistakes={
                "The order is that of the digits, not of the bytes: the codes of one byte belong "
                "side by side.":
                    (packed.int() // POWERS[:, None] % 3 - 1).flatten()[:count].to(torch.int8),
            },
        )  # fmt: skip
    return f"1000 codes take {len(packed)} bytes: {8 * len(packed) / 1000:g} bits each."


# ---- ch06.5 ----------------------------------------------------------------------------------

layer = EXERCISE.task("ch06.5", "The layer, to be trained", "BitLinear", seconds=120)


def _normed(x: Tensor) -> Tensor:
    eps = torch.finfo(x.dtype).eps
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt()


def _int8(x: Tensor) -> Tensor:
    scale = x.detach().abs().amax(-1, keepdim=True).clamp(min=EPS) / 127
    return (x / scale).round() * scale


def _ternary(w: Tensor) -> Tensor:
    gamma = w.detach().abs().mean().clamp(min=EPS)
    return (w / gamma).round().clamp(-1, 1) * gamma


def _set(BitLinear: Any, w: Tensor) -> nn.Module:
    made = BitLinear(w.shape[1], w.shape[0])
    held = {name: tuple(p.shape) for name, p in made.named_parameters()}
    Case(in_features=w.shape[1], out_features=w.shape[0]).expect(
        held, {"weight": tuple(w.shape)}, what="parameters",
        cause="One nn.Parameter, `weight`, of shape (out_features, in_features): no bias, and an "
        "RMSNorm without parameters.",
    )  # fmt: skip
    with torch.no_grad():
        made.weight.copy_(w)
    return made


W = tensor([[0.1, -0.5, 2.0, -3.0], [1.0, 0.4, -0.6, 0.8]])
X = tensor([[1.0, 2.0, -3.0, 0.51], [30.0, -1.0, 0.4, 12.3]])


@layer.check
def forward_rounds_both(BitLinear: Any) -> None:
    """Forward is RMSNorm, int8 activations and ternary weights, each with its scale."""
    for x in (X[:1], X):
        made = _set(BitLinear, W)
        case = Case(x=x, weight=W)
        n, w_b = _normed(x), W.div(W.abs().mean()).round().clamp(-1, 1)
        scale = n.abs().amax(-1, keepdim=True) / 127
        case.expect(
            made(x).detach(), _int8(n) @ _ternary(W).T, within=1e-4,
            cause="F.rms_norm, then codes times scale of both, multiplied.",
            mistakes={
                "The norm in front was left out.": _int8(x) @ _ternary(W).T,
                "The weights were not rounded: take the values of absmean.": _int8(n) @ W.T,
                "The activations were not rounded: take the values of absmax.":
                    n @ _ternary(W).T,
                "gamma is missing: the codes −1, 0 and 1 are to be multiplied by it.":
                    _int8(n) @ w_b.T,
                "The product was divided by gamma; it has to be multiplied.":
                    _int8(n) @ w_b.T / W.abs().mean(),
                "The scale of the activations is missing: multiply by it.":
                    _int8(n) / scale @ _ternary(W).T,
                "The product was divided by the activations' scale; it has to be multiplied: x is "
                "codes times scale.": _int8(n) / scale / scale @ _ternary(W).T,
                "The activations share one scale; each token is to have its own.":
                    (n / n.abs().max() * 127).round() * n.abs().max() / 127 @ _ternary(W).T,
                "The norm is a LayerNorm, which takes off the mean; RMSNorm does not.":
                    _int8(torch.nn.functional.layer_norm(x, x.shape[-1:])) @ _ternary(W).T,
            },
        )  # fmt: skip


@layer.check
def weights_learn_through_the_rounding(BitLinear: Any) -> None:
    """The gradient reaches every weight as if none had been rounded, from rounded activations."""
    made = _set(BitLinear, W)
    g = tensor([[1.0, -2.0], [0.5, 3.0]])
    case = Case(x=X, weight=W, gradient_arriving=g)
    y = made(X)
    if y.grad_fn is not None:
        y.backward(g)
    n = _normed(X)
    arriving = g.T @ _int8(n)
    gamma = W.abs().mean()
    w_b = (W / gamma).round().clamp(-1, 1)
    by_gamma = W.sign() * (arriving * w_b).mean()
    case.expect(
        made.weight.grad, arriving, within=1e-4, what="the gradient of weight",
        cause="Of x + (values − x).detach() and w + (values − w).detach(): the gradient that "
        "arrives, times the rounded activations.",
        mistakes={
            "No gradient arrives: round has none. w + (values − w).detach() passes it on.": None,
            "The gradient is zero, as that of round is: w + (values − w).detach() passes it on.":
                torch.zeros_like(W),
            "Only gamma passed a gradient: that of round is zero. Detach the whole difference "
            "values − w.": by_gamma,
            "gamma passed a gradient besides: it counts as a constant. Detach the whole "
            "difference.": arriving + by_gamma,
            "The gradient was scaled by gamma: pass it on unchanged.": gamma * arriving,
            "Weights that are clipped get no gradient: clip inside of what is detached.":
                arriving * ((W / gamma).abs() <= 1),
            "Weights whose code is 0 get no gradient, so they can never come back.":
                arriving * w_b.abs(),
            "The gradient is that of unrounded activations: multiply by what was rounded.":
                g.T @ n,
        },
    )  # fmt: skip


@layer.check
def gradient_passes_to_the_input(BitLinear: Any) -> None:
    """The gradient passes the rounding of activations, and goes through the norm."""
    made = _set(BitLinear, W)
    g = tensor([[1.0, -2.0], [0.5, 3.0]])
    case = Case(x=X, weight=W, gradient_arriving=g)

    def through(rounding: Any, norm: Any = _normed) -> Tensor:
        x = X.clone().requires_grad_()
        (rounding(norm(x)) @ _ternary(W).T).backward(g)
        assert x.grad is not None
        return x.grad

    def rescaled(n: Tensor) -> Tensor:
        scale = n.abs().amax(-1, keepdim=True) / 127
        ratio = n / scale.detach()
        return (ratio + (ratio.round() - ratio).detach()) * scale

    x = X.clone().requires_grad_()
    y = made(x)
    if y.grad_fn is not None:
        y.backward(g)
    case.expect(
        x.grad, through(lambda n: n), within=1e-4, what="the gradient of x",
        cause="x + (values − x).detach(), behind the norm.",
        mistakes={
            "No gradient reaches x: something that it passes through is detached as a whole, or "
            "was converted to integers. x + (values − x).detach() passes it on.": None,
            "The gradient of x is zero, as that of round is: x + (values − x).detach() passes it "
            "on.": torch.zeros_like(X),
            "The norm was detached: it is to be learned through.": g @ _ternary(W),
            "The scale passed a gradient besides: it counts as a constant.": through(rescaled),
        },
    )  # fmt: skip


@layer.check
def learns_digits_in_three_values(BitLinear: Any) -> str:
    """A network of three such layers learns digits, from each of three seeds."""
    errors = []
    for seed in SEEDS:
        case = Case(network="784-32-32-10 with batch norm", digits=10_000, passes=1, seed=seed)
        errors.append(fit(network(BitLinear, seed), 0.01))
        if errors[-1] >= 25:
            case.fail(
                "a test error below 25 %", f"{errors[-1]:.1f} %",
                "Each part passed alone: are the weights drawn within 1 / sqrt(in_features)?",
            )  # fmt: skip
    told = ", ".join(f"{error:.1f} %" for error in errors)
    return f"Test errors of ternary weights and int8 activations: {told}."


# ---- ch06.6 ----------------------------------------------------------------------------------

best = EXERCISE.task("ch06.6", "The best three values", "best_ternary")


def _error(w: Tensor, codes: Tensor, scale: Tensor) -> float:
    return (w - scale * codes).square().sum().item()


@best.check
def no_codes_come_closer(best_ternary: Any) -> None:
    """No codes with any scale come closer to w: all are tried."""
    smallest = ([2.0], [-1.0, 3.0], [1.0, 1.0], [0.0, -2.0], [4.0, 1.0, -0.1], [3.0, -2.9, 1.5])
    random = (torch.randn(k).tolist() for k in (3, 4, 5, 6, 6, 6))
    for values in itertools.chain(smallest, random):
        w = tensor(values)
        case = Case(w=w)
        codes, scale = best_ternary(w)
        if not set(codes.tolist()) <= {-1.0, 0.0, 1.0} or codes.shape != w.shape:
            case.fail(
                f"{len(w)} codes of −1, 0 and 1", codes, "Return codes and scale by themselves."
            )  # fmt: skip
        case.expect(scale.dim(), 0, what="dimensions of the scale", cause="One scale for all.")
        found = []
        for tried in itertools.product((-1.0, 0.0, 1.0), repeat=len(w)):
            c = tensor(tried)
            s = (w @ c / c.square().sum().clamp(min=1)).clamp(min=0)
            found.append((_error(w, c, s), c, s))
        least, c, s = min(found, key=lambda each: each[0])
        got = _error(w, codes, scale)
        if got > least + 1e-5 * (1 + least):
            gamma, sizes = w.abs().mean(), w.abs()
            of_absmean = (w / gamma).round().clamp(-1, 1)
            mine = (w @ codes / codes.square().sum().clamp(min=1)).item()
            cause = "Try each number of largest magnitudes to keep, and take the best."
            if abs(mine - scale.item()) > 1e-4 * (1 + mine):
                cause = "The scale is not the mean magnitude of the weights that are kept."
                if abs(scale.item() - gamma.item()) < 1e-6:
                    cause = "The scale is the mean of all magnitudes; that of the weights that are "
                    cause += "kept, those whose code is not 0, comes closer."
            elif bool((codes == of_absmean).all()):
                cause = "The threshold is b1.58's, half the absmean: simple, and not the best."
            elif bool((codes != 0).all()):
                cause = "No weight became 0: S grows with every weight that is kept, S² / m does "
                cause += "not."
            elif bool((codes == torch.where(sizes >= sizes.max(), w.sign(), 0.0)).all()):
                cause = "Only the largest magnitude was kept: S / m falls with every weight that "
                cause += "is kept, S² / m need not."
            case.fail(
                f"squared error {least:.4g}, as of codes {c.int().tolist()} and scale {s:.4g}",
                f"{got:.4g}, of codes {codes.int().tolist()} and scale {scale.item():.4g}", cause,
            )  # fmt: skip


@best.check
def gaussian_weights_keep_about_half(best_ternary: Any) -> str:
    """Of many Gaussian weights, the best codes miss 19 % of the squares, and 46 % are 0."""
    w = torch.randn(20_000)
    case = Case(w="torch.randn(20000)")
    codes, scale = best_ternary(w)
    missed = 100 * _error(w, codes, scale) / w.square().sum().item()
    if not 18 < missed < 20:
        case.fail("19 % of the squares missed", f"{missed:.1f} %", "It was right for few weights.")
    absmean = 100 * (w - _ternary(w)).square().sum().item() / w.square().sum().item()
    zeros = 100 * (codes == 0).float().mean().item()
    return (
        f"Of Gaussian weights, the best three values miss {missed:.1f} % of the squares, with "
        f"{zeros:.0f} % zeros; b1.58's miss {absmean:.1f} %."
    )
