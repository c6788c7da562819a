"""The book's YAML tables: no key twice, and a schema that says in one sentence what is wrong."""

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pruning_core.errors import BadInput, known_name
from pruning_core.records.files import SafeLoader
from pruning_core.records.places import file_bytes
from pruning_core.records.values import LARGEST, EachKeyOnce, check_shape


class _Loader(EachKeyOnce, SafeLoader):  # type: ignore[misc]
    """YAML in which a key that stands twice in one mapping is an error, as are a list that holds itself, and a number that
    is not finite."""

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        number = super().construct_yaml_float(node)
        if not math.isfinite(number):
            raise yaml.MarkedYAMLError(problem=f"{node.value} is no finite number", problem_mark=node.start_mark)
        return number


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def read_table(path: Path, what: str) -> Any:
    """The content of a YAML file; BadInput, with ``what`` in its sentence, if it cannot be read or a key stands twice."""
    text = ""
    try:
        text = file_bytes(path, LARGEST).decode("utf-8")
        check_shape(text)
        return yaml.load(text, _Loader)
    # A date like 2024-13-01 is a ValueError; what an explicit tag promises and a text does not hold, an AttributeError.
    except (OSError, UnicodeDecodeError, ValueError, AttributeError, yaml.YAMLError) as error:
        words: dict[type, str] = {UnicodeDecodeError: "it is no text in UTF-8"}
        why = words.get(type(error)) or " ".join((getattr(error, "strerror", None) or str(error)).split())
        if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
            line = error.problem_mark.line
            ids = re.findall(r"(?m)^ *- id: *(\S+)", "\n".join(text.splitlines()[: line + 1]))
            why = f"{error.problem} in line {line + 1}" + (f", in the claim {ids[-1]!r}" if ids else "")
        raise BadInput(f"cannot read the {what} {path}: {why}.") from error


@cache
def _check(part: str) -> Any:
    import fastjsonschema

    content = read_table(Path(__file__).with_name("schema.yml"), "schema")
    return fastjsonschema.compile({**content["$defs"][part], "$defs": content["$defs"]})


def _check_keys(content: Any, name: str) -> None:
    """BadInput for a key that is no text, such as a name that YAML takes for a number; the schema speaks of texts only."""
    for entry in content if isinstance(content, list) else ():
        _check_keys(entry, name)
    for key, entry in content.items() if isinstance(content, dict) else ():
        if not isinstance(key, str):
            raise BadInput(f"the key {key!r} of {name} must be a text: put it between quotes.")
        _check_keys(entry, name)


def check_table(content: Any, part: str, name: str) -> None:
    """Raise BadInput for the first thing that breaks the definition ``part`` of ``schema.yml``.

    ``name`` says what is checked, as in "the claim 'a'". A definition with a description speaks by it.

    >>> check_table({"quick": {"1_sparsity": {"epochs": 3}}}, "profiles", "the profiles")
    >>> check_table({"quick": {"1_sparsity": 3}}, "profiles", "the profiles")
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: 'quick.1_sparsity' of the profiles must be object or null.
    """
    from fastjsonschema import JsonSchemaValueException

    _check_keys(content, name)
    try:
        _check(part)(content)
    except JsonSchemaValueException as error:
        path = ".".join(map(str, error.path[1:]))
        at = f"{path!r} of {name}" if path else name
        if "description" in error.definition:
            raise BadInput(f"{name} {error.definition['description']}.") from None
        if error.rule == "additionalProperties":
            for key in error.value:
                known_name(f"key of {at}:", key, error.definition["properties"])
        if error.rule == "enum":
            known_name(f"{path.rpartition('.')[2]} of {name}:", error.value, map(str, error.rule_definition))
        if error.rule == "pattern":
            raise BadInput(f"{at} must be a text of one line, without control characters.") from None
        raise BadInput(f"{at} {str(error.message).removeprefix(str(error.name)).strip()}.") from None
