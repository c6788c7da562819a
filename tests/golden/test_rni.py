"""Golden files of RNI: sigmoid batch norm, penalties, thresholds, removal, sizes, training from end to end, polarisation."""

import copy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.data.splits import Split
from pruning_core.errors import BadInput
from pruning_core.experiments.recipes.chapters import RECEDING_OPTIMIZER, receding_rate
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.polarization import BINS, Polarization, histogram_threshold
from pruning_core.methods.rni import RecedingNeurons, receding
from pruning_core.methods.shared.batch_norm_scales import (
    MINIMUM,
    Thresholded,
    quantile_masks,
    quantile_thresholds,
    scales_of,
)
from pruning_core.methods.shrinking import shrunk
from pruning_core.methods.slimming import Slimming
from pruning_core.methods.ucs import UniformChannelScaling
from pruning_core.models.build import build_model
from pruning_core.models.cost import count_macs, count_parameters
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.layers.norms import SigmoidBatchNorm2d
from pruning_core.models.layers.protocol import to_plain
from pruning_core.papers.rni.pipeline import fit_best, penalty_of
from pruning_core.pruning import prune
from pruning_core.training.trainer import Trainer
from tests.golden.harness import Check, check, parameters
from tests.golden.rni.networks import NOT_STORED, is_sigmoid, resnet, state_of, vgg, widths_of


def close(like, rtol=1e-10, atol=1e-12):
    """The tolerances of the README for double precision; rounding of single precision where the file has that."""
    single = np.asarray(like).dtype == np.float32
    return {"rtol": max(rtol, 1e-4), "atol": max(atol, 1e-5)} if single else {"rtol": rtol, "atol": atol}


def number(z, *names, default=None):
    """The first of these arrays as a number."""
    return next((z[name].item() for name in names if name in z), default)


def sigbn_forward(z):
    momentum = number(z, "momentum")
    momentum = None if momentum == -1 or momentum is None or momentum != momentum else momentum  # a cumulative average
    tracked = bool(number(z, "track_running_stats", default=1))
    gamma = torch.from_numpy(z["gamma"])
    layer = SigmoidBatchNorm2d(len(gamma), eps=float(z["eps"]), momentum=momentum, track_running_stats=tracked)
    layer.to(gamma.dtype)
    with torch.no_grad():
        layer.weight.copy_(gamma)
    np.testing.assert_equal(int(layer.bias is not None), z["has_bias"])
    tolerance = close(z["gamma"])
    for step, (x, upstream) in enumerate(zip(z["x_train"], z["upstream"], strict=True)):
        inputs = torch.from_numpy(x).requires_grad_(True)
        y = layer(inputs)
        layer.weight.grad = None
        (y * torch.from_numpy(upstream)).sum().backward()
        np.testing.assert_allclose(y.detach(), z["y_train"][step], **tolerance)
        np.testing.assert_allclose(layer.weight.grad, z["grad_gamma"][step], **tolerance)
        np.testing.assert_allclose(inputs.grad, z["grad_x"][step], **tolerance)
        if tracked:
            np.testing.assert_allclose(layer.running_mean, z["running_mean"][step], **tolerance)
            np.testing.assert_allclose(layer.running_var, z["running_var"][step], **tolerance)
    if tracked:
        assert int(layer.num_batches_tracked) == int(z["num_batches_tracked"])
    layer.eval()
    x = torch.from_numpy(z["x_eval"])
    np.testing.assert_allclose(layer(x).detach(), z["y_eval"], **tolerance)
    np.testing.assert_allclose(to_plain(layer)(x).detach(), z["y_eval"], **tolerance)


def norms(gamma, sizes, kind) -> nn.Module:
    """A network of nothing but batch norms with these scales."""
    parts = torch.from_numpy(gamma).split([int(n) for n in sizes])
    model = nn.Sequential(*(kind(len(part)) for part in parts)).to(parts[0].dtype)
    for layer, part in zip(model, parts, strict=True):
        layer.weight.data.copy_(part)
    return model


