"""The package's place, its version, which long runs carry in their hash, a hash of its files, and the profiles of runs."""

import hashlib
from functools import cache
from pathlib import Path

__version__ = "0.1.0"

PACKAGE = Path(__file__).resolve().parent
_SHIPPED = PACKAGE / "_shipped"
REPOSITORY = _SHIPPED if _SHIPPED.is_dir() else PACKAGE.parent
"""The checkout; for a package installed from a wheel, its copies of what it reads there (setup.py)."""

PROFILES = ("smoke", "quick", "standard", "paper")
"""From a few seconds (tests) over half a minute (``make book``) and minutes (several seeds) to the paper's own scale."""

CHEAP, LONG = PROFILES[:2], PROFILES[2:]
"""Records of cheap profiles are void as soon as the code changes: to run them again costs seconds. They promise the same
numbers on every machine of a kind, and therefore compute on one thread. Records of long ones outlive an edit."""


def code_of(profile: str) -> str:
    """What records of ``profile`` carry of the code: cheap ones its hash, long ones, which outlive an edit, the version."""
    return source_hash() if profile in CHEAP else __version__


@cache
def source_hash() -> str:
    """16 hexadecimal characters of the SHA-256 of the package's Python files and tables."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")) + sorted(PACKAGE.rglob("*.yml")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
