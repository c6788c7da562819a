"""Low rank: the best products of matrices, with the parameters asked for."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from pruning_core.errors import BadInput, Unprunable
from pruning_core.papers.sipp_pfp.low_rank import low_rank
from tests.methods.sampled_networks import seeded

LOW_RANK = {
    "perceptron": lambda: nn.Sequential(nn.Linear(30, 24), nn.ReLU(), nn.Linear(24, 20, bias=False)),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 12, 3, dilation=2, padding="same", bias=False),
        nn.Conv2d(12, 12, 3, padding=1, padding_mode="reflect"), nn.Conv2d(12, 12, 3, groups=12), nn.Flatten(),
    ),
}  # fmt: skip


SHAPES = {"perceptron": (4, 30), "convolutions": (4, 3, 10, 10)}


def of_rank(model: nn.Module, rank: int) -> nn.Module:
    """The same network with weights of that rank at most, made by a product."""
    with torch.no_grad():
        for i, module in enumerate(model.modules()):
            if isinstance(module, nn.Linear | nn.Conv2d):
                rows = module.weight.flatten(1)
                left = torch.randn(len(rows), rank, generator=seeded(i))
                right = torch.randn(rank, rows.shape[1], generator=seeded(i + 100))
                module.weight.copy_((left @ right / rows.shape[1] ** 0.5).view_as(module.weight))
    return model


@pytest.mark.parametrize("kind", LOW_RANK)
def test_a_rank_that_is_enough_changes_no_output(kind):
    model = of_rank(LOW_RANK[kind](), 3)
    x = torch.randn(SHAPES[kind], generator=seeded(2))
    small, ranks = low_rank(model, 0.4)
    assert ranks and min(ranks.values()) >= 3
    with torch.no_grad():
        dense, again = model(x), small(x)
    assert (dense - again).abs().max() <= 1e-5 * max(1.0, float(dense.abs().max()))
    # With a rank that is not enough, the outputs are others.
    tiny, ranks = low_rank(model, 0.95)
    assert min(ranks.values()) < 3
    with torch.no_grad():
        assert (tiny(x) - dense).abs().max() > 1e-2 * dense.abs().max()


@pytest.mark.parametrize("kind", LOW_RANK)
@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.75])
def test_low_rank_has_the_parameters_asked_for_and_the_best_products(kind, sparsity):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LOW_RANK[kind]()
    before = copy.deepcopy(model.state_dict())
    small, ranks = low_rank(model, sparsity)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        weight = module.weight.detach()
        new = small.get_submodule(name)
        if name not in ranks:
            assert torch.equal(new.weight, weight)
            continue
        assert len(new) == 2
        size = sum(part.weight.numel() for part in new)
        each = weight.shape[0] + weight[0].numel()
        assert ranks[name] == 1 or size <= (1 - sparsity) * weight.numel()
        assert size + each > (1 - sparsity) * weight.numel()  # one more would be too many
        product = (new[1].weight.flatten(1) @ new[0].weight.flatten(1)).detach().double().numpy()
        lost = np.linalg.norm(product - weight.flatten(1).double().numpy())
        sizes = np.linalg.svd(weight.flatten(1).double().numpy(), compute_uv=False)
        np.testing.assert_allclose(lost, np.linalg.norm(sizes[ranks[name] :]), rtol=1e-4, atol=1e-6)
        assert (new[0].bias is None) and ((new[1].bias is None) == (module.bias is None))
    with torch.no_grad():
        x = torch.randn(SHAPES[kind], generator=seeded(2))
        assert small(x).shape == model(x).shape
    total = sum(p.numel() for p in small.parameters())
    assert total < sum(p.numel() for p in model.parameters())


def test_low_rank_refuses():
    model = LOW_RANK["perceptron"]()
    for sparsity in (1.0, -0.1, math.nan):
        with pytest.raises(BadInput, match="sparsity must lie in"):
            low_rank(model, sparsity)
    with pytest.raises(Unprunable, match="Sequential has no layer that a lower rank would make smaller"):
        low_rank(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()), 0.5)
    with pytest.raises(Unprunable, match="no layer that a lower rank"):
        low_rank(nn.Sequential(nn.Linear(2, 2), nn.Conv2d(4, 4, 3, groups=4)), 0.5)
