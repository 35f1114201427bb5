"""Checks of chapter 3's exercises: scales of filters and of windows, their gradient, their end."""

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, tensor

from onebit import data
from onebit.checks.tasks import Case, Exercise, gradient

EXERCISE = Exercise(__name__)

CLOSE = 1e-5


def _signs(w: Tensor) -> Tensor:
    return torch.where(w >= 0, 1.0, -1.0)


# ---- ch03.1 ----------------------------------------------------------------------------------

scale = EXERCISE.task("ch03.1", "The best scale", "best_scale")

FROM_SIGNS = (
    "The scale was taken of the signs, whose mean magnitude is always 1: take it of the latent "
    "weights."
)


@scale.check
def mean_of_magnitudes(best_scale: Any) -> None:
    """The scale is the one that least squares gives."""
    for values in ([2.0], [-3.0], [1.0, -3.0], [0.9, -0.3, 0.5, -0.1]):
        w = tensor(values)
        k = len(values)
        case = Case(w=w)
        case.expect(
            best_scale(w), w @ _signs(w) / k, within=CLOSE,
            cause="The derivative of |w − alpha · sign(w)|² vanishes at w · sign(w) / k.",
            mistakes={
                "The mean of w itself was taken, in which signs cancel: take |w| first.": w.mean(),
                FROM_SIGNS: tensor(1.0),
                "The magnitudes were summed and not divided by their number.": w.abs().sum(),
                "The largest magnitude was taken; least squares gives the mean.": w.abs().max(),
                "The root of the mean square was taken. That keeps the length of w; it does not "
                "come closest.": w.square().mean().sqrt(),
                "The length of w was taken, the root of the sum of squares; the sum of magnitudes "
                "is in the formula.": w.norm(),
                "The length of w was divided by k; the sum of magnitudes has to be.": w.norm() / k,
                "The middle magnitude was taken. It makes the sum of distances smallest, and not "
                "that of their squares.": w.abs().median(),
            },
        )  # fmt: skip


@scale.check
def no_scale_comes_closer(best_scale: Any) -> None:
    """For weights of any shape, no other scale comes closer to all of them together."""
    for shape in ((5,), (3, 4), (2, 3, 3, 3)):
        w = torch.randn(shape)
        case = Case(w=f"torch.randn({', '.join(map(str, shape))})")
        alpha = best_scale(w)
        case.expect(
            alpha, w.flatten() @ _signs(w).flatten() / w.numel(), within=CLOSE,
            cause="All elements of w belong to one filter here: one number comes.",
        )  # fmt: skip
        here, *others = ((w - f * alpha * _signs(w)).square().sum().item() for f in (1, 0.99, 1.01))
        if min(others) < here:
            case.fail("no closer scale nearby", "one a hundredth away", "Take the mean of |w|.")


# ---- ch03.2 ----------------------------------------------------------------------------------

filters = EXERCISE.task("ch03.2", "One scale for each filter", "filter_scales")


@filters.check
def one_for_each_row(filter_scales: Any) -> None:
    """A matrix (n, k) gets n scales, of shape (n, 1)."""
    for rows in ([[1.0, -3.0]], [[1.0, -3.0], [0.5, 0.0]], [[1.0, -3.0, 5.0], [0.0, 0.5, 1.0]]):
        w = tensor(rows)
        alpha = w.abs().sum(1, keepdim=True) / w.shape[1]
        case = Case(w=w)
        case.expect(
            filter_scales(w), alpha, within=CLOSE, cause="Average |w| over each row.",
            mistakes={
                "The mean ran over the wrong axis, the outputs: dim 0 is n, dim 1 is k.":
                    w.abs().mean(0, keepdim=True),
                "The mean ran over the wrong axis, the outputs, and its dimension is gone.":
                    w.abs().mean(0),
                "The averaged dimension is gone: (n,) would multiply columns, not rows. Say "
                "keepdim=True.": alpha[:, 0],
                "One scale for the whole matrix: each row is to have its own.": w.abs().mean(),
                "One scale for the whole matrix; each row is to have its own.":
                    w.abs().mean().expand(len(w), 1),
                FROM_SIGNS: torch.ones_like(alpha),
                "The mean of w itself was taken, in which signs cancel: take |w| first.":
                    w.mean(1, keepdim=True),
                "The magnitudes were summed and not divided by their number.":
                    w.abs().sum(1, keepdim=True),
                "The largest magnitude was taken in place of the mean.":
                    w.abs().amax(1, keepdim=True),
            },
        )  # fmt: skip


