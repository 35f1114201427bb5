"""Multiple-choice questions whose every option, right or wrong, is explained."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import traitlets

from onebit.widgets.display import Piece, filled, module


@dataclass(frozen=True)
class Question:
    """One question with one right option.

    Parameters
    ----------
    text : str
        The question, in plain Unicode.
    options : sequence of (str, bool, str)
        For each option its text, whether it is right, and why.

    Raises
    ------
    ValueError
        If there are fewer than two options, not exactly one is right, two options read the same,
        or a text or an explanation is empty.
    TypeError
        If an option is not a triple of string, bool, string.

    Examples
    --------
    >>> Question(
    ...     "What is sign(0) in this course?",
    ...     [("+1", True, "A bit has no third value."), ("0", False, "A bit cannot store 0.")],
    ... ).right
    0
    """

    text: str
    options: Sequence[tuple[str, bool, str]]

    def __post_init__(self) -> None:
        filled("text", self.text)
        where = f"in the question {self.text!r}"
        for i, option in enumerate(self.options):
            if not isinstance(option, (tuple, list)) or len(option) != 3:
                raise TypeError(f"option {i} {where} must be (text, is_right, why), got {option!r}")
            text, is_right, why = option
            filled(f"the text of option {i} {where}", text)
            filled(f"the explanation of option {text!r} {where}", why)
            if not isinstance(is_right, bool):
                raise TypeError(
                    f"option {text!r} {where}: is_right must be a bool, got {is_right!r}"
                )
        if len(self.options) < 2:
            raise ValueError(f"{where}: two options at least are wanted, got {len(self.options)}")
        right = sum(is_right for _, is_right, _ in self.options)
        if right != 1:
            raise ValueError(f"{where}: exactly one option must be right, got {right}")
        if len({text for text, _, _ in self.options}) < len(self.options):
            raise ValueError(f"{where}: two options have the same text")

    @property
    def right(self) -> int:
        """Index of the right option."""
        return [is_right for _, is_right, _ in self.options].index(True)


class Quiz(Piece):
    """Ask questions, explain the chosen option, and remember the answers in the reader's browser.

    Parameters
    ----------
    questions : sequence of Question
        What to ask, in this order.
    name : str
        Under which the browser keeps the answers; one for each quiz of the course.

    Raises
    ------
    TypeError
        If ``questions`` holds anything but `Question`.
    ValueError
        If there is no question, two read the same, or ``name`` is empty.

    Examples
    --------
    >>> Quiz(
    ...     [Question("1 XNOR 0?", [("0", True, "They differ."), ("1", False, "They differ.")])],
    ...     name="xnor",
    ... )
    Quiz('xnor', 1 question)
    """

    _esm = module("quiz.js")

    name = traitlets.Unicode().tag(sync=True)
    questions = traitlets.List(traitlets.Dict()).tag(sync=True)

    def __init__(self, questions: Sequence[Question], *, name: str) -> None:
        filled("name", name)
        for question in questions:
            if not isinstance(question, Question):
                raise TypeError(f"questions must hold Question objects, got {question!r}")
        if not questions:
            raise ValueError("questions is empty; a quiz needs one Question at least")
        if len({question.text for question in questions}) < len(questions):
            raise ValueError("questions: two questions have the same text")
        super().__init__(name=name, questions=[_as_dict(question) for question in questions])

    def __repr__(self) -> str:
        count = len(self.questions)
        return f"Quiz({self.name!r}, {count} question{'s' if count > 1 else ''})"

    def without_script(self) -> str:
        """Return the questions with their options, each explanation folded away."""
        return "".join(_as_html(question) for question in self.questions)


def _as_dict(question: Question) -> dict[str, Any]:
    options = [{"text": text, "right": right, "why": why} for text, right, why in question.options]
    return {"text": question.text, "options": options}


def _as_html(question: dict[str, Any]) -> str:
    options = "".join(
        f"<li><details><summary>{escape(option['text'])}</summary>"
        f"{'Right. ' if option['right'] else 'No. '}{escape(option['why'])}</details></li>"
        for option in question["options"]
    )
    return f"<p>{escape(question['text'])}</p><ul>{options}</ul>"
