"""Whoever trains a pruned network need not hand its masks on: they come with it."""

import pytest
import torch

import pruning_core as pc


@pytest.fixture
def pruned():
    return pc.prune(pc.build_model("lenet300", "digits", seed=0), "magnitude", 0.9)


def zeros(model) -> int:
    return sum(int((p == 0).sum()) for p in model.parameters() if p.dim() > 1)


def test_what_is_pruned_stays_zero_also_after_it_was_saved(pruned, tmp_path):
    data, before = pc.load_data("digits", limit=600), zeros(pruned.model)
    pruned.save(tmp_path / "pruned.safetensors")
    for model in (pruned.model, pc.load_pruned(tmp_path / "pruned.safetensors")):
        trainer = pc.Trainer(model, epochs=1)
        trainer.train_epoch(data.train)
        assert zeros(model) == before
        assert trainer.masks.removed == pruned.masks.removed
        pc.fit(model, data, epochs=1, progress=False)
        assert zeros(model) == before


def test_no_masks_at_all_bring_weights_back(pruned):
    data, before = pc.load_data("digits", limit=600), pruned.masks.removed
    pc.Trainer(pruned.model, epochs=1, masks={}).train_epoch(data.train)
    assert zeros(pruned.model) < before / 2  # of pixels that are always black nothing comes back
    assert pc.Trainer(pruned.model, epochs=1).masks.removed < before / 2  # what is no zero any more is alive


def test_what_does_not_decay_is_told_by_name():
    model = torch.nn.Sequential()
    model.add_module("bn1", torch.nn.BatchNorm1d(4))
    block = torch.nn.Sequential()
    block.add_module("bn1", torch.nn.BatchNorm1d(4))
    model.add_module("block", block)
    rule = pc.Optimizer(weight_decay=0.1, undecayed=(".bn", ".bias"))
    decayed = {id(p) for group in rule.build(model).param_groups if group["weight_decay"] for p in group["params"]}
    assert {name for name, p in model.named_parameters() if id(p) in decayed} == {"bn1.weight"}
    assert (
        pc.Experiment("lenet300", "digits", [], optimizer=pc.Optimizer(undecayed=())).key
        == pc.Experiment("lenet300", "digits", []).key
    )