@filters.check
def one_for_each_output_of_a_convolution(filter_scales: Any) -> None:
    """The weights (n, c, height, width) of a convolution get n scales, of shape (n, 1, 1, 1)."""
    for shape in ((1, 2, 1, 2), (2, 2, 2, 1), (3, 2, 3, 3)):
        size = torch.Size(shape).numel()
        w = (torch.arange(1.0, size + 1) * tensor([1.0, -1.0]).repeat(size)[:size]).reshape(shape)
        case = Case(w=w if size < 17 else f"±1, ±2, …, ±{size} in the shape {shape}")
        alpha = tensor([row.abs().mean() for row in w]).reshape(-1, 1, 1, 1)
        case.expect(
            filter_scales(w), alpha, within=CLOSE,
            cause="Average over all dimensions but the first.",
            mistakes={
                "mean(dim=1) leaves height · width scales for each filter, and such a scale cannot "
                "wait until the sum is done. Average over all dimensions but the first.":
                    w.abs().mean(1, keepdim=True),
                "The mean ran over the window only and left c scales for each filter. Average over "
                "all dimensions but the first.": w.abs().mean((2, 3), keepdim=True),
                "The mean ran over the outputs too.": w.abs().mean((0, 2, 3), keepdim=True),
                "The averaged dimensions are gone: the shape (n, 1, 1, 1) multiplies the weights. "
                "Say keepdim=True, or reshape.": alpha.flatten(),
                "The scales have the shape of a matrix's; four dimensions are needed to multiply "
                "the weights.": alpha.flatten(1),
                "One scale for all filters: each is to have its own.": w.abs().mean(),
            },
        )  # fmt: skip


# ---- ch03.3 ----------------------------------------------------------------------------------

convolution = EXERCISE.task("ch03.3", "Scale after the sum", "scaled_conv")


def _alphas(w: Tensor) -> Tensor:
    return tensor([row.abs().mean() for row in w])


def _brute(x: Tensor, w: Tensor) -> Tensor:
    """Sum the products of all windows with all filters."""
    n, _, height, width = w.shape
    tall, wide = x.shape[2] - height + 1, x.shape[3] - width + 1
    sums = [
        (image[:, i : i + height, j : j + width] * each).sum()
        for image, each, i, j in itertools.product(x, w, range(tall), range(wide))
    ]
    return tensor(sums).reshape(len(x), n, tall, wide)


@convolution.check
def signs_meet_signs(scaled_conv: Any) -> None:
    """The signs of x meet the signs of w, and alpha multiplies the sum."""
    x, w, bias = tensor([0.5, 2.0, 3.0]), tensor([0.25, -0.75, 0.5]), torch.zeros(1)
    case = Case(x=x, w=w, bias=bias, shapes="x and w (1, 1, 1, 3), bias (1,)")
    got = scaled_conv(x.reshape(1, 1, 1, 3), w.reshape(1, 1, 1, 3), bias)
    answers = {
        "x entered with its real values: take its signs too.": 0.5 * (x @ _signs(w)),
        "w entered with its real values: take its signs, and its mean magnitude after the sum.":
            _signs(x) @ w,
        "Nothing was made binary: that is the ordinary convolution.": x @ w,
        "alpha is missing: that is the bare product of signs.": _signs(x) @ _signs(w),
        "alpha was multiplied twice.": 0.25 * (_signs(x) @ _signs(w)),
        "The product was also multiplied by the mean |x|; that is K, and comes in ch03.4.":
            0.5 * x.mean() * (_signs(x) @ _signs(w)),
    }  # fmt: skip
    case.expect(
        got, tensor([[[[0.5]]]]), within=CLOSE,
        cause="It is alpha · (sign(x) · sign(w)), here 0.5 · (1 − 1 + 1).",
        mistakes={cause: answer.reshape(1, 1, 1, 1) for cause, answer in answers.items()},
    )  # fmt: skip


