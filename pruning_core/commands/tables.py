"""Tables of what the package knows: methods, networks, data sets."""

from collections.abc import Sequence
from typing import Any

from pruning_core.commands.options import command
from pruning_core.data.sets import DATASETS
from pruning_core.methods.base import methods_table
from pruning_core.models.build import MODELS


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as their widest entry; the last one may run on.

    >>> print(table(("name", "n"), [("one", 1)]))
    name  n
    one   1
    """
    lines = [[str(entry) for entry in row] for row in [head, *rows]]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join("  ".join(e.ljust(w) for e, w in zip(line, widths, strict=True)).rstrip() for line in lines)


@command("methods", "methods")
def methods() -> None:
    """Table of the pruning methods."""
    print(methods_table().to_string())


@command("models", "models")
def models() -> None:
    """Table of the networks that build_model knows."""
    rows = [(name, f"{entry.parameters:,}", entry.paper) for name, entry in MODELS.items()]
    print(table(("model", "parameters", "paper"), rows))
    print("torchvision/<name> builds any of torchvision's networks.")


@command("data", "data")
def data() -> None:
    """Table of the data sets that load_data knows."""
    rows = [(name, "x".join(map(str, d.shape)), d.classes, d.licence, d.source) for name, d in DATASETS.items()]
    print(table(("data", "shape", "classes", "licence", "source"), rows))
