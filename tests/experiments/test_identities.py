"""Experiments with code of one's own: what differs in anything that it does has another key, what is equal has the same."""

import functools
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import pruning_core as pc
from pruning_core.errors import BadInput, BadType
from pruning_core.experiments.identities import identity
from pruning_core.masks import SCHEDULES
from pruning_core.records import load, read_rows


def of_model(build):
    pc.register_model("mine", "digits", build)
    try:
        return pc.Experiment("mine", "digits", [pc.Train(1)], profile="smoke").key
    finally:
        del pc.MODELS["mine"]


def of_loss(loss):
    return pc.Experiment("lenet300", "digits", [pc.Train(1)], profile="smoke", loss=loss).key


def of_method(method):
    return pc.Experiment("lenet300", "digits", [pc.Prune(method, 0.5)], profile="smoke").key


def of_rate(schedule):
    return pc.Experiment("lenet300", "digits", [pc.Train(1)], profile="smoke", learning_rate=schedule).key


def of_cuts(schedule):
    return pc.Experiment("lenet300", "digits", [pc.Prune("magnitude", 0.5, 2, schedule)], profile="smoke").key


def layers(classes, hidden):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, int(hidden)), nn.Linear(int(hidden), classes))


def by_keyword(n):
    def build(classes, *, hidden=n):
        return layers(classes, hidden)

    return build


def by_default(values):
    def build(classes, hidden=values):
        return layers(classes, sum(hidden))

    return build


def by_closure(values):
    return lambda classes: layers(classes, sum(values))


class Builder:
    def __init__(self, n):
        self.n = n

    def __call__(self, classes):
        return layers(classes, self.n)

    def build(self, classes):
        return layers(classes, self.n)


