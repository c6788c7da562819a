"""Where files of the book lie, and how a file is written: beside its place, then renamed."""

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pruning_core.checks import Text, check, checked
from pruning_core.errors import BadInput, BadType, shown
from pruning_core.records.places import located
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
    errno.EFBIG: "the file is larger than the system lets it be",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
}

SECONDS_OF_A_WEEK = 7 * 24 * 3600


SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""What reads YAML: libyaml's parser where PyYAML was built with it, which takes an eighth of the time."""


def read_yaml(path: Path) -> Any:
    """The content of a table in YAML that comes with the package."""
    return yaml.load(path.read_text(encoding="utf-8"), SafeLoader)


def is_checkout() -> bool:
    """Whether the package lies in its repository, and not in site-packages."""
    return (REPOSITORY / "pyproject.toml").is_file()


def cache_root() -> Path:
    """The folder for downloads, checkpoints and records that git does not see.

    ``$PRUNING_CACHE`` if set, else ``data/cache`` of the repository, else (installed package) ``~/.cache/pruning_core``.

    >>> isinstance(cache_root(), Path)
    True
    """
    if named := os.environ.get("PRUNING_CACHE"):
        return located("PRUNING_CACHE", named)
    return REPOSITORY / "data" / "cache" if is_checkout() else Path.home() / ".cache" / "pruning_core"


def results_root() -> Path:
    """The folder of the results that are stored with the book: ``data/results`` of the repository, or its copy in a wheel.

    >>> results_root().name
    'results'
    """
    return REPOSITORY / "data" / "results"


def running_root() -> Path:
    """The folder of what runs now and nobody else needs: drafts of notebooks, connections of kernels, workers' scratch."""
    return cache_root() / "running"


@checked
def needs_checkout(what: str) -> None:
    """Raise BadInput, unless the package lies in its repository: ``what`` cannot be done elsewhere.

    >>> needs_checkout("make book")
    """
    if not is_checkout():
        raise BadInput(f"{what} needs a checkout of the book's repository; this package was installed without it.")


@checked
def file_sha256(path: str | os.PathLike, largest: int | None = None) -> str:
    """The SHA-256 of a file's bytes, as 64 hex characters. Raises BadInput for what is no file, or has more than ``largest``
    bytes.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(f"{folder}/a.txt", "abc")
    ...     file_sha256(f"{folder}/a.txt")[:8]
    'ba7816bf'
    """
    try:
        if not Path(path).is_file():  # one would read from a pipe or a device for ever
            raise OSError(errno.EINVAL, "it is no regular file" if Path(path).exists() else "there is no such file")
        if largest is not None and (size := Path(path).stat().st_size) > largest:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {largest:,} are read")
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}.") from error


