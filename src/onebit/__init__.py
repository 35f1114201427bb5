"""Binary neural networks, one bit at a time: layers that train, bits that run."""

__version__ = "0.1.0"
