"""The papers' numbers beside ours: the ledger ``book/claims.yml``, verdicts computed from rows, the
Scoreboard page.

A claim says what a paper states, where, how we know it, and which rows of ours answer it. Nobody types a
verdict; the rules that lead to one stand at the head of ``verdicts.py`` and on the page.
"""

from pruning_core.claims.ledger import MARKS
from pruning_core.claims.ledger import Claim
from pruning_core.claims.ledger import Comparison
from pruning_core.claims.ledger import Selection
from pruning_core.claims.ledger import load_claims
from pruning_core.claims.page import scoreboard
from pruning_core.claims.page import side_by_side
from pruning_core.claims.page import to_markdown
from pruning_core.claims.page import write_scoreboard
from pruning_core.claims.verdicts import KINDS
from pruning_core.claims.verdicts import LEAST_SEEDS
from pruning_core.claims.verdicts import Verdict
from pruning_core.claims.verdicts import verdict

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
