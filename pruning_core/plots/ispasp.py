"""Figures of the i-SpaSP chapter: decay of the residual, recovery maps, iterations to step through, spectra, times."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import MaxNLocator

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import over_seeds, require_rows
from pruning_core.methods.ispasp import Recovery
from pruning_core.plots.axes import interval_of, method_lines, plain_ticks, round_numbers
from pruning_core.plots.captions import captioned
from pruning_core.plots.interactive import Curve, SliderFigure, slider_figure
from pruning_core.plots.style import (
    COLOURS,
    NEUTRAL,
    SERIES,
    BookFigure,
    facets,
    figure,
    finish,
    series,
    style_of,
    styled,
)

_LINES = ("-", "--", ":", "-.")


@styled
def decay_curves(
    rows: pd.DataFrame, *, slopes: Mapping[float, float], methods: Sequence[str] = ("ispasp",), title: str = ""
) -> BookFigure:
    """Draw the squared residual against the number kept, both logarithmic; a panel a width, a colour a compressibility.

    rows: method, d_hid, p, s, residual, seed. ``slopes``: p -> exponent of the theory, drawn dotted a
    little above. The first of ``methods`` is a full line, the others are broken.
    """
    fig, panels = facets(rows.sort_values("d_hid", kind="stable"), "d_hid", 4.8, 4.2, sharey=True)
    notes = []
    for ax, width, part in panels:
        for p, style, some in series(part, "p", "p = {:g}", sort=True):
            curves = {m: over_seeds(some[some["method"] == m], ["s"], "residual") for m in methods}
            for line, (method, curve) in zip(_LINES, curves.items(), strict=False):
                label = style.label if method == methods[0] else None
                ax.plot(curve["s"], curve["mean"], line, color=style.colour, label=label)
            first = curves[methods[0]]
            middle = first.iloc[(first["s"] - 0.25 * width).abs().argmin()]
            s = np.array([0.1, 0.5]) * width
            # A little above the curve, so that both can be seen.
            ax.plot(s, 6 * middle["mean"] * (s / middle["s"]) ** slopes[p], ":", color=style.colour)
            ends = " to ".join(f"{mean:.1e}" for mean in first["mean"].iloc[[0, -1]])
            notes.append(f"width {width}, {style.label}: {ends}")
        ax.set(xscale="log", yscale="log", xlabel="neurons kept", title=f"hidden width {width}")
        plain_ticks(ax.xaxis, round_numbers(part["s"].min(), part["s"].max()))
    left, right = panels[0][0], panels[-1][0]
    left.set_ylabel("squared residual")
    left.legend(loc="lower left")
    if len(methods) > 1:
        named = [(line, style_of(method).label) for line, method in zip(_LINES, methods, strict=False)]
        handles = [right.plot([], [], line, color=NEUTRAL, label=label)[0] for line, label in named]
        right.legend(handles=handles, loc="lower left")
    return finish(fig, rows, f"squared residual against neurons kept. {'; '.join(notes)}.", title)


@styled
def recovery_maps(rows: pd.DataFrame, *, methods: Sequence[str], title: str = "") -> BookFigure:
    """Draw, for each method, how often the support is found over the number of active neurons and of outputs.

    rows: method, s, outputs, recovered (a fraction). One cell a pair, so that uneven grids stay readable.
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    fig, axes = figure(1, len(methods), size=(3.4 * len(methods) + 0.6, 3.9), sharey=True)
    notes = []
    for ax, method in zip(axes[0], methods, strict=True):
        part = rows[rows["method"] == method]
        if part.empty:
            raise BadInput(f"there is no row of {method!r} to draw.")
        grid = part.pivot_table(index="s", columns="outputs", values="recovered")
        sns.heatmap(grid, ax=ax, cmap="cividis", vmin=0, vmax=1, cbar=False, rasterized=True)
        ax.invert_yaxis()
        ax.tick_params("y", rotation=0)
        ax.set(xlabel="outputs", ylabel="", title=style_of(method).label)
        notes.append(f"{style_of(method).label}: found in {100 * part['recovered'].mean():.0f} % of all draws")
    axes[0, 0].set_ylabel("active neurons")
    fig.colorbar(axes[0, 0].collections[0], ax=list(axes[0]), label="support found")
    return finish(fig, rows, f"heat maps over outputs and active neurons. {'; '.join(notes)}.", title)


@styled
def spectra(rows: pd.DataFrame, *, exponents: Sequence[float] = (1.0,), title: str = "") -> BookFigure:
    """Draw sorted activation sums, relative to the largest, both axes logarithmic; one curve a ``name``.

    rows: name, rank (from 1), size. ``exponents``: dotted lines ``rank ** -e`` for comparison; 1 is the border of p < 1.
    """
    fig, ((ax,),) = figure()
    notes = []
    for i, (name, style, part) in enumerate(series(rows, "name")):
        curve = over_seeds(part, ["rank"], "size")
        ax.plot(curve["rank"], curve["mean"], _LINES[i // len(SERIES)], color=style.colour, label=style.label)
        half = curve.iloc[len(curve) // 2]
        notes.append(f"{name}: {half['mean']:.2g} of the largest at rank {half['rank']:.0f}")
    ranks = np.geomspace(1, rows["rank"].max(), 50)
    for e in exponents:
        ax.plot(ranks, ranks**-e, ":", color=NEUTRAL, label=f"rank$^{{-{e:g}}}$")
    low = max(rows.loc[rows["size"] > 0, "size"].min(), 1e-4)
    ax.set(xscale="log", yscale="log", xlabel="rank", ylabel="activation sum / largest", ylim=(low, 1.5))
    return finish(fig, rows, f"sorted activation sums. {'; '.join(notes)}.", title)


@styled
def times_against_width(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw seconds of selection against the width of the layer, both logarithmic: one curve a method, bands over seeds."""
    fig, ((ax,),) = figure()
    notes = method_lines(ax, rows, "hidden", "seconds")
    ax.set(xlabel="hidden units", ylabel="seconds")
    return finish(fig, rows, f"seconds of selection against hidden units. {'; '.join(notes)}.", title)


@styled
def statistics_of_norms(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw accuracy right after a cut by the share of channels kept, a bar for each way to treat batch-norm statistics.

    rows: kept (a fraction), statistics (a word), accuracy (percent), seed. Whiskers are 95 % intervals over seeds.
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    require_rows(rows, ("kept", "statistics", "accuracy", "seed"))
    fig, ((ax,),) = figure(size=(7.6, 3.4))
    order = ["fresh", "cut along", "measured again"]
    look = dict(zip(order, (NEUTRAL, COLOURS["ochre"], COLOURS["blue"]), strict=True))
    named = rows.assign(kept=[f"{100 * kept:.0f} % kept" for kept in rows["kept"]]).sort_values("kept")
    bars = {"hue_order": order, "palette": look, "capsize": 0.15, "errorbar": interval_of}
    sns.barplot(named, x="kept", y="accuracy", hue="statistics", ax=ax, err_kws={"linewidth": 1.2}, **bars)
    ax.set(xlabel="channels inside the blocks", ylabel="test accuracy (%)", ylim=(0, 100))
    ax.legend(title="statistics of batch norm")
    means = named.groupby(["kept", "statistics"])["accuracy"].mean()
    notes = "; ".join(f"{kept}, {kind}: {value:.0f} %" for (kept, kind), value in means.items())
    return finish(fig, rows, f"accuracy right after the cut. {notes}.", title)


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
