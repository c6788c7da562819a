"""Figures of the chapter on receding importances."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pruning_core.errors import BadInput
from pruning_core.experiments.importances import BINS
from pruning_core.papers.rni.settling import receding_force, receding_threshold, settled
from pruning_core.plots.captions import captioned
from pruning_core.plots.interactive import SliderFigure, slider_figure
from pruning_core.plots.style import NEUTRAL, BookFigure, figure, finish, style_of, styled

MIDDLES = (np.arange(BINS) + 0.5) / BINS  # of the bins


@captioned
def force_slider(shifts: Sequence[float], *, title: str = "") -> SliderFigure:
    """The force of RNI's penalty on the raw scale against the importance sigma(g); the slider moves the shift b.

    Beside it, at the height of the bump, the force of an L1 penalty on the importance itself: the same everywhere.
    """
    g = torch.linspace(-9, 6, 301, dtype=torch.float64)
    level = g.numpy(), np.full(len(g), 0.26)
    positions = {f"{b:g}": {"rni": (g.numpy(), receding_force(g, b).numpy()), "slimming": level} for b in shifts}
    axes: dict[str, Any] = {"x_label": "raw scale g", "y_label": "force towards smaller scales", "y_range": (0, 0.28)}
    alt = f"{title}: RNI's force is a bump whose top moves from g = -1.2 to the left as b grows; L1's is a level line."
    return slider_figure(positions, control="b =", title=title, alt=alt, **axes)


@captioned
def settled_slider(strengths: Sequence[float], *, b: float = 0.0, title: str = "") -> SliderFigure:
    """Where a scale settles against where the data loss alone would put it, under L1 and under RNI, by strength."""
    targets = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    positions = {}
    for strength in strengths:
        curves = {"rni": settled(targets, strength, "rni", b), "slimming": settled(targets, strength, "l1")}
        positions[f"{strength:g}"] = {name: (targets.numpy(), y.numpy()) for name, y in curves.items()}
    jumps = "; ".join(f"{strength:g}: {receding_threshold(strength, b):.2f}" for strength in strengths)
    alt = (
        f"{title}: under L1 every importance loses the same; under RNI weak ones fall to 0 and strong ones hardly move. "
        f"The jump lies, by strength, at {jumps}."
    )
    axes: dict[str, Any] = {"x_label": "importance that the data loss asks for", "y_label": "importance that settles"}
    axes |= {"x_range": (0, 1), "y_range": (0, 1), "start": len(positions) // 2}
    return slider_figure(positions, control="strength λ =", title=title, alt=alt, **axes)


@styled
def settled_histograms(targets: Tensor, strength: float, *, b: float = 0.0, title: str = "") -> BookFigure:
    """Histograms of the importances that the data loss asks for, and of where they settle under L1 and under RNI.

    targets: in (0, 1), one for each channel; ``strength`` and the shift ``b`` as for :func:`settled`.
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    ends = {"slimming": settled(targets, strength, "l1"), "rni": settled(targets, strength, "rni", b)}
    fig, axes = figure(1, 3, size=(9.6, 3.0), sharey=True)
    looks = [("what the data loss asks for", NEUTRAL)] + [(style_of(m).label, style_of(m).colour) for m in ends]
    for ax, values, (name, colour) in zip(axes[0], (targets, *ends.values()), looks, strict=True):
        share = {"stat": "proportion", "binwidth": 0.05, "binrange": (0, 1)}
        sns.histplot(x=values.double().numpy(), ax=ax, color=colour, **share)
        ax.set(title=name, xlabel="importance", ylabel="share of channels", ylim=(0, 0.6))
    gone = {style_of(m).label: float((end < 1e-3).double().mean()) for m, end in ends.items()}
    left = {
        style_of(m).label: float(end[end >= 1e-3].mean()) if (end >= 1e-3).any() else 0.0 for m, end in ends.items()
    }
    notes = "; ".join(
        f"under {m} {share:.0%} recede to 0, the mean of the others is {left[m]:.2f}" for m, share in gone.items()
    )
    return finish(fig, None, f"at strength {strength:g} {notes}.", title)


@captioned
def histogram_slider(rows: pd.DataFrame, methods: Sequence[str], *, title: str = "") -> SliderFigure:
    """Histograms of importances, relative to the largest, epoch by epoch: one row a method and epoch (Importances)."""
    runs = {method: rows[rows["importance"] == method].set_index("epoch").sort_index() for method in methods}
    for method, run in runs.items():
        if run.empty or run.index.has_duplicates:
            raise BadInput(f"the histograms of {method!r} need rows of one seed, one an epoch.")
    epochs = [epoch for epoch in runs[methods[0]].index if all(epoch in run.index for run in runs.values())]
    positions = {
        f"{epoch:g}": {m: (MIDDLES, _shares(run.at[epoch, "histogram"])) for m, run in runs.items()} for epoch in epochs
    }
    ends = "; ".join(f"{style_of(m).label}: {run['receded_share'].iloc[-1]:.0%} receded" for m, run in runs.items())
    alt = f"{title}: histograms of importances over the epochs. At the end, {ends}."
    axes: dict[str, Any] = {"x_label": "importance / largest", "y_label": "share of channels (cut off at 0.2)"}
    axes |= {"y_range": (0, 0.2), "mode": "bars"}  # the heap at 0 would leave no room for all the others
    return slider_figure(positions, control="epoch", title=title, alt=alt, start=len(positions) - 1, play=True, **axes)


def _shares(histogram: str) -> np.ndarray:
    counts = np.array([int(count) for count in histogram.split()], float)
    return counts / max(counts.sum(), 1.0)


@styled
def histograms(rows: pd.DataFrame, methods: Sequence[str], *, title: str = "") -> BookFigure:
    """One panel a method: the histogram of importances relative to the largest, mean over seeds (rows of Importances)."""
    fig, axes = figure(1, len(methods), size=(9.6, 2.9), sharey=True)
    notes = []
    for ax, method in zip(axes[0], methods, strict=True):
        part = rows[rows["importance"] == method]
        if part.empty:
            raise BadInput(f"there is no row of importances by {method!r}.")
        mean = np.mean([_shares(text) for text in part["histogram"]], axis=0)
        style = style_of(method)
        ax.bar(MIDDLES, mean, width=1 / BINS, color=style.colour)
        ax.set(title=style.label, xlabel="importance / largest", yscale="log", ylim=(1e-3, 1))
        receded, between = part["receded_share"].mean(), part["mid_share"].mean()
        notes.append(f"{style.label}: {receded:.0%} below a tenth, {between:.0%} between")
    axes[0, 0].set_ylabel("share of channels")
    return finish(fig, rows, f"histograms of importances, logarithmic. {'; '.join(notes)} a tenth and a half.", title)
