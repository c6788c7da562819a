"""The Scoreboard: every claim of the ledger with its verdicts, as a table and as a page of the book."""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from pruning_core import records
from pruning_core.book.claims.ledger import Claim, Setting, load_claims
from pruning_core.book.claims.verdicts import LEAST_SEEDS, VERDICTS, Rows, Verdict, quantity_text, verdicts
from pruning_core.book.stored import stored_notebook
from pruning_core.book.tables import read_table
from pruning_core.book.text_tables import text_table
from pruning_core.checks import checked
from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import require_columns
from pruning_core.records.markdown import escaped
from pruning_core.version import REPOSITORY


@checked
def scoreboard(rows: pd.DataFrame, claims: Sequence[Claim]) -> pd.DataFrame:
    """One row for each setting in which a claim is judged; "not run" at full scale where all its settings are reduced.

    Columns: id, paper, title, where, statement, kind, seen, note; papers (the paper's value as text); at, scale, network,
    data, profile, seeds (their number) of the setting; ours, low, high, unclean, verdict, sentence of its rows; page,
    command and cost (text, or empty) of running it again.

    >>> claims = load_claims(REPOSITORY / "book" / "claims.yml")[:1]
    >>> board = scoreboard(records.load().iloc[:0], claims)
    >>> set(board["verdict"])
    {'not run'}
    """
    read, table = Rows(rows), []
    for claim in claims:
        found = list(zip(claim.ours or [None], verdicts(claim, read), strict=True))
        if claim.kind == "measurement" and claim.ours and all(setting.scale == "reduced" for setting in claim.ours):
            found.insert(0, (None, Verdict("not run", "")))
        table += [_row(claim, setting, verdict, read.frame) for setting, verdict in found]
    return pd.DataFrame(table)


def _row(claim: Claim, setting: Setting | None, verdict: Verdict, rows: pd.DataFrame) -> dict[str, Any]:
    names = ("id", "paper", "title", "where", "statement", "kind", "seen", "note", "page")
    profile = verdict.profile or (setting.profile if setting else "paper")
    about = verdict._asdict() | {"seeds": len(verdict.seeds), "verdict": verdict.word, "profile": profile}
    for name, key in (("network", "model"), ("data", "data")):
        about[name] = about[name] or str(claim.setting.get(key, ""))
    said = {name: getattr(claim, name) for name in names} | {"papers": _papers_value(claim)}
    where = {"at": setting.at if setting else "", "scale": setting.scale if setting else "full"}
    command = f"python -m pruning_core notebooks {claim.page} --profile {profile}" if claim.page and claim.ours else ""
    cost = _cost(claim, rows) if verdict.word == "not run" and where["scale"] == "full" else ""
    return said | where | about | {"command": command, "cost": cost}


def _cost(claim: Claim, rows: pd.DataFrame) -> str:
    """What the claim's run would take at full width and on all images, at the pace of our rows of the same network."""
    model, data = claim.setting.get("model"), claim.setting.get("data")
    if (
        not claim.epochs
        or data not in DATASETS
        or not {"model", "data", "width", "images", "epoch", "seconds"} <= set(rows)
    ):
        return ""
    ran = rows[(rows["model"] == model) & (rows["data"] == data) & (rows["epoch"] > 0)]
    share = (ran["images"] / sum(DATASETS[str(data)].sizes)).fillna(1.0)
    hours = (ran["seconds"] / ran["epoch"] / ran["width"] ** 2 / share).median() * claim.epochs * LEAST_SEEDS / 3600
    return f"about {hours:,.0f} hours for {LEAST_SEEDS} seeds of one network" if hours > 0 else ""


def _papers_value(claim: Claim) -> str:
    number = "direction only" if claim.value is None else quantity_text(claim.value, claim.unit)
    return {"unseen": "not seen", "own": "our expectation"}.get(claim.seen, number)


