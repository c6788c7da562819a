"""Means over seeds with their intervals, and what is asked of rows before: the columns that they must have."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pruning_core.checks import checked
from pruning_core.errors import BadInput, BadType, shown

if TYPE_CHECKING:  # pandas and scipy wait until they are used: the package is to start as fast as torch
    import pandas as pd


def require_columns(rows: "pd.DataFrame", columns: Sequence[str]) -> None:
    """Raise BadInput when ``rows`` lack one of the ``columns``, or have it twice."""
    for column in columns:
        if column not in rows:
            raise BadInput(f"the rows lack the column {column!r}; they have {', '.join(map(str, rows.columns))}.")
        if rows[column].ndim > 1:
            raise BadInput(f"the rows have several columns {column!r}; leave one of them.")


def require_rows(rows: "pd.DataFrame", columns: Sequence[str]) -> None:
    """Raise BadInput when ``rows`` lack one of the ``columns``, or there are none."""
    require_columns(rows, columns)
    if rows.empty:
        raise BadInput("there is no row to draw.")


def require_names(rows: "pd.DataFrame", columns: Sequence[str]) -> None:
    """Raise BadInput as :func:`require_columns` does, and for a column that holds lists, dicts or sets, which name nothing.

    >>> import pandas as pd
    >>> require_names(pd.DataFrame({"method": [["snip"]]}), ["method"])
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: the column 'method' must hold names or numbers, not ['snip'].
    """
    require_columns(rows, columns)
    for column in columns:
        held = rows[column] if rows[column].dtype == object else ()
        for value in held:
            if isinstance(value, list | dict | set | np.ndarray):
                raise BadInput(f"the column {column!r} must hold names or numbers, not {shown(value)}.")


def with_numbers(rows: "pd.DataFrame", columns: Sequence[str], *, finite: bool = False) -> "pd.DataFrame":
    """The rows with numbers in these ``columns``, whatever type pandas keeps them in; what is missing is NaN. Raises BadInput
    as :func:`require_columns` does, and for a column that holds anything but real numbers,
    or infinite ones where they must be ``finite``.

    >>> import pandas as pd
    >>> with_numbers(pd.DataFrame({"accuracy": [90, None]}, dtype="Int64"), ["accuracy"])["accuracy"].tolist()
    [90.0, nan]
    >>> with_numbers(pd.DataFrame({"accuracy": ["90"]}), ["accuracy"])
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: the column 'accuracy' must hold numbers, not '90'.
    """
    require_columns(rows, columns)
    found = {}
    for column in columns:
        if not isinstance(rows[column].dtype, np.dtype) or rows[column].dtype.kind not in "iufb":
            held = rows[column].astype(object)
            wrong = [value for value in held[held.notna()] if not isinstance(value, int | float | np.number | np.bool_)]
            if wrong or rows[column].dtype == complex:
                raise BadInput(f"the column {column!r} must hold numbers, not {shown((wrong or held.tolist())[0])}.")
            found[column] = held.where(held.notna(), math.nan).astype(float)
    rows = rows.assign(**found)
    if finite and (endless := [column for column in columns if np.isinf(rows[column]).any()]):
        raise BadInput(f"the column {endless[0]!r} must hold finite numbers: no mean has a part that is infinite.")
    return rows


class Interval(NamedTuple):
    """Mean of ``n`` values with its 95 % t-interval; ``low`` and ``high`` are NaN for n = 1.

    >>> Interval(mean=2.0, low=1.0, high=3.0, n=5).side
    1
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def side(self) -> int:
        """1 where the whole interval lies above zero, -1 where below, 0 where it holds zero or does not exist."""
        return int(self.low > 0) - int(self.high < 0)


