"""The files of a watched run's log: where they can be, and how they are read again. Others may have been at them: what is no
table of a log counts as none, and its training is watched anew."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pruning_core.errors import BadInput
from pruning_core.records.places import check_folder, file_bytes

EPOCHS, CURVES, MEASURED, HOW = "epochs.csv", "elasticities.json", "measured.csv", "watch.json"
EVENTS = "events.out.tfevents*"
"""TensorBoard's own files."""

LARGEST = 10**8
"""Bytes of the largest file of a log that is read: a table of a million epochs."""


def check_log(place: Path) -> None:
    """Raise BadInput where the files of a log cannot be written to the folder ``place``, which need not be there yet."""
    try:
        check_folder("watch", place)
        check_folder("watch", place, [EPOCHS, CURVES, MEASURED, HOW, *(path.name for path in place.glob(EVENTS))])
    except BadInput as error:
        raise BadInput(f"cannot write the log: {error}") from error


def folder_name(beginning: str, key: str) -> str:
    """``beginning-key`` as the name of a folder, whatever the beginning is made of and however long it is.

    >>> folder_name("lenet300-digits-s0-a/b: 1", "0f")
    'lenet300-digits-s0-a_b__1-0f'
    """
    # Of 255 bytes that a file system takes.
    letters = re.sub(r"[^\w.+-]", "_", beginning).encode()[:200].decode(errors="ignore")
    return f"{letters}-{key}"


def read_epochs(place: Path) -> list[dict[str, Any]]:
    """The rows of a training's table, numbers as numbers; none where there is no table that can be read."""
    try:
        text = file_bytes(place / EPOCHS, LARGEST).decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text)))
    except (OSError, ValueError, csv.Error):
        return []
    if any(None in row or None in row.values() for row in rows):  # other cells than columns
        return []
    found = [{name: _number(cell) for name, cell in row.items() if cell != ""} for row in rows]
    return found if all(isinstance(row.get("epoch"), int) for row in found) else []


def _number(cell: str) -> Any:
    try:
        return int(cell) if cell.lstrip("-").isdigit() else float(cell)
    except ValueError:
        return cell


def read_curves(place: Path, last: int) -> list[dict[str, Any]]:
    """The elasticities of a training up to the epoch ``last``."""
    known = read_json(place / CURVES)
    curves = [curve for curve in known if isinstance(curve, dict)] if isinstance(known, list) else []
    return [curve for curve in curves if isinstance(curve.get("epoch"), int) and curve["epoch"] <= last]


def read_json(path: Path) -> Any:
    """What a file of JSON holds; None where there is none that can be read."""
    try:
        return json.loads(file_bytes(path, LARGEST).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV, with a column for each name that one of them has."""
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
