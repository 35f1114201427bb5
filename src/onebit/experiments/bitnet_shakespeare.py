"""BitNet's question at our scale: bits per character against width, at four precisions.

Decoder-only Transformers of four blocks read Shakespeare's plays a character at a time, by the
recipe of BitNet's authors: a high learning rate in two stages, weight decay in the first half
only. Every arm has the best rate of a small grid. An epoch is about a million characters, in
windows of 128; the plays that `onebit.data.shakespeare` holds out are the test set, and the end of
the training text chooses rates and epochs.

Two side questions have arms of their own at width 64. b1 and binary activations stand behind
LayerNorms and the others behind RMSNorms, so full precision is trained behind LayerNorms too. And
ternary weights are trained with other thresholds than b1.58's, half of γ = mean |w|.

b1's activations have one scale a tensor in training, which sees later characters; its bits per
character are judged with one scale a token, and as in training by the probe.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from onebit.data import shakespeare
from onebit.experiments.declare import Arm, Budget, Experiment, Network, Recipe
from onebit.language import bits_per_character, next_character_loss
from onebit.models import Transformer
from onebit.optim import quantized_layers
from onebit.quantizers import Int8AbsMax, TernaryAbsMean
from onebit.ste import straight_through

CONTEXT = 128
WINDOWS = 8192
VALIDATION = 100_000


class Text:
    """A text, judged in bits per character on plays that training never sees.

    Parameters
    ----------
    rows
        Windows an epoch, 8 192 if None; below that, the texts to judge by are cut in proportion.
    """

    def __init__(self, rows: int | None) -> None:
        train, test, _ = shakespeare()
        self.rows = WINDOWS if rows is None else rows

        def cut(codes: Tensor) -> Tensor:
            return codes[: max(2 * CONTEXT, len(codes) * min(self.rows, WINDOWS) // WINDOWS)]

        self._texts = {
            "train": train[:-VALIDATION],
            "validation": cut(train[-VALIDATION:]),
            "test": cut(test),
        }

    def to(self, device: torch.device) -> None:
        """Move the texts to a device."""
        self._texts = {name: codes.to(device) for name, codes in self._texts.items()}

    def order(self, generator: torch.Generator) -> Tensor:
        """Draw where an epoch's windows begin."""
        return torch.randint(
            len(self._texts["train"]) - CONTEXT, (self.rows,), generator=generator
        )  # fmt: skip

    def loss(self, model: nn.Module, chosen: Tensor, name: str) -> Tensor:
        """Give the mean loss in bits of the windows that begin at the chosen places."""
        window = chosen[:, None] + torch.arange(CONTEXT, device=chosen.device)
        train = self._texts["train"]
        return next_character_loss(model, train[window], train[window + 1])

    def evaluate(self, model: nn.Module, split: str) -> float:
        """Give the bits per character on ``"validation"`` or ``"test"``."""
        return bits_per_character(model, self._texts[split], CONTEXT)


class TernaryThreshold(TernaryAbsMean):
    """b1.58's ternary weights but for the threshold: zero up to `threshold` · γ, with γ = mean |w|.

    Parameters
    ----------
    threshold
        One half is b1.58 itself.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return codes in {−1, 0, 1}, and γ as a zero-dimensional tensor."""
        _, gamma = super().quantize(x)
        ratio = x / gamma
        w = ratio.detach()
        return straight_through(ratio, w.sign() * (w.abs() > self.threshold)), gamma


def thresholded(*, threshold: float, **arguments: Any) -> Transformer:
    """Build `onebit.models.Transformer` with ternary weights that another threshold sets to 0."""
    model = Transformer(precision="b1.58", **arguments)
    for layer in quantized_layers(model):
        layer.weight_quant = TernaryThreshold(threshold)
    return model


def zeros(model: nn.Module, task: Text) -> dict[str, float]:
    """Give the share of weights that the quantizers set to zero."""
    codes = [
        layer.weight_quant.quantize(layer.weight.detach())[0].flatten()
        for layer in quantized_layers(model)
        if layer.weight_quant is not None
    ]
    return {"zeros": 100 * (torch.cat(codes) == 0).float().mean().item()}


def scale_per_tensor(model: nn.Module, task: Text) -> dict[str, float]:
    """Judge by b1's training rule, one activation scale a tensor, which sees later characters."""
    layers = [layer for layer in quantized_layers(model) if layer.input_quant is not None]
    kept = [layer.input_quant for layer in layers]
    try:
        for layer in layers:
            layer.input_quant = Int8AbsMax("tensor")
        return {"one scale per tensor": task.evaluate(model, "test")}
    finally:
        for layer, quantizer in zip(layers, kept, strict=True):
            layer.input_quant = quantizer


_HERE = "onebit.experiments.bitnet_shakespeare"
_LABELS = {
    "full": "full precision", "b1.58": "b1.58", "b1": "b1", "w1a1": "binary activations too",
}  # fmt: skip
_PROBES = {"b1.58": (zeros.__name__,), "b1": (scale_per_tensor.__name__,)}


def _arm(
    precision: str,
    width: int,
    name: str | None = None,
    label: str | None = None,
    builder: str = "onebit.models:Transformer",
    arguments: Mapping[str, Any] | None = None,
) -> Arm:
    real = precision == "full"
    sizes = {"vocabulary": 83, "width": width, "depth": 4, "heads": 4}
    return Arm(
        name=f"{name or precision}-{width}",
        label=f"{label or _LABELS[precision]}, width {width}",
        network=Network(builder, {**sizes, **(arguments or {"precision": precision})}),
        recipe=Recipe(
            data="onebit.experiments.bitnet_shakespeare:Text",
            optimizer="bitnet",
            rate=None,
            rates=(3e-3, 6e-3, 1.2e-2) if real else (6e-3, 1.2e-2, 2.4e-2),
            batch_size=16,
            weight_decay=0.1,
        ),
        probes=tuple(f"{_HERE}:{probe}" for probe in _PROBES.get(precision, ())),
    )


_SIDE_ARMS = (
    _arm("full", 64, "full-layer", "full precision behind LayerNorm",
         arguments={"precision": "full", "norm": "layer"}),
    *(
        _arm("b1.58", 64, f"b1.58-{word}", f"ternary, threshold {share} γ",
             f"{_HERE}:thresholded", {"threshold": threshold})
        for word, share, threshold in (("quarter", "¼", 0.25), ("whole", "1", 1.0))
    ),
)  # fmt: skip
_WIDTHS = (32, 64, 96, 128)
_SHORT = tuple(f"{precision}-32" for precision in _LABELS)
_BOOK = (
    *(f"{precision}-{width}" for width in (64, 96, 128) for precision in ("full", "b1", "b1.58")),
    "w1a1-64", "full-layer-64", "b1.58-quarter-64", "b1.58-whole-64",
)  # fmt: skip

TABLE = Experiment(
    name="bitnet-shakespeare",
    about="BitNet at our scale: Transformers on Shakespeare, full precision, b1, b1.58 and W1A1",
    metric="bits per character",
    unit="",
    decimals=3,
    arms=(
        *(_arm(precision, width) for width in _WIDTHS for precision in _LABELS),
        *_SIDE_ARMS,
    ),
    budgets=(
        Budget("smoke", epochs=1, seeds=1, rows=32, arms=_SHORT),
        Budget("short", epochs=1, seeds=3, search_rows=2048, arms=_SHORT),
        Budget("book", epochs=10, seeds=3, arms=_BOOK, compiled=True),
        Budget("paper", epochs=100, seeds=6, search_epochs=10, compiled=True),
    ),
)
