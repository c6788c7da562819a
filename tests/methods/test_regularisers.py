"""Penalties, gates and norms of chapter 4: closed forms, gradients, and what they must leave alone."""

import copy
import itertools
import math

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core import recipes
from pruning_core.budgets import Budget
from pruning_core.errors import BadInput
from pruning_core.errors import PruningError
from pruning_core.errors import Unprunable
from pruning_core.layers import ChannelGate
from pruning_core.layers import Gated
from pruning_core.layers import HardConcreteGate
from pruning_core.layers import to_plain
from pruning_core.masks import Masks
from pruning_core.methods import as_method
from pruning_core.methods.efficient_convnets import EfficientConvNets
from pruning_core.methods.gates import GateDecorators
from pruning_core.methods.hoyer import GroupHoyerSquare
from pruning_core.methods.hoyer import HoyerSquare
from pruning_core.methods.l0 import L0
from pruning_core.methods.l1 import L1
from pruning_core.methods.l1 import Lp
from pruning_core.schedules import fraction_after
from pruning_core.schedules import tick_tock_rounds
from pruning_core.timeline import _only
from pruning_core.trainer import Trainer

PENALTIES = [HoyerSquare(), GroupHoyerSquare(), L1(), L1(over="weights"), Lp(), Lp(p=0.5, over="weights")]


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10),
        ).double()  # fmt: skip


@pytest.fixture(scope="module")
def batches():
    return list(pc.load_data("digits", dtype=torch.float64).score.subset(60).batches(20))


@pytest.mark.parametrize(
    ("values", "expected"), [([5.0, 0, 0, 0], 1), ([1.0, -1, 1, -1], 4), ([2.0, 2, 0, 0], 2), ([0.0] * 4, 0)]
)
def test_hoyer_square_counts_equal_weights(values, expected):
    layer = nn.Linear(2, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values).view(2, 2))
    assert HoyerSquare().penalty(layer, Masks()).item() == pytest.approx(expected)
    scaled = copy.deepcopy(layer)
    with torch.no_grad():
        scaled.weight.mul_(7)
    assert HoyerSquare().penalty(scaled, Masks()).item() == pytest.approx(expected)


def test_group_hoyer_counts_equal_rows_and_columns():
    layer = nn.Linear(3, 2, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1, 1], [1, 1, 1]]))
    # Three columns of norm sqrt(2), two rows of norm sqrt(3), squared norm 6.
    assert GroupHoyerSquare().penalty(layer, Masks()).item() == pytest.approx(
        (3 * 2**0.5) ** 2 / 6 + (2 * 3**0.5) ** 2 / 6
    )


@pytest.mark.parametrize("method", PENALTIES, ids=repr)
def test_gradients_are_those_of_finite_differences(method):
    model = network()
    method.penalty(model, Masks()).backward()
    for name, place in (("0.weight", 5), ("8.weight", 77)):
        weight = model.get_parameter(name)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight.view(-1)[place] += step
                values.append(method.penalty(model, Masks()).item())
                weight.view(-1)[place] -= step
        assert weight.grad.view(-1)[place].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4)


@pytest.mark.parametrize("method", PENALTIES, ids=repr)
def test_dead_weights_contribute_nothing(method):
    model = network()
    masks = pc.prune(model, "magnitude", 0.6).masks
    masks.apply_(model)
    method.penalty(model, masks).backward()
    for name, mask in masks.items():
        gradient = model.get_parameter(name).grad
        assert torch.isfinite(gradient).all()
        assert torch.count_nonzero(gradient[~mask]) == 0
    small = nn.Linear(4, 1, bias=False).double()
    dead = Masks({"weight": torch.tensor([[True, True, False, False]])})
    with torch.no_grad():
        small.weight.copy_(torch.tensor([[1.0, 2, 0, 0]]))
    alone = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        alone.weight.copy_(torch.tensor([[1.0, 2]]))
    assert method.penalty(small, dead).item() == pytest.approx(method.penalty(alone, Masks()).item(), rel=1e-6)


def test_an_empty_layer_has_a_finite_penalty_and_gradient():
    layer = nn.Linear(3, 3, bias=False).double()
    nn.init.zeros_(layer.weight)
    for method in (HoyerSquare(), GroupHoyerSquare()):
        layer.zero_grad()
        method.penalty(layer, Masks()).backward()
        assert torch.isfinite(layer.weight.grad).all()


