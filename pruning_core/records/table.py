"""One measurement is one tidy row: files of rows with a checksum, all records as one table."""

import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning_core.checks import Place, Text, Whole, check, checked, plain
from pruning_core.errors import BadInput, BadType, CorruptFile, PruningError, known_name, shown
from pruning_core.records.files import cache_root, is_checkout, results_root, write_atomically
from pruning_core.records.hashes import digest
from pruning_core.records.machine import DIRTY
from pruning_core.records.places import check_folder, each_once, file_bytes
from pruning_core.records.rows import UNTAGGED, check_entries, is_text
from pruning_core.version import CHEAP, LONG, PROFILES, source_hash

if TYPE_CHECKING:
    import pandas

FORMAT = "pruning-core rows 1"
ORIGIN = ("python", "torch", "torchvision", "numpy", "package", "revision", "device", "threads")
"""The columns that say where a number was made."""

COLUMNS = (
    "experiment", "label", "model", "data", "width", "method", "seed", "profile", "epoch", "asked", "of",
    "sparsity", "channels_removed", "macs_removed", "parameters", "macs", "training_macs", "accuracy", "loss",
    "train_loss", "train_accuracy", "validation_accuracy", "validation_loss", "seconds",
    *ORIGIN,
)  # fmt: skip
"""The standard columns. Sparsities are fractions removed, accuracies percent, losses means, times seconds."""

LARGEST = 10**9
"""Bytes of the largest record that is read: five hundred times that of the largest file of the book's results."""


def storable(value: Any, where: str) -> Any:
    """A row's entry as strict JSON; nan and infinities become null because JSON has no word for them."""
    value = plain(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, str):
        return check(f"the text in the column {where!r} of a row", value, Text(empty=True))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return check(f"the number in the column {where!r} of a row", value, Whole())
    try:
        if isinstance(value, list | tuple):
            return [storable(entry, where) for entry in value]
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: storable(entry, where) for key, entry in value.items()}
    except RecursionError as error:
        raise BadInput(f"the column {where!r} of a row holds itself, which a record cannot store.") from error
    raise BadType(f"the column {where!r} of a row holds a {type(value).__name__}, which a record cannot store.")


@checked
def write_rows(path: str | os.PathLike, rows: list[dict]) -> None:
    """Store tidy rows as one JSON record with a checksum, atomically; one line a row, so that changes can be read.

    Entries may be None, bool, int, float, str, numpy or torch scalars, and lists and dicts of these; those of a standard column
    must be what the column holds. Raises BadType (naming the column) for others, BadInput when the path cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_rows(f"{folder}/one.json", [{"seed": 0, "accuracy": 90.0}])
    ...     read_rows(f"{folder}/one.json")
    [{'seed': 0, 'accuracy': 90.0}]
    """
    for row in rows:
        if wrong := [name for name in row if not isinstance(name, str)]:
            raise BadType(f"the columns of a row have texts as names, not {shown(wrong[0])}.")
    stored = [{name: storable(value, name) for name, value in row.items()} for row in rows]
    check_entries(stored, "the {} of a row")
    lines = ",\n".join(json.dumps(row) for row in stored)
    head = f'{{"format": {json.dumps(FORMAT)}, "sha256": "{digest(stored)}", "rows": ['
    write_atomically(path, f"{head}\n{lines}\n]}}\n" if stored else f"{head}]}}\n")


_WAY_OUT = "delete it, or put a whole one in its place"


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


