"""What the code of this package is: its version, which long runs carry in their hash, and a hash of its files."""

import hashlib
from functools import cache
from pathlib import Path

__version__ = "0.1.0"

CHEAP = ("smoke", "quick")
"""Profiles whose records are void as soon as the code changes: to run them again costs seconds."""


def code_of(profile: str) -> str:
    """What records of ``profile`` carry of the code: cheap ones its hash, long ones, which outlive an edit, the version."""
    return source_hash() if profile in CHEAP else __version__


@cache
def source_hash() -> str:
    """16 hexadecimal characters of the SHA-256 of the package's Python files."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
