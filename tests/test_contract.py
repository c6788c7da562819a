"""What every registered method must hold, whatever it computes."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BudgetError, PruningError
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import METHODS, as_method, counted
from pruning_core.methods.shrinking import shrunk
from pruning_core.models.layers.protocol import to_plain
from pruning_core.models.zoo.initialisers import STARTS
from pruning_core.models.zoo.resnet import ResNet
from pruning_core.pruning import prune_step
from pruning_core.training.optimizers import Optimizer
from pruning_core.training.trainer import Trainer

SPARSITIES = (0.0, 0.3, 0.8)


class Residual(nn.Module):
    """A stem, a residual block with batch norm, a strided depthwise-separable block, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv1, self.norm1 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.norm2 = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))
        return self.head(F.relu(self.pointwise(F.relu(self.depthwise(x)))).mean((2, 3)))


NETWORKS = {
    "mlp": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10)
    ),
    "vgg": lambda: nn.Sequential(
        # No bias before batch norm: its gradient is rounding noise, which Adam would blow up to whole steps.
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(192, 10),
    ),
    "residual": Residual,
    # resnet20 with one block a stage
    "option a": lambda: ResNet((1, 8, 8), 10, 0.5, "batch", channels=[16, 32, 64], blocks=[1, 1, 1]),
}  # fmt: skip


def network(kind: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = NETWORKS[kind]()
        if kind == "option a":
            STARTS["he"](model)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.5)
                nn.init.normal_(module.running_mean, std=0.5)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@pytest.fixture(scope="module")
def batches():
    digits = pc.load_data("digits")
    return list(digits.score.subset(64).batches(32))