@checked
def side_by_side(paper: str, ids: Sequence[str] = (), rows: pd.DataFrame | None = None) -> Any:
    """The claims of one paper with their verdicts, as a table for its chapter.

    ``ids``: beginnings of the claims' ids (none: all). ``rows``: default every record that can be found. Returns a styled
    table: statement, the paper's value, how we know it, where it was judged, verdict, our rows. Raises BadInput when no
    claim is left.

    >>> side_by_side("nobody2000nothing")
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: the ledger has no such claim of 'nobody2000nothing'.
    """
    every = load_claims(REPOSITORY / "book" / "claims.yml")
    claims = [c for c in every if c.paper == paper and (not ids or c.id.startswith(tuple(ids)))]
    if not claims:
        raise BadInput(f"the ledger has no such claim of {paper!r}.")
    board = scoreboard(records.load() if rows is None else rows, claims)
    silent = (board["verdict"] == "not run") & board["id"].isin(board.loc[board["verdict"] != "not run", "id"])
    board = board[~silent].assign(judged=lambda b: [_place(row) for row in b.itertuples()])
    board["verdict"] += [" (reduced)" if row.scale == "reduced" and row.seeds else "" for row in board.itertuples()]
    names = {"papers": "paper", "seen": "how we know", "judged": "where", "sentence": "our rows"}
    table = board[["statement", "papers", "seen", "judged", "verdict", "sentence"]].rename(columns=names)
    return text_table(table, index=False)


def _place(row: Any) -> str:
    """Scale, network, data, profile and seeds of a verdict, as far as there are any."""
    rows = f"profile {row.profile}, {row.seeds} seed{'s'[: row.seeds != 1]}" if row.seeds else ""
    return "; ".join(dict.fromkeys(filter(None, (f"{row.scale} scale", row.at, row.network, row.data, rows))))


@checked
def evidence(board: pd.DataFrame) -> pd.DataFrame:
    """The rows of a board that are evidence about the papers: measurements that can fail, none expected by us only.

    >>> claims = load_claims(REPOSITORY / "book" / "claims.yml")[:1]
    >>> board = scoreboard(records.load().iloc[:0], claims)
    >>> set(evidence(board)["kind"]) <= {"measurement"}
    True
    """
    require_columns(board, ("kind", "seen"))
    return board[(board["kind"] == "measurement") & (board["seen"] != "own")]


@checked
def summary(board: pd.DataFrame) -> str:
    """Two sentences on what the falsifiable claims of a board came to, at full and at reduced scale.

    >>> claims = load_claims(REPOSITORY / "book" / "claims.yml")[:1]
    >>> print(summary(scoreboard(records.load().iloc[:0], claims))[:40])
    The papers make 1 statements that we can
    """
    found = evidence(board)
    run = found[found["verdict"] != "not run"]
    judged = run[run["scale"] == "full"]
    only = run[~run["id"].isin(judged["id"])]
    unclean = int((run["unclean"] > 0).sum())
    return (
        f"The papers make {found['id'].nunique()} statements that we can read and that a measurement could refute; "
        f"{judged['id'].nunique()} are judged at full scale: {_counts(judged)}. "
        f"{only['id'].nunique()} more are judged at reduced scale only, in {len(only)} settings: {_counts(only)}; "
        f"{unclean} of all these verdicts rest on rows that have to be made again, as their code was not committed."
    )


def _counts(board: pd.DataFrame) -> str:
    counts = board["verdict"].value_counts()
    return ", ".join(f"{counts.get(word, 0)} {word}" for word in VERDICTS if word != "not run")


