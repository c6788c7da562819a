"""Sentences of the pages that state a result, each with the condition on the stored rows that makes it true."""

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pruning_core.book.claims.verdicts import LEAST_SEEDS
from pruning_core.checks import checked
from pruning_core.errors import BadInput, PruningError, shown
from pruning_core.experiments.intervals import Interval, mean_interval, require_columns, with_numbers
from pruning_core.records.files import results_root
from pruning_core.records.table import load, select
from pruning_core.version import LONG

if TYPE_CHECKING:
    import pandas as pd


class Unbacked(PruningError):
    """A sentence of the book that the stored rows do not support."""


@checked
def backed(sentence: str, *conditions: bool) -> None:
    """Show a sentence (Markdown) that states a result, if all ``conditions`` on the stored rows hold.

    Raises Unbacked if one does not hold: then the rows have changed, and the sentence has to be written anew. Raises
    BadInput without any condition.

    >>> backed("Three is more than two.", 3 > 2, 3 != 2)
    <IPython.core.display.Markdown object>
    >>> backed("Two is more than three.", 2 > 3)
    Traceback (most recent call last):
    ...
    pruning_core.book.sentences.Unbacked: condition 1 of 1 does not hold on the stored rows: Two is more than three.
    """
    from IPython.display import Markdown, display

    display(Markdown(supported(sentence, *conditions)))


@checked
def supported(sentence: str, *conditions: bool) -> str:
    """The sentence itself, for pages that are no notebooks, under the conditions of :func:`backed`; raises as that does.

    >>> supported("Three is more than two.", 3 > 2)
    'Three is more than two.'
    """
    if not conditions:
        raise BadInput(f"a result needs a condition on the stored rows: {shown(sentence)}")
    for number, holds in enumerate(conditions, 1):
        if not holds:
            raise Unbacked(f"condition {number} of {len(conditions)} does not hold on the stored rows: {sentence}")
    return sentence


@functools.cache
def _long_rows() -> "pd.DataFrame":
    return load(results_root(), profile=LONG)


@checked
def stored_rows(**equal_to: Any) -> "pd.DataFrame":
    """The rows stored with the book (profiles standard and paper), read once a process, whose columns have these values.

    A list stands for one of several values, None for none; as in :func:`pruning_core.records.load`, but without the
    records of this machine, on which no sentence of the book may depend. Raises BadInput where no row is left,
    UnknownName for a column of no row.

    >>> sorted(stored_rows(model="ffn2_ispasp", label="fine-tuned", epoch=20)["seed"].unique().tolist())
    [0, 1, 2, 3, 4]
    """
    rows = select(_long_rows(), **equal_to)
    if rows.empty:
        raise BadInput(f"no stored row has {', '.join(f'{name} = {value!r}' for name, value in equal_to.items())}.")
    return rows


def _columns(over: str | Sequence[str]) -> list[str]:
    columns = [over] if isinstance(over, str) else list(over)
    if not columns:
        raise BadInput("over must name a column, or several.")
    return columns


@checked
def means(rows: "pd.DataFrame", over: str | Sequence[str], value: str = "accuracy") -> dict[Any, Interval]:
    """The mean of ``value`` over seeds with its 95 % interval, for each setting: a value of ``over``, or a tuple of several.

    Rows without a setting or a value are left out. Raises BadInput for a missing column, and where one seed has several
    values in a setting: its rows differ in something that they should have been chosen by.

    >>> found = means(stored_rows(model="vit_tiny", label="fine-tuned"), ["method", "kept"])
    >>> {setting: interval.n for setting, interval in found.items()}
    {('ispasp', 0.2): 5, ('random_channels', 0.2): 5}
    """
    columns = _columns(over)
    require_columns(rows, (*columns, value, "seed"))
    rows = with_numbers(rows, [value], finite=True)
    found = rows.dropna(subset=[value]).drop_duplicates([*columns, "seed", value])
    if (twice := found.duplicated([*columns, "seed"])).any():
        key = found.loc[twice, [*columns, "seed"]].iloc[0].to_dict()
        raise BadInput(
            f"several values of {value} have {', '.join(f'{name} = {entry}' for name, entry in key.items())}."
        )
    found = found.assign(**found[columns].round(9))  # 1 - 0.7 is 0.30000000000000004
    groups = found.groupby(over if isinstance(over, str) else columns)[value]
    return {setting: mean_interval(values.to_numpy(float)) for setting, values in groups}


