"""Verdicts on claims, computed from rows by the RULES, which the Scoreboard prints too."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pruning_core.book.claims.ledger import Claim, Comparison, Selection
from pruning_core.experiments.intervals import Interval, mean_interval
from pruning_core.version import PROFILES

KINDS = ("reproduced", "same trend", "not reproduced", "not run")
LEAST_SEEDS = 3

RULES = """\
- **reproduced**. Where the paper gives a number: our mean over seeds is within the tolerance, with at least
  three seeds. For a cost that no seed can change, such as a count of parameters, one row is enough.
  Where the paper gives a direction: the 95 % interval of our quantity lies on the claimed side, with at least
  three seeds.
- **same trend**. Our mean is on the claimed side, but the interval reaches across, the number is outside the
  tolerance, or there are fewer than three seeds.
- **not reproduced**. We have rows, and they say something else.
- **not run**. No row answers the claim, or the rows that do differ in more than the seed.

Intervals are t-intervals of the mean over seeds. Comparisons are paired: the same seed with both methods.
Rows count from the profile that the claim names upwards, never from a smaller one (see {doc}`records`); if several
profiles answer, the largest is taken. Networks of full width count, unless the claim names a width.
The tolerances are ours; the papers seldom give one.
"""


class Verdict(NamedTuple):
    """What our rows say about a claim. ``ours`` is NaN and ``interval`` (NaN, NaN) where nothing could be computed."""

    kind: str
    ours: float
    interval: tuple[float, float]
    n_seeds: int
    sentence: str


class _Unclear(Exception):
    """Rows that answer the claim differ in more than the seed."""


def verdict(claim: Claim, rows: pd.DataFrame) -> Verdict:
    """The verdict on one claim, computed from tidy rows by the RULES."""
    if claim.ours is None:
        return _not_run(claim.note)
    try:
        profile, values = _values(claim.ours, rows, claim.profile)
    except _Unclear as unclear:
        return _not_run(str(unclear))
    if not len(values):
        return _not_run(f"no record of profile {claim.profile}" + ("" if claim.profile == "paper" else " or larger"))
    interval = mean_interval(values)
    kind, reason = _judge(claim, interval)
    ours = quantity_text(interval.mean, claim.unit)
    if not math.isnan(interval.low):
        ours += f" [{number_text(interval.low, claim.unit)}, {number_text(interval.high, claim.unit)}]"
    seeds = "" if claim.deterministic else f"{interval.n} seed{'s' if interval.n != 1 else ''}, "
    sentence = f"ours {ours} ({seeds}profile {profile}): {reason}."
    return Verdict(kind, interval.mean, (interval.low, interval.high), interval.n, sentence)


def _not_run(why: str) -> Verdict:
    return Verdict("not run", math.nan, (math.nan, math.nan), 0, f"{why.rstrip('.')}.")


def _judge(claim: Claim, ours: Interval) -> tuple[str, str]:
    enough = claim.deterministic or ours.n >= LEAST_SEEDS
    few = f"fewer than {LEAST_SEEDS} seeds"
    right_side = None
    if claim.direction is not None:
        right_side = ours.mean > claim.than if claim.direction == "above" else ours.mean < claim.than
    if claim.value is not None:
        gap = abs(ours.mean - claim.value)
        # a tolerance of 0 on integers, and 0.5 on numbers that are not exact in binary
        close = gap <= (claim.tolerance or 0.0) * (1 + 1e-9) + 1e-12 * abs(claim.value)
        tolerance = number_text(claim.tolerance or 0, claim.unit)
        reason = f"{number_text(gap, claim.unit)} from the paper's number, tolerance {tolerance}"
        if close:
            return ("reproduced", reason) if enough else ("same trend", f"{reason}, but {few}")
        return ("same trend", f"{reason}, on the claimed side") if right_side else ("not reproduced", reason)
    if not right_side:
        return "not reproduced", f"not {claim.direction} {number_text(claim.than, claim.unit)}"
    clear = claim.deterministic or (ours.low > claim.than if claim.direction == "above" else ours.high < claim.than)
    reason = f"{claim.direction} {number_text(claim.than, claim.unit)}"
    if clear and enough:
        return "reproduced", reason
    return "same trend", f"{reason}, but {few if not enough else 'the interval reaches across'}"


def _values(ours: Selection | Comparison, rows: pd.DataFrame, least: str) -> tuple[str, np.ndarray]:
    """Return the largest profile that answers, and one value a seed."""
    for profile in reversed(PROFILES[PROFILES.index(least) :]):
        part = rows[rows["profile"] == profile] if "profile" in rows else rows.iloc[:0]
        if isinstance(ours, Selection):
            values = _per_seed(ours, part)
        else:
            first, second = _per_seed(ours.first, part).align(_per_seed(ours.second, part), join="inner")
            values = first / second.replace(0.0, np.nan) if ours.combine == "ratio" else first - second
        if len(values.dropna()):
            return profile, values.dropna().to_numpy(float)
    return least, np.empty(0)


def _per_seed(selection: Selection, rows: pd.DataFrame) -> pd.Series:
    """Return the mean of the selected column for each seed."""
    where = dict(selection.where)
    if selection.column not in rows or not set(where) <= set(rows.columns) or "seed" not in rows:
        return pd.Series(dtype=float)
    chosen = np.ones(len(rows), bool)
    for column, wanted in where.items():
        chosen &= _equal(rows[column], wanted)
    if "width" in rows and "width" not in where:
        chosen &= _equal(rows["width"], 1.0) | rows["width"].isna().to_numpy()
    chosen_rows = rows[chosen & rows[selection.column].notna().to_numpy()]
    for column in ("model", "data", "method", "of", "asked", "label", "epoch"):
        if column in chosen_rows and column not in where and chosen_rows[column].nunique() > 1:
            names = ", ".join(str(v) for v in sorted(chosen_rows[column].dropna().unique())[:4])
            raise _Unclear(f"rows that answer differ in {column} ({names})")
    return chosen_rows.groupby("seed")[selection.column].mean().astype(float)


def _equal(column: pd.Series, wanted: Any) -> np.ndarray:
    if isinstance(wanted, float | int) and not isinstance(wanted, bool):
        return np.isclose(pd.to_numeric(column, errors="coerce").to_numpy(float), float(wanted), rtol=0, atol=1e-9)
    return (column == wanted).to_numpy(bool)


def number_text(value: float, unit: str) -> str:
    if math.isnan(value):
        return "?"
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    if unit == "parameters":
        return f"{value:,.0f}"
    if unit == "MACs":
        for size, letter in ((1e9, "G"), (1e6, "M")):
            if abs(value) >= size:
                return f"{value / size:.3f} {letter}"
        return f"{value:,.0f}"
    return f"{value:.4g}" if unit != "%" and unit != "points" else f"{value:.2f}"


def quantity_text(value: float, unit: str) -> str:
    number = number_text(value, unit)
    return number if unit in ("", "fraction") else f"{number} {unit}"
