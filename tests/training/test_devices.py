"""Training, evaluation and attacks on a device: the numbers of the CPU, and going on after an interruption."""

import pytest
import torch

import pruning_core as pc
from pruning_core.data.splits import Split
from pruning_core.training.attacks import attack
from pruning_core.training.evaluation import confusion_matrix, evaluate
from pruning_core.training.fit import fit
from pruning_core.training.optimizers import Optimizer
from pruning_core.training.trainer import Trainer
from tests.training.small_networks import ALL, convolutional, network, some_masks


def agree(one, other, exactly):
    """Equal bit for bit where that is promised, on the CPU; else up to what an order of summation changes."""
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        if exactly:
            assert torch.equal(a, b)
        else:
            torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("settings", ALL, ids=lambda s: s.name + "+clip" * bool(s.clip))
def test_a_training_on_a_device_resumes_from_its_state(settings, device, digits):
    def trainer(seed):
        model = network(seed, norm=True, dropout=0.2)
        return Trainer(model, settings, epochs=3, masks=some_masks(model), seed=1, device=device, average=0.9)

    split = digits.train.subset(256)
    straight, stopped = trainer(0), trainer(0)
    for _ in range(3):
        straight.train_epoch(split)
    stopped.train_epoch(split)
    resumed = trainer(7)
    resumed.load_state_dict(stopped.state_dict())
    for _ in range(2):
        resumed.train_epoch(split)
    agree(straight.model, resumed.model, exactly=device == "cpu")
    for name, mask in resumed.masks.items():
        assert mask.device.type == "cpu"
        assert torch.count_nonzero(resumed.model.get_parameter(name).cpu()[~mask]) == 0


def test_a_checkpoint_of_a_device_is_read_again(device, digits, tmp_path):
    options = {"epochs": 2, "checkpoint": tmp_path / "run.safetensors", "device": device, "progress": False}
    first, again = (fit(network(), digits.train.subset(256), **options) for _ in range(2))
    assert list(first) == list(again)
    agree(first.model, again.model, exactly=True)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_and_layout_train_on_every_device(precision, channels_last, device, digits):
    model = convolutional()
    options = {"epochs": 4, "batch_size": 64, "precision": precision, "channels_last": channels_last, "device": device}
    trainer = Trainer(model, Optimizer("sgd", lr=0.05), **options)
    rows = [trainer.train_epoch(digits.train) for _ in range(4)]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert model[0].weight.dtype == torch.float32
    assert model[0].weight.device.type == device
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_dropout_and_noise_on_a_device_follow_from_the_seed_and_leave_its_random_state(device, digits):
    settings, split = Optimizer("sgd", lr=0.05, noise=0.01), digits.train.subset(128)
    state = torch.cuda.get_rng_state if device == "cuda" else torch.get_rng_state
    torch.rand(1, device=device)
    before, found = state(), []
    for seed in (3, 3, 4):
        trainer = Trainer(network(dropout=0.5), settings, epochs=1, seed=seed, device=device)
        trainer.train_epoch(split)
        found.append(trainer.model[1].weight.detach().cpu())
        assert torch.equal(state(), before)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found[0], found[2], rtol=1e-4, atol=1e-6)


def test_evaluation_is_that_of_the_cpu_wherever_the_images_are(device, digits):
    model, split = network(norm=True), digits.test.subset(100)
    here, counts = evaluate(model, split), confusion_matrix(model, split)
    model.to(device)
    for place in ("cpu", device):
        there = evaluate(model, Split(split.inputs.to(place), split.labels.to(place)), batch_size=32)
        assert there.loss == pytest.approx(here.loss, rel=1e-4)
        assert (there.accuracy, there.n) == (pytest.approx(here.accuracy, abs=1.0), here.n)
    assert (confusion_matrix(model, split) - counts).abs().sum() <= 2


def test_a_penalty_is_pulled_where_the_network_is(device, digits):
    model = network()
    before = float(sum(p.detach().abs().sum() for p in model.parameters()))
    penalty = pc.METHODS["l1"]()
    trainer = Trainer(
        model, Optimizer("sgd", lr=0.1), epochs=3, masks=some_masks(model), device=device,
        penalty=lambda net: 0.01 * penalty.penalty(net, trainer.masks),
        pull_=lambda net: penalty.pull_(net, trainer.masks, 0.01),
    )  # fmt: skip
    row = [trainer.train_epoch(digits.train) for _ in range(3)][-1]
    assert 0 < row["penalty"] < 0.01 * before


@pytest.mark.parametrize("name", ["fgsm", "pgd", "gaussian_noise"])
def test_attacks_take_images_of_the_cpu_to_the_network(name, device, digits):
    inputs, labels = next(iter(digits.test.batches(16)))
    model = network(norm=True).to(device).eval()
    result = attack(model, inputs, labels, name, epsilons=[0.1, 1.0], exclude_wrong=False, seed=0)
    assert (result.n, len(result.success)) == (16, 2)
    assert result.success[0] <= result.success[1] + 1 / 16
    assert next(model.parameters()).device.type == device