@convolution.check
def zeros_count_as_plus_one(scaled_conv: Any) -> None:
    """Activations and weights of zero count as +1."""
    for number_x, number_w in ((0.0, 0.5), (-0.5, 0.0)):
        x, w = tensor([1.0, number_x]), tensor([-0.5, number_w])
        bias = torch.zeros(1)
        case = Case(x=x, w=w, bias=bias, shapes="x and w (1, 1, 1, 2), bias (1,)")
        alpha = w.abs().mean()
        case.expect(
            scaled_conv(x.reshape(1, 1, 1, 2), w.reshape(1, 1, 1, 2), bias),
            (alpha * (_signs(x) @ _signs(w))).reshape(1, 1, 1, 1), within=CLOSE,
            cause="Both signs have to be ±1, with zero on the positive side: use x >= 0.",
            mistakes={
                "torch.sign(0) is 0, and one bit has no third value. After a ReLU many activations "
                "are 0: use x >= 0.": (alpha * (x.sign() @ w.sign())).reshape(1, 1, 1, 1),
            },
        )  # fmt: skip


@convolution.check
def bias_comes_last(scaled_conv: Any) -> None:
    """The bias is added at the end, as it is."""
    x, w, bias = torch.ones(1, 1, 1, 1), tensor([[[[-0.5]]]]), tensor([10.0])
    case = Case(x=x, w=w, bias=bias)
    case.expect(
        scaled_conv(x, w, bias), tensor([[[[9.5]]]]), within=CLOSE,
        cause="The order: product of signs, times alpha, plus bias.",
        mistakes={
            "The bias was forgotten.": tensor([[[[-0.5]]]]),
            "The bias was scaled by alpha: it was added before the scale, and belongs after it.":
                tensor([[[[4.5]]]]),
            "The bias was made binary: it stays a real number.": tensor([[[[0.5]]]]),
        },
    )  # fmt: skip


@convolution.check
def each_filter_has_its_own(scaled_conv: Any) -> None:
    """Channel i of the result has the scale and the bias of filter i."""
    small = torch.ones(1, 1, 1, 1), tensor([-0.5, 4.0]).reshape(2, 1, 1, 1), tensor([10.0, 20.0])
    tried: list[tuple[Tensor, ...]] = [small]
    for images, n, c, height, tall in ((2, 2, 1, 1, 2), (2, 3, 2, 3, 4)):
        shapes = (images, c, tall, tall), (n, c, height, height), (n,)
        tried.append(tuple(map(torch.randn, shapes)))
    for x, w, bias in tried:
        images, n = len(x), len(w)
        z, alpha = _brute(_signs(x), _signs(w)), _alphas(w)
        b = bias.reshape(1, n, 1, 1)
        case = Case(
            **({"x": x, "w": w, "bias": bias} if x.numel() < 9 else
               {"drawn": f"x {tuple(x.shape)}, w {tuple(w.shape)}, bias ({n},)"})
        )  # fmt: skip
        mistakes = {
            "All filters share one scale: each is to have its own.": w.abs().mean() * z + b,
            "The bias was forgotten.": alpha.reshape(1, n, 1, 1) * z,
        }
        if images in (1, n):
            mistakes["alpha of shape (n, 1, 1, 1) runs along the images. Channels are dimension 1 "
                     "of the result, so it has to be (1, n, 1, 1)."] = (
                         alpha.reshape(n, 1, 1, 1) * z + b)  # fmt: skip
        if z.shape[3] in (1, n):
            mistakes |= {
                "alpha of shape (n,) runs along the columns of the image. Channels are dimension 1 "
                "of the result, so it has to be (1, n, 1, 1).": alpha * z + b,
                "The bias of shape (n,) runs along the columns of the image. Channels are "
                "dimension 1 of the result, so it has to be (1, n, 1, 1).":
                    alpha.reshape(1, n, 1, 1) * z + bias,
            }  # fmt: skip
        case.expect(
            scaled_conv(x, w, bias), alpha.reshape(1, n, 1, 1) * z + b, within=CLOSE,
            cause="alpha and bias belong to the channels of the result, dimension 1.",
            mistakes=mistakes,
        )  # fmt: skip


