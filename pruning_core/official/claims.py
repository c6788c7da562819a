"""The paper's numbers beside those of a run: the statements of the ledger that the run's rows speak about."""

from __future__ import annotations

import math

import pandas as pd

from pruning_core.book.claims.ledger import Claim, Comparison, Selection, Setting, load_claims
from pruning_core.records.markdown import escaped, table
from pruning_core.version import REPOSITORY

HERE = ("model", "data", "width", "images", "norm", "epoch")
"""Columns that a shortened run may change; what it measures is still set beside the paper's number, and called shortened."""


def beside_the_paper(rows: pd.DataFrame, paper: str, model: str, data: str) -> str:
    """A table in Markdown of the ledger's statements about this paper, network and data set: the paper's number, and ours.

    ``model`` and ``data`` are those of the official setting, also where the rows are of others. A number of ours is the mean
    over seeds of the rows that the statement selects. One sentence where the ledger states nothing.
    """
    claims = load_claims(REPOSITORY / "book" / "claims.yml")
    lines = []
    for claim in (claim for claim in claims if claim.paper == paper):
        for setting in claim.ours:
            if setting.scale == "full" and _about(setting) == (model, data):
                lines.append([escaped(claim.statement), _papers(claim), _ours(rows, setting), escaped(claim.seen)])
    if not lines:
        return "The ledger of the book (claims.yml) holds no number of the paper for this setting."
    return table(["statement", "paper", "this run", "how the paper's number is known"], lines)


def _papers(claim: Claim) -> str:
    return "no number" if claim.value is None else f"{claim.value:g} {claim.unit}".strip()


def _about(setting: Setting) -> tuple[str | None, str | None]:
    selection = setting.ours.first if isinstance(setting.ours, Comparison) else setting.ours
    return selection.where.get("model"), selection.where.get("data")


def _ours(rows: pd.DataFrame, setting: Setting) -> str:
    if isinstance(setting.ours, Selection):
        found = _mean(rows, setting.ours)
    else:
        first, second = (_mean(rows, side) for side in (setting.ours.first, setting.ours.second))
        found = first / second if setting.ours.combine == "ratio" and second else first - second
    return "not in these rows" if math.isnan(found) else f"{found:.4g}"


def _mean(rows: pd.DataFrame, selection: Selection) -> float:
    chosen = pd.Series(True, index=rows.index)
    for column, value in selection.where.items():
        if column in HERE:
            continue
        if column not in rows:
            return math.nan
        same = (rows[column] - value).abs() < 1e-9 if isinstance(value, float) else rows[column] == value
        chosen &= same if value is not None else rows[column].isna()
    return float(rows.loc[chosen, selection.column].mean()) if selection.column in rows else math.nan
