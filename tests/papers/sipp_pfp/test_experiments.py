"""Official settings as experiments, cascades of pruning and retraining, and estimates from drawn weights."""

import itertools
import math

import pytest
import torch

from pruning_core.data.sets import AUGMENTATIONS
from pruning_core.errors import BadInput, UnknownName
from pruning_core.experiments import recipes
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.runs import final_state, run
from pruning_core.experiments.stages import Measure, Prune, Rewind, Save, Train
from pruning_core.papers.sipp_pfp.guarantee import (
    RULES,
    draws_needed,
    error_promised,
    estimator_rows,
    probabilities,
    relative_errors,
)
from pruning_core.papers.sipp_pfp.official import METHODS_OF_THE_FILES, of_weights, official_experiments, points_of
from pruning_core.papers.sipp_pfp.parameter_files import PARAMETER_FILES, kept_fractions, retrained
from pruning_core.papers.sipp_pfp.spacings import compressed_before

RUNNABLE = [name for name, entry in PARAMETER_FILES.items() if entry.network is not None]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))


def kept_by(timeline) -> list[float]:
    """The fraction of the weights that each cut keeps."""
    return [1 - stage.budget.to for stage in timeline if isinstance(stage, Prune)]


def of_weights_alone(entry, fractions) -> list[float]:
    """The files' fractions of all parameters, as fractions of the weights: no bias and no norm goes."""
    ratio = of_weights(entry.network, entry.data)
    return [max(1 - (1 - kept) * ratio, 1e-3) for kept in fractions]


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_file_is_a_list_of_experiments(name):
    entry = PARAMETER_FILES[name]
    planned = list(official_experiments(name, seeds=1))
    methods = [m for m in entry.methods if m in METHODS_OF_THE_FILES]
    each = len(retrained(name)) if entry.mode == "retrain" else 1
    assert len(planned) == len(methods) * each * max(len(entry.deltas), 1)
    if (
        not entry.deltas and name != "sipp/cifar/rand/densenet22_rand"
    ):  # whose norms alone are more than its last fractions
        assert len({e.key for e in planned}) == len(planned)
    first = planned[0]
    assert isinstance(first.timeline[1], Measure) and first.timeline[1].label == "dense"
    assert (first.model, first.data, first.profile) == (entry.network, entry.data, "paper")
    assert first.batch_size == entry.training.batch_size * entry.training.gpus
    assert first.optimizer.lr == pytest.approx(entry.training.lr * entry.training.gpus)
    if entry.mode.startswith("cascade"):
        assert kept_by(first.timeline) == pytest.approx(of_weights_alone(entry, kept_fractions(name)))
        assert sum(isinstance(stage, Train) for stage in first.timeline) >= 1 + len(retrained(name))
    if entry.mode == "retrain":
        before = compressed_before(kept_fractions(name), len(retrained(name)), mode="retrain")
        for experiment, earlier, last in zip(planned[:each], before, retrained(name), strict=True):
            assert kept_by(experiment.timeline) == pytest.approx(of_weights_alone(entry, [*earlier, last]))


def test_the_size_of_s_follows_from_the_files_own_delta():
    """Hand-computed: ceil(10 ln(8 * 410 * 300 / delta)) is 415 for 1e-12 and 507 for 1e-16; whole batches of 64 are drawn."""
    assert [points_of("lenet300", "mnist", delta, 64) for delta in (1e-12, 1e-16)] == [448, 512]
    # 609 for ResNet-20 (the authors' own count), batches of two GPUs.
    assert points_of("resnet20_b", "cifar10", 1e-16, 256) == 768
    samples = {e.tags["points"]: e for e in official_experiments("sipp/mnist/lenet300_sizes", seeds=1)}
    assert {e.timeline[2].samples for e in samples.values()} == set(samples)
    assert min(samples) == 128  # delta 10, which is no probability: ceil(10 ln(98400)) = 115
    assert max(samples) == 896


def test_files_that_cannot_be_run_are_refused():
    with pytest.raises(BadInput, match="driving/deepknight cannot be run"):
        list(official_experiments("driving/deepknight"))
    with pytest.raises(UnknownName, match="parameter file"):
        list(official_experiments("cifar/resnet21"))


def test_a_cascade_prunes_on_and_trains_on():
    timeline = recipes.cascade("magnitude", [0.5, [0.4, 0.2]], epochs=2, retrain=1)
    experiment = Experiment("lenet300", "digits", timeline, width=0.2)
    rows = run(experiment, progress=False)
    assert [row["label"] for row in rows] == ["step pruned", "step"] * 2
    assert [round(row["sparsity"], 3) for row in rows] == pytest.approx([0.5, 0.5, 0.8, 0.8], abs=2e-3)
    assert [row["epoch"] for row in rows] == [2, 3, 3, 4]


