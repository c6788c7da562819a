"""The training loop as everybody calls it: it learns, one seed for everything, nothing of the caller disturbed, bad input
refused first."""

import builtins
import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.training.evaluation import evaluate
from pruning_core.training.fit import fit
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.tensorboard import TensorBoard
from pruning_core.training.trainer import TrainingDiverged
from tests.training.small_networks import ALL, convolutional, network, same, some_masks


def test_it_learns_real_digits_and_measures_them_right(digits):
    history = fit(
        network(hidden=64), digits, epochs=15, optimizer=Optimizer("adam", lr=0.005), batch_size=32, progress=False,
        learning_rate=LearningRate("cosine", warmup=1),
    )  # fmt: skip
    found = evaluate(history.model, digits.test)
    assert found.accuracy > 94
    history.model.eval()
    outputs = history.model(digits.test.inputs)
    assert found.n == len(digits.test)
    assert found.accuracy == pytest.approx(100 * float((outputs.argmax(1) == digits.test.labels).float().mean()))
    assert found.loss == pytest.approx(functional.cross_entropy(outputs, digits.test.labels).item(), rel=1e-5)
    assert found.accuracy <= found.accuracy5 <= 100
    assert [row["epoch"] for row in history] == list(range(1, 16))
    assert set(history[0]) == {
        "epoch", "train_loss", "train_accuracy", "penalty", "learning_rate", "seconds",
        "validation_loss", "validation_accuracy", "validation_accuracy5",
    }  # fmt: skip
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_the_rate_follows_its_schedule(digits):
    seen = []

    def watch(trainer, row):
        seen.append(row["learning_rate"])

    fit(
        network(), digits.train, epochs=4, optimizer=Optimizer(lr=0.1), observers=[watch], progress=False,
        learning_rate=LearningRate("multistep", milestones=(2,), warmup=0.5),
    )  # fmt: skip
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_only_trains_what_it_names(digits):
    model = network(norm=True)
    before = copy.deepcopy(model.state_dict())
    fit(model, digits.train, epochs=1, only=lambda name: name.startswith("2."), progress=False)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name, _ in model.named_parameters()} & changed == {"2.weight", "2.bias"}
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_layers_are_projected_after_each_step(digits):
    class Clamped(nn.Linear):
        def project_(self):
            with torch.no_grad():
                self.weight.clamp_(-0.01, 0.01)

    model = nn.Sequential(nn.Flatten(), Clamped(64, 10))
    fit(model, digits.train, epochs=1, progress=False)
    assert float(model[1].weight.abs().max()) <= 0.01


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.name + "+clip" * bool(s.clip))
def test_dead_weights_stay_exactly_zero_and_the_others_move(digits, settings):
    model = network(norm=True)
    masks = some_masks(model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    fit(model, digits.train, epochs=2, optimizer=settings, masks=masks, progress=False)
    for name, mask in masks.items():
        weight = model.get_parameter(name)
        assert torch.count_nonzero(weight[~mask]) == 0
        assert (weight[mask] != before[name][mask]).float().mean() > 0.9


def test_dead_gradients_do_not_count_in_clipping(digits):
    """A network with dead inputs trains like the network that never had them, clipping included."""
    wide, narrow = (
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(),
        nn.Sequential(nn.Flatten(), nn.Linear(40, 10)).double(),
    )
    alive = torch.zeros(10, 64, dtype=torch.bool)
    alive[:, :40] = True
    with torch.no_grad():
        narrow[1].weight.copy_(wide[1].weight[:, :40])
        narrow[1].bias.copy_(wide[1].bias)
    cut = Split(digits.train.inputs.flatten(1)[:, :40], digits.train.labels)
    settings = Optimizer(lr=0.1, clip=0.1, weight_decay=1e-3)
    fit(wide, digits.train, epochs=2, optimizer=settings, masks={"1.weight": alive}, progress=False)
    fit(narrow, cut, epochs=2, optimizer=settings, progress=False)
    assert torch.allclose(wide[1].weight[:, :40], narrow[1].weight, atol=1e-12)


def test_everything_follows_from_the_seed(digits):
    def trained(seed):
        return fit(network(dropout=0.5), digits.train, epochs=2, seed=seed, progress=False).model

    assert same(trained(1), trained(1))
    assert not same(trained(1), trained(2))


def test_the_callers_random_state_and_modes_are_left_alone(digits):
    model = network(norm=True, dropout=0.5).eval()
    model[2].train()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(model, digits, epochs=1, optimizer=Optimizer(noise=0.01), progress=False)
    evaluate(model, digits.test)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    torch.manual_seed(99)
    other = network(norm=True, dropout=0.5)
    fit(other, digits, epochs=1, optimizer=Optimizer(noise=0.01), progress=False)
    assert same(model, other)


def test_the_best_epoch_is_chosen_on_the_validation_split_only(digits):
    class Forbidden:
        def __getattr__(self, name):
            raise AssertionError("the test split was touched")

        __len__ = __getattr__

    data = SimpleNamespace(train=digits.train, validation=digits.validation, test=Forbidden())
    seen = []

    def watch(trainer, row):
        seen.append((row["validation_accuracy"], copy.deepcopy(trainer.model)))

    history = fit(
        network(),
        data,
        epochs=6,
        optimizer=Optimizer(lr=0.3),
        keep="best_validation",
        observers=[watch],
        progress=False,
    )
    accuracies = [accuracy for accuracy, _ in seen]
    assert history.best_epoch == accuracies.index(max(accuracies)) + 1
    assert same(history.model, seen[history.best_epoch - 1][1])
    assert evaluate(history.model, digits.validation).accuracy == max(accuracies)


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"channels_last": True}], ids=str)
def test_bfloat16_and_channels_last_train_as_well(digits, options):
    settings = Optimizer(lr=0.05)
    found = {}
    for name, extra in (("plain", {}), ("other", options)):
        model = convolutional()
        masks = some_masks(model, 0.7)
        fit(model, digits.train, epochs=4, optimizer=settings, masks=masks, progress=False, batch_size=64, **extra)
        assert all(torch.count_nonzero(model.get_parameter(n)[~m]) == 0 for n, m in masks.items())
        assert model[0].weight.dtype == torch.float32
        found[name] = evaluate(model, digits.test, precision=extra.get("precision", "float32"))
    assert found["other"].accuracy > found["plain"].accuracy - 5
    assert found["plain"].accuracy > 80


