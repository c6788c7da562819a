"""Every field of every value that users make, held against a table of bad values: refused in one sentence when it is made, or
taken for what it is. A new class or field is tested without further words."""

import math
from dataclasses import MISSING, fields, is_dataclass

import numpy as np
import pytest
import torch

import pruning_core as pc
from pruning_core.errors import PruningError
from pruning_core.experiments import stages
from pruning_core.experiments.fields import Becomes
from pruning_core.masks.budgets import Budget
from pruning_core.methods.base import METHODS
from pruning_core.training.losses import CrossEntropy
from pruning_core.training.optimizers import LearningRate, Optimizer

STAGES = [kind for kind in vars(stages).values() if isinstance(kind, type) and kind.__module__ == stages.__name__]
KINDS = [pc.Experiment, Optimizer, LearningRate, Budget, CrossEntropy, *filter(is_dataclass, STAGES), *METHODS.values()]

# What a field without a default needs, so that one of the class can be made at all.
NEEDED = {
    "model": "lenet300", "data": "digits", "timeline": [], "epochs": 2, "label": "x", "weights": "IMAGENET1K_V1",
    "name": "fgsm", "epsilons": [0.1], "method": "magnitude", "budget": 0.5, "k": 1, "stages": [], "parts": ["a"], "n": 2,
}  # fmt: skip

BAD = [
    object(), object, math.nan, math.inf, -math.inf, -1, -0.5, 10**400, 2**70, 1j, b"x", "", "bset", "ü" * 3, "a\nb",
    [None], [math.nan], {}, {"a": None}, {1: 2}, set(), True, np.nan, np.inf, np.array([1, 2]), np.array([]),
    np.str_("no such name"), np.datetime64("2020"), torch.ones(2), torch.tensor(math.nan), torch.tensor(True), ...,
    print, iter([object()]),
]  # fmt: skip


def made(kind, /, **changed):
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    if kind is Budget and changed.keys().isdisjoint({"to", "across", "below"}):
        changed["to"] = 0.5
    return kind(**{name: NEEDED[name] for name in needed} | changed)


def tried(kind, name, value, /):
    """The value made with ``value`` in the field ``name``, or the sentence that refuses it."""
    try:
        return made(kind, **{name: value}), ""
    except PruningError as error:
        return None, str(error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_bad_values_are_refused_when_they_are_given(kind):
    for field in fields(kind):
        for value in BAD:
            one, refusal = tried(kind, field.name, value)
            assert "\n" not in refusal
            assert len(refusal) < 1000
            if one is not None:  # then it holds plain Python, fit for a record and a hash
                kept = getattr(one, field.name)
                assert not isinstance(kept, np.generic | np.ndarray | torch.Tensor), (field.name, value)
                assert pc.records.content_hash({field.name: kept}) if not callable(kept) else kept is value
                assert not (isinstance(kept, float) and math.isnan(kept)), (field.name, value)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_scalars_of_numpy_and_torch_are_numbers(kind):
    one = made(kind)
    for field in fields(kind):
        value = getattr(one, field.name)
        if type(value) not in (int, float) or isinstance(vars(kind).get(field.name), Becomes):
            continue
        double = torch.float64 if type(value) is float else None
        for scalar in (np.array(value)[()], np.array(value), torch.tensor(value, dtype=double)):
            same = made(kind, **{field.name: scalar})
            assert same == one, field.name
            assert type(getattr(same, field.name)) is type(value), field.name


def test_one_and_one_point_are_one_width():
    assert (
        pc.Experiment("lenet300", "digits", [], width=1).key == pc.Experiment("lenet300", "digits", [], width=1.0).key
    )


def test_a_list_is_checked_before_the_first_run(empty_cache):
    with pytest.raises(PruningError, match="batch_size must be at least 1"):
        pc.run_all(pc.Experiment("lenet300", "digits", [pc.Train(1)], batch_size=size, limit=600) for size in (64, 0))
    assert not empty_cache.exists()
