"""The training loop: exact masks, one seed for everything, nothing of the caller disturbed, bad input refused
first.
"""

import builtins
import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from pruning_core.data.loading import load_data
from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.masks.masks import Masks
from pruning_core.papers.snipit.observers import SignFlips
from pruning_core.training.evaluation import CrossEntropy, evaluate
from pruning_core.training.fit import fit
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.tensorboard import TensorBoard
from pruning_core.training.trainer import Trainer, TrainingDiverged


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def network(seed=0, norm=False, dropout=0.0, hidden=24):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 10)]
        return nn.Sequential(*layers[:2], *([nn.BatchNorm1d(hidden)] if norm else []), *layers[2:])


def convolutional(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(72, 10),
        )  # fmt: skip


def some_masks(model, alive=0.3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    weights = {name: p for name, p in model.named_parameters() if p.dim() > 1}
    return Masks({name: torch.rand(p.shape, generator=generator) < alive for name, p in weights.items()})


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


ALL = [
    Optimizer("sgd", lr=0.05, weight_decay=1e-3),
    Optimizer("sgd", lr=0.05, nesterov=True, clip=0.5, noise=0.01),
    Optimizer("adam", lr=0.005, weight_decay=1e-3, clip=1.0),
    Optimizer("adamw", lr=0.005, weight_decay=0.1),
    Optimizer("rmsprop", lr=0.002, weight_decay=1e-3),
]


# --- it trains


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
        "validation_loss", "validation_accuracy",
    }  # fmt: skip
    assert history[-1]["train_loss"] < history[0]["train_loss"]


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_it_is_the_loop_that_one_would_write_by_hand(digits, name):
    ours, theirs = network(), network()
    trainer = Trainer(ours, Optimizer(name, lr=0.01), epochs=2, batch_size=100, shuffle=False)
    steps = {"sgd": lambda p: torch.optim.SGD(p, 0.01, 0.9), "adam": lambda p: torch.optim.Adam(p, 0.01)}
    optimizer = steps[name](theirs.parameters())
    for _ in range(2):
        result = trainer.train_epoch(digits.train)
        losses, correct = [], 0
        for inputs, labels in digits.train.batches(100):
            optimizer.zero_grad()
            outputs = theirs(inputs)
            loss = functional.cross_entropy(outputs, labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss) * len(labels))
            correct += int((outputs.argmax(1) == labels).sum())
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)
    assert result["loss"] == pytest.approx(sum(losses) / len(digits.train), rel=1e-5)
    assert result["accuracy"] == pytest.approx(100 * correct / len(digits.train))
    assert result["learning_rate"] == 0.01


