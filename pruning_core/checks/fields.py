"""The fields of a dataclass, held against what they must be when one is made, and kept in one form each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pruning_core.checks.constraints import LARGEST, Constraint, Flag, Maybe, Real, Several, Whole


class Checked:
    """A base of dataclasses whose fields are held against their constraints when one is made.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from pruning_core.checks import Constraints, Whole
    >>> @dataclass(frozen=True)
    ... class Halving(Checked):
    ...     constraints = Constraints(rounds=Whole(at_least=1))
    ...     rounds: int = 1
    >>> Halving(np.int8(4))
    Halving(rounds=4)
    """

    def __post_init__(self) -> None:
        check_fields(self)


def check_fields(instance: Any) -> None:
    """Hold the fields of a dataclass against the class attribute ``constraints`` (field -> constraint), bases included.

    A field whose default is True or False is a Flag, one whose default is a float a number, without being named. Scalars of
    numpy and torch, and lists, become plain numbers and tuples; numbers are kept in one form (:func:`one_form`).

    >>> check_fields(Real(infinite=1))
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadType: infinite must be True or False, not 1.
    """
    defaults = {field.name: field.default for field in fields(instance)}
    kinds: dict[type, Constraint] = {bool: Flag(), float: Real(infinite=True)}
    constraints = {name: kinds[type(value)] for name, value in defaults.items() if type(value) in kinds}
    for base in reversed(type(instance).__mro__):
        constraints |= vars(base).get("constraints", {})
    for name in constraints.keys() & defaults.keys():  # a base may know what a field must be that not all classes have
        value = constraints[name].check(name, getattr(instance, name))
        object.__setattr__(instance, name, one_form(value, constraints[name]))


def one_form(value: Any, constraint: Constraint) -> Any:
    """``value``, which fits the constraint, with its numbers in the one form that is kept, so that equal settings have equal
    hashes: a real number as a float, a width of 2 as 2.0; as an int where it is whole and ``counts``, a warm-up of 5.0 epochs
    as 5. No zero is negative.

    >>> one_form(2, Real()), one_form((30, 60.0, 7.5), Several(Real(counts=True))), one_form(2, Whole()), one_form(-0.0, Real())
    (2.0, (30, 60, 7.5), 2, 0.0)
    """
    if isinstance(constraint, Maybe):
        return one_form(value, constraint.constraint)
    if value is None:
        return None
    if isinstance(constraint, Several):
        return tuple(one_form(entry, constraint.constraint) for entry in value)
    if not isinstance(constraint, Real) or isinstance(constraint, Whole) or abs(value) > LARGEST:
        return value
    return int(value) if constraint.counts and value == int(value) else float(value) + 0.0