@convolution.check
def alpha_waits_for_the_sum(scaled_conv: Any) -> None:
    """Windows with the same sum of signs give the same number, to the last digit."""
    x, w, bias = torch.randn(1, 500, 8, 8), torch.randn(2, 500, 1, 1), torch.zeros(2)
    z, alpha = _brute(_signs(x), _signs(w)), _alphas(w)
    case = Case(drawn="x (1, 500, 8, 8), w (2, 500, 1, 1)", bias=bias)
    got = scaled_conv(x, w, bias)
    case.expect(
        got, alpha.reshape(1, 2, 1, 1) * z, within=1e-3, cause="It was right for fewer channels."
    )
    for each, sums in zip(got[0], z[0], strict=True):
        for total in sums.unique():
            least, most = (f"{v.item():.9g}" for v in each[sums == total].aminmax())
            if least != most:
                case.fail(
                    f"one number for all windows whose signs add up to {total:g}",
                    f"{least} and {most}",
                    "alpha was inside the sum, where the order of the terms changes the rounding; "
                    "so each term was a product of real numbers, and no bit. Multiply signs with "
                    "signs, and their sum by alpha.",
                )  # fmt: skip


# ---- ch03.4 ----------------------------------------------------------------------------------

windows = EXERCISE.task("ch03.4", "The scale of every window", "input_scale")


def _window_means(x: Tensor, size: int) -> Tensor:
    """Average all channels of each window of x, which reaches into zeros at the rim."""
    reach = size // 2
    images, _, tall, wide = x.shape
    framed = torch.zeros(images, x.shape[1], tall + 2 * reach, wide + 2 * reach)
    framed[:, :, reach : reach + tall, reach : reach + wide] = x
    means = [
        image[:, i : i + size, j : j + size].mean()
        for image, i, j in itertools.product(framed, range(tall), range(wide))
    ]
    return tensor(means).reshape(images, 1, tall, wide)


@windows.check
def mean_over_channels(input_scale: Any) -> None:
    """A window of one place averages the magnitudes of its channels."""
    x = tensor([1.0, -3.0, 8.0])
    case = Case(x=x, shape="(1, 3, 1, 1)", size=1)
    case.expect(
        input_scale(x.reshape(1, 3, 1, 1), 1), tensor([[[[4.0]]]]), within=CLOSE,
        cause="x.abs().mean(dim=1, keepdim=True) averages over the channels.",
        mistakes={
            "K was taken from the binarised input, whose magnitudes are all 1: the sizes that the "
            "signs forget are what K is for.": torch.ones(1, 1, 1, 1),
            "The mean of x itself was taken, in which signs cancel: take |x| first.":
                tensor([[[[2.0]]]]),
            "The channels were added up and not averaged.": tensor([[[[12.0]]]]),
            "Each channel has a K of its own; it is one for all channels of a window.":
                x.abs().reshape(1, 3, 1, 1),
            "The channel dimension is gone: say keepdim=True.": tensor([[[4.0]]]),
        },
    )  # fmt: skip


