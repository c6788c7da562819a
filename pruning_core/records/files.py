"""Where files of the book lie, and how one is written: to a temporary name beside it, then renamed."""

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from pruning_core.errors import BadInput
from pruning_core.version import REPOSITORY

_NOT_WRITABLE = {
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "the file system is read-only",
    errno.ENOENT: "no such folder, and it cannot be made",
    errno.ENOSPC: "no room left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EEXIST: "a part of the path is not a folder",
    errno.EISDIR: "the path is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


def is_checkout() -> bool:
    """Whether the package lies in its repository, and not in site-packages."""
    return (REPOSITORY / "pyproject.toml").is_file()


def cache_root() -> Path:
    """The folder for downloads, checkpoints and records that git does not see.

    ``$PRUNING_CACHE`` if set, else ``data/cache`` of the repository, else (installed package) ``~/.cache/pruning_core``.
    """
    if named := os.environ.get("PRUNING_CACHE"):
        return Path(named).expanduser()
    return REPOSITORY / "data" / "cache" if is_checkout() else Path.home() / ".cache" / "pruning_core"


def results_root() -> Path:
    """The folder of the committed results: ``data/results`` of the repository (else in the cache)."""
    return REPOSITORY / "data" / "results" if is_checkout() else cache_root() / "results"


def file_sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, as 64 hex characters."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: str | os.PathLike, writer: Callable[[Path], None] | bytes | str) -> None:
    """Write a file so that a reader, a crash or a second writer never meets half of it.

    ``writer`` is the content, or a function that writes a new file at the path it is given: a temporary name with the same
    suffix in the same folder, synced to the disk and then renamed over ``path``. Folders are made. When anything fails the
    temporary file goes and what was at ``path`` stays. Raises BadInput when the path cannot be written.
    """
    path = Path(path)
    # The leading dot hides what a killed process leaves behind from every search for records.
    temporary = path.with_name(f".partial-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(writer, str):
            temporary.write_text(writer, encoding="utf-8", newline="")
        elif isinstance(writer, bytes):
            temporary.write_bytes(writer)
        else:
            writer(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise BadInput(f"cannot write {path}: {_NOT_WRITABLE[error.errno]}.") from error
    finally:
        with contextlib.suppress(OSError):  # renamed already, or no access to the folder, which has been reported
            temporary.unlink()


def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete the temporary files that killed processes of this machine left in ``folder``."""
    for file in Path(folder).glob(".partial-*"):
        try:
            os.kill(int(file.name.split("-")[1]), 0)
        except ProcessLookupError:
            file.unlink(missing_ok=True)
        except (OSError, ValueError):
            continue  # still being written, or none of ours
