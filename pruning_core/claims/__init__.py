"""The papers' numbers beside ours: the ledger ``book/claims.yml``, verdicts computed from rows, the
Scoreboard page.

A claim says what a paper states, where, how we know it, and which rows of ours answer it. Nobody types a
verdict; the rules that lead to one stand at the head of ``verdicts.py`` and on the page.
"""

from .ledger import MARKS, PROFILES, Claim, Comparison, Selection, load_claims
from .page import scoreboard, side_by_side, to_markdown, write_scoreboard
from .verdicts import KINDS, LEAST_SEEDS, Interval, Verdict, mean_interval, paired_difference, verdict

__all__ = [
    "KINDS",
    "LEAST_SEEDS",
    "MARKS",
    "PROFILES",
    "Claim",
    "Comparison",
    "Interval",
    "Selection",
    "Verdict",
    "load_claims",
    "mean_interval",
    "paired_difference",
    "scoreboard",
    "side_by_side",
    "to_markdown",
    "verdict",
    "write_scoreboard",
]
