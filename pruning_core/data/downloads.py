"""Getting image sets onto this machine, and being sure of them.

A set that fits in memory ends as one file of raw pixels in the data folder, whatever it came from, written in one go
and read back only if its SHA-256 is the known one. Sources, in this order: files that the user has put there or
torchvision's mirrors; then packages of npm and Debian that hold the same bytes.
"""

import contextlib
import hashlib
import os
from functools import partial
from pathlib import Path

import numpy as np

from pruning_core.data import sources
from pruning_core.data.sources import Raw
from pruning_core.errors import BadInput, CorruptFile
from pruning_core.records.files import temporary_folder, write_atomically

FORMAT = "pruning-core images 1"
CONTENT = {
    "digits": "26f8a8d4bd70773d64299a67a0a75f365c8974761f7de1f6b0883d32d9750ff6",
    "mnist5k": "f7b215cd55d4582c39d5490fd97e43838a4a38c9fff9f83ddd2f993ba58cb1bc",
    "mnist": "517f36df5e5701305b40e68b4683de9f4226df17c840f59847723fb28844fa66",
    "fashion_mnist": "fa24af52ff779e46ed7b33845769de1a6cb6e2c8d51e4f526dbaaa34227000ac",
    "cifar10": "929eec88dae7762340e66413fda56b2f62ac97683a9b963ed6614b6f9eb041f6",
}
"""SHA-256 over names, shapes and bytes of the arrays of a set, as :func:`content_sha256` computes it."""


def content_sha256(raw: Raw) -> str:
    """One SHA-256 for a set, independent of how its files were packed."""
    digest = hashlib.sha256()
    for name in sorted(raw):
        digest.update(f"{name} {raw[name].shape} {raw[name].dtype}\n".encode())
        digest.update(np.ascontiguousarray(raw[name]).data)
    return digest.hexdigest()


def load_raw(name: str, root: Path) -> Raw:
    """The images of a set that fits in memory, fetched on first use into ``root``.

    Raises CorruptFile for a stored file that is truncated, altered or of another kind, BadInput (naming the
    reasons and the folder for files of one's own) when the set cannot be had.
    """
    path = root / f"{name}.safetensors"
    packaged = sources.IN_PYTHON_PACKAGES.get(name)
    # A set of an installed package can be parsed again: its file only spares the time.
    forgiven = (BadInput,) if packaged else ()
    if os.path.exists(path):  # Path.exists raises where nobody may look
        with contextlib.suppress(*forgiven):
            return _read(path, CONTENT.get(name))
    what = f"the copy of {name} in the installed package"
    raw = _verified(packaged(), CONTENT[name], what) if packaged else _fetch(name, root)
    with contextlib.suppress(*forgiven):
        _store(path, raw)
    return raw


def _verified(raw: Raw, expected: str | None, what: str) -> Raw:
    if expected is not None and content_sha256(raw) != expected:
        raise CorruptFile(f"{what} is not the published set: its SHA-256 differs.")
    return raw


def _store(path: Path, raw: Raw) -> None:
    from safetensors.numpy import save

    about = {"format": FORMAT, "sha256": content_sha256(raw)}
    write_atomically(path, save({name: np.ascontiguousarray(raw[name]) for name in sorted(raw)}, metadata=about))


def _read(path: Path, expected: str | None) -> Raw:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            raw = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise CorruptFile(f"{path} is truncated or no image set: delete it to fetch it again.") from error
    if about.get("format") != FORMAT or content_sha256(raw) != (expected or about.get("sha256")):
        raise CorruptFile(f"{path} is damaged or of another kind: delete it to fetch it again.")
    return raw


def _fetch(name: str, root: Path) -> Raw:
    own: sources.Way = ("torchvision", partial(sources.from_torchvision, name, root))
    errors: dict[str, Exception] = {}
    for what, source in [own, *sources.PACKAGES.get(name, [])]:
        with temporary_folder(root, "data folder") as temporary:
            try:
                return _verified(source(temporary), CONTENT.get(name), f"what {what} delivered")
            except Exception as error:  # whatever is wrong with one source, the next may do
                errors[what] = error
    raise _not_to_be_had(name, errors, root, f"the files of torchvision.datasets.{sources.TORCHVISION[name][0]}")


def _not_to_be_had(name: str, errors: dict[str, Exception], root: Path, files: str) -> BadInput:
    lines = {what: " ".join((str(error) or type(error).__name__).split()) for what, error in errors.items()}
    reasons = "; ".join(f"{what}: {line[:200].rstrip('.')}" for what, line in lines.items())
    return BadInput(f"cannot get {name} ({reasons}): put {files} into {root}, or try again with a network.")


def image_folder(name: str, root: Path) -> Path:
    """The folder with ``train`` and ``val`` of a set of image files; only imagenette is fetched, the others one has.

    Raises BadInput, naming the folder where the files belong, when they are not there.
    """
    names = {"imagenette": "imagenette2-320", "imagewoof": "imagewoof2-320", "tiny_imagenet": "tiny-imagenet-200"}
    wanted = root / names.get(name, name)
    for candidate in (wanted, root / name, root):
        if os.path.isdir(candidate / "train") and os.path.isdir(candidate / "val"):
            return candidate
    if name != "imagenette":
        raise BadInput(
            f"{name} is a folder that you have: put its train and val folders into {wanted}, give root= (--root), or name "
            "another folder of pictures by its path."
        )
    from torchvision import datasets

    with temporary_folder(root, "data folder") as temporary:
        try:
            with sources.quick_to_give_up():
                datasets.Imagenette(str(temporary), size="320px", download=True)
            sources.check_files(name, temporary)
            os.replace(temporary / wanted.name, wanted)
        except Exception as error:
            files = f"the unpacked {wanted.name} with its train and val folders"
            raise _not_to_be_had(name, {"torchvision": error}, root, files) from error
    return wanted
