"""Another loss, a network of one's own to begin with, measuring beside each cut: what keys hold and what rows say."""

import functools
import inspect
import shutil
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional

import pruning_core as pc
from pruning_core.errors import BadInput, CorruptFile, PruningError
from pruning_core.experiments import measured_cuts, recipes
from pruning_core.experiments.besides import Besides
from pruning_core.experiments.runs import final_state
from pruning_core.experiments.timelines import every_stage
from pruning_core.methods import Snip
from pruning_core.training.losses import LOSSES, CrossEntropy, SquaredError


@pytest.fixture(autouse=True)
def _empty(empty_cache):
    """Every test here starts without records."""


def experiment(timeline=None, model="lenet300", **options) -> pc.Experiment:
    settings = {"width": 0.1, "limit": 400, "profile": "smoke"} | options
    return pc.Experiment(model, "digits", timeline or recipes.dense(1), **settings)


def doubled(outputs, labels):
    return 2 * functional.cross_entropy(outputs, labels)


def as_before():
    """The same name, other code."""

    def doubled(outputs, labels):
        return 3 * functional.cross_entropy(outputs, labels)

    return doubled


@dataclass(frozen=True)
class Powered:
    power: float = 1.0

    def __call__(self, outputs, labels):
        return functional.cross_entropy(outputs, labels) ** self.power


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, outputs, labels):
        return self.factor * functional.cross_entropy(outputs, labels)

    def method(self, outputs, labels):
        return self(outputs, labels)


# --- keys


def test_keys_of_experiments_without_any_of_it_are_those_of_before():
    paper = pc.Experiment("lenet300", "digits", [pc.Train(3)], profile="paper")
    assert paper.key == "bb097d9e39e8b4d8"
    for name in ("cross_entropy", CrossEntropy(), None):
        assert pc.Experiment("lenet300", "digits", [pc.Train(3)], profile="paper", loss=name).key == paper.key


def test_losses_that_differ_have_keys_that_differ():
    losses = [
        "mse", "hinge", doubled, as_before(), Powered(1.5), Powered(2.0), Scaled(2.0), Scaled(3.0), Scaled(2.0).method,
        nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1), functional.cross_entropy, CrossEntropy(0.1),
        functools.partial(functional.cross_entropy, label_smoothing=0.1),
        functools.partial(functional.cross_entropy, label_smoothing=0.2),
    ]  # fmt: skip
    assert len({experiment(loss=loss).key for loss in losses}) == len(losses)
    assert experiment(loss=SquaredError()).key == experiment(loss="mse").key
    assert experiment(loss=Scaled(2.0)).key == experiment(loss=Scaled(2.0)).key
    assert experiment(loss=as_before()).key == experiment(loss=as_before()).key


# --- losses


@pytest.mark.parametrize("loss", ["mse", "hinge", doubled, nn.CrossEntropyLoss()])
def test_a_loss_is_trained_pruned_and_measured_by(loss):
    rows = pc.run(experiment(recipes.prune_and_fine_tune("snip", 0.5, 2, 1), loss=loss), progress=False)
    state = final_state(experiment(recipes.prune_and_fine_tune("snip", 0.5, 2, 1), loss=loss))
    function = LOSSES[loss] if isinstance(loss, str) else loss
    split = state.data.test
    with torch.no_grad():
        outputs = state.model.eval()(split.inputs.reshape(len(split), 1, 8, 8))
    assert rows[-1]["loss"] == pytest.approx(float(function(outputs, split.labels)), rel=1e-4)
    assert {row["criterion"] for row in rows} == {
        loss if isinstance(loss, str) else getattr(loss, "__name__", "CrossEntropyLoss")
    }
    assert rows[-1]["sparsity"] == pytest.approx(0.5, abs=1e-3)


def test_the_loss_reaches_the_method():
    seen = []

    class Looking(Snip):
        def score(self, view):
            logits, labels = torch.eye(3), torch.tensor([0, 1, 2])
            seen.append(float(view.loss(logits, labels)))
            return super().score(view)

    final_state(experiment([pc.Prune(Looking(), 0.5)], loss=doubled))
    assert seen == pytest.approx([float(doubled(torch.eye(3), torch.tensor([0, 1, 2])))])


