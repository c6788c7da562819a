"""Fast training: what an experiment makes of precision and channels_last, what rows and keys say, and where runs go on."""

from dataclasses import replace

import pytest
import torch

import pruning_core as pc
from pruning_core import records
from pruning_core.errors import BadType, UnknownName
from pruning_core.experiments import experiment as experiments
from pruning_core.experiments import recipes
from pruning_core.experiments.experiment import final_state
from pruning_core.records.files import results_root
from pruning_core.training.trainer import Trainer

FAST = {"precision": "bfloat16", "channels_last": True}


def small(timeline, **options):
    """Residual blocks with 1x1 convolutions, on a part of digits."""
    settings = {"optimizer": pc.Optimizer("sgd", lr=0.05), "batch_size": 64, "width": 0.25, "limit": 300}
    return pc.Experiment("resnet20_b", "digits", timeline, **settings | options)


def stored_ones():
    """Experiments as notebooks of profile standard write them down, by the file in which their rows lie."""
    cosine, standard = pc.LearningRate("cosine"), {"profile": "standard"}
    adam = pc.Optimizer("adam", lr=2e-3, weight_decay=5e-5, clip=10.0)
    yield (
        "lenet5-mnist5k",
        pc.Experiment(
            "lenet5", "mnist5k", [pc.Train(20)], batch_size=64, optimizer=pc.Optimizer("sgd", lr=0.02),
            learning_rate=cosine, **standard,
        ),
    )  # fmt: skip
    yield "lenet300_snip-digits", pc.Experiment("lenet300_snip", "digits", recipes.dense(20), optimizer=adam, **standard)
    yield (
        "resnet18_snip-cifar10",
        pc.Experiment(
            "resnet18_snip", "cifar10", recipes.before_training("random", 0.98, 20), width=0.125, optimizer=adam,
            batch_size=128, normalise="cifar10/snipit", augment="cifar10/snipit", limit=9000, **standard,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(("file", "experiment"), stored_ones())
def test_stored_experiments_keep_their_keys(file, experiment):
    stored = records.load(results_root() / f"{file}.json")
    assert experiment.key in set(stored["experiment"])
    assert replace(experiment, **FAST).key not in set(stored["experiment"])
