"""Data: fixed splits that never overlap, repeatable augmentation, files that are whole or refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pruning_core.data import downloads, loading, sources
from pruning_core.data.loading import data_root, load_data, surely_scored
from pruning_core.data.sets import AUGMENTATIONS, DATASETS, NORMALISATIONS, Augmentation
from pruning_core.data.splits import FileSplit, Split, split_indices
from pruning_core.errors import BadInput, BadType, CorruptFile, UnknownName
from pruning_core.version import REPOSITORY

SPLITS = ("train", "score", "validation", "test")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache of its own, so that the tests neither see nor leave anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PRUNING_DATA", raising=False)
        patch.setenv("PRUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def no_sources(monkeypatch):
    """No network and no package manager."""

    def unreachable(*_):
        raise OSError("no network in tests")

    monkeypatch.setattr(sources, "from_torchvision", unreachable)
    monkeypatch.setattr(sources, "run", unreachable)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- splits


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_splits_are_whole_disjoint_and_stratified(name):
    data, info = load_data(name, normalise="none"), DATASETS[name]
    parts = [getattr(data, split) for split in SPLITS]
    assert sum(len(part) for part in parts) == info.sizes[0]
    rows = torch.cat([part.inputs.flatten(1) for part in parts])
    raw = torch.from_numpy(downloads.load_raw(name, cache_folder())["train_images"]).flatten(1).float()
    raw /= 16 if name == "digits" else 255
    assert torch.equal(torch.unique(rows, dim=0), torch.unique(raw, dim=0))
    assert len(data.test) == pytest.approx(0.2 * info.sizes[0], abs=5)
    overall = torch.bincount(torch.cat([part.labels for part in parts]), minlength=10) / info.sizes[0]
    for part in parts:
        assert part.inputs.shape == (len(part), *info.shape)
        assert part.labels.dtype == torch.int64
        share = torch.bincount(part.labels, minlength=10) / len(part)
        assert (share - overall).abs().max() < 0.012


def cache_folder():
    return data_root()


def test_split_indices_are_disjoint_and_never_change():
    labels = np.arange(1000) % 7
    shares = {"test": 0.2, "score": 0.08, "validation": 0.08}
    parts, again = split_indices(labels, shares), split_indices(labels, shares, seed=9)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(1000))
    for name, part in parts.items():
        assert set(part) == set(again[name])
        assert not np.array_equal(part, again[name])
    # A change of these numbers would make all earlier records incomparable.
    assert parts["test"][:5].tolist() == [904, 389, 68, 882, 416]
    assert int((parts["train"] * np.arange(1, len(parts["train"]) + 1)).sum()) == 103349837


def test_training_seed_never_moves_an_image():
    one, two = load_data("digits", seed=0), load_data("digits", seed=1)
    for split in SPLITS:
        a, b = getattr(one, split).inputs.flatten(1), getattr(two, split).inputs.flatten(1)
        assert not torch.equal(a, b)
        assert torch.equal(torch.unique(a, dim=0), torch.unique(b, dim=0))


def test_every_beginning_is_stratified():
    train = load_data("mnist5k").train
    for n in (20, 50, 128, 1000):
        counts = torch.bincount(train.subset(n).labels, minlength=10)
        assert (counts - n / 10).abs().max() <= 3
    assert len(train.subset(7)) == 7


def test_limit_shrinks_every_split_but_the_test_set():
    whole, part = load_data("mnist5k"), load_data("mnist5k", limit=1000)
    assert len(part.test) == len(whole.test)
    for split in SPLITS:
        small, large = getattr(part, split), getattr(whole, split)
        assert split == "test" or len(small) == int(len(large) / 5)
        assert torch.equal(small.inputs, large.inputs[: len(small)])
        assert len(torch.unique(small.labels)) == 10
    assert len(load_data("digits", limit=10**9).train) == len(load_data("digits").train)


def test_normalisation():
    raw, own = load_data("mnist5k", normalise="none").train, load_data("mnist5k").train
    assert raw.inputs.min() == 0
    assert raw.inputs.max() == 1
    assert torch.allclose(own.inputs, (raw.inputs - 0.1307) / 0.3081)
    digits = load_data("digits").train.inputs
    assert abs(digits.mean()) < 0.02
    assert abs(digits.std() - 1) < 0.02
    assert load_data("digits", dtype=torch.float64).test.inputs.dtype == torch.float64


def test_every_recipe_fits_its_set():
    for name, recipe in NORMALISATIONS.items():
        if "/" in name:
            assert len(recipe.mean) == len(recipe.std) == DATASETS[name.partition("/")[0]].shape[0]
    assert all(name.partition("/")[0] in DATASETS for name in AUGMENTATIONS if "/" in name)


def test_a_recipe_may_resize():
    data = load_data("mnist5k", augment="mnist/sipp_lenet5", limit=700)
    assert data.shape == (1, 32, 32)
    assert data.test.inputs.shape[1:] == data.train.inputs.shape[1:] == (1, 32, 32)
    x, _ = next(data.train.batches(16, generator()))
    assert x.shape == (16, 1, 32, 32)


# --- batches


def test_batches_in_order_and_shuffled():
    train = load_data("digits").train
    batches = list(train.batches(100))
    assert [len(y) for _, y in batches[:-1]] == [100] * (len(train) // 100)
    assert torch.equal(torch.cat([x for x, _ in batches]), train.inputs)
    assert sum(len(y) for _, y in train) == len(train)
    assert all(len(y) == 100 for _, y in train.batches(100, drop_last=True))
    one, two, other = (torch.cat([y for _, y in train.batches(64, generator(seed))]) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(one.sort().values, train.labels.sort().values)


def test_only_training_batches_are_augmented():
    data = load_data("digits", augment="crop_flip")
    plain = load_data("digits")
    assert torch.equal(torch.cat([x for x, _ in data.train.batches(64)]), plain.train.inputs)
    for split, changes in (("train", True), ("score", False), ("validation", False), ("test", False)):
        x = torch.cat([x for x, _ in getattr(data, split).batches(64, generator())])
        y = torch.cat([x for x, _ in getattr(plain, split).batches(64, generator())])
        assert torch.equal(torch.unique(x, dim=0), torch.unique(y, dim=0)) is not changes
    again = [torch.cat([x for x, _ in data.train.batches(64, generator(3))]) for _ in range(2)]
    assert torch.equal(*again)


def test_crop_and_flip_against_a_loop():
    x = torch.randn(64, 3, 6, 5)
    black = torch.tensor([-1.0, -2.0, -3.0])
    y = Augmentation(pad=2, flip=0.5)(x, black, generator())
    framed = black.view(1, 3, 1, 1).expand(64, 3, 10, 9).clone()
    framed[:, :, 2:-2, 2:-2] = x
    seen = set()
    for i in range(64):
        places = [
            (top, left, turned)
            for top in range(5)
            for left in range(5)
            for turned in (False, True)
            if torch.equal(y[i], _crop(framed[i], top, left, turned))
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 30
    assert {place[2] for place in seen} == {False, True}


def _crop(image, top, left, turned):
    crop = image[:, top : top + 6, left : left + 5]
    return crop.flip(2) if turned else crop


def test_flip_has_its_probability():
    x = torch.arange(4.0).view(1, 1, 1, 4).expand(4000, 1, 1, 4)
    y = Augmentation(flip=0.2)(x, torch.zeros(1), generator())
    assert (y[:, 0, 0, 0] == 3).float().mean().item() == pytest.approx(0.2, abs=0.02)


def test_black_is_what_a_black_pixel_becomes():
    data = load_data("mnist5k", augment="mnist/sipp_lenet300", limit=700)
    assert data.train.black.item() == data.train.inputs.min().item()
    x, _ = next(data.train.batches(448, generator()))
    assert x.min() == data.train.inputs.min()
    assert x.shape == (448, 1, 28, 28)


def test_rotation_keeps_the_middle_and_blackens_corners():
    x = torch.ones(200, 1, 31, 31)
    y = Augmentation(rotate=45)(x, torch.tensor([-1.0]), generator())
    assert (y[:, 0, 15, 15] == 1).all()
    assert (y[:, 0, 0, 0] == -1).float().mean() > 0.7
    assert set(torch.unique(y).tolist()) <= {-1.0, 1.0}


# --- sets read from files


@pytest.fixture
def folder(tmp_path):
    """Ten classes of twenty and three noisy pictures, one of them grey, in the layout of Imagenette."""
    draw = np.random.default_rng(0)
    for split, n in (("train", 40), ("val", 3)):
        for c in range(10):
            place = tmp_path / "imagenette2-320" / split / f"n{c:02}"
            place.mkdir(parents=True)
            for i in range(n):
                pixels = (draw.random((20, 30, 3)) * 20 + 20 * c).astype(np.uint8)
                image = Image.fromarray(pixels).convert("L" if i == 0 else "RGB")
                image.save(place / f"{i}.JPEG")
    return tmp_path


def test_image_files_behave_like_tensors(folder):
    data = load_data("imagenette", root=folder, augment="imagenette/snipit")
    assert data.shape == (3, 128, 128)
    assert (len(data.train), len(data.score), len(data.validation), len(data.test)) == (360, 20, 20, 30)
    files = [set(getattr(data, split).files) for split in SPLITS]
    assert len(set.union(*files)) == sum(map(len, files)) == 430
    x, y = next(data.test.batches(30))
    assert x.shape == (30, 3, 128, 128)
    assert torch.equal(y, data.test.labels)
    # The classes differ in brightness: labels belong to their images.
    brightness = x.mean((1, 2, 3))
    assert all(brightness[y == c].max() < brightness[y == c + 1].min() for c in range(9))
    (x1, y1), (x2, y2), (x3, _) = (next(data.train.batches(8, generator(seed))) for seed in (0, 0, 1))
    assert torch.equal(x1, x2)
    assert torch.equal(y1, y2)
    assert not torch.equal(x1, x3)
    with pytest.raises(BadInput, match="batches"):
        data.train.inputs  # noqa: B018
    assert isinstance(data.train.subset(5), FileSplit)
    cropped = load_data("imagenette", root=folder, augment="imagenet/ispasp").train
    state = torch.get_rng_state()
    assert next(cropped.batches(4, generator()))[0].shape == (4, 3, 128, 128)
    assert torch.equal(state, torch.get_rng_state())


def test_images_come_to_the_device_that_is_asked_for(folder, device):
    """Read by worker processes from 256 images on; the epoch is that of the CPU."""
    here, there = (load_data("imagenette", root=folder, device=place) for place in ("cpu", device))
    for split in ("train", "test"):
        epochs = [list(getattr(data, split).batches(90, generator(3))) for data in (here, there)]
        for (x, y), (theirs, labels) in zip(*epochs, strict=True):
            assert theirs.device.type == labels.device.type == device
            assert torch.equal(theirs.cpu(), x) and torch.equal(labels.cpu(), y)
    digits = load_data("digits", device=device, random_labels=1)
    assert {t.device.type for t in (digits.train.inputs, digits.train.labels, digits.test.inputs)} == {device}
    assert torch.equal(digits.train.labels.cpu(), load_data("digits", random_labels=1).train.labels)


def test_folders_that_are_empty_missing_or_of_another_set(folder, tmp_path, no_sources):
    with pytest.raises(BadInput, match=r"tiny_imagenet is a folder that you have.*tiny-imagenet-200"):
        load_data("tiny_imagenet", root=tmp_path / "elsewhere")
    (tmp_path / "empty" / "train").mkdir(parents=True)
    (tmp_path / "empty" / "val").mkdir(parents=True)
    with pytest.raises(BadInput, match="must hold 1000 folders, one a class, but holds 0"):
        load_data("imagenet", root=tmp_path / "empty")
    first = folder / "imagenette2-320" / "train" / "n00"
    for file in first.iterdir():
        file.unlink()
    with pytest.raises(BadInput, match="n00 holds no images"):
        load_data("imagenette", root=folder)


def test_a_truncated_picture_is_named(folder):
    data = load_data("imagenette", root=folder)
    file = data.test.files[0]
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(CorruptFile, match=file.name):
        next(data.test.batches(4))


def test_tiny_imagenet_as_distributed(tmp_path):
    pixel = Image.new("RGB", (64, 64))
    base = tmp_path / "tiny-imagenet-200"
    (base / "val" / "images").mkdir(parents=True)
    rows = []
    for c in range(200):
        place = base / "train" / f"n{c:03}" / "images"
        place.mkdir(parents=True)
        for i in range(20):
            (place / f"{i}.JPEG").write_bytes(b"")
        pixel.save(base / "val" / "images" / f"val_{c}.JPEG")
        rows.append(f"val_{c}.JPEG\tn{199 - c:03}\t0\t0\t62\t62")
    (base / "val" / "val_annotations.txt").write_text("\n".join(rows))
    data = load_data("tiny_imagenet", root=tmp_path)
    assert (len(data.train), len(data.score), len(data.test)) == (3600, 200, 200)
    assert all(file.stem == f"val_{199 - y}" for file, y in zip(data.test.files, data.test.labels, strict=True))
    assert next(data.test.batches(2))[0].shape == (2, 3, 64, 64)


# --- files of pixels


def tiny_raw():
    draw = np.random.default_rng(1)
    return {
        "train_images": draw.integers(0, 256, (3000, 1, 28, 28), np.uint8),
        "train_labels": np.repeat(np.arange(10, dtype=np.uint8), 300),
        "test_images": draw.integers(0, 256, (100, 1, 28, 28), np.uint8),
        "test_labels": np.repeat(np.arange(10, dtype=np.uint8), 10),
    }


@pytest.fixture
def tiny_mnist(monkeypatch, tmp_path):
    """A stand-in under the name of mnist, fetched once into a folder of its own."""
    raw, asked = tiny_raw(), []
    monkeypatch.setitem(downloads.CONTENT, "mnist", downloads.content_sha256(raw))
    monkeypatch.setattr(sources, "from_torchvision", lambda *arguments: asked.append(arguments) or raw)
    load_data("mnist", root=tmp_path)
    assert len(asked) == 1
    return tmp_path / "mnist.safetensors"


def test_a_set_is_fetched_once(tiny_mnist, no_sources):
    data = load_data("mnist", root=tiny_mnist.parent)
    assert (len(data.train), len(data.score), len(data.validation), len(data.test)) == (2700, 150, 150, 100)
    assert os.listdir(tiny_mnist.parent) == ["mnist.safetensors"]


def test_damaged_sets_are_refused(tiny_mnist, no_sources):
    whole = tiny_mnist.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (
        b"",
        whole[:7],
        whole[: len(whole) // 2],
        whole[:-1],
        bytes(flipped),
        b"a page of the hotel's network",
    ):
        tiny_mnist.write_bytes(content)
        with pytest.raises(CorruptFile, match=r"mnist\.safetensors"):
            load_data("mnist", root=tiny_mnist.parent)


def test_another_set_under_this_name_is_refused(tiny_mnist, no_sources):
    downloads._store(tiny_mnist, {**tiny_raw(), "test_labels": np.zeros(100, np.uint8)})
    with pytest.raises(CorruptFile, match="another kind"):
        load_data("mnist", root=tiny_mnist.parent)


def test_a_foreign_download_is_refused_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(sources, "from_torchvision", lambda *_: tiny_raw())
    monkeypatch.setattr(sources, "npm_package", lambda *_: tmp_path)
    with pytest.raises(BadInput, match=r"cannot get mnist \(torchvision: .*SHA-256 differs; the npm package.*into"):
        load_data("mnist", root=tmp_path / "data")
    assert os.listdir(tmp_path / "data") == []


def test_the_second_source_serves_when_the_first_fails(monkeypatch, tmp_path):
    raw = tiny_raw()
    monkeypatch.setitem(downloads.CONTENT, "mnist", downloads.content_sha256(raw))

    def unreachable(*_):
        raise OSError("no route")

    monkeypatch.setattr(sources, "from_torchvision", unreachable)
    package = tmp_path / "package"
    (package / "data").mkdir(parents=True)
    for split, stem in (("train", "train"), ("test", "t10k")):
        (package / "data" / f"{stem}-images-idx3-ubyte").write_bytes(b"x" * 16 + raw[f"{split}_images"].tobytes())
        (package / "data" / f"{stem}-labels-idx1-ubyte").write_bytes(b"x" * 8 + raw[f"{split}_labels"].tobytes())
    monkeypatch.setattr(sources, "npm_package", lambda *_: package)
    assert len(load_data("mnist", root=tmp_path / "data").test) == 100


def test_nothing_to_be_had_names_the_folder(no_sources, tmp_path):
    for name, files in (("cifar10", "CIFAR10"), ("cifar100", "CIFAR100"), ("fashion_mnist", "FashionMNIST")):
        with pytest.raises(BadInput, match=rf"cannot get {name}.*torchvision.datasets.{files} into {tmp_path}"):
            load_data(name, root=tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_package_manager_that_fails_says_why(tmp_path):
    with pytest.raises(OSError, match="not installed"):
        sources.run(["no-such-program"], tmp_path, "nothing")
    with pytest.raises(OSError, match="failed: the reason"):
        sources.run(["sh", "-c", "echo the reason; exit 3"], tmp_path, "nothing")


def test_the_cache_of_packaged_sets_heals_itself_and_may_be_closed(tmp_path, monkeypatch):
    first = load_data("digits", root=tmp_path).train.inputs
    stored = tmp_path / "digits.safetensors"
    stored.write_bytes(stored.read_bytes()[:1000])
    assert torch.equal(load_data("digits", root=tmp_path).train.inputs, first)
    assert downloads._read(stored, downloads.CONTENT["digits"])
    (tmp_path / "file").write_text("")
    assert torch.equal(load_data("digits", root=tmp_path / "file").train.inputs, first)


def test_no_permission_for_a_download(tmp_path, no_sources):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot write into the data folder"):
        load_data("mnist", root=tmp_path / "file" / "below")


def test_a_changed_package_is_noticed(monkeypatch, tmp_path):
    monkeypatch.setitem(
        sources.IN_PYTHON_PACKAGES, "digits", lambda: {"train_images": np.zeros((2, 1, 8, 8), np.uint8)}
    )
    with pytest.raises(CorruptFile, match="digits in the installed package"):
        load_data("digits", root=tmp_path)


# --- bad input


def test_bad_arguments_are_refused_in_one_sentence(no_sources, tmp_path):
    with pytest.raises(UnknownName, match=r"unknown data set 'cifar-10': did you mean 'cifar10'"):
        load_data("cifar-10")
    with pytest.raises(UnknownName, match="unknown normalisation 'cifar10/rny': did you mean 'cifar10/rni'"):
        load_data("cifar10", normalise="cifar10/rny")
    with pytest.raises(UnknownName, match=r"unknown augmentation 'crop': .*crop_flip"):
        load_data("digits", augment="crop")
    with pytest.raises(BadInput, match="3 channels, digits has 1"):
        load_data("digits", normalise="cifar10/rni")
    with pytest.raises(BadInput, match="read from files"):
        load_data("digits", augment="imagenet/ispasp")
    for limit, error in ((0, BadInput), (-5, BadInput), (2.5, BadType), ("all", BadType), (True, BadType)):
        with pytest.raises(error, match="limit must be"):
            load_data("digits", limit=limit)
    with pytest.raises(BadInput, match=r"limit=50 leaves fewer images than classes.*at least \d+ are needed"):
        load_data("digits", limit=50)
    if not torch.cuda.is_available():
        with pytest.raises(BadInput, match="no GPU"):
            load_data("digits", device="cuda")


def test_the_least_limit_that_is_named_is_enough():
    with pytest.raises(BadInput) as error:
        load_data("mnist5k", limit=1)
    least = int(str(error.value).split("at least ")[1].split()[0])
    assert min(len(getattr(load_data("mnist5k", limit=least), split)) for split in SPLITS) == 10
    with pytest.raises(BadInput):
        load_data("mnist5k", limit=least - 1)


def flat(name: str, per_class: int) -> dict:
    """Arrays of a set of the book that holds so many black images of each class."""
    info = DATASETS[name]
    raw = {f"{part}_images": np.zeros((per_class * info.classes, *info.shape), np.uint8) for part in ("train", "test")}
    raw |= {f"{part}_labels": np.repeat(np.arange(info.classes), per_class) for part in ("train", "test")}
    return raw if info.sizes[1] else {key: value for key, value in raw.items() if key.startswith("train")}


@pytest.mark.parametrize("per_class", [1, 6, 9, 10, 20])
@pytest.mark.parametrize("name", [name for name, info in DATASETS.items() if info.kind == "tensor"])
def test_a_small_limit_of_any_set_is_enough_or_gets_one_sentence(name, per_class, monkeypatch):
    """Also of a set that holds too few images to split them."""
    raw = flat(name, per_class)
    monkeypatch.setattr(loading, "load_raw", lambda *_: raw)
    for limit in (None, *range(1, 301, 13), 200, 300):
        fewest, refusal = 0, ""
        try:
            data = load_data(name, limit=limit)
            fewest = min(len(getattr(data, split)) for split in SPLITS)
        except BadInput as error:
            refusal = str(error)
        assert fewest >= DATASETS[name].classes or re.search(r"^[^\n]* at least \d+ are needed", refusal)


@pytest.mark.parametrize("limit", [None, 250, 300, 333, 1000, 1796, 4999, 10**6])
@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_images_to_score_are_told_without_loading_any(name, limit):
    there = len(load_data(name, limit=limit).score)
    assert there - DATASETS[name].classes <= surely_scored(name, limit) <= there


def test_bad_batch_sizes_are_refused_at_once():
    split = Split(torch.zeros(5, 1, 2, 2), torch.zeros(5, dtype=torch.long))
    for size, error in ((0, BadInput), (-1, BadInput), (2.0, BadType), (None, BadType)):
        with pytest.raises(error, match="batch size"):
            split.batches(size)
    with pytest.raises(BadInput, match="leave nothing"):
        split.batches(6, drop_last=True)
    for n in (0, 6):
        with pytest.raises(BadInput, match="between 1 and 5"):
            split.subset(n)
    with pytest.raises(BadType, match="images of a subset must be a whole number"):
        split.subset(1.5)


# --- the real sources


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts", "mean"),
    [("mnist", 60_000, 0.1307), ("fashion_mnist", 60_000, 0.2860), ("cifar10", 50_000, 0.4734)],
)
def test_full_sets_from_wherever_they_are_to_be_had(name, counts, mean, tmp_path):
    data = load_data(name, root=tmp_path, normalise="none")
    assert len(data.train) + len(data.score) + len(data.validation) == counts
    assert len(data.test) == 10_000
    assert data.train.inputs.mean().item() == pytest.approx(mean, abs=2e-3)
    assert os.listdir(tmp_path) == [f"{name}.safetensors"]


@pytest.mark.slow
def test_killed_while_fetching_nothing_is_taken_for_whole(tmp_path):
    code = f"from pruning_core.data import load_data; load_data('cifar10', root={str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list(tmp_path.glob(".partial-*/package")):
        pass
    os.killpg(process.pid, 9)
    process.wait()
    assert not (tmp_path / "cifar10.safetensors").exists()
    assert len(load_data("cifar10", root=tmp_path).test) == 10_000


# --- files of official places


@pytest.mark.parametrize("name", [*sources.TORCHVISION, "imagenette"])
def test_every_file_that_torchvision_fetches_has_a_known_sha256(name):
    from torchvision import datasets

    if name == "imagenette":
        fetched = {datasets.Imagenette._ARCHIVES["320px"][0]}
    else:
        kind = getattr(datasets, sources.TORCHVISION[name][0])
        fetched = {kind.url} if hasattr(kind, "url") else {kind.mirrors[0] + file for file, _ in kind.resources}
    known = DATASETS[name].files
    assert {address.rpartition("/")[2] for address in known} == {address.rpartition("/")[2] for address in fetched}
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in known.values())
    assert len(set(known.values())) == len(known)


def test_only_sets_that_are_fetched_have_files():
    assert {name for name, info in DATASETS.items() if info.files} == {*sources.TORCHVISION, "imagenette"}


def test_the_checksum_that_the_data_cards_show_is_the_one_in_the_table():
    text = (REPOSITORY / "data" / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"curl -L (\S+) \| sha256sum\n# ([0-9a-f]{64})", text)
    assert shown
    assert all(DATASETS["cifar100"].files[address] == sha256 for address, sha256 in shown)


@pytest.mark.parametrize("name", list(sources.TORCHVISION))
def test_a_file_of_ones_own_that_is_another_is_refused_before_it_is_read(name, tmp_path, monkeypatch):
    from torchvision import datasets

    own, pattern = sources.TORCHVISION[name]
    monkeypatch.setattr(datasets, own, None)  # nothing of torchvision may be reached
    file = (tmp_path / pattern).parent / next(iter(DATASETS[name].files)).rpartition("/")[2]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"not what was published")
    with pytest.raises(CorruptFile, match=f"{file.name} is not the published file"):
        sources.from_torchvision(name, tmp_path, tmp_path / "temporary")


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_download_that_is_another_is_refused_before_its_pickles_are_read(name, tmp_path, monkeypatch):
    from torchvision import datasets

    def delivered(address, folder, file, md5):
        assert address in DATASETS[name].files
        (Path(folder) / file).write_bytes(b"not what was published")

    kind = getattr(datasets, sources.TORCHVISION[name][0])
    monkeypatch.setattr(datasets.utils, "download_url", delivered)
    monkeypatch.setattr(kind, "__init__", lambda *_, **__: pytest.fail("torchvision opened the archive"))
    with pytest.raises(CorruptFile, match=r"python\.tar\.gz is not the published file"):
        sources.from_torchvision(name, tmp_path, tmp_path)
