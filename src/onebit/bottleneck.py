"""The activation bottleneck: nets of one width, alike but for their bits, trained side by side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onebit._operands import check_whole
from onebit.ste import binary_sign, check_float, ste_sign, straight_through
from onebit.training import evaluation_mode, squared_hinge

REAL = 32  # bits that stand for "not rounded"


def uniform_levels(x: Tensor, bits: int | Sequence[int]) -> Tensor:
    """Round to ``2**bits`` levels, evenly spaced from −1 to +1, with the hard tanh's gradient.

    One bit gives the sign, with its levels −1 and +1; 32 bits stand for no rounding, which leaves
    the hard tanh itself. So all share the gradient ``g · 1{|x| ≤ 1}`` and differ in levels alone.

    Parameters
    ----------
    x : Tensor
        Any float shape.
    bits : int or sequence of int
        1 to 16, or 32; a sequence holds one number for each feature (last dimension).

    Returns
    -------
    Tensor
        Same shape and dtype, within ±1. A value halfway between two levels goes to the outer one,
        and zero to the positive side.

    Raises
    ------
    TypeError
        If `x` is not a float tensor, or a number of bits is not whole.
    ValueError
        If a number of bits is out of range, or there is not one for each feature.

    References
    ----------
    BinaryNet (NIPS 2016), Eqs. 1, 4 and 5, which are the case of one bit.

    Examples
    --------
    >>> x = torch.tensor([-2.0, -0.5, 0.0, 0.2, 0.9])
    >>> uniform_levels(x, 1).tolist()
    [-1.0, -1.0, 1.0, 1.0, 1.0]
    >>> [round(v, 3) for v in uniform_levels(x, 2).tolist()]
    [-1.0, -0.333, 0.333, 0.333, 1.0]
    """
    check_float("x", x)
    numbers = _checked_bits(bits)
    if numbers.dim() and numbers.shape != x.shape[-1:]:
        raise ValueError(
            f"bits has {len(numbers)} numbers, but x has shape {tuple(x.shape)}; give one number "
            "for each feature (last dimension), or a single one for all"
        )
    return _to_levels(x, numbers)


def _checked_bits(bits: int | Sequence[int]) -> Tensor:
    numbers = [
        check_whole("bits", b, 1, REAL) for b in (bits if isinstance(bits, Sequence) else [bits])
    ]
    if bad := [b for b in numbers if 16 < b < REAL]:
        raise ValueError(f"bits must be 1 to 16, or {REAL} for no rounding, got {bad[0]}")
    return torch.tensor(numbers if isinstance(bits, Sequence) else numbers[0])


def _to_levels(x: Tensor, bits: Tensor) -> Tensor:
    soft = F.hardtanh(x)
    steps = 2.0 ** bits.to(x.dtype) - 1
    # Levels lie at odd multiples of 1 / steps. Counting from zero outwards keeps one bit exactly
    # the sign, which adding 1 to a tiny negative number would not.
    magnitude = (2 * (soft.detach().abs() * steps / 2).floor() + 1) / steps
    levels = magnitude * binary_sign(soft.detach())
    return straight_through(soft, torch.where(bits == REAL, soft, levels))


class Levels(nn.Module):
    """`uniform_levels` as a module: an activation of a few bits.

    Parameters
    ----------
    bits : int or sequence of int
        For all features, or one number for each.

    Raises
    ------
    TypeError, ValueError
        As `uniform_levels`.

    Examples
    --------
    >>> Levels(1)(torch.tensor([-0.3, 0.0])).tolist()
    [-1.0, 1.0]
    """

    bits: Tensor

    def __init__(self, bits: int | Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("bits", _checked_bits(bits), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return x rounded to the levels."""
        return _to_levels(x, self.bits)


