"""Golden files of How Sparse Can We Prune that train: official loop with l1 on every parameter, learning rates of the code."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from pruning_core.data.splits import Split
from pruning_core.masks.masks import Masks
from pruning_core.methods.l1 import L1
from pruning_core.papers.how_sparse.configurations import CONFIGURATIONS, EPOCHS, SteppedPerIteration
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.trainer import Trainer
from tests.golden.harness import Check
from tests.golden.how_sparse import curvature

KINDS = {"multistep": "multistep", "cos": "cosine"}  # whatever else the files call a schedule is a constant rate


@dataclass(frozen=True)
class Stored:
    """The rates of a file, one a step, as factors on the nominal one."""

    factors: tuple[float, ...]

    def factor(self, step, steps_per_epoch, epochs):
        return self.factors[step]


def l1_training(z):
    """Penalties at the start, the sequence of rates, and every parameter and buffer after training.

    Where names and shapes leave open what the network is, one of them must end as the file says.
    """
    first: AssertionError | None = None
    for model in networks(state_of(z, "init__"), torch.from_numpy(z["X"])):
        try:
            return trained_as_stored(z, model)
        except AssertionError as error:
            first = first or error
    raise first or AssertionError("no network with these weights takes the inputs of the file")


def trained_as_stored(z, model):
    x, y = torch.from_numpy(z["X"]), torch.from_numpy(z["y"])
    names = {str(name) for name in z["param_order"]}
    assert names == {name for name, _ in model.named_parameters()}
    strength, rate, epochs = float(z["lmbda"]), float(z["lr"]), int(z["epochs"])
    penalties_at_the_start(model, strength, z)

    trainer, split = trainer_of(z, model, Stored(tuple(z["lr_per_iteration"] / rate))), Split(x, y)
    steps = trainer.steps_per_epoch(split)
    assert steps == int(z["iters_per_epoch"])
    assert len(z["lr_per_iteration"]) == epochs * steps
    schedule = schedule_of(z)
    ours = [rate * schedule.factor(step, steps, epochs) for step in range(epochs * steps)]
    np.testing.assert_allclose(ours, z["lr_per_iteration"], rtol=1e-6, atol=1e-9 * rate)

    for _ in range(epochs):
        trainer.train_epoch(split)
    same_state(model, state_of(z, "final__"))


def trainer_of(z, model, learning_rate):
    """The official loop: SGD on batches in the order of the file, and the sum of all magnitudes as a penalty."""
    strength = float(z["lmbda"])
    return Trainer(
        model,
        Optimizer("sgd", float(z["lr"]), momentum=float(z["momentum"])),
        epochs=int(z["epochs"]),
        learning_rate=learning_rate,
        batch_size=int(z["batch_size"]),
        penalty=lambda network: strength * absolute_sum(network),
        shuffle=False,
    )


def same_state(model, expected):
    assert set(expected) == set(model.state_dict())
    for name, values in model.state_dict().items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-9, err_msg=name)


def pipeline_training(z):
    """The dense network of a complete run, trained from its first weights at a constant rate."""
    x, y = torch.from_numpy(z["X"]), torch.from_numpy(z["y"])
    model = network(state_of(z, "init__"), x)
    trainer = trainer_of(z, model, LearningRate())
    for _ in range(int(z["epochs"])):
        trainer.train_epoch(Split(x, y))
    same_state(model, state_of(z, "trained__"))


def penalties_at_the_start(model, strength, z):
    parameters = list(model.parameters())
    with torch.no_grad():
        np.testing.assert_allclose(strength * absolute_sum(model), z["reg_l1_at_init"], rtol=1e-12)
        squares = sum(parameter.square().sum() for parameter in parameters)
        np.testing.assert_allclose(strength * squares, z["reg_l2_at_init"], rtol=1e-12)
    # The book's own penalty shifts by 1e-8: the same but for its last digits, and at parameters that are exactly 0.
    count = sum(parameter.numel() for parameter in parameters)
    penalty = strength * L1().penalty(model, Masks())
    np.testing.assert_allclose(penalty.item(), z["reg_l1_at_init"], rtol=0, atol=1.001e-8 * strength * count)
    for parameter, slope in zip(parameters, torch.autograd.grad(penalty, parameters), strict=True):
        there = parameter.detach().abs() > 1e-7
        np.testing.assert_allclose(slope[there], strength * parameter.detach()[there].sign(), rtol=1e-12)


def absolute_sum(model):
    """The sum of all absolute values; its slope at 0 is 0, as in the official code."""
    return torch.stack([parameter.abs().sum() for parameter in model.parameters()]).sum()


def schedule_of(z):
    kind, warmup = KINDS.get(str(z["schedule"]), "constant"), int(z["warm_epochs"])
    if kind == "constant":
        return LearningRate(warmup=warmup)
    if kind == "cosine":
        return SteppedPerIteration("cosine", warmup)
    return SteppedPerIteration("multistep", warmup, tuple(int(m) for m in z["milestones"]), float(z["gamma"]))


def state_of(z, prefix):
    return {name.removeprefix(prefix): torch.from_numpy(z[name]) for name in z if name.startswith(prefix)}


def network(state, x):
    """The small network whose state dict this is: ``conv`` if there is one, flatten, ``linear``.

    Places without parameters hold ReLU; a second such place in a row holds a max-pool.
    """
    linear = sequence("linear", state, last_activation=False)
    parts = nn.Sequential()
    if any(name.startswith("conv.") for name in state):
        parts.add_module("conv", sequence("conv", state, last_activation=True))
        wanted = next(layer for layer in linear if isinstance(layer, nn.Linear)).in_features
        with torch.no_grad():
            found = parts.to(x.dtype)(x[:2]).flatten(1).shape[1]
        if found != wanted:
            parts.conv.append(nn.MaxPool2d(2))
    parts.add_module("flatten", nn.Flatten())
    parts.add_module("linear", linear)
    parts.to(x.dtype).load_state_dict(state)
    return parts


def networks(state, x):
    """The plain network of a state dict, or, where that does not take the inputs, all that their shapes leave open."""

    def takes_them(model):
        try:
            with torch.no_grad():
                return model.eval()(x[:2]).dim() == 2
        except RuntimeError:
            return False

    plain = network(state, x)
    if takes_them(plain):
        yield plain.train()
        return
    for convolutions in curvature.convolutional(state):
        parts = {"conv": convolutions, "linear": sequence("linear", state, last_activation=False)}
        model = curvature.Chain(parts).to(x.dtype)
        if takes_them(model):
            model.load_state_dict(state)
            yield model.train()


def sequence(part, state, last_activation):
    last = max(int(name.split(".")[1]) for name in state if name.startswith(f"{part}."))
    layers, empty = [], 0
    for i in range(last + 1):
        weight = state.get(f"{part}.{i}.weight")
        bias = f"{part}.{i}.bias" in state
        if weight is None:
            layers.append(nn.MaxPool2d(2) if empty else nn.ReLU())
        elif weight.dim() == 4:
            layers.append(nn.Conv2d(weight.shape[1], weight.shape[0], tuple(weight.shape[2:]), bias=bias))
        elif weight.dim() == 2:
            layers.append(nn.Linear(weight.shape[1], weight.shape[0], bias=bias))
        else:
            layers.append(nn.BatchNorm2d(len(weight)))
        empty = empty + 1 if weight is None else 0
    if last_activation:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def lr_official(z):
    """The rates that the official configurations really had, by the names of their networks."""
    steps = int(z["iters_per_epoch"])
    keys = [key for key in z if key.endswith("_lr")]
    assert keys
    for key in keys:
        network, kind = key.removesuffix("_lr").rsplit("_", 1)
        entries = [entry for name, entry in CONFIGURATIONS.items() if name.startswith(network)]
        assert entries, f"no configuration is known for {key}"
        for entry in entries:
            assert entry.schedule == KINDS.get(kind, "constant")
            schedule = replace(entry.learning_rate(reference=True), warmup=int(z["warm_epochs"]))
            ours = [entry.rate * schedule.factor(step, steps, EPOCHS) for step in range(len(z[key]))]
            np.testing.assert_allclose(ours, z[key], rtol=1e-6, atol=1e-9 * entry.rate)


CHECKS: dict[str, Check] = {"l1_training": l1_training, "lr_official": lr_official}
