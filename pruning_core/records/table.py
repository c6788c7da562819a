"""One measurement is one tidy row: files of rows with a checksum, and all records as one table."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning_core.checks import plain
from pruning_core.errors import BadInput, BadType, CorruptFile, known_name
from pruning_core.records.files import cache_root, results_root, write_atomically
from pruning_core.records.hashes import digest
from pruning_core.version import CHEAP, LONG, source_hash

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


def _storable(value: Any, where: str) -> Any:
    """A row's entry as strict JSON; nan and infinities become null because JSON has no word for them."""
    value = plain(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, list | tuple):
        return [_storable(entry, where) for entry in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _storable(entry, where) for key, entry in value.items()}
    raise BadType(f"the column {where!r} of a row holds a {type(value).__name__}, which a record cannot store.")


def write_rows(path: str | os.PathLike, rows: list[dict]) -> None:
    """Store tidy rows as one JSON record with a checksum, atomically; one line a row, so that changes can be read.

    Entries may be None, bool, int, float, str, numpy or torch scalars, and lists and dicts of these. Raises BadType
    (naming the column) for others, BadInput when the path cannot be written.
    """
    stored = [{str(name): _storable(value, str(name)) for name, value in row.items()} for row in rows]
    lines = ",\n".join(json.dumps(row) for row in stored)
    head = f'{{"format": {json.dumps(FORMAT)}, "sha256": "{digest(stored)}", "rows": ['
    write_atomically(path, f"{head}\n{lines}\n]}}\n" if stored else f"{head}]}}\n")


def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows of a record of :func:`write_rows`. Raises CorruptFile for a file that is truncated, altered or of another
    kind, BadInput for one that cannot be read at all."""
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8"))
    except ValueError as error:  # both broken JSON and broken UTF-8
        raise CorruptFile(f"{path} is no record: it is truncated, altered, or of another kind.") from error
    except OSError as error:
        raise BadInput(f"cannot read the record {path}: {error.strerror}.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CorruptFile(f"{path} is no record of this package: its format is not {FORMAT!r}.")
    rows = content.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CorruptFile(f"{path} is a damaged record: it holds no list of rows.")
    if content.get("sha256") != digest(rows):
        raise CorruptFile(f"{path} is a damaged record: its rows do not match its checksum.")
    return rows


def _record_files(folders: tuple[str | os.PathLike, ...]) -> Iterator[Path]:
    usual = [place for place in (cache_root() / "records", results_root()) if place.is_dir()]
    for place in map(Path, folders or usual):
        if place.is_file():
            yield place
        elif place.is_dir():
            yield from sorted(file for file in place.rglob("*.json") if not file.name.startswith("."))
        else:
            raise BadInput(f"no folder of records at {place}.")


def _valid(row: dict) -> bool:
    """Whether the code of now would give this row: long runs outlive an edit, cheap ones do not."""
    return row.get("profile") not in CHEAP or row.get("code", source_hash()) == source_hash()


def collect(
    profiles: Iterable[str] = LONG, target: str | os.PathLike | None = None, skip: Iterable[str] = ()
) -> list[Path]:
    """Gather the records of this machine's runs in ``profiles`` below ``target`` (default: the committed results).

    One file a network and data set, ``<model>-<data>.json``, or a study without a network: a few files in the repository
    instead of thousands. Experiments that are there already stay as they are; ``skip`` leaves out experiments by their
    hash. Returns the files that were written. Raises CorruptFile for a record that cannot be trusted.
    """
    wanted, left_out = set(profiles), set(skip)
    folder = Path(target) if target is not None else results_root()
    gathered: dict[str, list[dict]] = {}
    for file in sorted((cache_root() / "records").glob("*.json")):
        rows = read_rows(file)
        if rows and {row.get("profile") for row in rows} <= wanted and rows[0].get("experiment") not in left_out:
            parts = [str(rows[0][part]) for part in ("model", "data") if rows[0].get(part)]
            name = "-".join(parts or [str(rows[0].get("study", "studies"))]).replace("/", "-").replace(" ", "-")
            gathered.setdefault(name, []).extend(rows)
    written = []
    for name, rows in sorted(gathered.items()):
        path = folder / f"{name}.json"
        held = read_rows(path) if path.exists() else []
        known = {row.get("experiment") for row in held}
        fresh = [row for row in rows if row.get("experiment") not in known]
        if fresh:
            write_rows(path, held + fresh)
            written.append(path)
    return written


def load(*folders: str | os.PathLike, **equal_to: Any) -> "pandas.DataFrame":
    """All rows of all ``*.json`` records below the folders (or of single files) as one table.

    Default folders: the records of this machine's runs, without those of cheap profiles that older code wrote, then the
    committed results. An experiment (by its hash) that lies in several files counts once, the first file wins.
    ``equal_to`` keeps the rows whose column has that value, or one of several given as a list;
    ``load(model="lenet300", seed=[0, 1])``. Nothing found: an empty table with the standard columns. Raises CorruptFile
    for a record that cannot be trusted, BadInput for a folder that does not exist, UnknownName for a column of no row.
    """
    import pandas

    rows: list[dict] = []
    seen: set[str] = set()
    for file in _record_files(folders):
        fresh = [row for row in read_rows(file) if row.get("experiment") not in seen and (folders or _valid(row))]
        seen.update(row["experiment"] for row in fresh if row.get("experiment") is not None)
        rows += fresh
    frame = pandas.DataFrame(rows)
    frame = frame.reindex(columns=[*COLUMNS, *(name for name in frame.columns if name not in COLUMNS)])
    if not rows:
        return frame
    for name, value in equal_to.items():
        column = frame[known_name("column", name, frame.columns)]
        if isinstance(value, list | tuple | set):
            frame = frame[column.isin(list(value))]
        else:
            frame = frame[column.isna() if value is None else column == value]
    return frame.reset_index(drop=True)
