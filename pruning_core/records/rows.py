"""What stored rows hold: the entries of the standard columns, held against what these are when rows are written and read; and
the tags that a run has given to a record."""

import json
from collections.abc import Iterable
from typing import Any

from pruning_core.checks import Constraints, Real, Text, Whole, check
from pruning_core.errors import BadType, shown

_NUMBER, _PERCENT = Real(), Real(at_least=0, at_most=100)
TEXTS = Constraints.fromkeys(("experiment", "profile", "model", "data", "study", "code", "revision"), Text(empty=True))
"""What names a stored row, where it is there."""
ENTRIES = Constraints(
    **dict.fromkeys(("accuracy", "train_accuracy", "validation_accuracy", "accuracy5", "fitted_accuracy"), _PERCENT),
    **dict.fromkeys(("loss", "train_loss", "validation_loss", "sparsity", "channels_removed", "macs_removed"), _NUMBER),
    **dict.fromkeys(("seconds", "training_macs", "parameters", "macs"), Real(at_least=0)),
    seed=Whole(),
    width=Real(above=0),
)
"""What the entries of a row of an experiment are, where it has them: claims, tables and figures compute with them. A study
has columns of its own, whatever their names."""

UNTAGGED = "untagged"
"""In a record, and nowhere else: what the tags of a row stand for, so that a run without them reads it as it was."""


class Rows:
    """A list of rows.

    >>> check("history", {}, Rows())
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadType: history must be a list of rows, not {}.
    """

    def check(self, name: str, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise BadType(f"{name} must be a list of rows, not {shown(value)}.")
        return value


def check_entries(rows: list[dict], words: str) -> None:
    """Raise BadType or BadInput for an entry that is not what its column holds; ``words`` name it.

    >>> check_entries([{"accuracy": 90.0}, {"accuracy": 101.0}], "the {} of a row")
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: the accuracy of a row must lie in [0, 100], not 101.0.
    """
    if strange := [row[UNTAGGED] for row in rows if not isinstance(row.get(UNTAGGED, {}), dict)]:
        raise BadType(
            f"{words.format(UNTAGGED)} must map columns to what they hold without tags, not {shown(strange[0])}."
        )
    runs = [row for row in rows if not row.get("study")]
    for name, constraint in (TEXTS | ENTRIES).items():
        held = [value for row in (rows if name in TEXTS else runs) if (value := row.get(name)) is not None]
        for kind in {*map(type, held)}:
            found: Iterable[Any] = (value for value in held if type(value) is kind)
            if kind in (int, float):  # the ends of thousands of numbers speak for them
                found = list(found)
                found = (min(found), max(found))
            elif kind is str:
                found = set(found)
            for value in found:
                check(words.format(name), value, constraint)


def is_text(rows: list[dict]) -> bool:
    """Whether all texts can be written."""
    try:
        json.dumps(rows, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def tagged(row: dict[str, Any], tags: dict[str, Any]) -> dict[str, Any]:
    """A row as its record holds it: with tags, and with what they stand for."""
    before = {tag: row.get(tag) for tag in tags} | row.get(UNTAGGED, {})
    return row | tags | ({UNTAGGED: before} if before else {})


def untagged(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a record without the tags that some run has given it."""
    before = row.get(UNTAGGED, {})
    taken = {UNTAGGED, *(tag for tag, value in before.items() if value is None)}
    return {name: before.get(name, value) for name, value in row.items() if name not in taken}
