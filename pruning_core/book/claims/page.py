"""The Scoreboard: every claim of the ledger with its verdict, as a table and as a page of the book."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pruning_core import records
from pruning_core.book.claims.ledger import MARKS, Claim, load_claims
from pruning_core.book.claims.verdicts import KINDS, RULES, quantity_text, verdict
from pruning_core.errors import BadInput
from pruning_core.version import REPOSITORY


def scoreboard(rows: pd.DataFrame, claims: Sequence[Claim]) -> pd.DataFrame:
    """One row a claim, with its verdict.

    Columns: id, paper, where, statement, seen, checked; papers (the paper's value as text), ours, low, high, seeds,
    verdict, sentence.
    """
    table = []
    for claim in claims:
        kind, ours, (low, high), seeds, sentence = verdict(claim, rows)
        said = {name: getattr(claim, name) for name in ("id", "paper", "where", "statement", "seen", "checked")}
        found = {"ours": ours, "low": low, "high": high, "seeds": seeds, "verdict": kind, "sentence": sentence}
        table.append(said | {"papers": _papers_value(claim)} | found)
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
    return table.style.hide(axis="index").set_properties(None, **{"text-align": "left", "white-space": "normal"})


def _papers_value(claim: Claim) -> str:
    if not claim.checked:
        return "not seen"
    if claim.value is not None:
        return quantity_text(claim.value, claim.unit)
    return "direction only"


def to_markdown(claims: Sequence[Claim], rows: pd.DataFrame, titles: Mapping[str, str] | None = None) -> str:
    """The Scoreboard as a MyST page: the rules, a summary, one table a paper.

    titles: heading of each paper by citation key (default: the key).
    """
    return _page(claims, scoreboard(rows, claims), titles or {})


def _page(claims: Sequence[Claim], board: pd.DataFrame, titles: Mapping[str, str]) -> str:
    papers = dict.fromkeys(claim.paper for claim in claims)
    out = [_HEAD, "| mark | how we know what the paper says |", "|---|---|"]
    out += [f"| {mark} | {meaning} |" for mark, meaning in MARKS.items()]
    out += ["", "## Summary", "", "| paper | " + " | ".join(KINDS) + " |", "|---|" + "---:|" * len(KINDS)]
    for paper in papers:
        counts = board[board["paper"] == paper]["verdict"].value_counts()
        cells = [f"{titles.get(paper, '')} {{cite:p}}`{paper}`", *(str(counts.get(kind, 0)) for kind in KINDS)]
        out.append("| " + " | ".join(cells) + " |")
    for paper in papers:
        out += ["", f"## {titles.get(paper, paper)}", "", f"Source: {{cite:t}}`{paper}`.", ""]
        out += ["| claim | paper, or its code | mark | verdict | our rows |", "|---|---:|---|---|---|"]
        for claim, row in zip(claims, board.itertuples(), strict=True):
            if claim.paper == paper:
                note = f" ({claim.note})" if claim.note and claim.ours else ""
                cells = [f"{claim.statement} *{claim.where}*{note}", row.papers, claim.seen, row.verdict, row.sentence]
                out.append("| " + " | ".join(map(_cell, cells)) + " |")
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
    board = scoreboard(records.load() if rows is None else rows, claims)
    records.write_atomically(path, _page(claims, board, TITLES))
    return board


TITLES = {
    "wolfe2022ispasp": "i-SpaSP",
    "baykal2019sipp": "SiPP",
    "liebenwein2020pfp": "PFP",
    "suteu2022rni": "RNI",
    "verdenius2020snipit": "SNIP-it, SNAP-it, CNIP-it",
    "zhang2024howsparse": "How sparse can we prune",
}

_HEAD = f"""<!-- generated by pruning_core.book.claims.write_scoreboard; changes made here are lost -->
# Scoreboard

Each line is one statement of a paper beside what our own rows say about it.
The verdicts are computed when the book is built. Nobody types them, and a page with many "not run" lines is
an honest page: it lists what has still to be measured.

## How a verdict is reached

{RULES}
A claim marked *unseen* is believed to stand in the paper, but none of us could look it up in a source.
Its line has a statement and no number of the paper.
"""
