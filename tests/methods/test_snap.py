"""SNAP: channels by their elasticity, how producers are combined, and outputs that stay."""

import pytest
from torch import nn

import pruning_core as pc
from pruning_core.errors import Unprunable
from pruning_core.methods.snap import Snap
from tests.methods.gradient_networks import conv, residual


def test_snap_prunes_residual_networks(batches):
    model = residual()
    result = pc.prune(model, "snap", 0.6, batches=batches, rounds=7, schedule="snip_it")
    removed, total = result.report.removed["channels"]
    assert abs(removed - 0.6 * total) <= 0.5
    small = result.shrink().eval()
    x = batches[0][0]
    assert (small(x) - result.model.eval()(x)).abs().max() < 1e-10


@pytest.mark.parametrize("combine", ["sum", "mean", "max", "first"])
def test_how_producers_are_combined_is_an_argument(combine, batches):
    assert pc.prune(residual(), Snap(combine=combine), 0.5, batches=batches).report.reached > 0.49


def test_the_outputs_of_a_network_are_not_channels_to_prune(batches):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    with pytest.raises(Unprunable, match="outputs of the network"):
        pc.prune(model, "snap", 0.5, batches=batches)


def test_scope_cannot_make_outputs_prunable(batches):
    with pytest.raises(Unprunable, match="outputs of the network"):
        pc.prune(conv(), "snap", 0.5, batches=batches, scope=["9"])
