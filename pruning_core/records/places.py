"""Places that a user names: what can be read as a file, and where a folder of results can be; found out before any work."""

import contextlib
import errno
import os
import stat
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pruning_core.checks import Place, Text, check
from pruning_core.errors import BadInput, shown


@contextlib.contextmanager
def regular_file(path: str | os.PathLike, largest: int | None = None) -> Iterator[BinaryIO]:
    """A regular file, or the one that a link leads to, open for reading.

    OSError, whose ``strerror`` says why, for anything else (one would wait for a pipe, and read from a device, for ever), and
    for a file of more than ``largest`` bytes.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # also of a pipe, to look at what it is
    except ValueError as error:  # a zero byte, half a letter
        raise OSError(errno.EINVAL, "this is no name of a file") from error
    try:
        about = os.fstat(handle)
        if stat.S_ISDIR(about.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if largest is not None and about.st_size > largest:
            raise OSError(errno.EFBIG, f"it has {about.st_size:,} bytes, and at most {largest:,} are read")
        with open(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def file_bytes(path: str | os.PathLike, largest: int | None = None) -> bytes:
    """The bytes of a regular file; OSError as of :func:`regular_file`."""
    with regular_file(path, largest) as file:
        return file.read()


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError where a key stands twice, of which the last one would win unseen."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


AWAY = "change to another folder, or give the whole path"


def located(name: str, path: str | os.PathLike) -> Path:
    """``path`` from the root of the file system on, with the folder that its ``~`` stands for; BadInput, naming it, where this
    is no path, or the home of nobody. Links stay as they are: who opens the file finds out where they lead."""
    try:
        return Path(check(name, path, Place())).expanduser().absolute()
    except RuntimeError:
        raise BadInput(f"{name} must be the path of a file or folder, and {shown(str(path))} has no home.") from None
    except FileNotFoundError:
        raise BadInput(f"{name} is {shown(str(path))}, seen from a current folder that was deleted: {AWAY}.") from None


LONGEST_TITLE = 100  # bytes: of two names and an ending a file system takes one


def check_name(kind: str, name: str) -> str:
    """``name``, if files can be named after a network or a data set that is called so; BadType or BadInput, which speak of the
    name of ``kind``.

    >>> check_name("a data set", "mine"), check_name("a network", "timm/resnet18")
    ('mine', 'timm/resnet18')
    """
    words = f"the name of {kind}"
    text: str = check(words, name, Text())
    # Also those that turn the direction of writing, or are not seen at all: two names would look like one.
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp") for letter in text):
        raise BadInput(f"{words} must have no control characters, line breaks among them, and {shown(text)} has some.")
    if not unicodedata.is_normalized("NFC", text):
        raise BadInput(
            f"{words} has accents that are letters of their own, {text!a}: give unicodedata.normalize('NFC', name)."
        )
    if (size := len(text.encode())) > LONGEST_TITLE:
        raise BadInput(f"{words} has {size} bytes, and {LONGEST_TITLE} is the most, as files are named after it.")
    return text


RESULTS = ("rows.csv", "curves.csv", "curves.npz", "report.md", "figures/")
"""What a run leaves in a folder of its own: files, and with a slash at its end a folder of them."""


def check_folder(name: str, path: str | os.PathLike, within: Iterable[str] = ()) -> Path:
    """``path``, if it is a folder in which files can be written, or if one can be made there; BadInput, naming it, if not.

    ``within``: what will be written there, a name that ends with a slash being that of a folder. Nothing of it is made yet.
    """
    place = Path(check(name, path, Place()))
    check(name, str(place), Text())  # TensorBoard and tables write down where they lie
    try:
        above = next(p for p in (place, *place.absolute().parents) if p.is_symlink() or p.exists())
        is_folder, strange = stat.S_ISDIR(above.stat().st_mode), None
    except OSError as error:  # a link to nowhere or to itself, a name that is too long, a part that nobody may look at
        is_folder, strange = False, error.strerror
    except ValueError:
        is_folder, strange = False, "this is no name of a folder"
    if not is_folder:
        raise BadInput(
            f"{name} is a folder for files to be written to, and {path} cannot be one: {strange or 'it is none'}."
        )
    if not os.access(above, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise BadInput(
            f"{name} is a folder for files to be written to, and {above} cannot be written to: no permission."
        )
    try:
        with tempfile.TemporaryDirectory(
            dir=above, prefix=".trial-"
        ):  # /proc would let root, and has no room for files
            pass
    except OSError as error:
        why = error.strerror
        raise BadInput(f"{name} is a folder for files to be written to, and {above} takes none: {why}.") from error
    for entry in within:
        there = place / entry
        if entry.endswith("/"):
            check_folder(name, there)
        elif os.path.lexists(there) and not os.path.isfile(there):
            raise BadInput(
                f"{name} is a folder for files to be written to, and {there} is in the place of one: move it."
            )
    return place
