"""Every callable of every face of the package, held against a table of bad values: one sentence each, before any work starts.

Found by introspection: a new public function is tested without further words, and fails here until it is ``@checked``.
"""

import importlib
import inspect
import math
import pkgutil
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core import papers
from pruning_core.checks import A, Checked, Flag, Maybe, OneOf, Place, Real, Several, Text, Whole
from pruning_core.checks.arguments import AnyOf, constraints_of
from pruning_core.errors import PruningError
from pruning_core.experiments.recipes import RECIPES

FACES = [
    "pruning_core",
    *(f"pruning_core.{room}" for room in (
        "book", "book.claims", "data", "experiments", "experiments.recipes", "masks", "methods", "models", "models.layers",
        "plots", "records", "training",
    )),
    *(f"pruning_core.papers.{module.name}" for module in pkgutil.iter_modules(papers.__path__) if module.ispkg),
]  # fmt: skip

# What the package makes and hands out (a Feed looks at its first batch when it is read), and a class of matplotlib: nobody
# calls these to have something done.
RESULTS = {
    "BookFigure", "Data", "Feed", "Group", "Member", "PruneResult", "Report", "Sites", "SliderFigure", "Spectrum", "View",
}  # fmt: skip
# What may be anything at all: an example for somebody's network, a value that is looked for in a column, somebody's options.
FREE = {
    ("check", "answer"), ("content_hash", "value"), ("gaps", "first"), ("gaps", "second"), ("load", "equal_to"),
    ("stored_rows", "equal_to"), ("profile_settings", "chosen"), ("figure", "subplots"), ("write_atomically", "writer"),
}  # fmt: skip


# What trains, measures, downloads or starts kernels for minutes: here only what they refuse.
LONG = {
    "csr_speed", "decay", "load", "load_data", "prune_finetune", "recovery", "run_all", "run_notebook", "run_notebooks",
    "side_by_side", "stored_rows", "train",
}  # fmt: skip


def public() -> Iterator[tuple[str, Callable]]:
    found: dict[str, Callable] = {f"recipe {name}": recipe for name, recipe in RECIPES.items()}
    for face in FACES:
        module = importlib.import_module(face)
        for name in module.__all__:
            thing = getattr(module, name)
            own = callable(thing) and getattr(thing, "__module__", "").startswith("pruning_core")
            # Named tuples are results, exceptions are raised by us; fields of checked dataclasses: test_values.py.
            value = isinstance(thing, type) and (
                issubclass(thing, tuple | BaseException | Checked | pc.Method) or "constraints" in vars(thing)
            )
            if own and not value and name not in RESULTS and thing.__module__ != "pruning_core.experiments.stages":
                found[name] = thing
    return ((name, thing) for name, thing in sorted(found.items()) if inspect.signature(thing).parameters)


PUBLIC = dict(public())


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


def constraints(function: Callable) -> dict[str, Any]:
    made_by: Any = function.__init__ if isinstance(function, type) else function
    return constraints_of(inspect.unwrap(made_by)) | dict(getattr(made_by, "declared", {}))


def fitting(constraint: Any) -> Any:
    """A value that a constraint takes."""
    kinds: dict[Any, Callable[[], Any]] = {
        nn.Module: network,
        torch.Tensor: lambda: torch.ones(4, 4),
        torch.Generator: torch.Generator,
        torch.dtype: lambda: torch.float32,
        np.ndarray: lambda: np.ones(3),
        pd.DataFrame: lambda: pd.DataFrame({"seed": [0, 1], "accuracy": [90.0, 91.0], "method": ["a", "b"]}),
    }
    match constraint:
        case Maybe():
            return fitting(constraint.constraint)
        case AnyOf():
            return fitting(constraint.constraints[0])
        case Whole() | Real():
            low, high = max(constraint.at_least, constraint.above), min(constraint.at_most, constraint.below)
            if isinstance(constraint, Whole):
                return 1 if low == -math.inf else int(low) + (constraint.above == low)
            return (low + high) / 2 if math.isfinite(low) and math.isfinite(high) else max(low, 0.0) + 0.5
        case Several():
            return [fitting(constraint.constraint)] * max(constraint.at_least, 1)
        case OneOf():
            return constraint.names[0]
        case Text():
            return "x"
        case Flag():
            return False
        case Place():
            return "nowhere"
        case A() if constraint.type in kinds:
            return kinds[constraint.type]()
        case A() if constraint.kind == "a function":
            return lambda *arguments: []
        case A() if constraint.kind and "mapping" in constraint.kind:
            return {}
    return []


