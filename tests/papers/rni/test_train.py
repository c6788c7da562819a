"""train and prune_finetune: the recipe step by step, what the logs say, what is refused, and that nothing else changes."""

import copy
import inspect
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, BadType, BudgetError, PruningError, UnknownName, Unprunable
from pruning_core.experiments import recipes
from pruning_core.experiments.recipes.chapters import RECEDING_OPTIMIZER, receding_rate
from pruning_core.methods.polarization import Polarization
from pruning_core.methods.rni import RecedingNeurons
from pruning_core.methods.slimming import Slimming
from pruning_core.methods.ucs import UniformChannelScaling
from pruning_core.models.layers.norms import ClampedBatchNorm2d, SigmoidBatchNorm2d
from pruning_core.papers.rni import pipeline as receding
from pruning_core.papers.rni.pipeline import acting_scales, fit_best, penalty_of, prune_finetune, train
from pruning_core.training.fit import History

SMALL = {"dataset": "digits", "limit": 500, "device": "cpu", "progress": False}


def small(method="rni", epochs=2, **options):
    return train(arch="resnet20", method=method, epochs=epochs, lr=0.05, width=0.25, **{**SMALL, **options})


@pytest.fixture(scope="module")
def trained():
    return small(snapshots=True, epochs=3, reg_weight=1e-3, b=0.0)


@pytest.fixture(scope="module")
def fresh():
    return small(epochs=0)[0]


