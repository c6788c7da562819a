"""Self-checks for the exercises: ``check(name, answer)`` says in one sentence whether an answer is right."""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pruning_core.book.judges import JUDGES
from pruning_core.checks import checked
from pruning_core.errors import known_name
from pruning_core.records.files import read_yaml


class Exercise(NamedTuple):
    """The right answer, and a hint for everybody else.

    ``right`` is a number, a sequence of numbers, a string, or a function that says whether an answer will do.
    Numbers may differ by ``tolerance`` times their size.
    """

    right: float | str | Sequence[float] | Callable[[Any], bool]
    hint: str
    tolerance: float = 0.01


EXERCISES: dict[str, Exercise] = {
    name: Exercise(**entry | {"right": JUDGES.get(name, entry["right"])})
    for name, entry in read_yaml(Path(__file__).with_suffix(".yml")).items()
}
"""Name -> exercise, from the table in YAML beside this file, to which a chapter adds its own."""


@checked
def check(name: str, answer: Any, *, right: Any = None) -> None:
    """Print whether ``answer`` solves the exercise of that name, with a hint if it does not.

    None counts as not answered yet. ``right``: the right answer where it follows from the reader's own run (the table then
    holds none). Raises UnknownName for an exercise that does not exist.

    >>> check("sparsity/half-the-channels", 0.5)
    Not yet. Hint: what is left is a product: of inputs left and of outputs left.
    """
    exercise = EXERCISES[known_name("exercise", name, EXERCISES)]
    if answer is None:
        print("No answer yet: replace None and run this cell again.")
        return
    if right is not None:
        exercise = exercise._replace(right=right)
    try:
        solved = _matches(answer, exercise)
    except Exception as error:  # an answer may be anything, also a function that fails
        _say(f"The answer could not be checked ({type(error).__name__}: {error}). Hint: {exercise.hint}")
        return
    _say("Right." if solved else f"Not yet. Hint: {exercise.hint}")


def _say(sentences: str) -> None:
    """Print them in lines that fit beside the margins of a page."""
    print(textwrap.fill(sentences, 100))


def _matches(answer: Any, exercise: Exercise) -> bool:
    right = exercise.right
    if callable(right):
        return bool(right(answer))
    if isinstance(right, str):
        return str(answer).strip().casefold() == right.casefold()
    wanted = [right] if isinstance(right, int | float) else list(right)
    given = list(answer) if hasattr(answer, "__iter__") else [answer]
    return len(given) == len(wanted) and all(
        math.isclose(float(mine), theirs, rel_tol=exercise.tolerance, abs_tol=1e-12)
        for mine, theirs in zip(given, wanted, strict=True)
    )
