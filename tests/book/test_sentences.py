"""Backed sentences: shown only with a condition that holds, from rows that differ in nothing unsaid."""

import math
from unittest.mock import patch

import pandas as pd
import pytest

from pruning_core.book.sentences import Unbacked, backed, clear, gaps, in_points, in_words, means, percents, stored_rows
from pruning_core.errors import BadInput, UnknownName
from pruning_core.experiments import paired_difference
from pruning_core.experiments.intervals import Interval

ROWS = pd.DataFrame(
    {"method": method, "asked": asked, "seed": seed, "accuracy": base + step * seed}
    for method, base, step in (("snip", 90.0, 1.0), ("random", 80.0, 0.5))
    for asked in (0.5, 0.9)
    for seed in range(4)
)


def test_a_sentence_is_shown_if_all_conditions_hold() -> None:
    shown: list = []
    with patch("IPython.display.display", shown.append):
        backed("*Snip* is ahead.", 2 > 1, 3 > 2)
    assert [entry.data for entry in shown] == ["*Snip* is ahead."]


def test_a_sentence_that_the_rows_do_not_support_is_not_shown() -> None:
    shown: list = []
    with patch("IPython.display.display", shown.append):
        with pytest.raises(Unbacked, match=r"condition 2 of 2 .*: Snip is ahead."):
            backed("Snip is ahead.", 2 > 1, math.nan > 0)
        with pytest.raises(BadInput, match="needs a condition"):
            backed("Snip is ahead.")
    assert shown == []


def test_gaps_are_paired_by_seed_and_agree_with_the_tables_of_the_pages() -> None:
    found = gaps(ROWS[ROWS["asked"].eq(0.5) | ROWS["seed"].ne(3)], "snip", "random")
    table = paired_difference(ROWS, "snip", "random")
    assert [gap.n for gap in found.values()] == [4, 3]
    assert found[0.5].mean == pytest.approx(10.75)
    assert table.loc[0, ["points", "low", "high"]].tolist() == pytest.approx([*found[0.5][:3]], abs=0.005)
    assert clear(found) == {0.5: "ahead", 0.9: "ahead"}
    assert in_points(found[0.5]) == "+10.8 points [9.7, 11.8]"


def test_settings_of_several_columns_are_tuples_and_floats_are_rounded() -> None:
    rows = ROWS.assign(model="small", asked=ROWS["asked"] - 0.2)
    assert list(means(rows[rows["method"] == "snip"], ["model", "asked"])) == [("small", 0.3), ("small", 0.7)]


def test_rows_that_differ_in_something_unsaid_are_not_pooled() -> None:
    wide = pd.concat([ROWS.assign(width=1.0), ROWS.assign(width=0.5, accuracy=ROWS["accuracy"] - 1)])
    with pytest.raises(BadInput, match=r"several values of accuracy have asked = 0.5, seed = 0"):
        gaps(wide, "snip", "random")
    assert gaps(wide[wide["width"] == 1.0], "snip", "random") == gaps(pd.concat([ROWS, ROWS]), "snip", "random")


def test_methods_without_a_common_seed_cannot_be_compared() -> None:
    apart = ROWS[(ROWS["method"] == "snip") == (ROWS["seed"] < 2)]
    with pytest.raises(BadInput, match="no row of 'snip' and 'random' has the same asked and seed"):
        gaps(apart, "snip", "random")


def test_fewer_than_three_seeds_and_intervals_around_zero_are_open() -> None:
    two, across, below = Interval(5, 4, 6, 2), Interval(1, -1, 3, 5), Interval(-5, -6, -4, 5)
    assert clear({1: two, 2: across, 3: below}) == {1: "open", 2: "open", 3: "behind"}
    assert [gap.side for gap in (two, across, below, Interval(1, math.nan, math.nan, 1))] == [1, 0, -1, 0]


def test_every_setting_is_told_also_the_unfavourable() -> None:
    ahead, behind, across = Interval(5, 4, 6, 5), Interval(-5, -6, -4, 5), Interval(1, -1, 3, 5)
    told = in_words({0.5: across, 0.8: ahead, 0.995: behind})
    assert told == "clearly ahead at 80 %, clearly behind at 99.5 % and open at 50 %"
    assert in_words({10: across, 25: across, 51: across}) == "open at 10, 25 and 51"
    assert percents(0.25) == "25 %"


def test_stored_rows_are_chosen_by_their_columns() -> None:
    rows = stored_rows(model="basic4", label=["statistics"], width=None)
    assert set(rows["profile"]) <= {"standard", "paper"}
    assert set(rows["label"]) == {"statistics"}
    with pytest.raises(BadInput, match="no stored row has model = 'basic5'"):
        stored_rows(model="basic5")
    with pytest.raises(UnknownName, match="did you mean 'model'"):
        stored_rows(modle="basic4")
