"""Every field of every value that users make, held against a table of bad values: refused in one sentence when it is made, or
taken for what it is. A new class or field is tested without further words."""

import math
from dataclasses import MISSING, dataclass, fields, is_dataclass

import numpy as np
import pytest
import torch

import pruning_core as pc
from pruning_core.checks import Maybe, Real, Several, Whole
from pruning_core.errors import PruningError
from pruning_core.experiments import stages
from pruning_core.experiments.fields import Becomes
from pruning_core.masks.budgets import Budget
from pruning_core.methods.base import METHODS
from pruning_core.official.shorten import Shorter
from pruning_core.papers.how_sparse.configurations import SteppedPerIteration
from pruning_core.training.losses import CrossEntropy
from pruning_core.training.optimizers import LearningRate, Optimizer

STAGES = [kind for kind in vars(stages).values() if isinstance(kind, type) and kind.__module__ == stages.__name__]
KINDS = [pc.Experiment, Optimizer, LearningRate, Budget, CrossEntropy, *filter(is_dataclass, STAGES), *METHODS.values()]

# What a field without a default needs, so that one of the class can be made at all.
NEEDED = {
    "model": "lenet300", "data": "digits", "timeline": [], "epochs": 2, "label": "x", "weights": "IMAGENET1K_V1",
    "name": "fgsm", "epsilons": [0.1], "method": "magnitude", "budget": 0.5, "k": 1, "stages": [], "parts": ["a"], "n": 2,
    "kind": "cosine",
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


def innermost(constraint):
    return innermost(constraint.constraint) if isinstance(constraint, Maybe | Several) else constraint


def real(constraint):
    """Whether a field takes real numbers, or a collection of them."""
    return isinstance(innermost(constraint), Real) and not isinstance(innermost(constraint), Whole)


def declared(kind):
    return {name: one for base in reversed(kind.__mro__) for name, one in vars(base).get("constraints", {}).items()}


REALS = [
    (kind, field.name, declared(kind).get(field.name, Real(infinite=True)))
    for kind in [*KINDS, SteppedPerIteration, Shorter]
    for field in fields(kind)
    if real(declared(kind).get(field.name)) or type(field.default) is float
]
# Numbers that stand in a field beside other things.
WITHIN = [
    (Budget, lambda number: {"to": number}, 0),
    (Budget, lambda number: {"across": {"a": number}}, 0),
    (stages.Train, lambda number: {"penalty": ("hoyer_square", number)}, 2),
    (stages.Prune, lambda number: {"budget": number}, 0),
    (stages.Attack, lambda number: {"options": {"bounds": (number, 9)}}, 0),
]


def key_of(kind, /, **changed):
    one = made(kind, **changed)
    return one.key if isinstance(one, pc.Experiment) else pc.records.content_hash(one)


def whole_numbers(number):
    return [
        number, float(number), np.int64(number), np.float32(number), np.array(float(number)), torch.tensor(number),
        torch.tensor(float(number)), *([-0.0] if number == 0 else []),
    ]  # fmt: skip


def test_fields_that_take_real_numbers_are_found():
    assert {(kind.__name__, name) for kind, name, _ in REALS} >= {
        ("Experiment", "width"), ("Optimizer", "lr"), ("Optimizer", "momentum"), ("Optimizer", "clip"), ("Train", "average"),
        ("LearningRate", "milestones"), ("LearningRate", "warmup"), ("Budget", "below"), ("Attack", "epsilons"), ("Lp", "p"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "constraint"), REALS, ids=lambda one: getattr(one, "__name__", one if isinstance(one, str) else "")
)
def test_a_whole_number_has_one_key_however_it_is_written(kind, name, constraint):
    several, bounds, fitting = isinstance(constraint, Several), innermost(constraint), []
    for number in (0, 1, 2, 5):
        extra = {"kind": "multistep"} if name == "milestones" else {}
        given = [{name: [form] if several else form} | extra for form in whole_numbers(number)]
        try:
            made(kind, **given[1])
        except PruningError:
            continue
        fitting.append(number)
        assert len({key_of(kind, **one) for one in given}) == 1, number
    assert fitting or (bounds.above, bounds.below) == (0, 1), "no whole number fits"


@pytest.mark.parametrize(("kind", "given", "number"), WITHIN)
def test_a_whole_number_within_a_field_has_one_key_too(kind, given, number):
    assert len({key_of(kind, **given(form)) for form in whole_numbers(number)}) == 1


# What records that lie with the book are named after: these keys may not change, whatever becomes of other values.
def test_the_form_that_is_kept_is_that_of_stored_records():
    assert repr(pc.LearningRate("multistep", warmup=5.0, milestones=(91.0, 136)).milestones) == "(91, 136)"
    assert repr(pc.LearningRate(warmup=5.0).warmup) == "5"
    assert repr(pc.LearningRate(warmup=0.5).warmup) == "0.5"
    assert repr(pc.Experiment("lenet300", "digits", [], width=2).width) == "2.0"
    assert repr(METHODS["pfp"](constant=10).constant) == "10.0"


@dataclass(frozen=True)
class Own(pc.Method):
    """A method of somebody who declares no constraints."""

    name, citation = "own", "nobody"
    share: float = 0.5


def test_a_field_of_ones_own_whose_default_is_a_float_is_a_number():
    assert key_of(Own, share=1) == key_of(Own, share=1.0) == key_of(Own, share=np.float32(1))
    with pytest.raises(PruningError, match="share must be a number, not 'x'"):
        Own(share="x")


def test_a_list_is_checked_before_the_first_run(empty_cache):
    with pytest.raises(PruningError, match="batch_size must be at least 1"):
        pc.run_all(pc.Experiment("lenet300", "digits", [pc.Train(1)], batch_size=size, limit=600) for size in (64, 0))
    assert not empty_cache.exists()