def test_inputs_follow_the_networks_dtype(digits):
    model = network().double()
    fit(model, digits.train, epochs=1, progress=False)
    assert model[1].weight.dtype == torch.float64


def test_tensorboard_receives_every_number(digits, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = TensorBoard(tmp_path, also=lambda trainer: {"sparsity": trainer.masks.sparsity})
    history = fit(network(), digits, epochs=2, observers=[board], progress=False)
    board.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert {"train_loss", "validation_accuracy", "sparsity"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("train_loss")] == [1, 2]
    assert events.Scalars("train_loss")[1].value == pytest.approx(history[1]["train_loss"])


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=r"pruning-core\[sweep\]"):
        TensorBoard(tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"epochs": -1}, BadInput, "epochs must be at least 0"),
        ({"epochs": 1.5}, BadType, "epochs must be a whole number"),
        ({"batch_size": 0}, BadInput, "batch_size must be at least 1"),
        ({"seed": "a"}, BadType, "seed must be a whole number"),
        ({"precision": "float16"}, UnknownName, "bfloat16"),
        ({"keep": "best"}, UnknownName, "best_validation"),
        ({"keep": "best_validation"}, BadInput, "needs a validation split"),
        ({"optimizer": "sgd"}, BadType, "holds settings"),
        ({"learning_rate": 0.1}, BadType, "schedule"),
        ({"masks": {"7.weight": torch.ones(1, dtype=torch.bool)}}, BadInput, "no parameter '7.weight'"),
        ({"masks": {"1.weight": torch.ones(1, dtype=torch.bool)}}, BadInput, "has shape"),
        ({"masks": {"1.weight": torch.ones(24, 64)}}, BadType, "bool"),
        ({"only": lambda name: False}, BadInput, "no parameter to train"),
        ({"penalty": lambda model: 3.0}, BadInput, "one number as a tensor"),
        ({"penalty": lambda model: model[1].weight}, BadInput, "one number as a tensor"),
        ({"checkpoint_every": 0}, BadInput, "checkpoint_every"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(digits, options, error, words):
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=words) as caught:
        fit(model, digits.train, **{"epochs": 1, "progress": False, **options})
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_broken_weights_are_refused_before_training(digits, bad):
    model = network(norm=True)
    with torch.no_grad():
        model[1].weight[0, 0] = bad
    with pytest.raises(BadInput, match=r"'1\.weight' holds 1 NaN or infinite"):
        fit(model, digits.train, epochs=1, progress=False)
    buffers = network(norm=True)
    buffers[2].running_var.fill_(bad)
    with pytest.raises(BadInput, match=r"2\.running_var"):
        fit(buffers, digits.train, epochs=1, progress=False)


def test_a_batch_of_one_through_batch_norm_is_refused(digits):
    for options, split in (({"batch_size": 1}, digits.train), ({}, digits.train.subset(1))):
        with pytest.raises(BadInput, match="batches of one sample"):
            fit(network(norm=True), split, epochs=1, progress=False, **options)
        fit(network(), split.subset(1), epochs=1, progress=False, **options)


def test_divergence_names_epoch_and_step(digits):
    with pytest.raises(TrainingDiverged, match=r"epoch 1, step \d+"):
        fit(network(), digits.train, epochs=3, optimizer=Optimizer(lr=1e30), progress=False)
    inputs = digits.train.inputs.clone()
    inputs[300] = math.nan
    with pytest.raises(TrainingDiverged, match="epoch 1, step 4"):
        fit(network(), Split(inputs, digits.train.labels), epochs=1, batch_size=100, shuffle=False, progress=False)


def test_no_epochs_change_nothing(digits):
    model = network()
    assert fit(model, digits.train, epochs=0, progress=False) == []
    assert same(model, network())
