"""Fast training: what an experiment makes of precision and channels_last, what its rows and its key say, where it goes on."""

from dataclasses import replace

import pytest
import torch

import pruning_core as pc
from pruning_core import records
from pruning_core.errors import BadType, UnknownName
from pruning_core.experiments import experiment as experiments
from pruning_core.experiments import final_state, recipes
from pruning_core.records.files import results_root

FAST = {"precision": "bfloat16", "channels_last": True}
COSINE, STANDARD = pc.LearningRate("cosine"), {"profile": "standard"}


def small(timeline, **options):
    """Residual blocks with 1x1 convolutions, on a part of digits."""
    settings = {"optimizer": pc.Optimizer("sgd", lr=0.05), "batch_size": 64, "width": 0.25, "limit": 300}
    return pc.Experiment("resnet20_b", "digits", timeline, **settings | options)


def filters(p):
    """The timeline of chapter 2's page on filters."""
    cut = pc.Prune("pfp", pc.Budget(p, of="weights"), batches="score", samples=128)
    again = pc.Train(6, optimizer=pc.Optimizer("sgd", lr=0.01))
    return [pc.Train(20), cut, pc.Shrink(), pc.Measure("pruned"), again, pc.Measure("fine-tuned")]


STORED = {  # experiments of profile standard as the notebooks write them down, by the file that holds their rows
    "lenet5-mnist5k": pc.Experiment(
        "lenet5", "mnist5k", [pc.Train(20)],
        batch_size=64, optimizer=pc.Optimizer("sgd", lr=0.02), learning_rate=COSINE, **STANDARD,
    ),
    "vgg8-digits": pc.Experiment(
        "vgg8", "digits", recipes.scaled_from_scratch(0.5, 50),
        batch_size=64, optimizer=pc.Optimizer("sgd", lr=0.05, nesterov=True, weight_decay=1e-4), **STANDARD,
    ),
    "basic4-digits": pc.Experiment(
        "basic4", "digits", recipes.ispasp(1 - 0.4, 8, 3, 1, "ispasp"),
        batch_size=64, optimizer=pc.Optimizer("sgd", lr=0.05, nesterov=True, weight_decay=5e-4), learning_rate=COSINE,
        **STANDARD,
    ),
    "resnet20_b-cifar10": pc.Experiment(
        "resnet20_b", "cifar10", filters(0.5),
        width=0.5, optimizer=pc.Optimizer("sgd", lr=0.1, nesterov=True, weight_decay=1e-4), learning_rate=COSINE,
        limit=9000, augment="cifar10/sipp", normalise="cifar10/sipp", **STANDARD,
    ),
}  # fmt: skip


@pytest.mark.parametrize("file", STORED)
def test_stored_experiments_keep_their_keys(file):
    stored = set(records.load(results_root() / f"{file}.json")["experiment"])
    assert STORED[file].key in stored
    others = [replace(STORED[file], **{name: value}).key for name, value in FAST.items()]
    assert len({STORED[file].key, *others, replace(STORED[file], **FAST).key}) == 4


@pytest.mark.parametrize(("fast", "found"), [(True, ("bfloat16", True)), (False, ("float32", False))])
def test_auto_is_what_the_device_computes_in_and_the_key_says_so(fast, found, monkeypatch):
    monkeypatch.setattr(experiments, "computes_bfloat16", lambda device: fast)
    auto = small([pc.Train(1)], precision="auto")
    assert (auto.precision, auto.channels_last) == found
    assert auto.key == small([pc.Train(1)], **dict(zip(FAST, found, strict=True))).key


def test_cheap_profiles_say_auto_nowhere():
    """Their numbers are the same on all machines of a kind."""
    import yaml

    for file in sorted((results_root().parents[1] / "notebooks").glob("*/profiles.yml")):
        profiles = yaml.safe_load(file.read_text(encoding="utf-8"))
        for page in [*profiles["smoke"].values(), *profiles["quick"].values()]:
            assert page.get("precision", "float32") == "float32"


@pytest.mark.parametrize(
    ("options", "stage", "row"),
    [
        ({}, {}, ("float32", None)),
        (FAST, {}, ("bfloat16", True)),
        ({"precision": "bfloat16"}, {}, ("bfloat16", None)),
        ({"channels_last": True}, {"precision": "bfloat16"}, ("bfloat16", True)),
    ],
)
def test_rows_say_how_they_were_trained(options, stage, row, empty_cache):
    (found,) = pc.run(small([pc.Train(1, **stage)], **options), progress=False)
    assert (found["precision"], found.get("channels_last")) == row


def test_a_fast_run_goes_on_where_another_stopped_with_the_same_numbers(empty_cache, tmp_path, monkeypatch):
    timeline = recipes.prune_and_shrink("l1_norm", 0.5, 2, 1)
    pc.run(small(timeline[:1], **FAST), progress=False)  # leaves the checkpoint of the first training
    shared = pc.run(small(timeline, **FAST), progress=False)
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "another"))
    alone = pc.run(small(timeline, **FAST), progress=False)
    assert [row | {"seconds": 0} for row in shared] == [row | {"seconds": 0} for row in alone]
    for weight in final_state(small(timeline, **FAST)).model.parameters():
        assert weight.dim() < 4 or weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"precision": "float16"}, UnknownName, "Allowed: auto, bfloat16, float32"),
        ({"channels_last": "no"}, BadType, "channels_last must be True or False"),
        ({"tags": {"precision": 1}}, pc.errors.BadInput, "column of the rows already"),
    ],
)
def test_bad_settings_are_refused(options, kind, words):
    with pytest.raises(kind, match=words):
        small([pc.Train(1)], **options)
