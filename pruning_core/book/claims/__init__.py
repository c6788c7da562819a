"""The papers' numbers beside ours: the ledger ``book/claims.yml``, verdicts computed from rows, the
Scoreboard page.

A claim says what a paper states, where, how we know it, and which rows of ours answer it. Nobody types a
verdict; the rules that lead to one stand at the head of ``verdicts.py`` and on the page.
"""

from pruning_core.book.claims.ledger import MARKS, Claim, Comparison, Selection, load_claims
from pruning_core.book.claims.page import scoreboard, side_by_side, to_markdown, write_scoreboard
from pruning_core.book.claims.verdicts import KINDS, LEAST_SEEDS, Verdict, verdict

__all__ = [
    "KINDS",
    "LEAST_SEEDS",
    "MARKS",
    "Claim",
    "Comparison",
    "Selection",
    "Verdict",
    "load_claims",
    "scoreboard",
    "side_by_side",
    "to_markdown",
    "verdict",
    "write_scoreboard",
]
