"""A number to predict and lock in before the computed one is revealed."""

from decimal import Decimal
from math import isfinite

import traitlets

from onebit.widgets.display import Piece, filled, module, paragraph


class Predict(Piece):
    """Let the reader commit to a number, then show the computed one and the gap.

    Parameters
    ----------
    question : str
        What is to be predicted.
    answer : float
        The number that the notebook computed; shown rounded to the decimals of ``step``.
    low, high, step : float
        The slider's ends and its step. It starts halfway, whatever the answer.
    unit : str
        Unit of all these numbers; the gap between two "%" is given in percentage points.
    reveal : str
        What to say once the prediction is locked.

    Raises
    ------
    ValueError
        If a number is not finite, ``low < high`` or ``0 < step <= high − low`` does not hold, or
        the answer lies outside the slider's range.

    Examples
    --------
    >>> Predict("MNIST accuracy with every weight ±1?", 97.1, low=0, high=100, step=1, unit="%")
    Predict('MNIST accuracy with every weight ±1?')
    """

    _esm = module("predict.js")

    question = traitlets.Unicode().tag(sync=True)
    answer = traitlets.Float().tag(sync=True)
    low = traitlets.Float().tag(sync=True)
    high = traitlets.Float().tag(sync=True)
    step = traitlets.Float().tag(sync=True)
    digits = traitlets.Int().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    reveal = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        question: str,
        answer: float,
        *,
        low: float,
        high: float,
        step: float,
        unit: str = "",
        reveal: str = "",
    ) -> None:
        filled("question", question)
        answer, low, high, step = (float(number) for number in (answer, low, high, step))
        if not all(map(isfinite, (answer, low, high, step))):
            raise ValueError(
                f"answer, low, high, step must be finite, got {answer, low, high, step}"
            )
        if not low < high or not 0 < step <= high - low:
            raise ValueError(
                f"the slider needs low < high and 0 < step <= high − low, got {low, high, step}"
            )
        if not low <= answer <= high:
            raise ValueError(
                f"answer {answer} lies outside the slider's range {low} to {high}; widen it"
            )
        digits = max(0, -int(Decimal(str(step)).normalize().as_tuple().exponent))
        super().__init__(
            question=question, answer=round(answer, digits), low=low, high=high, step=step,
            digits=digits, unit=unit, reveal=reveal,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Predict({self.question!r})"

    def without_script(self) -> str:
        """Return the question, without its answer."""
        return paragraph(f"{self.question} Write a number down before you read on.")
