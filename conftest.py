"""How tests and notebooks run: threads wait instead of spinning, and there are no progress bars."""

import os

# Set before torch starts its threads; the kernels that nbval starts inherit all three.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("TQDM_DISABLE", "1")

pytest_plugins = ["stored_sweeps"]
