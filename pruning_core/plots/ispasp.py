"""Figures of the i-SpaSP chapter: decay of the residual, recovery maps, iterations to step through, spectra, times."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import over_seeds
from pruning_core.plots.curves import method_lines
from pruning_core.plots.interactive import SliderFigure, slider_figure
from pruning_core.plots.style import (
    NEUTRAL,
    SERIES,
    BookFigure,
    figure,
    finish,
    panel,
    plain_ticks,
    round_numbers,
    style_of,
    styled,
)

if TYPE_CHECKING:
    from pruning_core.methods.ispasp import Recovery

_LINES = ("-", "--", ":", "-.")


@styled
def decay_curves(
    rows: pd.DataFrame, *, slopes: Mapping[float, float], methods: Sequence[str] = ("ispasp",), title: str = ""
) -> BookFigure:
    """Draw the squared residual against the number kept, both logarithmic; a panel a width, a colour a compressibility.

    rows: method, d_hid, p, s, residual, seed. ``slopes``: p -> exponent of the theory, drawn dotted a
    little above. The first of ``methods`` is a full line, the others are broken.
    """
    widths = sorted(rows["d_hid"].unique())
    fig, axes = figure(1, len(widths), size=(4.8 * len(widths), 4.2), sharey=True)
    notes = []
    for ax, width in zip(axes[0], widths, strict=True):
        part = rows[rows["d_hid"] == width]
        for colour, p in zip(SERIES, sorted(part["p"].unique()), strict=False):
            for line, method in zip(_LINES, methods, strict=False):
                curve = over_seeds(part[(part["p"] == p) & (part["method"] == method)], ["s"], "residual")
                label = f"p = {p:g}" if method == methods[0] else None
                ax.plot(curve["s"], curve["mean"], line, color=colour, label=label)
                if method == methods[0]:
                    middle = curve.iloc[(curve["s"] - 0.25 * width).abs().argmin()]
                    s = np.array([0.1, 0.5]) * width
                    # A little above the curve, so that both can be seen.
                    ax.plot(s, 6 * middle["mean"] * (s / middle["s"]) ** slopes[p], ":", color=colour)
                    notes.append(
                        f"width {width}, p = {p:g}: {curve['mean'].iloc[0]:.1e} to {curve['mean'].iloc[-1]:.1e}"
                    )
        ax.set(xscale="log", yscale="log", xlabel="neurons kept", title=f"hidden width {width}")
        plain_ticks(ax.xaxis, round_numbers(part["s"].min(), part["s"].max()))
    axes[0, 0].set(ylabel="squared residual")
    axes[0, 0].legend(loc="lower left")
    if len(methods) > 1:
        names = [style_of(m).label for m in methods]
        axes[0, -1].legend(
            handles=[
                axes[0, -1].plot([], [], line, color=NEUTRAL, label=name)[0]
                for line, name in zip(_LINES, names, strict=False)
            ],
            loc="lower left",
        )
    return finish(fig, rows, f"squared residual against neurons kept. {'; '.join(notes)}.", title, panels=True)


@styled
def recovery_maps(rows: pd.DataFrame, *, methods: Sequence[str], title: str = "") -> BookFigure:
    """Draw, for each method, how often the support is found over the number of active neurons and of outputs.

    rows: method, s, outputs, recovered (a fraction). One cell a pair, so that uneven grids stay readable.
    """
    fig, axes = figure(1, len(methods), size=(3.4 * len(methods) + 0.6, 3.9), sharey=True)
    notes = []
    for ax, method in zip(axes[0], methods, strict=True):
        part = rows[rows["method"] == method]
        if part.empty:
            raise BadInput(f"there is no row of {method!r} to draw.")
        grid = part.pivot_table(index="s", columns="outputs", values="recovered")
        mesh = ax.imshow(grid.to_numpy(float), origin="lower", cmap="cividis", vmin=0, vmax=1, aspect="auto")
        ax.set_xticks(range(len(grid.columns)), [f"{v:g}" for v in grid.columns])
        ax.set_yticks(range(len(grid.index)), [f"{v:g}" for v in grid.index])
        ax.set(xlabel="outputs", title=style_of(method).label)
        ax.grid(visible=False)
        notes.append(f"{style_of(method).label}: found in {100 * part['recovered'].mean():.0f} % of all draws")
    axes[0, 0].set(ylabel="active neurons")
    fig.colorbar(mesh, ax=list(axes[0]), label="support found")
    return finish(fig, rows, f"heat maps over outputs and active neurons. {'; '.join(notes)}.", title, panels=True)


@styled
def spectra(rows: pd.DataFrame, *, exponents: Sequence[float] = (1.0,), title: str = "") -> BookFigure:
    """Draw sorted activation sums, relative to the largest, both axes logarithmic; one curve a ``name``.

    rows: name, rank (from 1), size. ``exponents``: dotted lines ``rank ** -e`` for comparison; 1 is the border of p < 1.
    """
    fig, ax = panel()
    notes = []
    for i, (name, part) in enumerate(rows.groupby("name", sort=False)):
        curve = over_seeds(part, ["rank"], "size")
        colour = SERIES[i % len(SERIES)]
        ax.plot(curve["rank"], curve["mean"], _LINES[i // len(SERIES)], color=colour, label=str(name))
        half = curve.iloc[len(curve) // 2]
        notes.append(f"{name}: {half['mean']:.2g} of the largest at rank {half['rank']:.0f}")
    ranks = np.geomspace(1, rows["rank"].max(), 50)
    for e in exponents:
        ax.plot(ranks, ranks**-e, ":", color=NEUTRAL, label=f"rank$^{{-{e:g}}}$")
    low = max(rows.loc[rows["size"] > 0, "size"].min(), 1e-4)
    ax.set(xscale="log", yscale="log", xlabel="rank", ylabel="activation sum / largest", title=title, ylim=(low, 1.5))
    ax.legend()
    return finish(fig, rows, f"sorted activation sums. {'; '.join(notes)}.", title)


@styled
def times_against_width(rows: pd.DataFrame, *, x: str = "hidden", title: str = "") -> BookFigure:
    """Draw seconds of selection against the width of the layer, both logarithmic: one curve a method, bands over seeds."""
    fig, ax = panel()
    notes = method_lines(ax, rows, x, "seconds")
    ax.set(xlabel="hidden units", ylabel="seconds", title=title)
    ax.legend()
    return finish(fig, rows, f"seconds of selection against hidden units. {'; '.join(notes)}.", title)


def iterations_slider(recovery: "Recovery", *, title: str = "") -> SliderFigure:
    """Step through the iterations of i-SpaSP: every neuron by its rank in activation and its importance, by its role.

    Neurons are sorted by activation, the largest left. Importance is divided by its largest absolute value in that
    iteration. ``recovery`` must hold residuals.
    """
    if not recovery.residuals:
        raise BadInput("to step through the iterations, ask two_layer for residuals=True.")
    rank = np.empty(len(recovery.activation))
    rank[recovery.activation.argsort(descending=True, stable=True).numpy()] = np.arange(1, len(rank) + 1)
    positions: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for t, step in enumerate(recovery.steps, 1):
        y = step.importance.numpy() / max(float(step.importance.abs().max()), 1e-300)
        kept, proposed = set(step.support.tolist()), set(step.proposals.tolist())
        merged = set(step.merged.tolist())
        roles = {
            "not proposed": [i for i in range(len(y)) if i not in merged],
            "proposed, dropped": [i for i in sorted(merged - kept) if i in proposed],
            "carried over, dropped": [i for i in sorted(merged - kept) if i not in proposed],
            "kept": sorted(kept),
        }
        share = recovery.residuals[t] / recovery.residuals[0]
        label = f"iteration {t}: residual {share:.3g}"
        positions[label] = {name: (rank[members], y[members]) for name, members in roles.items()}
    sizes = ", ".join(f"{recovery.residuals[t] / recovery.residuals[0]:.2g}" for t in range(1, len(recovery.residuals)))
    return slider_figure(
        positions,
        control="step",
        x_label="rank of the activation sum",
        y_label="importance / largest",
        mode="markers",
        title=title,
        y_range=(-1.08, 1.08),
        alt=f"{title}: neurons by rank of activation and importance, iteration by iteration; squared residual after each, "
        f"relative to the start: {sizes}.",
    )