def ready(kind: str, method: str, batches) -> nn.Module:
    """The network with the layers that the method swaps in before training, in double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = as_method(method).prepare(network(kind), batches[0][0][:1])
        for name, parameter in model.named_parameters():
            if name.endswith("log_alpha"):
                nn.init.normal_(parameter, std=2)
    return model.double().train()


def without_gates(masks, plain: nn.Module) -> Masks:
    """The masks of a network whose gates were folded into the layers before them."""
    names = dict(plain.named_parameters())
    return Masks({n: mask for name, mask in masks.items() if (n := name.replace(".layer.", ".")) in names})


def doubled(batches):
    return [(inputs.double(), labels) for inputs, labels in batches]


CASES = [(method, kind) for method in sorted(METHODS) for kind in NETWORKS]
CHANNELS = [(m, k) for m, k in CASES if METHODS[m].unit == "channel"]


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_scoring_changes_nothing(method, kind, batches):
    model, given = ready(kind, method, batches), doubled(batches)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    [module for module in model.modules() if not list(module.children())][1].eval()
    next(model.parameters()).requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    pc.prune(model, method, 0.5, batches=given)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    assert all(torch.equal(p.grad, torch.full_like(p, 0.25)) for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()


@pytest.mark.parametrize(("method", "kind"), CASES)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_the_budget_is_met_exactly(method, kind, sparsity, batches):
    model = ready(kind, method, batches)
    result = pc.prune(model, method, sparsity, batches=doubled(batches))
    of = counted(as_method(method))
    removed, total = result.report.removed[of]
    assert abs(removed - sparsity * total) <= 0.5 + 1e-6
    for name, mask in result.masks.items():
        assert torch.count_nonzero(result.model.get_parameter(name)[~mask]) == 0
    if not sparsity and method != "sipp_random":  # sampling re-weights even what it keeps
        assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize(("method", "kind"), CHANNELS)
def test_numbers_of_channels_are_rounded_up_in_every_round(method, kind, batches):
    model = ready(kind, method, batches)
    result = pc.prune(model, method, 0.5, of="channels", round_to=4, rounds=2, batches=doubled(batches))
    exact = pc.prune(model, method, 0.5, of="channels", rounds=2, batches=doubled(batches))
    left = {name: (int(group.alive(result.masks).sum()), group.size) for name, group in result.sites.groups.items()}
    assert all(count % 4 == 0 for count, _ in left.values())
    assert any(count < size for count, size in left.values())
    assert 0 <= exact.report.removed["channels"][0] - result.report.removed["channels"][0] <= 3 * len(left)
    assert "multiples of 4" in str(result.report)


@pytest.mark.parametrize(("method", "kind"), CASES)
@pytest.mark.parametrize("sparsity", [0.97, 0.9999])
def test_layers_may_be_emptied_where_the_budget_says_so(method, kind, sparsity, batches):
    kept = METHODS[method].spreads
    across = "global" if kept == "itself" else "layer"
    budget = pc.Budget(sparsity, of=counted(as_method(method)), across=across, keep_at_least=0)
    try:
        result = pc.prune(ready(kind, method, batches), method, budget, batches=doubled(batches))
    except BudgetError:
        assert kind == "mlp"  # in a chain, the channels that an emptied layer read are dead as well
        return
    removed, total = result.report.removed[budget.of]
    assert abs(removed - sparsity * total) <= 0.5 + 1e-6
    assert all(bool(torch.isfinite(parameter).all()) for parameter in result.model.parameters())


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_the_same_seed_gives_the_same_bits(method, kind, batches):
    model = ready(kind, method, batches)
    first, again = (pc.prune(model, method, 0.5, batches=doubled(batches), seed=7) for _ in range(2))
    assert first.masks == again.masks
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True))
    if "random" in method:
        assert pc.prune(model, method, 0.5, batches=doubled(batches), seed=8).masks != first.masks


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_layout_in_memory_decides_nothing(method, batches):
    model = ready("residual", method, batches)
    given = doubled(batches)
    plain = pc.prune(model, method, 0.5, batches=given)
    model.to(memory_format=torch.channels_last)
    assert not all(parameter.is_contiguous() for parameter in model.parameters())
    last = pc.prune(model, method, 0.5, batches=given)
    assert last.masks == plain.masks
    if last.sites.groups:
        torch.testing.assert_close(last.shrink()(given[0][0]), plain.shrink()(given[0][0]), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_pruned_weights_stay_zero_in_training(method, kind, batches):
    digits = pc.load_data("digits")
    pruned = pc.prune(ready(kind, method, batches).float(), method, 0.5, batches=batches)
    for settings in (Optimizer("sgd", 0.05, weight_decay=1e-2), Optimizer("adam", 0.01, weight_decay=1e-2)):
        model = copy.deepcopy(pruned.model)
        trainer = Trainer(model, settings, epochs=1, batch_size=32, masks=pruned.masks)
        trainer.train_epoch(digits.train.subset(256))
        for name, mask in pruned.masks.items():
            assert torch.count_nonzero(model.get_parameter(name)[~mask]) == 0, (settings.name, name)
        assert any(not torch.equal(pruned.model.get_parameter(name), p) for name, p in model.named_parameters())


@pytest.mark.parametrize(("method", "kind"), CHANNELS)
@pytest.mark.parametrize("settings", [Optimizer("sgd", 0.05, weight_decay=1e-3, clip=1.0), Optimizer("adam", 0.01)])
def test_masked_and_smaller_network_agree_also_in_training(method, kind, settings, batches):
    given = doubled(batches)
    model = ready(kind, method, batches)
    result = pc.prune(model, method, 0.5, batches=given)
    x = given[0][0]
    masked = result.model
    small, kept = shrunk(masked, result.masks, result.sites, result.example_input)
    before = [net(x).detach() for net in (model.eval(), masked.eval(), small.eval())]
    assert (before[0] - before[1]).abs().max() > 1e-6  # removing half of it must have changed something
    assert (before[1] - before[2]).abs().max() < 1e-10
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in masked.parameters())
    masks, kept_masks = result.masks, kept.masks(result.masks)
    if method == "l0":  # its gates draw one number a channel, and the smaller network has fewer: train without them
        masked, small = to_plain(masked), to_plain(small)
        masks, kept_masks = without_gates(masks, masked), without_gates(kept_masks, small)
    large = Trainer(masked, settings, epochs=1, batch_size=8, masks=masks)
    little = Trainer(small, settings, epochs=1, batch_size=8, masks=kept_masks)
    data = pc.load_data("digits", dtype=torch.float64).train.subset(160)
    # A pixel that never changes is one more bias in front of batch norm: none may be constant.
    noise = torch.randn(data.inputs.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    data = Split(data.inputs + 0.1 * noise, data.labels)
    for trainer in (large, little):
        trainer.train_epoch(data)
    after = [net(x).detach() for net in (masked.eval(), small.eval())]
    assert (after[0] - before[1]).abs().max() > 1e-3
    assert (after[0] - after[1]).abs().max() < 1e-10


@pytest.mark.parametrize(("method", "kind"), CHANNELS)
def test_the_smaller_network_is_plain_and_can_be_saved(method, kind, batches, tmp_path, monkeypatch):
    given = doubled(batches)
    model = ready(kind, method, batches)
    result = pc.prune(model, method, 0.5, batches=given)
    small = result.shrink().eval()
    assert not any(hasattr(module, "to_plain") or hasattr(module, "project_") for module in small.modules())
    result.save(tmp_path / "small.safetensors")
    for reader in ("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler"):
        monkeypatch.setattr(reader, lambda *_, **__: pytest.fail("something was unpickled"))
    loaded = pc.load_pruned(tmp_path / "small.safetensors", model=model)
    x = given[0][0]
    assert torch.equal(loaded(x), small(x))
    assert (loaded(x) - result.model.eval()(x)).abs().max() < 1e-10


@pytest.mark.parametrize(("method", "kind"), CASES)
def test_dead_weights_stay_out_of_the_contest(method, kind, batches):
    """A second, harder cut is a subset of the first, also where dead weights would score highest."""
    model, given = ready(kind, method, batches), doubled(batches)
    chosen = as_method(method)
    of = counted(chosen)
    sites = find_sites(model, channels=chosen.unit == "channel", example_input=given[0][0][:1], refuses=chosen.refuses)
    first = prune_step(model, chosen, Budget(0.3, of=of), sites, Masks(), given).masks
    second = prune_step(model, chosen, Budget(0.6, of=of), sites, first, given).masks
    assert second <= first
    assert second != first


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].needs in ("inputs", "labels")])
def test_a_method_that_needs_data_is_refused_without(method):
    with pytest.raises(BadInput, match="needs batches"):
        pc.prune(network("mlp"), method, 0.5)
    with pytest.raises(BadInput, match="empty"):
        pc.prune(network("mlp"), method, 0.5, batches=[])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan"), "0.5", 80, None])
def test_bad_sparsities_are_refused_before_any_work(method, sparsity):
    def untouched():
        pytest.fail("a batch was taken although the sparsity is wrong")
        yield

    with pytest.raises(PruningError, match="sparsity must"):
        pc.prune(network("mlp"), method, sparsity, batches=untouched())


@pytest.mark.parametrize("method", METHODS)
def test_broken_weights_are_refused(method, batches):
    model = ready("vgg", method, batches).float()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        next(twin.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(BadInput, match="NaN"):
        pc.prune(twin, method, 0.5, batches=batches)
