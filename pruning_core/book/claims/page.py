"""The Scoreboard: every claim of the ledger with its verdict, as a table and as a page of the book."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pruning_core import records
from pruning_core.book.claims.ledger import MARKS, Claim, load_claims
from pruning_core.book.claims.verdicts import KINDS, quantity_text, verdict
from pruning_core.errors import BadInput
from pruning_core.version import REPOSITORY


def scoreboard(rows: pd.DataFrame, claims: Sequence[Claim]) -> pd.DataFrame:
    """Return one row a claim, with its verdict.

    Columns: id, paper, where, statement, papers (the paper's value as text), ours, low, high, seeds, verdict,
    sentence, seen, checked.
    """
    table = []
    for claim in claims:
        v = verdict(claim, rows)
        table.append(
            {
                "id": claim.id,
                "paper": claim.paper,
                "where": claim.where,
                "statement": claim.statement,
                "papers": _papers_value(claim),
                "ours": v.ours,
                "low": v.interval[0],
                "high": v.interval[1],
                "seeds": v.n_seeds,
                "verdict": v.kind,
                "sentence": v.sentence,
                "seen": claim.seen,
                "checked": claim.checked,
            }
        )
    return pd.DataFrame(table)


def side_by_side(paper: str, ids: Sequence[str] = (), rows: pd.DataFrame | None = None) -> Any:
    """The claims of one paper with their verdicts, as a table for its chapter.

    ``ids``: beginnings of the claims' ids (none: all). ``rows``: default every record that can be found. Returns a styled
    table: statement, the paper's value, how we know it, verdict, our rows. Raises BadInput when no claim is left.
    """
    every = load_claims(REPOSITORY / "book" / "claims.yml")
    claims = [c for c in every if c.paper == paper and (not ids or c.id.startswith(tuple(ids)))]
    if not claims:
        raise BadInput(f"the ledger has no such claim of {paper!r}.")
    board = scoreboard(records.load() if rows is None else rows, claims)
    names = {"papers": "paper", "seen": "how we know", "sentence": "our rows"}
    table = board[["statement", "papers", "seen", "verdict", "sentence"]].rename(columns=names)
    left = {"text-align": "left", "white-space": "normal"}
    return table.style.hide(axis="index").set_properties(**left)  # type: ignore[arg-type]


def _papers_value(claim: Claim) -> str:
    if not claim.checked:
        return "not seen"
    if claim.value is not None:
        return quantity_text(claim.value, claim.unit)
    return "direction only"


def to_markdown(claims: Sequence[Claim], rows: pd.DataFrame, titles: Mapping[str, str] | None = None) -> str:
    """Return the Scoreboard as a MyST page: the rules, a summary, one table a paper.

    titles: heading of each paper by citation key (default: the key).
    """
    board = scoreboard(rows, claims)
    out = [_HEAD, "| mark | how we know what the paper says |", "|---|---|"]
    out += [f"| {mark} | {meaning} |" for mark, meaning in MARKS.items()]
    out += ["", "## Summary", "", "| paper | " + " | ".join(KINDS) + " |", "|---|" + "---:|" * len(KINDS)]
    for paper in dict.fromkeys(c.paper for c in claims):
        counts = board[board["paper"] == paper]["verdict"].value_counts()
        cells = [f"{(titles or {}).get(paper, '')} {{cite:p}}`{paper}`", *(str(counts.get(k, 0)) for k in KINDS)]
        out.append("| " + " | ".join(cells) + " |")
    for paper in dict.fromkeys(c.paper for c in claims):
        out += [
            "",
            f"## {(titles or {}).get(paper, paper)}",
            "",
            f"Source: {{cite:t}}`{paper}`.",
            "",
            "| claim | paper, or its code | mark | verdict | our rows |",
            "|---|---:|---|---|---|",
        ]
        for claim, row in zip(claims, board.itertuples(), strict=True):
            if claim.paper != paper:
                continue
            claimed = _cell(
                f"{claim.statement} *{claim.where}*" + (f" ({claim.note})" if claim.note and claim.ours else "")
            )
            out.append(f"| {claimed} | {_cell(row.papers)} | {claim.seen} | {row.verdict} | {_cell(row.sentence)} |")
    return "\n".join(out) + "\n"


def _cell(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def write_scoreboard(
    path: str | Path, ledger: str | Path | None = None, rows: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Write the page ``book/scoreboard.md`` and return its table.

    ledger: default ``claims.yml`` beside ``path``. rows: default every record that can be found.
    """
    path = Path(path)
    claims = load_claims(ledger if ledger is not None else path.parent / "claims.yml")
    rows = records.load() if rows is None else rows
    records.write_atomically(path, to_markdown(claims, rows, TITLES))
    return scoreboard(rows, claims)


TITLES = {
    "wolfe2022ispasp": "i-SpaSP",
    "baykal2019sipp": "SiPP",
    "liebenwein2020pfp": "PFP",
    "suteu2022rni": "RNI",
    "verdenius2020snipit": "SNIP-it, SNAP-it, CNIP-it",
    "zhang2024howsparse": "How sparse can we prune",
}

_HEAD = """<!-- generated by pruning_core.book.claims.write_scoreboard; changes made here are lost -->
# Scoreboard

Each line is one statement of a paper beside what our own rows say about it.
The verdicts are computed when the book is built. Nobody types them, and a page with many "not run" lines is
an honest page: it lists what has still to be measured.

## How a verdict is reached

- **reproduced**. Where the paper gives a number: our mean over seeds is within the tolerance, with at least
  three seeds. For a cost that no seed can change, such as a count of parameters, one row is enough.
  Where the paper gives a direction: the 95 % interval of our quantity lies on the claimed side, with at least
  three seeds.
- **same trend**. Our mean is on the claimed side, but the interval reaches across, the number is outside the
  tolerance, or there are fewer than three seeds.
- **not reproduced**. We have rows, and they say something else.
- **not run**. No row answers the claim.

Intervals are t-intervals of the mean over seeds. Comparisons are paired: the same seed with both methods.
Rows count from the profile that the claim names upwards, never from a smaller one (see {doc}`records`).
The tolerances are ours; the papers seldom give one.

A claim marked *unseen* is believed to stand in the paper, but none of us could look it up in a source.
Its line has a statement and no number of the paper.
"""
