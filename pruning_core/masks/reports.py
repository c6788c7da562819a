"""What a pruning step did: asked and reached, weights, channels and multiply-accumulates side by side, per layer."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor, nn

from pruning_core.checks import OneOf, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.masks.groups import any_alive
from pruning_core.masks.masks import count_alive
from pruning_core.masks.sites import Sites

if TYPE_CHECKING:
    import pandas


NOTHING_CUT = (
    "nothing at all was cut, for no score is at or below the threshold: train longer, or with a stronger penalty"
)
"""The remark on a cut by a threshold that changed nothing; it stands in the first line of a report, and in rows."""
COLUMNS = ["layer", "weights", "removed", "sparsity", "rows", "empty_rows", "macs", "macs_removed"]


@dataclass(frozen=True)
class Report:
    """``removed`` maps "weights", "channels" and "macs" to (removed, total); macs count zeros as if they were skipped.

    For methods that prune single weights, "channels" counts output rows without any weight left. ``rows`` has a tuple a
    layer, the entries of ``COLUMNS``, which ``layers`` shows as a table; ``not_prunable`` maps layers and groups to the
    reason; ``left_out`` says what share of the network's weights could not go, and why.

    >>> import pruning_core as pc
    >>> report = pc.prune(nn.Linear(10, 1), "magnitude", 0.5).report
    >>> print(report.summary)
    magnitude: asked 50.00% of weights, reached 50.00%
      weights                5 of              10 removed (50.00%)
      channels               0 of               1 removed (0.00%)
    """

    method: str
    asked: float | None
    of: str
    removed: Mapping[str, tuple[int, int]]
    rows: tuple[tuple, ...]
    not_prunable: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    left_out: str = ""

    @cached_property
    def layers(self) -> pandas.DataFrame:
        """One row a layer; without the columns of macs where they were not counted. Made when first asked for: a table takes
        longer than the cut of a small network."""
        import pandas

        table = pandas.DataFrame(self.rows, columns=COLUMNS)
        return table if "macs" in self.removed else table.drop(columns=["macs", "macs_removed"])

    @property
    def reached(self) -> float:
        """The fraction removed, of what the budget counted."""
        return self.fraction(self.of)

    @checked(of=OneOf("weights", "channels", "macs"))
    def fraction(self, of: str) -> float:
        """The fraction removed of "weights", "channels" or "macs"; NaN where it was not measured."""
        if of not in self.removed:
            return math.nan
        removed, total = self.removed[of]
        return removed / total if total else 0.0

    @property
    def summary(self) -> str:
        """What was asked and what was removed, and the remarks: a few lines."""
        asked = "no target" if self.asked is None else f"asked {self.asked:.2%} of {self.of}"
        nothing = f"; {NOTHING_CUT}" if NOTHING_CUT in self.remarks else ""
        left = f"; left out: {self.left_out}" if self.left_out else ""
        lines = [f"{self.method}: {asked}, reached {self.reached:.2%}{nothing}{left}"]
        for of, (removed, total) in self.removed.items():
            lines.append(f"  {of:9}{removed:>15,} of {total:>15,} removed ({self.fraction(of):.2%})")
        return "\n".join([*lines, *(f"  note: {remark}" for remark in self.remarks if remark != NOTHING_CUT)])

    def __str__(self) -> str:
        lines = [self.summary, self.layers.to_string(index=False, float_format=lambda value: f"{value:.3f}")]
        if self.not_prunable:
            lines.append("not prunable:")
            lines += [f"  {name}: {why}" for name, why in self.not_prunable.items()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = html.escape(self.summary).replace("\n", "<br>")
        reasons = "".join(f"<li>{html.escape(f'{name}: {why}')}</li>" for name, why in self.not_prunable.items())
        table = self.layers.to_html(index=False, float_format=lambda value: f"{value:.3f}", border=0)
        tail = f"<details><summary>not prunable</summary><ul>{reasons}</ul></details>" if reasons else ""
        return f"<div><p>{head}</p><details><summary>layer by layer</summary>{table}</details>{tail}</div>"


def count_removed(of: str, masks: Mapping[str, Tensor], sites: Sites) -> tuple[int, int]:
    """(removed, total) of "weights", "channels" (of the groups) or "macs"; BadInput for macs that were not counted."""
    if of == "channels":
        dead = sum(int((~group.alive(masks)).sum()) for group in sites.groups.values())
        return dead, sum(group.size for group in sites.groups.values())
    costs = dict.fromkeys(sites.weights, 1) if of == "weights" else sites.positions
    if costs is None:
        raise BadInput("a budget of macs needs example_input (or batches), to know how often each weight is used.")
    removed = total = 0
    for name in sites.weights:
        cost, size = costs.get(name, 0), math.prod(sites.shapes[name])
        total += cost * size
        if name in masks:
            removed += cost * (size - count_alive(masks[name]))
    return removed, total


def make_report(
    method: str, asked: float | None, of: str, masks: Mapping[str, Tensor], sites: Sites, remarks=()
) -> Report:
    """Count what ``masks`` remove at ``sites``."""
    rows = []
    for name in sites.weights:
        shape = sites.shapes[name]
        total = math.prod(shape)
        mask = masks.get(name)
        dead = 0 if mask is None else total - count_alive(mask)
        empty = 0 if mask is None else int((~any_alive(mask, 0)).sum())
        cost = sites.positions.get(name, 0) if sites.positions is not None else 0
        rows.append((name, total, dead, dead / total, shape[0], empty, total * cost, dead * cost))
    removed = {"weights": (sum(row[2] for row in rows), sum(row[1] for row in rows))}
    if sites.groups:
        removed["channels"] = count_removed("channels", masks, sites)
    else:
        removed["channels"] = sum(row[5] for row in rows), sum(row[4] for row in rows)
    if sites.positions is not None:
        removed["macs"] = sum(row[7] for row in rows), sum(row[6] for row in rows)
    return Report(method, asked, of, removed, tuple(rows), dict(sites.excluded), tuple(remarks), left_out(sites))


def left_out(sites: Sites) -> str:
    """The share of the network's weights (its tensors of two dimensions and more) of which nothing could go, with the reason
    of the largest part; "" if there are none."""
    if sites.groups:
        reached = {member.parameter for group in sites.groups.values() for member in group.members}
    else:
        reached = set(sites.weights)
    sizes = {name: math.prod(shape) for name, shape in sites.shapes.items() if len(shape) > 1}
    reasons: dict[str, int] = {}
    for name, size in sizes.items():
        if name not in reached:
            layer = name.rpartition(".")[0]
            keys = [key for key in (name, layer, f"channels of {layer}") if key in sites.excluded]
            reason = sites.excluded[keys[0]] if keys else "no channel that can go reaches them"
            reasons[reason] = reasons.get(reason, 0) + size
    packed = [name for name, reason in sites.excluded.items() if reason.startswith("quantised")]
    parts = [f"{len(packed)} quantised layers"] if packed else []
    if reasons:
        share = sum(reasons.values()) / sum(sizes.values())
        most = max(reasons, key=reasons.__getitem__)
        mostly = "mostly " if len(reasons) > 1 else ""
        parts.append(f"{share:.1%} of the network's weights ({mostly}{most})")
    return " and ".join(parts)


@checked
def layer_density(
    model: nn.Module, masks: Mapping[str, Tensor], names: Iterable[str] | None = None
) -> dict[str, float]:
    """Living fraction of each weight matrix or filter bank, in [0, 1], by parameter name; 1 for one without a mask.

    Raises UnknownName for a name that is no parameter, BadInput for a mask of another shape than its parameter.

    >>> import torch
    >>> network = nn.Linear(4, 1)
    >>> layer_density(network, {"weight": torch.tensor([[True, False, False, False]])})
    {'weight': 0.25}
    """
    shapes = {name: parameter.shape for name, parameter in model.named_parameters(remove_duplicate=False)}
    chosen = [n for n, p in model.named_parameters() if p.dim() > 1] if names is None else list(names)
    for name in chosen:
        known_name("parameter", name, shapes)
        if name in masks and masks[name].shape != shapes[name]:
            raise BadInput(
                f"the mask of {name!r} has shape {tuple(masks[name].shape)}, its parameter {tuple(shapes[name])}."
            )
    return {n: count_alive(masks[n]) / shapes[n].numel() if n in masks else 1.0 for n in chosen}


@checked
def dead_layers(model: nn.Module, masks: Mapping[str, Tensor]) -> list[str]:
    """Names of weight tensors that have no living entry: the network is cut in two there.

    >>> import torch
    >>> network = nn.Linear(4, 2, bias=False)
    >>> dead_layers(network, {"weight": torch.zeros(2, 4, dtype=torch.bool)})
    ['weight']
    """
    return [name for name, density in layer_density(model, masks).items() if density == 0]


@checked
def dead_units(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, int]:
    """For each weight tensor the number of outputs without a living weight.

    >>> import torch
    >>> network = nn.Linear(3, 2, bias=False)
    >>> dead_units(network, {"weight": torch.tensor([[True, False, True], [False, False, False]])})
    {'weight': 1}
    """
    return {
        name: int((~any_alive(masks[name], 0)).sum()) if name in masks else 0 for name in layer_density(model, masks)
    }