@checked
def gaps(
    rows: "pd.DataFrame",
    first: Any,
    second: Any,
    over: str | Sequence[str] = "asked",
    by: str = "method",
    value: str = "accuracy",
) -> dict[Any, Interval]:
    """``first`` minus ``second`` (values of ``by``), paired by seed, with its 95 % interval, for each setting as in
    :func:`means`; settings that only one of them has are left out. Raises BadInput as there, and where none is left.

    >>> import pandas as pd
    >>> seeds = {"seed": [0, 1, 2] * 2, "asked": 0.5, "method": ["snip"] * 3 + ["random"] * 3}
    >>> found = gaps(pd.DataFrame(seeds | {"accuracy": [90, 92, 91, 80, 81, 82]}), "snip", "random")
    >>> print(in_points(found[0.5]), clear(found))
    +10.0 points [7.5, 12.5] {0.5: 'ahead'}
    """
    columns = _columns(over)
    require_columns(rows, (*columns, by, value, "seed"))
    rows = with_numbers(rows, [value], finite=True)
    sides = [rows[rows[by] == name] for name in (first, second)]
    for side in sides:
        means(side, over, value)  # refuses several values of one seed
    mine, other = (side.groupby([*columns, "seed"])[value].first().astype(float) for side in sides)
    differences = (mine - other).dropna().reset_index()
    if differences.empty:
        raise BadInput(f"no row of {first!r} and {second!r} has the same {', '.join(columns)} and seed.")
    return means(differences, over, value)


@checked
def clear(found: Mapping[Any, Interval]) -> dict[Any, str]:
    """For each setting "ahead" where the whole interval lies above zero, "behind" where below, else "open", as with fewer
    than three seeds.

    >>> clear({0.5: Interval(mean=2.0, low=1.0, high=3.0, n=5), 0.9: Interval(mean=2.0, low=-1.0, high=5.0, n=5)})
    {0.5: 'ahead', 0.9: 'open'}
    """
    sides = {key: gap.side if gap.n >= LEAST_SEEDS else 0 for key, gap in found.items()}
    return {key: ("open", "ahead", "behind")[side] for key, side in sides.items()}


@checked
def in_points(gap: Interval, digits: int = 1) -> str:
    """A difference of percentages with its interval.

    >>> in_points(Interval(mean=2.71, low=1.68, high=3.74, n=5))
    '+2.7 points [1.7, 3.7]'
    """
    return f"{gap.mean:+.{digits}f} points [{gap.low:.{digits}f}, {gap.high:.{digits}f}]"


@checked
def percents(*fractions: float) -> str:
    """Fractions as a list of percentages, to three digits.

    >>> percents(0.5, 0.9, 0.995)
    '50, 90 and 99.5 %'
    """
    return f"{_listed([f'{100 * fraction:.3g}' for fraction in fractions])} %"


@checked
def in_words(found: Mapping[Any, Interval]) -> str:
    """What :func:`clear` says of every setting, the unfavourable ones included; settings up to 1 are fractions.

    >>> above, below, across = Interval(1, 0.5, 1.5, 5), Interval(-1, -1.5, -0.5, 5), Interval(0, -1, 1, 5)
    >>> in_words({0.5: across, 0.8: above, 0.9: above, 0.95: below})
    'clearly ahead at 80 and 90 %, clearly behind at 95 % and open at 50 %'
    >>> in_words({25: below, 51: below})
    'clearly behind at 25 and 51'
    """
    sides = clear(found)
    parts = []
    for side, words in (("ahead", "clearly ahead"), ("behind", "clearly behind"), ("open", "open")):
        if at := [key for key, found_side in sides.items() if found_side == side]:
            fractions = all(isinstance(key, float) and key <= 1 for key in at)
            parts.append(f"{words} at {percents(*at) if fractions else _listed([f'{key:g}' for key in at])}")
    return _listed(parts)


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
