"""Verdicts on claims, computed from rows by the rules that stand in ``page.yml`` and on the Scoreboard."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pruning_core.book.claims.ledger import Claim, Selection, Setting
from pruning_core.checks import checked
from pruning_core.experiments.intervals import Interval, mean_interval
from pruning_core.version import PROFILES

VERDICTS = ("reproduced", "same trend", "open", "not reproduced", "not run")
_HARDEST = ("not reproduced", "open", "same trend", "reproduced", "not run", "no verdict")
LEAST_SEEDS = 3


class Verdict(NamedTuple):
    """What our rows say about a claim in one setting. ``ours``, ``low`` and ``high`` are NaN where there is no number.

    ``word`` is one of VERDICTS, or "no verdict" for a statement that nobody has seen. ``network`` and ``data`` are those of
    the rows, ``seeds`` the ones that count, ``unclean`` the number of rows made from files that were not committed.

    >>> Verdict("open", "five seeds do not separate them", seeds=(0, 1, 2, 3, 4)).word
    'open'
    """

    word: str
    sentence: str
    ours: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: tuple[int, ...] = ()
    profile: str = ""
    network: str = ""
    data: str = ""
    unclean: int = 0


class Refused(Exception):
    """Rows that answer a claim differ in a column that it does not name."""


@checked
def verdict(claim: Claim, rows: pd.DataFrame) -> Verdict:
    """The verdict on a claim: that of full scale, the least favourable one where several settings are.

    ``rows``: tidy rows as :func:`pruning_core.records.table.load` gives them, any number and order.

    >>> import pandas as pd
    >>> where = {"model": "lenet300", "method": "snip", "label": "final"}
    >>> claim = Claim("a", "p", "w", "s", "abs", "o", ours=(Setting(Selection(where, "accuracy")),), direction="above", than=90)
    >>> rows = pd.DataFrame(where | {"width": 1.0, "profile": "paper", "seed": s, "accuracy": 91.0 + s} for s in range(3))
    >>> verdict(claim, rows).word
    'open'
    """
    found = verdicts(claim, rows, [setting for setting in claim.ours if setting.scale == "full"])
    return min(found, key=lambda v: _HARDEST.index(v.word))


@checked
def verdicts(claim: Claim, rows: "pd.DataFrame | Rows", settings: Sequence[Setting] | None = None) -> list[Verdict]:
    """One verdict for each setting of the claim (default: all), at least one: "not run" where there is no setting.

    >>> from pruning_core.book.claims import load_claims
    >>> from pruning_core.version import REPOSITORY
    >>> claims = load_claims(REPOSITORY / "book" / "claims.yml")
    >>> verdicts(claims[0], pd.DataFrame())[0].word
    'not run'
    """
    rows = rows if isinstance(rows, Rows) else Rows(rows)
    found = [_judged(claim, setting, rows) for setting in (claim.ours if settings is None else settings)]
    return found or [_silent(claim, claim.note or "not run at full scale")]


class Rows:
    """Rows as claims read them: besides the stored columns ``images`` and ``naive_gap``; masks are computed once.

    ``images``: how many of the data set's images a run was limited to, stored as the tag ``limit``, which in other rows is
    a measured fraction. ``naive_gap``: difference between the share of small weights and the measured limit.
    """

    def __init__(self, rows: pd.DataFrame):
        rows = rows.reset_index(drop=True)
        # One tag may hold numbers in these rows and words or lists in those of another page.
        for name in filter(lambda name: pd.api.types.is_object_dtype(rows[name]), rows.columns):
            rows[name] = rows[name].map(lambda value: str(value) if isinstance(value, list | dict) else value)
        if "precision" in rows:
            rows = rows.fillna({"precision": "float32"})
        if "limit" in rows:
            limit = pd.to_numeric(rows["limit"], errors="coerce")
            rows = rows.assign(images=limit.where(limit > 1), limit=limit.where(limit <= 1))
        if {"naive", "limit"} <= set(rows):
            rows = rows.assign(naive_gap=(pd.to_numeric(rows["naive"], errors="coerce") - rows["limit"]).abs())
        self.frame = rows
        self._masks: dict[tuple[str, Any], np.ndarray] = {}
        self._codes: dict[str, np.ndarray] = {}

    def equal(self, column: str, wanted: Any) -> np.ndarray:
        """Which rows hold the wanted value (None: no value) in the column."""
        key = (column, wanted)
        if key not in self._masks:
            values = self.frame.get(column, pd.Series(np.nan, index=self.frame.index))
            self._masks[key] = _equal(values, wanted)
        return self._masks[key]

    def of_width(self) -> np.ndarray:
        """Full width, or nothing to be wide; a missing width is not full width."""
        models = self.frame.get("model", pd.Series(None, index=self.frame.index, dtype=object))
        fixed = self.equal("model", None) | models.astype(str).str.startswith("torchvision/").to_numpy()
        return self.equal("width", 1.0) | (self.equal("width", None) & fixed)

    def differ(self, column: str, chosen: np.ndarray) -> bool:
        """Whether the chosen rows (a mask) hold several values in the column; no value counts as one."""
        if column not in self._codes:
            self._codes[column] = pd.factorize(self.frame[column], use_na_sentinel=False)[0]
        codes = self._codes[column][chosen]
        return len(codes) > 0 and bool((codes != codes[0]).any())


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}."


def _silent(claim: Claim, why: str) -> Verdict:
    return Verdict("no verdict" if claim.kind == "unseen" else "not run", _sentence(why))


def _judged(claim: Claim, setting: Setting, rows: Rows) -> Verdict:
    for profile in reversed(PROFILES[PROFILES.index(setting.profile) :]):
        try:
            values, used = _values(claim, setting, rows, profile)
        except Refused as refused:
            return Verdict("not run", _sentence(f"refused: {refused}"))
        if len(values):
            return _about(claim, setting, profile, values, used)
    return _silent(claim, f"no record of profile {setting.profile}{'' if setting.profile == 'paper' else ' or larger'}")


def _about(claim: Claim, setting: Setting, profile: str, values: pd.Series, used: pd.DataFrame) -> Verdict:
    seeds = tuple(sorted({int(seed) for seed in values.index.get_level_values("seed")}))
    ours = ""
    if setting.over:
        interval, (word, reason) = Interval(math.nan, math.nan, math.nan, len(seeds)), _majority(claim, setting, values)
    else:
        interval = mean_interval(values.to_numpy(float))
        if claim.kind == "count" and values.nunique() == 1:  # one row is enough, but all must agree
            interval = interval._replace(low=interval.mean, high=interval.mean)
        word, reason = _word(claim, interval)
        low, high = (number_text(end, claim.unit) for end in interval[1:3])
        ours = f"ours {quantity_text(interval.mean, claim.unit)}" + (f" [{low}, {high}]: " if low != high else ": ")
    unclean = int(used["revision"].astype(str).str.endswith("+dirty").sum()) if "revision" in used else 0
    if unclean and word == "reproduced" and claim.kind != "unseen":
        word, reason = "open", f"{reason}, but by rows of an unclean revision, to be made again"
    elif unclean:
        reason += "; rows of an unclean revision, to be made again"
    word = "no verdict" if claim.kind == "unseen" else word
    names = _names(used, "model", "width"), _names(used, "data", "images")
    return Verdict(word, _sentence(f"{ours}{reason}"), *interval[:3], seeds, profile, *names, unclean)


def _names(used: pd.DataFrame, name: str, size: str) -> str:
    """What the rows say of network or data: "vgg16_rni, width 0.125", "cifar10, 9,000 images"; empty if nothing."""
    found = [*map(str, used[name].dropna().unique())] if name in used else []
    sizes = [value for value in used[size].dropna().unique() if value != 1] if size in used else []
    return " / ".join(found) + "".join(f", width {v:.3g}" if size == "width" else f", {v:,.0f} {size}" for v in sizes)


def _side(claim: Claim, ours: Interval) -> int:
    """1 if the whole interval lies on the claimed side, -1 on the other, 0 if it does not decide."""
    side = int(ours.low > claim.than) - int(ours.high < claim.than)
    return side if claim.direction == "above" else -side


def _than(claim: Claim) -> str:
    return f"{claim.direction} {number_text(claim.than, claim.unit) if claim.than else 0}"


def _word(claim: Claim, ours: Interval) -> tuple[str, str]:
    """The verdict that the interval gives, and the reason in words."""
    if ours.n < LEAST_SEEDS and claim.kind != "count":
        return "open", f"fewer than {LEAST_SEEDS} seeds"
    side = _side(claim, ours) if claim.direction else 0
    if claim.value is None:
        words = {1: ("reproduced", _than(claim)), -1: ("not reproduced", f"not {_than(claim)}")}
        return words.get(side, ("open", f"the interval does not decide whether it is {_than(claim)}"))
    slack = 1e-9 * abs(claim.tolerance or 0) + 1e-12 * abs(claim.value)  # 0.5 and 0 must hold in binary too
    low, high, tolerance = ours.low - claim.value, ours.high - claim.value, claim.tolerance or 0.0
    bound = tolerance + slack
    reason = f"paper {quantity_text(claim.value, claim.unit)}, tolerance {number_text(tolerance, claim.unit)}"
    if -bound <= low and high <= bound:
        return "reproduced", reason
    if low > bound or high < -bound:
        return ("same trend", f"{reason}, on the claimed side") if side > 0 else ("not reproduced", reason)
    return "open", f"{reason}, the interval does not decide"


def _majority(claim: Claim, setting: Setting, values: pd.Series) -> tuple[str, str]:
    """The rule "clear majority of cells": more than half of all cells must be clear on one side."""
    intervals = [mean_interval(cell.to_numpy(float)) for _, cell in values.groupby(level=list(setting.over))]
    sides = [_side(claim, interval) if interval.n >= LEAST_SEEDS else 0 for interval in intervals]
    claimed, other, n = sides.count(1), sides.count(-1), len(sides)
    cells = f"of {n} cells {claimed} are clearly {_than(claim)}, {other} clearly not, {n - claimed - other} open"
    return "reproduced" if claimed > n / 2 else "not reproduced" if other > n / 2 else "open", cells


def _values(claim: Claim, setting: Setting, rows: Rows, profile: str) -> tuple[pd.Series, pd.DataFrame]:
    """One value for each seed (and cell), and the rows that it was read from. Raises Refused."""
    ours, index = setting.ours, [*setting.over, "seed"]
    sides = [ours] if isinstance(ours, Selection) else [ours.first, ours.second]
    chosen = [_chosen(side, rows, profile) for side in sides]
    free = claim.measured | {*setting.over, *(side.column for side in sides)}
    for side, mask in zip(sides, chosen, strict=True):
        _refuse(rows, mask, free | set(side.where))
    # what neither side names must be the same on both
    _refuse(rows, np.logical_or.reduce(chosen), free.union(*(side.where for side in sides)))
    about = rows.frame.columns.intersection(["model", "width", "data", "images", "revision"])
    used = rows.frame.loc[np.logical_or.reduce(chosen), about]
    if not all(mask.any() for mask in chosen):
        return pd.Series(dtype=float), used
    parts = [rows.frame.loc[mask, [*index, side.column]] for side, mask in zip(sides, chosen, strict=True)]
    numbers = [
        part.assign(value=pd.to_numeric(part[side.column], errors="coerce"))
        for side, part in zip(sides, parts, strict=True)
    ]
    means = [part.groupby(index)["value"].mean() for part in numbers]
    if isinstance(ours, Selection):
        return means[0], used
    first, second = means[0].align(means[1], join="inner")
    values = first / second.replace(0.0, np.nan) if ours.combine == "ratio" else first - second
    return values.dropna(), used


def _chosen(selection: Selection, rows: Rows, profile: str) -> np.ndarray:
    """Which rows have the selection's values and a number in its column."""
    if not {selection.column, "seed"} <= set(rows.frame.columns):
        return np.zeros(len(rows.frame), bool)
    chosen = rows.equal("profile", profile) & ~rows.equal(selection.column, None)
    for column, wanted in selection.where.items():
        chosen = chosen & rows.equal(column, wanted)
    return chosen if "width" in selection.where else chosen & rows.of_width()