def test_losses_by_name_are_those_of_torch():
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    onehot = functional.one_hot(labels, 4).float()
    assert float(LOSSES["mse"](logits, labels)) == pytest.approx(float(functional.mse_loss(logits, onehot)))
    margins = (1 - logits.gather(1, labels[:, None]) + logits).clamp(min=0)
    by_hand = (margins.sum(1) - 1) / 4  # the label's own margin is 1
    assert float(LOSSES["hinge"](logits, labels)) == pytest.approx(float(by_hand.mean()))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("mes", "did you mean 'mse'"), (nn.MSELoss, "loss must be a name"), (3, "loss must be a name"),
        (lambda outputs, labels: outputs, "the loss must return one number, the mean over"),
        (functional.mse_loss, "the loss does not take outputs"),
    ],
)  # fmt: skip
def test_what_is_no_loss_is_refused(loss, message):
    with pytest.raises(PruningError, match=message):
        pc.run(experiment(loss=loss), progress=False)


def test_label_smoothing_belongs_to_cross_entropy():
    with pytest.raises(BadInput, match="label_smoothing is a part of cross-entropy"):
        experiment([pc.Train(1, label_smoothing=0.1)], loss="mse")


# --- a network of one's own


@pytest.fixture
def network(tmp_path):
    model = pc.build_model("vgg8", "digits", width=0.25, seed=7)
    pc.fit(model, pc.load_data("digits", limit=400), epochs=1, progress=False)
    pc.save_network(model, tmp_path / "own.safetensors")
    return model, tmp_path / "own.safetensors"


def begun(path, timeline, **options):
    return experiment(timeline, "vgg8", width=0.25, network=path, **options)


def test_an_experiment_begins_with_the_weights_of_the_file(network):
    model, path = network
    state = final_state(begun(path, [pc.Measure("given")]))
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.model.state_dict().items())
    (row,) = pc.run(begun(path, [pc.Measure("given")]), progress=False)
    assert row["accuracy"] == pytest.approx(pc.evaluate(model, pc.load_data("digits", limit=400).test).accuracy)
    assert (row["method"], row["sparsity"]) == ("dense", 0.0)
    assert row["network_file"] == pc.records.file_sha256(path)


def test_the_key_holds_what_the_file_holds_and_not_where_it_lies(network, tmp_path):
    _, path = network
    shutil.copy(path, tmp_path / "copy.safetensors")
    key = begun(path, [pc.Train(1)]).key
    assert begun(tmp_path / "copy.safetensors", [pc.Train(1)]).key == key
    assert experiment([pc.Train(1)], "vgg8", width=0.25).key != key
    pc.save_network(pc.build_model("vgg8", "digits", width=0.25, seed=8), path)
    assert begun(path, [pc.Train(1)]).key != key


def test_a_file_that_changes_in_between_is_refused(network):
    _, path = network
    asked = begun(path, [pc.Train(1)])
    pc.save_network(pc.build_model("vgg8", "digits", width=0.25, seed=8), path)
    with pytest.raises(BadInput, match="was changed after"):
        pc.run(asked, progress=False)


