"""SNIP, and what all methods that rank by a gradient or a flow do with targets, tokens and bad arguments."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, PruningError
from pruning_core.experiments import recipes
from pruning_core.methods.cnip import official_shares
from pruning_core.methods.grasp import Grasp
from pruning_core.methods.snap import Snap
from pruning_core.methods.snip import Snip
from pruning_core.methods.synflow import SynFlow
from tests.methods.gradient_networks import conv


def test_the_two_losses_rank_differently(batches):
    model = conv()
    masks = {loss: pc.prune(model, Snip(loss=loss), 0.8, batches=batches).masks for loss in ("training", "nll_logits")}
    assert masks["training"] != masks["nll_logits"]


def test_only_the_first_batches_are_looked_at(batches):
    model = conv()
    two = pc.prune(model, Snip(batches=2), 0.7, batches=batches).masks
    assert two == pc.prune(model, Snip(batches=5), 0.7, batches=batches[:2]).masks
    assert two != pc.prune(model, Snip(batches=3), 0.7, batches=batches).masks


def test_dead_weights_score_zero_and_iterating_changes_the_choice(batches):
    model = conv()
    once = pc.prune(model, "snip", 0.95, batches=batches)
    seven = pc.prune(model, "snip", 0.95, batches=batches, rounds=7, schedule="snip_it")
    assert once.masks != seven.masks
    assert once.masks.removed == seven.masks.removed


@pytest.mark.parametrize("target", [0.3, 0.5, 0.93])
def test_targets_are_met_also_below_one_half(target, batches):
    """The official schedule removes one half first, whatever the target."""
    result = pc.prune(conv(), "snip", target, batches=batches, rounds=7, schedule="snip_it")
    assert abs(result.report.reached - target) < 1 / result.masks.total


REFUSED = [
    (lambda: Snip(batches=0), "batches must be at least 1"),
    (lambda: Snip(loss="mse"), "loss of the statistic"),
    (lambda: Snap(combine="median"), "combination"),
    (lambda: Grasp(temperature=0), "temperature"),
    (lambda: Grasp(chunk=0), "chunk must be at least 1"),
    (lambda: SynFlow(rounds=0), "rounds must be at least 1"),
    (lambda: recipes.snip_it(0.9, 10, steps=0), "steps must be at least 1"),
    (lambda: recipes.snip_it_during(0.9, 10, every=20), "never takes place"),
    (lambda: recipes.snip_it_during(0.9, 10, after=10), "never takes place"),
    (lambda: recipes.magnitude_rewind_during(0.9, 10, early=10), "cannot be put back"),
    (lambda: recipes.lottery_ticket(0.9, 10, 2, early=12), "cannot be put back"),
    (lambda: official_shares(torch.zeros(0), torch.zeros(0), 0.5), "no scores"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
def test_bad_arguments_are_refused_when_they_are_given(make, words):
    with pytest.raises(PruningError, match=words):
        make()


def test_a_loss_that_is_not_finite_is_refused(batches):
    broken = [(torch.full_like(batches[0][0], math.nan), batches[0][1])]
    with pytest.raises(BadInput, match="no gradient to rank by"):
        pc.prune(conv(), "snip", 0.5, batches=broken)


class Transformer(nn.Module):
    """Tokens (N, T, F): attention, then two linear layers whose hidden units can be pruned."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 10)

    def forward(self, x):
        x = x.flatten(1).view(len(x), 8, 8)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


@pytest.mark.parametrize("method", ["snip", "snap", "cnip", "grasp", "synflow", "gates", "l0"])
def test_networks_of_tokens_are_pruned_too(method, batches):
    """Fused attention has no second derivative, and channels are the last dimension of tokens."""
    from pruning_core.methods.base import as_method

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = as_method(method).prepare(Transformer().double(), batches[0][0][:1]).double()
        for name, parameter in model.named_parameters():
            if "gate" in name:
                nn.init.uniform_(parameter, 0.5, 1.5)
    result = pc.prune(model, method, 0.4, batches=batches)
    assert abs(result.report.reached - 0.4) < 0.05
    if as_method(method).unit == "channel":
        small = result.shrink().eval()
        assert (small(batches[0][0]) - result.model.eval()(batches[0][0])).abs().max() < 1e-10
