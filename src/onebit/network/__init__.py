"""A whole network as bits: packed layer by layer, run without leaving bits, stored in one file.

Between two binary layers, all that a batch norm and a sign do to an integer product is to compare
it with a threshold. `pack` finds that integer for every output and drops the rest; pooling becomes
an OR of bits. In memory, images are words of shape (N, H, W, ceil(C / 64)): one place's channels
stand together, so that a window of a convolution is whole words copied side by side.
"""

from onebit.network.chain import PackedNetwork
from onebit.network.files import load, save
from onebit.network.fusion import pack
from onebit.network.stages import PackedBlock, PackSigns, PixelBlock

__all__ = ["PackSigns", "PackedBlock", "PackedNetwork", "PixelBlock", "load", "pack", "save"]
