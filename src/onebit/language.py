"""Train a character language model by BitNet's recipe, and judge it in bits per character."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit._operands import check_whole
from onebit.training import evaluation_mode

#: Second peak of the learning rate over the first: BitNet's 1.5e-3 → 1e-3 and 1.2e-3 → 8e-4.
SECOND_PEAK = 2 / 3


def random_windows(codes: Tensor, context: int, batch_size: int) -> tuple[Tensor, Tensor]:
    """Draw windows of a text, and the same windows one character later as targets.

    Parameters
    ----------
    codes : Tensor
        (length,), int64.
    context, batch_size : int
        Characters of a window, and number of windows.

    Returns
    -------
    inputs, targets : Tensor
        (batch_size, context), int64.

    Raises
    ------
    TypeError
        If a size is no whole number.
    ValueError
        If a size is not positive, or the text no longer than a window.

    Examples
    --------
    >>> inputs, targets = random_windows(torch.arange(100), context=4, batch_size=2)
    >>> (targets - inputs).tolist()
    [[1, 1, 1, 1], [1, 1, 1, 1]]
    """
    check_whole("batch_size", batch_size, 1, 2**31 - 1)
    _check_text(codes, context)
    # In float64, whose steps are finer than any text is long.
    chosen = torch.rand(batch_size, dtype=torch.float64, device=codes.device)
    starts = (chosen * (len(codes) - context)).long()
    window = starts[:, None] + torch.arange(context, device=codes.device)
    return codes[window], codes[window + 1]


def _check_text(codes: Tensor, context: int) -> None:
    check_whole("context", context, 1, 2**31 - 1)
    if codes.dim() != 1 or len(codes) <= context:
        raise ValueError(
            f"codes must have shape (length,) with more than context={context} characters, "
            f"got {tuple(codes.shape)}"
        )


def two_stage(step: int, steps: int, *, warm_up: float = 0.05) -> tuple[float, float]:
    """Return what BitNet's recipe multiplies learning rate and weight decay by at a step.

    The rate warms up, decays linearly towards zero at the end of training, and from the middle on
    follows the same line from a second, lower peak. Weight decay stops there.

    Parameters
    ----------
    step, steps : int
        From 0, and their number.
    warm_up : float
        Share of the steps over which the rate rises.

    Returns
    -------
    rate, decay : float
        Factors between 0 and 1.

    Raises
    ------
    ValueError
        If `step` is not within `steps`.

    References
    ----------
    "The Era of 1-bit LLMs: Training Tips, Code and FAQ", Section 2. There the warm-up takes 375
    steps.

    Examples
    --------
    >>> two_stage(250, 1000)
    (0.75, 1.0)
    >>> two_stage(625, 1000)
    (0.25, 0.0)
    """
    if not 0 <= step < steps:
        raise ValueError(f"step must be from 0 to steps - 1 = {steps - 1}, got {step}")
    second = 2 * step >= steps
    rising = min(1.0, (step + 1) / (warm_up * steps)) if warm_up else 1.0
    rate = rising * (1 - step / steps) * (SECOND_PEAK if second else 1)
    return rate, 0.0 if second else 1.0


class BitNetRecipe:
    """AdamW by BitNet's recipe: two-stage learning rate, weight decay in the first half only.

    Parameters
    ----------
    model : nn.Module
        Its matrices decay, its vectors (gains and shifts of norms) do not.
    lr : float
        Peak learning rate.
    steps : int
        Number of steps of the whole training.
    weight_decay : float
        Of the first half.

    Attributes
    ----------
    optimizer : torch.optim.AdamW
        With β = (0.9, 0.95).

    References
    ----------
    "The Era of 1-bit LLMs: Training Tips, Code and FAQ", Section 2.

    Examples
    --------
    >>> model = nn.Linear(2, 2)
    >>> recipe = BitNetRecipe(model, lr=1e-2, steps=10)
    >>> loss = recipe.step(model(torch.ones(1, 2)).square().sum())
    >>> recipe.optimizer.param_groups[0]["lr"], recipe.taken
    (0.01, 1)
    """

    def __init__(self, model: nn.Module, lr: float, steps: int, weight_decay: float = 0.1) -> None:
        check_whole("steps", steps, 1, 2**31 - 1)
        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "decay": weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)
        self.lr = lr
        self.steps = steps
        self.taken = 0

    def step(self, loss: Tensor) -> float:
        """Take one step down the gradient of `loss`, and return its value."""
        rate, decay = two_stage(self.taken, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * rate
            group["weight_decay"] = group["decay"] * decay
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.taken += 1
        return loss.item()


def next_character_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next character, in bits.

    Parameters
    ----------
    model : nn.Module
        Maps codes (batch, context) to logits (batch, context, vocabulary).
    inputs, targets : Tensor
        (batch, context), int64, as `random_windows` draws them.

    Examples
    --------
    >>> from onebit.models import Transformer
    >>> model = Transformer(8, width=8, depth=1, heads=2)
    >>> _ = model.head.weight.data.zero_()  # every character as likely as every other
    >>> round(next_character_loss(model, *random_windows(torch.arange(8), 4, 2)).item(), 3)
    3.0
    """
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()) / math.log(2)


@torch.no_grad()
def bits_per_character(
    model: nn.Module, codes: Tensor, context: int, *, batch_size: int = 64
) -> float:
    """Return the mean cross-entropy of a text in bits per character, in evaluation mode.

    The text is cut into windows of `context` that follow one another, so that every character but
    the first is predicted once, with none to `context` − 1 characters before its window's first.

    Parameters
    ----------
    model : nn.Module
        Put back into its mode afterwards. In evaluation mode every token has its own activation
        scale, so that no prediction sees a later character.
    codes : Tensor
        (length,), int64. A rest that does not fill a window is left out.
    context, batch_size : int
        Characters of a window, and windows per forward pass.

    Raises
    ------
    TypeError
        If a size is no whole number.
    ValueError
        If a size is not positive, or the text no longer than a window.

    Examples
    --------
    >>> from onebit.models import Transformer
    >>> model = Transformer(8, width=8, depth=1, heads=2)
    >>> _ = model.head.weight.data.zero_()
    >>> round(bits_per_character(model, torch.arange(8), context=3), 3)
    3.0
    """
    check_whole("batch_size", batch_size, 1, 2**31 - 1)
    _check_text(codes, context)
    inputs, targets = (text.unfold(0, context, context) for text in (codes[:-1], codes[1:]))
    total = 0.0
    with evaluation_mode(model):
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            total += next_character_loss(model, x, y).item() * len(x)
    return total / len(inputs)
