"""The papers' networks, each built by one call."""

from onebit.models.cnn import xnornet_cnn
from onebit.models.mlp import binaryconnect_mlp, binarynet_mlp
from onebit.models.resnet import resnet18
from onebit.models.transformer import Transformer, sample

__all__ = [
    "Transformer",
    "binaryconnect_mlp",
    "binarynet_mlp",
    "resnet18",
    "sample",
    "xnornet_cnn",
]
