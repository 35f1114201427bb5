"""What an exercise is made of: tasks, the checks of each in order, and the cases they try."""

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

Check = Callable[..., str | None]

#: Seconds that one check may take before the learner's code counts as an endless loop.
SECONDS = 10.0
MOST_SHOWN = 16


@dataclass
class Task:
    """One task: what the learner hands in, and the checks that it has to pass, in order.

    Attributes
    ----------
    id, title : str
        ``"04.2"`` and a few words.
    names : tuple of str
        The public names that the learner defines, in the order in which `check` takes them. A
        check's parameters are those of them that it looks at.
    seconds : float
        What one check may take; training takes longer than the usual.
    isolated : bool
        Whether the learner hands in C, which is checked in a process of its own.
    """

    id: str
    title: str
    names: tuple[str, ...]
    seconds: float = SECONDS
    isolated: bool = False
    checks: list[Check] = field(default_factory=list)

    def check(self, function: Check) -> Check:
        """Add a check: a decorator. Its docstring's first line says what must hold."""
        self.checks.append(function)
        return function


class Exercise:
    """The tasks of one exercise file; a module of checks holds one, under the file's own name.

    Parameters
    ----------
    module : str
        The ``__name__`` of the module of checks, which ends in the name of the file.
    """

    def __init__(self, module: str) -> None:
        self.stem = module.rpartition(".")[2]
        self.tasks: dict[str, Task] = {}

    def task(
        self,
        id: str,
        title: str,
        *names: str,
        seconds: float = SECONDS,
        isolated: bool = False,
    ) -> Task:
        """Add a task and return it, for its checks to be hung on."""
        return self.tasks.setdefault(id, Task(id, title, names, seconds, isolated))


class Wrong(Exception):
    """What a check found: the input, what was expected, what came, and the likely cause."""

    def __init__(self, given: str, expected: str, got: str, cause: str) -> None:
        super().__init__(given, expected, got, cause)
        self.given, self.expected, self.got, self.cause = given, expected, got, cause


class Case:
    """One input that a check tries, shown by name in whatever has to be said about it.

    Make it before the learner's code is called, so that an exception or a crash is told with the
    input that led to it. Checks go from the smallest case up: the first that fails is shown.

    Parameters
    ----------
    **given
        The input as the learner's code gets it: tensors, arrays, numbers, or a text in words.

    Examples
    --------
    >>> case = Case(x=torch.tensor([0.0, -1.5]), clip_value=1.0)
    >>> case.given
    'x = [0, -1.5], clip_value = 1'
    >>> case.expect(torch.sign(torch.zeros(1)), torch.ones(1), cause="sign(0) has to be +1")
    Traceback (most recent call last):
    onebit.checks.tasks.Wrong: ('x = [0, -1.5], clip_value = 1', '[1]', '[0]', 'sign(0) has to be +1')
    """  # noqa: E501

    #: The case being tried, for whoever reports an exception or a crash.
    current: "Case | None" = None
    #: Called with each new case; the process that runs a learner's C announces them so.
    announce: Callable[["Case"], None] | None = None

    def __init__(self, **given: Any) -> None:
        self.given = ", ".join(f"{name} = {shown(value)}" for name, value in given.items())
        Case.current = self
        if Case.announce is not None:
            Case.announce(self)

    def fail(self, expected: Any, got: Any, cause: str) -> None:
        """Report this case; texts are shown as they are, other values as values."""
        raise Wrong(self.given, shown(expected), shown(got), cause)

    def expect(
        self,
        got: Any,
        wanted: Any,
        *,
        cause: str,
        mistakes: Mapping[str, Any] | None = None,
        within: float = 0.0,
        what: str = "",
    ) -> None:
        """Report this case unless `got` is `wanted`, in kind, shape, dtype and value.

        Parameters
        ----------
        got, wanted
            Tensors, arrays, or plain values.
        cause : str
            What is likely wrong if the values differ in no way that `mistakes` knows.
        mistakes : mapping, optional
            From the cause to be told to the wrong answer that it gives.
        within : float
            Largest absolute difference; 0 compares exactly.
        what : str
            What the value is, if it is not the result of a call: "the gradient of w".
        """
        if _difference(got, wanted, within) is None:
            return
        texts = _first_difference(got, wanted, within) or (shown(wanted), shown(got))
        expected, came = (f"{what}: {text}" if what else text for text in texts)
        for known, wrong in (mistakes or {}).items():
            if _difference(got, wrong, within) is None:
                raise Wrong(self.given, expected, came, known)
        kind = _difference(got, wanted, within)
        raise Wrong(self.given, expected, came, kind or cause)


