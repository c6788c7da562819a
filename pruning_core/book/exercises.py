"""Self-checks for the exercises: ``check(name, answer)`` says in one sentence whether an answer is right."""

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

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


def _is_magnitude_mask(function: Callable) -> bool:
    """Whether ``function(weights, sparsity)`` keeps exactly the largest entries, also where all are equal."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(7, 9, generator=generator), torch.randn(40, generator=generator), torch.ones(2, 2)
    for weights, sparsity in zip(drawn, (0.5, 0.9, 0.25), strict=True):
        mask = function(weights.clone(), sparsity)
        removed = math.floor(sparsity * weights.numel() + 0.5)
        if mask.dtype != torch.bool or mask.shape != weights.shape or int((~mask).sum()) != removed:
            return False
        if removed and weights[mask].abs().min() < weights[~mask].abs().max():
            return False
    return True


def _is_largest_entry(function: Callable) -> bool:
    """Whether ``function(weight)`` is the largest absolute entry of each filter."""
    weight = torch.randn(5, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    return torch.equal(function(weight.clone()), weight.abs().flatten(1).max(1).values)


def _is_relative_magnitude(method: type) -> bool:
    """Whether the class prunes by absolute weights divided by the largest of their layer, whatever the layers' scales are."""
    from pruning_core.pruning import prune

    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.Linear(6, 9, bias=False), torch.nn.Linear(9, 5, bias=False)
    network, relative = torch.nn.Sequential(*layers), []
    for layer, scale in zip(layers, (1.0, 0.01), strict=True):
        torch.nn.init.normal_(layer.weight, std=scale, generator=generator)
        relative.append((layer.weight.abs() / layer.weight.abs().max()).flatten())
    masks = prune(network, method(), 0.6).masks
    alive = torch.cat([masks[name].flatten() for name in ("0.weight", "1.weight")])
    scores = torch.cat(relative)
    return bool(scores[alive].min() > scores[~alive].max())


JUDGES: dict[str, Callable[[Any], bool]] = {
    "network/own-method": _is_relative_magnitude,
    "schedules/magnitude-mask": _is_magnitude_mask,
    "footing/score": _is_largest_entry,
}
"""Exercises whose answer is more than numbers or a word, and what judges them."""


EXERCISES: dict[str, Exercise] = {
    name: Exercise(**entry | {"right": JUDGES.get(name, entry["right"])})
    for name, entry in read_yaml(Path(__file__).with_suffix(".yml")).items()
}
"""Name -> exercise, from the table in YAML beside this file, to which a chapter adds its own."""


@checked
def check(name: str, answer: Any) -> None:
    """Print whether ``answer`` solves the exercise of that name, with a hint if it does not.

    None counts as not answered yet. Raises UnknownName for an exercise that does not exist.

    >>> check("sparsity/half-the-channels", 0.5)
    Not yet. Hint: what is left is a product: of inputs left and of outputs left.
    """
    exercise = EXERCISES[known_name("exercise", name, EXERCISES)]
    if answer is None:
        print("No answer yet: replace None and run this cell again.")
        return
    try:
        right = _matches(answer, exercise)
    except Exception as error:  # an answer may be anything, also a function that fails
        _say(f"The answer could not be checked ({type(error).__name__}: {error}). Hint: {exercise.hint}")
        return
    _say("Right." if right else f"Not yet. Hint: {exercise.hint}")


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
