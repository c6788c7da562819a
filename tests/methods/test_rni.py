"""RNI: the sigmoid batch norm against slow oracles, the penalty, the method, and why |g| must not rank."""

import copy
import math

import numpy as np
import pytest
import torch
import torch_pruning
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, BadType, Unprunable
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.rni import RecedingNeurons, receding
from pruning_core.models.layers.norms import (
    ClampedBatchNorm1d,
    ClampedBatchNorm2d,
    SigmoidBatchNorm1d,
    SigmoidBatchNorm2d,
)
from pruning_core.models.layers.protocol import to_plain
from pruning_core.pruning import prune_step
from pruning_core.training.optimizers import Optimizer


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def sigmoid_norm(channels=5, seed=0, **options) -> SigmoidBatchNorm2d:
    norm = SigmoidBatchNorm2d(channels, **options).double()
    norm.weight.data.copy_(2 * normal(channels, seed=seed))
    return norm


# --- the layer


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, None])
@pytest.mark.parametrize("tracked", [True, False])
def test_the_layer_does_what_its_formulas_say(momentum, tracked):
    norm = sigmoid_norm(momentum=momentum, eps=1e-3, track_running_stats=tracked)
    scale = 1 / (1 + np.exp(-norm.weight.detach().numpy()))
    mean, variance = np.zeros(5), np.ones(5)
    for step in range(1, 4):
        x = normal(4, 5, 3, 2, seed=step) * 3 + 1
        values = x.numpy().transpose(1, 0, 2, 3).reshape(5, -1)
        expected = (values - values.mean(1)[:, None]) / np.sqrt(values.var(1)[:, None] + 1e-3) * scale[:, None]
        y = norm(x).detach().numpy().transpose(1, 0, 2, 3).reshape(5, -1)
        np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)
        share = 1 / step if momentum is None else momentum
        mean = (1 - share) * mean + share * values.mean(1)
        variance = (1 - share) * variance + share * values.var(1, ddof=1)
    norm.eval()
    x = normal(2, 5, 3, 3, seed=9)
    if not tracked:
        assert norm.running_mean is None
        mean, variance = x.mean((0, 2, 3)).numpy(), x.var((0, 2, 3), correction=0).numpy()
    else:
        assert int(norm.num_batches_tracked) == 3
    expected = (x.numpy() - mean[:, None, None]) / np.sqrt(variance + 1e-3)[:, None, None] * scale[:, None, None]
    for layer in (norm, norm.to_plain()):
        np.testing.assert_allclose(layer(x).detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_statistics_that_are_no_longer_tracked_stay_as_they_are(training):
    """Switched off after construction, as in torch: used in evaluation, left alone in training."""
    norm = sigmoid_norm().train(training)
    plain = norm.to_plain()
    x = normal(4, 5, 3, 2, seed=1) * 3 + 1
    for layer in (norm, plain):
        layer.track_running_stats = False
        layer(x)
    torch.testing.assert_close(norm(x), plain(x))
    assert torch.equal(norm.running_mean, torch.zeros(5, dtype=torch.float64))
    assert int(norm.num_batches_tracked) == 0


def test_the_gradient_of_g_carries_both_poles():
    norm, x, upstream = sigmoid_norm(), normal(4, 5, 3, 2, seed=1), normal(4, 5, 3, 2, seed=2)
    (norm(x) * upstream).sum().backward()
    s = torch.sigmoid(norm.weight.detach())
    normalised = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(norm.weight.grad, s * (1 - s) * (upstream * normalised).sum((0, 2, 3)))


def test_far_scales_stay_finite_in_single_precision():
    norm = SigmoidBatchNorm2d(4)
    norm.weight.data.copy_(torch.tensor([-1e4, -95.0, 95.0, 1e4]))
    y = norm(normal(8, 4, 3, 3, dtype=torch.float32))
    y.square().sum().backward()
    assert torch.isfinite(y).all()
    assert torch.isfinite(norm.weight.grad).all()
    assert not y[:, 0].any()


def test_the_layer_follows_the_package_rules_of_training():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), SigmoidBatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))
    groups = Optimizer("sgd", 0.1, weight_decay=1e-4).build(model).param_groups
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found[id(model[1].weight)] == (1.0, 0.0)
    assert found[id(model[0].weight)] == (0.1, 1e-4)
    assert [name for name, _ in model[1].named_parameters()] == ["weight"]
    assert [*model[1].state_dict()] == ["weight", "running_mean", "running_var", "num_batches_tracked"]
    assert "scale sigmoid(weight), no shift" in repr(model)
    assert "track_running_stats=True" in repr(model)


