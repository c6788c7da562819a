"""The hashes that name records: equal settings have one, whatever their containers were."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from pruning_core.checks import Whole, check, checked
from pruning_core.errors import BadInput, BadType

HASHED_UNLESS_DEFAULT = {"hashed": "unless default"}
"""Metadata of a dataclass's field that came later: at its default it does not enter a content hash, so old records stay."""


def _canonical(value: Any) -> Any:
    """``value`` as JSON types only, so that equal settings give equal text whatever their containers were."""
    if isinstance(value, float) and math.isnan(value):
        raise BadType("nan has no content hash: it is not even equal to itself.")
    if isinstance(value, int):
        check("a number with a content hash", int(value), Whole())
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _canonical(getattr(value, f.name)) for f in dataclasses.fields(value) if is_hashed(f, value)}
        if "type" in fields:
            raise BadType(f"{type(value).__name__} has a field named 'type', which its content hash needs itself.")
        return {"type": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise BadType(f"a content hash needs strings as keys, got {wrong[0]!r}.")
        return {key: _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    raise BadType(
        f"{type(value).__name__} has no content hash; allowed: None, bool, int, float, str, lists, tuples, "
        "mappings with string keys and dataclasses of these."
    )


def is_hashed(field: dataclasses.Field, value: Any) -> bool:
    """Whether a field of the dataclass instance ``value`` enters its content hash."""
    at_default = getattr(value, field.name) == field.default
    return field.compare and not (field.metadata == HASHED_UNLESS_DEFAULT and at_default)


@checked
def content_hash(value: Any) -> str:
    """16 hex characters of the SHA-256 of ``value`` as canonical JSON: the name under which its result is stored.

    Dataclasses become ``{"type": class name, field: value, ...}`` without the fields declared ``compare=False`` (what does
    not take part in ``==`` is no part of the identity either) and those with HASHED_UNLESS_DEFAULT at their default; tuples
    equal lists; the order of keys does not count; floats enter by ``repr``, so 1 and 1.0 differ. Raises BadType for anything
    else, paths included: where a file lies must not decide what it is.

    >>> content_hash({"a": 1, "b": (2, 3)}) == content_hash({"b": [2, 3], "a": 1})
    True
    """
    try:
        return digest(_canonical(value))[:16]
    except RecursionError as error:
        raise BadInput("what holds itself has no content hash.") from error


def digest(plain: Any, *, finite: bool = False) -> str:
    """64 hex characters of the SHA-256 of JSON types, whatever the order of their keys. ValueError for a number that is not
    ``finite``, where all must be."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=not finite)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
