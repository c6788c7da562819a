"""What counts as a number, a whole number, a name, a collection; and that all else is refused in one clear sentence."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from pruning_core.checks import (
    Constraints,
    Maybe,
    OneOf,
    Real,
    Several,
    Text,
    Whole,
    check,
    check_fields,
    check_finite,
    checked,
    doubles,
    generator_of,
    present,
)
from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.records import environment


class Level(IntEnum):
    HIGH = 3


class Shade(str, Enum):  # noqa: UP042 - one whose str() is its name
    DARK = "dark"


ANY = Real()
COUNT = Whole(at_least=1)
SHARE = Real(at_least=0, below=1)
HUGE = 10**400

GOOD = [
    (ANY, 1, 1),
    (ANY, -2.5, -2.5),
    (ANY, np.float64(0.1), 0.1),
    (ANY, np.float32(0.5), 0.5),
    (ANY, np.int8(-3), -3),
    (ANY, np.array(2.0), 2.0),
    (ANY, torch.tensor(7), 7),
    (ANY, torch.tensor(0.25, dtype=torch.bfloat16), 0.25),
    (ANY, torch.tensor(0.25, requires_grad=True), 0.25),
    (ANY, np.longdouble("0.5"), 0.5),
    (ANY, Level.HIGH, 3),
    (COUNT, Level.HIGH, 3),
    (Text(), Shade.DARK, "dark"),
    (OneOf("dark", "light"), Shade.DARK, "dark"),
    (SHARE, 0, 0),
    (SHARE, 0.999, 0.999),
    (Real(above=0, at_most=1), 1, 1),
    (Real(above=0, infinite=True), math.inf, math.inf),
    (Real(infinite=True), -math.inf, -math.inf),
    (COUNT, 1, 1),
    (COUNT, HUGE, HUGE),
    (COUNT, np.uint8(200), 200),
    (COUNT, np.array(3), 3),
    (COUNT, torch.tensor(3, dtype=torch.int16), 3),
    (Whole(0, 5), 5, 5),
    (Whole(), -4, -4),
    (OneOf("sgd", "adam"), "adam", "adam"),
    (Maybe(COUNT), None, None),
    (Maybe(COUNT), np.int64(2), 2),
    (Several(COUNT), [], ()),
    (Several(COUNT), np.array([3, 1]), (3, 1)),
    (Several(ANY), torch.tensor([0.5, 2.0]), (0.5, 2.0)),
    (Several(ANY, at_least=1, rising=True), (0, 0.5), (0, 0.5)),
    (Several(COUNT), (n for n in (1, 2)), (1, 2)),
]


@pytest.mark.parametrize(("constraint", "value", "expected"), GOOD)
def test_what_fits_comes_out_as_plain_python(constraint, value, expected):
    found = check("x", value, constraint)
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(expected, tuple):
        assert [type(entry) for entry in found] == [type(entry) for entry in expected]


NO_NUMBERS = [
    "1",
    "٣",
    "",
    b"1",
    None,
    True,
    np.True_,
    torch.tensor(True),
    1j,
    torch.tensor(1j),
    Fraction(1, 2),
    [1],
    {},
    np.ones(1),
    np.ones(2),
    torch.ones(1),
    torch.ones(2, 2),
    np.datetime64("2020-01-01"),
    np.str_("1"),
    object(),
]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("constraint", [ANY, SHARE, COUNT, Several(COUNT)])
def test_what_is_no_number_is_a_wrong_type(constraint, value):
    if isinstance(constraint, Several):
        value = [value]
    with pytest.raises(BadType, match=r"^(x|each of x) must be a (whole )?number, not .+\.$") as error:
        check("x", value, constraint)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 120


@pytest.mark.parametrize("value", [2.0, 0.5, np.float64(1), torch.tensor(1.0), math.nan, math.inf])
def test_a_number_with_a_point_is_no_whole_number(value):
    with pytest.raises(BadType, match="x must be a whole number, not"):
        check("x", value, COUNT)


OUTSIDE = [
    (ANY, math.nan, "must be finite, not nan"),
    (ANY, -math.inf, "must be finite, not -inf"),
    (ANY, np.float32("nan"), "must be finite, not nan"),
    (ANY, torch.tensor(math.inf), "must be finite, not inf"),
    (ANY, HUGE, "must be finite, not 1000"),
    (Real(infinite=True), math.nan, "must be a number other than NaN, not nan"),
    (SHARE, 1, r"must lie in \[0, 1\), not 1\."),
    (SHARE, -1e-9, r"must lie in \[0, 1\), not -1e-09\."),
    (SHARE, math.nan, r"must lie in \[0, 1\), not nan"),
    (SHARE, HUGE, r"must lie in \[0, 1\), not 1000"),
    (Real(above=0, at_most=1), 0.0, r"must lie in \(0, 1\], not 0\.0"),
    (Real(above=0), 0, "must be finite and above 0, not 0"),
    (Real(above=0), math.inf, "must be finite and above 0, not inf"),
    (Real(at_least=0), np.float64(-1), r"must be finite and at least 0, not -1\.0"),
    (Real(at_most=2), 3, "must be finite and at most 2, not 3"),
    (Real(below=2), 2, "must be finite and below 2, not 2"),
    (Real(above=0, infinite=True), 0, "must be above 0, not 0"),
    (COUNT, 0, "must be at least 1, not 0"),
    (COUNT, -HUGE, "must be at least 1, not -1000"),
    (COUNT, np.int64(-1), "must be at least 1, not -1"),
    (Whole(at_most=3), 4, "must be at most 3, not 4"),
    (Whole(1, 5), 6, "must be between 1 and 5, not 6"),
    (Several(COUNT), [1, 0], "each of x must be at least 1, not 0"),
    (Several(COUNT, at_least=1), [], "x must have a length of at least 1, not 0"),
    (Several(ANY, rising=True), [0.1, 0.1], r"x must rise, each once, not \(0\.1, 0\.1\)"),
]


@pytest.mark.parametrize(("constraint", "value", "message"), OUTSIDE)
def test_what_lies_outside_is_named_with_what_is_allowed(constraint, value, message):
    with pytest.raises(BadInput, match=message) as error:
        check("x", value, constraint)
    assert len(str(error.value)) < 120


def test_a_number_that_python_does_not_print_is_refused_all_the_same():
    with pytest.raises(BadInput, match="x must be finite, not an integer of 16610 bits"):
        check("x", 10**5000, ANY)


@pytest.mark.parametrize("value", ["12", b"12", 3, None, torch.tensor(3), np.array(3)])
def test_what_is_no_collection_is_a_wrong_type(value):
    with pytest.raises(BadType, match=r"^x must be a list or another collection, not .+\.$"):
        check("x", value, Several(ANY))


@pytest.mark.parametrize("value", ["Adam", "", None, 1, ["adam"], np.array(["adam", "sgd"])])
def test_a_name_must_be_one_of_those_allowed(value):
    with pytest.raises(UnknownName, match=r"unknown optimizer .*Allowed: adam, sgd\."):
        check("name", value, OneOf("sgd", "adam", kind="optimizer"))


@dataclass(frozen=True)
class Base:
    constraints = Constraints(n=COUNT)

    n: int = 1

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Derived(Base):
    constraints = Constraints(rate=Maybe(Real(above=0)), steps=Several(Whole(at_least=0)))

    rate: float | None = None
    steps: tuple[int, ...] = ()


def test_fields_are_held_against_the_constraints_of_all_bases():
    assert [field.name for field in fields(Derived)] == ["n", "rate", "steps"]
    found = Derived(np.int64(2), torch.tensor(0.5), [1, np.int8(2)])
    assert found == Derived(2, 0.5, (1, 2))
    assert type(found.n) is int
    assert type(found.rate) is float
    assert hash(found) == hash(Derived(2, 0.5, (1, 2)))
    assert type(Derived(1, 1).rate) is float  # 1 and 1.0 have one key in records
    for arguments, error, message in (
        ({"n": 0}, BadInput, "n must be at least 1, not 0"),
        ({"rate": 0}, BadInput, "rate must be finite and above 0"),
        ({"steps": [0.5]}, BadType, "each of steps must be a whole number, not 0.5"),
    ):
        with pytest.raises(error, match=message):
            Derived(**arguments)


def test_nan_and_infinities_are_found_in_parameters_and_buffers():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_finite(model)
    check_finite(nn.ReLU())
    model[0].weight.data.fill_(3e38)  # the sum overflows, no entry does
    check_finite(model)
    model[1].running_var[1] = math.inf
    with pytest.raises(BadInput, match=r"'1\.running_var' holds 1 NaN or infinite values"):
        check_finite(model)
    model[0].bias.data.fill_(math.nan)
    with pytest.raises(BadInput, match=r"'0\.bias' holds 2 NaN or infinite values"):
        check_finite(model)
    hidden = nn.Identity()
    hidden.register_buffer("table", torch.tensor([math.nan]), persistent=False)
    with pytest.raises(BadInput, match=r"'table' holds 1 NaN"):
        check_finite(hidden)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ("12", BadType), (None, BadType), ([True], BadType), ([[1, 2], [3]], BadType), (torch.tensor([True]), BadType),
        (torch.tensor([1j]), BadType), ([], BadInput), ([math.nan], BadInput), (torch.tensor([math.inf]), BadInput),
    ],

)  # fmt: skip
def test_values_that_are_no_finite_numbers_make_no_tensor(values, error):
    with pytest.raises(error, match=r"^radii "):
        doubles("radii", values)


def test_only_a_generator_of_torch_is_a_source_of_randomness():
    generator = torch.Generator()
    assert generator_of(generator) is generator
    for other in (None, 0, np.random.default_rng(0)):
        with pytest.raises(BadType, match=r"a torch\.Generator is needed"):
            generator_of(other)


def test_what_is_wanted_as_a_list_may_be_read_twice_and_what_is_only_read_stays():
    @checked
    def twice(rows: list[dict], more: Iterable[dict]) -> tuple[int, int, bool]:
        return len(rows), len(rows), isinstance(more, list)

    assert twice(({"a": i} for i in range(3)), iter([])) == (3, 3, False)
    assert twice({"x": {}}.values(), iter([])) == (1, 1, False)
    with pytest.raises(BadType, match="each of rows"):
        twice((i for i in range(3)), [])


@pytest.mark.parametrize("device", ["hpu", "privateuseone", "meta", "xpu", "vulkan", "lazy"])
def test_a_device_of_another_package_is_not_there(device):
    for ask in (present, environment):
        with pytest.raises(BadInput, match=f"device='{device}' was asked for, but torch cannot use it here"):
            ask(device)
