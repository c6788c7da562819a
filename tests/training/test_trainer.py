"""The Trainer, epoch by epoch: the loop written by hand, exact masks, and a state that can be saved, cut and continued."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.data.splits import Split
from pruning_core.errors import BadInput
from pruning_core.experiments.observers import SignFlips
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.trainer import Trainer
from tests.training.small_networks import ALL, convolutional, network, same, some_masks


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


def test_a_penalty_that_is_pulled_in_place_is_never_differentiated_and_reported_at_the_end_of_an_epoch(digits):
    values = []

    def penalty(model):
        assert not torch.is_grad_enabled()
        values.append(0.01 * sum(p.abs().sum() for p in model.parameters()))
        return values[-1]

    def pull_(model):
        for parameter in model.parameters():
            parameter.grad.add_(parameter.sign(), alpha=0.01)

    options = {"epochs": 2, "masks": some_masks(network())}
    own = Trainer(network(), Optimizer(lr=0.05), penalty=penalty, pull_=pull_, **options)
    by_autograd = Trainer(
        network(), Optimizer(lr=0.05), penalty=lambda m: 0.01 * sum(p.abs().sum() for p in m.parameters()), **options
    )
    for epoch in (1, 2):
        row, other = own.train_epoch(digits.train), by_autograd.train_epoch(digits.train)
        assert len(values) == epoch
        assert row["penalty"] == pytest.approx(float(values[-1]), rel=1e-12)
        assert row["loss"] == other["loss"]
    assert same(own.model, by_autograd.model)


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


def test_a_channels_last_training_resumes_too(digits):
    options = {"epochs": 2, "channels_last": True}
    straight = Trainer(convolutional(), Optimizer("adam", lr=0.01), **options)
    straight.train_epoch(digits.train)
    resumed = Trainer(convolutional(), Optimizer("adam", lr=0.01), **options)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    straight.train_epoch(digits.train)
    resumed.train_epoch(digits.train)
    assert same(straight.model, resumed.model)


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


def test_large_but_finite_weights_are_accepted(digits):
    model = network()
    with torch.no_grad():
        model[1].weight.fill_(3e38)
    trainer = Trainer(model, epochs=1)
    trainer.check(digits.train)


@pytest.mark.parametrize("whole", [True, False])
def test_norms_in_evaluation_mode_inside_a_network_in_training_keep_their_statistics(digits, whole):
    model = network(norm=True, dropout=0.5)
    norm = next(module for module in model.modules() if isinstance(module, _BatchNorm))
    model.train(whole)
    norm.eval()
    before = norm.running_mean.clone()
    Trainer(model, epochs=1).train_epoch(digits.train.subset(64))
    # In a network that is in evaluation mode as a whole, as after evaluate() or load_pruned(), no part stands out.
    assert torch.equal(norm.running_mean, before) == whole
    assert not norm.training and model.training == whole
