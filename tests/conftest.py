"""What every test runs under: quiet threads, no windows, patient and repeatable hypothesis."""

import os

# Before torch is imported, and for the kernels that nbval starts too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import matplotlib
import torch

# Not through MPLBACKEND, which the notebooks' kernels would inherit and lose their figures by.
matplotlib.use("Agg")

# Under xdist each worker is a process of its own, and the cores are shared among them.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1))

hypothesis.settings.register_profile("course", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("course")
