"""Golden checks of the penalties, gates and norms that SNIP-it's code compares with."""

import copy
import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.schedules import fraction_after, tick_tock_rounds
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.efficient_convnets import EfficientConvNets
from pruning_core.methods.gates import GateDecorators
from pruning_core.methods.hoyer import TRIM, GroupHoyerSquare, HoyerSquare
from pruning_core.methods.l0 import L0
from pruning_core.methods.l1 import L1, Lp
from pruning_core.models.layers.gates import ChannelGate, Gated, HardConcreteGate
from tests.golden.snipit.built import (
    batches,
    inputs,
    masked_layers,
    named,
    network,
    same_network,
    same_sparsity,
    same_widths,
    ungated,
)
from tests.golden.snipit.gradients import SCORES

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array))


def hoyer(z):
    """Loss with penalty and its gradients, loss without it, and what is trimmed."""
    for part, method in (("hs", HoyerSquare()), ("ghs", GroupHoyerSquare())):
        if f"{part}/loss" not in z:
            continue
        model = network(z)
        plain = F.cross_entropy(model(tensor(z["x"])), tensor(z["y"]))
        loss = plain + float(z["hoyer_reg"]) * method.penalty(model, Masks())
        loss.backward()
        np.testing.assert_allclose(loss.item(), z[f"{part}/loss"], rtol=1e-10)
        if f"{part}/loss_after_pruning_event" in z:
            np.testing.assert_allclose(plain.item(), z[f"{part}/loss_after_pruning_event"], rtol=1e-10)
        for name, gradient in named(z, f"{part}/grad/").items():
            np.testing.assert_allclose(model.get_parameter(name).grad, gradient, rtol=1e-8, atol=1e-13)
    trimmed = named(z, "trim_in/")
    if trimmed:
        model = network(z)
        with torch.no_grad():
            for name, weight in trimmed.items():
                model.get_parameter(name).copy_(tensor(weight))
        threshold = float(z["threshold"]) if "threshold" in z else TRIM
        scope = [name.rpartition(".")[0] for name in trimmed]
        result = pc.prune(model, HoyerSquare(), Budget(below=threshold, keep_at_least=0), scope=scope)
        official = named(z, "trim_mask/")
        assert set(official) == set(trimmed)
        for name, mask in official.items():
            np.testing.assert_array_equal(result.masks[name].int(), mask)


def group_hs(z):
    """Units stay that have any weight above the threshold; what is left when the others are removed."""
    if any(name.startswith(("ghs/", "hs/")) for name in z):
        hoyer(z)
    start, x = network(z), inputs(z)
    threshold = float(z["threshold"]) if "threshold" in z else TRIM
    result = pc.prune(start, GroupHoyerSquare(), Budget(below=threshold), example_input=x[:1])
    small = result.shrink()
    same_widths(z, "", small)
    same_sparsity(z, "", small, start)
    same_network(z, small)


def gated(z, kind: type) -> tuple[nn.Module, Gated, float, float]:
    """A gated layer whose rows are what the file's gates multiply, our method on it, and the file's two strengths."""
    weight = tensor(z["param/weights"])
    lamda, precision = float(z["lamba"]), float(z["prior_prec"])
    limits = (float(z["limit_a"]), float(z["limit_b"]))
    gate = HardConcreteGate(len(weight), temperature=float(z["temperature"]), limits=limits)
    bias = "param/bias" in z and kind is nn.Conv2d
    layer = nn.Linear(weight.shape[1], len(weight), bias=False) if kind is nn.Linear else nn.Conv2d(
        weight.shape[1], len(weight), weight.shape[2:], bias=bias  # type: ignore[arg-type]
    )  # fmt: skip
    model = nn.Sequential(Gated(layer, gate)).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        gate.log_alpha.copy_(tensor(z["param/qz_loga"]))
        if bias:
            layer.bias.copy_(tensor(z["param/bias"]))
    return model, model[0], lamda, precision


def prepared(z, first: nn.Module, second: nn.Module) -> nn.Module:
    """Two layers, the first with the file's gates behind it as ``L0`` puts them there, in double precision."""
    model = L0().prepare(nn.Sequential(first, second).double(), tensor(z["x"])[:1])
    gate = model[0].gate
    assert isinstance(gate, HardConcreteGate)
    gate.temperature, gate.limits = float(z["temperature"]), (float(z["limit_a"]), float(z["limit_b"]))
    with torch.no_grad():
        gate.log_alpha.copy_(tensor(z["param/qz_loga"]))
    return model.eval()


