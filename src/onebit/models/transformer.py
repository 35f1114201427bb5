"""BitNet's Transformer, small and decoder-only, at full precision or with 1- to 1.58-bit layers."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit._operands import check_whole
from onebit.layers import BitLinear, QuantLinear
from onebit.quantizers import BinaryAbsMean, BinarySign
from onebit.training import evaluation_mode

Precision = Literal["full", "b1.58", "b1", "w1a1"]
PRECISIONS = ("full", "b1.58", "b1", "w1a1")
Norm = Literal["rms", "layer"]
NORMS = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}


def normed_linear(k: int, n: int, precision: Precision, norm: Norm, dtype: Any = None) -> nn.Module:
    """Return a linear layer behind its own norm, with the quantizers of `precision`.

    Parameters
    ----------
    k, n : int
        Inputs and outputs.
    precision, norm, dtype
        As for `Transformer`.

    Examples
    --------
    >>> normed_linear(8, 2, "full", "rms")(torch.randn(3, 8)).shape
    torch.Size([3, 2])
    """
    own_norm = NORMS[norm](k, dtype=dtype)
    if precision == "full":
        return nn.Sequential(own_norm, nn.Linear(k, n, bias=False, dtype=dtype))
    if precision == "w1a1":
        signs = {"weight_quant": BinaryAbsMean(), "input_quant": BinarySign()}
        return nn.Sequential(own_norm, QuantLinear(k, n, bias=False, dtype=dtype, **signs))
    layer = BitLinear(k, n, version=precision, dtype=dtype)
    layer.norm = own_norm
    return layer


def rotary_angles(length: int, head_width: int, like: Tensor) -> Tensor:
    """Return RoPE's angles: place · 10000^(−2i / head_width) for the i-th pair of features.

    Parameters
    ----------
    length, head_width : int
        Tokens, and features of a head.
    like : Tensor
        Gives device and dtype.

    Returns
    -------
    Tensor
        (length, head_width / 2).

    References
    ----------
    Su et al. 2021, RoFormer (arXiv:2104.09864), Section 3.2.2.

    Examples
    --------
    >>> rotary_angles(3, 4, torch.empty(0)).tolist()
    [[0.0, 0.0], [1.0, 0.009999999776482582], [2.0, 0.019999999552965164]]
    """
    pairs = torch.arange(0, head_width, 2, device=like.device, dtype=like.dtype)
    places = torch.arange(length, device=like.device, dtype=like.dtype)
    return torch.outer(places, 10000 ** (-pairs / head_width))


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair of features by its angle, so that products depend on distances alone.

    Parameters
    ----------
    x : Tensor
        (..., length, head_width); feature i is paired with feature i + head_width / 2.
    angles : Tensor
        (length, head_width / 2), as `rotary_angles` gives them.

    Examples
    --------
    >>> turned = rotate(torch.ones(1, 2), torch.tensor([[torch.pi / 2]]))
    >>> [round(v, 6) for v in turned[0].tolist()]
    [-1.0, 1.0]
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


class Attention(nn.Module):
    """Causal self-attention; its four projections are quantised, the attention itself is not.

    Examples
    --------
    >>> attention = Attention(8, heads=2, precision="b1.58", norm="rms")
    >>> attention(torch.randn(1, 5, 8), rotary_angles(5, 4, torch.empty(0))).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self, width: int, heads: int, precision: Precision, norm: Norm, dtype: Any = None
    ) -> None:
        super().__init__()
        self.heads = heads
        self.query = normed_linear(width, width, precision, norm, dtype)
        self.key = normed_linear(width, width, precision, norm, dtype)
        self.value = normed_linear(width, width, precision, norm, dtype)
        self.output = normed_linear(width, width, precision, norm, dtype)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Let every token look at itself and those before it; x is (batch, length, width)."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        q, k = rotate(q, angles), rotate(k, angles)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(seen.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: one projection, gated by the SiLU of another, is projected back.

    Examples
    --------
    >>> FeedForward(8, hidden=24, precision="b1.58", norm="rms")(torch.randn(1, 5, 8)).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self, width: int, hidden: int, precision: Precision, norm: Norm, dtype: Any = None
    ) -> None:
        super().__init__()
        self.gate = normed_linear(width, hidden, precision, norm, dtype)
        self.up = normed_linear(width, hidden, precision, norm, dtype)
        self.down = normed_linear(hidden, width, precision, norm, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token on its own; x is (..., width)."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Attention, then the feed-forward net, each added to what went in.

    There is no norm in front of the two: every projection inside holds its own.

    Examples
    --------
    >>> block = Block(8, heads=2, hidden=24, precision="b1.58", norm="rms")
    >>> block(torch.randn(1, 5, 8), rotary_angles(5, 4, torch.empty(0))).shape
    torch.Size([1, 5, 8])
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        precision: Precision,
        norm: Norm,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, precision, norm, dtype)
        self.feed_forward = FeedForward(width, hidden, precision, norm, dtype)

    def forward(self, x: Tensor, angles: Tensor) -> Tensor:
        """Return x of shape (batch, length, width), changed by both."""
        x = x + self.attention(x, angles)
        return x + self.feed_forward(x)


