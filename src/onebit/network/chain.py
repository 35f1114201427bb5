"""The packed network: its stages one by one in torch, or wherever bits flow in one call of C."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from onebit import _native
from onebit._chain import Chain, Layer
from onebit.network.stages import PackedBlock, PixelBlock
from onebit.packing import PackedConv2d, describe_windows

Block = PackedBlock | PixelBlock
Step = Callable[[Tensor], Tensor]


class PackedNetwork(nn.Sequential):
    """A network in its packed form; `pack` and `load` make one.

    The blocks between which bits flow run as a whole in C (forward hooks of single blocks are not
    called then), or one by one where there is no C kernel, and under `torch.compile` and
    `torch.export`.

    Examples
    --------
    >>> from onebit.models import binarynet_mlp
    >>> from onebit.network import pack
    >>> model, x = binarynet_mlp(width=100).eval(), torch.rand(2, 784)
    >>> torch.equal(pack(model)(x), model(x))
    True
    """

    _plan: "_Plan | None" = None

    def train(self, mode: bool = True) -> Any:
        """Stay in evaluation mode, whatever mode the model around goes into."""
        return super().train(False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles need; what C holds is made anew."""
        return {**self.__dict__, "_plan": None}

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs of the network that was packed, without a gradient.

        Parameters
        ----------
        input : Tensor
            What the network took; uint8 pixels if it was packed with ``pixels``.
        """
        if torch.compiler.is_compiling():
            # Not under torch.no_grad(): a program that raises within it leaves gradients off.
            return functools.reduce(lambda x, stage: stage(x).detach(), self, input)
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self._run(input)
        return self._run(input)

    def _run(self, input: Tensor) -> Tensor:
        if _native.current_path() == _native.NUMPY:
            return super().forward(input)
        plan = self._plan
        if plan is None or plan.is_stale():
            self._plan = plan = _Plan(self._modules)
        for step in plan.steps:
            input = step(input)
        return input

    def nbytes(self) -> int:
        """Return the bytes of all that the network stores, which are those of its tensors on disk.

        Of the network that was packed, `onebit.summary` counts the same, except that each batch
        norm folded into thresholds goes (four floats an output; two without its own γ and β) and
        thresholds and flips come (five bytes an output). Parameters in float64 keep their size.
        """
        return sum(t.numel() * t.element_size() for t in self.state_dict().values())


class _Plan:
    """The stages of a network as steps to run in turn, and how to tell that one was exchanged."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self.modules, self.count = modules, len(modules)
        self.made_of: list[tuple[dict[str, Any], str, Any]] = []  # where it was, and what
        for name, stage in modules.items():
            self.made_of.append((modules, name, stage))
            if isinstance(stage, Block):
                self.made_of.append((stage.__dict__, "_weights", stage._weights))
                buffers = stage.layer._buffers
                self.made_of.append((buffers, "weight_scale", buffers["weight_scale"]))
        self.steps = list(_steps(list(modules.values())))

    def is_stale(self) -> bool:
        return self.count != len(self.modules) or any(
            [there.get(name) is not part for there, name, part in self.made_of]
        )


def _steps(stages: list[Any]) -> Iterator[Step]:
    """Join blocks that stand side by side into one step, as far as words flow."""
    blocks: list[Block] = []
    for stage in stages:
        if isinstance(stage, Block):
            blocks.append(stage)
            if stage.thresholds is not None:
                continue
        if blocks:
            yield _Blocks(blocks)
            blocks = []
        if not isinstance(stage, Block):
            yield functools.partial(_batch_norm, stage) if type(stage) in NORMS else stage
    if blocks:
        yield _Blocks(blocks)


NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def _batch_norm(norm: Any, x: Tensor) -> Tensor:
    """Return what the module does in evaluation, in two thirds of its time for one sample."""
    buffers, own = norm._buffers, norm._parameters
    mean, var = buffers["running_mean"], buffers["running_var"]
    return torch.batch_norm(x, own["weight"], own["bias"], mean, var, False, 0.0, norm.eps, False)


class _Blocks:
    """Blocks that hand on words: one call of C for all of them."""

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks
        if blocks[-1].thresholds is None:
            blocks[-1].layer._convert(torch.empty(0))  # refuses half precision
        words = blocks[-1].thresholds is not None
        self.dtype = torch.int64 if words else blocks[-1].layer.weight_scale.dtype
        self.known: tuple[Any, Any, Chain, tuple[int, ...]] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        known = self.known
        # Checks and plans take longer than the layers of a small network: once for each shape.
        if known is None or not self.is_known(x, known):
            shape = self.blocks[0].check(x)
            self.known = known = x.shape[1:], x.dtype, *_chain(self.blocks, shape)
        _, _, chain, out_shape = known
        return chain.run(x.contiguous(), torch.empty((len(x), *out_shape), dtype=self.dtype))

    @staticmethod
    def is_known(x: Any, known: tuple[Any, ...]) -> bool:
        return (
            isinstance(x, Tensor) and x.shape[1:] == known[0] and x.dtype is known[1] and x.is_cpu
        )


def _chain(blocks: list[Block], shape: tuple[int, ...]) -> tuple[Chain, tuple[int, ...]]:
    """Return the chain for samples whose words have `shape`, and the shape of what comes out."""
    layers = []
    for block in blocks:
        layers.append(_describe(block, shape))
        shape = block.output_shape(shape)
    return Chain(layers), shape


def _describe(block: Block, shape: tuple[int, ...]) -> Layer:
    out_shape, layer = block.output_shape(shape), block.layer
    described = Layer(block._weights, surplus=block._surplus, pixels=isinstance(block, PixelBlock))
    if block.thresholds is None:
        described.scale, described.bias = layer.weight_scale, layer.bias
    else:
        described.thresholds, described.flip_words = block._limits, block._flip_words
    if isinstance(block, PackedBlock) and isinstance(layer, PackedConv2d):
        describe_windows(described, layer.geometry, shape[:2], layer.in_channels)
        described.border = block.border(shape)
        if block.pool is not None:
            described.pool, described.pooled_size = block.pool, out_shape[:2]
    return described