@checked
def to_markdown(board: pd.DataFrame, picture: tuple[str, str] | None = None) -> str:
    """A board of :func:`scoreboard` as a MyST page. ``picture``: a file beside the page, and its alt text.

    >>> claims = load_claims(REPOSITORY / "book" / "claims.yml")[:1]
    >>> to_markdown(scoreboard(records.load().iloc[:0], claims)).splitlines()[0]
    '<!-- generated by pruning_core.book.claims.write_page; changes made here are lost -->'
    """
    texts = read_table(Path(__file__).with_name("page.yml"), "texts of the Scoreboard")
    image = texts["figure"].format(*picture) if picture else ""
    marks = "\n".join(f"- *{mark}*: {meaning}" for mark, meaning in texts["marks"].items())
    out = [texts["head"], image, summary(board), "", *_folded("How a verdict is reached", ["\n" + texts["rules"]])]
    out += _folded("How we know what a paper says", ["\n" + marks])
    for paper, part in board.groupby("paper", sort=False):
        out += ["", f"## {escaped(part['title'].iloc[0] or paper)}", "", f"Source: {{cite:t}}`{paper}`.", ""]
        judged = part["id"].isin(part.loc[part["verdict"] != "not run", "id"])
        own, falsifiable = part["seen"] == "own", part["kind"] == "measurement"
        out += _claims(part[judged & falsifiable & ~own]) or ["No falsifiable claim has been judged yet."]
        for kind, name in (("count", "Counts"), ("identity", "Identities")):
            out += _folded(name, _claims(part[judged & (part["kind"] == kind)]))
        out += _folded("Expected by us, not stated by the paper", _claims(part[judged & own]))
        out += _folded("Not run", _claims(part[~judged & (part["kind"] != "unseen")]))
        out += _folded("Seen by nobody of us: no verdict", _claims(part[part["kind"] == "unseen"]))
    return "\n".join(out) + "\n"


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    """A dropdown, with the number of claims in its title; nothing for no lines."""
    n = sum(line.startswith("- ") for line in lines)
    return ["", f"::::{{dropdown}} {title}{f' ({n})' if n else ''}", *lines, "::::"] if lines else []


def _claims(board: pd.DataFrame) -> list[str]:
    """A list item a claim, in it one a setting, and how to run it again. Lists, since tables would be wider than a phone."""
    out = []
    for _, part in board.groupby("id", sort=False):
        rows = list(part.itertuples())
        claim = rows[0]
        note = (
            f" {_sentence(claim.note)}." if claim.note and not claim.sentence.startswith(claim.note.rstrip(".")) else ""
        )
        out.append(
            f"- {escaped(claim.statement)} *{escaped(claim.where)}* ({claim.seen}: {escaped(claim.papers)}){note}"
        )
        out += [f"  - **{row.verdict}**, {escaped(_place(row))}. {_sentence(row.sentence)}".rstrip() for row in rows]
        if claim.command:
            again = dict.fromkeys(f"`{row.command}`" + (f" ({row.cost})" if row.cost else "") for row in rows)
            out.append(f"  - {_link(claim.page)}: {', '.join(again)}")
    return out


def _sentence(text: str) -> str:
    return escaped(text[:1].upper() + text[1:])


@cache
def _link(page: str) -> str:
    """A link to the section of a notebook's page that shows the claims."""
    notebook = REPOSITORY / "notebooks" / f"{page}.ipynb"
    heading = ""
    for cell in stored_notebook(notebook).cells if notebook.exists() else ():
        source = cell["source"]
        if cell["cell_type"] == "code" and "side_by_side(" in source:
            break
        for title in re.findall(r"(?m)^#+ +(.+)$", source) if cell["cell_type"] == "markdown" else ():
            heading = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return f'<a href="notebooks/{page}.html#{heading}">{page}</a>'


@checked
def write_page(path: str | Path, board: pd.DataFrame, picture: tuple[str, str] | None = None) -> None:
    """Write a board of :func:`scoreboard` as a page of the book. ``picture``: a file beside the page, and its alt text.

    >>> claims = load_claims(REPOSITORY / "book" / "claims.yml")[:1]
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page(f"{folder}/page.md", scoreboard(records.load().iloc[:0], claims))
    ...     print(len(Path(f"{folder}/page.md").read_text(encoding="utf-8")) > 1000)
    True
    """
    records.write_atomically(path, to_markdown(board, picture))
