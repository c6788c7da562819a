"""The Scoreboard: all verdicts of the real ledger agree with an independent computation, and the page says what it must."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml

from pruning_core.book.claims.ledger import load_claims
from pruning_core.book.claims.page import evidence, scoreboard, side_by_side, summary, to_markdown, write_page
from pruning_core.book.claims.verdicts import VERDICTS
from pruning_core.errors import BadInput
from pruning_core.plots import scoreboard as picture
from pruning_core.records.table import COLUMNS

ROOT = Path(__file__).parents[3]
LEDGER = load_claims(ROOT / "book" / "claims.yml")


def raw_rows() -> pd.DataFrame:
    """The stored rows without a line of the package: only the JSON files."""
    files = sorted((ROOT / "data" / "results").glob("*.json"))
    return pd.DataFrame([row for file in files for row in json.loads(file.read_text(encoding="utf-8"))["rows"]])


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return raw_rows()


@pytest.fixture(scope="module")
def board(rows) -> pd.DataFrame:
    return scoreboard(rows, LEDGER)


def picked(table: pd.DataFrame, entry: dict) -> pd.DataFrame:
    found = table[table[entry["column"]].notna()] if entry["column"] in table else table.iloc[:0]
    for column, wanted in entry.items():
        if column != "column":
            values = found[column] if column in found else pd.Series(np.nan, index=found.index)
            same = (values - wanted).abs() < 1e-9 if isinstance(wanted, int | float) else values == wanted
            found = found[values.isna() if wanted is None else same]
    if "width" not in entry:
        no_width = found["model"].isna() | found["model"].astype(str).str.startswith("torchvision/")
        found = found[(found["width"] == 1) | (found["width"].isna() & no_width)]
    return found


def independent(claim: dict, setting: dict, table: pd.DataFrame) -> str:
    """The verdict in one setting, by pandas and scipy alone."""
    levels = ["smoke", "quick", "standard", "paper"]
    least = levels.index(setting.get("profile", claim.get("profile", "paper")))
    table = table[table["profile"].isin(levels[least:])]  # every stored row is of the profile standard
    index = [*setting.get("over", []), "seed"]
    sides = [setting] if "column" in setting else [setting["first"], setting["second"]]
    sides = [{k: v for k, v in s.items() if k not in ("at", "scale", "profile", "over", "rule")} for s in sides]
    parts = [picked(table, side) for side in sides]
    if not all(map(len, parts)):
        return "not run"
    means = [part.groupby(index)[side["column"]].mean() for part, side in zip(parts, sides, strict=True)]
    ratio = setting.get("combine") == "ratio"
    values = means[0] if len(means) == 1 else (means[0] / means[1] if ratio else means[0] - means[1]).dropna()
    than = claim.get("than", 1.0 if ratio else 0.0)
    sign = {"above": 1, "below": -1, None: 0}[claim.get("direction")]

    def ends(x):
        if claim.get("kind") == "count":
            return x.mean(), x.mean()
        half = scipy.stats.t.ppf(0.975, len(x) - 1) * scipy.stats.sem(x) if len(x) > 1 else math.inf
        return x.mean() - half, x.mean() + half

    def side(x):
        low, high = ends(x)
        return 0 if len(x) < 3 else sign * (int(low > than) - int(high < than))

    dirty = any(part["revision"].str.endswith("+dirty").any() for part in parts)
    if "over" in setting:
        sides_of_cells = values.groupby(level=setting["over"]).apply(side)
        better, worse = (sides_of_cells == 1).mean(), (sides_of_cells == -1).mean()
        word = "reproduced" if better > 0.5 else "not reproduced" if worse > 0.5 else "open"
    elif len(values) < 3 and claim.get("kind") != "count":
        word = "open"
    elif claim.get("value") is None:
        word = {1: "reproduced", -1: "not reproduced", 0: "open"}[side(values)]
    else:
        low, high = (end - claim["value"] for end in ends(values))
        tolerance = claim["tolerance"] * (1 + 1e-9) + 1e-12 * abs(claim["value"])
        outside = low > tolerance or high < -tolerance
        word = "reproduced" if -tolerance <= low and high <= tolerance else "not reproduced" if outside else "open"
        word = "same trend" if outside and side(values) == 1 else word
    if claim.get("kind") == "unseen":
        return "no verdict"
    return "open" if dirty and word == "reproduced" else word


def test_every_verdict_follows_from_the_raw_json_by_other_code(rows, board):
    rows = rows.assign(images=rows["limit"].where(rows["limit"] > 1), limit=rows["limit"].where(~(rows["limit"] > 1)))
    rows["naive_gap"] = (rows["naive"] - rows["limit"]).abs()
    claims = yaml.safe_load((ROOT / "book" / "claims.yml").read_text(encoding="utf-8"))["claims"]
    judged = 0
    for claim in claims:
        mine = board[(board["id"] == claim["id"])]
        ours = claim.get("ours", [])
        for setting in ours if isinstance(ours, list) else [ours]:
            (row,) = mine[mine["at"] == setting.get("at", "")].to_dict("records")
            expected = independent(claim, setting, rows)
            if not (claim.get("kind") == "unseen" and expected == "not run"):
                assert row["verdict"] == expected, (claim["id"], setting.get("at"))
            judged += expected != "not run"
    assert judged > 100


def test_changing_one_stored_row_changes_the_claims_that_read_it(rows, board):
    where = {"model": "ffn2_ispasp", "method": "ispasp", "label": "selection", "width": 1.0, "seed": 0}
    (index,) = rows.index[np.logical_and.reduce([rows[column] == value for column, value in where.items()])]
    changed = rows.copy()
    changed.loc[index, "seconds"] *= 2
    after = scoreboard(changed, LEDGER)
    columns = ["id", "at", "ours", "low", "high", "verdict", "sentence"]
    different = (board[columns].fillna(0) != after[columns].fillna(0)).any(axis=1)
    assert set(board.loc[different, "id"]) == {"ispasp-abstract-efficiency"}
    assert set(board.loc[different, "at"]) == {at for at in board["at"] if "512 hidden units" in at}


def test_rows_of_other_pages_with_tags_of_other_types_change_nothing(rows, board):
    texts = {name: "a word" for name in rows.columns if name not in COLUMNS}
    foreign = pd.DataFrame([
        {"experiment": "f0", "profile": "standard", "seed": 0, "model": "lenet300", "data": "digits"} | texts,
        {"experiment": "f1", "profile": "paper", "seed": 0} | {name: [1, 2] for name in texts},
        {"experiment": "f2", "profile": "quick", "seed": 0} | {name: {"a": 1} for name in texts},
    ])  # fmt: skip
    again = scoreboard(pd.concat([rows, foreign], ignore_index=True), LEDGER)
    pd.testing.assert_frame_equal(again, board)


def test_nothing_in_the_ledger_pools(board):
    assert not board["sentence"].str.startswith("refused").any()


def test_the_board_has_every_claim_and_known_words(board):
    assert list(dict.fromkeys(board["id"])) == [c.id for c in LEDGER]
    assert set(board["verdict"]) <= {*VERDICTS, "no verdict"}
    assert set(board.loc[board["kind"] == "unseen", "verdict"]) == {"no verdict"}
    run = board[~board["verdict"].isin(["not run", "no verdict"])]
    assert (run["seeds"] >= 1).all()
    assert run["profile"].ne("").all() and (run["network"] + run["at"]).ne("").all()


def test_what_is_known_to_be_unfavourable_is_on_the_board(board):
    def row(id, at):
        (found,) = board[(board["id"] == id) & board["at"].str.contains(at, regex=False)].to_dict("records")
        return found

    attacks = row("snipit-abstract-attacks", "SNIP-it at 90 %")
    assert attacks["verdict"] == "not reproduced"
    assert attacks["sentence"].startswith("of 44 cells 2 are clearly below 0, 33 clearly not, 9 open")
    for id, at, low, high in (
        ("howsparse-order-imp", "digits, 95 %", -7.3, -1.4),
        ("howsparse-order-imp", "digits, 98 %", -53, -27),
        ("snipit-readme-snapit-accuracy", "quarter", -29.2, -20.1),
        ("rni-abstract-further", "ResNet-20 at half width, 50 %", -9.2, -6.9),
    ):
        found = row(id, at)
        assert (found["verdict"], found["scale"]) == ("not reproduced", "reduced")
        assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.5)


def test_two_sentences_count_the_evidence(board):
    found = evidence(board)
    assert set(found["kind"]) == {"measurement"} and "own" not in set(found["seen"])
    full = found[(found["scale"] == "full") & (found["verdict"] != "not run")]
    text = summary(board)
    assert text.startswith(f"The papers make {found['id'].nunique()} statements")
    assert (
        f"{full['id'].nunique()} are judged at full scale: {(full['verdict'] == 'reproduced').sum()} reproduced" in text
    )


def test_unchecked_claims_carry_no_number_on_the_page(board):
    page = to_markdown(board)
    unseen = [c for c in LEDGER if c.kind == "unseen"]
    assert unseen
    assert page.count("(unseen: not seen)") == len(unseen)
    assert page.count("\n# ") == 1
    assert "| " not in page  # no table that could be wider than a phone


def test_the_page_folds_what_is_no_evidence(board, tmp_path):
    figure = picture.summary(board)
    assert "measurements, full scale" in figure.alt
    write_page(tmp_path / "scoreboard.md", board, ("scoreboard.svg", figure.alt))
    page = (tmp_path / "scoreboard.md").read_text(encoding="utf-8")
    assert page.index("```{figure} scoreboard.svg") < page.index("The papers make") < page.index("## ")
    for title in ("Counts (8)", "Identities (4)", "Not run (", "Seen by nobody of us"):
        assert f"::::{{dropdown}} {title}" in page
    assert page.count("::::{dropdown}") == page.count("\n::::\n")
    assert "1_sparse_recovery.html#paper-and-reproduction-side-by-side" in page
    assert "`python -m pruning_core notebooks 4_snip/3_nodes --profile paper` (about " in page


def test_a_chapter_shows_its_own_claims(rows):
    table = side_by_side("verdenius2020snipit", ["snipit-readme"], rows=pd.DataFrame())
    assert table.data["statement"].nunique() == sum(c.id.startswith("snipit-readme") for c in LEDGER) > 3
    assert set(table.data["verdict"]) == {"not run"}
    (row,) = side_by_side("verdenius2020snipit", ["snipit-readme-snapit-accuracy"], rows=rows).data.to_dict("records")
    assert row["verdict"] == "not reproduced (reduced)"
    assert "reduced scale" in row["where"] and "vgg16_snip, width 0.25" in row["where"] and "3 seeds" in row["where"]
    with pytest.raises(BadInput, match="no such claim"):
        side_by_side("verdenius2020snipit", ["nothing"])