@pytest.mark.parametrize("shrink", [False, True])
def test_what_a_pruned_network_lacks_counts_as_removed_and_stays_away(network, tmp_path, shrink):
    model, path = network
    result = pc.prune(model, "l1_norm", 0.5, example_input=torch.ones(1, 1, 8, 8))
    if shrink:
        pc.save_network(result.shrink(), path, like=model)
    else:
        result.save(path)
    given, cut, tuned = pc.run(
        begun(path, [pc.Measure("given"), pc.Prune("l1_norm", 0.75), pc.Measure("cut"), pc.Train(1)]), progress=False
    )
    assert given["parameters"] == sum(p.numel() for p in result.shrink().parameters())
    assert (given["method"], given["asked"]) == ("network file", None)
    assert cut["channels_removed"] == pytest.approx(0.75, abs=0.02)
    assert tuned["parameters"] == cut["parameters"] < given["parameters"]
    whole = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    left = sum(m.weight.numel() for m in result.shrink().modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert given["sparsity"] == pytest.approx(1 - left / whole)


def test_a_run_from_a_file_goes_on_where_it_was_stopped(network):
    _, path = network
    whole = pc.run(begun(path, [pc.Train(3)]), progress=False)
    begun(path, []).record().parent.joinpath(f"{begun(path, [pc.Train(3)]).key}.json").unlink()
    for file in (begun(path, []).record().parent.parent / "checkpoints").glob("*"):
        file.unlink()
    for _ in range(2):
        with pytest.raises(pc.PruningError, match="goes on"):
            pc.run(begun(path, [pc.Train(3)]), progress=False, max_minutes=1e-9)
    parts = pc.run(begun(path, [pc.Train(3)]), progress=False, max_minutes=1e-9)
    assert parts[0]["accuracy"] == whole[0]["accuracy"]
    assert parts[0]["loss"] == whole[0]["loss"]


def test_a_file_that_is_no_network_for_this_is_refused(network, tmp_path):
    _, path = network
    (tmp_path / "text").write_text("hello")
    pc.records.write_atomically(tmp_path / "cut.safetensors", path.read_bytes()[:-100])
    for bad, kind in ((tmp_path / "none", BadInput), (tmp_path / "text", CorruptFile), (tmp_path, BadInput)):
        with pytest.raises(kind):
            begun(bad, [pc.Train(1)])
    with pytest.raises(CorruptFile, match="truncated"):
        begun(tmp_path / "cut.safetensors", [pc.Train(1)])
    state = final_state(experiment([pc.Train(1)]))
    state.save(tmp_path / "run.safetensors")
    with pytest.raises(BadInput, match="holds run, and not a network"):
        begun(tmp_path / "run.safetensors", [pc.Train(1)])
    with pytest.raises(BadInput, match="does not fit"):
        pc.run(experiment([pc.Train(1)], "lenet300", network=path), progress=False)
    with pytest.raises(PruningError, match="network must be the path"):
        begun(3, [pc.Train(1)])
    with pytest.raises(BadInput, match="not with both"):
        pc.Experiment("torchvision/resnet18", "digits", [pc.Load("IMAGENET1K_V1")], network=path)


# --- beside each cut


def test_every_cut_is_measured_before_and_right_after():
    timeline = [
        pc.Train(2, during=pc.Every(1, [pc.Prune("magnitude", 0.5, schedule="linear")])),
        pc.Repeat(2, [pc.Prune("magnitude", 0.8, schedule="geometric")]),
    ]
    rows = pc.run(experiment(measured_cuts(timeline)), progress=False)
    assert [row["label"] for row in rows] == ["before cut", "after cut"] * 4 + ["final"]
    sparsities = [row["sparsity"] for row in rows]
    assert sparsities[1] == pytest.approx(0.25, abs=0.01)
    assert sparsities[2] == pytest.approx(0.25, abs=0.01)
    assert sparsities == sorted(sparsities)
    plain = pc.run(experiment(timeline), progress=False)
    assert plain[-1]["sparsity"] == rows[-1]["sparsity"]


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_no_cut_of_a_recipe_is_forgotten_or_measured_twice(name):
    needed = {"method": "magnitude", "kept": [0.5], "sparsity": 0.5, "strength": 0.1}
    numbers = {"epochs": 20, "fine_tune": 2, "retrain": 2, "rounds": 2, "epochs_mine": 6, "epochs_tune": 2, "early": 1}
    recipe = recipes.RECIPES[name]
    takes = inspect.signature(recipe).parameters
    asked = {n: (needed | numbers)[n] for n, p in takes.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    if name == "receding":
        asked["method"] = "slimming"
    timeline = recipe(**asked)
    found = measured_cuts(timeline)
    stages = list(every_stage(found))
    assert [s for s in stages if isinstance(s, pc.Prune)] == [
        s for s in every_stage(timeline) if isinstance(s, pc.Prune)
    ]
    assert measured_cuts(found) == found

    def check(sequence):
        for before, stage, after in zip([None, *sequence], sequence, [*sequence[1:], None], strict=False):
            if isinstance(stage, pc.Prune):
                assert isinstance(before, pc.Measure)
                assert isinstance(after, pc.Measure)
            held = stage.during if isinstance(stage, pc.Train) else stage
            check(list(getattr(held, "stages", ())))

    check(found)


def test_what_is_asked_besides_is_checked_and_nothing_asked_changes_nothing():
    plain = experiment()
    assert Besides().asked_of(plain) is plain
    assert Besides(loss="mse").asked_of(plain).key == experiment(loss="mse").key
    for bad in ({"loss": "mes"}, {"network": "nowhere"}, {"measure_cuts": 1}, {"watch": "logs"}):
        with pytest.raises(PruningError):
            Besides(**bad)
