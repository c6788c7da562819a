"""Networks and data sets of one's own: names after which files can be called, builders that build, groups that fit."""

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, UnknownName


def small(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


UNSEEN = ["a\x85b", "a\x9b31mb", "a\u2028b", "a\u2029b", "a\u202eb", "a\u2066b", "a\u200bb", "\ufeffa", "e\u0301"]


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "\t", "a\x7fb", "x" * 101, "é" * 51, *UNSEEN])
def test_names_after_which_no_file_can_be_called_are_refused(name):
    with pytest.raises(BadInput, match="the name of a network"):
        pc.register_model(name, "digits", small)
    with pytest.raises(BadInput, match="the name of a data set"):
        pc.register_data(name, lambda: (np.zeros((100, 8, 8), np.uint8), np.arange(100) % 2))
    assert name not in pc.MODELS
    assert name not in pc.DATASETS


def test_a_builder_makes_new_layers_each_time():
    network = small(10)
    for build in (lambda classes: network, lambda classes: nn.Sequential(nn.Identity(), *network)):
        with pytest.raises(BadInput, match="must make new layers each time"):
            pc.register_model("mine", "digits", build)
    assert "mine" not in pc.MODELS


def test_a_network_without_parameters_is_refused():
    with pytest.raises(BadInput, match="has no parameters"):
        pc.register_model("mine", "digits", lambda: nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(10)))


def test_an_experiment_on_a_data_set_that_is_gone_says_so():
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    pc.register_data("gone", lambda: (images, np.arange(100) % 2))
    experiment = pc.Experiment("lenet300", "gone", [pc.Train(1)])
    del pc.DATASETS["gone"]
    with pytest.raises(UnknownName, match="unknown data set 'gone'"):
        pc.run(experiment, progress=False)


@pytest.mark.parametrize("other", [nn.Conv2d(1, 4, 3), nn.Linear(1, 4), nn.ReLU()])
def test_groups_of_another_network_are_refused(other):
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 4, 3))
    (group, *_) = pc.find_groups(network, torch.zeros(1, 1, 8, 8))
    masks = pc.Masks({"1.bias": torch.ones(4, dtype=torch.bool)})
    with pytest.raises(BadInput, match="is of another network"):
        pc.remove(nn.Sequential(other, nn.Conv2d(8, 4, 3)), masks, [group])


@pytest.mark.parametrize("masks", [{"x": torch.ones(1)}, {"1.weight": torch.ones(3, 64, dtype=torch.bool)}])
def test_masks_of_another_network_are_not_saved(masks, tmp_path):
    with pytest.raises(BadInput, match="is none of this network"):
        pc.save_network(small(10), tmp_path / "mine.safetensors", masks=masks)
    assert not list(tmp_path.iterdir())