def plain_norm(channels=6, kind=nn.BatchNorm2d, **options):
    norm = kind(channels, eps=2e-4, momentum=0.3, **options).double()
    norm.weight.data.copy_(torch.rand(channels, generator=generator(), dtype=torch.float64) * 0.98 + 0.01)
    if norm.running_mean is not None:
        norm.running_mean.copy_(normal(channels, seed=3))
        norm.running_var.copy_(normal(channels, seed=4).square() + 0.1)
        norm.num_batches_tracked.fill_(7)
    return norm.eval()


@pytest.mark.parametrize(
    ("kind", "plain"), [(SigmoidBatchNorm2d, nn.BatchNorm2d), (SigmoidBatchNorm1d, nn.BatchNorm1d)]
)
@pytest.mark.parametrize("tracked", [True, False])
def test_conversion_there_and_back(kind, plain, tracked):
    norm = plain_norm(kind=plain, track_running_stats=tracked)
    norm.weight.requires_grad_(False)
    state = torch.get_rng_state()
    converted = kind.from_plain(norm)
    assert torch.equal(torch.get_rng_state(), state)
    x = normal(3, 6, 2, 2) if plain is nn.BatchNorm2d else normal(3, 6)
    torch.testing.assert_close(converted(x), norm(x), rtol=1e-12, atol=1e-12)
    assert (converted.eps, converted.momentum, converted.training) == (2e-4, 0.3, False)
    assert not converted.weight.requires_grad
    back = converted.to_plain()
    assert type(back) is plain
    assert not back.weight.requires_grad
    assert not back.training
    assert back.weight.dtype == torch.float64
    for name, tensor in norm.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], tensor, rtol=1e-12, atol=1e-14)
    assert to_plain(kind.from_plain(norm.train())).training


@pytest.mark.parametrize("scale", [0.0, 1.0, -0.3, 1.5])
def test_what_a_sigmoid_cannot_reach_is_refused(scale):
    norm = plain_norm()
    norm.weight.data[2] = scale
    with pytest.raises(BadInput, match=r"scales run from .* reaches \(0, 1\)"):
        SigmoidBatchNorm2d.from_plain(norm)
    near = SigmoidBatchNorm2d.from_plain(norm, nearest=True)
    assert torch.isfinite(near.weight).all()
    assert float(near.importance[2].detach()) == pytest.approx(min(max(scale, 0), 1), abs=1e-12)


def test_a_shift_is_refused_or_dropped():
    norm = plain_norm()
    norm.bias.data[1] = 0.1
    with pytest.raises(BadInput, match="no shift"):
        SigmoidBatchNorm2d.from_plain(norm)
    assert SigmoidBatchNorm2d.from_plain(norm, nearest=True).bias is None


@pytest.mark.parametrize("kind", [SigmoidBatchNorm2d, ClampedBatchNorm2d])
def test_conversions_refuse_other_layers(kind):
    for layer in (nn.BatchNorm1d(3), nn.Conv2d(1, 1, 1), SigmoidBatchNorm2d(3), ClampedBatchNorm2d(3)):
        with pytest.raises(BadType, match=r"is made from BatchNorm2d, not from"):
            kind.from_plain(layer)
    with pytest.raises(BadInput, match="affine=False"):
        kind.from_plain(nn.BatchNorm2d(3, affine=False))


