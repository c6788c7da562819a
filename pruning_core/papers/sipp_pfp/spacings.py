"""The fractions of weights that SiPP and PFP keep, in their own spacings.

A *kept* fraction lies in (0, 1]; what our experiments call sparsity is one minus it. Spacings are put one behind the other
and split into groups, as even as possible and the longer ones first; a network is retrained at the last fraction of each
group and only compressed at the others. Source: the official code of baykal2019sipp and liebenwein2020pfp.

>>> [round(kept, 3) for kept in geometric(4, 0.8, 0.1)]
[0.8, 0.4, 0.2, 0.1]
>>> in_groups([0.9, 0.8, 0.7, 0.6, 0.5], 2)
((0.9, 0.8, 0.7), (0.6, 0.5))
>>> compressed_before([0.9, 0.8, 0.7, 0.6, 0.5], 2, mode="retrain")
((0.9, 0.8), (0.9, 0.8, 0.6))
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import numpy as np

from pruning_core.checks import Real, Several, Whole, check
from pruning_core.errors import BadInput, known_name

MODES = {
    "train": "the dense network only",
    "retrain": "each fraction from the weights of the dense network, compressed step by step, then trained",
    "cascade": "each fraction from the network retrained at the one before",
    "cascade-random": "as cascade, but what is left starts from new random weights and is trained in full",
    "cascade-rewind": "as cascade, but what is left goes back to its weights of an earlier epoch",
}
"""What happens between two kept fractions."""

Fractions = tuple[float, ...]

KEPT = Real(above=0, at_most=1)


def _between(n: int, largest: float, smallest: float, curve: Callable[[float], float]) -> Fractions:
    """``curve(i / (n - 1))`` with both ends exact; a single fraction is the largest."""
    check("the number of kept fractions", n, Whole(at_least=1))
    if check("largest", largest, KEPT) < check("smallest", smallest, KEPT):
        raise BadInput(f"kept fractions go down from the largest to the smallest, not from {largest} to {smallest}.")
    inner = tuple(curve(i / (n - 1)) for i in range(1, n - 1))
    return (float(largest), *inner, float(smallest))[:n]


def geometric(n: int, largest: float, smallest: float) -> Fractions:
    """``n`` fractions from ``largest`` to ``smallest`` with equal ratios. Raises BadInput or BadType, as all spacings do."""
    return _between(n, largest, smallest, lambda t: largest * (smallest / largest) ** t)


def linear(n: int, largest: float, smallest: float) -> Fractions:
    """``n`` fractions from ``largest`` to ``smallest`` with equal differences."""
    return _between(n, largest, smallest, lambda t: largest + (smallest - largest) * t)


def cubic(n: int, largest: float, smallest: float) -> Fractions:
    """``smallest + (largest - smallest) (1 - i / (n - 1))^3`` for i = 0 .. n - 1."""
    return _between(n, largest, smallest, lambda t: smallest + (largest - smallest) * (1 - t) ** 3)


def harmonic(n: float, smallest: float) -> Fractions:
    """``(i + 1) ** -p`` for i = 1, 2, ... down to ``smallest``, with p such that i = ``n`` would keep one half.

    ``p = ln 2 / ln(1 + n)``; n need not be a whole number. There are ``max(1, floor(smallest ** (-1 / p)))`` fractions, as
    in the official code, so that the last one may lie a little below ``smallest``.

    >>> [round(kept, 4) for kept in harmonic(0.8, 0.2)]
    [0.4416, 0.2738, 0.195]
    """
    check("the number of intervals to one half", n, Real(above=0))
    smallest = check("smallest", smallest, KEPT)
    power = math.log(2) / math.log(1 + n)
    count = max(1, int(smallest ** (-1.0 / power)))
    return tuple((i + 1) ** -power for i in range(1, count + 1))


def harmonic2(n: int, largest: float, smallest: float) -> Fractions:
    """``largest i ** -p`` for i = 1 .. n, with ``p = ln(largest / smallest) / ln n``."""

    def curve(t: float) -> float:
        return largest * (round(t * (n - 1)) + 1) ** -(math.log(largest / smallest) / math.log(n))

    return _between(n, largest, smallest, curve)


def manual(values: Iterable[float]) -> Fractions:
    """The fractions as given, in their order. Raises BadInput when there is none or one lies outside (0, 1]."""
    return tuple(map(float, check("kept fractions", values, Several(KEPT, at_least=1))))


SPACINGS: dict[str, Callable[..., Fractions]] = {
    function.__name__: function for function in (geometric, linear, cubic, harmonic, harmonic2, manual)
}
"""Name of a spacing -> function to its kept fractions."""


def in_groups(fractions: Sequence[float], count: int | None = None) -> tuple[Fractions, ...]:
    """``fractions`` in ``count`` groups, as even as possible; None: one each. Raises BadInput for more than fractions."""
    fractions = manual(fractions)
    count = len(fractions) if count is None else count
    count = check("the number of groups", count, Whole(at_least=1, at_most=len(fractions)))
    return tuple(tuple(group.tolist()) for group in np.array_split(fractions, count))


def compressed_before(
    fractions: Sequence[float], count: int | None = None, mode: str = "cascade"
) -> tuple[Fractions, ...]:
    """For each retrained fraction, the fractions that are only compressed on the way to it: the others of its group.

    Modes without a cascade start again from the dense network, so those of the groups before come first. Raises
    UnknownName or BadInput.
    """
    known_name("mode", mode, MODES)
    own = [group[:-1] for group in in_groups(fractions, count)]
    return tuple(own) if mode.startswith("cascade") else tuple(accumulate(own))
