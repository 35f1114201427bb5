"""The papers' networks, each built by one function."""

from onebit.models.cnn import xnornet_cnn
from onebit.models.mlp import binaryconnect_mlp, binarynet_mlp

__all__ = ["binaryconnect_mlp", "binarynet_mlp", "xnornet_cnn"]