@pytest.mark.parametrize("kind", ["batch norm", "no norm"])
def test_gates_leave_the_network_as_it_is_and_fold_exactly(kind, batches):
    model = (
        network()
        if kind == "batch norm"
        else nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10)).double()
    )
    model.eval()
    x = batches[0][0]
    before = model(x)
    gated = GateDecorators().prepare(copy.deepcopy(model), x[:1]).eval()
    assert torch.equal(gated(x), before)
    gates = [module for module in gated.modules() if isinstance(module, ChannelGate)]
    assert len(gates) == (2 if kind == "batch norm" else 1)
    for gate in gates:
        nn.init.normal_(gate.weight)
    after = gated(x)
    assert not torch.allclose(after, before)
    plain = to_plain(copy.deepcopy(gated))
    assert not any(isinstance(module, Gated) for module in plain.modules())
    torch.testing.assert_close(plain(x), after, rtol=1e-12, atol=1e-12)
    assert len(GateDecorators().prepare(gated, x[:1]).state_dict()) == len(
        gated.state_dict()
    )  # a second time does nothing


@pytest.mark.parametrize("method", [L0(), GateDecorators()], ids=lambda m: m.name)
@pytest.mark.parametrize("outputs", [6, 9])
def test_gates_behind_transposed_convolutions_fold_exactly(method, outputs):
    """Their weights store inputs first: with as many outputs a fold along the wrong dimension would go unnoticed."""
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(6, outputs, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(outputs * 64, 10),
    ).double()  # fmt: skip
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    gated = method.prepare(model, x[:1]).eval()
    assert isinstance(gated[2], Gated)
    for module in gated.modules():
        if isinstance(module, Gated):
            nn.init.normal_(next(module.gate.parameters()))
    after = gated(x)
    assert math.isfinite(method.penalty(gated, Masks()).item())
    torch.testing.assert_close(to_plain(copy.deepcopy(gated))(x), after, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outputs", [6, 9])
def test_l0_counts_the_weights_of_a_transposed_convolution_by_output(outputs):
    weight = torch.randn(6, outputs, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    layer = nn.ConvTranspose2d(6, outputs, 3, bias=False).double()
    gate = HardConcreteGate(outputs).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        gate.log_alpha.copy_(torch.linspace(-2, 2, outputs))
    each = 6 * 9 + 0.25 * (weight**2).sum((0, 2, 3))
    expected = (gate.open_probability() * each).sum().item()
    assert L0(weight_decay=0.5).penalty(nn.Sequential(Gated(layer, gate)), Masks()).item() == pytest.approx(expected)


def test_tocks_pull_the_gates_towards_zero():
    """A penalty on frozen gates does nothing: what the tocks of the recipe train must contain them."""
    digits = pc.load_data("digits").train.subset(256)
    tock = next(s for s in recipes.tick_tock(0.3, 1, 1, ticks=2, tocks=1) if isinstance(s, pc.Train) and s.penalty)
    sizes = []
    for strength in (0.0, 1.0):
        model = GateDecorators().prepare(network().float(), digits.inputs[:1])
        gates = [module.weight for module in model.modules() if isinstance(module, ChannelGate)]
        trainer = Trainer(
            model,
            pc.Optimizer("sgd", 0.01),
            epochs=1,
            batch_size=64,
            penalty=lambda net, s=strength: s * GateDecorators().penalty(net, Masks()),
            only=_only(tock, model),
        )
        trainer.train_epoch(digits)
        sizes.append(torch.cat(gates).abs().sum().item())
    # Four steps of 0.01 against the sign of each of 14 gates, beside what the loss itself does.
    assert sizes[1] < sizes[0] - 0.2


def test_gate_scores_are_the_elasticities_of_the_gates(batches):
    model = GateDecorators().prepare(network(), batches[0][0][:1])
    for module in model.modules():
        if isinstance(module, ChannelGate):
            nn.init.uniform_(module.weight, 0.2, 2)
    result = pc.prune(model, GateDecorators(), 0.5, batches=batches)
    model.eval()
    loss = torch.stack([nn.functional.cross_entropy(model(x), y) for x, y in batches]).mean()
    scores = [
        (m.weight * torch.autograd.grad(loss, m.weight, retain_graph=True)[0]).abs()
        for m in model.modules()
        if isinstance(m, ChannelGate)
    ]
    kept = torch.cat(
        [
            torch.as_tensor(result.masks[n])
            for n in ("1.gate.weight", "4.gate.weight", "5.gate.weight")
            if n in result.masks
        ]
    )
    order = torch.cat(scores).argsort(descending=True)[: len(kept) // 2]
    assert set(order.tolist()) == set(kept.nonzero().flatten().tolist())


def test_methods_without_their_layers_say_so():
    with pytest.raises(Unprunable, match="no gates"):
        GateDecorators().penalty(network(), Masks())
    with pytest.raises(Unprunable, match="no gate of their own"):
        pc.prune(network(), L0(), 0.5, example_input=torch.zeros(1, 1, 8, 8).double())
    with pytest.raises(Unprunable, match="no weight matrix"):
        HoyerSquare().penalty(nn.BatchNorm1d(3), Masks())
    for method in (L1(over="weights"), Lp(over="weights")):
        with pytest.raises(Unprunable, match="no weight matrix"):
            method.penalty(nn.BatchNorm1d(3), Masks())
    with pytest.raises(Unprunable, match="no parameter"):
        L1().penalty(nn.ReLU(), Masks())


def test_greedy_gives_no_credit_for_inputs_that_are_cut():
    model = nn.Sequential(
        nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[5.0, 5], [1, 1]]))  # the second unit goes
        model[2].weight.copy_(
            torch.tensor([[1.0, 9], [2, 1]])
        )  # by all inputs the first stays, without the second input the other
    example = torch.zeros(1, 2)
    for greedy, kept in ((False, 0), (True, 1)):
        masks = pc.prune(model, EfficientConvNets(greedy=greedy), 0.5, across="layer", example_input=example).masks
        assert masks["2.weight"].any(1).nonzero().flatten().tolist() == [kept]


def test_tick_tock_targets_rise_by_a_twentieth():
    for target in (0.3, 0.5, 0.98, 0.06, 0.005):
        n = tick_tock_rounds(target)
        targets = [fraction_after("tick_tock", i, n, target) for i in range(1, n + 1)]
        assert targets[-1] == target
        assert all(b - a < 0.05 + 1e-9 for a, b in itertools.pairwise(targets))
        assert n == 1 or targets[-2] < target


def test_recipes_with_penalties_reach_what_they_promise(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))
    options = {"optimizer": pc.Optimizer("adam", 2e-3), "batch_size": 128}

    def last(timeline, model="mlp5_snip"):
        return pc.run(pc.Experiment(model, "digits", timeline, width=0.1, **options), progress=False)[-1]

    row = last(recipes.tick_tock(0.6, epochs=3, fine_tune=2, ticks=10, tocks=1))
    assert row["channels_removed"] == pytest.approx(0.6, abs=0.01)
    assert row["accuracy"] > 50
    weak, strong = (last(recipes.hoyer_square(s, 8, 1)) for s in (1e-4, 1e-1))
    assert strong["sparsity"] > weak["sparsity"]
    groups = last(recipes.group_hoyer_square(1e-2, 8, 1))
    assert groups["method"] == "group_hoyer_square"
    row = last(recipes.efficient_convnets(0.5, 3, 1))
    assert row["channels_removed"] == pytest.approx(0.5, abs=0.02)
    both = [pc.Train(2, penalty=(("l1", 1e-4), ("lp", 1e-9)))]
    assert math.isfinite(last(both)["accuracy"])


