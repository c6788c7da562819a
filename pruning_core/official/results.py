"""What a run leaves in a folder: all rows, the curves as CSV and ``.npz``, figures as PNG and PDF, a report in Markdown."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from pruning_core.errors import BadInput
from pruning_core.experiments.asked import spread
from pruning_core.experiments.intervals import mean_interval
from pruning_core.plots.axes import AXIS_NAMES
from pruning_core.plots.curves import accuracy_against_sparsity
from pruning_core.plots.style import BookFigure
from pruning_core.records.files import write_atomically
from pruning_core.records.markdown import escaped, table
from pruning_core.records.places import RESULTS, check_folder

CURVES = (
    "label", "method", "seed", "epoch", "asked", "of", "sparsity", "channels_removed", "macs_removed", "parameters", "macs",
    "training_macs", "accuracy", "accuracy5", "loss", "validation_accuracy", "train_accuracy", "train_loss", "fitted_accuracy",
    "fitted_loss", "file", "points",
)  # fmt: skip
"""Columns of the curves, as far as the rows have them."""

FIGURES = tuple((y, x) for y in ("accuracy", "accuracy5", "loss") for x in ("sparsity", "macs_removed"))
"""What is drawn against what, for each label of the rows."""

SHOWN = 40  # rows of a table in the report; the rest stands in curves.csv


def write_results(rows: pd.DataFrame, out: Path, title: str, about: Sequence[str] = ()) -> Path:
    """Write everything about ``rows`` (tidy rows of a run) into the folder ``out``; returns the path of the report.

    rows.csv, curves.csv, curves.npz (a vector a column of CURVES, numbers or texts; the column file is called setting there),
    figures/*.png and *.pdf (accuracy, top-5 accuracy and loss against weights and multiply-accumulates removed, one a label),
    report.md. ``about``: paragraphs that the report begins with. Each file appears whole or not at all. Raises BadInput
    without rows, or where a file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_results(pd.DataFrame(), Path(folder), "Nothing was run")
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: Nothing was run has no rows to write.
    """
    if rows.empty:
        raise BadInput(f"{title} has no rows to write.")
    check_folder("out", out, RESULTS)
    curves = rows[[column for column in CURVES if column in rows]].rename(columns={"file": "setting"})
    write_atomically(out / "rows.csv", rows.to_csv(index=False))
    write_atomically(out / "curves.csv", curves.to_csv(index=False))
    write_atomically(out / "curves.npz", lambda path: _save(path, curves))
    figures = _figures(rows, out / "figures", title)
    write_atomically(out / "report.md", _report(rows, title, about, figures))
    return out / "report.md"


def _save(path: Path, curves: pd.DataFrame) -> None:
    columns = {
        name: column.to_numpy(float) if pd.api.types.is_numeric_dtype(column) else column.fillna("").to_numpy(str)
        for name, column in curves.items()
    }
    np.savez_compressed(path, allow_pickle=False, **columns)


def _figures(rows: pd.DataFrame, folder: Path, title: str) -> list[tuple[str, str]]:
    """Name (without ending) and alt text of each figure written."""
    written = []
    dense = rows[rows["asked"].fillna(1.0) == 0] if "asked" in rows else rows.iloc[:0]
    pruned = rows.drop(dense.index)
    taken: dict[str, str] = {}
    for label, part in pruned.groupby("label", sort=False):
        for y, x in FIGURES:
            if y not in part or x not in part or part[y].notna().sum() == 0:
                continue
            level = dense[y].mean() if len(dense) and dense[y].notna().any() else None
            heading = f"{title}: {label}".replace("$", r"\$")  # matplotlib would read TeX between two of them
            figure = accuracy_against_sparsity(part, x=x, y=y, reference=level, title=heading)
            name = f"{y}-{x}-{_file_name(str(label), taken)}"
            for kind in ("png", "pdf"):
                write_atomically(folder / f"{name}.{kind}", partial(_saved, figure, kind))
            written.append((name, figure.alt))
    return written


def _file_name(label: str, taken: dict[str, str]) -> str:
    """A label as part of a file's name: without what is a folder or a control character, short, each label its own."""
    if label not in taken:
        plain = re.sub(r"[^\w.]+", "-", label).strip("-.")[:80] or "label"
        free = (name for n in itertools.count(1) if (name := plain if n == 1 else f"{plain}-{n}") not in taken.values())
        taken[label] = next(free)
    return taken[label]


def _saved(figure: BookFigure, kind: str, path: Path) -> None:
    when: dict[str, Any] = {"CreationDate": None} if kind == "pdf" else {}  # equal rows, equal file
    figure.savefig(path, format=kind, dpi=160, facecolor="white", metadata=when)


def _report(rows: pd.DataFrame, title: str, about: Sequence[str], figures: Sequence[tuple[str, str]]) -> str:
    parts = [f"# {escaped(title)}", *about, "## Means over seeds", _means(rows)]
    if figures:
        parts.append("## Figures")
        parts += [f"![{escaped(alt)}](figures/{quote(name)}.png)" for name, alt in figures]
    made = [escaped(rows[column].iloc[0]) for column in ("revision", "package", "torch", "device") if column in rows]
    parts.append(
        "All rows: [rows.csv](rows.csv); the curves: [curves.csv](curves.csv) and curves.npz; figures also as PDF. "
        f"Made by {', '.join(made)}."
    )
    return "\n\n".join(parts) + "\n"


def _means(rows: pd.DataFrame) -> str:
    """A table in Markdown: a line a label, method and sparsity asked for; long sweeps are thinned out."""
    measured = [c for c in ("sparsity", "macs_removed", "accuracy", "accuracy5", "loss") if c in rows]
    head = ["label", "method", "asked", "seeds", *(AXIS_NAMES.get(c, c) for c in measured)]
    lines = []
    for key, part in rows.groupby(["label", "method", "asked"], sort=False, dropna=False):
        cells = [
            escaped(key[0]),
            escaped(key[1]),
            "" if pd.isna(key[2]) else f"{key[2]:.4g}",
            str(part["seed"].nunique()),
        ]
        lines.append([*cells, *(_interval(part[column]) for column in measured)])
    shown = spread(lines, SHOWN)
    return table(head, shown) + ("" if shown == lines else f"\n\n{SHOWN} of {len(lines)} lines; all are in curves.csv.")


def _interval(values: pd.Series) -> str:
    known = values.dropna().astype(float)
    if known.empty:
        return ""
    mean, low, high, n = mean_interval(known.to_numpy())
    return f"{mean:.4g} [{low:.4g}, {high:.4g}]" if n > 1 else f"{mean:.4g}"
