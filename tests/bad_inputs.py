"""How many bad inputs the tests throw, each of which must get one sentence: ``python -m tests.bad_inputs`` counts them.

Counted is what is surely refused: by a declared constraint, or because a table holds nothing but what is refused.
"""

import contextlib
import inspect
import tempfile
from dataclasses import fields

from pruning_core.checks.arguments import constraints_of
from pruning_core.commands.tables import table
from tests import test_callables, test_objects, test_values
from tests.book import test_damaged_notebooks
from tests.commands import test_options
from tests.models import test_crafted_files
from tests.records import test_yaml


def _of_functions() -> int:
    values = test_callables.WRONG_TYPES + test_callables.BAD
    cases = test_callables.every_case(values)
    return sum(one is not None and test_callables.refuses(one, name, value) for _, name, one, value in cases)


def _of_methods() -> int:
    count, values = 0, test_callables.WRONG_TYPES + test_callables.BAD
    for name, method in test_objects.METHODS:
        bound = getattr(test_objects.MADE[name](), method)
        known = constraints_of(inspect.unwrap(bound)) | dict(getattr(bound, "declared", {}))
        for parameter, one in known.items():
            count += sum(one is not None and test_callables.refuses(one, parameter, value) for value in values)
    return count


def _of_fields() -> int:
    tries = (
        test_values.tried(kind, field.name, value)[1]
        for kind in test_values.KINDS
        for field in fields(kind)
        for value in test_values.BAD
    )
    return sum(map(bool, tries))


def counts() -> dict[str, int]:
    """Where they are thrown -> how many."""
    options = {(name, parameter.name, value) for name, parameter, value in test_options.ALL} - test_options.TAKEN
    return {
        "arguments of public functions and classes": _of_functions(),
        "arguments of methods of public classes": _of_methods(),
        "fields of experiments, stages, methods": _of_fields(),
        "options and arguments of the commands": len(options),
        "damaged YAML": (len(test_yaml.READERS) + 1) * len(test_yaml.DAMAGED),
        "damaged notebooks": len(test_damaged_notebooks.CONTENTS) + len(test_damaged_notebooks.PLACES),
        "crafted network files": len(test_crafted_files.HEADERS) + len(test_crafted_files.BROKEN),
    }


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):  # some objects open a file when they are made
        found = counts()
    print(table(("thrown at", "bad inputs"), [*found.items(), ("all", sum(found.values()))]))


if __name__ == "__main__":
    main()
