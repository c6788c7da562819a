"""One file of tensors and JSON: what goes in comes out, and every alteration is noticed."""

import copy
import functools
import os
import random
from enum import Enum
from fractions import Fraction

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from pruning_core.errors import BadInput, BadType, CorruptFile
from pruning_core.records import checkpoints
from pruning_core.records.checkpoints import (
    STORED,
    describe,
    describe_whole,
    load_tensors,
    refuse_foreign,
    save_tensors,
)
from pruning_core.training import fit
from pruning_core.training.optimizers import Optimizer


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "some.safetensors"
    tensors = {
        "weight": torch.arange(12.0).reshape(3, 4),
        "alive": torch.tensor([True, False]),
        "step": torch.tensor(3.0),
    }
    save_tensors(path, tensors, {"epoch": 3, "rate": 0.1, "best": None})
    return path


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(3, 4).t(),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.tensor(2.5, dtype=torch.float64),
        torch.zeros(0, 3),
        torch.tensor([True, False]),
        torch.arange(5),
        torch.randn(4).bfloat16(),
        torch.Generator().get_state(),
        nn.Parameter(torch.ones(2)),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)}",
)
def test_a_tensor_comes_back_bit_for_bit(tmp_path, tensor):
    save_tensors(tmp_path / "one", {"it": tensor})
    found, info = load_tensors(tmp_path / "one")
    assert found["it"].dtype == tensor.dtype
    assert torch.equal(found["it"], tensor)
    assert info == {}


def test_information_comes_back_exactly(tmp_path):
    info = {"history": [{"loss": 0.1 + 0.2, "n": 3}], "label": "é", "none": None}
    save_tensors(tmp_path / "one", {}, info)
    assert load_tensors(tmp_path / "one") == ({}, info)


def test_tensors_that_share_memory_are_stored_apart(tmp_path):
    weight = torch.randn(3, 3)
    save_tensors(tmp_path / "tied", {"a": weight, "b": weight, "row": weight[1]})
    found, _ = load_tensors(tmp_path / "tied")
    found["a"].zero_()
    assert torch.equal(found["b"], weight)
    assert torch.equal(found["row"], weight[1])


def test_every_flipped_bit_is_noticed(saved, tmp_path):
    content = saved.read_bytes()
    for position in range(len(content)):
        altered = bytearray(content)
        altered[position] ^= 1 << random.Random(position).randrange(8)
        broken = tmp_path / "broken"
        broken.write_bytes(altered)
        with pytest.raises(CorruptFile, match="broken"):
            load_tensors(broken)


def test_every_truncation_is_noticed(saved, tmp_path):
    content = saved.read_bytes()
    for length in range(0, len(content), 7):
        broken = tmp_path / "short"
        broken.write_bytes(content[:length])
        with pytest.raises(CorruptFile, match="short"):
            load_tensors(broken)


def test_a_foreign_file_is_refused_in_one_sentence(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "theirs.safetensors")
    torch.save({"w": torch.ones(2)}, tmp_path / "pickle.pt")
    (tmp_path / "text").write_text("no tensors at all, but some words")
    for name in ("theirs.safetensors", "pickle.pt", "text"):
        with pytest.raises(CorruptFile, match=name) as caught:
            load_tensors(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_read_or_stored_is_refused(tmp_path):
    with pytest.raises(BadInput, match="there is no file"):
        load_tensors(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="cannot be read"):
        load_tensors(tmp_path)
    with pytest.raises(BadType, match="JSON"):
        save_tensors(tmp_path / "x", {}, {"bad": object()})
    with pytest.raises(BadType, match="maps names to tensors"):
        save_tensors(tmp_path / "x", {"a": 3})  # type: ignore[dict-item]
    with pytest.raises(BadType, match="dense"):
        save_tensors(tmp_path / "x", {"a": torch.eye(3).to_sparse()})
    for unknown in (torch.complex128, torch.complex32, torch.bits8, torch.float8_e8m0fnu):
        with pytest.raises(BadType, match=f"a holds {unknown}, which a safetensors file cannot hold"):
            save_tensors(tmp_path / "x", {"a": torch.empty(2, dtype=unknown)})
    with pytest.raises(BadType, match="a is nested"):
        save_tensors(tmp_path / "x", {"a": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])})
    for name in ("__metadata__", "\ud800"):
        with pytest.raises(BadInput, match=r"__metadata__|half of a letter"):
            save_tensors(tmp_path / "x", {name: torch.ones(1)})
    deep: dict = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(BadType, match="JSON"):
        save_tensors(tmp_path / "x", {}, deep)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["info", "header"])