def through_prune(z, model: nn.Module, official: torch.Tensor) -> None:
    """The score of a channel is its gate before it is clipped, and ``prune`` removes those whose gate is shut."""
    example = tensor(z["x"])[:1]
    sites = find_sites(model, channels=True, example_input=example, refuses=L0().refuses)
    view = View(model, sites, Masks(), None, F.cross_entropy, torch.Generator(), example)
    (score,) = L0().score(view).values()
    np.testing.assert_allclose(score.clamp(0, 1), official, **CLOSE)
    (group,) = sites.groups.values()
    for shut in (0.0, float(official.median())):  # of gates of a file none may be shut: then half of them, by size
        budget = Budget(below=shut, keep_at_least=0)
        alive = group.alive(pc.prune(model, L0(), budget, example_input=example).masks)
        np.testing.assert_array_equal(alive, score > shut)


def l0_linear(z):
    """Gates on the inputs of a linear layer, weights (inputs, outputs): the rows that our gates would sit on."""
    model, part, lamda, precision = gated(z, nn.Linear)
    gate, weight = part.gate, part.layer.weight
    bias = tensor(z["param/bias"]).requires_grad_(True)
    x = tensor(z["x"])
    with torch.no_grad():
        sampled = gate.sample(tensor(z["eps"]))
        np.testing.assert_allclose(sampled[:, None] * weight, z["sampled_weights"], **CLOSE)
        np.testing.assert_allclose((x * sampled) @ weight + bias, z["train_output"], **CLOSE)
        np.testing.assert_allclose(gate.eval()(torch.ones_like(x)), z["eval_gate"], **CLOSE)
        np.testing.assert_allclose(gate(x) @ weight + bias, z["eval_output"], **CLOSE)
        inputs_, outputs = weight.shape
        reader = nn.Linear(inputs_, outputs)
        two = prepared(z, nn.Linear(inputs_, inputs_, bias=False), reader)
        two[0].layer.weight.copy_(torch.eye(inputs_))
        reader.weight.copy_(weight.T)
        reader.bias.copy_(bias)
        np.testing.assert_allclose(two(x), z["eval_output"], **CLOSE)
        through_prune(z, two, gate.gates())
        in_use = gate.open_probability()
        np.testing.assert_allclose(1 - in_use, z["cdf_at_0"], **CLOSE)
        np.testing.assert_allclose(in_use.sum() * outputs + len(bias), z["expected_l0"], **CLOSE)
        np.testing.assert_allclose((2 * in_use.sum() - 1) * outputs + len(bias), z["expected_flops"], **CLOSE)
    penalty = L0(weight_decay=precision / lamda).penalty(model, Masks())
    official = (
        -lamda * penalty - precision / 2 * (bias**2).sum()
    )  # the official term is a log-prior: its negative is added
    np.testing.assert_allclose(official.item(), z["reg"], **CLOSE)
    official.backward()
    for name, parameter in (("weights", weight), ("qz_loga", gate.log_alpha), ("bias", bias)):
        if f"reg_grad/{name}" in z:
            np.testing.assert_allclose(parameter.grad, z[f"reg_grad/{name}"], **CLOSE)