def test_exported_networks_are_plain():
    model = pc.build_model("cnn5", ((3, 8, 8), 4), norm="sigmoid", seed=0).double()
    x = normal(16, 3, 8, 8)
    model(x)
    model.eval()
    before = model(x)
    plain = to_plain(copy.deepcopy(model))
    assert not any(isinstance(module, SigmoidBatchNorm2d) for module in plain.modules())
    torch.testing.assert_close(plain(x), before, rtol=1e-12, atol=1e-12)
    exported = torch.export.export(plain, (x,)).module()
    torch.testing.assert_close(exported(x), before, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [ClampedBatchNorm2d, ClampedBatchNorm1d])
def test_clamped_norms_stay_in_bounds(kind):
    norm = plain_norm(kind=kind.plain)
    norm.weight.data[:3] = torch.tensor([-0.5, 0.75, 3.0])
    norm.bias.data[0] = 0.25
    clamped = kind.from_plain(norm, upper=0.8)
    assert clamped.weight[:3].tolist() == [0.0, 0.75, 0.8]
    assert clamped.bias[0].item() == 0.25
    assert norm.weight[0] == -0.5
    assert (clamped.eps, clamped.momentum, clamped.training) == (2e-4, 0.3, False)
    clamped.weight.data[:2] = torch.tensor([0.9, -1.0])
    clamped.project_()
    assert clamped.weight[:3].tolist() == [0.8, 0.0, 0.8]
    assert "scale in [0, 0.8]" in repr(clamped)
    x = normal(5, 6, 2, 2) if kind is ClampedBatchNorm2d else normal(5, 6)
    plain = clamped.to_plain()
    assert type(plain) is kind.plain
    assert torch.equal(plain(x), clamped(x))
    assert plain.state_dict().keys() == norm.state_dict().keys()
    for upper in (0, -1.0, math.inf, math.nan):
        with pytest.raises(BadInput, match="upper end"):
            kind(3, upper=upper)
    for upper in (True, "1"):
        with pytest.raises(BadType, match="upper end"):
            kind(3, upper=upper)


# --- the penalty


@pytest.mark.parametrize("b", [-1.0, 0.0, 3.0])
def test_penalty_and_force_are_the_formulas(b):
    g = torch.linspace(-12, 12, 97, dtype=torch.float64, requires_grad=True)
    receding(g, b).sum().backward()
    for value, force, found in zip(g.tolist(), g.grad.tolist(), receding(g.detach(), b).tolist(), strict=True):
        s = 1 / (1 + math.exp(-value - b))
        assert found == pytest.approx(s * (1 - math.log(s)), rel=1e-12)
        assert force == pytest.approx(-s * (1 - s) * math.log(s), rel=1e-10)
    assert ((g.grad > 0) & (g.grad < 0.2604)).all()


def test_the_force_is_largest_where_the_book_says():
    g = torch.linspace(-8, 4, 12001, dtype=torch.float64, requires_grad=True)
    for b in (0.0, 3.0):
        g.grad = None
        receding(g, b).sum().backward()
        top = int(g.grad.argmax())
        assert g[top].item() == pytest.approx(-1.1769 - b, abs=1e-3)
        assert g.grad[top].item() == pytest.approx(0.26035, abs=1e-5)
        assert torch.sigmoid(g[top] + b).item() == pytest.approx(0.23561, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_penalty_stays_finite_far_out(dtype):
    g = torch.tensor([-1e5, -104.0, -95.0, -88.0, 95.0, 1e5], dtype=dtype, requires_grad=True)
    values = receding(g)
    values.sum().backward()
    assert torch.isfinite(values).all()
    assert torch.isfinite(g.grad).all()
    assert values[0] == 0
    assert values[-1] == 1


def network(norm=SigmoidBatchNorm2d) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False), norm(6), nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=1, bias=False), norm(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4),
        ).double()  # fmt: skip


