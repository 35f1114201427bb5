"""How many times wider a binary network must be: error against width, both ways, two data sets.

A point on either curve is a network of three hidden layers of one width. The factor that the
binary network needs is the horizontal distance between the two curves, read at the error of the
real one. At 1 024 units both saturate on MNIST, so the real networks stop at 256.
"""

from onebit.experiments.declare import Arm, Budget, Experiment, Network, Recipe

FLOAT_WIDTHS = (16, 32, 64, 128, 256)
BINARY_WIDTHS = (32, 64, 128, 256, 512, 1024)

_DATA = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}


def _arm(data: str, binary: bool, width: int) -> Arm:
    task = f"onebit.experiments.tasks:{data}_rows"
    if binary:
        network = Network("onebit.models:binarynet_mlp", {"width": width})
        recipe = Recipe(task, optimizer="adam", rate=3e-3, final=0.01, glorot=1, clip=True)
    else:
        network = Network("onebit.models:binaryconnect_mlp", {"weights": "real", "width": width})
        recipe = Recipe(task, optimizer="adam", rate=3e-3, final=0.01)
    kind = "binary" if binary else "float"
    label = f"{_DATA[data]}, {'W1A1' if binary else 'full precision'}, 3 × {width}"
    return Arm(f"{data}-{kind}-{width}", label, network, recipe)


TABLE = Experiment(
    name="width",
    about="error against width, full precision and W1A1, on MNIST and Fashion-MNIST",
    metric="test error",
    unit="%",
    decimals=2,
    arms=tuple(
        _arm(data, binary, width)
        for data in _DATA
        for binary, widths in ((False, FLOAT_WIDTHS), (True, BINARY_WIDTHS))
        for width in widths
    ),
    budgets=(
        Budget("smoke", epochs=1, seeds=1, rows=500),
        Budget("short", epochs=3, seeds=3),
        Budget("book", epochs=36, seeds=3),
        Budget("paper", epochs=200, seeds=6),
    ),
)
