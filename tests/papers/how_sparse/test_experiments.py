"""Official configurations of How Sparse Can We Prune, the schedule of its code, and its recipes."""

import dataclasses

import numpy as np
import pytest
import torch

from pruning_core.data.sets import AUGMENTATIONS, NORMALISATIONS
from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.experiments import recipes
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.runs import final_state, run
from pruning_core.experiments.stages import Measure, Prune, Train
from pruning_core.papers.how_sparse.configurations import CONFIGURATIONS, SteppedPerIteration, configured_experiments
from pruning_core.training.optimizers import LearningRate, Optimizer

# name: network, rate, strength, warm-up, schedule, Lanczos steps
PUBLISHED = {
    "fc5_cifar10": ("fc5", 0.01, 5e-5, 0, "constant", 128),
    "fc12_cifar10": ("fc12", 0.01, 5e-5, 0, "constant", 128),
    "alexnet_cifar10": ("alexnet_how_sparse", 0.01, 3e-5, 5, "multistep", 96),
    "vgg16_cifar10": ("vgg16_how_sparse", 0.01, 1e-4, 5, "constant", 128),
    "resnet18_cifar100": ("resnet18_how_sparse", 0.1, 5e-5, 5, "cosine", 128),
    "resnet50_cifar100": ("resnet50_how_sparse", 0.1, 2e-5, 5, "cosine", 128),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))


def only(name, **options):
    (experiment,) = configured_experiments(name, **options)
    return experiment


def test_every_official_file_has_its_name():
    assert set(CONFIGURATIONS) == {f"{name}{twin}" for name in PUBLISHED for twin in ("", "_l1")}


