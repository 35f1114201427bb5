"""What a model costs: weights, bits, bytes and multiply-accumulates, layer by layer."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onebit.layers import QuantConv2d, QuantLinear
from onebit.quantizers import Quantizer, StochasticBinary


@dataclass(frozen=True)
class Row:
    """One layer's costs.

    `weights` counts parameters that are quantised or not, `bits` what one of them takes when
    stored, `nbytes` the layer's whole storage with scales, bias and whole 64-bit words, and `macs`
    the multiply-accumulates of one example, at `precision` (W = weight bits, A = activation bits).
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    weights: int
    bits: float
    nbytes: int
    float_nbytes: int
    macs: int
    precision: str


@dataclass(frozen=True)
class Summary:
    """A model's rows and totals; prints as a table."""

    rows: tuple[Row, ...]

    @property
    def weights(self) -> int:
        """Number of parameters."""
        return sum(row.weights for row in self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes with quantised weights packed and everything else in float32."""
        return sum(row.nbytes for row in self.rows)

    @property
    def float_nbytes(self) -> int:
        """Bytes with everything in float32."""
        return sum(row.float_nbytes for row in self.rows)

    @property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of one example, by precision."""
        totals: dict[str, int] = {}
        for row in self.rows:
            if row.macs:
                totals[row.precision] = totals.get(row.precision, 0) + row.macs
        return totals

    def _cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]], tuple[str, ...]]:
        header = ("layer", "kind", "output", "weights", "bits", "bytes", "MACs", "precision")
        body = [
            (
                row.name,
                row.kind,
                "×".join(map(str, row.output_shape)),
                f"{row.weights:,}",
                f"{row.bits:g}",
                f"{row.nbytes:,}",
                f"{row.macs:,}",
                row.precision if row.macs else "",
            )
            for row in self.rows
        ]
        ratio = self.float_nbytes / self.nbytes if self.nbytes else 1.0
        macs = sum(self.macs.values())
        note = f"{ratio:.1f}× smaller than float32"
        total = ("total", note, "", f"{self.weights:,}", "", f"{self.nbytes:,}", f"{macs:,}", "")
        return header, body, total

    def __str__(self) -> str:
        header, body, total = self._cells()
        lines = [header, *body, total]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i in (0, 1, 2, 7) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header, body, total = self._cells()

        def line(cells: tuple[str, ...], tag: str) -> str:
            scope = ' scope="col"' if tag == "th" else ""
            return (
                "<tr>" + "".join(f"<{tag}{scope}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"
            )

        rows = "".join(line(cells, "td") for cells in body)
        return (
            '<table class="onebit-summary"><caption>Weights, storage and multiply-accumulates of '
            f"one example</caption><thead>{line(header, 'th')}</thead><tbody>{rows}</tbody>"
            f"<tfoot>{line(total, 'td')}</tfoot></table>"
        )


def _bits(quantizer: Quantizer | None) -> float:
    return 32.0 if quantizer is None else quantizer.bits


def _packed_nbytes(layer: QuantLinear | QuantConv2d) -> int:
    """Return what the packed layer stores: rows of whole 64-bit words, scale and bias."""
    quantizer = layer.weight_quant
    if quantizer is None or isinstance(quantizer, StochasticBinary):
        return 4 * sum(p.numel() for p in layer.parameters(recurse=False))
    words_per_row = -(-int(layer.weight[0].numel() * quantizer.bits) // 64)
    with torch.no_grad():
        scales = quantizer.quantize(layer.weight)[1].numel()
    bias = 0 if layer.bias is None else layer.bias.numel()
    return 8 * words_per_row * layer.weight.shape[0] + 4 * (scales + bias)


def _macs(layer: nn.Module, output: Tensor) -> int:
    """Return the multiply-accumulates of one example: outputs times the length of each dot."""
    if not isinstance(layer, nn.Linear | nn.Conv2d):
        return 0
    return output[0].numel() * layer.weight[0].numel()


def _row(name: str, layer: nn.Module, output: Tensor) -> Row:
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    float_nbytes = 4 * sum(t.numel() for t in own if t.is_floating_point())
    weights = sum(p.numel() for p in layer.parameters(recurse=False))
    quantized = isinstance(layer, QuantLinear | QuantConv2d)
    w_bits = _bits(layer.weight_quant) if quantized else 32.0
    a_bits = _bits(layer.input_quant) if quantized else 32.0
    return Row(
        name=name or "(model)",
        kind=type(layer).__name__,
        output_shape=tuple(output.shape[1:]),
        weights=weights,
        bits=w_bits if weights else 0.0,
        nbytes=_packed_nbytes(layer) if quantized else float_nbytes,
        float_nbytes=float_nbytes,
        macs=_macs(layer, output),
        precision=f"W{w_bits:g}A{a_bits:g}",
    )


@torch.no_grad()
def summary(model: nn.Module, input_size: tuple[int, ...]) -> Summary:
    """Run one example through a model and return what each layer costs.

    Parameters
    ----------
    model : nn.Module
        On the CPU; put back into its mode afterwards.
    input_size : tuple of int
        One example's shape, without the batch dimension.

    Returns
    -------
    Summary
        Bytes count quantised weights packed in whole 64-bit words and the rest, running
        statistics of batch norm included, in float32. Prints as a table.

    Raises
    ------
    TypeError
        If `model` is not a module.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> costs = summary(nn.Sequential(BinaryLinear(128, 10, bias=False)), (128,))
    >>> costs.weights, costs.macs
    (1280, {'W1A1': 1280})
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    rows: list[Row] = []
    leaves = {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }

    def record(name: str) -> Any:
        return lambda module, _inputs, output: rows.append(_row(name, module, output))

    hooks = [module.register_forward_hook(record(name)) for name, module in leaves.items()]
    was_training = model.training
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    try:
        model.eval()(torch.ones(2, *input_size, dtype=dtype))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    return Summary(tuple(rows))


def latent_signs(model: nn.Module) -> dict[str, Tensor]:
    """Return the signs of every quantised layer's latent weights, as booleans by layer name.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> latent_signs(nn.Sequential(BinaryLinear(3, 2)))["0"].shape
    torch.Size([2, 3])
    """
    return {
        name: layer.weight.detach() >= 0
        for name, layer in model.named_modules()
        if isinstance(layer, QuantLinear | QuantConv2d) and layer.weight_quant is not None
    }


def flip_ratio(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Return the share of binary weights whose sign differs between two moments of training.

    Parameters
    ----------
    before, after : mapping of str to Tensor
        As `latent_signs` gives them.

    Raises
    ------
    ValueError
        If the two do not name the same layers, or name none.

    References
    ----------
    Helwegen et al., "Latent weights do not exist", NeurIPS 2019.

    Examples
    --------
    >>> flip_ratio({"0": torch.tensor([True, True])}, {"0": torch.tensor([True, False])})
    0.5
    """
    if before.keys() != after.keys() or not before:
        raise ValueError(
            f"before and after must name the same layers, at least one; "
            f"got {sorted(before)} and {sorted(after)}"
        )
    flips = sum(int((before[name] != after[name]).sum()) for name in before)
    return flips / sum(signs.numel() for signs in before.values())
