"""How far to go in round i of n. Every schedule is a pure function to the fraction removed after that round."""

from __future__ import annotations

import math
from collections.abc import Callable

from pruning_core.checks import checked
from pruning_core.errors import BadInput, known_name


def one_shot(i: int, n: int, target: float, start: float = 0.0) -> float:
    """Everything at once, in the first round."""
    return target


def linear(i: int, n: int, target: float, start: float = 0.0) -> float:
    """Equal steps of the removed fraction."""
    return start + (target - start) * i / n


def geometric(i: int, n: int, target: float, start: float = 0.0) -> float:
    """Every round removes the same fraction of what is left: ``1 - kept`` with ``kept = (1 - target) ** (i / n)``."""
    return 1 - (1 - start) * ((1 - target) / (1 - start)) ** (i / n)


def cubic(i: int, n: int, target: float, start: float = 0.0) -> float:
    """Fast at first, slow at the end: ``target + (start - target) (1 - i/n)^3`` (Zhu and Gupta 2017, equation 1)."""
    return target + (start - target) * (1 - i / n) ** 3


def snip_it(i: int, n: int, target: float, start: float = 0.0) -> float:
    """The rule of SNIP-it: the gap between a first cut at one half and the target halves every round.

    With S = n - 2 halvings, ``k_j = target - (target - h) / 2^j`` for j = 0..S, then the target itself: n = S + 2 rounds.
    Here ``h = min(1/2, target)``; the official code starts at one half even where the target is lower, and overshoots.
    """
    if i >= n:
        return target
    first = max(min(0.5, target), start)
    return target - (target - first) * 0.5 ** (i - 1)


def tick_tock(i: int, n: int, target: float, start: float = 0.0) -> float:
    """Small equal steps: 0.01, 0.06, 0.11, ... and the target as soon as they would pass it (Gate Decorators).

    :func:`tick_tock_rounds` says how many rounds that takes; with fewer, the last one jumps to the target.
    """
    return min(start + 0.01 + 0.05 * (i - 1), target)


def tick_tock_rounds(target: float) -> int:
    """Rounds of :func:`tick_tock` up to ``target``: those below it, and the target itself."""
    return math.ceil(max(target - 0.01, 0.0) / 0.05 - 1e-9) + 1


def harmonic(i: int, n: int, target: float, start: float = 0.0) -> float:
    """Kept fraction ``(i + 1) ** -p``, with p such that round n keeps ``1 - target`` of what was there at the start."""
    power = -math.log((1 - target) / (1 - start)) / math.log(n + 1)
    return 1 - (1 - start) * (i + 1) ** -power


SCHEDULES: dict[str, Callable[..., float]] = {
    function.__name__: function for function in (one_shot, linear, geometric, cubic, snip_it, tick_tock, harmonic)
}


SNIP_IT_ROUNDS = 7
"""Cuts of SNIP-it's own schedule, S + 2 with S = 5."""


@checked
def rounds_of(schedule: str, rounds: int | None, target: float | None) -> int:
    """How many cuts a schedule makes: ``rounds`` where they are given, else its own number.

    Raises UnknownName for no such schedule, BadInput for one that has no number of its own.

    >>> rounds_of("snip_it", None, 0.9), rounds_of("tick_tock", None, 0.5), rounds_of("geometric", None, 0.9)
    (7, 11, 1)
    """
    known_name("schedule", schedule, SCHEDULES)
    if rounds is not None:
        return rounds
    if schedule in ("one_shot", "geometric"):
        return 1
    if schedule == "snip_it":
        return SNIP_IT_ROUNDS
    if schedule == "tick_tock" and target is not None:
        return tick_tock_rounds(target)
    raise BadInput(f"schedule={schedule!r} needs a number of rounds; with one it would be a single cut.")


@checked
def fraction_after(schedule: str | Callable[..., float], i: int, n: int, target: float, start: float = 0.0) -> float:
    """Fraction removed after round ``i`` (from 1) of ``n``, from ``start`` to ``target``, and exactly that in the last.

    ``schedule`` is a name of SCHEDULES or a function ``(i, n, target, start) -> fraction``.
    Raises BadInput unless 1 <= i <= n and 0 <= start <= target < 1.

    >>> [round(fraction_after("geometric", i, 3, 0.875), 3) for i in (1, 2, 3)]
    [0.5, 0.75, 0.875]
    """
    function = schedule if callable(schedule) else SCHEDULES[known_name("schedule", schedule, SCHEDULES)]
    if not 1 <= i <= n:
        raise BadInput(f"round {i} of {n}: rounds count from 1 to their number.")
    if not 0 <= start <= target < 1:
        raise BadInput(f"a schedule goes up from start to target inside [0, 1), not from {start} to {target}.")
    return target if i == n else float(function(i, n, target, start))


def fraction_of_rest_after(schedule: str, i: int, n: int, target: float, gone: float) -> float:
    """Fraction removed after round ``i`` of ``n`` where ``gone`` was removed before the first: the schedule runs over the rest.

    >>> fraction_of_rest_after("linear", 1, 2, 0.9, gone=0.5)
    0.7
    """
    if i == n or target <= gone:
        return target
    return gone + (1 - gone) * fraction_after(schedule, i, n, (target - gone) / (1 - gone))