@pytest.mark.parametrize("twin", ["", "_l1"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_of_every_official_file(name, twin):
    network, rate, strength, warmup, schedule, lanczos_steps = PUBLISHED[name]
    experiment = only(name + twin, sparsities=[0.2, 0.9])
    data = name.rpartition("_")[2]
    assert (experiment.model, experiment.data, experiment.profile) == (network, data, "paper")
    assert experiment.optimizer == Optimizer("sgd", rate, momentum=0.9, nesterov=False, weight_decay=0.0)
    assert (experiment.batch_size, experiment.width, experiment.norm, experiment.seed) == (128, 1.0, "batch", 0)
    assert (experiment.normalise, experiment.augment) == (f"{data}/how_sparse", f"{data}/how_sparse")
    assert experiment.normalise in NORMALISATIONS and experiment.augment in AUGMENTATIONS
    expected = LearningRate(schedule, warmup=warmup)
    if schedule == "multistep":
        expected = LearningRate(schedule, warmup=warmup, milestones=(60, 120, 160), gamma=0.5)
    assert experiment.learning_rate == expected
    train, *rest = experiment.timeline
    assert isinstance(train, Train) and train.epochs == 200
    if twin:
        ((method, found),) = train.penalty
        assert (method.name, method.over, found) == ("l1", "all", strength)
    else:
        assert train.penalty is None
    assert experiment.tags == {"file": name + twin, "strength": strength if twin else 0.0}
    assert CONFIGURATIONS[name + twin].lanczos_steps == lanczos_steps
    assert [type(stage) for stage in rest] == [Measure, Prune, Measure, Prune, Measure]
    assert [stage.label for stage in rest[::2]] == ["dense", "pruned", "pruned"]
    assert [stage.budget.to for stage in rest[1::2]] == [0.2, 0.9]
    for cut in rest[1::2]:
        assert (cut.method.name, cut.method.normalise, cut.scope) == ("magnitude", "none", None)
        assert (cut.budget.across, cut.budget.of, cut.budget.keep_at_least) == ("global", "weights", 0)


def test_the_official_sweep():
    for name in CONFIGURATIONS:
        points = 100 if name == "vgg16_cifar10" else 1000
        cuts = [stage.budget.to for stage in only(name).timeline if isinstance(stage, Prune)]
        assert cuts == [i / points for i in range(1, points)]


def test_seeds_and_devices():
    planned = list(configured_experiments("fc5_cifar10_l1", sparsities=[0.5], seeds=3, device="cuda"))
    assert [experiment.seed for experiment in planned] == [0, 1, 2]
    assert {experiment.device for experiment in planned} == {"cuda"}
    twins = [only(name, sparsities=[0.5]) for name in ("fc5_cifar10", "fc5_cifar10_l1")]
    assert len({experiment.key for experiment in [*planned, *twins]}) == 4


def test_reference_changes_the_rates_that_the_code_got_wrong():
    for name in CONFIGURATIONS:
        usual, reference = only(name, sparsities=[0.5]), only(name, sparsities=[0.5], reference=True)
        constant = CONFIGURATIONS[name].schedule == "constant"
        assert (usual == reference) == (usual.key == reference.key) == constant
        assert dataclasses.replace(reference, learning_rate=usual.learning_rate) == usual
    wave = SteppedPerIteration("cosine", warmup=5)
    assert only("resnet50_cifar100_l1", reference=True).learning_rate == wave
    steps = SteppedPerIteration("multistep", warmup=5, milestones=(60, 120, 160), gamma=0.5)
    assert only("alexnet_cifar10", reference=True).learning_rate == steps


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "fc6_cifar10"}, UnknownName, "unknown configuration 'fc6_cifar10': did you mean"),
        ({"sparsities": []}, BadInput, "sparsities must have a length of at least 1"),
        ({"sparsities": [0.0, 0.5]}, BadInput, r"each of sparsities must lie in \(0, 1\)"),
        ({"sparsities": [0.5, 0.5]}, BadInput, "sparsities must rise"),
        ({"sparsities": [0.5, 0.4]}, BadInput, "sparsities must rise"),
        ({"sparsities": [0.5, 1.0]}, BadInput, "each of sparsities must lie in"),
        ({"sparsities": [0.5, "0.6"]}, BadType, "each of sparsities must be a number"),
        ({"sparsities": "0.5"}, BadType, "sparsities must be a list"),
        ({"sparsities": 0.5}, BadType, "sparsities must be a list"),
        ({"seeds": 0}, BadInput, "seeds"),
        ({"seeds": True}, BadType, "seeds"),
    ],
)
def test_what_cannot_be_asked_for(options, error, message):
    with pytest.raises(error, match=message):
        list(configured_experiments(**{"name": "fc5_cifar10"} | options))


def test_each_cut_of_a_sweep_is_the_one_of_the_dense_network():
    sweep = (0.3, 0.6, 0.61, 0.999)
    planned = only("fc5_cifar10_l1", sparsities=sweep)
    timeline = [dataclasses.replace(planned.timeline[0], epochs=1), *planned.timeline[1:]]
    small = dataclasses.replace(planned, data="digits", normalise=None, augment=None, width=0.02, profile="smoke")
    rows = run(dataclasses.replace(small, timeline=timeline), progress=False)
    assert [row["label"] for row in rows] == ["dense", *["pruned"] * len(sweep)]
    assert [row["asked"] for row in rows] == [0.0, *sweep]
    assert {row["epoch"] for row in rows} == {1}
    dense = final_state(dataclasses.replace(small, timeline=timeline[:1])).model
    weights = {name: w.detach() for name, w in dense.named_parameters() if w.dim() == 2}
    pooled = torch.cat([w.abs().flatten() for w in weights.values()]).numpy()
    for i, (sparsity, row) in enumerate(zip(sweep, rows[1:], strict=True), start=1):
        removed = round(sparsity * len(pooled))
        assert row["sparsity"] == pytest.approx(removed / len(pooled), abs=1e-12)
        state = final_state(dataclasses.replace(small, timeline=timeline[: 2 * i + 2]))
        threshold = np.sort(pooled)[removed]  # the smallest magnitude that stays
        for name, parameter in state.model.named_parameters():
            expected = dict(dense.named_parameters())[name].detach()
            if name in weights:
                expected = expected * (expected.abs() >= threshold)
            torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=0)
    assert rows[-1]["dead_layers"] > 0  # no layer keeps a weight only because it would be empty without


