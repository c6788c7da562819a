"""The papers' numbers beside ours: the ledger ``book/claims.yml``, verdicts computed from rows, the Scoreboard page."""

from pruning_core.book.claims.ledger import Claim, Comparison, Selection, Setting, load_claims
from pruning_core.book.claims.page import evidence, scoreboard, side_by_side, summary, to_markdown, write_page
from pruning_core.book.claims.verdicts import Verdict, verdict, verdicts

__all__ = [
    "Claim", "Comparison", "Selection", "Setting", "Verdict",
    "evidence", "load_claims", "scoreboard", "side_by_side", "summary", "to_markdown", "verdict", "verdicts",
    "write_page",
]  # fmt: skip