def test_a_key_that_stands_twice_is_no_file_of_ours(where, tmp_path):
    info = '{"kind": "masks", "kind": "network"}' if where == "info" else "{}"
    checksum = checkpoints._digest({}, info)
    safe = safetensors.torch.save({}, {"format": checkpoints.FORMAT, "info": info, "sha256": checksum})
    if where == "header":
        header = safe[8:].rstrip().replace(b'"format"', b'"sha256": "", "format"', 1)
        safe = len(header).to_bytes(8, "little") + header
    (tmp_path / "x").write_bytes(safe)
    with pytest.raises(CorruptFile, match=r"no JSON object|header is truncated or damaged"):
        load_tensors(tmp_path / "x")


@pytest.mark.parametrize("kind", sorted(STORED, key=str))
def test_what_can_be_saved_comes_back_as_it_was(kind, tmp_path):
    tensor = torch.arange(3).to(kind)
    save_tensors(tmp_path / "x", {"a": tensor})
    found = load_tensors(tmp_path / "x")[0]["a"]
    assert found.dtype == kind and torch.equal(found.to(torch.complex64), tensor.to(torch.complex64))


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def no_room(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(BadInput, match=r"some\.safetensors"):
        save_tensors(saved, {"weight": torch.zeros(2)})
    assert saved.read_bytes() == before
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


def scaled(strength):
    return lambda model: strength * sum(p.abs().sum() for p in model.parameters())


class Side(Enum):
    LEFT, RIGHT = 1, 2


def recursive(step):
    def power(n):
        return power(n - step) if n > 0 else 0

    return power


def later(step):
    def read():
        return missing + step

    if not step:
        missing = 1
    return read


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (torch.ones(3), torch.ones(3).double()),
        (Optimizer(lr=0.1), Optimizer(lr=0.2)),
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
        (scaled(0.1), scaled(0.2)),
        (functools.partial(max, 1), functools.partial(max, 2)),
        ({"a": (1, 2)}, {"a": (1, 3)}),
        (nn.Linear(2, 2), nn.Linear(2, 2)),
        (np.int64(1), np.int64(2)),
        (np.float32(0.5), np.float32(0.25)),
        (np.arange(3), np.arange(3) + 1),
        (np.array(["a", None]), np.array(["a", "b"])),
        ({1, 2}, {1, 3}),
        (Side.LEFT, Side.RIGHT),
        (torch.float32, torch.float64),
        (Fraction(1, 2), Fraction(1, 3)),
        (scaled(np.float32(0.1)), scaled(np.float32(0.2))),
        (torch.eye(2).to_sparse(), 2 * torch.eye(2).to_sparse()),
        (torch.ones(2, device="meta"), torch.ones(3, device="meta")),
        (torch.tensor([1j]).conj(), torch.tensor([1j])),
        (recursive(1), recursive(2)),
        (later(1), later(2)),
        (float("nan"), 1.0),
    ],
)
def test_descriptions_differ_where_settings_do(one, other):

    import json

    assert describe(one) != describe(other)
    assert describe(one) == describe(copy.deepcopy(one)) == json.loads(json.dumps(describe(one)))


def test_a_foreign_run_is_refused_by_naming_what_differs():
    refuse_foreign("here", {"seed": 1, "data": [1]}, {"seed": 1, "data": [1]})
    with pytest.raises(BadInput, match=r"here belongs to another run \(it differs in epochs, seed\)"):
        refuse_foreign("here", {"seed": 1}, {"seed": 2, "epochs": 3})


class Focal:
    """A loss of one's own, an object of a plain class."""

    def __init__(self, gamma):
        self.gamma, self.me = gamma, self

    def __call__(self, outputs, labels):
        return self.gamma * nn.functional.cross_entropy(outputs, labels)


def test_a_checkpoint_of_another_strength_of_ones_own_loss_is_another_run(tmp_path):
    batches, network = [(torch.ones(4, 2), torch.arange(4) % 2)], nn.Linear(2, 2)

    def run(loss, epochs=1):
        return fit(copy.deepcopy(network), batches, epochs=epochs, loss=loss, checkpoint=tmp_path / "c", progress=False)

    first = run(Focal(2.0))
    assert run(Focal(2.0)) == first
    with pytest.raises(BadInput, match=r"belongs to another run \(it differs in loss\)"):
        run(Focal(3.0))
    assert describe_whole(Focal(2.0)) == {"type": "Focal", "gamma": 2.0, "me": "what holds it"}