def test_the_penalty_sums_over_living_channels_of_all_norms():
    model = network()
    method = RecedingNeurons(b=1.5)
    alive = Masks({"1.weight": torch.tensor([True, False, True, True, False, True])})
    expected = sum(
        (s := 1 / (1 + math.exp(-value - 1.5))) * (1 - math.log(s))
        for name in ("1", "4")
        for i, value in enumerate(model.get_parameter(f"{name}.weight").tolist())
        if name == "4" or i not in (1, 4)
    )
    value = method.penalty(model, alive)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    value.backward()
    gradient = model[1].weight.grad
    assert gradient[[1, 4]].tolist() == [0, 0]
    assert (gradient[[0, 2, 3, 5]] > 0).all()
    assert (model[4].weight.grad > 0).all()
    assert method.penalty(model[1], Masks({"weight": alive["1.weight"]})).item() < method.penalty(model[1], Masks())
    for ordinary in (network(nn.BatchNorm2d), nn.Linear(2, 2)):
        with pytest.raises(Unprunable, match="has no sigmoid batch norm, so 'rni'"):
            method.penalty(ordinary, Masks())


# --- the method


@pytest.mark.parametrize("b", [math.inf, math.nan])
def test_a_shift_that_is_not_finite_is_refused(b):
    with pytest.raises(BadInput, match=r"^b must be finite"):
        RecedingNeurons(b=b)
    with pytest.raises(BadType, match=r"^b must be a number, not '3'"):
        RecedingNeurons(b="3")
    with pytest.raises(BadInput, match="unknown combination"):
        RecedingNeurons(tied="median")


def ranked(model, method, fraction=0.5, keep_at_least=1, example=None, **budget):
    """Kept channels of each group after one step, and what the method had to say."""
    model = copy.deepcopy(model)
    example = torch.zeros(1, 1, 4, 4, dtype=torch.float64) if example is None else example
    sites = find_sites(model, channels=True, example_input=example, refuses=method.refuses)
    budget = Budget(fraction, of="channels", keep_at_least=keep_at_least, **budget)
    choice = prune_step(model, method, budget, sites, Masks(), example_input=example)
    return {name: group.alive(choice.masks).tolist() for name, group in sites.groups.items()}, choice.remarks


def test_very_negative_g_still_rank():
    model = network().float()
    model[1].weight.data.copy_(torch.tensor([-300.0, -290.0, -310.0, -280.0, -305.0, -299.0]))
    model[4].weight.data.fill_(-500.0)
    model[4].weight.data[3] = -320.0
    kept, _ = ranked(model, RecedingNeurons(), 9 / 14, example=torch.zeros(1, 1, 4, 4))
    assert kept["0"] == [True, True, False, True, False, True]
    assert [i for i, alive in enumerate(kept["3"]) if alive] == [3]


def test_the_largest_g_stay_not_the_largest_in_size():
    model = network()
    model[1].weight.data.copy_(torch.tensor([-6.0, 0.1, -5.0, 0.2, 0.3, -7.0]))
    model[4].weight.data.fill_(1.0)
    kept, _ = ranked(model, RecedingNeurons(), 3 / 14)
    assert kept["0"] == [False, True, False, True, True, False]
    assert all(kept["3"])


def test_generic_tools_rank_sigmoid_norms_upside_down():
    """torch-pruning reads |weight| of a batch norm: on a sigmoid one it keeps what has receded."""
    model = network().float()
    model[1].weight.data.copy_(torch.tensor([-6.0, 0.1, -5.0, 0.2, 0.3, -7.0]))
    example = torch.zeros(1, 1, 4, 4)

    def scores(network):
        graph = torch_pruning.DependencyGraph().build_dependency(network, example)
        group = graph.get_pruning_group(network[0], torch_pruning.prune_conv_out_channels, list(range(6)))
        return torch_pruning.importance.BNScaleImportance(normalizer=None)(group)

    generic = scores(model).argsort(descending=True)[:3].sort().values
    assert generic.tolist() == [0, 2, 5]  # sigma(g) = 0.002, 0.007 and 0.001
    importance = model[1].importance.detach()
    assert importance[generic].max() < importance[[1, 3, 4]].min()
    translated = to_plain(copy.deepcopy(model))
    assert scores(translated).argsort(descending=True)[:3].sort().values.tolist() == [1, 3, 4]


