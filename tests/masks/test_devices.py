"""Masks live on the CPU, wherever the network is."""

import torch

import pruning_core as pc
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites


def test_masks_are_made_on_the_cpu_and_act_on_the_network_where_it_is(device):
    model = pc.build_model("vgg8", "digits", width=0.25, seed=0).to(device)
    sites = find_sites(model, channels=True, example_input=torch.zeros(1, 1, 8, 8, device=device))
    dense = Masks.dense(model, sites.weights)
    drawn = Masks({name: torch.rand(mask.shape) < 0.5 for name, mask in dense.items()})
    drawn.apply_(model)
    for name, mask in drawn.items():
        weight = model.get_parameter(name)
        assert weight.device.type == device
        assert torch.equal(weight.cpu() == 0, ~mask)
    found = Masks.of_nonzero(model, sites.weights)
    assert found == drawn
    assert {mask.device.type for mask in (*dense.values(), *found.values())} == {"cpu"}
    for group in sites.groups.values():
        assert group.alive(found).device.type == "cpu"