def test_the_signatures_are_the_official_ones():
    names = [p.name for p in inspect.signature(train).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert names == ["dataset", "arch", "method", "reg_weight", "b", "epochs", "lr", "batch_size", "seed", "device"]
    names = [p.name for p in inspect.signature(prune_finetune).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert names == ["model", "dataset", "method", "prune_pc", "epochs", "lr", "batch_size", "seed", "device"]
    defaults = {p.name: p.default for p in inspect.signature(train).parameters.values()}
    assert (defaults["dataset"], defaults["arch"], defaults["method"]) == ("cifar10", "vgg16", "rni")
    assert (defaults["reg_weight"], defaults["b"], defaults["epochs"], defaults["lr"]) == (1e-4, 3, 160, 0.1)
    assert inspect.signature(prune_finetune).parameters["prune_pc"].default == 0.5


def test_the_logs_say_what_happened(trained):
    model, logs = trained
    lists = {"train_loss", "penalty", "lr", "validation_acc", "test_acc", "importances"}
    assert set(logs) == lists | {"best_epoch"}
    assert all(len(logs[name]) == 3 for name in lists)
    assert logs["lr"] == pytest.approx([0.05, 0.005, 0.0005])
    assert all(0 <= accuracy <= 1 for name in ("validation_acc", "test_acc") for accuracy in logs[name])
    assert logs["best_epoch"] == logs["validation_acc"].index(max(logs["validation_acc"]))
    best = acting_scales(model)
    assert len(best) == 19
    for name, scale in logs["importances"][logs["best_epoch"]].items():
        assert torch.equal(scale, best[name])
        assert torch.equal(scale, torch.sigmoid(model.get_submodule(name).weight.detach()))
    assert not model.training
    assert next(model.parameters()).device.type == "cpu"
    accuracy = pc.evaluate(model, pc.load_data("digits", limit=500).test).accuracy / 100
    assert accuracy == pytest.approx(logs["test_acc"][logs["best_epoch"]])


def test_each_method_gets_its_norms_and_its_penalty():
    kinds = {"rni": SigmoidBatchNorm2d, "l1": nn.BatchNorm2d, "ucs": nn.BatchNorm2d, "polarization": ClampedBatchNorm2d}
    for method, kind in kinds.items():
        model, logs = small(method, epochs=1, reg_weight=0.01)
        assert {type(m) for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {kind}
        assert (logs["penalty"][0] != 0) == (method != "ucs")
        _, without = small(method, epochs=1, reg_weight=0)
        assert without["penalty"] == [0.0]
        assert (without["train_loss"] != logs["train_loss"]) == (method != "ucs")


def test_penalties_carry_their_strength_and_shift():
    model = pc.build_model("resnet20", ((1, 8, 8), 10), width=0.25, norm="sigmoid", seed=0)
    assert penalty_of(RecedingNeurons(b=2.0), 0.3)(model).item() == pytest.approx(
        0.3 * RecedingNeurons(b=2.0).penalty(model, pc.Masks()).item()
    )
    assert penalty_of(Slimming(), 0.0) is None
    assert penalty_of(UniformChannelScaling(), 1.0) is None
    _, zero = small(epochs=1, b=0.0, reg_weight=0.01)
    _, three = small(epochs=1, b=3, reg_weight=0.01)
    assert zero["penalty"][0] < three["penalty"][0]  # R rises with b


@pytest.mark.parametrize("method", ["rni", "l1"])
def test_the_recipe_step_by_step(method):
    """One epoch in order against a loop by hand: Nesterov, decay, ten times the rate and no decay for sigmoid norms."""
    data = pc.load_data("digits", limit=400, dtype=torch.float64)
    norm = "sigmoid" if method == "rni" else "batch"
    model = pc.build_model("cnn5", data, width=0.125, norm=norm, seed=3).double()
    ours = {"rni": RecedingNeurons(b=1.0), "l1": Slimming()}[method]
    twin = copy.deepcopy(model).train()
    own = {id(p) for m in twin.modules() if isinstance(m, SigmoidBatchNorm2d) for p in m.parameters()}
    velocity = {p: torch.zeros_like(p) for p in twin.parameters()}
    for start in range(0, len(data.train), 64):
        inputs, labels = data.train.inputs[start : start + 64], data.train.labels[start : start + 64]
        twin.zero_grad()
        scales = torch.cat([m.weight for m in twin.modules() if isinstance(m, nn.BatchNorm2d)])
        s = torch.sigmoid(scales + 1.0)
        extra = (s * (1 - s.log())).sum() if method == "rni" else scales.abs().sum()
        (F.cross_entropy(twin(inputs), labels) + 0.02 * extra).backward()
        with torch.no_grad():
            for p in twin.parameters():
                rate, decay = (0.05, 0.0) if id(p) in own else (0.005, 1e-4)
                gradient = p.grad + decay * p
                velocity[p] = 0.9 * velocity[p] + gradient
                p -= rate * (gradient + 0.9 * velocity[p])
    before = [p.detach().clone() for p in model.parameters()]
    fit_best(model, data, penalty_of(ours, 0.02), 1, 0.005, 64, 0, torch.device("cpu"), progress=False, shuffle=False)
    for old, a, b in zip(before, model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
        assert not torch.equal(a, old)


def test_the_schedule_falls_at_half_and_three_quarters():
    optimizer, rate = RECEDING_OPTIMIZER, receding_rate(160)
    assert (optimizer.lr, optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.1, 0.9, True, 1e-4)
    assert [rate.factor(epoch, 1, 160) for epoch in (0, 79, 80, 119, 120, 159)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert [receding_rate(7).factor(epoch, 1, 7) for epoch in range(7)] == pytest.approx(
        [1, 1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert receding_rate(1).factor(0, 1, 1) == 1
    assert receding_rate(1, reference=True).factor(0, 1, 1) == pytest.approx(0.01)


@pytest.mark.parametrize("epochs", [1, 2, 3, 10, 160])
def test_the_two_pipelines_train_at_the_same_learning_rates(epochs, fresh, monkeypatch):
    """Of train, prune_finetune and the recipe, before and after the cut, at every epoch."""
    asked = []

    def not_trained(model, split, **options):
        asked.append(options)
        return History(pc.Trainer(model, epochs=0), None)

    monkeypatch.setattr(receding, "fit", not_trained)
    small(epochs=epochs)
    prune_finetune(fresh, prune_pc=0.3, epochs=epochs, lr=0.05, **SMALL)
    stages = [s for s in recipes.receding("rni", 0.3, epochs, epochs, strength=0.1) if isinstance(s, pc.Train)]
    stages += [s for s in recipes.scaled_from_scratch(0.3, epochs) if isinstance(s, pc.Train)]
    assert len(asked) == 2
    assert len(stages) == 3
    for options in asked:
        assert options["optimizer"].lr == 0.05
        for stage in stages:
            rates = [
                [schedule.factor(epoch, 1, epochs) for epoch in range(epochs)]
                for schedule in (options["learning_rate"], stage.learning_rate)
            ]
            assert rates[0] == rates[1]
            assert rates[0][0] == 1


def test_the_best_epoch_comes_from_validation_and_from_test_only_as_reference(monkeypatch):
    accuracies = {"validation": [30.0, 50.0, 50.0], "test": [60.0, 20.0, 10.0]}
    data = pc.load_data("digits", limit=400)
    names = {id(data.validation): "validation", id(data.test): "test"}
    seen = {"validation": 0, "test": 0}

    def scripted(model, split, **options):
        name = names[id(split)]
        seen[name] += 1
        found = pc.evaluate(model, split, **options)
        return found._replace(accuracy=accuracies[name][seen[name] - 1])

    monkeypatch.setattr(receding, "evaluate", scripted)
    monkeypatch.setattr("pruning_core.training.trainer.evaluate", scripted)
    for reference, best in ((False, 1), (True, 0)):
        seen.update(validation=0, test=0)
        model = pc.build_model("cnn5", data, width=0.1, norm="sigmoid", seed=0)
        _, logs = fit_best(
            model, data, None, 3, 0.05, 64, 0, torch.device("cpu"), reference=reference, progress=False, snapshots=True
        )
        assert logs["best_epoch"] == best
        assert logs["validation_acc"] == [0.3, 0.5, 0.5]
        assert logs["test_acc"] == [0.6, 0.2, 0.1]
        returned = acting_scales(model)
        assert all(torch.equal(scale, returned[name]) for name, scale in logs["importances"][best].items())
        assert any(not torch.equal(scale, returned[name]) for name, scale in logs["importances"][2].items())


def test_same_seed_same_network_and_the_callers_random_numbers_are_left_alone():
    torch.default_generator.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other = (small(epochs=1, seed=seed)[0] for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_the_seed_governs_the_initial_weights():
    built = pc.build_model("resnet20", "digits", width=0.25, norm="sigmoid", seed=5)
    assert all(
        torch.equal(a, b) for a, b in zip(small(epochs=0, seed=5)[0].parameters(), built.parameters(), strict=True)
    )


def test_networks_without_a_sigmoid_form_are_prepared_under_the_seed():
    models = [train(arch="densenet22", epochs=0, width=0.25, seed=seed, **SMALL)[0] for seed in (0, 0, 1)]
    scales = [torch.cat([m.weight.detach() for m in n.modules() if isinstance(m, SigmoidBatchNorm2d)]) for n in models]
    assert torch.equal(scales[0], scales[1])
    assert not torch.equal(scales[0], scales[2])
    assert abs(scales[0].mean()) < 0.2
    assert not any(type(m) is nn.BatchNorm2d for m in models[0].modules())


@pytest.mark.parametrize("method", ["rni", "l1", "ucs", "polarization"])
def test_pruning_meets_the_fraction_and_fine_tuning_keeps_the_norms(method):
    model, _ = small(method, epochs=1)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.layer1.train()
    modes = [m.training for m in model.modules()]
    rng = torch.get_rng_state()
    tuned, logs = prune_finetune(model, method=method, prune_pc=0.4, epochs=1, lr=0.01, snapshots=True, **SMALL)
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    sizes = {name: model.get_submodule(name).out_channels for name in logs["kept"]}
    assert len(sizes) == 9
    assert sum(sizes.values()) == 84
    assert sum(logs["kept"].values()) == 84 - 34
    assert logs["removed"] == pytest.approx(34 / 84)
    assert min(logs["kept"].values()) >= 3
    for name, count in logs["kept"].items():
        assert tuned.get_submodule(name).out_channels == count
    if method == "ucs":
        assert all(abs(logs["kept"][name] - 0.6 * size) <= 1 for name, size in sizes.items() if size > 4)
    assert logs["parameters"] == sum(p.numel() for p in tuned.parameters())
    assert logs["macs"] == pc.count_macs(tuned, torch.zeros(1, 1, 8, 8))
    kinds = [{type(m) for m in net.modules() if isinstance(m, nn.BatchNorm2d)} for net in (model, tuned)]
    assert kinds[0] == kinds[1]
    assert logs["penalty"] == [0.0]
    assert len(logs["importances"]) == 1
    assert logs["best_epoch"] == 0


def test_accuracy_right_after_the_cut_is_that_of_the_cut_network():
    model, _ = small(epochs=2)
    cut, logs = prune_finetune(model, prune_pc=0.3, epochs=0, **SMALL)
    assert logs["best_epoch"] is None
    assert logs["test_acc"] == []
    data = pc.load_data("digits", limit=500)
    assert logs["pruned_acc"] == pytest.approx(pc.evaluate(cut, data.test).accuracy / 100)
    result = pc.prune(model, "rni", 0.3, example_input=data.train.inputs[:1])
    kept = {name: int(group.alive(result.masks).sum()) for name, group in result.sites.groups.items()}
    if min(kept.values()) >= 3:
        assert kept == logs["kept"]
    nothing, logs = prune_finetune(model, prune_pc=0, epochs=0, **SMALL)
    assert all(torch.equal(a, b) for a, b in zip(nothing.parameters(), model.parameters(), strict=True))
    assert logs["removed"] == 0


@pytest.mark.parametrize("method", ["rni", "l1", "ucs", "polarization"])
def test_reference_cuts_at_the_thresholds_also_at_the_ends(method):
    model, _ = small(method, epochs=0)
    with torch.no_grad():  # ordinary norms start with equal scales, which the thresholds cannot tell apart
        for i, module in enumerate(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            module.weight.copy_(torch.rand(len(module.weight), generator=torch.Generator().manual_seed(i)))
    _, none = prune_finetune(model, method=method, prune_pc=0.0, epochs=0, reference=True, **SMALL)
    assert sum(none["kept"].values()) == 84 - (9 if method == "ucs" else 1)
    _, half = prune_finetune(model, method=method, prune_pc=0.25, epochs=0, reference=True, **SMALL)
    scores = [acting_scales(model)[name.replace("conv1", "bn1")] for name in half["kept"]]
    masks = pc.methods.quantile_masks(scores, 0.25, "local" if method == "ucs" else "global")
    assert [*half["kept"].values()] == [int(mask.sum()) for mask in masks]
    _, all_ = prune_finetune(model, method=method, prune_pc=1, epochs=0, reference=True, **SMALL)
    assert set(all_["kept"].values()) == {3}


def test_vgg_and_resnet_of_the_paper_by_their_short_names(monkeypatch):
    built = []

    def built_model(name, data, **options):
        built.append((name, options["norm"]))
        return pc.build_model("cnn5", data, **(options | {"width": 0.1}))

    monkeypatch.setattr(receding, "build_model", built_model)
    for arch, method in (("vgg16", "rni"), ("resnet56", "l1"), ("vgg16_rni", "ucs"), ("resnet20", "rni")):
        train(arch=arch, method=method, epochs=0, **SMALL)
    assert built == [
        ("vgg16_rni", "sigmoid"),
        ("resnet56_rni", "batch"),
        ("vgg16_rni", "batch"),
        ("resnet20", "sigmoid"),
    ]


def test_the_constants_of_the_paper_are_used_for_cifar(monkeypatch):
    asked = []

    def loaded(name, **options):
        asked.append((name, options["normalise"], options["augment"], options["limit"]))
        return pc.load_data("digits", limit=400)

    monkeypatch.setattr(receding, "load_data", loaded)
    for name in ("cifar10", "cifar100", "digits"):
        train(name, "resnet20", epochs=0, width=0.25, device="cpu", progress=False, limit=7)
    assert asked == [
        ("cifar10", "cifar10/rni", "cifar10/rni", 7), ("cifar100", "cifar100/rni", "cifar100/rni", 7),
        ("digits", None, None, 7),
    ]  # fmt: skip


def test_the_folder_of_the_data_can_be_named(tmp_path):
    model, _ = small(epochs=0, root=tmp_path / "one")
    prune_finetune(model, epochs=0, root=str(tmp_path / "other"), **SMALL)
    assert sorted(file.parent.name for file in tmp_path.rglob("digits.safetensors")) == ["one", "other"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "slimming"}, UnknownName, "unknown method 'slimming'"),
        ({"method": None}, UnknownName, "unknown method"),
        ({"arch": "vgg17"}, UnknownName, "unknown network 'vgg17'"),
        ({"arch": 56}, UnknownName, "unknown network 56"),
        ({"dataset": "cifar11"}, UnknownName, "unknown data set"),
        ({"reg_weight": math.nan}, BadInput, "reg_weight"),
        ({"reg_weight": -1.0}, BadInput, "reg_weight"),
        ({"reg_weight": "1"}, BadType, "reg_weight"),
        ({"b": math.inf}, BadInput, "b must be finite"),
        ({"b": "3"}, BadType, "b must be a number"),
        ({"b": math.nan, "method": "l1"}, BadInput, "b must be finite"),
        ({"seed": -1}, BadInput, "seed must be at least 0"),
        ({"seed": 1.5}, BadType, "seed must be a whole number"),
        ({"epochs": -1}, BadInput, "epochs"),
        ({"epochs": 1.5}, BadType, "epochs"),
        ({"lr": math.nan}, BadInput, "lr"),
        ({"batch_size": 0}, BadInput, "batch_size"),
        ({"width": 0}, BadInput, "width"),
        ({"arch": "lenet300"}, BadInput, "lenet300 has no batch norm"),
        ({"limit": 10}, BadInput, "limit=10"),
        ({"device": "abacus"}, BadInput, "torch knows no device 'abacus'"),
        ({"device": 1.5}, BadInput, "torch knows no device 1.5"),
    ],
)
def test_train_refuses_bad_input(options, error, message):
    with pytest.raises(error, match=message):
        train(**{**SMALL, "arch": "resnet20", "width": 0.25, "epochs": 1, **options})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"method": "magnitude"}, UnknownName, "unknown method"),
        (
            {"prune_pc": 1.0},
            BadInput,
            r"prune_pc must lie in \[0, 1\).*only the official thresholds \(reference=True\)",
        ),
        ({"prune_pc": 1.01, "reference": True}, BadInput, r"prune_pc must lie in \[0, 1\]"),
        ({"seed": "a"}, BadType, "seed must be a whole number"),
        ({"prune_pc": -0.1}, BadInput, "prune_pc"),
        ({"prune_pc": 50}, BadInput, "prune_pc"),
        ({"prune_pc": 50, "reference": True}, BadInput, "prune_pc"),
        ({"prune_pc": True, "reference": True}, BadType, "prune_pc"),
        ({"prune_pc": "half"}, BadType, "prune_pc"),
        ({"prune_pc": math.nan}, BadInput, "prune_pc"),
        ({"prune_pc": 0.9}, BudgetError, "a layer would be emptied"),
        ({"model": "resnet20"}, BadType, r"torch\.nn\.Module"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(64, 10))}, Unprunable, "no channels"),
        ({"epochs": 1.0}, BadType, "epochs"),
    ],
)
def test_prune_finetune_refuses_bad_input(options, error, message, fresh):
    model = options.get("model") or fresh
    given = {name: value for name, value in options.items() if name != "model"}
    with pytest.raises(error, match=message):
        prune_finetune(model, **{**SMALL, "epochs": 0, **given})


def test_rni_refuses_a_network_with_ordinary_norms():
    model, _ = small("l1", epochs=0)
    with pytest.raises(PruningError, match="ordinary batch norm, and RNI ranks by sigmoid ones"):
        prune_finetune(model, **SMALL)


def test_polarisation_is_among_the_methods():
    assert receding.OFFICIAL_METHODS["polarization"] is Polarization
    assert receding.OFFICIAL_METHODS["l1"] is Slimming


def test_observers_see_every_epoch_of_both_functions():
    seen: list[tuple[str, int]] = []

    def watching(name):
        return lambda trainer, row: seen.append((name, row["epoch"]))

    model, _ = small(epochs=2, observers=[watching("train")])
    prune_finetune(model, method="rni", prune_pc=0.5, epochs=1, observers=[watching("tune")], **SMALL)
    assert seen == [("train", 1), ("train", 2), ("tune", 1)]
    with pytest.raises(PruningError, match="observers"):
        small(observers=[3])