@windows.check
def mean_over_the_window(input_scale: Any) -> None:
    """A larger window averages over its places, and counts the zeros beyond the image."""
    pictures = (
        [[0.0, 0.0, 0.0, 0.0], [0.0, 9.0, 0.0, -18.0], [0.0, 0.0, 0.0, 0.0]],
        [[0.0, -9.0, 18.0, 9.0], [9.0, 27.0, -9.0, 0.0], [36.0, 9.0, 0.0, -9.0]],
    )
    for picture in pictures:
        x = tensor([[picture]])
        case = Case(x=x, size=3)
        right = _window_means(x.abs(), 3)
        inside = _window_means(torch.ones_like(x), 3)
        mistakes = {
            "K was taken from the binarised input, whose magnitudes are all 1: the sizes that the "
            "signs forget are what K is for.": inside,
            "The mean of x itself was taken, in which signs cancel: take |x| first.":
                _window_means(x, 3),
            "The magnitudes of a window were added up and not averaged: the box filter holds "
            "1 / 9 at each of its places.": 9 * right,
            "The zeros beyond the rim were left out of the mean; here they count, as they do in "
            "the convolution (count_include_pad).": right / inside,
            "Only places were averaged over which the window lies wholly inside: pad by size // 2.":
                right[:, :, 1:-1, 1:-1],
            "Each place has its own magnitude only: the mean over the window is missing.": x.abs(),
            "There is one number for the whole image: each window has its own.":
                x.abs().mean().reshape(1, 1, 1, 1),
            "The window moved by its own size: stride=1 puts one around each place.":
                F.avg_pool2d(x.abs(), 3, padding=1),
        }  # fmt: skip
        case.expect(
            input_scale(x, 3), right, within=CLOSE,
            cause="Average the mean magnitudes over the places of each window: a box filter.",
            mistakes=mistakes,
        )  # fmt: skip


@windows.check
def every_window_of_every_image(input_scale: Any) -> None:
    """K is right for images of any size, with several channels, and windows of 1, 3 and 5."""
    for shape, size in itertools.product(((2, 3, 4, 5), (3, 1, 7, 6), (1, 2, 2, 2)), (1, 3, 5)):
        x = torch.randn(shape)
        right = _window_means(x.abs(), size)
        case = Case(x=f"torch.randn{shape}", size=size)
        case.expect(
            input_scale(x, size), right, within=CLOSE, cause="Windows of 3 were right.",
            mistakes={
                "The padding does not grow with the window: size × size places need size // 2.":
                    right[:, :, 1:-1, 1:-1],
            } if size == 5 else {},
        )  # fmt: skip


@windows.check
def k_comes_closer(input_scale: Any) -> str:
    """With K, the signs of the activations come closer to the real ones in a convolution."""
    images = data.normalise(data.mnist("test")[0][:100], flatten=False)
    first, w_b = torch.randn(8, 1, 3, 3), _signs(torch.randn(16, 8, 3, 3))
    x = F.max_pool2d(F.conv2d(images, first, padding=1), 2)
    x = F.batch_norm(x, None, None, training=True)
    exact, product = (F.conv2d(each, w_b, padding=1) for each in (x, _signs(x)))
    case = Case(x="100 digits after a convolution, pooling and batch norm", size=3)
    without, with_k = (
        100 * (1 - F.cosine_similarity(exact.flatten(), each.flatten(), dim=0) ** 2).item()
        for each in (product, input_scale(x, 3) * product)
    )
    if with_k > without - 4:
        case.fail(
            f"well below the {without:.1f} % of the squares that are missed without K",
            f"{with_k:.1f} %", "Is K that of each window, in its place?",
        )  # fmt: skip
    return (
        f"Of a convolution of real activations and binary weights, signs miss {without:.0f} % of "
        f"the squares, and with K {with_k:.0f} %, the best scale granted to both."
    )


# ---- ch03.5 ----------------------------------------------------------------------------------

summed = EXERCISE.task("ch03.5", "The gradient with its sum", "ScaledSign")