def by_class_attribute(n):
    class Network(nn.Module):
        hidden = n

        def __init__(self, classes):
            super().__init__()
            self.all = layers(classes, self.hidden)

        def forward(self, x):
            return self.all(x)

        @classmethod
        def double(cls, classes):
            return layers(classes, 2 * cls.hidden)

        @classmethod
        def half(cls, classes):
            return layers(classes, cls.hidden // 2)

    return Network


def wrapped(function):
    @functools.wraps(function)
    def inner(classes):
        return function(classes)

    return inner


def weighted(values):
    return lambda outputs, labels: float(np.sum(values)) * functional.cross_entropy(outputs, labels)


class Weighted(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.values = values

    def forward(self, outputs, labels):
        return sum(self.values) * functional.cross_entropy(outputs, labels)


def by_keyword_loss(k):
    def loss(outputs, labels, *, factor=k):
        return factor * functional.cross_entropy(outputs, labels)

    return loss


def method(how, p):
    class Base(pc.Method):
        """Of a family."""

        name, citation = "family", "han2015learning"
        power = p if how == "class attribute" else 1

        def score(self, view, shift=p if how == "default" else 1):
            power = self.power * shift * self.of_family() * (p if how == "closure" else 1)
            return pc.Scores({name: w.abs() ** power for name, w in view.weights().items()})

        of_family = staticmethod((lambda: 1) if how != "static method" or p == 1 else (lambda: 2))

    class Mine(Base):
        """One of them."""

    return Mine()


def rate(k):
    @dataclass(frozen=True)
    class Own:
        start: float = 1.0

        def factor(self, step, steps_per_epoch, epochs):
            return k * self.start

    return Own()


def cuts(k):
    @dataclass(frozen=True)
    class Own:
        start: float = 1.0

        def __call__(self, i, n, target, start):
            return start + (target - start) * (i / n) ** k

    return Own()


def named_cuts(k):
    def mine(i, n, target, start):
        return target if i == n else target * (i / n) ** k

    return mine


def of_named_cuts(function):
    with patch.dict(SCHEDULES, mine=function):
        return of_cuts("mine")


METHODS = ("class attribute", "default", "closure", "static method")
MADE = {
    "partial": (of_model, lambda n: functools.partial(layers_of, hidden=n)),
    "keyword": (of_model, by_keyword),
    "tuple as default": (of_model, lambda n: by_default((n,))),
    "list as default": (of_model, lambda n: by_default([n])),
    "list captured": (of_model, lambda n: by_closure([n])),
    "array captured": (of_model, lambda n: by_closure(np.array([n]))),
    "set captured": (of_model, lambda n: by_closure({n})),
    "namespace captured": (of_model, lambda n: (lambda h: lambda classes: layers(classes, h.n))(SimpleNamespace(n=n))),
    "callable object": (of_model, Builder),
    "bound method": (of_model, lambda n: Builder(n).build),
    "class attribute": (of_model, by_class_attribute),
    "class method": (of_model, lambda n: by_class_attribute(n).double),
    "cached": (identity, lambda n: functools.cache(by_keyword(n))),
    "wrapped": (of_model, lambda n: wrapped(by_keyword(n))),
    "loss, keyword": (of_loss, by_keyword_loss),
    "loss, array captured": (of_loss, lambda n: weighted(np.array([n, 1.0]))),
    "loss, numpy's number captured": (of_loss, lambda n: weighted(np.float32(n))),
    "loss, module with a list": (of_loss, lambda n: Weighted([n])),
    "loss, bound method": (of_loss, lambda n: Weighted([n]).forward),
    "schedule": (of_rate, rate),
    "cuts": (of_cuts, cuts),
    "cuts by name": (of_named_cuts, named_cuts),
    **{f"method, {how}": (of_method, functools.partial(method, how)) for how in METHODS},
}


def layers_of(classes, hidden):
    return layers(classes, hidden)


@pytest.mark.parametrize("name", MADE)
def test_code_of_ones_own_that_differs_has_another_key(name):
    key, make = MADE[name]
    first, again, other = key(make(1)), key(make(1)), key(make(2))
    assert first == again
    assert first != other


def test_a_function_is_no_schedule_by_itself():
    with pytest.raises(BadType, match="a schedule of your own is an object of a frozen dataclass that can be called"):
        of_cuts(named_cuts(1))


def test_two_constructors_of_one_class_are_two_networks():
    network = by_class_attribute(4)
    assert len({of_model(build) for build in (network, network.double, network.half)}) == 3


def test_the_order_of_arguments_is_part_of_what_a_function_does():
    def one(classes, shape):
        return layers(10, classes)

    def other(shape, classes):
        return layers(10, shape)

    assert identity(one) != identity(other)


def test_helpers_are_part_of_a_method(tmp_path, monkeypatch):
    (tmp_path / "helpers_of_mine.py").write_text("def score(w):\n    return w.abs()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import helpers_of_mine

    class Mine(pc.Method):
        """Scores elsewhere."""

        name, citation = "mine", "han2015learning"

        def score(self, view):
            return pc.Scores({name: helpers_of_mine.score(w) for name, w in view.weights().items()})

    before = of_method(Mine())
    helpers_of_mine.score = lambda w: -w.abs()
    assert of_method(Mine()) != before
    del sys.modules["helpers_of_mine"]


def test_identities_are_the_same_in_every_process(tmp_path):
    (tmp_path / "of_mine.py").write_text(
        "from torch import nn\nimport pruning_core as pc\n"
        "NAMES = {'a', 'b', 'c'}\n"
        "class Net(nn.Module):\n    def forward(self, x):\n        return x if x in {'p', 'q'} else NAMES\n"
        "def build(x, y={'s': (1, 2)}):\n    return [Net() for _ in NAMES], pc, build\n"
    )
    code = "import of_mine; from pruning_core.experiments.identities import identity; print(identity(of_mine.build), end='')"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join([str(tmp_path), *filter(None, sys.path)])},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert len(found) == 1


def test_what_holds_itself_or_is_not_there_yet_has_an_identity():
    held: list = [torch.ones(2).to_sparse(), torch.ones(2, device="meta"), sys, len, np.random.default_rng(0), object()]
    held.append(held)

    def build(x):
        return later(x) if x else held

    first = identity(build)

    def later(x):
        return build(x)

    assert first != identity(build) == identity(build)


def test_values_within_each_other_too_deeply_get_one_sentence():
    held: list = []
    for _ in range(10**5):
        held = [held]
    with pytest.raises(BadInput, match="too deeply"):
        identity(lambda: held)
    while held:  # in pieces: Python itself cannot throw it away at once
        held = held[0]


def test_rows_of_a_loss_that_counts_its_calls_have_the_key_of_their_record(empty_cache):
    class Counting:
        calls = 0

        def __call__(self, outputs, labels):
            self.calls += 1
            return functional.cross_entropy(outputs, labels)

    experiment = pc.Experiment(
        "lenet300", "digits", [pc.Train(1)], width=0.1, limit=300, profile="smoke", loss=Counting()
    )
    record = experiment.record()
    (row,) = pc.run(experiment, progress=False)
    assert row["experiment"] == record.stem == read_rows(record)[0]["experiment"]


def test_another_side_of_the_same_images_is_another_experiment(tmp_path):
    for place in "ab":
        (tmp_path / place).mkdir()
        for i in range(10):
            Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / place / f"{i}.png")

    def key(side):
        pc.register_data("sides", tmp_path, side=side)
        try:
            return pc.Experiment("lenet300", "sides", [pc.Train(1)], profile="smoke").key
        finally:
            del pc.DATASETS["sides"]

    assert key(16) == key(None) != key(8)


def test_tags_are_those_of_the_construction(empty_cache):
    tags = {"note": np.int64(3), "list": [1, (2,)]}
    experiment = pc.Experiment("lenet300", "digits", [pc.Measure()], width=0.1, profile="smoke", tags=tags)
    tags["accuracy"] = object()
    tags["list"].append(object())
    for _ in "12":
        (row,) = pc.run(experiment, progress=False)
        assert (row["note"], row["list"]) == (3, [1, [2]])
    assert load(experiment.record())["note"].tolist() == [3]
    with pytest.raises(BadType, match="column 'note'"):
        pc.Experiment("lenet300", "digits", [], tags={"note": object()})