@checked
def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows of a record of :func:`write_rows`. Raises CorruptFile for a file that is truncated, altered or of another
    kind, BadInput for one that cannot be read at all.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_rows(f"{folder}/one.json", [{"seed": 0}])
    ...     read_rows(f"{folder}/one.json")
    [{'seed': 0}]
    """
    try:
        content = file_bytes(path, LARGEST)
        document = json.loads(content.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:  # broken JSON, broken UTF-8, NaN, a key that stands twice
        raise CorruptFile(f"{path} is no record: it is truncated, altered, or of another kind; {_WAY_OUT}.") from error
    except FileNotFoundError as error:
        raise BadInput(f"cannot read the record {path}: {error.strerror}.") from error
    except OSError as error:
        raise BadInput(f"cannot read the record {path}: {error.strerror}; {_WAY_OUT}.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CorruptFile(f"{path} is no record of this package: its format is not {FORMAT!r}; {_WAY_OUT}.")
    rows = document.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CorruptFile(f"{path} is a damaged record: it holds no list of rows; {_WAY_OUT}.")
    try:
        fits = document.get("sha256") == digest(rows, finite=True)
    except ValueError:  # 1e999 is JSON
        raise CorruptFile(f"{path} is a damaged record: it holds a number that is not finite; {_WAY_OUT}.") from None
    if not fits:
        raise CorruptFile(f"{path} is a damaged record: its rows do not match its checksum; {_WAY_OUT}.")
    try:  # the checksum is no secret
        check_entries(rows, "its {}")
    except PruningError as error:
        raise CorruptFile(f"{path} is a damaged record: {str(error).rstrip('.')}; {_WAY_OUT}.") from error
    if b"\\ud" in content.lower() and not is_text(rows):
        raise CorruptFile(f"{path} is a damaged record: a text in it holds half of a letter; {_WAY_OUT}.")
    return rows


def _record_files(folders: tuple[str | os.PathLike, ...]) -> Iterator[Path]:
    usual = [p for p in (cache_root() / "records", cache_root() / "results", results_root()) if os.path.isdir(p)]
    for place in map(Path, folders or usual):
        if os.path.isfile(place):  # Path.is_file raises where nobody may look
            yield place
        elif os.path.isdir(place):
            yield from sorted(file for file in place.rglob("*.json") if not file.name.startswith("."))
        else:
            raise BadInput(f"no folder of records at {place}.")


@checked
def collect(
    profiles: Iterable[str] = LONG,
    target: str | os.PathLike | None = None,
    skip: Iterable[str] = (),
    *,
    dirty: bool = False,
) -> list[Path]:
    """Gather the records of this machine's runs in ``profiles`` below ``target`` (default: the results stored
    with the book; for a package without its repository, ``results`` in the cache).

    One file a network and data set, ``<model>-<data>.json``, or a study without a network: a few files in the repository
    instead of thousands. Experiments that are there already stay as they are; ``skip`` leaves out experiments by their
    hash. Returns the files that were written. Raises, before anything is written, CorruptFile for a record that cannot be
    trusted or lies under another name than its own, BadInput for a place that cannot be written, and for rows of edited code,
    whose revision nobody can look up, unless ``dirty``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     collect([], target=folder)
    []
    """
    wanted = {known_name("profile", name, PROFILES) for name in profiles}
    left_out = set(skip)
    own = results_root() if is_checkout() else cache_root() / "results"
    gathered: dict[str, list[dict]] = {}
    edited: list[Path] = []
    check_folder("the cache", cache_root())
    files = (file for file in (cache_root() / "records").glob("*.json") if not file.name.startswith("."))  # locks
    for file in sorted(files):
        rows = recorded(file, file.stem)
        if {row.get("profile") for row in rows} <= wanted and file.stem not in left_out:
            edited += [file] if any(str(row.get("revision")).endswith(DIRTY) for row in rows) else []
            gathered.setdefault(_collected_name(rows[0], file), []).extend(
                {name: entry for name, entry in row.items() if name != UNTAGGED} for row in rows
            )
    if edited and not dirty:
        raise BadInput(
            f"{len(edited)} records are of edited code ({DIRTY} in their revision), {edited[0]} the first: delete them and "
            "run them from a commit, or ask for them (`collect --dirty`, dirty=True)."
        )
    folder = check_folder("the place of collected rows", own if target is None else target)
    joined: dict[Path, list[dict]] = {}
    for name, rows in sorted(gathered.items()):
        path = folder / f"{name}.json"
        held = read_rows(path) if path.exists() or path.is_symlink() else []
        known = {row.get("experiment") for row in held}
        if fresh := [row for row in rows if row.get("experiment") not in known]:
            joined[path] = held + fresh
    for path, rows in joined.items():
        write_rows(path, rows)
    return list(joined)


def recorded(path: Path, key: str, about: Mapping[str, Collection[Any]] | None = None) -> list[dict[str, Any]]:
    """The rows of a record that lies where those of ``key`` belong; CorruptFile if they are of something else, or say another
    thing of themselves than ``about`` (column -> what its entry may be)."""
    rows = read_rows(path)
    if not rows or any(row.get("experiment") != key for row in rows):
        raise CorruptFile(
            f"{path} holds rows of something else than {key}: delete this file, and its own are made again."
        )
    for row in rows:
        for name, allowed in (about or {}).items():
            if row.get(name) not in allowed:
                own = " or ".join(map(shown, allowed))
                raise CorruptFile(
                    f"{path} is a damaged record: its {name} is {shown(row.get(name))}, that of its experiment {own}: delete "
                    "this file, and it is made again."
                )
    return rows


def _collected_name(row: Mapping[str, Any], file: Path) -> str:
    """The name of the file, without its ending, in which a row of the record ``file`` is stored with the book."""
    parts = [str(row[part]) for part in ("model", "data") if row.get(part)]
    name = "-".join(parts or [str(row.get("study") or "studies")]).replace("/", "-").replace(" ", "-")
    name = f"_{name}" if name.startswith(".") else name  # what begins with a dot is no record to any reader
    try:
        check("name", f"{name}.json", Place())
    except BadInput:
        raise CorruptFile(f"{file} is a damaged record: no file can be named after {shown(name)}; delete it.") from None
    return name


def select(frame: "pandas.DataFrame", **equal_to: Any) -> "pandas.DataFrame":
    """The rows of a table whose columns have these values: one, one of several in a list, or none (None).

    Raises UnknownName for a column that the table does not have.
    """
    for name, value in equal_to.items():
        column = frame[known_name("column", name, frame.columns)]
        value = plain(value)
        if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
            frame = frame[column.isin([plain(entry) for entry in value])]
        else:
            frame = frame[column.isna() if value is None else column == value]
    return frame.reset_index(drop=True)


@checked
def load(*folders: str | os.PathLike, **equal_to: Any) -> "pandas.DataFrame":
    """All rows of all ``*.json`` records below the folders (or of single files) as one table.

    Default folders: the records of this machine's runs, without those of cheap profiles that older code wrote, then the
    committed results. An experiment (by its hash) that lies in several files counts once, the first file wins.
    ``equal_to`` keeps the rows whose column has that value, or one of several given as a list;
    ``load(model="lenet300", seed=[0, 1])``. Nothing found: an empty table with the standard columns. Raises CorruptFile
    for a record that cannot be trusted, BadInput for a folder that does not exist, UnknownName for a column of no row.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_rows(f"{folder}/one.json", [{"method": "snip", "seed": 0}, {"method": "snap", "seed": 0}])
    ...     load(folder, method="snip")["method"].tolist()
    ['snip']
    """
    import pandas

    rows: list[dict] = []
    seen: set[str] = set()
    void = () if folders else CHEAP  # profiles that do not outlive an edit of the code
    for file in _record_files(folders):
        fresh = [row for row in read_rows(file) if row.get("experiment") not in seen]
        fresh = [
            row for row in fresh if row.get("profile") not in void or row.get("code", source_hash()) == source_hash()
        ]
        seen.update(row["experiment"] for row in fresh if row.get("experiment") is not None)
        rows += fresh
    frame = pandas.DataFrame(rows)
    frame = frame.reindex(columns=[*COLUMNS, *(name for name in frame.columns if name not in (*COLUMNS, UNTAGGED))])
    return select(frame, **equal_to) if rows else frame
