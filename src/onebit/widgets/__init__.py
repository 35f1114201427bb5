"""Interactive pieces that work in JupyterLab and, without a kernel, in the static book."""

try:
    import anywidget as _anywidget  # noqa: F401
except ImportError as missing:
    raise ImportError(
        "onebit.widgets needs anywidget and ipywidgets, which the course extra brings: "
        "pip install 'onebit[course]'"
    ) from missing

from onebit.widgets.bitdot import BitDot
from onebit.widgets.kernel_race import KernelRace
from onebit.widgets.predict import Predict
from onebit.widgets.quiz import Question, Quiz
from onebit.widgets.sweep import Frames, FrameSweep, Sweep

__all__ = ["BitDot", "FrameSweep", "Frames", "KernelRace", "Predict", "Question", "Quiz", "Sweep"]
