r"""Where a penalty lets importances settle.

A scale s in (0, 1) that the data loss pulls back to t like ``(s - t)^2 / 2`` settles where pull and penalty balance. An L1
penalty of strength lambda takes the same from all scales, RNI's (Suteu and Guo 2022) from the weak ones:

    L1    s = max(0, t - lambda)
    RNI   t = s - lambda ln s    (b = 0), with two solutions for t > t* = lambda (1 - ln lambda), and none below

From its start at t a scale sinks to the upper solution. Below t* nothing holds it, and it recedes towards 0: the penalty
itself has a threshold, where L1 has none. With a shift b the balance is ``t = s - lambda v (1 - v) ln v / (s (1 - s))``,
v = sigmoid(logit(s) + b).
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pruning_core.checks import Real, check, checked
from pruning_core.errors import BadInput, shown

GRID = torch.linspace(-30, 14, 44_001, dtype=torch.float64)


@checked
def receding_force(g: Tensor, b: float = 0.0) -> Tensor:
    """dR/dg = -v (1 - v) ln v with v = sigmoid(g + b): how hard RNI's penalty pushes a raw scale down.

    >>> receding_force(torch.tensor([-6.0, -1.177, 6.0])).round(decimals=3)
    tensor([0.0150, 0.2600, 0.0000])
    """
    u = g + b
    return -F.logsigmoid(u) * torch.exp(F.logsigmoid(u) + F.logsigmoid(-u))


@checked
def settled(targets: Tensor, strength: float, penalty: str = "rni", b: float = 0.0) -> Tensor:
    """Where scales with the ``targets`` t in (0, 1) settle: in [0, t], the same shape; 0 for those that recede.

    ``penalty``: "rni" or "l1". Accurate to about 1e-6.

    >>> settled(torch.tensor([0.1, 0.9]), 0.5)
    tensor([0.0000, 0.7680], dtype=torch.float64)
    """
    held = _held_targets(strength, b)
    targets = torch.as_tensor(targets, dtype=torch.float64)
    if not bool(((targets > 0) & (targets < 1)).all()):
        raise BadInput("targets are importances in (0, 1).")
    if penalty == "l1":
        return (targets - strength).clamp(min=0)
    if penalty != "rni":
        raise BadInput(f"the penalty is 'rni' or 'l1', not {shown(penalty)}.")
    found = torch.zeros_like(targets).flatten()
    for i, t in enumerate(targets.flatten().tolist()):
        start = int(torch.searchsorted(GRID, math.log(t / (1 - t))))
        # Sinking from the start, the pull wins for the first time where the held target falls below t.
        below = torch.nonzero(held[:start] <= t).flatten()
        if len(below):
            k = int(below[-1])
            low, high = held[k], held[k + 1] if k + 1 < len(held) else held[k]
            part = float((t - low) / (high - low)) if high > low else 0.0
            found[i] = torch.sigmoid(GRID[k] + min(part, 1.0) * (GRID[1] - GRID[0]))
    return torch.minimum(found.view_as(targets), targets)


@checked
def receding_threshold(strength: float, b: float = 0.0) -> float:
    """The target t* below which RNI's penalty has no balance, so that the scale recedes; lambda (1 - ln lambda) for b = 0.

    1 when every scale recedes.

    >>> round(receding_threshold(0.1), 4)
    0.3303
    """
    held = float(_held_targets(strength, b).min())
    return min(1.0, held) if strength > 0 else 0.0


def _held_targets(strength: float, b: float) -> Tensor:
    """The target whose balance is at the raw scale g, for every g of GRID: s + lambda R'(g) / (s (1 - s))."""
    check("strength", strength, Real(at_least=0))
    check("b", b, Real())
    slope = torch.exp(F.logsigmoid(GRID) + F.logsigmoid(-GRID))
    return torch.sigmoid(GRID) + strength * receding_force(GRID, b) / slope
