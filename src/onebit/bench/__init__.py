"""The benchmark: this kernel, its peers and the machine's own ceilings, timed turn by turn.

Before a peer is timed its product is compared with the right one, and whoever can write into an
array made before does. Each result is told as a share of what the machine could do at most,
measured in the same rounds.
"""

from onebit.bench.limits import ceilings
from onebit.bench.machine import cores
from onebit.bench.roof import roofline
from onebit.bench.session import run
from onebit.bench.turns import Effort

__all__ = ["Effort", "ceilings", "cores", "roofline", "run"]
