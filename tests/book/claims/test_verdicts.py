"""Every kind of verdict follows from rows alone: by whole intervals, without pooling, the same on both sides of zero."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_core import records
from pruning_core.book.claims.ledger import Claim, Comparison, Selection, Setting
from pruning_core.book.claims.verdicts import verdict, verdicts
from pruning_core.experiments.intervals import mean_interval, paired_difference


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


def claim(ours=None, profile="paper", **more):
    given = {
        "id": "x",
        "paper": "suteu2022rni",
        "where": "table",
        "statement": "s",
        "seen": "code",
        "source": "output",
        "value": 91.2,
        "unit": "%",
        "tolerance": 0.5,
        "ours": (Setting(ours or select(), profile=profile),),
    }
    return Claim(**given | more)


def above(direction="above", **more):
    return claim(
        Comparison(select(), select("ucs")), value=None, tolerance=None, unit="points", direction=direction, **more
    )


def test_interval_is_the_t_interval():
    found = mean_interval([1.0, 2.0, 3.0, math.nan])
    assert found.n == 3
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(4.302652730 / math.sqrt(3))
    assert math.isnan(mean_interval([5.0]).low)
    assert mean_interval([]).n == 0


@pytest.mark.parametrize(
    ("accuracies", "tolerance", "word"),
    [
        ((90.9, 91.0, 91.1), 0.5, "reproduced"),
        ((90.0, 91.0, 92.0), 0.5, "open"),  # the mean is close, the interval is not
        ((91.0, 91.0, 91.0), 0.2, "reproduced"),  # exactly one tolerance away
        ((91.1, 91.2), 0.5, "open"),  # close, but two seeds
        ((80.0,), 0.5, "open"),
        ((80.0, 80.1, 80.2), 0.5, "not reproduced"),
        ((-82.0, 91.0, 91.2, 76.0), 0.5, "open"),
    ],
)
def test_verdict_on_a_number(accuracies, tolerance, word):
    v = verdict(claim(tolerance=tolerance), rows(accuracies=accuracies))
    assert v.word == word
    assert len(v.seeds) == len(accuracies)
    assert v.ours == pytest.approx(sum(accuracies) / len(accuracies))


def test_number_on_the_claimed_side_is_the_same_trend():
    slope = claim(value=-3.0, unit="", tolerance=0.2, direction="below")
    assert verdict(slope, rows(accuracies=(-2.0, -2.1, -1.9))).word == "same trend"
    assert verdict(slope, rows(accuracies=(2.0, 2.1, 1.9))).word == "not reproduced"
    assert verdict(slope, rows(accuracies=(-9.0, 9.0, 1.9))).word == "open"


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        ((92.0, 93.0, 94.0), (90.0, 90.9, 92.1), "reproduced"),
        ((92.0, 93.0, 94.0), (90.0, 95.0, 88.0), "open"),  # the interval reaches across 0
        ((92.0, 93.0), (90.0, 91.0), "open"),  # two seeds
        ((90.0, 91.0, 92.0), (92.0, 93.0, 95.0), "not reproduced"),
        ((90.0, 91.0, 92.0), (90.0, 91.0, 92.0), "open"),  # equal is neither above nor below
    ],
)
def test_verdict_on_a_comparison_is_paired_by_seed(first, second, word):
    both = pd.concat([rows(accuracies=first), rows("ucs", second)])
    assert verdict(above(), both).word == word
    shuffled = both.sample(frac=1, random_state=0)
    assert verdict(above(), shuffled) == verdict(above(), both)


accuracies = st.lists(st.floats(-90, 90).map(lambda x: round(x, 1)), min_size=1, max_size=5)


@given(accuracies)
@settings(max_examples=60, deadline=None)
def test_both_sides_of_zero_are_judged_alike(values):
    zero = rows("ucs", [0.0] * len(values))
    there = pd.concat([rows(accuracies=values), zero])
    back = pd.concat([rows(accuracies=[-value for value in values]), zero])
    mirror = {"reproduced": "not reproduced", "not reproduced": "reproduced", "open": "open"}
    assert verdict(above(), there).word == verdict(above("below"), back).word == mirror[verdict(above(), back).word]
    number, mirrored = claim(value=3.0, direction="above"), claim(value=-3.0, direction="below")
    assert verdict(number, there).word == verdict(mirrored, back).word


@given(accuracies, st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_reproduced_means_that_the_whole_interval_is_inside(values, tolerance):
    v = verdict(claim(tolerance=tolerance, value=10.0), rows(accuracies=values))
    inside = 10 - tolerance <= v.low and v.high <= 10 + tolerance and len(values) > 2
    assert (v.word == "reproduced") == inside


def test_a_forged_wide_interval_is_not_reproduced():
    forged = rows(accuracies=(-82.0 + 91.2, 91.2, 91.2 + 76.0))
    assert abs(verdict(claim(tolerance=3), forged).ours - 91.2) < 3
    assert verdict(claim(tolerance=3), forged).word == "open"
    assert verdict(above(), pd.concat([forged, rows("ucs", (91.2,) * 3)])).word == "open"


def test_only_seeds_that_both_have_are_compared():
    both = pd.concat([rows(accuracies=(92, 93, 94, 0)), rows("ucs", (90, 91, 92))])
    v = verdict(above(), both)
    assert (v.seeds, v.ours) == ((0, 1, 2), 2.0)


def test_ratio_is_compared_with_one():
    ratio = claim(Comparison(select("dense"), select(), "ratio"), value=8.0, unit="times", tolerance=0.5, than=1.0)
    both = pd.concat([rows("dense", (80.0, 80.0, 80.0)), rows(accuracies=(10.0, 10.0, 10.0))])
    assert verdict(ratio, both).word == "reproduced"


def test_one_row_is_enough_for_a_count():
    cost = claim(value=3_684_842, unit="parameters", tolerance=0, kind="count", profile="quick")
    assert verdict(cost, rows(accuracies=(3_684_842,), profile="quick")).word == "reproduced"
    assert verdict(cost, rows(accuracies=(3_684_843,), profile="quick")).word == "not reproduced"
    differ = (3_684_842, 3_684_842, 3_684_841)  # no count then
    assert verdict(cost, rows(accuracies=differ, profile="quick")).word == "open"


def test_not_run():
    assert verdict(claim(), pd.DataFrame()).word == "not run"
    assert verdict(claim(), pd.DataFrame(columns=list(records.COLUMNS))).word == "not run"
    assert verdict(claim(), rows("ucs")).word == "not run"
    v = verdict(replace(claim(), ours=(), note="quoted only"), rows())
    assert (v.word, v.sentence) == ("not run", "quoted only.")


def test_what_nobody_has_seen_gets_no_verdict():
    unseen = above(kind="unseen", seen="unseen")
    v = verdict(unseen, pd.concat([rows(), rows("ucs", (1.0, 2.0, 3.0))]))
    assert (v.word, v.ours) == ("no verdict", 89.0)


def test_smaller_profiles_never_answer_and_the_largest_does():
    assert verdict(claim(), rows(profile="quick")).word == "not run"
    mixed = pd.concat([rows(profile="quick", accuracies=(1, 2, 3)), rows(profile="standard")])
    assert verdict(claim(profile="quick"), mixed).ours == 91


def test_narrow_networks_do_not_answer_unless_named():
    assert verdict(claim(), rows(width=0.25)).word == "not run"
    assert verdict(claim(select(width=0.25)), rows(width=0.25)).ours == 91


def test_a_missing_width_is_not_full_width():
    assert verdict(claim(), rows(width=math.nan)).word == "not run"
    assert verdict(claim(select(width=None)), rows(width=math.nan)).ours == 91
    nothing_wide = Selection({"method": "rni", "label": "final"}, "accuracy")
    assert verdict(claim(nothing_wide), rows(width=math.nan, model=None)).ours == 91
    published = Selection({"model": "torchvision/vgg16", "label": "final"}, "accuracy")
    assert verdict(claim(published), rows(width=math.nan, model="torchvision/vgg16")).ours == 91


@pytest.mark.parametrize(
    ("column", "one", "other"), [("asked", 0.5, 0.9), ("penalty", 0.1, 0.3), ("epoch", math.nan, 3.0)]
)
def test_a_claim_that_would_pool_is_refused(column, one, other):
    where = {"model": "vgg16", "method": "rni"}
    two = pd.concat([rows(**{column: one}), rows(accuracies=(1, 2, 3), **{column: other})])
    v = verdict(claim(Selection(where, "accuracy")), two)
    assert v.word == "not run"
    assert v.sentence.startswith(f"refused: rows that answer differ in {column} (")
    assert v.sentence.count(".") <= 3 and "\n" not in v.sentence
    assert verdict(claim(Selection(where | {column: other}, "accuracy")), two).ours == 2
    assert verdict(claim(Selection(where, "accuracy"), measured=Claim.measured | {column}), two).ours == 46.5


def test_the_two_sides_of_a_comparison_differ_only_in_what_it_names():
    both = pd.concat([rows(epoch=20.0), rows("ucs", epoch=60.0)])
    assert "differ in epoch (20.0, 60.0)" in verdict(above(), both).sentence
    named = replace(above(), ours=(Setting(Comparison(select(epoch=20), select("ucs", epoch=60))),))
    assert verdict(named, both).word == "open"


def test_reduced_scale_never_decides():
    full, small = Setting(select()), Setting(select(width=0.25), "narrow", "reduced")
    both = replace(claim(), ours=(full, small))
    narrow = rows(accuracies=(91.1, 91.2, 91.3), width=0.25)
    assert verdict(both, narrow).word == "not run"
    assert [v.word for v in verdicts(both, narrow)] == ["not run", "reproduced"]
    assert verdict(both, pd.concat([narrow, rows(accuracies=(1, 2, 3))])).word == "not reproduced"


def test_rows_of_an_unclean_revision_cannot_reproduce():
    values = (91.1, 91.2, 91.3)
    assert verdict(claim(), rows(accuracies=values, revision="abc")).word == "reproduced"
    v = verdict(claim(), rows(accuracies=values, revision="abc+dirty"))
    assert (v.word, v.unclean) == ("open", 3)
    assert "unclean revision, to be made again" in v.sentence
    assert verdict(claim(), rows(accuracies=(1, 2, 3), revision="abc+dirty")).word == "not reproduced"


@pytest.mark.parametrize(
    ("better", "worse", "word"), [(3, 1, "reproduced"), (1, 3, "not reproduced"), (2, 2, "open"), (2, 0, "open")]
)
def test_more_than_half_of_the_cells_decide(better, worse, word):
    cells = [(90.0, 90.1, 90.2)] * better + [(1.0, 1.1, 1.2)] * worse + [(10.0, 90.0, 50.0)] * (4 - better - worse)
    both = pd.concat(
        part
        for k, values in enumerate(cells)
        for part in (rows(accuracies=values, epsilon=k), rows("ucs", (50.0,) * 3, epsilon=k))
    )
    over = replace(above(), ours=(Setting(Comparison(select(), select("ucs")), over=("epsilon",)),))
    v = verdict(over, both)
    assert v.word == word
    assert v.sentence.startswith(
        f"of 4 cells {better} are clearly above 0, {worse} clearly not, {4 - better - worse} open"
    )
    assert "differ in epsilon" in verdict(above(), both).sentence


def test_changing_one_row_changes_the_claims_that_read_it_and_no_other():
    generator = np.random.default_rng(0)
    methods, sparsities = ("rni", "ucs", "snip", "random"), (0.5, 0.9)
    table = pd.concat(
        [rows(m, generator.normal(80, 3, 4), asked=a) for m in methods for a in sparsities], ignore_index=True
    )
    read = {
        f"{m}-{n}-{a}": Comparison(select(m, asked=a), select(n, asked=a))
        for m in methods for n in methods if m < n for a in sparsities
    } | {f"{m}-{a}": select(m, asked=a) for m in methods for a in sparsities}  # fmt: skip
    claims = [claim(ours, id=id, direction="above") for id, ours in read.items()]
    before = [verdict(c, table) for c in claims]
    for row in range(len(table)):
        changed = table.copy()
        changed.loc[row, "accuracy"] += 40
        method, asked = table.loc[row, ["method", "asked"]]
        differ = {c.id for c, was in zip(claims, before, strict=True) if verdict(c, changed) != was}
        assert differ == {id for id in read if method in id.split("-") and id.endswith(f"-{asked}")}


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