@checked(values=None)
def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """The mean of the values (one a seed) and its two-sided t-interval.

    >>> interval = mean_interval([1.0, 2.0, 3.0])
    >>> print(f"{interval.mean} in [{interval.low:.4f}, {interval.high:.4f}], n = {interval.n}")
    2.0 in [-0.4841, 4.4841], n = 3
    """
    from scipy.special import stdtrit

    try:
        given = np.asarray(values.detach() if hasattr(values, "detach") else values)
        if given.dtype.kind == "c":
            raise TypeError("complex numbers have no order")
        v = given.astype(float).ravel()
    except (TypeError, ValueError, RuntimeError):  # a tensor that numpy cannot read
        raise BadType(f"values must be numbers, one a seed, not {shown(values)}.") from None
    v = v[~np.isnan(v)]
    if len(v) < 2:
        return Interval(float(v.mean()) if len(v) else math.nan, math.nan, math.nan, len(v))
    mean = float(v.mean())
    half = float(stdtrit(len(v) - 1, 0.5 + level / 2) * v.std(ddof=1) / math.sqrt(len(v)))
    return Interval(mean, mean - half, mean + half, len(v))


@checked
def paired_difference(
    rows: "pd.DataFrame", first: str, second: str, *, by: str = "method", value: str = "accuracy"
) -> "pd.DataFrame":
    """``first`` minus ``second`` (values of ``by``) at each asked sparsity, paired by seed, with its 95 % interval.

    Two methods start from the same networks seed by seed, so an interval for their difference must come from differences.
    Columns: removed, points, low, high, seeds, better ("open" where zero lies in the interval); empty where the two
    have no seed in common.

    >>> import pandas as pd
    >>> methods, seeds = ["snip"] * 3 + ["random"] * 3, [0, 1, 2] * 2
    >>> rows = pd.DataFrame({"method": methods, "asked": 0.5, "seed": seeds, "accuracy": [90, 92, 91, 80, 81, 82]})
    >>> paired_difference(rows, "snip", "random")["points"].tolist()
    [10.0]
    """
    import pandas as pd

    require_columns(rows, ("asked", "seed", by, value))
    rows = with_numbers(rows, [value], finite=True)
    wide = rows.pivot_table(index=["asked", "seed"], columns=by, values=value)
    found = []
    if {first, second} <= set(wide.columns):
        for asked, gap in (wide[first] - wide[second]).dropna().groupby("asked"):
            interval = mean_interval(gap.to_numpy())
            found.append((f"{asked:.4g}", *interval, ("open", first, second)[interval.side]))
    return pd.DataFrame(found, columns=["removed", "points", "low", "high", "seeds", "better"]).round(2)


@checked
def over_seeds(rows: "pd.DataFrame", by: Sequence[str], value: str, keep: Sequence[str] = ()) -> "pd.DataFrame":
    """One row for each group of ``by``: mean of ``value`` over seeds with its 95 % interval, and means of ``keep``.

    Columns: ``by``, ``keep``, mean, low, high (both NaN with one seed), n (seeds). Several rows of one seed
    count as their mean. Raises BadInput for a missing column.

    >>> import pandas as pd
    >>> methods, seeds = ["snip"] * 3 + ["random"] * 3, [0, 1, 2] * 2
    >>> rows = pd.DataFrame({"method": methods, "asked": 0.5, "seed": seeds, "accuracy": [90, 92, 91, 80, 81, 82]})
    >>> over_seeds(rows, ["method"], "accuracy")["mean"].tolist()
    [81.0, 91.0]
    """
    import pandas as pd

    require_columns(rows, (*by, value, *keep))
    rows, found = with_numbers(rows, [value, *keep], finite=True), []
    for key, group in rows.dropna(subset=[value]).groupby(list(by), sort=True, dropna=False):
        per_seed = group.groupby("seed", dropna=False)[value].mean() if "seed" in group else group[value]
        kept = {column: float(group[column].mean()) for column in keep}
        found.append(dict(zip(by, key, strict=True)) | kept | mean_interval(per_seed.to_numpy(float))._asdict())
    return pd.DataFrame(found, columns=[*by, *keep, "mean", "low", "high", "n"])
