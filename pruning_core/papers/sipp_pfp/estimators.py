r"""What the guarantee of SiPP is about, made measurable: how well a neuron's output is estimated from drawn weights.

For one sign of a neuron's weights and non-negative inputs a the output is ``z = sum_e w_e a_e``. Draw m weights with
probabilities q, count c_e, and estimate ``z^ = sum_e w_e a_e c_e / (m q_e)``. Whatever q is, the mean of z^ is z; q decides how
far it strays. The theory (Baykal et al. 2019) asks ``m >= (6 + 2 eps) S_h K ln(8 eta / delta) / eps^2`` draws for a relative
error eps, S_h being the sum of sensitivities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Whole, check
from pruning_core.errors import BadInput, known_name
from pruning_core.methods.shared.sensitivities import PROBABILITY, sensitivity

RULES = ("sipp_random", "l1_sampling", "l2_sampling", "uniform")


def probabilities(weight: Tensor, points: Tensor, rule: str) -> Tensor:
    """Probabilities of a draw for every weight, each row summing to 1: (outputs, inputs) in float64.

    ``weight`` (outputs, inputs) of one sign, zeros elsewhere; ``points`` (N, inputs), non-negative. Sensitivities are
    computed on the points, the other rules look at the weights alone.
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


def relative_errors(weight: Tensor, q: Tensor, held_out: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """|z^ - z| / z of every neuron and held-out point with z > 0, flat; one set of draws a neuron.

    ``weight`` and ``q`` (outputs, inputs), ``held_out`` (N, inputs).
    """
    draws = check("draws", draws, Whole(at_least=1))
    drawable = q.sum(1) > 0
    w = weight[drawable]
    estimate = held_out @ estimated(w, q[drawable], draws, generator).T
    exact = held_out @ w.T
    seen = exact.abs() > 1e-7
    return ((estimate - exact).abs() / exact.abs())[seen]


def estimated(weight: Tensor, q: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """``w c / (m q)`` for one set of ``draws`` a row, rows of ``q`` being probabilities: an estimate of (outputs, inputs)."""
    counts = torch.zeros_like(q)
    drawn = torch.multinomial(q, draws, replacement=True, generator=generator)
    counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=q.dtype))
    return torch.where(counts > 0, weight * counts / (draws * q.clamp(min=1e-300)), 0.0)


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
    """
    if bool((points < 0).any()) or bool((held_out < 0).any()):
        raise BadInput("estimators of one sign take non-negative inputs, such as those behind a ReLU.")
    half = weight.double().clamp(min=0)
    rows = []
    for rule in rules:
        q = probabilities(half, points.double(), rule)
        for m in draws:
            generator = torch.Generator().manual_seed(seed)
            found = [relative_errors(half, q, held_out.double(), m, generator).mean() for _ in range(repeats)]
            rows.append({"method": rule, "draws": m, "relative_error": float(torch.stack(found).mean()), "seed": seed})
    return rows


def draws_needed(error: float, total: float, outputs: int, delta: float = 1e-16, constant: float = 3.0) -> int:
    """Draws that the theory asks for a relative ``error`` of one half: ``ceil((6 + 2 eps) S K ln(8 eta / delta) / eps^2)``.

    ``total`` is the sum S of the half's sensitivities, ``outputs`` eta, the number of outputs of all layers.
    """
    delta = check("delta", delta, PROBABILITY)
    if not error > 0 or not total > 0 or outputs < 1:
        raise BadInput(f"error, sensitivities and outputs are positive, not {error}, {total} and {outputs}.")
    return math.ceil((6 + 2 * error) * total * constant * math.log(8 * outputs / delta) / error**2)


def error_promised(draws: int, total: float, outputs: int, delta: float = 1e-16, constant: float = 3.0) -> float:
    """The relative error for which :func:`draws_needed` asks this number of draws."""
    delta = check("delta", delta, PROBABILITY)
    a = total * constant * math.log(8 * outputs / delta)
    return (a + math.sqrt(a * a + 6 * a * draws)) / draws
