"""The Scoreboard's picture counts verdicts by paper, scale and kind, and leaves out what is no statement of a paper."""

import pandas as pd
import pytest

from pruning_core.errors import BadInput
from pruning_core.plots import scoreboard


def row(title, verdict, kind="measurement", scale="full", seen="code"):
    return {"title": title, "kind": kind, "seen": seen, "scale": scale, "verdict": verdict}


def test_bars_and_alt_text_count_alike():
    board = pd.DataFrame([
        row("RNI", "reproduced"), row("RNI", "not run"), row("PFP", "open"), row("PFP", "open", seen="own"),
        row("PFP", "not run", scale="reduced"), row("PFP", "not reproduced", scale="reduced"),
        row("RNI", "reproduced", "count"), row("RNI", "no verdict", "unseen", seen="unseen"),
    ])  # fmt: skip
    figure = scoreboard.summary(board)
    assert "measurements, full scale: 1 reproduced, 1 open, 1 not run;" in figure.alt
    assert "measurements, reduced scale: 1 not reproduced;" in figure.alt
    assert figure.alt.endswith("counts (no evidence): 1 reproduced; identities (no evidence): none.")
    full = figure.axes[0]
    assert sum(bar.get_width() for bar in full.patches) == 3
    assert [label.get_text() for label in full.get_yticklabels()] == ["PFP", "RNI"]


def test_boards_without_rows_or_columns_are_refused():
    with pytest.raises(BadInput, match="no row"):
        scoreboard.summary(pd.DataFrame(columns=["title", "kind", "seen", "scale", "verdict"]))
    with pytest.raises(BadInput, match="lack the column 'title'"):
        scoreboard.summary(pd.DataFrame({"verdict": ["open"]}))
