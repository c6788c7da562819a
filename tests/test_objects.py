"""The methods of every public class, found by introspection, held against the tables of bad values of test_callables.py: one
sentence each, and the object stays what it was. A new class or method is tested without further words, or fails here."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import pruning_core as pc
from pruning_core.checks.arguments import constraints_of
from pruning_core.data.splits import Split
from pruning_core.errors import PruningError
from pruning_core.experiments.stages import Every
from pruning_core.masks.masks import Masks
from pruning_core.masks.scores import Scores
from pruning_core.models import layers
from pruning_core.papers import how_sparse
from pruning_core.training import tensorboard
from tests.test_callables import BAD, FACES, WRONG_TYPES, fitting, is_huge, network, refuses

# Whose methods the package calls, with what it has made itself: what a method is asked, what a layer is given in a forward
# pass, how a group of channels or a curvature is looked at, what a log holds and calls its numbers.
INNER = {
    "Feed", "Group", "Hessian", "Member", "Sites", "Spectrum", "View", "ChannelGate", "Gated", "HardConcreteGate", "Scored",
    "PrunableAttention", "OfficialTags", "SippTags", "Watch",
}  # fmt: skip
INNER_METHODS = {"forward", "extra_repr", "project_", "to_plain", "reset_parameters", "description"}


def trainer() -> pc.Trainer:
    return pc.Trainer(network(), epochs=1, batch_size=2)


def split() -> Split:
    return Split(torch.ones(4, 1, 8, 8), torch.tensor([0, 1, 2, 3]))


MADE: dict[str, Callable[[], Any]] = {
    "Masks": lambda: Masks.dense(network()),
    "Scores": lambda: Scores({"a": torch.ones(3)}),
    "Split": split,
    "Every": lambda: Every(1, []),
    "Experiment": lambda: pc.Experiment("lenet300", "digits", []),
    "LearningRate": pc.LearningRate,
    "Optimizer": pc.Optimizer,
    "PruneResult": lambda: pc.prune(network(), "magnitude", 0.5),
    "Report": lambda: pc.prune(network(), "magnitude", 0.5).report,
    "Trainer": trainer,
    "CircularCone": lambda: how_sparse.CircularCone(4, 0.5),
    "HalfSpace": lambda: how_sparse.HalfSpace(4),
    "L1DescentCone": lambda: how_sparse.L1DescentCone(4, 2),
    "Orthant": lambda: how_sparse.Orthant(4),
    "Ray": lambda: how_sparse.Ray(4),
    "Subspace": lambda: how_sparse.Subspace(4, 2),
    "Ellipsoid": lambda: how_sparse.Ellipsoid(torch.ones(4)),
    "ChannelIndex": lambda: layers.ChannelIndex([0, 1], 1),
    "ClampedBatchNorm1d": lambda: layers.ClampedBatchNorm1d(4),
    "ClampedBatchNorm2d": lambda: layers.ClampedBatchNorm2d(4),
    "SigmoidBatchNorm1d": lambda: layers.SigmoidBatchNorm1d(4),
    "SigmoidBatchNorm2d": lambda: layers.SigmoidBatchNorm2d(4),
    "TensorBoard": lambda: tensorboard.TensorBoard("runs"),
}


def own(method: Any) -> bool:
    return callable(method) and str(getattr(method, "__module__", "")).startswith("pruning_core")


def methods() -> Iterator[tuple[str, str]]:
    """Public classes and their methods that take arguments."""
    classes = {}
    for face in FACES:
        module = __import__(face, fromlist=["__all__"])
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, type) and thing.__module__.startswith("pruning_core"):
                classes[thing.__name__] = thing
    for name, kind in sorted(classes.items()):
        if name in INNER or issubclass(kind, BaseException | pc.Method):
            continue
        for method, function in inspect.getmembers(kind, own):
            if method.startswith("_") or method in INNER_METHODS:
                continue
            if [p for p in inspect.signature(function).parameters if p != "self"]:
                yield name, method


METHODS = list(dict.fromkeys(methods()))


def tried(name: str, method: str, parameter: str, value: Any) -> str:
    """The sentence that refuses ``value``; empty where it is taken."""
    bound = getattr(MADE[name](), method)
    known = constraints_of(inspect.unwrap(bound)) | dict(getattr(bound, "declared", {}))
    options = {
        other: value if other == parameter else fitting(known.get(other))
        for other, about in inspect.signature(bound).parameters.items()
        if other == parameter or about.default is about.empty
    }
    try:
        bound(**options)
    except PruningError as error:
        return str(error)
    return ""


@pytest.fixture(autouse=True)
def _elsewhere(empty_cache, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_every_public_class_with_methods_is_made_here():
    assert {name for name, _ in METHODS} - MADE.keys() == set()
    assert len(METHODS) > 35


@pytest.mark.parametrize(("name", "method"), METHODS, ids=lambda text: text)
def test_a_method_refuses_what_is_of_no_fitting_type(name, method):
    for parameter in inspect.signature(getattr(MADE[name](), method)).parameters:
        for value in WRONG_TYPES:
            refusal = tried(name, method, parameter, value)
            assert refusal, f"{name}.{method} takes {value!r} as {parameter}"
            assert "\n" not in refusal
            assert len(refusal) < 1000


@pytest.mark.parametrize(("name", "method"), METHODS, ids=lambda text: text)
def test_a_bad_value_of_a_method_is_taken_or_gets_one_sentence(name, method):
    bound = getattr(MADE[name](), method)
    known = constraints_of(inspect.unwrap(bound)) | dict(getattr(bound, "declared", {}))
    for parameter in inspect.signature(bound).parameters:
        for value in BAD:
            refused = known.get(parameter) is not None and refuses(known[parameter], parameter, value)
            if refused or not (is_huge(value) or callable(value)):
                refusal = tried(name, method, parameter, value)
                assert "\n" not in refusal, (parameter, value)
                assert len(refusal) < 1000