def gradient(
    function: Callable[..., Any], w: Tensor, arriving: Tensor, *more: Any
) -> Tensor | None:
    """Return the gradient of w when `arriving` comes back to the output of ``function(w, *more)``.

    Returns
    -------
    Tensor or None
        None if the output does not depend on w.

    Examples
    --------
    >>> gradient(torch.square, torch.tensor([3.0]), torch.tensor([1.0]))
    tensor([6.])
    """
    latent = w.clone().requires_grad_()
    output = function(latent, *more)
    if output.grad_fn is None:
        return None
    (reached,) = torch.autograd.grad(output, latent, arriving, allow_unused=True)
    return reached


def _difference(got: Any, wanted: Any, within: float) -> str | None:
    """Return None for equal values, and otherwise what differs in kind, or nothing to add."""
    if got is None and wanted is not None:
        return "Nothing came: is a return missing?"
    if isinstance(wanted, Tensor | np.ndarray):
        if type(got) is not type(wanted) and not (isinstance(got, Tensor) and
                                                  isinstance(wanted, Tensor)):  # fmt: skip
            return f"A {_kind(wanted)} has to come, not a {_kind(got)}."
        if tuple(got.shape) != tuple(wanted.shape):
            return (
                f"The shape has to be {tuple(wanted.shape)}, and is {tuple(got.shape)}: "
                "look at which dimension is which, and whether one was summed or kept."
            )
        if got.dtype != wanted.dtype:
            return f"The dtype has to be {_dtype(wanted)}, and is {_dtype(got)}."
        return None if bool(_close(got, wanted, within).all()) else ""
    if isinstance(wanted, float) and within and isinstance(got, numbers.Real):
        return None if abs(float(got) - wanted) <= within else ""
    if type(wanted) is int and isinstance(got, np.integer):
        return None if int(got) == wanted else ""
    if isinstance(got, Tensor | np.ndarray):
        return f"A {_kind(wanted)} has to come, not a {_kind(got)}: use .item()"
    return None if type(got) is type(wanted) and got == wanted else ""


def _first_difference(got: Any, wanted: Any, within: float) -> tuple[str, str] | None:
    """Show where large arrays of the same shape differ first; what was wanted, and what came."""
    arrays = isinstance(wanted, Tensor | np.ndarray) and isinstance(got, Tensor | np.ndarray)
    if not arrays or got.shape != wanted.shape or math.prod(wanted.shape) <= MOST_SHOWN:
        return None
    wrong = np.argwhere(~np.asarray(_close(got, wanted, within)))
    if not len(wrong):
        return None
    place = tuple(wrong[0].tolist())
    many = f"at {list(place)}, and {len(wrong)} of {math.prod(wanted.shape)} differ"
    return f"{shown(wanted[place])} {many}", shown(got[place])


def _close(got: Any, wanted: Any, within: float) -> Any:
    if isinstance(got, Tensor):
        got, wanted = got.detach(), wanted.detach()
    same = got == wanted
    if within:
        same = same | (abs(got - wanted) <= within)
    return same | ((got != got) & (wanted != wanted))  # NaN where NaN is wanted


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return "tensor"
    return "NumPy array" if isinstance(value, np.ndarray) else type(value).__name__


def _dtype(value: Any) -> str:
    return str(value.dtype)


def shown(value: Any) -> str:
    """Write a value as a message shows it: short numbers, whole arrays only if they are small.

    Packed words, which are uint64, stand in hexadecimal.

    Examples
    --------
    >>> shown(torch.tensor([[1.0, -0.25]]))
    '[[1, -0.25]]'
    >>> shown(torch.zeros(10, 20))
    'a tensor of shape (10, 20)'
    >>> shown(np.array([1 << 63, 5], np.uint64))
    '[0x8000000000000000, 0x5]'
    """
    if isinstance(value, Tensor | np.ndarray):
        if math.prod(value.shape) > MOST_SHOWN:
            return f"a {_kind(value)} of shape {tuple(value.shape)}"
        return _written(value.tolist(), words=value.dtype == np.uint64)
    if isinstance(value, np.generic):
        return _written(value.item(), words=isinstance(value, np.uint64))
    return _written(value)


def _written(value: Any, words: bool = False) -> str:
    if isinstance(value, list | tuple):
        opening, closing = "[]" if isinstance(value, list) else "()"
        return opening + ", ".join(_written(each, words) for each in value) + closing
    if words:
        return f"{value:#x}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, torch.Size):
        return str(tuple(value))
    return value if isinstance(value, str) else repr(value)