@summed.check
def forward_scales_signs(ScaledSign: Any) -> None:
    """Forward gives the scale of each row times its signs, with zero as +1."""
    for rows in ([[1.0, -3.0]], [[0.0, -1.0]], [[1.0, -3.0], [0.5, 0.5]]):
        w = tensor(rows)
        alpha = w.abs().mean(1, keepdim=True)
        case = Case(w=w)
        case.expect(
            ScaledSign.apply(w), alpha * _signs(w), within=CLOSE,
            cause="Forward is filter_scales(w) times the signs.",
            mistakes={
                "A weight of zero came out as 0; its sign is +1.": alpha * w.sign(),
                "The scale is missing.": _signs(w),
                "One scale for the whole matrix: each row is to have its own.":
                    w.abs().mean() * _signs(w),
            },
        )  # fmt: skip


def _ways(w: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Give the gradient through the signs, unmasked, and that through alpha."""
    s = _signs(w)
    return w.abs().mean(1, keepdim=True) * g, s * (g * s).mean(1, keepdim=True)


@summed.check
def both_ways_reach_w(ScaledSign: Any) -> None:
    """Within ±1 the gradient is alpha · g, and in addition what passes through alpha."""
    for rows in ([[0.5]], [[0.5, -0.25]], [[0.5, -0.25, 1.0, -0.75]]):
        w = tensor(rows)
        g = torch.zeros_like(w)
        g[0, 0] = 1.0
        k = w.shape[1]
        s = _signs(w)
        by_sign, by_alpha = _ways(w, g)
        alpha = w.abs().mean()
        case = Case(w=w, gradient_arriving=g)
        right = by_sign + by_alpha
        mistakes = {
            "Nothing passes alpha, as if it were a constant: but each weight has a share in it. "
            "Add sign(w) · mean(g · sign(w)) of the row.": by_sign,
            "Nothing passes the signs: no STE. Add alpha · g where |w| <= 1.": by_alpha,
            "The gradient is zero.": torch.zeros_like(w),
            "g / k stands where the sum has to: this is the formula as the paper prints it, "
            "without its stray factor. alpha holds all weights of the row, so every g has a say "
            "in each weight's gradient: sign(w) · mean(g · sign(w)).": by_sign + g / k,
            "This is the formula as the paper prints it. The factor r does not belong there, and "
            "g / k has to be a sum over the row: sign(w) · mean(g · sign(w)).":
                g * (1 / k + alpha * w),
            "The slope of the sign was taken for w itself: it is 1 within ±1.":
                by_sign * w + by_alpha,
            "The part through alpha lacks the factor 1 / k: it is a mean, and no sum.":
                by_sign + k * by_alpha,
            "The part through alpha lacks the sign of each w in front: the slope of |w| is "
            "sign(w).": by_sign + s * by_alpha,
            "The part through alpha lacks the signs inside the mean: g · sign(w).":
                by_sign + s * g.mean(),
            "The gradient passed the sign without alpha: the signs are multiplied by it.":
                g + by_alpha,
            "The gradient passed straight through: the scale has a part in it.": g,
        }  # fmt: skip
        case.expect(
            gradient(ScaledSign.apply, w, g), right, within=CLOSE, what="the gradient of w",
            cause="By the product rule: alpha · g, and sign(w) · mean(g · sign(w)) of the row.",
            mistakes=mistakes,
        )  # fmt: skip


@summed.check
def mask_stops_the_signs_only(ScaledSign: Any) -> None:
    """Beyond ±1 nothing passes the signs any more, and still the same passes alpha."""
    for rows in ([[2.0]], [[-2.0, 0.5]], [[1.0, -1.0, 1.5, -0.5]]):
        w = tensor(rows)
        g = torch.arange(1.0, w.numel() + 1).reshape(1, -1)
        by_sign, by_alpha = _ways(w, g)
        inside = w.abs() <= 1
        case = Case(w=w, gradient_arriving=g)
        case.expect(
            gradient(ScaledSign.apply, w, g), by_sign * inside + by_alpha, within=CLOSE,
            what="the gradient of w", cause="The mask |w| <= 1 belongs to alpha · g.",
            mistakes={
                "The gradient through the signs is not clipped: it has to be 0 where |w| > 1.":
                    by_sign + by_alpha,
                "The mask stopped what passes alpha as well; |w| has its slope everywhere.":
                    (by_sign + by_alpha) * inside,
                "The bound belongs to the inside: |w| <= 1.":
                    by_sign * (w.abs() < 1) + by_alpha,
                "What arrives was masked before the sum over the row; g · sign(w) counts whole.":
                    by_sign * inside + _ways(w, g * inside)[1],
            },
        )  # fmt: skip


@summed.check
def each_row_by_itself(ScaledSign: Any) -> None:
    """Each row has its own scale, and its own sum; a weight of zero counts as +1."""
    for rows in ([[0.5], [-2.0]], [[0.5, -0.25], [0.75, 3.0]], [[0.0, -0.5, 2.0], [0.0, 0.0, 1.0]]):
        w = tensor(rows)
        g = torch.arange(1.0, w.numel() + 1).reshape(w.shape)
        s, inside = _signs(w), w.abs() <= 1
        by_sign, by_alpha = _ways(w, g)
        case = Case(w=w, gradient_arriving=g)
        case.expect(
            gradient(ScaledSign.apply, w, g), by_sign * inside + by_alpha, within=CLOSE,
            what="the gradient of w", cause="Take means over dim 1, with keepdim=True.",
            mistakes={
                "The mean ran over the whole matrix: each row has its own.":
                    by_sign * inside + s * (g * s).mean(),
                "The mean ran over the wrong axis: dim 1 is the row.":
                    by_sign * inside + s * (g * s).mean(0, keepdim=True),
                "torch.sign(0) is 0 in the part through alpha; forward takes +1.":
                    by_sign * inside + w.sign() * (g * w.sign()).mean(1, keepdim=True),
            },
        )  # fmt: skip


@summed.check
def agrees_with_autograd(ScaledSign: Any) -> None:
    """For random weights it is what autograd makes of alpha times a masked sign."""
    for n, k in itertools.product((1, 3), (1, 2, 6, 50)):
        w, g = torch.randn(n, k), torch.randn(n, k)
        case = Case(w=f"torch.randn({n}, {k})", gradient_arriving="random too")

        def traced(latent: Tensor) -> Tensor:
            hard_tanh = latent.clamp(-1, 1)
            signs = _signs(latent) + hard_tanh - hard_tanh.detach()
            return latent.abs().mean(1, keepdim=True) * signs

        case.expect(
            gradient(ScaledSign.apply, w, g), gradient(traced, w, g), within=CLOSE,
            what="the gradient of w", cause="It was right for fewer weights: which case is new?",
        )  # fmt: skip


# ---- ch03.6 ----------------------------------------------------------------------------------

folding = EXERCISE.task("ch03.6", "Behind batch norm", "fold_scale")


def _norm(eps: float, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(len(mean), eps=eps).eval()
    norm.load_state_dict(
        {"running_mean": mean, "running_var": var, "weight": weight, "bias": bias,
         "num_batches_tracked": tensor(1)}
    )  # fmt: skip
    return norm


def _normalised(z: Tensor, mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> Tensor:
    """Compute batch norm for one channel, of numbers."""
    return weight * (z - mean) / (var + eps) ** 0.5 + bias


@folding.check
def one_channel(fold_scale: Any) -> None:
    """The same comes out without the scale as came with it before."""
    z = tensor([-2.0, 0.0, 4.0])
    for mean, var, weight, bias, eps, a in (
        (0.0, 1.0, 1.0, 0.0, 0.0, 0.5),
        (3.0, 1.0, 1.0, 0.0, 0.0, 0.5),
        (3.0, 4.0, -2.0, 5.0, 0.0, 0.5),
        (3.0, 3.0, -2.0, 5.0, 1.0, 0.5),
    ):
        norm = _norm(eps, *(tensor([v]) for v in (mean, var, weight, bias)))
        case = Case(
            z=z, alpha=tensor([a]), running_mean=mean, running_var=var, weight=weight, bias=bias,
            eps=eps,
        )  # fmt: skip
        fold_scale(norm, tensor([a]))
        got = norm(z.reshape(1, 1, 1, 3)).detach().flatten()

        def came(m: float, v: float, w: float, b: float, e: float = eps) -> Tensor:
            return _normalised(z, m, v, w, b, e)

        right = came(mean / a, var, weight * a, bias)
        mistakes = {
            "Nothing changed: multiply and divide in place, with *= and /=, or copy_.":
                came(mean, var, weight, bias),
            "The running mean is still that of alpha · z: divide it by alpha.":
                came(mean, var, weight * a, bias),
            "The running mean was multiplied by alpha. It was measured on alpha · z, so that of z "
            "is mean / alpha.": came(mean * a, var, weight * a, bias),
            "Only the running mean was changed: what is left over from the division goes into the "
            "weight.": came(mean / a, var, weight, bias),
            "The weight was divided by alpha. alpha · z − mean = alpha · (z − mean / alpha): the "
            "alpha in front multiplies it.": came(mean / a, var, weight / a, bias),
            "The bias was scaled too; it is added after the scale and stays as it is.":
                came(mean / a, var, weight * a, bias * a),
            "The bias was divided by alpha; it stays as it is.":
                came(mean / a, var, weight * a, bias / a),
            "The scale was taken into account twice, in the running variance and in the weight.":
                came(mean / a, var / a**2, weight * a, bias),
            "eps did not scale along: the variance of z is var / alpha², but var / alpha² + eps is "
            "not (var + eps) / alpha². Leave the variance, and put alpha into the weight.":
                came(mean / a, var / a**2, weight, bias),
            "The variance was divided by alpha; it goes with its square. Better leave it, and put "
            "alpha into the weight, which is exact for each eps.":
                came(mean / a, var / a, weight, bias),
        }  # fmt: skip
        case.expect(
            got, right, within=CLOSE, what="norm(z)",
            cause="weight · (alpha · z − mean) / s + bias: take alpha out of the bracket.",
            mistakes={c: m for c, m in mistakes.items() if not torch.allclose(m, right)},
        )  # fmt: skip


@folding.check
def every_channel_its_own(fold_scale: Any) -> None:
    """Each channel takes its own scale, and alpha stays as it is."""
    for n, eps in itertools.product((1, 2, 5), (1e-5, 1e-2)):
        alpha, z = 0.1 + torch.rand(n), torch.randn(3, n, 2, 2)
        norm = _norm(eps, torch.randn(n), 0.01 + torch.rand(n), torch.randn(n), torch.randn(n))
        with torch.no_grad():
            wanted = norm(alpha.reshape(1, n, 1, 1) * z)
        given = alpha.clone()
        case = Case(norm=f"nn.BatchNorm2d({n}, eps={eps:g}) with statistics", alpha=alpha)
        fold_scale(norm, alpha)
        case.expect(
            norm(z).detach(), wanted, within=1e-3, what="norm(z)",
            cause="One channel was right: running_mean and weight have one number for each.",
        )  # fmt: skip
        case.expect(alpha, given, what="alpha afterwards", cause="alpha itself was changed.")


@folding.check
def norm_can_still_learn(fold_scale: Any) -> None:
    """Weight and bias are still batch norm's parameters afterwards."""
    norm = nn.BatchNorm2d(2).eval()
    case = Case(norm="nn.BatchNorm2d(2)", alpha=tensor([0.5, 2.0]))
    fold_scale(norm, tensor([0.5, 2.0]))
    held = {name: p.requires_grad and p.is_leaf for name, p in norm.named_parameters()}
    case.expect(
        held, {"weight": True, "bias": True}, what="parameters that can be trained",
        cause="Change the values in place, under torch.no_grad(), and replace no tensor.",
    )  # fmt: skip
