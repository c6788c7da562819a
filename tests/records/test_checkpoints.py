"""One file of tensors and JSON: what goes in comes out, and every alteration is noticed."""

import functools
import os
import random

import pytest
import torch
from torch import nn

from pruning_core.errors import BadInput, BadType, CorruptFile
from pruning_core.records.checkpoints import describe, load_tensors, refuse_foreign, save_tensors
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
    assert list(tmp_path.iterdir()) == []


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
    ],
)
def test_descriptions_differ_where_settings_do(one, other):
    import copy
    import json

    assert describe(one) != describe(other)
    assert describe(one) == describe(copy.deepcopy(one)) == json.loads(json.dumps(describe(one)))


def test_a_foreign_run_is_refused_by_naming_what_differs():
    refuse_foreign("here", {"seed": 1, "data": [1]}, {"seed": 1, "data": [1]})
    with pytest.raises(BadInput, match=r"here belongs to another run \(it differs in epochs, seed\)"):
        refuse_foreign("here", {"seed": 1}, {"seed": 2, "epochs": 3})
