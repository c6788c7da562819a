"""The package's place, its version, which long runs carry in their hash, a hash of its files, and the profiles of runs."""

import hashlib
import sys
import time
from functools import cache
from pathlib import Path

IMPORTED = time.time()
"""When this process began with the package; what is written later is not what runs in it."""

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


_AS_IMPORTED: dict[str, bool] = {}


def runs_what_lies_there(*, anew: bool = False) -> bool:
    """Whether the files of the package's loaded modules are as they were when the process began; False for ever, once one was
    written later: what runs is then not what a revision or a hash of the files would say.

    Who has just read such a revision or hash looks at all modules ``anew``. After that, one that was seen in order stays so:
    an edit changes nothing of what has been imported, and only what is imported later is looked at.
    """
    if anew:
        for name in [name for name, fits in _AS_IMPORTED.items() if fits]:
            del _AS_IMPORTED[name]
    for name, module in tuple(sys.modules.items()):
        if name.partition(".")[0] == PACKAGE.name and name not in _AS_IMPORTED:
            try:
                _AS_IMPORTED[name] = Path(getattr(module, "__file__", None) or PACKAGE).stat().st_mtime <= IMPORTED
            except OSError:  # gone
                _AS_IMPORTED[name] = False
    return all(_AS_IMPORTED.values())


@cache
def source_hash() -> str:
    """16 hexadecimal characters of the SHA-256 of the package's Python files and tables, as they were when it was imported:
    of a process whose files were edited since, a hash that no other process has."""
    digest = hashlib.sha256()
    if not runs_what_lies_there(anew=True):
        digest.update(repr((IMPORTED, time.time())).encode())
    for file in sorted(PACKAGE.rglob("*.py")) + sorted(PACKAGE.rglob("*.yml")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
