"""Data sets of one's own: arrays from a function, folders of images by name and by path, and what is refused."""

import os
import time
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

import pruning_core as pc
from pruning_core.data import own
from pruning_core.errors import BadInput, BadType, CorruptFile, UnknownName


@pytest.fixture(autouse=True)
def _nothing_stays():
    with patch.dict(pc.DATASETS):
        yield


def images(n: int, shape: tuple[int, ...] = (3, 6, 5), classes: int = 3):
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (n, *shape), dtype=np.uint8), np.arange(n) % classes


def test_a_function_gives_four_splits_normalised_by_the_training_split():
    pc.register_data("noise")(lambda: images(300))
    data = pc.load_data("noise")
    assert (data.shape, data.classes, pc.DATASETS["noise"].sizes) == ((3, 6, 5), 3, (300, 0))
    sizes = {name: len(getattr(data, name)) for name in ("train", "score", "validation", "test")}
    assert sizes == {"train": 192, "score": 24, "validation": 24, "test": 60}
    torch.testing.assert_close(data.train.inputs.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(data.train.inputs.std((0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)


def test_a_test_set_of_its_own_and_numbers_that_are_no_bytes():
    x, y = torch.randn(90, 4, 4, dtype=torch.float64), torch.arange(90) % 2
    pc.register_data("points", lambda: (x, y, x[:10] + 1, y[:10]))
    data = pc.load_data("points", normalise="none")
    assert (data.shape, len(data.test)) == ((1, 4, 4), 10)
    wanted = {tuple(row) for row in (x[:10] + 1).flatten(1).float().tolist()}
    assert {tuple(row) for row in data.test.inputs.flatten(1).tolist()} == wanted


def test_it_trains_prunes_and_is_another_experiment_with_other_images(empty_cache):
    keys = []
    for shift in (0, 1):
        x, y = images(300, (1, 8, 8))
        pc.register_data("noise", lambda x=x + shift, y=y: (x, y))
        keys.append(pc.Experiment("lenet300", "noise", [pc.Train(1)], profile="smoke").key)
    assert keys[0] != keys[1]
    rows = pc.run(
        pc.Experiment("lenet300", "noise", [pc.Train(1), pc.Prune("magnitude", 0.5)], profile="smoke"), progress=False
    )
    assert rows[0]["data"] == "noise"


def test_a_function_that_returns_something_else_later_is_noticed():
    seen = iter(range(9))
    pc.register_data("noise", lambda: (images(120)[0] + next(seen), images(120)[1]))
    with pytest.raises(BadInput, match="other images than before"):
        pc.load_data("noise")


X, Y = images(60)


@pytest.mark.parametrize(
    ("returns", "error", "message"),
    [
        (lambda: X, BadType, r"must return \(images, labels\)"),
        (lambda: (X[0], Y), BadInput, "60 labels|shape"),
        (lambda: (X[:50], Y), BadInput, "50 train images and 60 labels"),
        (lambda: (X.astype(int), Y), BadInput, "bytes or finite"),
        (lambda: (X / np.where(X > 254, 0.0, 1.0), Y), BadInput, "bytes or finite"),
        (lambda: (X, Y.astype(float)), BadInput, "whole numbers"),
        (lambda: (X, Y + 1), BadInput, "from 0 to classes - 1"),
        (lambda: (X, Y * 0), BadInput, "at least two"),
        (lambda: (X[:9], Y[:9]), BadInput, "has 3 images to learn from; at least 7"),
        (lambda: (X, Y, X[:2, :, 1:], Y[:2]), BadInput, "another shape"),
        (lambda: (X, Y, X[:2], Y[:2] + 3), BadInput, "a class that the training labels do not"),
        (lambda: (X * 0, Y), BadInput, "the same everywhere"),
        (lambda: (torch.tensor(X).to_sparse(), Y), BadType, "the images of 'mine' must be a dense tensor"),
        (lambda: (X, torch.tensor(Y).to("meta")), BadType, "the labels of 'mine' must be a dense tensor"),
        (lambda: ([[1.0, 2.0], [1.0]], Y), BadInput, "the images of 'mine' make no array"),
        (lambda: (X * 1e300, Y), BadInput, "bytes or finite"),
        (17, BadType, "the path of a file or folder, or a function"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_data_set_are_refused_at_once(returns, error, message):
    with pytest.raises(error, match=message), np.errstate(divide="ignore", invalid="ignore"):
        pc.register_data("mine", returns)
    assert "mine" not in pc.DATASETS


def test_names_of_the_book_are_taken_and_sides_are_for_folders():
    with pytest.raises(BadInput, match="'digits' is taken"):
        pc.register_data("digits", lambda: images(60))
    with pytest.raises(BadInput, match="side=8 is for folders"):
        pc.register_data("mine", lambda: images(60), side=8)


def painted(folder, parts=("train", "val"), each: int = 12, size=(10, 8)):
    for part in parts:
        for label, colour in enumerate(("blue", "red")):
            own = folder / part / colour
            own.mkdir(parents=True)
            for i in range(each):
                Image.new("RGB", size, (200 * label, i, 9)).save(own / f"{i}.png")
    return folder


@pytest.mark.parametrize("parts", [("train", "val"), ("train", "test"), ("",)])
def test_a_folder_by_its_path_and_by_a_name(tmp_path, parts):
    folder = painted(tmp_path / "paint", parts)
    by_path = pc.load_data(folder)
    assert by_path.shape == (3, 8, 8)
    assert len(by_path.test) == (24 if len(parts) == 2 else round(0.2 * 12) * 2)
    pc.register_data("paint", folder, side=6)
    data = pc.load_data("paint")
    assert (data.shape, data.classes) == ((3, 6, 6), 2)
    x, y = next(iter(data.train.batches(4)))
    assert x.shape == (4, 3, 6, 6)
    red = x.mean((2, 3))[:, 0]
    assert bool(((red > 0) == (y == 1)).all())
    assert pc.load_data(str(folder)).name == str(folder)


def test_other_images_in_a_folder_are_another_experiment(tmp_path):
    folder = painted(tmp_path / "paint")

    def key() -> str:
        pc.register_data("paint", folder)
        return pc.Experiment("mlp5_snip", "paint", [pc.Train(1)]).key

    first = key()
    assert first == key()
    Image.new("RGB", (40, 40)).save(folder / "train" / "red" / "more.png")
    assert first != key()


@pytest.mark.parametrize("at", [10, 50_000, 199_990])
def test_another_image_of_the_same_size_is_another_experiment(tmp_path, at):
    folder = painted(tmp_path / "paint")
    file = folder / "train" / "red" / "large.jpg"
    file.write_bytes(bytes(200_000 if at > 50_000 else 60_000))
    pc.register_data("paint", folder, side=8)
    first = pc.Experiment("mlp5_snip", "paint", [pc.Train(1)]).key
    with open(file, "r+b") as changed:
        changed.seek(at)
        changed.write(b"?")
    with pytest.raises(BadInput, match="holds other images than before; register it again"):
        pc.load_data("paint")
    pc.register_data("paint", folder, side=8)
    assert pc.Experiment("mlp5_snip", "paint", [pc.Train(1)]).key != first


def test_images_are_read_again_only_when_the_system_has_noted_a_change(tmp_path, monkeypatch):
    folder = painted(tmp_path / "paint")
    read = []
    fingerprint = own._fingerprint
    monkeypatch.setattr(own, "_fingerprint", lambda *given: read.append(1) or fingerprint(*given))
    pc.register_data("paint", folder, side=8)
    first = own.DATASETS["paint"].fingerprint
    assert own.folder_fingerprint(folder, 8) == first
    assert len(read) == 2  # a change in the same moment would not be seen
    monkeypatch.setattr(own, "TICK", -1)
    for _ in range(3):
        assert own.folder_fingerprint(folder, 8) == first
    assert len(read) == 3
    assert own.folder_fingerprint(folder, 9) != first
    time.sleep(0.05)
    os.utime(next(folder.rglob("*.png")))
    assert own.folder_fingerprint(folder, 8) == first
    assert len(read) == 5


def test_an_image_that_is_a_pipe_is_refused(tmp_path):
    folder = painted(tmp_path / "paint")
    os.mkfifo(folder / "train" / "red" / "pipe.png")
    with pytest.raises(CorruptFile, match=r"pipe\.png is no image that can be read: it is no regular file"):
        pc.register_data("paint", folder, side=8)


def test_folders_that_are_no_data_set_are_refused(tmp_path):
    with pytest.raises(BadInput, match="there is no folder"):
        pc.load_data(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="there is no folder"):
        pc.load_data("no/such/folder")
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        pc.load_data("digit")
    (tmp_path / "one" / "alone").mkdir(parents=True)
    with pytest.raises(BadInput, match="two folders or more"):
        pc.load_data(tmp_path / "one")
    few = painted(tmp_path / "few", each=3)
    with pytest.raises(BadInput, match="3 images to learn from; at least 11"):
        pc.load_data(few)
    broken = painted(tmp_path / "broken")
    (broken / "train" / "blue" / "0.png").write_bytes(b"no image")
    with pytest.raises(CorruptFile, match="no whole image"):
        pc.load_data(broken)


def test_a_function_that_fails_says_which_and_why():
    with pytest.raises(BadInput, match="the function of data set 'broken' failed: division by zero"):
        pc.register_data("broken", lambda: 1 / 0)


def test_a_folder_whose_accents_stand_apart_has_one_name(tmp_path, monkeypatch):
    """As file systems of macOS give it: two spellings that look alike are one set."""
    monkeypatch.setattr(own, "register_data", lambda name, given: registered.append(name))
    registered: list[str] = []
    (tmp_path / "cafe\u0301").mkdir()
    assert own.named_data(str(tmp_path / "cafe\u0301")) == "caf\u00e9"
    assert registered == ["caf\u00e9"]


def test_images_in_the_half_precision_that_numpy_does_not_know_are_a_data_set():
    pc.register_data("brief", lambda: (torch.tensor(X / 255.0, dtype=torch.bfloat16), torch.tensor(Y)))
    assert pc.load_data("brief").score.labels.dtype == torch.int64
