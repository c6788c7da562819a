"""SNIP, SNAP, CNIP, GraSP, SynFlow: their mathematics by other ways of computing it, and what they promise."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core import recipes
from pruning_core.budgets import Budget
from pruning_core.errors import BadInput
from pruning_core.errors import BudgetError
from pruning_core.errors import PruningError
from pruning_core.errors import Unprunable
from pruning_core.gradients import channel_elasticities
from pruning_core.gradients import loss_gradients
from pruning_core.gradients import producing_parameters
from pruning_core.gradients import weight_elasticities
from pruning_core.masks import Masks
from pruning_core.methods.cnip import Cnip
from pruning_core.methods.cnip import official_shares
from pruning_core.methods.grasp import Grasp
from pruning_core.methods.snap import Snap
from pruning_core.methods.snip import Snip
from pruning_core.methods.synflow import SynFlow
from pruning_core.pruning import prune_step
from pruning_core.sites import find_sites


@pytest.fixture(scope="module")
def batches():
    digits = pc.load_data("digits", dtype=torch.float64)
    return list(digits.score.subset(60).batches(20))


def residual() -> nn.Module:
    """A residual network in double precision whose norms are not the identity."""
    model = pc.build_model("resnet20", "digits", width=0.25, seed=1).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.2)
    return model


def conv() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(128, 12), nn.Tanh(),
            nn.Linear(12, 10),
        ).double()  # fmt: skip


class Gate(nn.Module):
    """A layer whose outputs are multiplied by a vector of ones, in front of whatever follows."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer
        self.c = nn.Parameter(torch.ones(len(layer.weight), dtype=torch.float64))

    def forward(self, x):
        y = self.layer(x)
        return y * self.c.view(1, -1, *[1] * (y.dim() - 2))


def mean_loss(model, batches, loss=F.cross_entropy):
    return torch.stack([loss(model.eval()(x), y) for x, y in batches]).mean()


def test_a_channels_elasticity_is_the_derivative_by_a_gate_behind_its_layer(batches):
    model = conv()
    groups = find_sites(model, channels=True, example_input=batches[0][0][:1]).groups
    gradients, loss = loss_gradients(model, producing_parameters(groups.values()), batches, F.cross_entropy)
    ours = channel_elasticities(model, gradients, loss, groups)
    for name in groups:
        twin = copy.deepcopy(model)
        gate = Gate(twin.get_submodule(name))
        twin[int(name)] = gate
        value = mean_loss(twin, batches)
        (derivative,) = torch.autograd.grad(value, gate.c)
        torch.testing.assert_close(ours[name], (derivative / value).abs().detach(), rtol=1e-10, atol=1e-14)
        assert abs(float(value.detach()) - loss) < 1e-12


def test_members_of_a_residual_sum_share_one_gate(batches):
    """Three layers write into the last stage; one gate on all of them must give the same derivative."""
    model = residual()
    groups = {
        name: g
        for name, g in find_sites(model, channels=True, example_input=batches[0][0][:1]).groups.items()
        if len({m.layer for m in g.produces if not m.is_buffer}) > 1
    }
    if not groups:
        pytest.fail("this network was chosen because layers share channels in it")
    gradients, loss = loss_gradients(model, producing_parameters(groups.values()), batches, F.cross_entropy)
    for name, group in groups.items():
        layers = {m.layer for m in group.produces if not m.is_buffer}
        twin = copy.deepcopy(model)
        shared = nn.Parameter(torch.ones(group.size, dtype=torch.float64))
        for layer in layers:
            gate = Gate(twin.get_submodule(layer))
            gate.c = shared
            parent, _, child = layer.rpartition(".")
            setattr(twin.get_submodule(parent), child, gate)
        value = mean_loss(twin, batches)
        (derivative,) = torch.autograd.grad(value, shared)
        ours = channel_elasticities(model, gradients, loss, {name: group})[name]
        torch.testing.assert_close(ours, (derivative / value).abs().detach(), rtol=1e-9, atol=1e-13)


