"""What training binary weights adds to an optimizer: clipping, rate scaling, and Bop."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from onebit.layers import QuantConv2d, QuantLinear


def quantized_layers(model: nn.Module) -> Iterator[QuantLinear | QuantConv2d]:
    """Return the layers of `model`, itself included, whose weights are quantised.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    iterator of QuantLinear and QuantConv2d
        Each layer once, in the order of `model.modules()`.

    Raises
    ------
    TypeError
        If `model` is not a module.

    Examples
    --------
    >>> from onebit.layers import BinaryLinear
    >>> len(list(quantized_layers(nn.Sequential(BinaryLinear(2, 2), nn.Linear(2, 2)))))
    1
    """
    _check_model(model)
    return (
        module
        for module in model.modules()
        if isinstance(module, QuantLinear | QuantConv2d) and module.weight_quant is not None
    )


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")


def _check_bound(bound: float) -> None:
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound!r}")


@torch.no_grad()
def clip_latent_weights_(model: nn.Module, bound: float = 1.0) -> None:
    """Clamp the latent weights of quantised layers to [−bound, bound], in place.

    Biases, normalisation and float layers are left alone.

    Parameters
    ----------
    model : nn.Module
        A network or one layer; without quantised layers nothing happens.
    bound : float
        The papers' 1.

    Raises
    ------
    TypeError
        If `model` is not a module.
    ValueError
        If `bound` is not positive.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Section 2.4 and Algorithm 1.

    Examples
    --------
    >>> from onebit.layers import BinaryConnectLinear
    >>> layer = BinaryConnectLinear(1, 1)
    >>> _ = layer.weight.data.fill_(3.0)
    >>> clip_latent_weights_(layer)
    >>> layer.weight.item()
    1.0
    """
    _check_bound(bound)
    for layer in quantized_layers(model):
        layer.weight.clamp_(-bound, bound)


def clip_after_step(
    optimizer: torch.optim.Optimizer, model: nn.Module, bound: float = 1.0
) -> RemovableHandle:
    """Clip the latent weights of `model` after every step of `optimizer`.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
    model : nn.Module
        Layers that it gains later are clipped too.
    bound : float
        As in `clip_latent_weights_`.

    Returns
    -------
    RemovableHandle
        Its `remove()` ends the clipping.

    Raises
    ------
    TypeError
        If `optimizer` or `model` is something else.
    ValueError
        If `bound` is not positive.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Algorithm 1; BinaryNet (NIPS 2016), Algorithm 1.

    Examples
    --------
    >>> from onebit.layers import BinaryConnectLinear
    >>> layer = BinaryConnectLinear(1, 1)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    >>> handle = clip_after_step(optimizer, layer)
    >>> layer(torch.ones(1, 1)).sum().backward()
    >>> optimizer.step()
    >>> layer.weight.item()
    -1.0
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    _check_model(model)
    _check_bound(bound)
    return optimizer.register_step_post_hook(lambda *_: clip_latent_weights_(model, bound))


def glorot_rates(model: nn.Module, lr: float, *, power: int = 1) -> list[dict[str, Any]]:
    """Return parameter groups in which quantised weights learn faster, by Glorot's coefficients.

    A quantised weight matrix gets lr · ((fan_in + fan_out) / 1.5) ** (power / 2); everything else
    gets `lr`.

    Parameters
    ----------
    model : nn.Module
    lr : float
        The base rate.
    power : {1, 2}
        1 for Adam, 2 for SGD, whose steps shrink with the gradient.

    Returns
    -------
    list of dict
        One group for each quantised weight matrix, in the order of `quantized_layers`, and last
        one for all other parameters, if there are any. For the optimizer's `params`.

    Raises
    ------
    TypeError
        If `model` is not a module.
    ValueError
        If `power` is neither 1 nor 2.

    References
    ----------
    BinaryConnect (arXiv:1511.00363), Section 2.5 and Table 1.

    Examples
    --------
    >>> from onebit.layers import BinaryConnectLinear
    >>> [group["lr"] for group in glorot_rates(BinaryConnectLinear(4, 2), 0.1, power=2)]
    [0.4, 0.1]
    """
    if power not in (1, 2):
        raise ValueError(f"power must be 1 (Adam) or 2 (SGD), got {power!r}")
    groups: list[dict[str, Any]] = []
    scaled = set()
    for layer in quantized_layers(model):
        if layer.weight in scaled:
            continue
        fan_in = layer.weight[0].numel()
        fan_out = layer.weight.numel() // layer.weight.shape[1]
        factor = ((fan_in + fan_out) / 1.5) ** (power / 2)
        groups.append({"params": [layer.weight], "lr": lr * factor})
        scaled.add(layer.weight)
    rest = [p for p in model.parameters() if p not in scaled]
    return [*groups, {"params": rest, "lr": lr}] if rest else groups


class Bop(torch.optim.Optimizer):
    """Flip a binary weight when its averaged gradient insists; there are no latent weights.

    Parameters
    ----------
    params : iterable of Tensor
        Weights that are exactly −1 or +1.
    gamma : float
        Rate of the exponential moving average of gradients, in (0, 1].
    threshold : float
        How large the average must grow, with the weight's own sign, before the weight flips.

    Raises
    ------
    ValueError
        If a hyper-parameter is out of range, or a parameter holds anything but ±1. Parameter
        groups with values of their own, and groups added later, are held to the same.

    References
    ----------
    Helwegen et al., "Latent weights do not exist", NeurIPS 2019, Algorithm 1.

    Examples
    --------
    >>> w = torch.ones(2, requires_grad=True)
    >>> optimizer = Bop([w], gamma=1.0, threshold=0.5)
    >>> (w * torch.tensor([1.0, -1.0])).sum().backward()
    >>> optimizer.step()
    >>> w.tolist()
    [-1.0, 1.0]
    """

    def __init__(
        self, params: Iterable[Tensor], gamma: float = 1e-3, threshold: float = 1e-6
    ) -> None:
        super().__init__(params, {"gamma": gamma, "threshold": threshold})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, once their values and hyper-parameters are known to make sense.

        Parameters
        ----------
        param_group : dict
            "params", and where they differ from the defaults "gamma" and "threshold".
        """
        given = self.defaults | param_group
        if not 0 < given["gamma"] <= 1:
            raise ValueError(f"gamma must be in (0, 1], got {given['gamma']!r}")
        if not given["threshold"] >= 0:
            raise ValueError(f"threshold must not be negative, got {given['threshold']!r}")
        super().add_param_group(param_group)
        if not all(bool((p.detach().abs() == 1).all()) for p in param_group["params"]):
            self.param_groups.pop()
            raise ValueError(
                "params must hold only -1 and +1, since Bop flips signs and nothing else; "
                "initialise them with onebit.binary_sign"
            )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update the averages and flip the weights that they outvote.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients anew.

        Returns
        -------
        The closure's loss, or None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._flip(p, group["gamma"], group["threshold"])
        return loss

    def _flip(self, p: Tensor, gamma: float, threshold: float) -> None:
        average = self.state[p].setdefault("average", torch.zeros_like(p))
        average.lerp_(p.grad, gamma)
        flip = (average.abs() > threshold) & (average.sign() == p)
        p.copy_(torch.where(flip, -p, p))