@checked(writer=None)
def write_atomically(path: str | os.PathLike, writer: Callable[[Path], None] | bytes | str) -> None:
    """Write a file so that a reader, a crash or a second writer never meets half of it.

    ``writer`` is the content, or a function that writes a new file at the path it is given: a temporary name with the same
    suffix in the same folder, synced to the disk and then renamed over ``path``. Folders are made. When anything fails the
    temporary file goes and what was at ``path`` stays. Raises BadInput when the path cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(f"{folder}/a.txt", "whole")
    ...     Path(f"{folder}/a.txt").read_text()
    'whole'
    """
    if not isinstance(writer, str | bytes) and not callable(writer):
        raise BadType(f"writer must be the content of a file, or a function that writes it, not {shown(writer)}.")
    if isinstance(writer, str):
        check("writer", writer, Text(empty=True))
    path = replaceable(path)
    # The end of the name only, with its suffix: a file system that takes the name must take the temporary one too.
    temporary = path.with_name(f"{partial_prefix()}{secrets.token_hex(4)}-{path.name[-40:]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _swept(path.parent.absolute())
        _WRITTEN.add(path.parent.absolute())
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


@checked
def replaceable(path: str | os.PathLike) -> Path:
    """Where a file may be written: a new name, or a regular file (the one that a link leads to); BadInput otherwise.

    >>> replaceable("/dev/null")
    Traceback (most recent call last):
    ...
    pruning_core.errors.BadInput: cannot write /dev/null: there is something that is no regular file.
    """
    place = Path(path)
    if not place.name or "\0" in str(place):
        raise BadInput(f"cannot write {str(path)!r}: this is no name of a file.")
    try:
        if place.is_symlink():
            place = place.resolve(strict=True)
        if (
            place.exists() and not place.is_file() and not place.is_dir()
        ):  # a folder gets its own words when it is renamed over
            raise BadInput(f"cannot write {path}: there is something that is no regular file.")
    except (FileNotFoundError, RuntimeError) as error:
        raise BadInput(f"cannot write {path}: it is a link that leads nowhere; delete the link.") from error
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise BadInput(f"cannot write {path}: {_NOT_WRITABLE[error.errno]}.") from error
    return place


def partial_prefix() -> str:
    """The beginning of this process's temporary names: a dot, which hides what a killed process leaves behind from every
    search for records; the machine, the namespace in which process numbers count (containers have their own), the process."""
    return f".partial-{_place()}-{os.getpid()}-"


_TRIES = 20
"""How often a temporary folder is removed that is there again, a twentieth of a second apart."""

_WRITTEN: set[Path] = set()
"""The folders in which this process has had something under a temporary name."""

_OURS = re.compile(r"\.partial-([0-9a-f]{8}\.\d+)-(\d+)-")
"""Temporary names as :func:`partial_prefix` begins them; what others call so in a user's folder is not touched."""


@contextlib.contextmanager
def temporary_folder(place: Path, kind: str = "folder") -> Iterator[Path]:
    """A folder in ``place`` for what only the block needs; those that killed processes left there go before. Raises BadInput
    when it cannot be made."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        remove_leftovers(place)
        _WRITTEN.add(place.absolute())
        folder = tempfile.TemporaryDirectory(dir=place, prefix=partial_prefix(), ignore_cleanup_errors=True)
    except OSError as error:
        raise BadInput(f"cannot write into the {kind} {place}: {error.strerror}.") from error
    try:
        with folder as name:
            yield Path(name)
    finally:  # a process that was killed a moment ago may have written there while the rest went
        for _ in range(_TRIES):
            if not os.path.exists(folder.name):
                break
            shutil.rmtree(folder.name, ignore_errors=True)
            time.sleep(0.05)


def _place() -> str:
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # no Linux
        namespace = 0
    try:  # two machines may have one name, and process numbers count anew after a start
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        boot = ""
    return f"{hashlib.sha256((platform.node() + boot).encode()).hexdigest()[:8]}.{namespace}"


@checked
def remove_leftovers(folder: str | os.PathLike) -> None:
    """Delete the temporary files and folders that killed processes left in ``folder``: those of processes that surely run no
    more, and what is older than a week, of any machine that shares the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_atomically(f"{folder}/a.txt", "kept")
    ...     remove_leftovers(folder)
    ...     print([file.name for file in Path(folder).iterdir()])
    ['a.txt']
    """
    for left in Path(folder).glob(".partial-*") if os.path.isdir(folder) else ():
        if (ours := _OURS.match(left.name)) is None:
            continue
        dead = ours[1] == _place() and not _lives(int(ours[2]))
        with contextlib.suppress(OSError):  # gone already, or somebody else's
            if dead or time.time() - left.stat().st_mtime >= SECONDS_OF_A_WEEK:
                _remove(left)


def tidy() -> None:
    """Remove the drafts and the scratch of killed processes. Whatever begins does so, also where it finds all of its work done
    and would not come to that folder any more."""
    with contextlib.suppress(OSError, BadInput):  # a cache that cannot be is for others to refuse
        remove_leftovers(running_root())


def remove_own() -> None:
    """Delete what this process itself has under temporary names, when it has to end at once."""
    for folder in tuple(_WRITTEN):
        for own in folder.glob(f"{partial_prefix()}*"):
            with contextlib.suppress(OSError):
                _remove(own)


def _remove(left: Path) -> None:
    if left.is_dir():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)


@functools.cache
def _swept(folder: Path) -> None:
    """The first time that this process writes into a folder, wherever it is, what killed ones left there goes."""
    remove_leftovers(folder)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
