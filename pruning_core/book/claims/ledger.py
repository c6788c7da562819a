"""The ledger: what each paper states, where, how we know it, and which rows of ours answer it."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pruning_core.book.tables import check_table, read_table
from pruning_core.checks import checked
from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, known_name
from pruning_core.models.build import known_model
from pruning_core.records.table import COLUMNS, ORIGIN
from pruning_core.version import PROFILES

CHOSEN = ("label", "model", "data", "width", "method", "epoch", "asked", "of")
"""The standard columns that say what was run: rows that answer a claim may differ in none that it does not name."""
SELECTABLE = tuple(name for name in COLUMNS if name not in ("experiment", "seed", "profile", *ORIGIN))
MEASURED = frozenset(COLUMNS) - frozenset(CHOSEN)


@checked
@dataclass(frozen=True)
class Selection:
    """Rows with these values in these columns (None: no value stored), and the column that is read from them.

    >>> Selection({"model": "lenet300", "label": "final", "asked": 0.9}, "accuracy")
    Selection(where={'model': 'lenet300', 'label': 'final', 'asked': 0.9}, column='accuracy')
    """

    where: Mapping[str, Any]
    column: str


@checked
@dataclass(frozen=True)
class Comparison:
    """``first - second`` or ``first / second``, seed by seed.

    >>> first = Selection({"method": "snip"}, "accuracy")
    >>> second = Selection({"method": "random"}, "accuracy")
    >>> Comparison(first, second).combine
    'difference'
    """

    first: Selection
    second: Selection
    combine: Literal["difference", "ratio"] = "difference"


@checked
@dataclass(frozen=True)
class Setting:
    """One network and data set in which a claim is judged.

    ``at`` names it for the reader. ``scale`` is "full" where network and data are the paper's, else "reduced". Rows count
    from ``profile`` upwards. With ``over``, every combination of these columns is a cell that is judged by itself, and the
    clear majority of the cells decides.

    >>> Setting(Selection({"model": "lenet300"}, "accuracy"), at="digits", scale="reduced", profile="standard").scale
    'reduced'
    """

    ours: Selection | Comparison
    at: str = ""
    scale: Literal["full", "reduced"] = "full"
    profile: str = "paper"
    over: tuple[str, ...] = ()


@checked
@dataclass(frozen=True)
class Claim:
    """One statement of a paper. ``value`` is what the paper prints, in the unit of the column that is read.

    ``direction`` says on which side of ``than`` our quantity must lie (0 unless given, 1 for a ratio). ``kind``: a
    measurement can fail; a count is of parameters or multiply-accumulates, the same for every seed; an identity follows
    from a formula and cannot fail; a statement that nobody has seen gets no verdict. ``title`` is the paper's short name,
    ``epochs`` the length of its training, ``page`` the notebook that makes the rows, ``measured`` the columns in which
    rows may differ.

    >>> from pruning_core.version import REPOSITORY
    >>> claims = load_claims(REPOSITORY / "book" / "claims.yml")
    >>> {claim.kind for claim in claims} <= {"measurement", "count", "identity", "unseen"}
    True
    """

    id: str
    paper: str
    where: str
    statement: str
    seen: str
    source: str
    setting: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["measurement", "count", "identity", "unseen"] = "measurement"
    value: float | None = None
    unit: str = ""
    ours: tuple[Setting, ...] = ()
    direction: Literal["above", "below"] | None = None
    than: float = 0.0
    tolerance: float | None = None
    note: str = ""
    title: str = ""
    epochs: int | None = None
    page: str = ""
    measured: frozenset[str] = MEASURED


@checked
def load_claims(path: str | Path) -> list[Claim]:
    """Read and check the ledger; raise BadInput with one sentence for the first thing that is wrong.

    Refused, besides what the book's ``schema.yml`` says: a key that stands twice, an id used twice, an unknown paper, a
    number in a claim that nobody has checked, a selection by an unknown column.

    >>> from pruning_core.version import REPOSITORY
    >>> claims = load_claims(REPOSITORY / "book" / "claims.yml")
    >>> next(claim.value for claim in claims if claim.id == "snipit-readme-snapit-accuracy")
    -1.0
    """
    document = read_table(Path(path), "ledger")
    check_table(document, "ledger", f"the ledger {path}")
    claims = [_claim(entry, document) for entry in document["claims"]]
    for id, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise BadInput(f"the id {id!r} is used by {count} claims.")
    return claims


# Names of networks, data sets, years and methods may hold digits; a result may not.
_NAMES = re.compile(r"\b[A-Za-z][A-Za-z-]*-?\d+(?:-\d+)*\w*")


def _claim(entry: Any, document: Mapping[str, Any]) -> Claim:
    name = f"the claim {entry.get('id', 'without id') if isinstance(entry, dict) else 'without id'!r}"
    if isinstance(entry, dict) and isinstance(entry.get("ours"), dict):
        entry = entry | {"ours": [entry["ours"]]}
    check_table(entry, "claim", name)
    known_name(f"paper of {name}:", entry["paper"], document["papers"])
    if entry["seen"] == "unseen" and re.search(r"\d", _NAMES.sub("", entry["statement"])):
        raise BadInput(f"{name} prints a number that nobody has checked.")
    given = {key: value for key, value in entry.items() if key not in ("ours", "profile")}
    columns = (*SELECTABLE, *document["tags"], *document["measured"])
    profile = known_name(f"profile of {name}:", entry.get("profile", "paper"), PROFILES)
    settings = tuple(_setting(name, setting, columns, profile) for setting in entry.get("ours", ()))
    if len(settings) > 1 and not all(setting.at for setting in settings):
        raise BadInput(f"{name} has several settings, but one of them without a name 'at' and its 'scale'.")
    if any(isinstance(s.ours, Comparison) and s.ours.combine == "ratio" for s in settings):
        given.setdefault("than", 1.0)
    pages = [prefix for prefix in document["pages"] if entry["id"].startswith(prefix)]
    page = document["pages"][max(pages, key=len)] if pages else ""
    measured = MEASURED | frozenset(document["measured"])
    return Claim(**given, **document["papers"][entry["paper"]], ours=settings, page=page, measured=measured)


def _setting(name: str, entry: Mapping[str, Any], columns: Iterable[str], profile: str) -> Setting:
    about = {key: entry[key] for key in ("at", "scale") if key in entry}
    about["profile"] = known_name(f"profile of {name}:", entry.get("profile", profile), PROFILES)
    rest = {k: v for k, v in entry.items() if k not in ("at", "scale", "profile", "over", "rule")}
    over = tuple(entry.get("over", ()))
    for column in over:
        known_name(f"column in 'over' of {name}:", column, columns)
    if "column" in rest:
        return Setting(_selection(name, rest, columns), over=over, **about)
    if not {"first", "second"} <= set(rest) <= {"first", "second", "combine"}:
        raise BadInput(f"'ours' of {name} must hold 'column' or 'first' and 'second'.")
    first, second = (_selection(name, rest[side], columns) for side in ("first", "second"))
    return Setting(Comparison(first, second, rest.get("combine", "difference")), over=over, **about)


def _selection(name: str, entry: Mapping[str, Any], columns: Iterable[str]) -> Selection:
    for column in (*(key for key in entry if key != "column"), entry["column"]):
        known_name(f"column in the selection of {name}:", column, columns)
    try:  # no row has others, and the claim would wait for them for ever
        if entry.get("model") is not None:
            known_model(entry["model"])
        if entry.get("data") is not None:
            known_name("data set", entry["data"], DATASETS)
    except BadInput as error:
        raise type(error)(f"the selection of {name} is of no rows: {error}") from error
    return Selection({key: value for key, value in entry.items() if key != "column"}, entry["column"])
