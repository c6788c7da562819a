"""Parameter groups honour the layers' wishes, and the schedules are the formulas of their docstring."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.training.optimizers import LearningRate, Optimizer, load_optimizer_state, optimizer_state


class Quick(nn.Linear):
    learning_rate_scale = 10
    decays = False


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), Quick(3, 2))


def groups_of(model, optimizer):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["base_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_layers_scale_their_rate_and_opt_out_of_decay(model):
    found = groups_of(model, Optimizer(lr=0.5, weight_decay=0.1).build(model))
    assert found["0.weight"] == found["0.bias"] == found["1.weight"] == (0.5, 0.1)
    assert found["2.weight"] == found["2.bias"] == (5.0, 0.0)
    assert len(found) == 6


def test_norms_and_biases_can_be_exempt_from_decay(model):
    found = groups_of(model, Optimizer(weight_decay=0.1, decay_norm_and_bias=False).build(model))
    assert {name for name, (_, decay) in found.items() if decay} == {"0.weight"}


def test_only_picks_parameters_and_frozen_ones_stay_out(model):
    model[0].weight.requires_grad_(False)
    assert "0.weight" not in groups_of(model, Optimizer().build(model))
    assert set(groups_of(model, Optimizer().build(model, lambda name: name.startswith("1")))) == {"1.weight", "1.bias"}
    with pytest.raises(BadInput, match="no parameter to train"):
        Optimizer().build(model, lambda name: False)


def test_a_shared_parameter_is_stepped_once():
    layer = nn.Linear(3, 3, bias=False)
    optimizer = Optimizer().build(nn.Sequential(layer, layer))
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("settings", "reference"),
    [
        (Optimizer("sgd", 0.1, 0.9, True, 0.01), lambda p: torch.optim.SGD(p, 0.1, 0.9, 0, 0.01, True)),
        (Optimizer("sgd", 0.1, 0.0), lambda p: torch.optim.SGD(p, 0.1)),
        (Optimizer("adam", 0.01, weight_decay=0.01), lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01)),
        (Optimizer("adamw", 0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
        (Optimizer("rmsprop", 0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_steps_are_those_of_torch(settings, reference, memory_format):
    torch.manual_seed(0)
    ours = nn.Conv2d(3, 4, 3).double().to(memory_format=memory_format)
    theirs = nn.Conv2d(3, 4, 3).double()
    theirs.load_state_dict(ours.state_dict())
    steppers = settings.build(ours), reference(theirs.parameters())
    for _ in range(5):
        x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
        for layer, optimizer in zip((ours, theirs), steppers, strict=True):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_optimizer_state_travels_by_name(name):
    def stepped(layer, optimizer):
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    optimizer = Optimizer(name, lr=0.01).build(layer)
    stepped(layer, optimizer)
    twin = nn.Linear(3, 2)
    twin.load_state_dict(layer.state_dict())
    fresh = Optimizer(name, lr=0.01).build(twin)
    load_optimizer_state(twin, fresh, optimizer_state(layer, optimizer))
    stepped(layer, optimizer)
    stepped(twin, fresh)
    assert torch.equal(layer.weight, twin.weight)
    with pytest.raises(BadInput, match="does not fit"):
        load_optimizer_state(twin, fresh, {"momentum_buffer:weight": torch.zeros(5)})


def factors(schedule, steps_per_epoch=4, epochs=6):
    return [schedule.factor(step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]


def test_schedules_are_their_formulas():
    assert set(factors(LearningRate())) == {1.0}
    assert factors(LearningRate("multistep", milestones=(2, 4), gamma=0.1))[::4] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    cosine = [(1 + math.cos(math.pi * e / 6)) / 2 for e in range(6)]
    assert factors(LearningRate("cosine"))[1::4] == pytest.approx(cosine)
    assert factors(LearningRate("cosine", floor=0.5))[::4] == pytest.approx([0.5 + 0.5 * c for c in cosine])
    assert factors(LearningRate("triangular"), epochs=5)[::4] == pytest.approx([1 / 3, 2 / 3, 1, 2 / 3, 1 / 3])
    assert factors(LearningRate("cosine", per_step=True)) == pytest.approx(
        [(1 + math.cos(math.pi * s / 24)) / 2 for s in range(24)]
    )


def test_warm_up_rises_from_zero_and_never_passes_the_schedule():
    found = factors(LearningRate("multistep", warmup=2, milestones=(1,), gamma=0.25))
    assert found[:8] == pytest.approx([0, 0.125, 0.25, 0.375, 0.25, 0.25, 0.25, 0.25])
    assert factors(LearningRate(warmup=2))[7:9] == pytest.approx([0.875, 1])


def test_cosine_is_torchs():
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], 1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for epoch in range(10):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(LearningRate("cosine").factor(epoch * 3, 3, 10))
        optimizer.step()
        scheduler.step()


@given(
    kind=st.sampled_from(["constant", "cosine", "triangular"]),
    warmup=st.floats(0, 5),
    floor=st.floats(0, 1),
    per_step=st.booleans(),
    step=st.integers(0, 400),
    epochs=st.integers(0, 20),
)
def test_a_factor_lies_between_zero_and_one(kind, warmup, floor, per_step, step, epochs):
    schedule = LearningRate(kind, warmup=warmup, floor=floor, per_step=per_step)
    assert 0 <= schedule.factor(step, 10, epochs) <= 1


def test_milestones_given_as_a_list_stay_hashable():
    assert hash(LearningRate("multistep", milestones=[1, 2])) == hash(LearningRate("multistep", milestones=(1, 2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Optimizer("sdg"), UnknownName, "did you mean 'sgd'"),
        (lambda: Optimizer(lr=-1), BadInput, "lr must be"),
        (lambda: Optimizer(lr=math.nan), BadInput, "lr must be"),
        (lambda: Optimizer(lr=math.inf), BadInput, "lr must be"),
        (lambda: Optimizer(lr="0.1"), BadType, "lr must be a number"),
        (lambda: Optimizer(momentum=1), BadInput, r"momentum must lie in \[0, 1\)"),
        (lambda: Optimizer("adam", nesterov=True), BadInput, "nesterov"),
        (lambda: Optimizer(momentum=0, nesterov=True), BadInput, "nesterov"),
        (lambda: Optimizer(weight_decay=-1), BadInput, "weight_decay"),
        (lambda: Optimizer(clip=0), BadInput, "clip"),
        (lambda: Optimizer(noise=-1), BadInput, "noise"),
        (lambda: LearningRate("cosin"), UnknownName, "did you mean 'cosine'"),
        (lambda: LearningRate(warmup=-1), BadInput, "warmup"),
        (lambda: LearningRate("multistep", milestones=(-1,)), BadInput, "milestone"),
        (lambda: LearningRate("multistep", milestones=3), BadType, "milestones must be a list"),
        (lambda: LearningRate("cosine", milestones=(3,)), BadInput, "belong to"),
        (lambda: LearningRate("cosine", floor=2), BadInput, "floor"),
    ],
)
def test_bad_settings_are_refused(make, error, words):
    with pytest.raises(error, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