def test_label_smoothing_is_its_formula():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    target = 0.9 * functional.one_hot(labels, 4) + 0.1 / 4
    by_hand = -(target * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(CrossEntropy(0.1)(logits, labels), by_hand)


def test_the_rate_follows_its_schedule(digits):
    seen = []

    def watch(trainer, row):
        seen.append(row["learning_rate"])

    fit(
        network(), digits.train, epochs=4, optimizer=Optimizer(lr=0.1), observers=[watch], progress=False,
        learning_rate=LearningRate("multistep", milestones=(2,), warmup=0.5),
    )  # fmt: skip
    assert seen == pytest.approx([0.1, 0.1, 0.01, 0.01])


def test_a_penalty_is_added_and_reported_apart(digits):
    def penalty(model):
        return 0.01 * sum(p.abs().sum() for p in model.parameters())

    plain, pulled = network(), network()
    one = Trainer(plain, Optimizer(lr=0.05), epochs=3)
    two = Trainer(pulled, Optimizer(lr=0.05), epochs=3, penalty=penalty)
    for _ in range(3):
        without, with_penalty = one.train_epoch(digits.train), two.train_epoch(digits.train)
    assert without["penalty"] == 0
    assert with_penalty["penalty"] > 0
    assert with_penalty["loss"] < 5  # the loss itself, without the penalty
    assert float(penalty(pulled)) < 0.75 * float(penalty(plain))


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


# --- masks


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


@pytest.mark.parametrize("settings", ALL[:3], ids=lambda s: s.name + "+clip" * bool(s.clip))
def test_masks_set_in_the_middle_leave_no_momentum_behind(digits, settings):
    model = network()
    trainer = Trainer(model, settings, epochs=3)
    trainer.train_epoch(digits.train)
    trainer.masks = some_masks(model)
    for name, mask in trainer.masks.items():
        assert torch.count_nonzero(model.get_parameter(name)[~mask]) == 0
        for entry in trainer.optimizer.state[model.get_parameter(name)].values():
            assert entry.dim() == 0 or torch.count_nonzero(entry[~mask]) == 0
    trainer.train_epoch(digits.train)
    assert all(torch.count_nonzero(model.get_parameter(n)[~m]) == 0 for n, m in trainer.masks.items())


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


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_the_smaller_network_goes_on_like_the_masked_one(digits, name):
    """Removing hidden units in the middle of a training, with the optimizer's state, changes nothing but the
    size.
    """
    keep = torch.arange(0, 24, 2)
    data = Split(digits.train.inputs.double(), digits.train.labels)
    model = network().double()
    masks = {"1.weight": torch.zeros(24, 64), "1.bias": torch.zeros(24), "4.weight": torch.zeros(10, 24)}
    masks["1.weight"][keep], masks["1.bias"][keep], masks["4.weight"][:, keep] = 1, 1, 1
    options = {"epochs": 4, "batch_size": 200, "seed": 3}
    masked = Trainer(
        model, Optimizer(name, lr=0.01, clip=1.0), masks={n: m.bool() for n, m in masks.items()}, **options
    )
    masked.train_epoch(data)

    def cut(parameter, tensor):
        return tensor[:, keep] if parameter == "4.weight" else tensor if parameter == "4.bias" else tensor[keep]

    small = network(hidden=12).double()
    with torch.no_grad():
        for parameter, tensor in small.named_parameters():
            tensor.copy_(cut(parameter, model.get_parameter(parameter)))
    going_on = Trainer(copy.deepcopy(model), Optimizer(name, lr=0.01, clip=1.0), **options)
    going_on.load_state_dict(masked.state_dict())
    going_on.slice_state(SimpleNamespace(slice=cut), small)
    assert going_on.model is small
    for _ in range(3):
        masked.train_epoch(data)
        going_on.train_epoch(data)
    outputs = masked.model.eval()(data.inputs), small.eval()(data.inputs)
    assert torch.allclose(*outputs, atol=1e-10)
    assert float((outputs[0] - outputs[0].mean(0)).abs().max()) > 0.5  # the outputs do depend on the input


# --- seeds and the caller's state


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


def test_evaluating_changes_nothing(digits):
    model = network(norm=True, dropout=0.5).train()
    before = copy.deepcopy(model.state_dict())
    assert evaluate(model, digits.test) == evaluate(model, digits.test)
    assert evaluate(model, digits.test, batch_size=7).accuracy == evaluate(model, digits.test).accuracy
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.name + "+clip" * bool(s.clip))
def test_a_saved_training_goes_on_bit_for_bit(digits, settings):
    options = {"epochs": 4, "learning_rate": LearningRate("cosine", warmup=1), "seed": 4, "keep": "best_validation"}
    straight = Trainer(network(norm=True, dropout=0.2), settings, masks=some_masks(network(norm=True)), **options)
    for _ in range(2):
        straight.train_epoch(digits.train, digits.validation)
    tensors, info = copy.deepcopy(straight.state_dict())
    resumed = Trainer(network(seed=9, norm=True, dropout=0.2), settings, **options)
    resumed.load_state_dict((tensors, info))
    for trainer in (straight, resumed):
        for _ in range(2):
            trainer.train_epoch(digits.train, digits.validation)
        trainer.restore_best()
    assert same(straight.model, resumed.model)
    assert straight.masks == resumed.masks
    without_times = [[{**row, "seconds": 0} for row in trainer.history] for trainer in (straight, resumed)]
    assert without_times[0] == without_times[1]


