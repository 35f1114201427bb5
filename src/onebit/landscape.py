"""The loss that a binary network sees: plateaus between sign crossings, and the price of a flip."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from onebit.layers import QuantConv2d, QuantLinear
from onebit.optim import quantized_layers
from onebit.quantizers import BinarySign
from onebit.ste import binary_sign
from onebit.training import evaluation_mode

Loss = Callable[[nn.Module], Tensor]


def latent_vector(model: nn.Module) -> Tensor:
    """Return the latent weights of all quantised layers, one after the other, as one vector.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    Tensor
        (weights,), a copy. Layers come in the order of `onebit.optim.quantized_layers`.

    Raises
    ------
    ValueError
        If no layer of the model is quantised.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> latent_vector(nn.Sequential(BinaryLinear(3, 2), BinaryLinear(2, 1))).shape
    torch.Size([8])
    """
    return torch.cat([layer.weight.detach().flatten() for layer in _layers(model)])


def _layers(model: nn.Module) -> list[QuantLinear | QuantConv2d]:
    layers = list(quantized_layers(model))
    if not layers:
        raise ValueError("model has no quantised layer, so no weight whose sign could flip")
    return layers


def _check_direction(latent: Tensor, direction: Tensor) -> None:
    if direction.shape != latent.shape:
        raise ValueError(
            f"direction has shape {tuple(direction.shape)}, want {tuple(latent.shape)}: one number "
            "for each latent weight, in the order of latent_vector(model)"
        )


def sign_crossings(latent: Tensor, direction: Tensor) -> Tensor:
    """Return where on the ray ``latent + t · direction`` a weight changes its sign, ascending.

    Parameters
    ----------
    latent, direction : Tensor
        (weights,), float.

    Returns
    -------
    Tensor
        One t > 0 for each weight that crosses zero (t = 0 for a weight that stands at zero, whose
        sign is +1, and moves down). Between two neighbours of the list no sign changes.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> sign_crossings(torch.tensor([0.5, -1.0, 1.0]), torch.tensor([-1.0, 0.5, 1.0])).tolist()
    [0.5, 2.0]
    """
    _check_direction(latent, direction)
    towards_zero = torch.where(latent >= 0, direction < 0, direction > 0)
    return (-latent / direction)[towards_zero].abs().sort().values


@torch.no_grad()
def loss_along(model: nn.Module, direction: Tensor, t: Iterable[float], loss: Loss) -> list[float]:
    """Return the loss at points of the ray from the latent weights in a direction.

    Parameters
    ----------
    model : nn.Module
        Run in evaluation mode; its latent weights are put back afterwards.
    direction : Tensor
        (weights,), as `latent_vector` orders them.
    t : iterable of float
        How far along the direction each point lies.
    loss : callable
        From the model to a scalar, for instance
        ``lambda model: squared_hinge(model(x), y)``.

    Returns
    -------
    list of float

    Raises
    ------
    ValueError
        If no layer is quantised, or `direction` has another shape than the latent weights.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> layer = BinaryLinear(1, 1, bias=False)
    >>> layer.weight.data.fill_(-0.5)
    tensor([[-0.5000]])
    >>> loss_along(layer, torch.ones(1), [0, 0.4, 0.6], lambda m: m(torch.ones(1, 1)).sum())
    [-1.0, -1.0, 1.0]
    """
    latent = latent_vector(model)
    _check_direction(latent, direction)
    losses = []
    with evaluation_mode(model):
        try:
            for distance in t:
                _set_latent(model, latent + distance * direction)
                losses.append(loss(model).item())
        finally:
            _set_latent(model, latent)
    return losses


def _set_latent(model: nn.Module, latent: Tensor) -> None:
    start = 0
    for layer in _layers(model):
        end = start + layer.weight.numel()
        layer.weight.data.copy_(latent[start:end].view_as(layer.weight))
        start = end


def predicted_flips(model: nn.Module, loss: Loss) -> Tensor:
    """Return for every binary weight what its flip does to the loss, by the gradient.

    Flipping a weight moves it by ``−2 w_b``, so to first order the loss changes by
    ``−2 w_b · ∂C/∂w_b``. The straight-through estimator hands just this gradient to the latent
    weight; it is that of the signs, whatever the latent weights are.

    Parameters
    ----------
    model : nn.Module
        Its quantised layers have `BinarySign` weights; run in evaluation mode, and left as it was.
    loss : callable
        From the model to a scalar.

    Returns
    -------
    Tensor
        (weights,), in the order of `latent_vector`.

    Raises
    ------
    ValueError
        If no layer is quantised.
    TypeError
        If a layer's weights are quantised by anything but `BinarySign`.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Algorithm 1, has the gradient at w_b.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> layer = BinaryLinear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[0.3, -0.1]])
    >>> x = torch.tensor([[1.0, 5.0]])
    >>> predicted_flips(layer, lambda m: (x @ m.weight_quant(m.weight).T).sum()).tolist()
    [-2.0, 10.0]
    """
    for layer in _layers(model):
        if not isinstance(layer.weight_quant, BinarySign):
            raise TypeError(
                f"a layer's weight_quant is {type(layer.weight_quant).__name__}; a flip is a step "
                "of −2 w_b for BinarySign weights only"
            )
    latent = latent_vector(model)
    signs = binary_sign(latent)
    with evaluation_mode(model):
        try:
            _set_latent(model, signs)  # at ±1 no bound of the estimator cancels a gradient
            weights = [layer.weight for layer in _layers(model)]
            gradient = torch.autograd.grad(loss(model), weights)
        finally:
            _set_latent(model, latent)
    return -2 * signs * torch.cat([g.flatten() for g in gradient])


def real_flips(model: nn.Module, flips: Iterable[Sequence[int] | Tensor], loss: Loss) -> Tensor:
    """Return what each set of flips does to the loss, by computing it anew.

    Parameters
    ----------
    model : nn.Module
        Run in evaluation mode, and left as it was.
    flips : iterable of sequences of int
        Each a set of weights to flip together, by their places in `latent_vector`.
    loss : callable
        From the model to a scalar.

    Returns
    -------
    Tensor
        (sets,), float64: the loss after each set's flips minus the loss without any.

    Raises
    ------
    ValueError
        If no layer is quantised, or a place is not that of a weight.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> layer = BinaryLinear(2, 1, bias=False)
    >>> layer.weight.data = torch.tensor([[0.3, -0.1]])
    >>> square = lambda m: m(torch.tensor([[1.0, 1.0]])).square().sum()
    >>> real_flips(layer, [[0], [1], [0, 1]], square).tolist()
    [4.0, 4.0, 0.0]
    """
    latent = latent_vector(model)
    signs = binary_sign(latent)
    changes = []
    with torch.no_grad(), evaluation_mode(model):
        try:
            start = loss(model)
            for flip in flips:
                chosen = torch.as_tensor(flip, dtype=torch.long)
                if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < len(latent):
                    raise ValueError(f"flips names a weight outside 0 to {len(latent) - 1}")
                flipped = signs.clone()
                flipped[chosen] *= -1
                _set_latent(model, flipped)
                changes.append((loss(model) - start).item())
        finally:
            _set_latent(model, latent)
    return torch.tensor(changes, dtype=torch.float64)
