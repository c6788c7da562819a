"""Records: rows of results and tensors in files with checksums, the hashes that name them, and what made them."""

from pruning_core.records.checkpoints import load_tensors, save_tensors
from pruning_core.records.files import (
    cache_root,
    file_sha256,
    needs_checkout,
    remove_leftovers,
    results_root,
    write_atomically,
)
from pruning_core.records.hashes import content_hash
from pruning_core.records.machine import environment
from pruning_core.records.table import COLUMNS, collect, load, read_rows, write_rows

__all__ = [
    "COLUMNS", "cache_root", "collect", "content_hash", "environment", "file_sha256", "load", "load_tensors",
    "needs_checkout", "read_rows", "remove_leftovers", "results_root", "save_tensors", "write_atomically", "write_rows",
]  # fmt: skip