def test_ways_on_after_a_cut():
    ways = {after: recipes.cascade("magnitude", [0.5], 3, 2, after) for after in ("go on", "random", "rewind")}
    assert not any(isinstance(stage, Rewind) for stage in ways["go on"])
    assert [stage.to for stage in ways["random"] if isinstance(stage, Rewind)] == ["new"]
    early = ways["rewind"]
    assert [type(stage) for stage in early[:3]] == [Train, Save, Train]
    assert (early[0].epochs, early[2].epochs) == (1, 2)
    for after, timeline in ways.items():
        state = final_state(Experiment("lenet300", "digits", timeline, width=0.2))
        dead = state.masks["fc1.weight"].logical_not()
        assert torch.count_nonzero(state.model.fc1.weight[dead]) == 0, after
        assert dead.any()


@pytest.mark.parametrize(
    ("kept", "options", "message"),
    [
        ([], {}, "kept fractions fall"),
        ([0.2, 0.4], {}, "kept fractions fall"),
        ([0.5, 0.0], {}, "kept fractions fall"),
        ([0.5], {"after": "rewind"}, "do not exist"),
        ([0.5], {"after": "back"}, "way on after a cut"),
    ],
)
def test_cascades_that_cannot_be(kept, options, message):
    with pytest.raises(BadInput, match=message):
        recipes.cascade("magnitude", kept, 1, 2, **options)


def test_more_points_than_the_split_holds_are_refused():
    cut = Prune("sipp", 0.5, batches="score", samples=10_000)
    with pytest.raises(BadInput, match="10000 samples were asked for, but the split for scoring holds"):
        run(Experiment("lenet300", "digits", [cut], width=0.2), progress=False)


def layer(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 12, generator=generator, dtype=torch.float64).clamp(min=0)
    points = torch.rand(30, 12, generator=generator, dtype=torch.float64)
    return weight, points


def test_probabilities_follow_their_rule():
    weight, points = layer()
    wanted = {"l1_sampling": weight, "l2_sampling": weight**2, "uniform": (weight > 0).double()}
    for rule, score in wanted.items():
        assert torch.allclose(probabilities(weight, points, rule), score / score.sum(1, keepdim=True))
    shares = torch.stack([weight * x / (weight @ x)[:, None] for x in points]).amax(0)
    assert torch.allclose(probabilities(weight, points, "sipp_random"), shares / shares.sum(1, keepdim=True))


@pytest.mark.parametrize("rule", RULES)
def test_errors_are_those_of_estimates_without_bias(rule):
    weight, points = layer()
    q = probabilities(weight, points, rule)
    # The variance of an estimate is known: (1/m) (sum_e (w a)^2 / q - z^2); errors must be of that size.
    z = points @ weight.T
    second = torch.stack([torch.where(q > 0, (weight * x) ** 2 / q.clamp(min=1e-30), 0.0).sum(1) for x in points])
    spread = ((second - z**2).clamp(min=0) / 400).sqrt() / z
    generator = torch.Generator().manual_seed(0)
    found = torch.stack([relative_errors(weight, q, points, 400, generator) for _ in range(200)])
    expected = spread.flatten() * math.sqrt(2 / math.pi)  # of a normal deviate
    assert float((found.mean(0) / expected).mean()) == pytest.approx(1, abs=0.1)


def test_errors_fall_like_one_over_the_root_of_the_draws():
    weight, points = layer(1)
    rows = estimator_rows(weight, points, points, [50, 200, 800], repeats=60)
    for rule in RULES:
        errors = [row["relative_error"] for row in rows if row["method"] == rule]
        for a, b in itertools.pairwise(errors):
            assert a / b == pytest.approx(2, rel=0.15)


def test_draws_and_errors_of_the_theory_belong_together():
    for error in (0.01, 0.5, 3.0):
        draws = draws_needed(error, 4.9, 410)
        assert error_promised(draws, 4.9, 410) <= error < error_promised(draws - 1, 4.9, 410)


def test_refusals():
    weight, points = layer()
    with pytest.raises(BadInput, match="non-negative"):
        estimator_rows(weight, -points, points, [4])
    with pytest.raises(BadInput, match="draws must be at least 1"):
        relative_errors(weight, probabilities(weight, points, "uniform"), points, 0, torch.Generator())
    with pytest.raises(UnknownName, match="rule"):
        probabilities(weight, points, "best")
    for delta in (0, 1, 2):
        with pytest.raises(BadInput, match="delta"):
            draws_needed(0.1, 4.9, 410, delta=delta)
    with pytest.raises(BadInput, match="positive"):
        draws_needed(0, 4.9, 410)


@pytest.mark.parametrize(
    ("name", "augment"),
    [
        ("mnist/lenet300_100", None),
        ("pfp/mnist/lenet300_100", "mnist/sipp_lenet300"),
        ("sipp/mnist/fc_nettrim", "mnist/sipp_lenet300"),
        ("mnist/lenet5", "mnist/sipp_lenet5"),
        ("cifar/lenet5", "cifar10/sipp_lenet5"),
        ("cifar/resnet20", "cifar10/sipp"),
        ("imagenet/resnet18", "imagenet/sipp"),
    ],
)
def test_each_network_is_augmented_as_its_repository_does(name, augment):
    assert {experiment.augment for experiment in official_experiments(name, seeds=1)} == {augment}


def test_lenet5_on_cifar_is_cropped_but_not_flipped():
    recipe = AUGMENTATIONS["cifar10/sipp_lenet5"]
    assert (recipe.pad, recipe.flip) == (4, 0)
