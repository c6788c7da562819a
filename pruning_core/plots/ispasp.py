"""Figures of the i-SpaSP chapter: decay of the residual, recovery maps, iterations to step through, spectra, times."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import MaxNLocator

from pruning_core.errors import BadInput
from pruning_core.methods.ispasp import Recovery
from pruning_core.plots.axes import draw_curve
from pruning_core.plots.captions import captioned
from pruning_core.plots.curves import chart
from pruning_core.plots.interactive import Curve, SliderFigure, slider_figure
from pruning_core.plots.style import NEUTRAL, BookFigure, figure, finish, looks_of, style_of, styled


@styled
def chosen(recovery: Recovery, *, title: str = "") -> BookFigure:
    """Which neurons i-SpaSP keeps, sorted by activation (left), and what is missing after every iteration (right).

    ``recovery`` must hold residuals; they are squared, and relative to the dense output.
    """
    shares = _shares_missing(recovery)
    order = recovery.activation.argsort(descending=True, stable=True)
    sizes = (recovery.activation[order] / recovery.activation.max().clamp(min=1e-300)).numpy()
    kept = torch.isin(order, recovery.support).numpy()
    ranks = np.arange(1, len(sizes) + 1)
    fig, ((left, right),) = figure(1, 2, size=(9.6, 3.4), gridspec_kw={"width_ratios": [2.2, 1]})
    left.bar(ranks[~kept], sizes[~kept], color=NEUTRAL, alpha=0.45, label="removed")
    left.bar(ranks[kept], sizes[kept], color=style_of("ispasp").colour, label="kept")
    left.set(xlabel="neuron, by its activation sum", ylabel="activation sum / largest", xlim=(0, len(sizes) + 1))
    left.legend()
    right.plot(range(1, len(shares) + 1), shares, color=style_of("ispasp").colour, marker="o")
    right.set(xlabel="iteration", ylabel="squared residual", yscale="log", ylim=(1e-3, 1.2))
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    skipped = int((~kept[: kept.sum()]).sum())
    alt = (
        f"{kept.sum()} of {len(sizes)} neurons are kept; {skipped} of the {kept.sum()} most active ones are not among them. "
        f"After {len(shares)} iterations the squared residual is {shares[-1]:.2g} of the dense output."
    )
    return finish(fig, None, alt, title)


def _shares_missing(recovery: Recovery) -> list[float]:
    """The squared residual after every iteration, relative to the start."""
    if not recovery.residuals:
        raise BadInput("to see the iterations, ask two_layer for residuals=True.")
    return [float(residual / recovery.residuals[0]) for residual in recovery.residuals[1:]]


@captioned
def iterations_slider(recovery: Recovery, *, title: str = "") -> SliderFigure:
    """Step through the iterations of i-SpaSP: every neuron by its rank in activation and its importance, by its role.

    Neurons are sorted by activation, the largest left. Importance is divided by its largest absolute value in that
    iteration. ``recovery`` must hold residuals.
    """
    shares = _shares_missing(recovery)
    rank = np.empty(len(recovery.activation))
    rank[recovery.activation.argsort(descending=True, stable=True).numpy()] = np.arange(1, len(rank) + 1)
    positions: dict[str, dict[str, Curve]] = {}
    for t, (step, share) in enumerate(zip(recovery.steps, shares, strict=True), 1):
        y = step.importance.numpy() / max(float(step.importance.abs().max()), 1e-300)
        kept, proposed, merged = (np.isin(np.arange(len(y)), s) for s in (step.support, step.proposals, step.merged))
        dropped = merged & ~kept
        roles = {"not proposed": ~merged, "proposed, dropped": dropped & proposed}
        roles |= {"carried over, dropped": dropped & ~proposed, "kept": kept}
        positions[f"iteration {t}: residual {share:.3g}"] = {name: (rank[of], y[of]) for name, of in roles.items()}
    axes: dict[str, Any] = {"x_label": "rank of the activation sum", "y_label": "importance / largest"}
    alt = (
        f"{title}: neurons by rank of activation and importance, iteration by iteration; squared residual after each, "
        f"relative to the start: {', '.join(f'{share:.2g}' for share in shares)}."
    )
    return slider_figure(positions, control="step", title=title, alt=alt, y_range=(-1.08, 1.08), mode="markers", **axes)


@styled
def decay_curves(
    rows: pd.DataFrame, *, slopes: Mapping[float, float], methods: Sequence[str] = ("ispasp",), title: str = ""
) -> BookFigure:
    """Draw the squared residual against the number kept, both logarithmic; a panel a width, a colour a compressibility.

    rows: method, d_hid, p, s, residual, seed. ``slopes``: p -> exponent of the theory, drawn dotted a
    little above. The first of ``methods`` has full lines, the others are broken.
    """
    ordered = rows.sort_values(["d_hid", "p"], kind="stable")
    first, *others = (ordered[ordered["method"] == method] for method in methods)
    fig = chart(first, "s", "residual", "p", panels="d_hid", log="xy", band=0, title=title)
    for ax, (width, part) in zip(fig.axes, first.groupby("d_hid"), strict=True):
        for p, look in looks_of(first["p"], "p").items():
            for other in others:
                also = other[(other["d_hid"] == width) & (other["p"] == p)]
                draw_curve(ax, also, "s", "residual", look, label=None, marker="", linestyle="--")
            curve = part[part["p"] == p].groupby("s")["residual"].mean()
            middle = np.abs(curve.index - 0.25 * width).argmin()
            s = np.array([0.1, 0.5]) * width
            # A little above the curve, so that both can be seen.
            ax.plot(s, 6 * curve.iloc[middle] * (s / curve.index[middle]) ** slopes[p], ":", color=look.colour)
    if others:
        fig.axes[-1].plot(
            [], [], "--", color=NEUTRAL, label=", ".join(style_of(method).label for method in methods[1:])
        )
        fig.axes[-1].legend(loc="lower left")
    return fig
