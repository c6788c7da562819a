"""Limits of pruned networks, bounds on a limit, the naive count, and the rows of the studies."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from pruning_core.errors import BadInput, BadType
from pruning_core.experiments import recipes
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.stages import Measure, Prune, Train
from pruning_core.masks.masks import Masks
from pruning_core.papers.how_sparse.curvature.hessian import Hessian, LivingHessian
from pruning_core.papers.how_sparse.curvature.measures import exact_hessian
from pruning_core.papers.how_sparse.geometry.kinematic import limit_bounds, normalised_width, window
from pruning_core.papers.how_sparse.prediction import magnitude_distance, predict
from pruning_core.papers.how_sparse.prunability import predict_limit, small_share
from pruning_core.papers.how_sparse.studies import limit_row, limits_over_rounds, predictor_errors
from pruning_core.training.optimizers import LearningRate


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))


def network(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    return model.eval()


def batches(n: int = 12) -> list:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 10, 6, generator=generator, dtype=torch.float64)
    return list(zip(x, torch.randint(3, (n, 10), generator=generator), strict=True))


def half_dead(model: nn.Module) -> Masks:
    masks = Masks({"0.weight": torch.arange(54).view(9, 6) % 2 == 0})
    masks.apply_(model)
    return masks


WEIGHTS = ["0.weight", "2.weight"]


def test_the_living_part_of_a_hessian():
    model = network()
    masks = half_dead(model)
    whole = Hessian(model, batches(), parameters=WEIGHTS)
    living = LivingHessian(whole, masks)
    alive = torch.cat([masks["0.weight"].flatten(), torch.ones(27, dtype=torch.bool)])
    assert living.dimension == int(alive.sum()) == 54
    assert torch.allclose(exact_hessian(living), exact_hessian(whole)[alive][:, alive], atol=1e-12)
    assert torch.equal(living.weights(), whole.weights()[alive])
    with pytest.raises(BadInput, match="no weight is alive"):
        LivingHessian(whole, {name: torch.zeros(shape, dtype=torch.bool) for name, shape in whole.shapes.items()})


@pytest.mark.parametrize("options", [{}, {"exact_below": 1, "probes": 30, "steps": 40}])
def test_dead_weights_are_no_coordinates_and_count_as_removed(options):
    model = network()
    masks = half_dead(model)
    found = predict_limit(model, batches(), masks=masks, points=82, progress=False, **options)
    living = LivingHessian(Hessian(model, batches(), parameters=WEIGHTS), masks)
    eigenvalues = torch.linalg.eigvalsh(exact_hessian(living))
    expected = predict(eigenvalues, None, found.limit.epsilon, living.weights())
    assert found.spectrum.dimension == 54
    assert found.removed_before == pytest.approx(27 / 81)
    assert found.limit.removed == pytest.approx(expected.removed, abs=0.05 if options else 1e-12)
    assert found.removed == pytest.approx((27 + 54 * found.limit.removed) / 81)
    assert found.measured["loss"].iloc[:28].nunique() == 1  # the dead go first, and cost nothing
    assert found.actual.within_epsilon >= 27 / 81
    assert f"{found.removed:.4f} of the weights" in repr(found)


def test_masks_of_a_dense_network_change_nothing():
    model, held = network(), batches()
    plain = predict_limit(model, held, points=5, progress=False)
    masked = predict_limit(model, held, masks=Masks.dense(model), points=5, progress=False)
    assert (masked.removed, masked.removed_before) == (plain.removed, 0.0)
    assert plain.removed == plain.limit.removed


def test_bad_masks_are_refused():
    model = network()
    dead = Masks({"0.weight": torch.zeros(9, 6, dtype=torch.bool)})
    with pytest.raises(BadInput, match=r"'0.weight' has dead weights that are not 0"):
        predict_limit(model, batches(), masks=dead)
    masks = half_dead(model)
    with pytest.raises(BadInput, match="null rows"):
        predict_limit(model, batches(), masks=masks, null_rows=True)
    with pytest.raises(BadInput, match="no parameter 'x'"):
        predict_limit(model, batches(), masks=Masks({"x": torch.ones(2, dtype=torch.bool)}))


def test_the_bounds_solve_their_equations():
    size = 4000
    eigenvalues = torch.logspace(-4, 1, size, dtype=torch.float64)
    weights = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    limit = predict(eigenvalues, None, 2.0, weights)
    bounds = limit.bounds(0.01)
    a = window(size, 0.01) / size
    share = torch.arange(size + 1) / size
    width = normalised_width(magnitude_distance(weights), eigenvalues, 2.0)
    assert bounds.possible == pytest.approx(float(share[share + a <= width].max()))
    assert bounds.impossible == pytest.approx(float(share[share - a <= width].max()))
    assert bounds.possible < limit.removed < bounds.impossible
    assert bounds.gap == pytest.approx(bounds.impossible - bounds.possible)
    # at a fixed distance the gap is the whole window; the distance grows with the fraction, which narrows it
    fixed = limit_bounds(limit.distance, eigenvalues, 2.0, size)
    assert bounds.gap < (fixed.possible_above - fixed.impossible_below) / size == pytest.approx(2 * a)


def test_the_gap_shrinks_with_the_size():
    gaps = []
    for size in (1000, 100_000):
        weights = torch.full((size,), 1 / math.sqrt(size), dtype=torch.float64)
        gaps.append(predict([1.0, 0.1], [0.5, 0.5], 0.3, weights).bounds().gap)
    assert gaps[1] == pytest.approx(gaps[0] / 10, rel=0.1)


def test_bounds_of_few_weights_stay_within_all_and_none():
    bounds = predict([1.0], [1.0], 0.5, torch.ones(5)).bounds()
    assert (bounds.possible, bounds.impossible) == (0.0, 1.0)
    with pytest.raises(BadInput, match="eta"):
        predict([1.0], [1.0], 0.5, torch.ones(5)).bounds(0)


def test_the_naive_count():
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.0, 9e-4], [-1e-3, 0.5]]))
        model[0].bias.zero_()
    assert small_share(model) == 0.5
    assert small_share(model, below=1) == 1.0
    for below in (0, -1, math.nan):
        with pytest.raises(BadInput, match="below must be finite and above 0"):
            small_share(model, below)
    with pytest.raises(BadType, match="below must be a number"):
        small_share(model, "1e-3")


def test_the_recipe_of_rounds():
    timeline = recipes.l1_in_rounds(0.75, 10, 1e-3, 2, 4)
    assert [type(stage) for stage in timeline] == [Train, Measure, Prune, Measure, Train, Measure, Prune, Measure]
    assert [stage.budget.to for stage in timeline if isinstance(stage, Prune)] == [pytest.approx(0.5), 0.75]
    assert [stage.epochs for stage in timeline if isinstance(stage, Train)] == [10, 4]
    assert all(stage.penalty[0][0].name == "l1" for stage in timeline if isinstance(stage, Train))
    assert recipes.l1_in_rounds(0.75, 10, 1e-3, 1, 4) == recipes.l1_one_shot(0.75, 10, 1e-3)
    with pytest.raises(BadInput, match="rounds"):
        recipes.l1_in_rounds(0.75, 10, 1e-3, 0, 4)


def experiment(**settings) -> Experiment:
    options = {"width": 0.05, "batch_size": 64, "learning_rate": LearningRate("cosine")} | settings
    return Experiment("lenet300", "digits", [Train(20, penalty=("l1", 2e-3))], **options)


QUICK = {"probes": 2, "steps": 16, "exact_below": 1, "points": 30}


def test_a_row_on_one_network():
    row = limit_row(experiment(tags={"strength": 2e-3}), **QUICK)
    assert (row["model"], row["data"], row["method"], row["label"]) == ("lenet300", "digits", "l1", "limit")
    assert row["strength"] == 2e-3
    assert row["predicted_low"] <= row["predicted"] <= row["predicted_high"]
    assert row["gap"] == pytest.approx(abs(row["predicted"] - row["limit"]))
    assert row["bounds_low"] < row["predicted"] < row["bounds_high"]
    assert row["bounds_gap"] == pytest.approx(row["bounds_high"] - row["bounds_low"])
    assert 0 < row["naive"] < 1 and row["accuracy"] > 50
    assert row == limit_row(experiment(tags={"strength": 2e-3}), **QUICK)
    assert limit_row(experiment(), samples=640, **QUICK)["tolerance"] != row["tolerance"]


def test_rows_over_rounds():
    settings = {"sparsity": 0.7, "epochs": 20, "strength": 2e-3, "rounds": 3, "retrain": 5}
    rows = list(limits_over_rounds(experiment(), **settings, **QUICK))
    assert [(row["label"], row["rounds"]) for row in rows] == [("rounds", i) for i in (1, 2, 3)]
    expected = [0, 1 - 0.3 ** (1 / 3), 1 - 0.3 ** (2 / 3)]
    assert [row["removed_before"] for row in rows] == pytest.approx(expected, abs=2e-3)
    assert all(row["predicted"] > row["removed_before"] for row in rows)
    assert rows[0]["predicted"] == rows[0]["predicted_same"]
    assert rows[0]["predicted"] == limit_row(experiment(), **QUICK)["predicted"]
    control = list(limits_over_rounds(experiment(), **settings | {"sparsity": 0.0}, **QUICK))
    assert {row["label"] for row in control} == {"rounds without cuts"}
    assert [row["removed_before"] for row in control] == [0, 0, 0]
    assert control[0]["predicted"] == rows[0]["predicted"]


def test_a_comparison_of_predictors():
    rows = pd.DataFrame({"predicted": [0.9, 0.8, 0.5], "naive": [0.5, 0.7, 0.9], "limit": [0.8, 0.75, np.nan]})
    theory, naive = predictor_errors(rows).itertuples(index=False)
    assert (theory.predictor, theory.networks, naive.networks) == ("theory", 2, 2)
    assert (theory.absolute, theory.signed, theory.worst) == pytest.approx((0.075, 0.075, 0.1))
    assert (naive.absolute, naive.signed, naive.worst) == pytest.approx((0.175, -0.175, 0.3))
    with pytest.raises(BadInput, match="lack the column 'naive'"):
        predictor_errors(rows.drop(columns="naive"))
