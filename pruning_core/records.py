"""One measurement is one tidy row: content hashes, atomic files with a checksum, and all records as one
table.

Nothing here knows about networks, and torch and pandas are imported only where they are needed.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import platform
import secrets
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning_core.errors import BadInput, BadType, CorruptFile, known_name
from pruning_core.version import CHEAP, LONG, REPOSITORY, source_hash

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

_NOT_WRITABLE = {
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "no such folder, and it cannot be made",
    errno.ENOSPC: "no room left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EEXIST: "a part of the path is not a folder",
    errno.EISDIR: "the path is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


# --- places


def _is_checkout() -> bool:
    return (REPOSITORY / "pyproject.toml").is_file()


def cache_root() -> Path:
    """The folder for downloads, checkpoints and records that git does not see.

    ``$PRUNING_CACHE`` if set, else ``data/cache`` of the repository, else (installed package)
    ``~/.cache/pruning_core``.
    """
    if named := os.environ.get("PRUNING_CACHE"):
        return Path(named).expanduser()
    return REPOSITORY / "data" / "cache" if _is_checkout() else Path.home() / ".cache" / "pruning_core"


def results_root() -> Path:
    """The folder of the committed results: ``data/results`` of the repository (else in the cache)."""
    return REPOSITORY / "data" / "results" if _is_checkout() else cache_root() / "results"


# --- hashes


def _canonical(value: Any) -> Any:
    """``value`` as JSON types only, so that equal settings give equal text whatever their containers were."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isnan(value):
            raise BadType("nan has no content hash: it is not even equal to itself.")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _canonical(getattr(value, f.name)) for f in dataclasses.fields(value) if f.compare}
        if "type" in fields:
            raise BadType(f"{type(value).__name__} has a field named 'type', which its content hash needs itself.")
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise BadType(f"a content hash needs strings as keys, got {wrong[0]!r}.")
        return {key: _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    raise BadType(
        f"{type(value).__name__} has no content hash; allowed: None, bool, int, float, str, lists, tuples, "
        "mappings with string keys and dataclasses of these."
    )


def content_hash(value: Any) -> str:
    """16 hex characters of the SHA-256 of ``value`` as canonical JSON: the name under which its result is
    stored.

    Dataclasses become ``{"type": class name, field: value, ...}`` without the fields declared
    ``compare=False`` (what does not take part in ``==`` is no part of the identity either); tuples equal
    lists; the order of keys does not count; floats enter by ``repr``, so 1 and 1.0 differ. Raises BadType for
    anything else, paths included: where a file lies must not decide what it is.

    >>> content_hash({"a": 1, "b": (2, 3)}) == content_hash({"b": [2, 3], "a": 1})
    True
    """
    return _digest(_canonical(value))[:16]


def _digest(plain: Any) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, as 64 hex characters."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- atomic files


def write_atomically(path: str | os.PathLike, writer: Callable[[Path], None] | bytes | str) -> None:
    """Write a file so that a reader, a crash or a second writer never meets half of it.

    ``writer`` is the content, or a function that writes a new file at the path it is given: a temporary name
    with the same suffix in the same folder, which is synced to the disk and then renamed over ``path``.
    Folders are made. When anything fails the temporary file goes and what was at ``path`` stays.

    Raises BadInput, naming the path, when it cannot be written (permission, room, a file where a folder
    should be).
    """
    path = Path(path)
    # The leading dot hides what a killed process leaves behind from every search for records.
    temporary = path.with_name(f".partial-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(writer, str):
            temporary.write_text(writer, encoding="utf-8", newline="")
        elif isinstance(writer, bytes):
            temporary.write_bytes(writer)
        else:
            writer(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise BadInput(f"cannot write {path}: {_NOT_WRITABLE[error.errno]}.") from error
    finally:
        with contextlib.suppress(OSError):  # renamed already, or no access to the folder, which has been reported
            temporary.unlink()


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete the temporary files that killed processes of this machine left in ``folder``."""
    for file in Path(folder).glob(".partial-*"):
        try:
            os.kill(int(file.name.split("-")[1]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue  # still being written, or none of ours


# --- records


def _storable(value: Any, where: str) -> Any:
    """A row's entry as strict JSON; nan and infinities become null because JSON has no word for them."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # numpy scalars and tensors of one number
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
    """Store tidy rows as one JSON record with a checksum, atomically; one line a row, so that changes can be
    read.

    Entries may be None, bool, int, float, str, numpy or torch scalars, and lists and dicts of these. nan and
    infinities are stored as null and read back as None. Raises BadType (naming the column) for other entries,
    BadInput when the path cannot be written.
    """
    plain = [{str(name): _storable(value, str(name)) for name, value in row.items()} for row in rows]
    lines = ",\n".join(json.dumps(row) for row in plain)
    head = f'{{"format": {json.dumps(FORMAT)}, "sha256": "{_digest(plain)}", "rows": ['
    write_atomically(path, f"{head}\n{lines}\n]}}\n" if plain else f"{head}]}}\n")


def read_rows(path: str | os.PathLike) -> list[dict]:
    """The rows of a record written by :func:`write_rows`.

    Raises CorruptFile when the file is truncated, altered or of another kind, BadInput when it cannot be read
    at all.
    """
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
    if content.get("sha256") != _digest(rows):
        raise CorruptFile(f"{path} is a damaged record: its rows do not match its checksum.")
    return rows


def _record_files(folders: tuple[str | os.PathLike, ...]) -> Iterator[Path]:
    if not folders:
        places = [place for place in (cache_root() / "records", results_root()) if place.is_dir()]
    else:
        places = [Path(folder) for folder in folders]
    for place in places:
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
    committed results. An experiment (by its
    hash) that lies in several files counts once, the first file wins. ``equal_to`` keeps the rows whose
    column has that value, or one of several given as a list; ``load(model="lenet300", seed=[0, 1])``. Nothing
    found: an empty table with the standard columns.

    Raises CorruptFile naming a record that cannot be trusted, BadInput for a folder that does not exist,
    UnknownName for a column that no row has.
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


# --- where a number was made


@functools.cache
def _revision() -> str:
    """The short git hash of the checkout, "+dirty" when the code (not the results) differs from it."""

    def git(*arguments: str) -> str:
        run = subprocess.run(
            ["git", "-C", str(REPOSITORY), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return run.stdout.strip()

    # Without a .git of its own an installed copy would report the project that it is installed into.
    if not (_is_checkout() and (REPOSITORY / ".git").exists()):
        return "unknown"
    try:
        changed = git("status", "--porcelain", "--", "pruning_core", "notebooks")
        return git("rev-parse", "--short", "HEAD") + ("+dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


@functools.cache
def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def environment(device: Any = "cpu") -> dict[str, str | int]:
    """What a reader must know about the machine behind a number, as columns of a row.

    Versions of Python, torch, torchvision, numpy and this package; ``revision`` of the checkout; ``device``:
    the processor's or the GPU's model name; ``threads`` that torch uses on the CPU.
    """
    import torch

    device = torch.device(device)
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "torchvision", "numpy")},
        "package": _version("pruning-core"),
        "revision": _revision(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
    }
