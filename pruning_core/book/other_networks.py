"""What became of networks that others wrote, cut here and by torch-pruning: a table stored with the book."""

from pathlib import Path
from typing import TYPE_CHECKING

from pruning_core.book.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

STORED = Path(__file__).with_name("other_networks.yml")
"""Made by ``python -m tests.models.third_party``, which says how each network is judged."""


def other_networks() -> "pd.DataFrame":
    """One row a network and tool ("here" or "torch-pruning"), indexed by both, in the order in which they were judged.

    ``kind`` is "exact", "differs", "refused" or "not judged", ``said`` the sentence or the size of the difference,
    ``removed`` the fraction of the parameters that went, ``seconds`` one reading of processor time; ``attrs`` holds the
    versions of the packages. Raises BadInput where the table cannot be read.

    >>> rows = other_networks()
    >>> rows.loc[("alexnet", "here"), "kind"]
    'exact'
    >>> sorted(rows.attrs)
    ['timm', 'torch', 'torch-pruning', 'torchvision']
    """
    import pandas as pd

    content = read_table(STORED, "table of networks that others wrote")
    rows = {(name, who): found for name, pair in content["rows"].items() for who, found in pair.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.names = ["network", "tool"]
    table.attrs = dict(content["versions"])
    return table
