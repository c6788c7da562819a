"""What is remembered of a search: found again for equal architectures, for no others, and never believed against values."""

import functools

import pytest
import torch
from torch import nn

from pruning_core.masks import tracing
from pruning_core.masks.finder.cache import architecture
from pruning_core.masks.tracing import find_groups
from pruning_core.models.layers.index import ChannelIndex

X = torch.zeros(1, 4)


class Split(nn.Module):
    """A reordering whose parts are an attribute."""

    def __init__(self, parts: int = 2, act=torch.relu):
        super().__init__()
        self.first, self.last, self.parts, self.act = nn.Linear(4, 12), nn.Linear(12, 3), parts, act

    def forward(self, x):
        y = self.act(self.first(x))
        return self.last(y.view(len(y), self.parts, -1).mT.flatten(1))


class Watching(Split):
    """A way through the network that depends on a weight."""

    def forward(self, x):
        return super().forward(x) if float(self.first.weight[0, 0]) > 0 else self.last(self.first(x).relu())


@pytest.fixture
def searches(monkeypatch):
    seen = []
    trace = tracing.traced
    monkeypatch.setattr(tracing, "traced", lambda *arguments: seen.append(1) or trace(*arguments))
    return seen


def hooked() -> nn.Module:
    model = Split()
    model.first.register_forward_hook(lambda module, inputs, output: output.flip(1))
    return model


def shared() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3))
    model[1].weight = model[0].weight
    return model


OTHERS = {
    "an attribute": (Split, lambda: Split(3)),
    "a function": (Split, lambda: Split(act=torch.sigmoid)),
    "arguments of a function": (
        lambda: Split(act=functools.partial(torch.softmax, dim=1)),
        lambda: Split(act=functools.partial(torch.softmax, dim=0)),
    ),
    "the order of layers": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Softmax(1)),
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Softmax(1), nn.Linear(4, 4), nn.ReLU()),
    ),
    "a shared weight": (lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)), shared),
    "an index": (lambda: nn.Sequential(ChannelIndex([0, 1])), lambda: nn.Sequential(ChannelIndex([1, 0]))),
}


def test_equal_architectures_are_searched_once(searches):
    find_groups(Split(), X)
    searches.clear()
    for seed in range(3):
        torch.manual_seed(seed)
        assert [group.name for group in find_groups(Split(), torch.randn(1, 4))] == ["first", "last"]
    assert len(searches) == 0
    find_groups(Split(), torch.zeros(2, 4))  # another number of samples
    assert len(searches) == 1


@pytest.mark.parametrize(("one", "other"), OTHERS.values(), ids=OTHERS)
def test_what_makes_a_difference_is_part_of_the_key(one, other):
    first, again, second = (architecture(build(), (X,)) for build in (one, one, other))
    assert first == again is not None and first != second


def test_hooks_are_part_of_the_key():
    assert len({architecture(model, (X,)) for model in (hooked(), hooked(), Split(), Split())}) == 3


def test_a_function_with_a_memory_is_not_remembered():
    factor = [2.0]
    assert architecture(Split(act=lambda y: y * factor[0]), (X,)) is None


def test_where_the_way_depends_on_values_every_search_is_made(searches):
    for sign in (1.0, -1.0):
        model = Watching()
        nn.init.constant_(model.first.weight, sign)
        sizes = [group.size for group in find_groups(model, X) if group.name == "first"]
        assert sizes == [6 if sign > 0 else 12]
    assert len(searches) >= 2


def test_what_is_given_out_can_be_changed():
    find_groups(Split(), X).clear()
    assert len(find_groups(Split(), X)) == 2
