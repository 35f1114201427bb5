"""A whole network: BinaryNet's MLP on 8-bit pixels, packed and in float32."""

import functools

import numpy as np
import torch
from torch import nn

import onebit
from onebit.bench.contest import Contestant, Maker
from onebit.bench.operands import Operands
from onebit.bench.torch_products import torch_threads
from onebit.layers import QuantLinear
from onebit.models import binarynet_mlp

MLP_MACS = 784 * 1024 + 2 * 1024 * 1024 + 1024 * 10


def mlp_makers(batch: int) -> tuple[dict[str, Maker], np.ndarray]:
    """Return a BinaryNet of 784–3×1024–10, packed and in float32, and the classes it predicts.

    The float network computes the same function with torch's own modules: its weights are already
    signs, so that nothing is quantised while it runs, and its pixels already floats. The packed one
    takes them as uint8.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = binarynet_mlp(width=1024)
        pixels = torch.randint(0, 256, (512, 784), dtype=torch.uint8)
        x = pixels / 255
        with torch.no_grad():
            for _ in range(20):
                model(x)  # running statistics for batch norm
    model.eval()
    pixels, x = pixels[:batch], x[:batch]

    class _PlainSign(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.where(x >= 0, 1.0, -1.0)

    layers: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, QuantLinear):
            linear = nn.Linear(module.in_features, module.out_features, bias=False)
            linear.weight.data = onebit.binary_sign(module.weight.detach())
            layers.append(linear)
        elif isinstance(module, nn.BatchNorm1d):
            layers.append(module)
        elif isinstance(module, onebit.Sign):
            layers.append(_PlainSign())
    plain, packed = nn.Sequential(*layers).eval(), onebit.pack(model, pixels=lambda p: p / 255)

    def maker(name: str, network: nn.Module, x: torch.Tensor) -> Maker:
        def make(_: Operands, threads: int) -> Contestant:
            @torch.inference_mode()
            def call() -> torch.Tensor:
                return network(x)

            return Contestant(
                name, [call], lambda: call().argmax(1).numpy(), "", 0,
                mode=functools.partial(torch_threads, threads),
            )  # fmt: skip

        return make

    makers = {
        "onebit": maker("onebit", packed, pixels),
        "torch float32": maker("torch float32", plain, x),
    }
    with torch.no_grad():
        return makers, model(x).argmax(1).numpy()
