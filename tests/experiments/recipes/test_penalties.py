"""Recipes that train with a penalty."""

import itertools
import math

import pytest
import torch

import pruning_core as pc
from pruning_core import METHODS
from pruning_core.experiments import final_state, recipes
from pruning_core.masks.reports import NOTHING_CUT
from pruning_core.masks.schedules import fraction_after, tick_tock_rounds


def test_tick_tock_targets_rise_by_a_twentieth():
    for target in (0.3, 0.5, 0.98, 0.06, 0.005):
        n = tick_tock_rounds(target)
        targets = [fraction_after("tick_tock", i, n, target) for i in range(1, n + 1)]
        assert targets[-1] == target
        assert all(b - a < 0.05 + 1e-9 for a, b in itertools.pairwise(targets))
        assert n == 1 or targets[-2] < target


def test_recipes_with_penalties_reach_what_they_promise(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))
    options = {"optimizer": pc.Optimizer("adam", 2e-3), "batch_size": 128}

    def last(timeline, model="mlp5_snip"):
        return pc.run(pc.Experiment(model, "digits", timeline, width=0.1, **options), progress=False)[-1]

    row = last(recipes.tick_tock(0.6, epochs=3, fine_tune=2, ticks=10, tocks=1))
    assert row["channels_removed"] == pytest.approx(0.6, abs=0.01)
    assert row["accuracy"] > 50
    weak, strong = (last(recipes.hoyer_square(s, 8, 1)) for s in (1e-4, 1e-1))
    assert strong["sparsity"] > weak["sparsity"]
    groups = last(recipes.group_hoyer_square(1e-2, 8, 1))
    assert groups["method"] == "group_hoyer_square"
    row = last(recipes.efficient_convnets(0.5, 3, 1))
    assert row["channels_removed"] == pytest.approx(0.5, abs=0.02)
    both = [pc.Train(2, penalty=(("l1", 1e-4), ("lp", 1e-9)))]
    assert math.isfinite(last(both)["accuracy"])


@pytest.mark.parametrize(("name", "model"), [("l1", "mlp5_snip"), ("slimming", "vgg8"), ("gates", "vgg8")])
def test_a_penalty_pulled_in_place_trains_the_same_weights_bit_for_bit(name, model, monkeypatch, tmp_path):
    """Through a cut in the middle, momentum and clipping, as by autograd."""
    cut = pc.Every(1, [pc.Prune("random" if name == "l1" else "random_channels", 0.5)], times=1)
    timeline = [pc.Train(3, penalty=(name, 1e-3), during=cut)]
    settings = {"optimizer": pc.Optimizer("sgd", 0.02, weight_decay=1e-3, clip=5.0), "width": 0.25, "limit": 300}
    found = []
    for absolute in (True, False):
        monkeypatch.setattr(METHODS[name], "absolute", absolute)
        monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / str(absolute)))
        found.append(final_state(pc.Experiment(model, "digits", timeline, **settings)))
    for pulled, differentiated in zip(*(state.model.state_dict().values() for state in found), strict=True):
        assert torch.equal(pulled, differentiated)


def test_l0_and_the_group_penalty_remove_units_where_a_training_is_long_enough(empty_cache):
    faster = pc.Optimizer("adam", 2e-2)
    for timeline in (recipes.l0(1e-3, 12, 1, faster), recipes.group_hoyer_square(1.0, 20, 1, optimizer=faster)):
        rows = pc.run(pc.Experiment("mlp5_snip", "digits", timeline, width=0.1, optimizer=faster), progress=False)
        assert rows[0]["channels_removed"] > 0.02
        assert rows[-1]["accuracy"] > 60
        assert not any("remark" in row for row in rows)


@pytest.mark.parametrize("name", ["l0", "group_hoyer_square"])
def test_a_penalty_that_shuts_nothing_is_a_remark_in_rows_until_the_next_cut(name, empty_cache):
    timeline = [*recipes.recipe(name, 1e-9, 1, 0), pc.Prune("random_channels", 0.5), pc.Measure("cut")]
    rows = pc.run(pc.Experiment("mlp5_snip", "digits", timeline, width=0.1), progress=False)
    assert [row.get("remark") for row in rows] == [NOTHING_CUT, NOTHING_CUT, None]
