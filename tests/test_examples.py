"""Every public name of the package has an example that the doctests run; found by introspection, a new name as well."""

import importlib
import inspect
import re
import sys
from typing import Any

import pytest

import method_pages
import pruning_core as pc
from pruning_core.version import REPOSITORY
from tests.test_callables import FACES

ALL = [*FACES, "pruning_core.checks", "pruning_core.official"]
RUN_ELSEWHERE = [REPOSITORY / "CONTRIBUTING.md"]
"""Pages whose blocks of Python a test runs (test_contributing.py)."""
HANDED_OVER = {"View"}
"""Made by the package and handed to a method's `score`; nobody makes one."""


def public() -> dict[str, Any]:
    found = {}
    for face in ALL:
        module = importlib.import_module(face)
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and (getattr(thing, "__module__", None) or "").startswith("pruning_core"):
                found[name] = thing
    return found


PUBLIC = public()


def examples(text: str | None) -> str:
    """The lines of a docstring's doctests."""
    return "\n".join(re.findall(r"^\s*(?:>>>|\.\.\.) (.*)$", text or "", re.M))


def has_example(name: str, thing: Any) -> bool:
    """Whether a doctest stands in its docstring or in that of a method, or one of its module, or a page, uses it."""
    own = [inspect.unwrap(thing)]
    if isinstance(thing, type):
        own += [inspect.unwrap(part) for part in vars(thing).values() if callable(part)]
    if any(examples(part.__doc__) for part in own):
        return True
    module = examples(sys.modules[thing.__module__].__doc__)
    blocks = [b for page in RUN_ELSEWHERE for b in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)]
    return bool(re.search(rf"\b{name}\b", "\n".join([module, *blocks])))


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - HANDED_OVER))
def test_every_public_name_has_an_example(name: str) -> None:
    thing = PUBLIC[name]
    if isinstance(thing, type) and issubclass(thing, pc.Method) and thing is not pc.Method:
        assert thing.name in method_pages.names()  # its page has one, which the build runs
    else:
        assert has_example(name, thing), "give it a doctest"


def test_an_example_is_found_and_its_absence_too() -> None:
    def without() -> None:
        """Nothing."""

    def with_one() -> None:
        """Something.

        >>> 1 + 1
        2
        """

    assert has_example("with_one", with_one) and not has_example("without_any", without)
