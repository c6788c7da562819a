"""Golden checks of the penalties, gates and norms that SNIP-it's code compares with."""

import re
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.removal import remove
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.efficient_convnets import EfficientConvNets
from pruning_core.methods.gates import GateDecorators
from pruning_core.methods.hoyer import TRIM, GroupHoyerSquare, HoyerSquare
from pruning_core.methods.l0 import L0
from pruning_core.methods.l1 import L1, Lp
from pruning_core.models.layers.gates import ChannelGate, Gated, HardConcreteGate
from pruning_core.pruning import prune_step
from tests.golden.snipit.gradients import SCORES, hidden_groups, named, network, same_network, same_widths

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
        sites = find_sites(model, channels=False, scope=[name.rpartition(".")[0] for name in trimmed])
        cut = prune_step(model, HoyerSquare(), Budget(below=threshold, keep_at_least=0), sites, Masks())
        for name, mask in named(z, "trim_mask/").items():
            np.testing.assert_array_equal(cut.masks[name], mask.astype(bool))


def group_hs(z):
    """The group form alone: with the names of the shared file, or without their first part."""
    hoyer(z if any(name.startswith(("ghs/", "hs/")) for name in z) else {**z, **_under("ghs/", z)})


def _under(part: str, z):
    """``loss`` and ``grad/...`` as if they stood under ``part``."""
    return {f"{part}{name}": array for name, array in z.items() if name.startswith(("loss", "grad/"))}


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
        in_use = gate.open_probability()
        np.testing.assert_allclose(1 - in_use, z["cdf_at_0"], **CLOSE)
        outputs = weight.shape[1]
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
    """Gates on the outputs of a convolution; in training the official layer leaves its bias out."""
    model, part, lamda, precision = gated(z, nn.Conv2d)
    gate, layer = part.gate, part.layer
    options = _convolution(z, layer.weight)
    bias = layer.bias if layer.bias is not None else torch.zeros(len(layer.weight), dtype=torch.float64)
    with torch.no_grad():
        in_use = gate.open_probability()
        if "cdf_at_0" in z:
            np.testing.assert_allclose(1 - in_use, z["cdf_at_0"], **CLOSE)
        if "eps" in z:
            sampled = gate.sample(tensor(z["eps"]).flatten())
            weight = layer.weight * sampled.view(-1, 1, 1, 1)
            if "sampled_weights" in z:
                np.testing.assert_allclose(weight, z["sampled_weights"], **CLOSE)
            if "train_output" in z:
                np.testing.assert_allclose(F.conv2d(tensor(z["x"]), weight, **options), z["train_output"], **CLOSE)
        if "expected_l0" in z:
            size = layer.weight[0].numel() + (layer.bias is not None)
            np.testing.assert_allclose(in_use.sum() * size, z["expected_l0"], **CLOSE)
        if "eval_output" in z:
            out = gate.eval()(F.conv2d(tensor(z["x"]), layer.weight, bias, **options))
            np.testing.assert_allclose(out, z["eval_output"], **CLOSE)
    penalty = L0(weight_decay=precision / lamda).penalty(model, Masks())
    # The official term counts the bias with the wrong sign: p (P b^2 / 2 - lambda) is subtracted, lambda and all.
    official = -lamda * penalty + lamda * gate.open_probability().sum() * (layer.bias is not None)
    if "reg" in z:
        np.testing.assert_allclose(official.item(), z["reg"], **CLOSE)
        official.backward()
        for name, parameter in (("weights", layer.weight), ("qz_loga", gate.log_alpha), ("bias", layer.bias)):
            if f"reg_grad/{name}" in z and parameter is not None:
                np.testing.assert_allclose(parameter.grad, z[f"reg_grad/{name}"], **CLOSE)


def efficient_convnets(z):
    """Widths, exact copies of rows and columns, outputs."""
    model = network(z)
    groups = hidden_groups(z, model)
    limit = float(z["limit"])
    sites = find_sites(model, channels=True, example_input=tensor(z["x"][0][:1]))
    assert set(groups) == set(sites.groups)
    # The official code cuts int(n * limit) units of each layer; ours is asked for exactly that.
    across = {name: int(group.size * limit) / group.size for name, group in groups.items()}
    choice = prune_step(model, EfficientConvNets(), Budget(of="channels", across=across), sites, Masks())
    remove(model, choice.masks, sites.groups.values())
    if "out_widths" in z:
        same_widths(z, "", model)
    same_network(z, model)


def cross_entropy_l1_lp(z):
    """Cross-entropy with both penalties, over all tensors of a network."""
    holder = nn.Module()
    for name in sorted(name for name in z if re.fullmatch(r"w\d+", name)):
        holder.register_parameter(name, nn.Parameter(tensor(z[name])))
    plain = F.cross_entropy(tensor(z["logits"]), tensor(z["y"]))
    for name, value in z.items():
        if found := re.fullmatch(r"loss/l1=(.+)/lp=(.+)", name):
            strengths = float(found[1]), float(found[2])
            ours = plain + sum(
                s * method.penalty(holder, Masks()) for s, method in zip(strengths, (L1(), Lp()), strict=True)
            )
            np.testing.assert_allclose(ours.item(), value, rtol=1e-8)


def gate_decorators(z):
    """Gates behind batch norms: ``gate * BN(x)``, and |gate * dL/dgate| over all batches in training mode, summing to 1."""
    model = GateDecorators().prepare(network(z), tensor(z["x"][0][:1]))
    gates = {n: m for n, m in model.named_modules() if isinstance(m, ChannelGate)}
    given = {**named(z, "gate/"), **named(z, "gates/")}
    with torch.no_grad():
        for name, gate in gates.items():
            values = given.get(
                name, given.get(name.removesuffix(".gate"), given.get(f"{name.removesuffix('.gate')}.gate"))
            )
            if values is not None:
                gate.weight.copy_(tensor(values).flatten())
    sites = find_sites(model, channels=True, example_input=tensor(z["x"][0][:1]), refuses=GateDecorators().refuses)
    batches = [(tensor(x), tensor(y)) for x, y in zip(z["x"], z["y"], strict=True)]
    method = GateDecorators(reference=True, loss="nll_logits")
    scores = method.score(View(model, sites, Masks(), batches, F.cross_entropy, torch.Generator()))
    assert abs(sum(float(score.sum()) for score in scores.values()) - 1) < 1e-9
    official = {**named(z, "scores/"), **named(z, "score/")}
    flat = torch.cat([score.flatten() for score in scores.values()])
    if "all_scores" in z:
        np.testing.assert_allclose(flat, z["all_scores"], **SCORES)
    for (_, score), expected in zip(scores.items(), official.values(), strict=False):
        np.testing.assert_allclose(score, expected, **SCORES)


CHECKS: dict[str, Callable[[Mapping[str, np.ndarray]], None]] = {
    "hoyer": hoyer,
    "group_hs": group_hs,
    "l0_linear": l0_linear,
    "l0_conv": l0_conv,
    "efficient_convnets": efficient_convnets,
    "cross_entropy_l1_lp": cross_entropy_l1_lp,
    "gate_decorators": gate_decorators,
}