def penalty_and_gradient(method, model):
    value = method.penalty(model, Masks())
    model.zero_grad()
    value.backward()
    return value.detach(), torch.cat([layer.weight.grad for layer in model])


def penalties(z):
    tolerance = close(z["gamma"])
    for i, b in enumerate(z["b"]):
        g = torch.from_numpy(z["gamma"]).requires_grad_(True)
        each = receding(g, float(b))
        np.testing.assert_allclose(each.detach(), z["loss_elem"][i], **tolerance)
        each.sum().backward()
        np.testing.assert_allclose(g.grad, z["grad"][i], **tolerance)
        model = norms(z["gamma"], [len(z["gamma"])], SigmoidBatchNorm2d)
        value, gradient = penalty_and_gradient(RecedingNeurons(b=float(b)), model)
        np.testing.assert_allclose(value, z["loss_sum"][i], **tolerance)
        np.testing.assert_allclose(gradient, z["grad"][i], **tolerance)
    sigmoid, ordinary = (
        norms(z["model_gamma"], z["model_sizes"], kind) for kind in (SigmoidBatchNorm2d, nn.BatchNorm2d)
    )
    for i, (b, strength) in enumerate(zip(z["reg_b"], z["reg_weight"], strict=True)):
        penalty = penalty_of(RecedingNeurons(b=float(b)), float(strength))
        np.testing.assert_allclose(penalty(sigmoid).detach(), z["reg_rni"][i], **tolerance)
        penalty = penalty_of(Slimming(), float(strength))
        np.testing.assert_allclose(penalty(ordinary).detach(), z["reg_l1"][i], **tolerance)
    _, gradient = penalty_and_gradient(Slimming(), ordinary)
    np.testing.assert_allclose(float(z["reg_weight"][0]) * gradient, z["l1_grad_first"], **tolerance)
    np.testing.assert_equal(int(penalty_of(UniformChannelScaling(), 1.0) is None), z["none_for_ucs"])
    for method in (RecedingNeurons(), Slimming()):
        np.testing.assert_equal(int(penalty_of(method, 0.0) is None), z["none_for_zero"])
    with pytest.raises(BadInput, match="'ucs' has no penalty"):
        UniformChannelScaling().penalty(ordinary, Masks())


def masks(z):
    sizes = [int(n) for n in z["sizes"]]
    gamma = torch.from_numpy(z["gamma"])
    sigmoid = {0: False, 1: True}[int(z["sigmoid_scores"])]
    scores = [*(torch.sigmoid(gamma) if sigmoid else gamma.abs()).split(sizes)]
    minimum = number(z, "min_filters", default=3)
    for scope in (scope for scope in ("global", "local") if f"mask_{scope}" in z):
        for i, fraction in enumerate(z["percentages"]):
            keep = quantile_masks(scores, float(fraction), scope, minimum)
            np.testing.assert_array_equal(torch.cat(keep).int(), z[f"mask_{scope}"][i])
            np.testing.assert_array_equal([int(mask.sum()) for mask in keep], z[f"kept_{scope}"][i])
            quantiles = quantile_thresholds(scores, float(fraction), scope)
            np.testing.assert_allclose(torch.stack(quantiles), z[f"quantile_{scope}"][i], rtol=1e-12, atol=1e-12)