def _convolution(z, weight) -> dict[str, int]:
    """Stride and padding: as the file says, or those that lead from its inputs to its outputs."""
    named_ = {n: int(np.asarray(z[n]).flat[0]) for n in ("stride", "padding", "dilation") if n in z}
    output = next((z[name] for name in ("train_output", "eval_output") if name in z), None)
    if named_ or output is None or "x" not in z:
        return named_
    for padding in range(weight.shape[-1]):
        for stride in (1, 2, 3):
            sides = [(side + 2 * padding - weight.shape[-1]) // stride + 1 for side in z["x"].shape[2:]]
            if sides == list(output.shape[2:]):
                return {"padding": padding, "stride": stride}
    return {}


def l0_conv(z):
    """Gates on the outputs of a convolution; in training the official layer leaves its bias out.

    Its count of operations takes the number of channels and the height of the input for height and width.
    """
    model, part, lamda, precision = gated(z, nn.Conv2d)
    gate, layer, x = part.gate, part.layer, tensor(z["x"])
    options = _convolution(z, layer.weight)
    biased = int(layer.bias is not None)
    with torch.no_grad():
        in_use = gate.open_probability()
        np.testing.assert_allclose(1 - in_use, z["cdf_at_0"], **CLOSE)
        weight = layer.weight * gate.sample(tensor(z["eps"]).flatten()).view(-1, 1, 1, 1)
        np.testing.assert_allclose(weight, z["sampled_weights"], **CLOSE)
        np.testing.assert_allclose(F.conv2d(x, weight, **options), z["train_output"], **CLOSE)
        np.testing.assert_allclose(in_use.sum() * (layer.weight[0].numel() + biased), z["expected_l0"], **CLOSE)
        own = nn.Conv2d(*layer.weight.shape[1::-1], layer.weight.shape[2:], bias=bool(biased), **options)
        two = prepared(z, own, nn.Conv2d(len(layer.weight), 1, 1))
        own.load_state_dict(layer.state_dict())
        np.testing.assert_allclose(two[0](x), z["eval_output"], **CLOSE)
        np.testing.assert_allclose(gate.gates(), np.asarray(z["eval_gate"]).reshape(-1, len(layer.weight))[0], **CLOSE)
        through_prune(z, two, gate.gates())
        steps = [
            (side - own.kernel_size[i] + 2 * own.padding[i]) / own.stride[i] + 1 for i, side in enumerate(x.shape[1:3])
        ]
        flops = steps[0] * steps[1] * (2 * layer.weight[0].numel() - 1 + biased)
        np.testing.assert_allclose(flops * in_use.sum(), z["expected_flops"], **CLOSE)
    penalty = L0(weight_decay=precision / lamda).penalty(model, Masks())
    # The official term counts the bias with the wrong sign: p (P b^2 / 2 - lambda) is subtracted, lambda and all.
    official = -lamda * penalty + lamda * gate.open_probability().sum() * biased
    np.testing.assert_allclose(official.item(), z["reg"], **CLOSE)
    official.backward()
    for name, parameter in (("weights", layer.weight), ("qz_loga", gate.log_alpha), ("bias", layer.bias)):
        if parameter is not None:
            np.testing.assert_allclose(parameter.grad, z[f"reg_grad/{name}"], **CLOSE)


def efficient_convnets(z):
    """Widths, exact copies of rows and columns, outputs."""
    model, x = network(z), inputs(z)
    sites = find_sites(model, channels=True, example_input=x[:1])
    hidden = list(masked_layers(model))[:-1]
    assert {f"{member.layer}.weight" for group in sites.groups.values() for member in group.produces} == set(hidden)
    # The official code cuts int(n * limit) units of each layer; ours is asked for exactly that.
    limit = float(z["limit"])
    across = {name: int(group.size * limit) / group.size for name, group in sites.groups.items()}
    small = pc.prune(model, EfficientConvNets(), None, of="channels", across=across, example_input=x[:1]).shrink()
    same_widths(z, "", small)
    same_sparsity(z, "", small, model)
    same_network(z, small)


def cross_entropy_l1_lp(z):
    """Cross-entropy with both penalties, over all tensors of a network."""
    holder = nn.Module()
    for name in sorted(name for name in z if re.fullmatch(r"w\d+", name)):
        holder.register_parameter(name, nn.Parameter(tensor(z[name])))
    plain = F.cross_entropy(tensor(z["logits"]), tensor(z["y"]))
    for name in z:
        if found := re.fullmatch(r"loss/l1=(.+)/lp=(.+)", name):
            strengths = float(found[1]), float(found[2])
            ours = plain + sum(
                s * method.penalty(holder, Masks()) for s, method in zip(strengths, (L1(), Lp()), strict=True)
            )
            np.testing.assert_allclose(ours.item(), z[name], rtol=1e-8)


def gate_decorators(z):
    """Gates behind batch norms: ``gate * BN(x)``, and |gate * dL/dgate| over five batches in training mode.

    The official code lists the scores of a layer's outputs once more as those of the inputs of the next one, in the sum
    that it divides by as well, with zeros for the inputs and the outputs of the network.
    """
    state = {name: tensor(array) for name, array in named(z, "init/").items()}
    start, values = ungated(state)
    layers, data = list(masked_layers(start)), batches(z)
    model = GateDecorators().prepare(copy.deepcopy(start), inputs(z)[:1])
    gates = {name.removesuffix(".gate"): m for name, m in model.named_modules() if isinstance(m, ChannelGate)}
    assert set(gates) == set(values)
    with torch.no_grad():
        for name, gate in gates.items():
            gate.weight.copy_(values[name])
    sites = find_sites(model, channels=True, example_input=inputs(z)[:1], refuses=GateDecorators().refuses)
    method = GateDecorators(reference=True, loss="nll_logits")
    view = View(model, sites, Masks(), data, F.cross_entropy, torch.Generator(), inputs(z)[:1])
    found, _ = method.gradients(view, [f"{name}.gate.weight" for name in gates], training=True)
    used = min(len(data), 5) / 5  # the official loss is divided by 5 where there are fewer batches, too
    raw = [used * (model.get_parameter(name).detach() * gradient).abs() for name, gradient in found.items()]
    ends = [torch.zeros(len(t), dtype=torch.float64) for t in (masked_layers(start)[layers[0]][0], raw[0][:0])]
    ends[1] = torch.zeros(len(masked_layers(start)[layers[-1]]), dtype=torch.float64)
    vectors = [ends[0], *(part for score in raw for part in (score, score)), ends[1]]
    total = float(torch.cat(vectors).sum())
    np.testing.assert_allclose(total, z["norm_factor"], **SCORES)
    np.testing.assert_allclose(torch.cat(vectors) / total, z["all_scores_normalised"], **SCORES)
    stored = sum(1 for name in z if re.fullmatch(r"vector\d+/score", name))
    assert stored == len(vectors) == 2 * len(layers)
    official = [z[f"vector{j}/score"] for j in range(stored)]
    scale = (
        1.0
        if sum(float(score.sum()) for score in official) > 0
        and np.isclose(sum(float(score.sum()) for score in official), total)
        else total
    )  # as they were, or divided already
    for j, vector in enumerate(vectors):
        np.testing.assert_allclose(vector / scale, official[j], **SCORES)
        assert str(z[f"vector{j}/name"]) == layers[j // 2]
    scores = {sites.groups[name].produces[0].layer: score for name, score in method.score(view).items()}
    for layer, score in zip(layers, raw, strict=False):
        np.testing.assert_allclose(scores[layer.removesuffix(".weight")], 2 * score / total, **SCORES)
    _gates_cut(z, start, model, method, sites, raw, data)


def _gates_cut(z, start, model, method, sites, raw, data) -> None:
    """The event: its target is one of the schedule; at least the K-th largest stays, and the best of an emptied layer."""
    steps, share = np.atleast_1d(z["steps"]), float(z["percentage"])
    limit = float(steps[-1])
    rounds = tick_tock_rounds(limit)
    whole = [fraction_after("tick_tock", i, rounds, limit) for i in range(1, rounds + 1)]
    np.testing.assert_allclose(steps, whole[-len(steps) :], rtol=0, atol=1e-12)
    assert any(abs(share - target / (1 + 1e-8)) < 1e-6 for target in whole)
    pool = torch.cat([score for score in raw for _ in range(2)])
    kept = min(max(int(len(pool) * (1 - share)), 1), len(pool))
    threshold = pool.sort(descending=True).values[kept - 1]
    keep = [score >= threshold for score in raw]
    for score, mask in zip(raw, keep, strict=True):
        if not mask.any():
            mask[score.argmax()] = True
    of_layer = dict(zip([name.removesuffix(".weight") for name in masked_layers(start)], keep, strict=False))
    across = {n: 1 - int((m := of_layer[g.produces[0].layer]).sum()) / len(m) for n, g in sites.groups.items()}
    result = pc.prune(model, method, None, of="channels", across=across, batches=data)
    for group in sites.groups.values():
        np.testing.assert_array_equal(group.alive(result.masks), of_layer[group.produces[0].layer])
    small = result.shrink()
    same_widths(z, "", small)
    same_sparsity(z, "", small, start)
    if any(name.startswith("pruned/") for name in z):
        left, gates = ungated({name: tensor(array) for name, array in named(z, "pruned/").items()})
        assert [w.shape for w in masked_layers(left).values()] == [w.shape for w in masked_layers(small).values()]
        assert {name: len(gate) for name, gate in gates.items()}.keys() == {n.removesuffix(".gate") for n in gates}


CHECKS: dict[str, Callable[[Mapping[str, np.ndarray]], None]] = {
    "hoyer": hoyer,
    "group_hs": group_hs,
    "l0_linear": l0_linear,
    "l0_conv": l0_conv,
    "efficient_convnets": efficient_convnets,
    "cross_entropy_l1_lp": cross_entropy_l1_lp,
    "gate_decorators": gate_decorators,
}