class Transformer(nn.Module):
    """A decoder-only language model as in BitNet b1.58: RMSNorm, RoPE, SwiGLU, no biases.

    At every precision the network is the same but for its quantizers: each projection inside a
    block stands behind its own norm (SubLN). Embedding, attention products, norms and the output
    layer stay in floating point, as in the papers. From one seed all precisions start with the
    same latent weights.

    Parameters
    ----------
    vocabulary : int
        Number of different codes.
    width, depth : int
        Features of a token, and number of blocks.
    heads : int
        Attention heads; `width / heads` must be even.
    precision : {"full", "b1.58", "b1", "w1a1"}
        "full": real weights and activations. "b1.58": ternary weights, int8 activations. "b1":
        binary weights behind a LayerNorm, int8 activations with one scale per tensor in training,
        per token in evaluation. "w1a1": binary weights and activations, behind a LayerNorm.
    norm : {"rms", "layer"}, optional
        Of every projection, where it shall be another than the precision's own. Two precisions
        differ in nothing but their quantizers only if their norms are the same.
    dtype
        Of the weights.

    Raises
    ------
    TypeError
        If a size is no whole number, or the input no int64 tensor.
    ValueError
        If a size is not positive, `width` does not divide into heads of even width, `precision` or
        `norm` is another word, or the input has not the shape (batch, length).
    IndexError
        If the input holds a code outside the vocabulary.

    References
    ----------
    BitNet (arXiv:2310.11453), Section 2; BitNet b1.58 (arXiv:2402.17764), Section 2, and its
    "Training Tips, Code and FAQ", Figure 3.

    Examples
    --------
    >>> model = Transformer(83, width=16, depth=1, heads=2)
    >>> model(torch.zeros(2, 5, dtype=torch.int64)).shape
    torch.Size([2, 5, 83])
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        precision: Precision = "b1.58",
        norm: Norm | None = None,
        dtype: Any = None,
    ) -> None:
        sizes = {"vocabulary": vocabulary, "width": width, "depth": depth, "heads": heads}
        for name, size in sizes.items():
            check_whole(name, size, 1, 2**31 - 1)
        if width % (2 * heads):
            raise ValueError(
                f"width must be a multiple of 2 · heads, so that RoPE can turn pairs of features; "
                f"got width={width} and heads={heads}"
            )
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
        if norm not in (*NORMS, None):
            raise ValueError(f"norm must be 'rms', 'layer' or None, got {norm!r}")
        norm = norm or ("layer" if precision in ("b1", "w1a1") else "rms")
        super().__init__()
        self.head_width = width // heads
        hidden = 8 * -(-width // 3)  # SwiGLU's 8/3 of the width, rounded up to a multiple of 8
        self.embedding = nn.Embedding(vocabulary, width, dtype=dtype)
        self.blocks = nn.ModuleList(
            Block(width, heads, hidden, precision, norm, dtype) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width, dtype=dtype)
        self.head = nn.Linear(width, vocabulary, bias=False, dtype=dtype)
        if precision == "w1a1":
            # A feature that equals the mean of its token would stand exactly on the sign's step,
            # where rounding decides. Small random shifts keep it off.
            for module in self.modules():
                if isinstance(module, nn.LayerNorm):
                    nn.init.normal_(module.bias, std=0.01)

    def forward(self, codes: Tensor) -> Tensor:
        """Return a logit for every character that may follow each place.

        Parameters
        ----------
        codes : Tensor
            (batch, length), int64.

        Returns
        -------
        Tensor
            (batch, length, vocabulary).
        """
        check_codes("codes", codes, dimensions=2)
        x = self.embedding(codes)
        angles = rotary_angles(codes.shape[1], self.head_width, like=x)
        for block in self.blocks:
            x = block(x, angles)
        return self.head(self.norm(x))


def check_codes(name: str, codes: object, *, dimensions: int) -> None:
    """Refuse what is not an int64 tensor of so many dimensions.

    Raises
    ------
    TypeError
        If it is no int64 tensor.
    ValueError
        If it has another number of dimensions.

    Examples
    --------
    >>> check_codes("codes", torch.zeros(2, 5, dtype=torch.int64), dimensions=2)
    """
    if not isinstance(codes, Tensor) or codes.dtype != torch.int64:
        given = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
        raise TypeError(f"{name} must be an int64 tensor of character codes, got {given}")
    if codes.dim() != dimensions:
        wanted = "(batch, length)" if dimensions == 2 else "(length,)"
        raise ValueError(f"{name} must have shape {wanted}, got {tuple(codes.shape)}")


@torch.no_grad()
def sample(
    model: nn.Module, prompt: Tensor, length: int, *, context: int = 64, temperature: float = 1.0
) -> Tensor:
    """Continue a text, one drawn character after another, in evaluation mode.

    Parameters
    ----------
    model : nn.Module
        Maps codes (1, length) to logits (1, length, vocabulary), as `Transformer` does.
    prompt : Tensor
        (at least one,), int64: the codes of the text so far.
    length : int
        Characters to add.
    context : int
        How many of the last characters the model is shown; what it was trained on.
    temperature : float
        Divides the logits: below 1 for likelier text, above for wilder.

    Returns
    -------
    Tensor
        (prompt + length,), int64. Draws one `torch.rand` a character.

    Raises
    ------
    TypeError
        If `prompt` is no int64 tensor, or `length` or `context` no whole number.
    ValueError
        If `prompt` is empty or has more than one dimension, or a number is not positive.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> model = Transformer(5, width=8, depth=1, heads=2)
    >>> sample(model, torch.tensor([0, 1]), 3).shape
    torch.Size([5])
    """
    check_codes("prompt", prompt, dimensions=1)
    check_whole("length", length, 0, 2**31 - 1)
    check_whole("context", context, 1, 2**31 - 1)
    if not len(prompt):
        raise ValueError("prompt is empty; the model needs at least one character to go on from")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    text = prompt
    with evaluation_mode(model):
        for _ in range(length):
            logits = model(text[None, -context:])[0, -1]
            chances = F.softmax(logits / temperature, dim=0).cumsum(0)
            drawn = torch.rand((), dtype=chances.dtype, device=chances.device) * chances[-1]
            following = torch.searchsorted(chances, drawn, right=True).clamp(max=len(chances) - 1)
            text = torch.cat((text, following[None]))
    return text