def test_a_state_of_another_network_is_refused_before_anything_changes(digits):
    model = network()
    trainer = Trainer(model, epochs=1)
    before = copy.deepcopy(model.state_dict())
    for wrong in (network(hidden=12), network(norm=True)):
        with pytest.raises(BadInput, match="another network"):
            trainer.load_state_dict(Trainer(wrong, epochs=1).state_dict())
    with pytest.raises(BadInput, match="not the state of a training"):
        trainer.load_state_dict(({}, {"kind": "masks"}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# --- choosing an epoch


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


# --- batches of one


def test_a_last_batch_of_one_is_merged_only_where_batch_norm_needs_it(digits):
    split = digits.train.subset(65)
    for norm, sizes in ((True, [32, 33]), (False, [32, 32, 1])):
        seen = []
        model = network(norm=norm)
        model.register_forward_pre_hook(lambda m, x, seen=seen: seen.append(len(x[0])) if m.training else None)
        trainer = Trainer(model, epochs=1, batch_size=32)
        trainer.train_epoch(split)
        assert seen == sizes
        assert trainer.steps_per_epoch(split) == len(sizes)


# --- precision and layout


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


def test_a_channels_last_training_resumes_too(digits):
    options = {"epochs": 2, "channels_last": True}
    straight = Trainer(convolutional(), Optimizer("adam", lr=0.01), **options)
    straight.train_epoch(digits.train)
    resumed = Trainer(convolutional(), Optimizer("adam", lr=0.01), **options)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    straight.train_epoch(digits.train)
    resumed.train_epoch(digits.train)
    assert same(straight.model, resumed.model)


def test_inputs_follow_the_networks_dtype(digits):
    model = network().double()
    fit(model, digits.train, epochs=1, progress=False)
    assert model[1].weight.dtype == torch.float64


# --- observers


def test_sign_flips_are_counted_among_the_living(digits):
    model = network()
    trainer = Trainer(model, Optimizer(lr=0.0), epochs=2, observers=[SignFlips(model)])
    trainer.train_epoch(digits.train)
    assert trainer.history[-1]["sign_flips"] == 0
    with torch.no_grad():
        model[1].weight.neg_()
    trainer.train_epoch(digits.train)
    expected = model[1].weight.numel() / (model[1].weight.numel() + model[4].weight.numel())
    assert trainer.history[-1]["sign_flips"] == pytest.approx(expected, abs=1e-3)
    trainer.masks = {"1.weight": torch.zeros_like(model[1].weight, dtype=torch.bool)}
    trainer.train_epoch(digits.train)
    assert trainer.history[-1]["sign_flips_from_start"] == 0


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


# --- bad input


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


def labelled(labels, inputs=None):
    labels = torch.as_tensor(labels)
    return Split(torch.randn(len(labels), 1, 8, 8) if inputs is None else inputs, labels)


@pytest.mark.parametrize(
    ("split", "error", "words"),
    [
        (labelled(torch.zeros(0, dtype=torch.long)), BadInput, "empty"),
        (labelled([0, 1, 10]), BadInput, "labels run from 0 to 10, but the network has 10 outputs"),
        (labelled([0, -1]), BadInput, "labels run from -1"),
        (labelled([0.0, 1.0]), BadType, "int64"),
        (labelled([0, 1], torch.randn(2, 1, 5, 5)), BadInput, r"cannot take inputs of shape \(2, 1, 5, 5\)"),
        ([1, 2], BadType, "not list"),
    ],
)
def test_bad_data_is_refused_in_one_sentence(split, error, words):
    for call in (lambda: fit(network(), split, epochs=1, progress=False), lambda: evaluate(network(), split)):
        with pytest.raises(error, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


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


def test_large_but_finite_weights_are_accepted(digits):
    model = network()
    with torch.no_grad():
        model[1].weight.fill_(3e38)
    trainer = Trainer(model, epochs=1)
    trainer.check(digits.train)


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