def test_l0_weight_decay_adds_the_squares_of_what_is_in_use():
    model = L0().prepare(
        nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double(), torch.zeros(1, 4).double()
    )
    gate = model[0].gate
    plain, decayed = (L0(weight_decay=d).penalty(model, Masks()) for d in (0.0, 0.5))
    layer = model[0].layer
    squares = (layer.weight**2).sum(1) + layer.bias**2
    assert (decayed - plain).item() == pytest.approx((0.25 * gate.open_probability() * squares).sum().item())


def test_below_cuts_what_became_small(batches):
    model = network()
    with torch.no_grad():
        model[0].weight[2] = 1e-4
        model[8].weight[:, :5] = -1e-4
    result = pc.pruning.prune_step(
        model, HoyerSquare(), Budget(below=1e-3), pc.sites.find_sites(model, channels=False), Masks()
    )
    assert (~result.masks["0.weight"][2]).all() and (~result.masks["8.weight"][:, :5]).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: L1(over="some"), "part of the parameters"),
        (lambda: Lp(p=0), "exponent"),
        (lambda: GroupHoyerSquare(combine="x"), "combination"),
        (lambda: EfficientConvNets(combine="x"), "combination"),
        (lambda: GateDecorators(combine="x"), "combination"),
        (lambda: L0(open_probability=1.0), "probability that a gate is open"),
        (lambda: L0(weight_decay=-1.0), "weight decay of L0"),
        (lambda: recipes.tick_tock(0.5, 1, 1, ticks=0), "whole number of ticks"),
        (lambda: recipes.tick_tock(0.5, 1, 1, ticks=-1), "whole number of ticks"),
        (lambda: pc.Train(2, only="norms"), "part to train"),
        (lambda: pc.Train(2, average=1.0), "moving average"),
        (lambda: pc.Train(2, average=0.9, keep="best_validation"), "not with both"),
        (lambda: pc.Train(2, penalty=(("magnitude", 1.0),)).penalty[0][0].penalty(network(), Masks()), "no penalty"),
        (lambda: as_method("hoyer"), "unknown method"),
    ],
)
def test_bad_arguments_are_refused(make, words):
    with pytest.raises(PruningError, match=words) as caught:
        make()
    assert isinstance(caught.value, (BadInput, PruningError))
