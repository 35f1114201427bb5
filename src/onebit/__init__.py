"""Binary neural networks, one bit at a time: layers that train, bits that run."""

from onebit import ops
from onebit.bits import pack_signs, pack_ternary, unpack_signs, unpack_ternary
from onebit.blocks import Sign, binarynet_block, binarynet_conv_block, xnornet_block
from onebit.kernels import (
    PackedMatrix,
    available_kernels,
    kernel_name,
    prepack,
    ternary_gemm,
    xnor_gemm,
    xnor_gemm_bits,
)
from onebit.layers import (
    BinaryConnectLinear,
    BinaryConv2d,
    BinaryLinear,
    BitLinear,
    QuantConv2d,
    QuantLinear,
    XNORConv2d,
    XNORLinear,
)
from onebit.model_summary import flip_ratio, latent_signs, summary
from onebit.network import load, pack, save
from onebit.optim import Bop, clip_after_step, clip_latent_weights_, glorot_rates
from onebit.packing import PackedConv2d, PackedLinear
from onebit.quantizers import (
    BinaryAbsMean,
    BinarySign,
    Int8AbsMax,
    Quantizer,
    ScaledBinary,
    StochasticBinary,
    TernaryAbsMean,
)
from onebit.ste import (
    approx_sign,
    binary_sign,
    hard_sigmoid,
    ste_round,
    ste_sign,
    stochastic_sign,
    straight_through,
)

__version__ = "0.1.0"

__all__ = [
    "BinaryAbsMean",
    "BinaryConnectLinear",
    "BinaryConv2d",
    "BinaryLinear",
    "BinarySign",
    "BitLinear",
    "Bop",
    "Int8AbsMax",
    "PackedConv2d",
    "PackedLinear",
    "PackedMatrix",
    "QuantConv2d",
    "QuantLinear",
    "Quantizer",
    "ScaledBinary",
    "Sign",
    "StochasticBinary",
    "TernaryAbsMean",
    "XNORConv2d",
    "XNORLinear",
    "approx_sign",
    "available_kernels",
    "binary_sign",
    "binarynet_block",
    "binarynet_conv_block",
    "clip_after_step",
    "clip_latent_weights_",
    "flip_ratio",
    "glorot_rates",
    "hard_sigmoid",
    "kernel_name",
    "latent_signs",
    "load",
    "ops",
    "pack",
    "pack_signs",
    "pack_ternary",
    "prepack",
    "save",
    "ste_round",
    "ste_sign",
    "stochastic_sign",
    "straight_through",
    "summary",
    "ternary_gemm",
    "unpack_signs",
    "unpack_ternary",
    "xnor_gemm",
    "xnor_gemm_bits",
    "xnornet_block",
]
