"""The errors of the package, and the one check that every lookup by name shares."""

from collections.abc import Iterable
from difflib import get_close_matches


class PruningError(Exception):
    """Base of every error that this package raises on purpose."""


class BadInput(PruningError, ValueError):
    """A value that cannot be worked with; the message names it and what is allowed."""


class BadType(PruningError, TypeError):
    """An argument of the wrong type."""


class UnknownName(BadInput):
    """A name that no registry holds."""


class BudgetError(BadInput):
    """A budget that cannot be met exactly."""


class Unprunable(BadInput):
    """A network, or a part of it, that cannot be pruned in the way asked for."""


class CorruptFile(BadInput):
    """A file that is truncated, altered, or of another kind than expected."""


def known_name(kind: str, name: object, allowed: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``allowed``; otherwise raise UnknownName with the nearest match.

    >>> known_name("method", "magnitud", ["magnitude", "random"])
    Traceback (most recent call last):
    ...
    pruning_core.errors.UnknownName: unknown method 'magnitud': did you mean 'magnitude'? Allowed: magnitude, random.
    """
    names = sorted(allowed)
    if isinstance(name, str) and name in names:
        return name
    near = get_close_matches(name, names, n=1, cutoff=0.5) if isinstance(name, str) else []
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnknownName(f"unknown {kind} {name!r}: {hint}Allowed: {', '.join(names)}.")
