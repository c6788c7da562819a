"""The papers' own settings by their own names: listed, run (shortened, if asked), and written down with the papers' numbers."""

from pruning_core.official.catalogue import CATALOGUE, Official, official
from pruning_core.official.results import write_results
from pruning_core.official.run import planned, run_official
from pruning_core.official.shorten import Shorter, shortened
from pruning_core.official.typed import typed

__all__ = [
    "CATALOGUE",
    "Official",
    "Shorter",
    "official",
    "planned",
    "run_official",
    "shortened",
    "typed",
    "write_results",
]