_ORIGIN = frozenset(("experiment", "code", "seed", "profile"))


def _refuse(rows: Rows, chosen: np.ndarray, free: frozenset[str]) -> None:
    """Raise Refused where the chosen rows differ in a column that is not ``free``."""
    for column in rows.frame.columns:
        if column not in free and column not in _ORIGIN and rows.differ(column, chosen):
            found = rows.frame.loc[chosen, column].unique()[:4]
            names = ", ".join("none" if value is None or value != value else str(value) for value in found)
            raise Refused(f"rows that answer differ in {column} ({names}), which the claim does not name")


def _equal(column: pd.Series, wanted: Any) -> np.ndarray:
    if wanted is None:
        return column.isna().to_numpy()
    if isinstance(wanted, float | int) and not isinstance(wanted, bool):
        return np.isclose(pd.to_numeric(column, errors="coerce").to_numpy(float), float(wanted), rtol=0, atol=1e-9)
    return (column == wanted).to_numpy(bool)


_UNITS = {"%": ".2f", "points": ".2f", "parameters": ",.0f"}


def number_text(value: float, unit: str) -> str:
    """A number as the Scoreboard prints it, without its unit.

    >>> number_text(0.9921, "fraction"), number_text(3.2e6, "MACs"), number_text(-1.0, "points")
    ('99.21 %', '3.200 M', '-1.00')
    """
    if math.isnan(value):
        return "?"
    if unit == "fraction":
        return f"{100 * value:.2f} %"
    if unit == "MACs":
        for size, letter in ((1e9, "G"), (1e6, "M")):
            if abs(value) >= size:
                return f"{value / size:.3f} {letter}"
    return format(value, _UNITS.get(unit, ",.0f" if unit == "MACs" else ".4g"))


def quantity_text(value: float, unit: str) -> str:
    """A number with its unit.

    >>> quantity_text(-1.0, "points")
    '-1.00 points'
    """
    number = number_text(value, unit)
    return number if unit in ("", "fraction") else f"{number} {unit}"
