"""The book: notebooks run and checked, exercises, chapters, and the ledger of claims."""

from pruning_core.book.chapters import find_notebooks, run_notebooks
from pruning_core.book.claims.ledger import Claim, load_claims
from pruning_core.book.claims.page import scoreboard, side_by_side, to_markdown
from pruning_core.book.claims.verdicts import Verdict, verdict
from pruning_core.book.exercises import check
from pruning_core.book.notebooks import run_notebook
from pruning_core.book.other_networks import other_networks
from pruning_core.book.profiles import profile_settings
from pruning_core.book.sentences import backed, clear, gaps, in_points, in_words, means, percents, stored_rows
from pruning_core.book.text_tables import text_table

__all__ = [
    "Claim",
    "Verdict",
    "backed",
    "check",
    "clear",
    "find_notebooks",
    "gaps",
    "in_points",
    "in_words",
    "load_claims",
    "means",
    "other_networks",
    "percents",
    "profile_settings",
    "run_notebook",
    "run_notebooks",
    "scoreboard",
    "side_by_side",
    "stored_rows",
    "text_table",
    "to_markdown",
    "verdict",
]  # fmt: skip
