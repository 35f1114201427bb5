"""Exercises of chapter 5: what a binary network's training and its activations can be asked.

Five tasks, two hours; the chapter "Why binary nets struggled for years" tells the story to them:
its first section to ch05.2, "Are binary activations a bottleneck?" to ch05.3, and "Is the loss too
jagged to train on?" to the others. `make exercises` copies this file to exercises/work: write
there, in place of each NotImplementedError.

    pytest exercises -k chapter_05         check all, or -k ch05.2 for one task
    python -m onebit hint ch05.2           one hint, and one more each time
    check("ch05.2", width_for)             the same in a notebook: from onebit.checks import check

The sign of zero is +1.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

#: Trains at a learning rate, calls the function with the network before the first step and after
#: each step, and returns the test error in %.
Run = Callable[[float, Callable[[nn.Module], None]], float]


def flip_ratio(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """ch05.1 The share that flipped (warm-up, 10 minutes, about 4 lines).

    Return which share of all weights has another sign in `after` than in `before`. Both hold the
    latent weights of the same layers, a tensor each, of any shapes.
    """
    raise NotImplementedError


def width_for(errors: dict[int, float], target: float) -> float:
    """ch05.2 A gap in width (easy, 20 minutes, about 8 lines).

    Return the width at which a network reaches the error `target`. `errors` maps widths, in
    ascending order, to test errors, each below the one before. Between two widths the error is a
    straight line in the logarithm of the width. A target that no width reaches needs math.inf, and
    one that the smallest width meets or beats needs that width.
    """
    raise NotImplementedError


def levels(x: Tensor, bits: int) -> Tensor:
    """ch05.3 Activations of few bits (medium, 30 minutes, about 6 lines).

    Round x to the nearest of 2 ** bits levels, evenly spaced from −1 to +1, both included: with one
    bit, the sign. Zero goes up. Backward, the gradient passes unchanged where
    |x| <= 1, and is zero elsewhere.
    """
    raise NotImplementedError


def bop_step(w_b: Tensor, average: Tensor, grad: Tensor, gamma: float, threshold: float) -> None:
    """ch05.4 A step of Bop (medium, 25 minutes, about 3 lines).

    Change `average` and `w_b` in place: the average becomes (1 − gamma) times itself plus gamma
    times grad. Then flip each weight, −1 or +1, whose average has the weight's own sign and is
    larger in magnitude than the threshold.
    """
    raise NotImplementedError


def flips_at_rates(rates: Sequence[float], run: Run) -> dict[float, float]:
    """ch05.5 The rate sets the number of flips (stretch, 35 minutes, about 12 lines).

    For each rate, train once with `run` and return how many per cent of the weights flip in a step,
    on average over all steps. Weights are the parameters of two dimensions; a flip is told by
    comparing a step with the one before it.

    Try it on digits, with BinaryLinear and clip_latent of exercise 04: `network` and `fit` of
    onebit.checks.digits build and train a small network, and fit calls a function after each step.
    """
    raise NotImplementedError
