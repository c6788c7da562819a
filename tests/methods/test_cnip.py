"""CNIP: weights and channels by one threshold."""

import pytest
import torch
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BudgetError
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.cnip import Cnip, official_shares
from pruning_core.methods.shared.elasticities import (
    channel_elasticities,
    loss_gradients,
    producing_parameters,
    weight_elasticities,
)
from pruning_core.pruning import prune_step
from tests.methods.gradient_networks import conv


def test_cnip_cuts_weights_and_channels_by_one_threshold(batches):
    model = conv()
    result = pc.prune(model, "cnip", 0.85, batches=batches)
    removed, total = result.report.removed["weights"]
    assert removed == round(0.85 * total)
    groups = result.sites.groups
    names = dict.fromkeys([*result.sites.weights, *producing_parameters(groups.values())])
    gradients, loss = loss_gradients(model, names, batches, F.cross_entropy, 5)
    nodes = channel_elasticities(model, gradients, loss, groups)
    weights = weight_elasticities(model, {n: gradients[n] for n in result.sites.weights}, loss)
    cut = {name: ~result.masks[group.produces[0].parameter].flatten(1).any(1) for name, group in groups.items()}
    gone = torch.cat([nodes[name][cut[name]] for name in groups])
    assert 0 < len(gone) < sum(group.size for group in groups.values())
    alive = torch.cat([weights[n][result.masks[n]].flatten() for n in weights])
    # Nothing that stays scores below a channel that went, but for the best weight of a layer that would be empty.
    assert int((alive < gone.min()).sum()) <= len(weights)


def test_cnip_counts_channels_or_macs_when_asked(batches):
    for of in ("channels", "macs"):
        result = pc.prune(conv(), "cnip", 0.5, of=of, batches=batches)
        assert abs(result.report.reached - 0.5) < 0.02
        small = result.shrink()
        assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in conv().parameters())
    with pytest.raises(BudgetError, match="across must be 'global'"):
        pc.prune(conv(), "cnip", 0.5, across="layer", batches=batches)


def test_cnip_in_steps_reaches_its_target_where_the_official_rule_stalls(batches):
    """Dead weights fill up the official share: the second event asks for more and removes nothing."""
    model = conv()
    result = pc.prune(model, "cnip", 0.7, batches=batches, rounds=3, schedule="snip_it")
    removed, total = result.report.removed["weights"]
    assert removed == round(0.7 * total)
    weights = torch.cat([torch.zeros(600), torch.linspace(0.1, 1, 400)])
    nodes = torch.linspace(0.2, 1, 30)
    of_weights, of_nodes = official_shares(weights, nodes, 0.4)
    assert of_nodes == 0 and of_weights <= 0.6


def test_a_second_cut_starts_from_what_is_alive(batches):
    model = conv()
    sites = find_sites(model, channels=True, example_input=batches[0][0][:1])
    first = prune_step(model, Cnip(), Budget(0.5), sites, Masks(), batches).masks
    second = prune_step(model, Cnip(), Budget(0.8), sites, first, batches).masks
    assert second <= first
