"""What a model costs: weights, bits, bytes and multiply-accumulates, layer by layer."""

import html
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from onebit.layers import QuantConv2d, QuantLinear
from onebit.network import PackedBlock
from onebit.packing import PackedConv2d, PackedLinear, stored_bits
from onebit.quantizers import Quantizer, StochasticBinary
from onebit.training import evaluation_mode


@dataclass(frozen=True)
class Row:
    """One layer's costs.

    Attributes
    ----------
    name, kind : str
        Where the layer stands in the model, and its class.
    output_shape : tuple of int
        Of one example, without the batch dimension.
    weights : int
        Parameters, quantised or not, biases included.
    bits : float
        What one element of the weight takes when stored.
    nbytes : int
        The layer's whole storage: weights in whole 64-bit words, scales, bias, statistics.
    float_nbytes : int
        The same with everything in float32.
    macs : int
        Multiply-accumulates of one example, in linear layers and convolutions.
    precision : str
        At which they are computed: W = weight bits, A = activation bits, 32 = float.
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
    """A model's rows and totals; prints as a table.

    Attributes
    ----------
    rows : tuple of Row
        One for each layer that stores something, in the order in which they run.
    """

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
        body: list[tuple[str, ...]] = [
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


def _bits(quantizer: object) -> float:
    """Return the bits of an operand's codes in evaluation mode, 32 where they are real numbers."""
    if not isinstance(quantizer, Quantizer) or isinstance(quantizer, StochasticBinary):
        return 32.0
    return quantizer.bits


def _packed_nbytes(layer: QuantLinear | QuantConv2d) -> int:
    """Return what the packed layer stores: rows of whole 64-bit words, scale and bias."""
    quantizer = layer.weight_quant
    if quantizer is None or isinstance(quantizer, StochasticBinary):
        return 4 * sum(p.numel() for p in layer.parameters(recurse=False))
    bits_per_row = layer.weight[0].numel() * stored_bits(quantizer, layer.input_quant)
    words_per_row = -(-int(bits_per_row) // 64)
    with torch.no_grad():
        scales = quantizer.quantize(layer.weight)[1].numel()
    bias = 0 if layer.bias is None else layer.bias.numel()
    return 8 * words_per_row * layer.weight.shape[0] + 4 * (scales + bias)


def _row(name: str, layer: nn.Module, output_shape: tuple[int, ...]) -> Row:
    own = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    weights = sum(p.numel() for p in layer.parameters(recurse=False))
    nbytes = float_nbytes = 4 * sum(t.numel() for t in own if t.is_floating_point())
    bits, precision = (32.0 if weights else 0.0), "W32A32"
    dot = layer.weight[0].numel() if isinstance(layer, nn.Linear | nn.Conv2d) else 0
    if isinstance(layer, QuantLinear | QuantConv2d):
        nbytes = _packed_nbytes(layer)
        bits = w_bits = _bits(layer.weight_quant)
        if layer.weight_quant is not None and w_bits < 32:
            bits = stored_bits(layer.weight_quant, layer.input_quant)
        precision = f"W{w_bits:g}A{_bits(layer.input_quant):g}"
    elif isinstance(layer, PackedLinear | PackedConv2d):
        dot = layer.k
        floats = sum(t.numel() for t in own if t.is_floating_point()) - layer.weight_scale.numel()
        weights = layer.out_features * layer.k + floats
        float_nbytes = 4 * weights
        stored = (t for t in own if t is not layer.weight_lanes)  # made anew from the words
        nbytes = sum(t.numel() * t.element_size() for t in stored)
        bits = 2.0 if layer.ternary else 1.0
        precision = f"W{layer.weight_bits:g}A{_bits(layer.input_quant):g}"
    return Row(
        name=name or "(model)",
        kind=type(layer).__name__,
        output_shape=output_shape,
        weights=weights,
        bits=bits,
        nbytes=nbytes,
        float_nbytes=float_nbytes,
        macs=torch.Size(output_shape).numel() * dot,
        precision=precision,
    )


@torch.no_grad()
def summary(
    model: nn.Module, input_size: tuple[int, ...], *, dtype: torch.dtype | None = None
) -> Summary:
    """Run one example through a model and return what each layer costs.

    Parameters
    ----------
    model : nn.Module
        Of layers or packed layers, on the CPU; run in evaluation mode, and every module put back
        into its own afterwards.
    input_size : tuple of int
        One example's shape, without the batch dimension.
    dtype : torch.dtype, optional
        Of the example, for instance `torch.long` for token numbers; the parameters' own if None.

    Returns
    -------
    Summary
        Bytes count quantised weights packed in whole 64-bit words and the rest, running
        statistics of batch norm included, in float32. Stochastic layers, which are tested with
        real weights, count as float. A layer that runs several times is stored once. Prints as a
        table.

    Raises
    ------
    TypeError
        If `model` is not a module, or one that `onebit.pack` made, whose folded layers never run
        on their own; or if `input_size` is no tuple of whole numbers.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> costs = summary(nn.Sequential(BinaryLinear(128, 10, bias=False)), (128,))
    >>> costs.weights, costs.macs
    (1280, {'W1A1': 1280})
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if any(isinstance(module, PackedBlock) for module in model.modules()):
        raise TypeError(
            "model is a packed network, whose layers are folded into thresholds; summarise the "
            "model that was packed, or ask the packed one for its nbytes()"
        )
    if not isinstance(input_size, tuple | list) or not all(isinstance(n, int) for n in input_size):
        raise TypeError(
            f"input_size must be a tuple of whole numbers, one example's shape, got {input_size!r}"
        )
    if dtype is None:
        own = (*model.parameters(), *model.buffers())
        dtype = next((t.dtype for t in own if t.is_floating_point()), torch.float32)
    example = torch.ones(2, *input_size, dtype=dtype)
    rows: dict[str, Row] = {}

    def record(name: str) -> Any:
        def hook(layer: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = output if isinstance(output, Tensor) else output[0]
            row = _row(name, layer, tuple(tensor.shape[1:]))
            rows[name] = replace(row, macs=row.macs + rows[name].macs) if name in rows else row

        return hook

    hooks = [
        module.register_forward_hook(record(name))
        for name, module in model.named_modules()
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    ]
    try:
        with evaluation_mode(model):
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return Summary(tuple(rows.values()))


def latent_signs(model: nn.Module) -> dict[str, Tensor]:
    """Return the signs of every quantised layer's latent weights, as booleans by layer name.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    dict of str to Tensor
        True where a latent weight is 0 or more; a snapshot that later training does not change.

    Raises
    ------
    TypeError
        If `model` is not a module.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> latent_signs(nn.Sequential(BinaryLinear(3, 2)))["0"].shape
    torch.Size([2, 3])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
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
        If the two do not name the same layers, with the same shapes, or name none.

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
    for name in before:
        if before[name].shape != after[name].shape:
            raise ValueError(
                f"layer {name!r} has shape {tuple(before[name].shape)} in before and "
                f"{tuple(after[name].shape)} in after; both must come from the same model"
            )
    flips = sum(int((before[name] != after[name]).sum()) for name in before)
    return flips / sum(signs.numel() for signs in before.values())