def tried(function: Callable, name: str, value: Any) -> str:
    """The sentence that refuses ``value`` for the parameter ``name``; empty where it is taken."""
    given: list[Any] = []
    options: dict[str, Any] = {}
    known = constraints(function)
    for other, parameter in inspect.signature(function).parameters.items():
        several = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if other != name and (several or parameter.default is not parameter.empty):
            continue
        argument = value if other == name else fitting(known.get(other))
        if parameter.kind is parameter.VAR_POSITIONAL:
            given.append(argument)
        else:
            options["anything" if parameter.kind is parameter.VAR_KEYWORD else other] = argument
    parameters = inspect.signature(function).parameters
    if any(parameters[name].kind is kind for kind in (inspect.Parameter.VAR_POSITIONAL,)):
        given = [*options.values(), *given]
        options = {}
    try:
        function(*given, **options)
    except PruningError as error:
        return str(error)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):  # an option of ours: Python says so in one sentence
            raise
        return str(error)
    return ""


class Shade(str, Enum):  # noqa: UP042 - one whose str() is its name
    DARK = "dark"


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch gives such tensors up
        return torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8)


def itself() -> list:
    held: list = []
    held.append(held)
    return held


WRONG_TYPES = [object(), 1j, ..., b"bytes"]
BAD = [
    None, math.nan, math.inf, -math.inf, -1, -0.5, 0, 2**70, 10**400, True, "", "x", "ü" * 3, "a\nb", "\ud800", "a\0b",
    [], [None], [math.nan], [-1], [10**400], {}, {"a": None}, {1: 2}, set(), np.nan, np.array([]), np.array([1, 2]),
    np.datetime64("2020"), np.str_("no such name"), torch.ones(2), torch.tensor(math.nan), torch.tensor(True),
    torch.zeros(0), print, int, iter([object()]), pd.DataFrame(), nn.ReLU(), 5e-324, 1.7e308, pd.Series([1.0, 2.0]),
    pd.DataFrame({"a": [1]}), deque([object()]), {"a": 1}.values(), itself(), torch.ones(2, requires_grad=True),
    torch.ones(2).to_sparse(), torch.ones(2, dtype=torch.complex64), torch.ones(2).to(torch.float8_e4m3fn),
    torch.ones(2, device="meta"), torch.ones(2, dtype=torch.bool), quantised(),
    np.ones(2, complex), np.array(["x"]), np.array([object()]), np.longdouble(0.5), Shade.DARK,
]  # fmt: skip


def refuses(constraint: Any, name: str, value: Any) -> bool:
    try:
        constraint.check(name, value)
    except PruningError:
        return True
    return False


def is_huge(value: Any) -> bool:
    return any(isinstance(v, int) and v > 10**6 for v in (value if isinstance(value, list) else [value]))


def worth_trying(name: str, parameter: str, constraint: Any, value: Any) -> bool:
    """Whether a call can end soon, and ends as we say: a function of somebody else fails in its own words."""
    if constraint is not None and refuses(constraint, parameter, value):
        return True
    return name not in LONG and not is_huge(value) and not callable(value)


@pytest.fixture(autouse=True)
def _elsewhere(empty_cache, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def every_case(values: list[Any]) -> Iterator[tuple[str, str, Any, Any]]:
    for name, function in PUBLIC.items():
        known = constraints(function)
        for parameter in inspect.signature(function).parameters:
            yield from ((name, parameter, known.get(parameter), value) for value in values)


def test_there_are_many_cases():
    assert len(PUBLIC) > 180
    assert sum(c is not None and refuses(c, p, v) for _, p, c, v in every_case(WRONG_TYPES + BAD)) > 10_000


@pytest.mark.parametrize("name", PUBLIC)
def test_what_is_of_no_fitting_type_is_refused_before_anything_happens(name, tmp_path):
    known = constraints(PUBLIC[name])
    for parameter in inspect.signature(PUBLIC[name]).parameters:
        for value in WRONG_TYPES if (name, parameter) not in FREE else ():
            if known.get(parameter) is None or refuses(known[parameter], parameter, value):
                refusal = tried(PUBLIC[name], parameter, value)
                assert refusal, f"{name} takes {value!r} as {parameter}"
                assert "\n" not in refusal
                assert len(refusal) < 1000
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("name", PUBLIC)
def test_a_bad_value_is_taken_or_gets_one_sentence(name):
    known = constraints(PUBLIC[name])
    for parameter in inspect.signature(PUBLIC[name]).parameters:
        for value in BAD if (name, parameter) not in FREE else ():
            if worth_trying(name, parameter, known.get(parameter), value):
                refusal = tried(PUBLIC[name], parameter, value)
                assert "\n" not in refusal, (parameter, value)
                assert len(refusal) < 1000


@pytest.mark.parametrize("name", PUBLIC)
def test_scalars_of_numpy_and_torch_are_numbers(name):
    for parameter, constraint in constraints(PUBLIC[name]).items():
        inner = constraint.constraint if isinstance(constraint, Maybe) else constraint
        if isinstance(inner, Real):
            value = fitting(inner)
            double = torch.float64 if isinstance(value, float) else None
            for scalar in (np.array(value)[()], np.array(value), torch.tensor(value, dtype=double)):
                found = inner.check(parameter, scalar)
                assert found == value
                assert type(found) is type(value)
