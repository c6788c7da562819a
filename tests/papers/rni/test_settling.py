"""Importances: their spread, the force of RNI's penalty, and where scales settle."""

import math

import pytest
import torch
from scipy.optimize import brentq
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput
from pruning_core.experiments import recipes
from pruning_core.experiments.importances import BINS, check_importance, importances, spread
from pruning_core.methods.base import METHODS
from pruning_core.methods.rni import RecedingNeurons, receding
from pruning_core.models.layers.norms import SigmoidBatchNorm2d
from pruning_core.papers.rni.settling import receding_force, receding_threshold, settled


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))


@pytest.mark.parametrize("b", [-1.0, 0.0, 3.0])
def test_the_force_is_the_gradient_of_the_penalty(b):
    g = torch.linspace(-700, 40, 1001, dtype=torch.float64, requires_grad=True)
    receding(g, b).sum().backward()
    torch.testing.assert_close(receding_force(g.detach(), b), g.grad, rtol=1e-6, atol=1e-20)


def test_the_force_of_float32_is_finite_everywhere():
    force = receding_force(torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4]))
    assert bool(torch.isfinite(force).all())
    assert force[2] == pytest.approx(0.25 * math.log(2))


@pytest.mark.parametrize("strength", [0.01, 0.1, 0.3])
def test_without_shift_the_balance_is_a_textbook_equation(strength):
    threshold = strength * (1 - math.log(strength))
    assert receding_threshold(strength) == pytest.approx(threshold, abs=1e-6)
    targets = torch.linspace(0.005, 0.995, 100)
    found = settled(targets, strength)
    for t, s in zip(targets.tolist(), found.tolist(), strict=True):
        if t < threshold - 1e-6:
            assert s == 0
        elif t > threshold + 1e-6:
            exact = brentq(lambda s, t=t: s - strength * math.log(s) - t, strength, t)
            assert s == pytest.approx(exact, abs=2e-6)


@pytest.mark.parametrize(("strength", "b"), [(0.1, 0.0), (0.3, 1.0), (0.5, 3.0)])
def test_gradient_descent_ends_where_it_is_said_to(strength, b):
    threshold = receding_threshold(strength, b)
    targets = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)
    targets = targets[(targets - threshold).abs() > 0.02]
    g = torch.logit(targets)
    for _ in range(4000):
        s = torch.sigmoid(g)
        g = g - 8 * ((s - targets) * s * (1 - s) + strength * receding_force(g, b))
    ends, expected = torch.sigmoid(g), settled(targets, strength, b=b)
    assert bool((expected[targets < threshold] == 0).all())
    assert bool((ends[targets < threshold] < 0.02).all())
    torch.testing.assert_close(ends[targets > threshold], expected[targets > threshold], atol=1e-3, rtol=0)


def test_no_penalty_moves_nothing_and_l1_takes_the_same_from_all():
    targets = torch.tensor([[0.1, 0.4], [0.6, 0.95]])
    torch.testing.assert_close(settled(targets, 0.0).float(), targets, atol=1e-5, rtol=0)
    assert settled(targets, 0.2, "l1").flatten().tolist() == pytest.approx([0, 0.2, 0.4, 0.75], abs=1e-6)
    assert receding_threshold(0.0) == 0


def test_settling_refuses_what_makes_no_sense():
    for targets in (torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([-0.5])):
        with pytest.raises(BadInput, match=r"in \(0, 1\)"):
            settled(targets, 0.1)
    with pytest.raises(BadInput, match="'rni' or 'l1'"):
        settled(torch.tensor([0.5]), 0.1, "l2")
    for strength, b, name in ((-0.1, 0.0, "strength"), (math.nan, 0.0, "strength"), (0.1, math.inf, "b")):
        with pytest.raises(BadInput, match=f"^{name} must be finite"):
            settled(torch.tensor([0.5]), strength, b=b)
        with pytest.raises(BadInput, match=f"^{name} must be finite"):
            receding_threshold(strength, b)