def test_a_weights_elasticity_is_the_relative_change_of_the_loss(batches):
    """By central differences: (L(w (1 + h)) - L(w (1 - h))) / (2 h L)."""
    model = conv()
    names = [n for n, p in model.named_parameters() if p.dim() > 1]
    gradients, loss = loss_gradients(model, names, batches, F.cross_entropy)
    ours = weight_elasticities(model, gradients, loss)
    h = 1e-5
    for name, place in ((names[0], 7), (names[1], 100), (names[-1], 33)):
        weight = model.get_parameter(name)
        start = weight.detach().clone()
        values = []
        for factor in (1 + h, 1 - h):
            with torch.no_grad():
                weight.copy_(start).view(-1)[place] *= factor
                values.append(float(mean_loss(model, batches)))
                weight.copy_(start)
        change = abs(values[0] - values[1]) / (2 * h * abs(loss + 1e-8))
        assert math.isclose(float(ours[name].view(-1)[place]), change, rel_tol=1e-5, abs_tol=1e-10)


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


def test_grasp_is_weight_times_hessian_times_gradient():
    """On a network small enough for the full Hessian."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        x, y = torch.randn(12, 3).double(), torch.randint(3, (12,))
    names = ["0.weight", "2.weight"]
    sizes = [12, 12]

    def loss_of(flat):
        parts = dict(
            zip(names, [p.view(s) for p, s in zip(flat.split(sizes), [(4, 3), (3, 4)], strict=True)], strict=True)
        )
        return F.cross_entropy(torch.func.functional_call(model, parts, x) / 7.0, y)

    flat = torch.cat([model.get_parameter(n).detach().flatten() for n in names])
    hessian = torch.autograd.functional.hessian(loss_of, flat)
    gradient = torch.autograd.functional.jacobian(loss_of, flat)
    expected = flat * (hessian @ gradient)
    sites = find_sites(model, channels=False)
    from pruning_core.methods.base import View

    view = View(model, sites, Masks(), [(x, y)], F.cross_entropy, torch.Generator())
    ours = Grasp(temperature=7.0).score(view)
    torch.testing.assert_close(torch.cat([ours[n].flatten() for n in names]), expected, rtol=1e-9, atol=1e-14)
    turned = Grasp(temperature=7.0, reference=True).score(view)
    assert all(torch.equal(turned[n], -ours[n]) for n in names)


def test_grasp_keeps_more_gradient_than_its_opposite(batches):
    """What the score is for: to first order, the squared gradient norm after a small cut."""
    model = conv()

    def squared_norm(network):
        names = [n for n, p in network.named_parameters() if p.dim() > 1]
        gradients, _ = loss_gradients(network, names, batches, lambda out, y: F.cross_entropy(out / 200, y))
        return sum(float((g**2).sum()) for g in gradients.values())

    kept = {
        reference: pc.prune(model, Grasp(reference=reference), 0.02, batches=batches).model
        for reference in (False, True)
    }
    assert squared_norm(kept[False]) > squared_norm(kept[True])


def test_synflow_scores_are_conserved_from_layer_to_layer():
    """Without biases, the scores of each layer add up to the same flow (Tanaka et al. 2020, theorem 2)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Linear(5, 7, bias=False),
            nn.ReLU(),
            nn.Linear(7, 6, bias=False),
            nn.ReLU(),
            nn.Linear(6, 2, bias=False),
        ]
        model = nn.Sequential(*layers).double()
    from pruning_core.methods.base import View

    sites = find_sites(model, channels=False)
    twin = copy.deepcopy(model)
    view = View(twin, sites, Masks(), None, F.cross_entropy, torch.Generator(), torch.zeros(1, 5).double())
    sums = [float(score.sum()) for score in SynFlow().score(view).values()]
    assert max(sums) - min(sums) < 1e-9 * max(sums)
    product = torch.ones(5).double()
    for layer in (0, 2, 4):
        product = model[layer].weight.detach().abs() @ product
    assert math.isclose(sums[0], float(product.sum()), rel_tol=1e-12)


