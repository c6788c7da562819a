"""The ledger: what each paper states, where, how we know it, and which rows of ours answer it."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from pruning_core.errors import BadInput, known_name
from pruning_core.records.table import COLUMNS, ORIGIN
from pruning_core.version import PROFILES

MARKS = {
    "code": "read in the official code or in outputs stored with it",
    "run": "measured by running the official code",
    "img": "read off a picture in the official repository",
    "readme": "stated in the official README",
    "abs": "stated in the abstract",
    "cited": "read in a table of another paper",
    "unseen": "nobody of us has seen it in a source; no number is printed",
}
SELECTABLE = tuple(name for name in COLUMNS if name not in ("experiment", "seed", "profile", *ORIGIN))
"""The columns by which a claim may choose rows: what was run and measured, not where."""


@dataclass(frozen=True)
class Selection:
    """Rows with these values in these columns, and the column that is read from them."""

    where: Mapping[str, Any]
    column: str


@dataclass(frozen=True)
class Comparison:
    """``first - second`` or ``first / second``, seed by seed."""

    first: Selection
    second: Selection
    combine: Literal["difference", "ratio"] = "difference"


@dataclass(frozen=True)
class Claim:
    """One statement of a paper. ``value`` is what the paper prints, in the unit of the column that ``ours`` reads.

    ``direction`` says on which side of ``than`` our quantity must lie (0 unless given, 1 for a ratio). ``checked`` is false
    where nobody has seen the statement in a source: such a claim carries no number of the paper.
    """

    id: str
    paper: str
    where: str
    statement: str
    seen: str
    source: str
    setting: Mapping[str, Any] = field(default_factory=dict)
    checked: bool = True
    value: float | None = None
    unit: str = ""
    ours: Selection | Comparison | None = None
    direction: Literal["above", "below"] | None = None
    than: float = 0.0
    tolerance: float | None = None
    profile: str = "paper"
    deterministic: bool = False
    note: str = ""


def load_claims(path: str | Path) -> list[Claim]:
    """Read and check the ledger; raise BadInput with one sentence for the first thing that is wrong.

    Refused: unknown or missing keys, ids used twice, an unknown source mark, a number without a tolerance, a
    claim marked as seen without a source, a number in a claim that nobody has checked, a selection by an
    unknown column.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(f"the ledger {path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(document, dict) or set(document) != {"tags", "claims"}:
        raise BadInput(f"the ledger {path} must hold exactly the keys 'tags' and 'claims'.")
    tags = tuple(document["tags"] or ())
    claims = [_claim(entry, tags) for entry in document["claims"] or ()]
    for id, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise BadInput(f"the id {id!r} is used by {count} claims.")
    return claims


def _claim(entry: Any, tags: tuple[str, ...]) -> Claim:
    name = entry.get("id", "without id") if isinstance(entry, dict) else "without id"
    if not isinstance(entry, dict):
        raise BadInput(f"a claim must be a mapping, not {entry!r}.")
    known = {f.name: f for f in fields(Claim)}
    for key in entry:
        known_name(f"key of the claim {name!r}:", key, known)
    for key, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and not entry.get(key):
            raise BadInput(f"the claim {name!r} lacks {key!r}.")
    given = dict(entry)
    if given.get("ours") is not None:
        given["ours"] = _ours(name, given["ours"], tags)
        if isinstance(given["ours"], Comparison) and given["ours"].combine == "ratio":
            given.setdefault("than", 1.0)
    claim = Claim(**given)
    _check(claim)
    return claim


def _ours(name: str, entry: Mapping[str, Any], tags: tuple[str, ...]) -> Selection | Comparison:
    if "column" in entry:
        where = {key: value for key, value in entry.items() if key != "column"}
        for column in (*where, entry["column"]):
            known_name(f"column in the selection of {name!r}:", column, (*SELECTABLE, *tags))
        return Selection(where, entry["column"])
    if not {"first", "second"} <= set(entry) <= {"first", "second", "combine"}:
        raise BadInput(f"'ours' of the claim {name!r} must hold 'column' or 'first' and 'second'.")
    first, second = _ours(name, entry["first"], tags), _ours(name, entry["second"], tags)
    if not isinstance(first, Selection) or not isinstance(second, Selection):
        raise BadInput(f"'first' and 'second' of the claim {name!r} must be selections.")
    combine: Literal["difference", "ratio"] = entry.get("combine", "difference")
    known_name(f"'combine' of the claim {name!r}:", combine, ("difference", "ratio"))
    return Comparison(first, second, combine)


# Names of networks, data sets, years and methods may hold digits; a result may not.
_NAMES = re.compile(r"\b[A-Za-z][A-Za-z-]*-?\d+(?:-\d+)*\w*")


def _check(claim: Claim) -> None:
    name = claim.id
    known_name(f"mark of the claim {name!r}:", claim.seen, MARKS)
    known_name(f"profile of the claim {name!r}:", claim.profile, PROFILES)
    if claim.checked == (claim.seen == "unseen"):
        raise BadInput(f"the claim {name!r} has checked: {str(claim.checked).lower()} but is marked {claim.seen!r}.")
    if not claim.checked and (claim.value is not None or re.search(r"\d", _NAMES.sub("", claim.statement))):
        raise BadInput(f"the claim {name!r} prints a number that nobody has checked.")
    if claim.value is not None and claim.tolerance is None and claim.ours is not None:
        raise BadInput(f"the claim {name!r} has a number but no tolerance.")
    if claim.ours is not None and claim.value is None and claim.direction is None:
        raise BadInput(f"the claim {name!r} has neither a number nor a direction.")
    if claim.direction not in (None, "above", "below"):
        raise BadInput(f"the direction of the claim {name!r} must be 'above' or 'below', not {claim.direction!r}.")
    if claim.ours is None and not claim.note:
        raise BadInput(f"the claim {name!r} says neither how our number is computed nor, in a note, why there is none.")
