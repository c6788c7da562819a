"""What an argument must be, declared once: numbers, names, collections, tensors; anything else is one clear sentence."""

from pruning_core.checks.arguments import checked
from pruning_core.checks.constraints import (
    LARGEST,
    SEED,
    A,
    Constraint,
    Constraints,
    Dense,
    Device,
    Flag,
    Maybe,
    OneOf,
    Place,
    Real,
    Several,
    Text,
    Whole,
    check,
    plain,
    shown,
)
from pruning_core.checks.fields import Checked, check_fields, one_form
from pruning_core.checks.tensors import DOUBLE, Floats, check_finite, doubles, generator_of, present

__all__ = [
    "DOUBLE", "LARGEST", "SEED", "A", "Checked", "Constraint", "Constraints", "Dense", "Device", "Flag", "Floats", "Maybe",
    "OneOf", "Place", "Real", "Several", "Text", "Whole", "check", "check_fields", "check_finite", "checked", "doubles",
    "generator_of", "one_form", "plain", "present", "shown",
]  # fmt: skip