def test_synflow_never_cuts_the_network_in_two(batches):
    """At a sparsity where one-shot magnitude has no path left, SynFlow still has one from every... to some output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers: list[nn.Module] = [nn.Flatten()]
        for i, (a, b) in enumerate([(64, 40), (40, 40), (40, 40), (40, 10)]):
            layers += [nn.Linear(a, b, bias=False)] + ([nn.ReLU()] if i < 3 else [])
        model = nn.Sequential(*layers).double()
    sparsity = 1 - 30 / 6160

    def flow(result):
        x = torch.ones(64).double()
        for module in result.model:
            if isinstance(module, nn.Linear):
                x = module.weight.detach().abs() @ x
        return float(x.sum())

    example = batches[0][0][:1]
    assert flow(pc.prune(model, "synflow", sparsity, example_input=example)) > 0
    assert flow(pc.prune(model, "random", sparsity, example_input=example, seed=1)) == 0


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


REFUSED = [
    (lambda: Snip(batches=0), "whole number from 1"),
    (lambda: Snip(loss="mse"), "loss of the statistic"),
    (lambda: Snap(combine="median"), "combination"),
    (lambda: Grasp(temperature=0), "temperature"),
    (lambda: Grasp(chunk=0), "at least one sample"),
    (lambda: SynFlow(rounds=0), "rounds from 1"),
    (lambda: recipes.snip_it(0.9, 10, steps=0), "steps from 1"),
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


def test_the_outputs_of_a_network_are_not_channels_to_prune(batches):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
    with pytest.raises(Unprunable, match="outputs of the network"):
        pc.prune(model, "snap", 0.5, batches=batches)


def test_scope_cannot_make_outputs_prunable(batches):
    with pytest.raises(Unprunable, match="outputs of the network"):
        pc.prune(conv(), "snap", 0.5, batches=batches, scope=["9"])


def test_a_loss_that_is_not_finite_is_refused(batches):
    broken = [(torch.full_like(batches[0][0], math.nan), batches[0][1])]
    with pytest.raises(BadInput, match="no gradient to rank by"):
        pc.prune(conv(), "snip", 0.5, batches=broken)


def test_synflow_needs_no_data_but_a_shape(batches):
    with pytest.raises(BadInput, match="example_input"):
        pc.prune(conv(), "synflow", 0.5)
    a = pc.prune(conv(), "synflow", 0.5, example_input=batches[0][0][:1]).masks
    assert a == pc.prune(conv(), "synflow", 0.5, example_input=torch.zeros(2, 1, 8, 8).double()).masks


def test_a_second_cut_starts_from_what_is_alive(batches):
    model = conv()
    sites = find_sites(model, channels=True, example_input=batches[0][0][:1])
    first = prune_step(model, Cnip(), Budget(0.5), sites, Masks(), batches).masks
    second = prune_step(model, Cnip(), Budget(0.8), sites, first, batches).masks
    assert second <= first


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
    from pruning_core.methods import as_method

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


def test_synflow_goes_on_in_double_precision_where_the_flow_overflows():
    """Thirty layers whose weights add up to more than a float can hold."""
    layers: list[nn.Module] = []
    for _ in range(30):
        layers += [nn.Linear(20, 20, bias=False), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(20, 2, bias=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)
    before = [p.detach().clone() for p in model.parameters()]
    example = torch.ones(1, 20)
    masks = pc.prune(model, "synflow", 0.9, example_input=example).masks
    assert all(p.dtype == torch.float32 and torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert masks == pc.prune(copy.deepcopy(model).double(), "synflow", 0.9, example_input=example.double()).masks