def cut(model, example, z, method=None):
    """The official thresholds on ``model``: (small network, bool vector of kept channels, how many stay of each group).

    Through ``prune``, where it takes what the file asks for; the fraction 1 and other minima go to the method itself.
    """
    if method is None:
        method = RecedingNeurons(reference=True) if is_sigmoid(model.state_dict()) else Slimming(reference=True)
    assert isinstance(method, Thresholded)
    everywhere = {0: False, 1: True}[int(number(z, "scope_global", default=method.name != "ucs"))]
    fraction, minimum = float(number(z, "percentage", "prune_pc")), int(number(z, "min_filters", default=MINIMUM))
    if fraction < 1 and minimum == MINIMUM:
        across = "global" if everywhere else "layer"
        result = prune(model, method, fraction, of="channels", across=across, example_input=example)
        small, found, sites = result.model, result.masks, result.sites
    else:
        sites = find_sites(model, channels=True, example_input=example, refuses=method.refuses)
        view = View(model, sites, Masks(), None, F.cross_entropy, torch.Generator(), example)
        found = method.cut(view, fraction, "global" if everywhere else "local", minimum).masks
        found.apply_(small := copy.deepcopy(model))
    small, _ = shrunk(small, found, sites, example)  # sigmoid batch norms stay what they are
    kept = [group.alive(found) for group in sites.groups.values()]
    return small, torch.cat(kept), [int(channels.sum()) for channels in kept]


def remove_vgg(z):
    before = state_of(z, "before")
    np.testing.assert_array_equal(widths_of(before), z["widths"])
    _removed(vgg(before), z)


def remove_resnet(z):
    before, blocks = state_of(z, "before"), int(z["blocks_per_stage"])
    np.testing.assert_array_equal(widths_of(before, "conv1"), z["block_widths"])
    np.testing.assert_array_equal(widths_of(before, "conv1")[::blocks], z["stages"])
    _removed(resnet(before, blocks), z)


