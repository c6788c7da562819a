"""Self-checks for the exercises: ``check(name, answer)`` says in one sentence whether an answer is right."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from pruning_core.errors import known_name


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


EXERCISES: dict[str, Exercise] = {
    # 0 Foundations, 1 What sparsity means
    "sparsity/words": Exercise([0.95, 0.95, 0.6], "a keep ratio and k/D say what stays, prune_pc says what goes."),
    "sparsity/half-the-channels": Exercise(0.75, "what is left is a product: of inputs left and of outputs left."),
    "sparsity/bit-mask": Exercise(
        1 / 32, "a float has 32 bits, its place in the bit mask has one, whether it is kept or not."
    ),
    # 0 Foundations, 2 Scores, budgets, schedules
    "schedules/magnitude-mask": Exercise(
        _is_magnitude_mask,
        "return a bool tensor of the shape of the weights with exactly round(sparsity * n) times False, even where "
        "values are equal: rank the weights instead of comparing them with a threshold.",
    ),
    "schedules/rounds": Exercise(
        18, "after n rounds 0.8 ** n is left; find the first n that leaves at most 0.02.", 0.0
    ),
    "schedules/erk": Exercise(
        1084 / 1594 * 0.05 * 266_200 / 235_200,
        "each layer keeps in proportion to the sum of its two dimensions; divide what it keeps by its size.",
    ),
    # 0 Foundations, 3 From masks to a smaller network
    "groups/count-a-channel": Exercise(
        131, "add up one row of each producer, two entries of each batch norm, one column of each consumer.", 0.0
    ),
    "groups/inner-channels": Exercise(
        632, "each of the three takes a row of conv1, two entries of norm1 and a column of conv2 with it.", 0.0
    ),
    # 0 Foundations, 4 Your own network
    "network/share-of-weights": Exercise(0.75, "a weight stays only if both its row and its column stay."),
    # 0 Foundations, 5 The failure gallery
    "failures/coasting": Exercise(
        -0.9, "the weight moves by -0.1 times the momentum in every step, and the momentum shrinks to 0.9 of itself."
    ),
    # 1 i-SpaSP
    "ispasp/half": Exercise(48, "2s proposals must be all neurons.", 0.0),
    "ispasp/slope": Exercise(-3, "first find p from 1/p = 2, then put it into 1 - 2/p."),
    "ispasp/offset": Exercise(
        [0, 1], "i-SpaSP looks at sums over samples; to tell samples apart something must differ between them.", 0.0
    ),
    "ispasp/greedy": Exercise(
        sum(512 - n for n in range(102)), "with n neurons chosen there are 512 - n to try; add up n = 0 .. 101.", 0.0
    ),
    "ispasp/widths": Exercise([25, 51, 102], "int(width * ratio): the fraction behind the point is cut off.", 0.0),
    # 2 SiPP and PFP
    "sensitivity/shares": Exercise([1.0, 0.75], "compute both shares at both points, then take the larger of each."),
    "sensitivity/draws": Exercise(6, "the error falls like one over the square root of the number of draws."),
    "sensitivity/water": Exercise([20, 40], "equal slopes mean equal shares, as long as there are weights left."),
    "sensitivity/thinet": Exercise([0, 1], "find the pair whose sum is nearest to zero.", 0.0),
    "sensitivity/groups": Exercise(3, "divide the cuts by the trainings.", 0.0),
    # 4 SNIP-it and SNAP-it
    "snip/schedule": Exercise(
        [0.5, 0.73, 0.845, 0.9025, 0.93125, 0.945625, 0.96],
        "start at one half, halve the gap to the target five times, then the target itself.",
        1e-6,
    ),
    "snip/left": Exercise(251, "count the weights of the three layers and take half a percent.", 0.0),
    "snip/gate": Exercise(
        -0.4, "a gate multiplies every weight of its row and the bias: add up weight times gradient, with signs.", 1e-6
    ),
    "snip/sign": Exercise(
        "grow", "removing w changes g by -w times its column of H, so the squared norm by -2 w (Hg)_w: which sign?"
    ),
    "snap/weights": Exercise(
        0.91, "a hidden matrix keeps a product of two fractions: of its rows and of its columns.", 0.001
    ),
    "snap/flops": Exercise("channels", "which of the two makes the matrices smaller that a training step multiplies?"),
    "robustness/fgsm": Exercise(
        0.05,
        "a step of e along the sign moves the difference of the logits by e times the L1 norm of the weights.",
        1e-6,
    ),
    "failures/ties": Exercise(600, "which value is the 500th smallest, and how many scores are not larger?", 0.0),
    # 3 Receding Neuron Importances
    "how_sparse/sharper": Exercise(
        [0.5, 0.25], "put lambda R^2 = 2 epsilon, then 6 epsilon, into 2 epsilon / (2 epsilon + lambda R^2)."
    ),
    "rni/threshold": Exercise(0.05 * (1 - math.log(0.05)), "put the strength into lambda (1 - ln lambda)."),
    "rni/drift": Exercise(0.26, "with momentum 0.9 a constant gradient moves ten times as far as without."),
    "rni/receded": Exercise(
        0.4, "what has receded can go for free; what is cut beyond that comes from the channels that matter."
    ),
    "rni/kept": Exercise(
        [26, 3], "the quantile leaves a tenth of 256 channels; of 12 it would leave one, and three stay at least.", 0.0
    ),
    # 5 How sparse can we prune?
    "how_sparse/cone": Exercise(750, "the cone has D times the squared sine of its angle; subtract that from D."),
    "how_sparse/ball": Exercise(
        [0.8, 0.75], "find the radius from r^2 = 2 epsilon / lambda; the formula adds it to R^2, a tangent does not."
    ),
    "how_sparse/crossing": Exercise(
        (math.sqrt(84) - 2) / 20, "write R^2 as a multiple of the removed fraction p; p = G is then quadratic in p."
    ),
    "how_sparse/cost": Exercise(
        [15, 30], "IMP with 3 rounds trains 4 times; Rare Gems divides its epochs into search and training.", 0.0
    ),
    "how_sparse/spectrum-steps": Exercise(
        3, "a start has one part in each eigenspace; how large is the space that these parts span?", 0.0
    ),
    "how_sparse/spectrum-tolerance": Exercise(
        [1 / 2, 1 / 3],
        "means over four times as many samples vary half as much; then put R^2 lambda = 2 epsilon.",
        0.01,
    ),
}
"""Name -> exercise. A chapter adds its own; names begin with the topic of the notebook."""


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
        print(f"The answer could not be checked ({type(error).__name__}: {error}). Hint: {exercise.hint}")
        return
    print("Right." if right else f"Not yet. Hint: {exercise.hint}")


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