def test_the_spread_by_hand():
    found = spread(torch.tensor([0.0, 0.19, 0.2, 0.99, 1.0, 1.01, 2.0]))
    assert found["receded_share"] == pytest.approx(2 / 7)
    assert found["mid_share"] == pytest.approx(2 / 7)
    assert found["largest_importance"] == 2.0
    counts = [int(n) for n in found["histogram"].split()]
    assert len(counts) == BINS
    assert sum(counts) == 7
    assert (counts[0], counts[-1]) == (1, 1)


def test_the_spread_of_nothing_but_zeros():
    found = spread(torch.zeros(5))
    assert (found["receded_share"], found["mid_share"], found["largest_importance"]) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.tensor([-1.0]), torch.tensor([math.nan])])
def test_the_spread_refuses_what_is_no_importance(bad):
    with pytest.raises(BadInput, match="finite numbers"):
        spread(bad)


def test_importances_are_those_that_act():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), SigmoidBatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2),
    )  # fmt: skip
    net[1].weight.data = torch.tensor([0.0, -3.0, 2.0, -200.0])
    net[4].weight.data = torch.tensor([-0.5, 0.1, 0.0])
    example = torch.zeros(1, 1, 4, 4)
    by_rni = importances(net, RecedingNeurons(), example)
    assert len(by_rni) == 1  # the ordinary batch norm is none of RNI's
    values = next(iter(by_rni.values()))
    torch.testing.assert_close(values, torch.sigmoid(net[1].weight.detach().double()))
    assert values[3] > 0
    by_ucs = importances(net, "ucs", example)
    assert sorted(len(v) for v in by_ucs.values()) == [3, 4]


def test_importances_take_channel_methods_that_need_no_data():
    for method in ("snap", "magnitude", "ispasp"):
        with pytest.raises(BadInput, match=method):
            check_importance(method)
    with pytest.raises(BadInput, match="snap"):
        pc.Importances("film", "snap")


def test_the_stage_adds_the_spread_to_an_ordinary_row():
    timeline = recipes.receding(METHODS["rni"](b=3.0), 0.5, 2, 1, strength=0.1, film=1)
    rows = pc.run(pc.Experiment("vgg8", "digits", timeline, width=0.25, limit=200), progress=False)
    assert [row["label"] for row in rows] == ["film", "film", "dense", "pruned", "fine-tuned"]
    for row in rows[:3]:
        assert row["importance"] == "rni"
        assert sum(int(n) for n in row["histogram"].split()) == 88
        assert 0 <= row["receded_share"] + row["mid_share"] <= 1
    assert rows[2]["histogram"] == rows[1]["histogram"]
    assert "histogram" not in rows[3]
    assert rows[3]["asked"] == 0.5
    assert rows[3]["channels_removed"] == pytest.approx(0.5, abs=0.01)


def test_methods_without_a_penalty_share_their_dense_network():
    first, second = (recipes.receding(method, 0.5, 4, 2) for method in ("ucs", "random_channels"))
    assert first[:2] == second[:2]
    assert first[0].learning_rate == pc.LearningRate("multistep", milestones=(2, 3))
    assert first[5].learning_rate == pc.LearningRate("multistep", milestones=(1, 1))
    penalised = recipes.receding("slimming", 0.5, 4, 2, strength=0.0)
    assert penalised[0].penalty[0][1] == 0.0


def test_three_channels_stay_in_every_layer():
    cut = recipes.receding("ucs", 0.9, 1, 1)[2]
    assert cut.budget.keep_at_least == 3
    assert recipes.receding("ucs", 0.9, 1, 1, scope=("a.*",))[2].scope == ("a.*",)


def test_scaling_from_scratch_is_a_narrower_network_with_weights_of_its_own():
    rows = pc.run(pc.Experiment("vgg8", "digits", recipes.scaled_from_scratch(0.5, 1), limit=200), progress=False)
    narrow = pc.build_model("vgg8", "digits", width=0.5, seed=0)
    assert rows[-1]["parameters"] == sum(p.numel() for p in narrow.parameters())
    assert rows[-1]["label"] == "final"
    assert rows[-1]["channels_removed"] == 0.5


def test_without_fine_tuning_nothing_is_called_fine_tuned():
    timeline = recipes.receding("ucs", 0.5, 1, 0)
    assert [stage.label for stage in timeline if isinstance(stage, pc.Measure)] == ["dense", "pruned"]
