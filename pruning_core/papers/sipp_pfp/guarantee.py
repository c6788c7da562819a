r"""The guarantee of SiPP (Baykal et al. 2019) carried from layer to layer by hand, beside what is measured.

A layer subtracts what its negative weights send from what its positive weights send. Each of the two sums, estimated from
draws, is right within a factor ``1 ± eps``; the inputs, which come from pruned layers, within ``1 ± e``. Relative to the
difference z (bias included) the error grows by the *cancellation*

    Delta = |W| |a| / |z| ,           e_l = Delta_l ((1 + eps_l) (1 + e_{l-1}) - 1) ,           e_0 = 0 .

A ReLU keeps relative errors as they are while they are below 1: signs are then right. Above 1 the chain promises nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput, Unprunable
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.models.activations import layer_inputs
from pruning_core.papers.sipp_pfp.estimators import error_promised, estimated


def composed(errors: Sequence[float], cancellations: Sequence[float]) -> list[float]:
    """The relative error promised behind every layer, from each layer's own ``errors`` eps and ``cancellations`` Delta.

    >>> composed([0.5, 0.5], [2.0, 3.0])
    [1.0, 6.0]
    """
    if len(errors) != len(cancellations) or min([*errors, *cancellations], default=0) < 0:
        raise BadInput("every layer has one error and one cancellation, none of them negative.")
    found = [0.0]
    for error, cancellation in zip(errors, cancellations, strict=True):
        found.append(cancellation * ((1 + error) * (1 + found[-1]) - 1))
    return found[1:]


def equal_error(promise: float, cancellations: Sequence[float]) -> float:
    """The error that every layer may make so that the last one is promised ``promise``."""
    if not promise > 0 or not cancellations or min(cancellations) <= 0:
        raise BadInput(f"promise and cancellations are positive, not {promise} and {list(cancellations)}.")
    low, high = 0.0, promise / cancellations[-1]
    for _ in range(200):
        middle = (low + high) / 2
        if composed([middle] * len(cancellations), cancellations)[-1] < promise:
            low = middle
        else:
            high = middle
    return low


@torch.no_grad()
def guarantee_table(
    model: nn.Module, points: Tensor, held_out: Tensor, draws: int, *, seed: int = 0, delta: float = 1e-16
) -> pd.DataFrame:
    """What is promised and what happens when every half of every layer is estimated from ``draws`` weights.

    ``points`` (N, ...) are the inputs that sensitivities are computed on, ``held_out`` those that errors are measured on.
    A row a layer: ``weights`` (of a half, mean), ``sensitivities`` (largest sum of a half), ``half`` (error promised for
    it), ``cancellation`` (median over neurons and held-out inputs; the guarantee proper takes the maximum and is weaker
    still), ``promised`` (carried up to this layer), ``measured`` (median relative error of the layer's outputs). The model
    must be a chain of linear layers; raises Unprunable for other layers with weights.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for name, _ in model.named_parameters():
        if name.rpartition(".")[0] not in layers:
            raise Unprunable(f"the chain is shown for linear layers only; {name!r} belongs to none.")
    if not layers:
        raise Unprunable(f"{type(model).__name__} has no linear layer.")
    outputs = sum(layer.out_features for layer in layers.values())
    generator = torch.Generator().manual_seed(seed)
    pruned = copy.deepcopy(model)
    seen = next(layer_inputs(model, layers, [(points,)]))
    rows = []
    for name, layer in layers.items():
        scores, weight = sensitivity(layer, [seen[name]]).weight.double(), layer.weight.double()
        halves = [weight.clamp(min=0), weight.clamp(max=0)]
        sums = torch.stack([torch.where(half != 0, scores, 0.0).sum(1) for half in halves])
        replaced = torch.zeros_like(weight)
        for half, total in zip(halves, sums, strict=True):
            drawable = total > 0
            q = torch.where(half != 0, scores, 0.0)[drawable] / total[drawable, None]
            if len(q):
                replaced[drawable] += estimated(half[drawable], q, draws, generator)
        pruned.get_parameter(f"{name}.weight").copy_(replaced)
        total = float(sums.max())
        count = float((weight != 0).sum(1).double().mean()) / 2
        promise = error_promised(draws, total, outputs, delta)
        rows.append({"layer": name, "weights": count, "sensitivities": total, "half": promise})
    before, after = (next(layer_inputs(network, layers, [(held_out,)])) for network in (model, pruned))
    for row, (name, layer) in zip(rows, layers.items(), strict=True):
        exact = layer(before[name])
        kept = exact.abs() > 1e-7
        mass = nn.functional.linear(before[name].abs(), layer.weight.abs())
        change = (pruned.get_submodule(name)(after[name]) - exact).abs()
        row["cancellation"] = float((mass[kept] / exact[kept].abs()).median())
        row["measured"] = float((change[kept] / exact[kept].abs()).median())
    table = pd.DataFrame(rows)
    table.insert(5, "promised", composed(table["half"].tolist(), table["cancellation"].tolist()))
    return table