def torch_rates(schedule: SteppedPerIteration, steps_per_epoch: int, epochs: int, trained: int) -> list[float]:
    """What torch's own schedulers do when they are stepped once an iteration, warm-up first."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    if schedule.kind == "cosine":
        main = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
    else:
        main = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(schedule.milestones), schedule.gamma)
    rising = schedule.warmup * steps_per_epoch
    warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: i / rising) if rising else None
    rates = []
    for step in range(trained * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if warm is not None and step // steps_per_epoch < schedule.warmup:
            warm.step()
        main.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 1, 2, 3])
@pytest.mark.parametrize("steps_per_epoch", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 6, 9, 10, 14])
def test_a_scheduler_stepped_per_iteration(warmup, steps_per_epoch, epochs):
    milestones = (1, 3, 7, 7, 14, 20, 21)
    for schedule in (
        SteppedPerIteration("cosine", warmup),
        SteppedPerIteration("multistep", warmup, milestones, gamma=0.6),
    ):
        # Longer than planned, so that many waves pass.
        expected = torch_rates(schedule, steps_per_epoch, epochs, epochs + 5)
        found = [schedule.factor(step, steps_per_epoch, epochs) for step in range(len(expected))]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_code_swings_where_the_paper_falls():
    """A wave of 400 iterations on ResNet, and a rate that the milestones of AlexNet never reach."""
    reference = CONFIGURATIONS["resnet18_cifar100"].learning_rate(reference=True)
    usual = CONFIGURATIONS["resnet18_cifar100"].learning_rate()
    zeros = [step for step in range(5 * 391, 200 * 391) if reference.factor(step, 391, 200) < 1e-12]
    assert set(np.diff(zeros)) == {400}
    assert usual.factor(100 * 391, 391, 200) == pytest.approx(0.5)
    assert usual.factor(199 * 391, 391, 200) < 1e-3
    assert max(reference.factor(step, 391, 200) for step in range(6 * 391)) > 1
    alexnet = CONFIGURATIONS["alexnet_cifar10"].learning_rate(reference=True)
    assert {alexnet.factor(epoch * 391, 391, 200) for epoch in (5, 60, 120, 199)} == {1.0}
    planned = CONFIGURATIONS["alexnet_cifar10"].learning_rate()
    assert [planned.factor(epoch * 391, 391, 200) for epoch in (59, 60, 120, 160)] == [1.0, 0.5, 0.25, 0.125]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("constant",), {}, UnknownName, "learning-rate schedule"),
        (("cosine", -1), {}, BadInput, "warmup must be at least 0"),
        (("cosine", 0.5), {}, BadType, "warmup must be a whole number"),
        (("cosine", True), {}, BadType, "warmup must be a whole number"),
        (("cosine",), {"milestones": (3,)}, BadInput, "milestones belong to"),
        (("multistep",), {"milestones": (0, 3)}, BadInput, "each of milestones must be at least 1"),
        (("multistep",), {"milestones": (3.5,)}, BadType, "each of milestones must be a whole number"),
        (("multistep",), {"milestones": 3}, BadType, "milestones must be a list"),
        (("multistep",), {"milestones": "36"}, BadType, "milestones must be a list"),
        (("multistep",), {"gamma": -0.5}, BadInput, "gamma"),
    ],
)
def test_schedules_that_cannot_be(arguments, options, error, message):
    with pytest.raises(error, match=message):
        SteppedPerIteration(*arguments, **options)


def test_a_schedule_is_a_value():
    assert SteppedPerIteration("multistep", milestones=[3, 4]) == SteppedPerIteration("multistep", milestones=(3, 4))
    assert len({SteppedPerIteration("cosine"), SteppedPerIteration("cosine", 0)}) == 1


def played(timeline, model="fc5"):
    experiment = Experiment(model, "digits", timeline, width=0.03, profile="smoke")
    return run(experiment, progress=False), final_state(experiment)


def test_one_shot_pruning_with_and_without_the_penalty():
    timelines = {
        "l1": recipes.recipe("l1_one_shot", 0.8, 2, 1e-3),
        "dense": recipes.recipe("dense_one_shot", 0.8, 2),
        "random": recipes.recipe("dense_one_shot", 0.8, 2, "random"),
    }
    found = {name: played(timeline) for name, timeline in timelines.items()}
    for name, (rows, state) in found.items():
        assert [row["label"] for row in rows] == ["dense", "pruned"], name
        assert rows[0]["sparsity"] == 0 and rows[1]["sparsity"] == pytest.approx(0.8, abs=1e-3)
        assert [row["epoch"] for row in rows] == [2, 2]  # nothing is trained behind the cut
        assert state.masks.sparsity == pytest.approx(0.8, abs=1e-3)
    (method, strength), *more = timelines["l1"][0].penalty
    assert (method.name, method.over, strength, more) == ("l1", "all", 1e-3, [])
    assert found["dense"][0][0]["accuracy"] == found["random"][0][0]["accuracy"]
    cut = {name: state.masks for name, (_, state) in found.items()}
    assert any(not torch.equal(mask, cut["random"][name]) for name, mask in cut["dense"].items())
    # One threshold for all layers: the smallest that stays is above whatever the dense network has lost.
    trained = final_state(Experiment("fc5", "digits", timelines["l1"][:2], width=0.03, profile="smoke")).model
    sizes = {name: trained.get_parameter(name).detach().abs() for name in cut["l1"]}
    kept = torch.cat([sizes[name][mask] for name, mask in cut["l1"].items()])
    lost = torch.cat([sizes[name][~mask] for name, mask in cut["l1"].items()])
    assert len(lost) == round(0.8 * (len(kept) + len(lost)))
    assert float(lost.max()) <= float(kept.min())


def test_the_penalty_of_one_shot_pruning_makes_weights_small():
    absolute = {}
    for strength in (0.0, 1e-2):
        state = played(recipes.l1_one_shot(0.5, 3, strength)[:2])[1]
        absolute[strength] = sum(float(p.detach().abs().sum()) for p in state.model.parameters())
    assert absolute[1e-2] < 0.8 * absolute[0.0]
    for wrong, error in ((-1e-3, BadInput), ("0.1", BadType), (float("nan"), BadInput)):
        with pytest.raises(error, match="strength"):
            recipes.l1_one_shot(0.5, 3, wrong)


def test_smart_ratio_prunes_before_training_and_more_with_depth():
    sparsity = 0.9
    rows, state = played(recipes.recipe("smart_ratio", sparsity, 1), model="fc12")
    assert [row["label"] for row in rows] == ["final"]
    assert rows[0]["sparsity"] == pytest.approx(sparsity, abs=1e-3)
    weights = [name for name, parameter in state.model.named_parameters() if parameter.dim() == 2]  # from front to back
    assert set(weights) == set(state.masks)
    sizes = [state.masks[name].numel() for name in weights]
    kept = [int(state.masks[name].sum()) for name in weights]
    assert kept[-1] == round(0.3 * sizes[-1])
    depth = len(sizes)
    shares = [((depth - i) ** 2 + depth - i) * size for i, size in enumerate(sizes)]
    scale = (sum(kept) - kept[-1]) / sum(shares[:-1])
    for count, share in zip(kept[:-1], shares[:-1], strict=True):
        assert abs(count - scale * share) <= 2
    for name, mask in state.masks.items():
        assert not state.model.get_parameter(name)[~mask].any()
    # Chosen by chance, not by size: some of what is alive was smaller at the start than half of what is dead.
    start, mask = state.snapshots["init"][weights[0]].abs(), state.masks[weights[0]]
    assert float(start[mask].min()) < float(start[~mask].median())
