"""YAML that people type: single values of a command line, and files in the forms of the papers' repositories.

YAML 1.1 takes ``1e-4`` for a text, as it has no point; here it is the number that it looks like.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from pruning_core.errors import BadInput
from pruning_core.records.files import SafeLoader
from pruning_core.records.places import file_bytes

LARGEST = 10**7  # bytes of a table that people type
DEEPEST = 100  # collections within each other; libyaml's loader overruns the stack somewhere beyond ten thousand
MOST = 10**6  # values, an alias counted as all that it stands for


class EachKeyOnce:
    """For loaders: a key that stands twice in one mapping is an error, where the last one would win; so is a list that holds
    itself."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        # at once: PyYAML sees only then that a node is its own part
        return super().construct_object(node, True)  # type: ignore[misc]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is no single value", problem_mark=key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)  # type: ignore[misc]


class _Numbers(EachKeyOnce, yaml.SafeLoader):
    """The safe loader, with floats as everybody writes them."""


_Numbers.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def check_shape(text: str) -> None:
    """Raise yaml.MarkedYAMLError for YAML that is nested too deeply, or whose aliases stand for more than a memory holds.

    >>> check_shape("a: &a [1, 2]\\nb: [*a, *a]")
    >>> check_shape("[" * 200)
    Traceback (most recent call last):
    ...
    yaml.error.MarkedYAMLError: it is nested too deeply
      in "<unicode string>", line 1, column 101
    """
    named: dict[str, int] = {}
    within: list[tuple[str | None, int]] = []
    for event in yaml.parse(text, SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, 1))
            if len(within) > DEEPEST:
                raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=event.start_mark)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = within.pop()
        elif isinstance(event, yaml.NodeEvent):  # of what an alias names, and is not whole yet, the loader speaks
            anchor, size = (
                (None, named.get(event.anchor, 1)) if isinstance(event, yaml.AliasEvent) else (event.anchor, 1)
            )
        else:
            continue
        if anchor is not None:
            named[anchor] = size
        if size > MOST:
            raise yaml.MarkedYAMLError(problem="its aliases repeat too much", problem_mark=event.start_mark)
        if within:
            within[-1] = within[-1][0], within[-1][1] + size


def read_value(text: str, what: str) -> Any:
    """What ``text`` says as YAML; BadInput, naming it by ``what``, if it is none.

    >>> read_value("1e-4", "a strength"), read_value("[0.5, 0.2]", "kept"), read_value("snip", "a method")
    (0.0001, [0.5, 0.2], 'snip')
    """
    try:
        check_shape(text)
        return yaml.load(text, _Numbers)
    # A date like 2024-13-01 is a ValueError; what an explicit tag promises and a text does not hold, an AttributeError.
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise BadInput(f"{what} is no YAML: {' '.join(str(error).split())}") from error


def read_document(path: Path) -> dict[str, Any]:
    """The mapping that a file of YAML holds; BadInput if there is no such file, or something else in it."""
    try:
        text = file_bytes(path, LARGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no text'}.") from error
    found = read_value(text, str(path))
    if not isinstance(found, dict):
        raise BadInput(f"{path} must hold keys and values, and not {type(found).__name__}.")
    return found