def test_prepare_swaps_what_is_ordinary_and_keeps_the_rest():
    model = nn.Sequential(
        nn.Conv2d(1, 400, 1), nn.BatchNorm2d(400, eps=3e-3, momentum=0.2), nn.Flatten(),
        nn.Linear(400, 300), nn.BatchNorm1d(300, momentum=None), SigmoidBatchNorm1d(300), nn.Linear(300, 2),
    ).double()  # fmt: skip
    stays = model[5].weight.detach().clone()
    model[1].running_mean.fill_(2.0)

    def prepared(seed):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return RecedingNeurons().prepare(copy.deepcopy(model), torch.zeros(1, 1, 1, 1).double())

    first, again, other = prepared(0), prepared(0), prepared(1)
    assert isinstance(first[1], SigmoidBatchNorm2d)
    assert isinstance(first[4], SigmoidBatchNorm1d)
    assert (first[1].eps, first[1].momentum, first[4].momentum) == (3e-3, 0.2, None)
    assert first[1].weight.dtype == torch.float64
    assert (first[1].running_mean == 2).all()
    assert torch.equal(first[5].weight, stays)
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, other[1].weight)
    g = torch.cat([first[1].weight, first[4].weight]).detach()
    assert abs(g.mean()) < 0.15
    assert abs(g.std() - 1) < 0.1
    built = pc.build_model("cnn5", ((3, 8, 8), 4), norm="sigmoid", seed=0)
    same = RecedingNeurons().prepare(copy.deepcopy(built), torch.zeros(1, 3, 8, 8))
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), built.parameters(), strict=True))
    assert isinstance(RecedingNeurons().prepare(nn.BatchNorm2d(3), None), SigmoidBatchNorm2d)


def test_a_network_without_norms_gets_them_from_prepare_only():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(Unprunable, match="no batch norm with a scale acts on them"):
        pc.prune(model, "rni", 0.5, example_input=x)
    prepared = RecedingNeurons().prepare(copy.deepcopy(model), x)
    assert [type(m).__name__ for m in (prepared[0].norm, prepared[3].norm)] == [
        "SigmoidBatchNorm2d",
        "SigmoidBatchNorm1d",
    ]
    assert prepared[0].layer.bias is None
    assert isinstance(prepared[5], nn.Linear)
    assert pc.prune(prepared, "rni", 0.5, example_input=x).shrink().eval()(x).shape == (1, 2)
    with pytest.raises(Unprunable, match="no layer that one could be put behind"):
        RecedingNeurons().prepare(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), x)


def test_ordinary_norms_are_refused_with_the_reason():
    with pytest.raises(Unprunable, match="'1' is an ordinary batch norm, and RNI ranks by sigmoid ones"):
        pc.prune(network(nn.BatchNorm2d), "rni", 0.5, example_input=torch.zeros(1, 1, 4, 4).double())


@pytest.mark.parametrize(("name", "layers", "channels"), [("vgg16_rni", 13, 4224), ("resnet56_rni", 27, 1008)])
@pytest.mark.parametrize("norm", ["sigmoid", "batch"])
def test_the_papers_networks_have_the_prunable_channels_of_the_paper(name, layers, channels, norm):
    model = pc.build_model(name, "cifar10", norm=norm, seed=0)
    method = RecedingNeurons() if norm == "sigmoid" else pc.METHODS["slimming"]()
    sites = find_sites(model, channels=True, example_input=torch.zeros(1, 3, 32, 32), refuses=method.refuses)
    assert (len(sites.groups), sum(group.size for group in sites.groups.values())) == (layers, channels)
    if "resnet" in name:
        assert all(group.endswith(".conv1") and group.startswith("layer") for group in sites.groups)


def test_the_small_network_keeps_its_norms_and_outputs():
    model = network().eval()
    x = normal(3, 1, 4, 4)
    result = pc.prune(model, "rni", 0.5, example_input=x[:1])
    dead = ~torch.tensor(ranked(model, RecedingNeurons())[0]["0"])
    hidden = F.relu(model[1](model[0](x)))
    hidden[:, dead] = 0
    hidden = F.relu(model[4](model[3](hidden)))
    hidden[:, ~torch.tensor(ranked(model, RecedingNeurons())[0]["3"])] = 0
    torch.testing.assert_close(result.shrink().eval()(x), model[7](hidden.flatten(1)), rtol=1e-12, atol=1e-12)
