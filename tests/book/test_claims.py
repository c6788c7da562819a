"""The ledger is well-formed and prints nothing unverified; every kind of verdict follows from rows alone."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from pruning_core import records
from pruning_core.book.claims.ledger import Claim, Comparison, Selection, load_claims
from pruning_core.book.claims.page import scoreboard, side_by_side, to_markdown, write_scoreboard
from pruning_core.book.claims.verdicts import KINDS, verdict
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import mean_interval, paired_difference

BOOK = Path(__file__).parents[2] / "book"
LEDGER = load_claims(BOOK / "claims.yml")


def rows(method="rni", accuracies=(90.0, 91.0, 92.0), profile="paper", **more):
    base = {"model": "vgg16", "data": "cifar10", "width": 1.0, "method": method, "of": "channels", "asked": 0.9}
    return pd.DataFrame(
        [
            base | {"label": "final", "profile": profile, "seed": s, "accuracy": a} | more
            for s, a in enumerate(accuracies)
        ]
    )


def select(method="rni", **more):
    return Selection(
        {"model": "vgg16", "data": "cifar10", "method": method, "of": "channels", "asked": 0.9, "label": "final"}
        | more,
        "accuracy",
    )


def claim(**more):
    given = {
        "id": "x",
        "paper": "suteu2022rni",
        "where": "table",
        "statement": "s",
        "seen": "code",
        "source": "output",
        "value": 91.2,
        "unit": "%",
        "ours": select(),
        "tolerance": 0.5,
    }
    return Claim(**given | more)


def above(**more):
    return claim(
        value=None, tolerance=None, unit="points", direction="above", ours=Comparison(select(), select("ucs")), **more
    )


def test_interval_is_the_t_interval():
    found = mean_interval([1.0, 2.0, 3.0, math.nan])
    assert found.n == 3
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(4.302652730 / math.sqrt(3))
    assert math.isnan(mean_interval([5.0]).low)
    assert mean_interval([]).n == 0


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "kind"),
    [
        ((90.0, 91.0, 92.0), 0.5, "reproduced"),
        ((90.0, 91.0, 92.0), 0.2, "reproduced"),  # the mean is exactly one tolerance away
        ((91.0, 91.2), 0.5, "same trend"),  # close, but two seeds
        ((90.0, 91.0, 92.0), 0.1, "not reproduced"),
        ((80.0,), 0.5, "not reproduced"),
    ],
)
def test_verdict_on_a_number(accuracies, tolerance, kind):
    v = verdict(claim(tolerance=tolerance), rows(accuracies=accuracies))
    assert v.kind == kind
    assert v.n_seeds == len(accuracies)
    assert v.ours == pytest.approx(sum(accuracies) / len(accuracies))


def test_number_on_the_claimed_side_is_the_same_trend():
    slope = claim(value=-3.0, unit="", tolerance=0.2, direction="below")
    assert verdict(slope, rows(accuracies=(-2.0, -2.1, -1.9))).kind == "same trend"
    assert verdict(slope, rows(accuracies=(2.0, 2.1, 1.9))).kind == "not reproduced"


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ((92.0, 93.0, 94.0), (90.0, 90.9, 92.1), "reproduced"),
        ((92.0, 93.0, 94.0), (90.0, 95.0, 88.0), "same trend"),  # the interval reaches across 0
        ((92.0, 93.0), (90.0, 91.0), "same trend"),  # two seeds
        ((90.0, 91.0, 92.0), (92.0, 93.0, 95.0), "not reproduced"),
        ((90.0, 91.0, 92.0), (90.0, 91.0, 92.0), "not reproduced"),  # equal is not above
    ],
)
def test_verdict_on_a_comparison_is_paired_by_seed(first, second, kind):
    both = pd.concat([rows(accuracies=first), rows("ucs", second)])
    assert verdict(above(), both).kind == kind
    shuffled = both.sample(frac=1, random_state=0)
    assert verdict(above(), shuffled) == verdict(above(), both)


def test_only_seeds_that_both_have_are_compared():
    both = pd.concat([rows(accuracies=(92, 93, 94, 0)), rows("ucs", (90, 91, 92))])
    v = verdict(above(), both)
    assert (v.n_seeds, v.ours) == (3, 2.0)


def test_ratio_is_compared_with_one():
    ratio = claim(value=8.0, unit="times", tolerance=0.5, ours=Comparison(select("dense"), select(), "ratio"), than=1.0)
    both = pd.concat([rows("dense", (80.0, 80.0, 80.0)), rows(accuracies=(10.0, 10.0, 10.0))])
    assert verdict(ratio, both).kind == "reproduced"


def test_one_row_is_enough_for_a_deterministic_cost():
    cost = claim(value=3_684_842, unit="parameters", tolerance=0, deterministic=True, profile="quick")
    assert verdict(cost, rows(accuracies=(3_684_842,), profile="quick")).kind == "reproduced"
    assert verdict(cost, rows(accuracies=(3_684_843,), profile="quick")).kind == "not reproduced"


def test_not_run():
    assert verdict(claim(), pd.DataFrame()).kind == "not run"
    assert verdict(claim(), pd.DataFrame(columns=list(records.COLUMNS))).kind == "not run"
    assert verdict(claim(), rows("ucs")).kind == "not run"
    v = verdict(claim(ours=None, note="quoted only"), rows())
    assert (v.kind, v.sentence) == ("not run", "quoted only.")


def test_smaller_profiles_never_answer_and_the_largest_does():
    assert verdict(claim(), rows(profile="quick")).kind == "not run"
    mixed = pd.concat([rows(profile="quick", accuracies=(1, 2, 3)), rows(profile="standard")])
    assert verdict(claim(profile="quick"), mixed).ours == 91


def test_narrow_networks_do_not_answer_unless_named():
    assert verdict(claim(), rows(width=0.25)).kind == "not run"
    assert verdict(claim(), rows(width=math.nan)).kind == "reproduced"  # no network, so no width
    assert verdict(claim(ours=select(width=0.25)), rows(width=0.25)).kind == "reproduced"


def test_rows_that_differ_in_more_than_the_seed_are_refused():
    loose = claim(ours=Selection({"method": "rni"}, "accuracy"))
    v = verdict(loose, pd.concat([rows(), rows(asked=0.5)]))
    assert v.kind == "not run"
    assert "asked (0.5, 0.9)" in v.sentence


# -- the ledger --------------------------------------------------------------------------------------------------------


GOOD = {
    "id": "a",
    "paper": "p",
    "where": "w",
    "statement": "RNI is above UCS.",
    "seen": "code",
    "source": "output",
    "value": 1.0,
    "tolerance": 0.1,
    "ours": {"method": "rni", "column": "accuracy"},
}


def write(tmp_path, *entries, tags=None):
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump({"tags": tags or {}, "claims": list(entries)}), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"statment": "x"}, "unknown key of the claim 'a': 'statment': did you mean 'statement'"),
        ({"source": ""}, "lacks 'source'"),
        ({"seen": "mem"}, "unknown mark of the claim 'a'"),
        ({"seen": "unseen"}, "checked: true but is marked 'unseen'"),
        ({"checked": False}, "checked: false but is marked 'code'"),
        ({"checked": False, "seen": "unseen"}, "prints a number that nobody has checked"),
        (
            {"checked": False, "seen": "unseen", "value": None, "statement": "It loses 0.5 points."},
            "prints a number that nobody has checked",
        ),
        ({"tolerance": None}, "has a number but no tolerance"),
        ({"value": None}, "neither a number nor a direction"),
        ({"direction": "up"}, "must be 'above' or 'below'"),
        ({"profile": "fast"}, "unknown profile"),
        ({"ours": {"metod": "rni", "column": "accuracy"}}, "unknown column in the selection of 'a': 'metod'"),
        ({"ours": {"method": "rni"}}, "must hold 'column' or 'first' and 'second'"),
        ({"ours": None}, "nor, in a note, why there is none"),
    ],
)
def test_bad_entries_are_refused_in_one_sentence(tmp_path, change, message):
    with pytest.raises(BadInput) as refused:
        load_claims(write(tmp_path, GOOD | change))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_ids_are_unique_and_files_must_be_ledgers(tmp_path):
    assert len(load_claims(write(tmp_path, GOOD))) == 1
    with pytest.raises(BadInput, match="the id 'a' is used by 2 claims"):
        load_claims(write(tmp_path, GOOD, GOOD))
    with pytest.raises(BadInput, match="cannot be read"):
        load_claims(tmp_path / "none.yml")
    (tmp_path / "claims.yml").write_text("- a\n- b\n")
    with pytest.raises(BadInput, match="exactly the keys"):
        load_claims(tmp_path / "claims.yml")


def test_names_with_digits_are_no_numbers(tmp_path):
    unchecked = GOOD | {"checked": False, "seen": "unseen", "value": None, "direction": "above"}
    load_claims(write(tmp_path, unchecked | {"statement": "ResNet-56 and WRN-16-8 on CIFAR-10, VGG16, L1."}))


def test_every_citation_is_in_the_bibliography():
    keys = set(re.findall(r"@\w+\{([^,]+),", (BOOK / "references.bib").read_text(encoding="utf-8")))
    assert {c.paper for c in LEDGER} <= keys


def test_the_ledger_holds_what_the_sheets_verified():
    ids = {c.id for c in LEDGER}
    accuracies = [i for i in ids if re.fullmatch(r"rni-(vgg16|resnet56)-cifar100?-\w+-(full|50|90)", i)]
    assert len(accuracies) == 36
    assert {c.paper for c in LEDGER} == {
        "wolfe2022ispasp",
        "baykal2019sipp",
        "liebenwein2020pfp",
        "suteu2022rni",
        "verdenius2020snipit",
        "zhang2024howsparse",
    }
    by_id = {c.id: c for c in LEDGER}
    assert by_id["rni-vgg16-cifar100-slimming-90"].value == 25.81
    assert by_id["ispasp-resnet34-269g-accuracy"].value == 73.5
    assert by_id["pfp-alds-vgg16-pfp-macs"].value == 0.8476


def test_unchecked_claims_carry_no_number_on_the_page():
    page = to_markdown(LEDGER, pd.DataFrame())
    unchecked = [c for c in LEDGER if not c.checked]
    assert unchecked
    for c in unchecked:
        line = next(line for line in page.splitlines() if line.startswith(f"| {c.statement}"))
        assert "| not seen | unseen |" in line
    assert page.count("\n# ") == 1


def test_every_verdict_today_is_computed():
    board = scoreboard(records.load(), LEDGER)
    assert len(board) == len(LEDGER)
    assert set(board["verdict"]) <= set(KINDS)
    run = board[board["verdict"] != "not run"]
    assert run["ours"].notna().all()
    assert (run["seeds"] >= 1).all()


def test_a_chapter_shows_its_own_claims():
    table = side_by_side("verdenius2020snipit", ["snipit-readme"], rows=pd.DataFrame())
    assert len(table.data) == sum(c.id.startswith("snipit-readme") for c in LEDGER) > 3
    assert set(table.data["verdict"]) == {"not run"}
    with pytest.raises(BadInput, match="no such claim"):
        side_by_side("verdenius2020snipit", ["nothing"])


def test_write_scoreboard(tmp_path):
    board = write_scoreboard(tmp_path / "scoreboard.md", write(tmp_path, GOOD), rows(accuracies=(1.0, 1.1, 0.9)))
    assert list(board["verdict"]) == ["reproduced"]
    text = (tmp_path / "scoreboard.md").read_text(encoding="utf-8")
    assert "| reproduced | ours 1" in text


def test_differences_are_paired_by_seed():
    rows = pd.DataFrame(
        {"method": m, "seed": s, "asked": 0.9, "accuracy": 50 + 10 * s + (2 if m == "a" else 0) + (0.1 * s if m == "a" else 0)}
        for m in ("a", "b") for s in range(3)
    )  # fmt: skip
    (row,) = paired_difference(rows, "a", "b").to_dict("records")
    assert row["points"] == pytest.approx(2.1) and row["better"] == "a" and row["seeds"] == 3
    assert row["high"] - row["low"] < 1  # although the seeds differ by ten points
    (turned,) = paired_difference(rows, "b", "a").to_dict("records")
    assert turned["better"] == "a" and turned["points"] == pytest.approx(-2.1)
    assert paired_difference(rows, "a", "c").empty
