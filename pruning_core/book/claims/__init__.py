"""The papers' numbers beside ours: the ledger ``book/claims.yml``, verdicts computed from rows, the Scoreboard page."""

from pruning_core.book.claims.ledger import Claim, Comparison, Selection, load_claims
from pruning_core.book.claims.page import scoreboard, side_by_side, to_markdown, write_scoreboard
from pruning_core.book.claims.verdicts import Verdict, verdict

__all__ = [
    "Claim", "Comparison", "Selection", "Verdict",
    "load_claims", "scoreboard", "side_by_side", "to_markdown", "verdict", "write_scoreboard",
]  # fmt: skip
