"""Figures of chapters 3 and 5: importances, and predicted limits."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from pruning_core.errors import BadInput
from pruning_core.experiments.importances import BINS, spread
from pruning_core.plots.how_sparse_limits import predicted_against_measured, transition
from pruning_core.plots.rni import force_slider, histogram_slider, histograms, settled_slider
from pruning_core.plots.style import alt_text


def film_rows(seeds=(0,)) -> pd.DataFrame:
    generator = torch.Generator().manual_seed(0)
    rows = []
    for seed in seeds:
        for method in ("rni", "slimming"):
            for epoch in (2, 4):
                found = spread(torch.rand(50, generator=generator) ** epoch)
                rows.append({"importance": method, "epoch": epoch, "seed": seed, "profile": "quick", **found})
    return pd.DataFrame(rows)


def traces(slider) -> list[dict]:
    return slider.to_plotly()["data"]


def test_the_force_slider_holds_the_bump_of_every_shift():
    slider = force_slider([0, 3], title="Force")
    bumps = [trace for trace in traces(slider) if trace["name"] == "RNI"]
    assert len(bumps) == 2
    tops = [bump["x"][int(np.argmax(bump["y"]))] for bump in bumps]
    assert tops == pytest.approx([-1.177, -4.177], abs=0.03)
    assert max(bumps[0]["y"]) == pytest.approx(0.26035, abs=1e-3)
    assert "bump" in slider.alt


def test_the_settled_slider_starts_in_the_middle_and_jumps_at_the_threshold():
    slider = settled_slider([0.01, 0.1, 0.3], title="Settled")
    seen = [trace for trace in traces(slider) if trace["visible"] is True]
    assert {trace["name"] for trace in seen} == {"RNI", "Network Slimming"}
    rni = next(trace for trace in seen if trace["name"] == "RNI")
    assert [y > 0 for x, y in zip(rni["x"], rni["y"], strict=True)] == [x > 0.3303 for x in rni["x"]]
    assert "0.1: 0.33" in slider.alt


def test_the_film_has_a_position_an_epoch():
    slider = histogram_slider(film_rows(), ["rni", "slimming"], title="Film")
    assert len(traces(slider)) == 4
    for trace in traces(slider):
        assert len(trace["x"]) == BINS
        assert sum(trace["y"]) == pytest.approx(1.0, abs=1e-4)
    json.dumps(slider.to_plotly())


def test_a_film_of_two_seeds_or_of_none_is_refused():
    for rows, methods in ((film_rows((0, 1)), ["rni"]), (film_rows(), ["polarization"])):
        with pytest.raises(BadInput, match="rows of one seed"):
            histogram_slider(rows, methods)


def test_histograms_say_their_shares():
    rows = film_rows((0, 1)).query("epoch == 4")
    fig = histograms(rows, ["rni", "slimming"], title="At the end")
    mean = rows[rows["importance"] == "rni"]["receded_share"].mean()
    assert f"RNI: {mean:.0%} below a tenth" in alt_text(fig)
    assert len(fig.axes) == 2
    with pytest.raises(BadInput, match="'ucs'"):
        histograms(rows, ["ucs"])


def limit_rows() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "strength": x,
                "predicted": 0.8 + x,
                "limit": 0.5 + 2 * x,
                "seed": s,
                "predicted_low": 0.7,
                "predicted_high": 0.9,
            }
            for x in (0.0, 0.1)
            for s in range(2)
        ]
    )


def test_predicted_against_measured_has_a_point_a_network():
    fig = predicted_against_measured(limit_rows(), title="Limits")
    points = sum(
        len(c.get_offsets()) for c in fig.axes[0].collections if hasattr(c, "get_offsets") and len(c.get_offsets())
    )
    assert points >= 4
    assert "λ = 0.1 2 points, median 90 %" in alt_text(fig)
    with pytest.raises(BadInput, match="no row"):
        predicted_against_measured(limit_rows().assign(limit=np.nan))


def test_the_transition_marks_the_prediction():
    curves = pd.DataFrame(
        [
            {"removed": p, "accuracy": 90 * (p < 0.8), "loss": 0.1 + p, "strength": 0.1, "seed": 0}
            for p in (0.0, 0.5, 0.9, 0.999)
        ]
    )
    fig = transition(curves, pd.Series({0.1: 0.75}), title="Cut")
    for ax in fig.axes:
        assert [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [0.75]
        assert max(ax.lines[0].get_xdata()) == 0.9
    assert "90 at 0 %" in alt_text(fig)
    with pytest.raises(BadInput, match="no row"):
        transition(curves[curves["removed"] > 0.99], pd.Series(dtype=float))


def test_the_film_can_play():
    film = histogram_slider(film_rows(), ["rni", "slimming"], title="Film")
    # plotly draws buttons of its own into the same box, so the script looks for the class
    assert 'class="play"' in film.to_html()
    assert 'class="play"' not in force_slider([0.0], title="Force").to_html()
