r"""The guarantee of SiPP (Baykal et al. 2019) made measurable: how well outputs are estimated from drawn weights.

For one sign of a neuron's weights and non-negative inputs a the output is ``z = sum_e w_e a_e``. Draw m weights with
probabilities q, count c_e, and estimate ``z^ = sum_e w_e a_e c_e / (m q_e)``. Whatever q is, the mean of z^ is z; q decides
how far it strays, and :func:`draws_needed` how large m must be.

A layer subtracts what its negative weights send from what its positive weights send. Each of the two sums, estimated from
draws, is right within a factor ``1 ± eps``; the inputs, which come from pruned layers, within ``1 ± e``. Relative to the
difference z (bias included) the error grows, from layer to layer, by the *cancellation*

    Delta = |W| |a| / |z| ,           e_l = Delta_l ((1 + eps_l) (1 + e_{l-1}) - 1) ,           e_0 = 0 .

A ReLU keeps relative errors as they are while they are below 1: signs are then right. Above 1 the chain promises nothing.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pruning_core.checks import Floats, check, checked
from pruning_core.errors import BadInput, Unprunable, known_name
from pruning_core.methods.shared.sensitivities import PROBABILITY, sensitivity
from pruning_core.models.activations import layer_inputs
from pruning_core.models.modes import copied

RULES = ("sipp_random", "l1_sampling", "l2_sampling", "uniform")


@checked(weight=Floats(2), points=Floats(2))
def probabilities(weight: Tensor, points: Tensor, rule: str) -> Tensor:
    """Probabilities of a draw for every weight, each row summing to 1: (outputs, inputs) in float64.

    ``weight`` (outputs, inputs) of one sign, zeros elsewhere; ``points`` (N, inputs), non-negative. Sensitivities are
    computed on the points, the other rules look at the weights alone.

    >>> probabilities(torch.tensor([[1.0, 3.0]]), torch.ones(2, 2), "l1_sampling")
    tensor([[0.2500, 0.7500]])
    """
    known_name("rule", rule, RULES)
    if rule == "sipp_random":
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        layer.weight = nn.Parameter(weight)
        score = sensitivity(layer, [points]).weight
    else:
        score = {"l1_sampling": weight.abs(), "l2_sampling": weight.square(), "uniform": (weight != 0).to(weight)}[rule]
    total = score.sum(1, keepdim=True)
    return torch.where(total > 0, score / total, 0.0)


@checked(weight=Floats(2), q=Floats(2), held_out=Floats(2))
def relative_errors(weight: Tensor, q: Tensor, held_out: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """|z^ - z| / z of every neuron and held-out point with z > 0, flat; one set of draws a neuron.

    ``weight`` and ``q`` (outputs, inputs), ``held_out`` (N, inputs).

    >>> generator = torch.Generator().manual_seed(0)
    >>> weight, points = torch.rand(2, 8, generator=generator), torch.rand(4, 8, generator=generator)
    >>> q = probabilities(weight, points, "uniform")
    >>> relative_errors(weight, q, points, 1000, generator).shape
    torch.Size([8])
    """
    if not weight.shape[1] == q.shape[1] == held_out.shape[1] or len(q) != len(weight):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (weight, q, held_out))
        raise BadInput(f"weight and q (outputs, inputs) and held_out (N, inputs) must fit together, not {shapes}.")
    drawable = q.sum(1) > 0
    w = weight[drawable]
    estimate, exact = held_out @ estimated(w, q[drawable], draws, generator).T, held_out @ w.T
    return ((estimate - exact).abs() / exact.abs())[exact.abs() > 1e-7]


def estimated(weight: Tensor, q: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """``w c / (m q)`` for one set of ``draws`` a row, rows of ``q`` being probabilities: an estimate of (outputs, inputs)."""
    counts = torch.zeros_like(q)
    drawn = torch.multinomial(q, draws, replacement=True, generator=generator)
    counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=q.dtype))
    return torch.where(counts > 0, weight * counts / (draws * q.clamp(min=1e-300)), 0.0)


@checked(weight=Floats(2), points=Floats(2), held_out=Floats(2))
def estimator_rows(
    weight: Tensor,
    points: Tensor,
    held_out: Tensor,
    draws: Sequence[int],
    *,
    repeats: int = 10,
    seed: int = 0,
    rules: Sequence[str] = RULES,
) -> list[dict[str, Any]]:
    """Mean relative error of every rule and number of draws, over neurons, held-out points and ``repeats`` draws.

    Rows: method, draws, relative_error, seed. Only positive weights are looked at; ``points`` and ``held_out`` are
    non-negative inputs of the layer, (N, inputs).

    >>> generator = torch.Generator().manual_seed(0)
    >>> weight, points = torch.rand(2, 8, generator=generator), torch.rand(4, 8, generator=generator)
    >>> rows = estimator_rows(weight, points, points, [5, 500], repeats=2, rules=["uniform"])
    >>> rows[0]["relative_error"] > rows[1]["relative_error"]
    True
    """
    if bool((points < 0).any()) or bool((held_out < 0).any()):
        raise BadInput("estimators of one sign take non-negative inputs, such as those behind a ReLU.")
    if not weight.shape[1] == points.shape[1] == held_out.shape[1]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (weight, points, held_out))
        raise BadInput(f"weight (outputs, inputs), points and held_out (N, inputs) must fit together, not {shapes}.")
    half = weight.double().clamp(min=0)
    rows = []
    for rule in rules:
        q = probabilities(half, points.double(), rule)
        for m in draws:
            generator = torch.Generator().manual_seed(seed)
            found = [relative_errors(half, q, held_out.double(), m, generator).mean() for _ in range(repeats)]
            rows.append({"method": rule, "draws": m, "relative_error": float(torch.stack(found).mean()), "seed": seed})
    return rows


@checked
def draws_needed(error: float, total: float, outputs: int, delta: float = 1e-16, constant: float = 3.0) -> int:
    """Draws that the theory asks for a relative ``error`` of one half: ``ceil((6 + 2 eps) S K ln(8 eta / delta) / eps^2)``.

    ``total`` is the sum S of the half's sensitivities, ``outputs`` eta, the number of outputs of all layers.

    >>> draws_needed(0.5, 1.0, 100)
    3657
    """
    delta = check("delta", delta, PROBABILITY)
    if not error > 0 or not total > 0 or outputs < 1:
        raise BadInput(f"error, sensitivities and outputs are positive, not {error}, {total} and {outputs}.")
    try:
        return math.ceil((6 + 2 * error) * total * constant * math.log(8 * outputs / delta) / error**2)
    except ArithmeticError:
        raise BadInput(
            f"{error=:g}, {total=:g}, {constant=:g} and {delta=:g} ask for a number of draws that floats cannot compute."
        ) from None


@checked
def error_promised(draws: int, total: float, outputs: int, delta: float = 1e-16, constant: float = 3.0) -> float:
    """The relative error for which :func:`draws_needed` asks this number of draws.

    >>> round(error_promised(draws_needed(0.5, 1.0, 100), 1.0, 100), 3)
    0.5
    """
    delta = check("delta", delta, PROBABILITY)
    a = total * constant * math.log(8 * outputs / delta)
    return (a + math.sqrt(a * a + 6 * a * draws)) / draws


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


@checked
def equal_error(promise: float, cancellations: Sequence[float]) -> float:
    """The error that every layer may make so that the last one is promised ``promise``.

    >>> round(equal_error(0.1, [1.0, 2.0]), 4)
    0.0247
    """
    if not promise > 0 or not cancellations or min(cancellations) <= 0:
        raise BadInput(f"promise and cancellations are positive, not {promise} and {list(cancellations)}.")
    low, high = 0.0, promise / cancellations[-1]
    for _ in range(200):
        middle = (low + high) / 2
        short = composed([middle] * len(cancellations), cancellations)[-1] < promise
        low, high = (middle, high) if short else (low, middle)
    return low


@checked(points=Floats(), held_out=Floats())
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

    >>> generator = torch.Generator().manual_seed(0)
    >>> weight, points = torch.rand(2, 8, generator=generator), torch.rand(4, 8, generator=generator)
    >>> len(guarantee_table(nn.Sequential(nn.Linear(8, 3)), points, points, 100))
    1
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    for name, _ in model.named_parameters():
        if name.rpartition(".")[0] not in layers:
            raise Unprunable(f"the chain is shown for linear layers only; {name!r} belongs to none.")
    if not layers:
        raise Unprunable(f"{type(model).__name__} has no linear layer.")
    outputs = sum(layer.out_features for layer in layers.values())
    generator = torch.Generator().manual_seed(seed)
    pruned = copied(model)
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
