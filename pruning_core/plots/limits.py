"""Figures of predicted and measured pruning limits."""

import numpy as np
import pandas as pd

from pruning_core.errors import BadInput

from .curves import set_sparsity_axis
from .style import NEUTRAL, BookFigure, figure, set_alt, stamp, style_of, styled


@styled
def predicted_against_measured(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """A point a network: predicted against measured limit, a colour a penalty strength; bars are bands over probes.

    rows: strength, predicted, limit, and predicted_low, predicted_high where there is a band. On the dotted line the two
    agree; points above it are optimistic.
    """
    rows = rows.dropna(subset=["predicted", "limit"])
    if rows.empty:
        raise BadInput("there is no row with a predicted and a measured limit to draw.")
    fig, axes = figure(size=(6.4, 5.0))
    ax = axes[0, 0]
    strengths = sorted(rows["strength"].unique())
    colours = [
        style_of(name).colour for name in ("dense", "slimming", "pfp", "grasp", "rni", "ispasp", "thinet", "l1_norm")
    ]
    said = []
    for i, strength in enumerate(strengths):
        part = rows[rows["strength"] == strength]
        colour = colours[i % len(colours)]
        label = f"λ = {strength:g}"
        if {"predicted_low", "predicted_high"} <= set(part.columns) and part["predicted_low"].notna().all():
            spread = np.abs(
                np.stack([part["predicted"] - part["predicted_low"], part["predicted_high"] - part["predicted"]])
            )
            ax.errorbar(part["limit"], part["predicted"], yerr=spread, fmt="none", ecolor=colour, elinewidth=1)
        ax.scatter(part["limit"], part["predicted"], color=colour, label=label, zorder=3)
        said.append(f"{label}: measured {part['limit'].mean():.2f}, predicted {part['predicted'].mean():.2f}")
    low = min(rows["limit"].min(), rows["predicted"].min())
    ax.plot([low, 1], [low, 1], ":", color=NEUTRAL)
    ax.set(xlabel="measured limit: loss within the tolerance", ylabel="predicted limit", title=title)
    ax.xaxis.set_major_formatter(lambda p, _: f"{100 * p:.0f} %")
    ax.yaxis.set_major_formatter(lambda p, _: f"{100 * p:.0f} %")
    ax.legend()
    stamp(fig, rows)
    set_alt(fig, f"{title + ': ' if title else ''}predicted against measured limit. Means: {'; '.join(said)}.")
    return fig


@styled
def transition(curves: pd.DataFrame, limits: pd.Series, *, title: str = "") -> BookFigure:
    """Accuracy (left) and loss (right) against the fraction removed, one line a strength; dashed: the predicted limit.

    curves: removed, accuracy, loss, strength, of one seed. limits: strength -> predicted limit. The axis is logarithmic in
    the fraction kept.
    """
    curves = curves[curves["removed"] <= 0.99]  # what lies beyond is chance
    if curves.empty:
        raise BadInput("there is no curve to draw.")
    fig, axes = figure(1, 2, size=(9.6, 3.8))
    colours = [style_of(name).colour for name in ("dense", "slimming", "pfp", "grasp", "rni", "ispasp")]
    said = []
    for i, (strength, part) in enumerate(curves.groupby("strength")):
        part, colour = part.sort_values("removed"), colours[i % len(colours)]
        for ax, column in zip(axes[0], ("accuracy", "loss"), strict=True):
            ax.plot(part["removed"], part[column], color=colour, label=f"λ = {strength:g}")
            if strength in limits:
                ax.axvline(float(limits[strength]), color=colour, linestyle="--", linewidth=1.2)
        if strength in limits:
            said.append(f"λ = {strength:g} predicted {float(limits[strength]):.3f}")
    for ax, name in zip(axes[0], ("accuracy (%)", "loss"), strict=True):
        set_sparsity_axis(ax, curves["removed"].to_numpy(float))
        ax.set(xlabel="weights removed", ylabel=name)
    axes[0, 1].set_yscale("log")
    axes[0, 0].legend()
    if title:
        fig.suptitle(title)
    stamp(fig, curves)
    set_alt(
        fig,
        f"{title + ': ' if title else ''}accuracy and loss fall and rise sharply; dashed limits: {'; '.join(said)}.",
    )
    return fig
