"""The errors of the package, and the one check that every lookup by name shares."""

import contextlib
import errno
import re
import reprlib
import textwrap
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any


class PruningError(Exception):
    """Base of every error that this package raises on purpose.

    >>> import pruning_core as pc
    >>> try:
    ...     pc.prune(pc.build_model("lenet300", "digits"), "magnitude", 1.5)
    ... except pc.PruningError as error:
    ...     print(error)
    sparsity must lie in [0, 1), not 1.5.
    """


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


class OutOfTime(PruningError):
    """The minutes that were given are over: what was reached is kept, and the same call goes on from there."""


def said(error: BaseException, most: int = 200) -> str:
    """The first line of what an error says, or its type; what is longer than ``most`` letters ends between two words.

    >>> said(ValueError("the size of the first tensor must match, but does not"), 30), said(KeyError())
    ('the size of the first ...', 'KeyError')
    """
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= most else textwrap.shorten(line, most, placeholder=" ...")


@contextlib.contextmanager
def named_failures(what: str) -> Iterator[None]:
    """Whatever a user's own code raises within the block becomes BadInput, which says that ``what`` failed and how; the
    package's own errors pass.

    >>> with named_failures("the function of data set 'mine'"):
    ...     {}["images"]
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: the function of data set 'mine' failed: 'images'.
    """
    try:
        yield
    except PruningError:
        raise
    except Exception as error:
        raise BadInput(f"{what} failed: {said(error).rstrip('.')}.") from error


_MEMORY = re.compile(r"allocate memory|unable to allocate|out of memory|failed to map segment|bad_alloc", re.IGNORECASE)


def shortage(error: BaseException) -> str | None:
    """In one sentence what the system has too little of, where an error says so in whatever words; None for any other error.

    >>> shortage(MemoryError())
    'there is too little memory: ask for less at a time (fewer workers, smaller batches), or raise the limit (ulimit -v)'
    >>> shortage(ValueError("no memory of it"))
    """
    text, number = str(error), error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _MEMORY.search(text):
        return (
            "there is too little memory: ask for less at a time (fewer workers, smaller batches), or raise the limit "
            "(ulimit -v)"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return "too many files are open: ask for fewer workers, or raise the limit (ulimit -n)"
    if number == errno.EAGAIN or "can't start new thread" in text:
        return "the system starts no further process or thread: ask for fewer workers, or raise the limit (ulimit -u)"
    return None


LONGEST_LIST = 900
"""So many letters the names in a message have at most."""


def known_name(kind: str, name: object, allowed: Iterable[str]) -> str:
    """Return ``name`` if it is one of ``allowed``; otherwise raise UnknownName with the nearest match.

    >>> known_name("method", "magnitud", ["magnitude", "random"])
    Traceback (most recent call last):
    ...
    pruning_core.errors.UnknownName: unknown method 'magnitud': did you mean 'magnitude'? Allowed: magnitude, random.
    >>> known_name("model", "Conv6", ["conv6_snip", "lenet5"])
    Traceback (most recent call last):
    ...
    pruning_core.errors.UnknownName: unknown model 'Conv6': did you mean 'conv6_snip'? Allowed: conv6_snip, lenet5.
    """
    names = sorted(allowed)
    if isinstance(name, str) and name in names:
        return str.__str__(name)  # of the member of an enumeration its text
    near = _meant(name[:200], names) if isinstance(name, str) else []
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    listed = ", ".join(names)
    if len(listed) > LONGEST_LIST:
        listed = f"{listed[:LONGEST_LIST].rpartition(', ')[0]}, ... ({len(names)} names)"
    raise UnknownName(f"unknown {kind} {shown(name)}: {hint}Allowed: {listed}.")


def _meant(name: str, names: list[str]) -> list[str]:
    """The names that one in another spelling stands for, as in an official code: CIFAR10, VGG16, SNAPit; else the nearest."""
    plain = {known: re.sub(r"[^a-z0-9]", "", known.lower()) for known in names}
    asked = re.sub(r"[^a-z0-9]", "", name.lower())
    if same := [known for known in names if plain[known] == asked]:
        return same[:1]
    longer = [known for known in names if len(asked) > 3 and plain[known].startswith(asked)]
    shorter = [known for known in names if len(plain[known]) > 3 and asked.startswith(plain[known])]
    return longer[:4] or sorted(shorter, key=len)[-1:] or get_close_matches(name, names, n=1, cutoff=0.5)


def shown(value: Any) -> str:
    """``value`` as a message quotes it: short, on one line, whatever it is.

    >>> shown("twelve"), shown(list(range(100)))
    ("'twelve'", '[0, 1, 2, 3, 4, 5, ...]')
    """
    try:
        if hasattr(value, "shape") and not isinstance(value, type):
            return f"{type(value).__name__} of shape {tuple(value.shape)}"
        return " ".join(reprlib.repr(value).split())
    except Exception:  # an int with more digits than Python prints; an object that cannot say what it is
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
