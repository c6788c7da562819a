"""Gates behind layers: they fold exactly, and their scores are elasticities."""

import copy
import math

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.experiments import recipes
from pruning_core.experiments.play import trained_only
from pruning_core.masks.masks import Masks
from pruning_core.methods.gates import GateDecorators
from pruning_core.methods.l0 import L0
from pruning_core.models.layers.gates import ChannelGate, Gated
from pruning_core.models.layers.protocol import to_plain
from pruning_core.training.trainer import Trainer
from tests.methods.penalised_networks import network


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


@pytest.mark.parametrize(
    ("method", "outputs", "groups"),
    [(L0(), 6, 1), (L0(), 9, 1), (GateDecorators(), 6, 1), (GateDecorators(), 9, 1), (GateDecorators(), 9, 3)],
    ids=str,
)
def test_gates_behind_transposed_convolutions_fold_exactly(method, outputs, groups):
    """Their weights store inputs first: with as many outputs a fold along the wrong dimension would go unnoticed. In groups
    one slice of the weight makes a channel of each."""
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(6, outputs, 3, padding=1, groups=groups), nn.ReLU(),
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
            only=trained_only(tock, model),
        )
        trainer.train_epoch(digits)
        sizes.append(torch.cat(gates).abs().sum().item())
    # Four steps of 0.01 against the sign of each of 14 gates, beside what the loss itself does.
    assert sizes[1] < sizes[0] - 0.2


def test_gate_scores_are_the_elasticities_of_the_gates(batches):
    model = GateDecorators().prepare(network(), batches[0][0][:1])
    generator = torch.Generator().manual_seed(
        0
    )  # of some draws, one layer would keep its best channel only because it must
    for module in model.modules():
        if isinstance(module, ChannelGate):
            nn.init.uniform_(module.weight, 0.2, 2, generator=generator)
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
