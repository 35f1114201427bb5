"""The papers' networks, each built by one function."""

from onebit.models.mlp import binaryconnect_mlp, binarynet_mlp

__all__ = ["binaryconnect_mlp", "binarynet_mlp"]