def _removed(model, z):
    x, after = torch.from_numpy(z["x"]), state_of(z, "after")
    tolerance = close(z["x"], rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        np.testing.assert_allclose(model(x), z["y_before"], **tolerance)
    small, kept, counts = cut(model, x[:1], z)
    np.testing.assert_array_equal(kept.int(), z["masks"])
    np.testing.assert_array_equal(counts, z["kept"])
    state = {name: tensor for name, tensor in small.state_dict().items() if not name.endswith(NOT_STORED)}
    assert state.keys() == after.keys()
    assert all(torch.equal(state[name], after[name]) for name in after)
    assert (count_parameters(model), count_parameters(small)) == (int(z["n_params_before"]), int(z["n_params_after"]))
    with torch.no_grad():
        np.testing.assert_allclose(small(x), z["y_after"], **tolerance)


def pad_channels(z):
    for i, (inputs, outputs, stride, height) in enumerate(z["specs"].tolist()):
        x = torch.from_numpy(z[f"x{i}"])
        assert x.shape[1:3] == (inputs, height)
        np.testing.assert_array_equal(ChannelIndex.option_a(inputs, outputs, stride)(x), z[f"y{i}"])


def method_of(z, model, named=None) -> Thresholded:
    """The method of a training: named by the file, or told by its norms and the strength of the penalty."""
    kinds = {"rni": RecedingNeurons, "l1": Slimming, "ucs": UniformChannelScaling}
    strength = number(z, "reg_weight", default=0.0)
    penalised = strength and np.any(z.get("penalty", 1))
    told = "rni" if is_sigmoid(model.state_dict()) else "l1" if penalised else "ucs"
    name = str(z["method"]) if "method" in z else named or told
    options = {"b": float(number(z, "b", default=0.0))} if name == "rni" else {}
    return kinds[name](reference=True, **options)


def train_steps(z, named=None):
    model = vgg(state_of(z, "before"))
    np.testing.assert_array_equal(widths_of(model.state_dict()), z["widths"])
    steps, epochs, lr = int(z["steps_per_epoch"]), int(z["epochs"]), float(z["lr"])
    method = method_of(z, model, named)
    penalty = penalty_of(method, float(number(z, "reg_weight", default=0.0)))
    of_norms = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    losses, added, rates, scales = [], [], [], []

    def group_of(norm: bool):
        """The optimizer's settings for norms, or for everything else: one rate, one decay, and how many parameters."""
        mine = [g for g in trainer.optimizer.param_groups if any((id(p) in of_norms) == norm for p in g["params"])]
        count = sum(p.numel() for p in model.parameters() if (id(p) in of_norms) == norm)
        assert len({(group["lr"], group["weight_decay"]) for group in mine}) == 1
        return mine[0]["lr"], mine[0]["weight_decay"], count

    def loss(outputs, labels):
        value = F.cross_entropy(outputs, labels)
        if torch.is_grad_enabled():
            losses.append(float(value.detach()))
            rates.append([group_of(False)[0], group_of(True)[0]])
            scales.append(torch.cat([m.weight.detach() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]))
        return value

    def recorded(network):
        value = penalty(network)
        added.append(float(value.detach()))
        return value

    optimizer, learning_rate = replace(RECEDING_OPTIMIZER, lr=lr), receding_rate(epochs, reference=True)
    x, y = torch.from_numpy(z["X"]), torch.from_numpy(z["y"])
    trainer = Trainer(
        model, optimizer, epochs=epochs, learning_rate=learning_rate, batch_size=x.shape[1], loss=loss,
        penalty=None if penalty is None else recorded, shuffle=False,
    )  # fmt: skip
    groups = [group_of(False), group_of(True)]
    np.testing.assert_allclose([group[0] for group in groups], z["group_lr"], rtol=1e-12)
    np.testing.assert_allclose([group[1] for group in groups], z["group_wd"], rtol=1e-12)
    np.testing.assert_array_equal([group[2] for group in groups], z["group_numel"])
    for epoch in range(epochs):
        batches = slice(epoch * steps, (epoch + 1) * steps)
        trainer.train_epoch(Split(x[batches].flatten(0, 1), y[batches].flatten()))
    scales.append(torch.cat([m.weight.detach() for m in model.modules() if isinstance(m, nn.BatchNorm2d)]))
    tolerance = close(z["X"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(losses, z["ce_loss"], **tolerance)
    np.testing.assert_allclose(added or np.zeros(len(losses)), z["penalty"], **tolerance)
    np.testing.assert_allclose(rates, z["lr_traj"], rtol=1e-12)
    np.testing.assert_allclose(torch.stack(scales[1:]), z["gamma_traj"], **tolerance)
    _same_state(model, state_of(z, "after"), tolerance)


def _same_state(model, expected, tolerance):
    state = model.state_dict()
    assert {name for name in state if not name.endswith(NOT_STORED)} == {*expected}
    for name, tensor in expected.items():
        np.testing.assert_allclose(state[name], tensor, err_msg=name, **tolerance)


def end_to_end(z, named=None):
    train, test = (
        Split(torch.from_numpy(z[f"X_{part}"]), torch.from_numpy(z[f"y_{part}"])) for part in ("train", "test")
    )
    data = SimpleNamespace(train=train, validation=test, test=test)
    model = vgg(state_of(z, "init"))
    np.testing.assert_array_equal(widths_of(model.state_dict()), z["widths"])
    method = method_of(z, model, named)
    penalty = penalty_of(method, float(number(z, "reg_weight", default=0.0)))
    tolerance = close(z["X_train"], rtol=1e-7, atol=1e-7)

    def tuned(network, added, epochs, start):
        best, logs = fit_best(
            network, data, added, epochs, float(z["lr"]), int(z["batch_size"]), 0, torch.device("cpu"),
            reference=True, progress=False, shuffle=False,
        )  # fmt: skip
        np.testing.assert_allclose(logs["test_acc"], z[f"{start}test_acc"], atol=1e-6)
        assert logs["best_epoch"] == int(z[f"{start}best_epoch"])
        return best

    best = tuned(model, penalty, int(z["epochs"]), "")
    _same_state(best, state_of(z, "best"), tolerance)
    small, kept, counts = cut(best, train.inputs[:1], z, method)
    np.testing.assert_array_equal(kept.int(), z["masks"])
    np.testing.assert_array_equal(counts, z["kept"])
    ft = tuned(small, None, int(number(z, "ft_epochs", "epochs")), "ft_")
    _same_state(ft, state_of(z, "ft"), tolerance)


def sizes_vgg16(z):
    _sizes("vgg16_rni", z)


def sizes_resnet56(z):
    _sizes("resnet56_rni", z)


def _sizes(name, z):
    shapes = [tuple(int(n) for n in shape.split(",")) for shape in z["shapes"].tolist()]
    data = ((3, 32, 32), shapes[-1][0])
    built = [build_model(name, data, norm=norm, seed=0) for norm in ("sigmoid", "batch")]
    fitting = [model for model in built if [tuple(p.shape) for p in model.parameters()] == shapes]
    assert len(fitting) == 1
    model = fitting[0].eval()
    _same_order([name for name, _ in model.named_parameters()], [str(name) for name in z["names"]])
    example = torch.zeros(1, *data[0])
    assert (count_macs(model, example), count_parameters(model)) == tuple(z["macs_params_full"].tolist())
    kind = RecedingNeurons if is_sigmoid(model.state_dict()) else Slimming
    method = kind(reference=True)
    sites = find_sites(model, channels=True, example_input=example, refuses=method.refuses)
    assert [group.size for group in sites.groups.values()] == z["sizes"].tolist()
    parts = torch.from_numpy(z["gamma"]).split(z["sizes"].tolist())
    for group, part in zip(sites.groups.values(), parts, strict=True):
        (member,) = scales_of(model, group)
        model.get_parameter(member.parameter).data = part.clone()
    view = View(model, sites, Masks(), None, F.cross_entropy, torch.Generator(), example)
    for row, (everywhere, fraction) in enumerate(z["scope_global_and_pc"].tolist()):
        found = method.cut(view, fraction, {0: "local", 1: "global"}[everywhere]).masks
        small, _ = shrunk(model, found, sites)
        np.testing.assert_array_equal([int(g.alive(found).sum()) for g in sites.groups.values()], z["kept"][row])
        assert (count_macs(small, example), count_parameters(small)) == tuple(z["macs_params"][row].tolist())


def _same_order(ours: list[str], official: list[str]) -> None:
    """Weights and biases stand in the same order, and belong to the same layers, whatever those are called."""
    parts = [[name.rpartition(".") for name in names] for names in (ours, official)]
    kinds = [[kind for _, _, kind in names] for names in parts]
    layers = [[layer for layer, _, _ in names] for names in parts]
    assert kinds[0] == kinds[1]
    firsts = [[names.index(layer) for layer in names] for names in layers]
    np.testing.assert_array_equal(*firsts)


def polarization(z):
    model = norms(z["gamma"], z["sizes"], nn.BatchNorm2d)
    strength, tolerance = float(z["lbd"]), close(z["gamma"], rtol=1e-12, atol=1e-12)
    for i, t in enumerate(z["t"]):
        value, gradient = penalty_and_gradient(Polarization(t=float(t)), model)
        np.testing.assert_allclose(strength * value, z["loss"][i], **tolerance)
        np.testing.assert_allclose(strength * gradient, z["grad"][i], **tolerance)
    for gamma, threshold in zip(z["hist_gamma"], z["hist_threshold"], strict=True):
        found = histogram_threshold(torch.from_numpy(gamma))
        np.testing.assert_allclose(np.nan if found is None else found, threshold, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(1 / BINS, z["fixed_threshold"], rtol=1e-12)


CHECKS: dict[str, Check] = {
    "sigbn_forward": sigbn_forward,
    "penalties": penalties,
    "masks": masks,
    "remove_vgg": remove_vgg,
    "remove_resnet": remove_resnet,
    "pad_channels": pad_channels,
    "train_steps": train_steps,
    "end_to_end": end_to_end,
    "sizes_vgg16": sizes_vgg16,
    "sizes_resnet56": sizes_resnet56,
    "polarization": polarization,
}
for _name in ("l1", "ucs"):  # ordinary batch norms do not tell these two apart
    CHECKS |= {f"train_steps_{_name}": partial(train_steps, named=_name)}
    CHECKS |= {f"end_to_end_{_name}": partial(end_to_end, named=_name)}


@parameters("rni")
def test_golden(path):
    check("rni", path, CHECKS)