class GroupedLinear(nn.Module):
    """Linear layers of several nets, computed as one product.

    Parameters
    ----------
    nets, in_features, out_features : int
        Number of layers, and the sizes of each.
    shared_input : bool
        Whether all see the same input, as the first layers of several nets do.
    binary : bool
        Whether the latent weights enter the product as signs, with BinaryNet's gradient.
    dtype
        Of the weights.

    Raises
    ------
    TypeError, ValueError
        If a size is no positive whole number.

    Examples
    --------
    >>> layer = GroupedLinear(3, 4, 2, binary=True)
    >>> layer(torch.randn(5, 3 * 4)).shape
    torch.Size([5, 6])
    """

    def __init__(
        self, nets: int, in_features: int, out_features: int, *, shared_input: bool = False,
        binary: bool = False, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.nets = check_whole("nets", nets, 1, 2**31 - 1)
        self.in_features = check_whole("in_features", in_features, 1, 2**31 - 1)
        self.out_features = check_whole("out_features", out_features, 1, 2**31 - 1)
        self.shared_input, self.binary = shared_input, binary
        self.weight = nn.Parameter(torch.empty(nets, out_features, in_features, dtype=dtype))
        for layer in self.weight.data:
            nn.init.xavier_uniform_(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return (m, nets · out_features) for x of (m, nets · in_features), or (m, in_features)."""
        w = ste_sign(self.weight) if self.binary else self.weight
        if self.shared_input:
            return x @ w.flatten(0, 1).T
        x = x.unflatten(1, (self.nets, self.in_features)).transpose(0, 1)
        return (x @ w.transpose(1, 2)).transpose(0, 1).flatten(1)


def side_by_side(
    bits: Sequence[int], width: int, *, binary: bool, in_features: int, classes: int = 10,
    depth: int = 2, dtype: torch.dtype = torch.float64,
) -> nn.Sequential:  # fmt: skip
    """Return several nets in one, each linear → batch norm → `Levels`, from the same first weights.

    Parameters
    ----------
    bits : sequence of int
        Bits of each net's activations, 32 for none rounded: one net a number.
    width, depth : int
        Units of a hidden layer, and hidden layers, of each net.
    binary : bool
        Whether all nets' weights are signs of latent ones, or real.
    in_features, classes : int
        Sizes of the shared input and of each net's output.
    dtype
        Of the weights.

    Returns
    -------
    nn.Sequential
        From (m, in_features) to (m, nets · classes), the outputs of the first net first. Batch
        norm's shifts start at small random numbers, the same in all nets.

    Raises
    ------
    TypeError, ValueError
        If a size is no positive whole number, or `bits` does not fit `Levels`.

    Examples
    --------
    >>> nets = side_by_side([1, 8, 32], 16, binary=True, in_features=20)
    >>> nets(torch.rand(7, 20, dtype=torch.float64)).shape
    torch.Size([7, 30])
    """
    n = len(bits)
    check_whole("number of nets", n, 1, 2**31 - 1)
    layers: list[nn.Module] = []
    for i in range(check_whole("depth", depth, 1, 2**31 - 1)):
        layers += _normed(n, width if i else in_features, width, i == 0, binary, dtype)
        layers += [Levels([b for b in bits for _ in range(width)])]
    return nn.Sequential(*layers, *_normed(n, width, classes, False, binary, dtype))


def _normed(
    nets: int, k: int, out: int, first: bool, binary: bool, dtype: torch.dtype
) -> list[nn.Module]:
    """Return a grouped layer and its batch norm, each net with the first net's weights."""
    linear = GroupedLinear(nets, k, out, shared_input=first, binary=binary, dtype=dtype)
    linear.weight.data[:] = linear.weight.data[0]
    norm = nn.BatchNorm1d(nets * out, dtype=dtype)
    norm.bias.data = (0.01 * torch.randn(out, dtype=dtype)).repeat(nets)
    return [linear, norm]


def train_side_by_side(
    model: nn.Sequential, train_set: tuple[Tensor, Tensor], *, epochs: int = 1,
    batch_size: int = 200, lr: float = 0.004,
) -> None:  # fmt: skip
    """Train every net of `side_by_side` as if it were alone, on the same minibatches.

    Adam, with a rate that decays to a tenth; binary weights learn at rates scaled by Glorot's
    coefficients and are clipped to ±1, real ones are left as they are. The nets' losses are
    summed, and no weight serves two nets, so none feels the others.

    Parameters
    ----------
    model : nn.Sequential
        From `side_by_side`; trained in place, and left in evaluation mode.
    train_set : (Tensor, Tensor)
        Inputs and class numbers.
    epochs, batch_size : int
        A last, smaller minibatch is left out.
    lr : float
        Of Adam at the first step.

    Raises
    ------
    TypeError, ValueError
        If a number is not whole and positive, or the set is smaller than a minibatch.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Sections 2.4 and 2.5.

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> x = torch.randn(400, 5, dtype=torch.float64)
    >>> y = (x[:, 0] > 0).long()
    >>> nets = side_by_side([1, 32], 8, binary=False, in_features=5, classes=2)
    >>> train_side_by_side(nets, (x, y), epochs=20, lr=0.03)
    >>> bool((errors_side_by_side(nets, x, y) < 20).all())
    True
    """
    x, y = train_set
    batches = len(x) // check_whole("batch_size", batch_size, 1, 2**31 - 1)
    if not batches:
        raise ValueError(f"train_set has {len(x)} rows, fewer than batch_size={batch_size}")
    steps = check_whole("epochs", epochs, 1, 2**31 - 1) * batches
    latent = [m for m in model if isinstance(m, GroupedLinear) and m.binary]
    scaled = [
        {"params": [m.weight], "lr": lr * ((m.in_features + m.out_features) / 1.5) ** 0.5}
        for m in latent
    ]
    held = {m.weight for m in latent}
    rest = [p for p in model.parameters() if p not in held]
    optimizer = torch.optim.Adam([*scaled, {"params": rest}], lr=lr, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1 ** (step / steps))
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(batch_size)[:batches]:
            optimizer.zero_grad()
            outputs = _of_each_net(model, x[rows])
            loss = squared_hinge(outputs.flatten(0, 1), y[rows].repeat(len(outputs)))
            (len(outputs) * loss).backward()
            optimizer.step()
            decay.step()
            for m in latent:
                m.weight.data.clamp_(-1, 1)
    model.eval()


@torch.no_grad()
def errors_side_by_side(model: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    """Return the percentage of rows that each net misclassifies, in evaluation mode.

    Parameters
    ----------
    model : nn.Sequential
        From `side_by_side`; put back into its mode afterwards.
    x, y : Tensor
        Inputs and class numbers.

    Returns
    -------
    Tensor
        (nets,), float64.

    Examples
    --------
    >>> nets = side_by_side([1, 32], 8, binary=False, in_features=5, classes=2)
    >>> errors_side_by_side(nets, torch.randn(9, 5).double(), torch.zeros(9).long()).shape
    torch.Size([2])
    """
    with evaluation_mode(model):
        wrong = _of_each_net(model, x).argmax(2) != y
    return 100 * wrong.double().mean(1)


def _of_each_net(model: nn.Sequential, x: Tensor) -> Tensor:
    """Return (nets, m, classes)."""
    return model(x).unflatten(1, (model[0].nets, -1)).transpose(0, 1)
