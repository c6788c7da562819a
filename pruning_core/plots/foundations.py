"""Figures of chapter 0: what a cut counts, what it costs in time, where masks and schedules put the zeros."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter

from pruning_core.experiments.intervals import over_seeds, require_rows
from pruning_core.plots.axes import level, lines, percent, plain_ticks, round_numbers, set_sparsity_axis, spreads
from pruning_core.plots.captions import captioned
from pruning_core.plots.interactive import Curve, SliderFigure, slider_figure
from pruning_core.plots.style import NEUTRAL, SERIES, STYLES, BookFigure, facets, figure, finish, panel, styled, titled

SPREAD_STYLE, ROUNDS_STYLE = STYLES["spreads"], STYLES["rounds"]
"""How the ways of spreading a budget, and cuts in one round and in several, are drawn."""


@styled
def grouped_bars(
    rows: pd.DataFrame, *, by: str, values: Mapping[str, str], axis: str = "share", title: str = ""
) -> BookFigure:
    """Draw one group of horizontal bars for each value of ``by``: means over seeds with 95 % intervals.

    ``values`` maps columns, which hold fractions in [0, 1], to names for the legend. Groups keep the order of the rows.
    """
    groups = list(dict.fromkeys(rows[by]))
    places = np.arange(len(groups))
    fig, ax = panel(size=(7.2, 0.9 + 0.24 * len(groups) * (len(values) + 0.8)))
    height = 0.8 / len(values)
    notes: dict[str, list[str]] = {str(group): [] for group in groups}
    for i, (column, label) in enumerate(values.items()):
        points = over_seeds(rows, [by], column).set_index(by).reindex(groups)
        half = (points["high"] - points["mean"]).fillna(0)
        look: dict[str, Any] = {"color": SERIES[i], "ecolor": NEUTRAL, "capsize": 2 * half.any(), "label": label}
        ax.barh(places + (i - (len(values) - 1) / 2) * height, points["mean"], height * 0.92, xerr=half, **look)
        for group, mean in points["mean"].items():
            notes[str(group)].append(f"{100 * mean:.3g} % {label}")
    ax.set_yticks(places, groups)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel=axis)
    ax.xaxis.set_major_formatter(percent)
    ax.grid(axis="y", visible=False)
    fig.legend(loc="outside upper right", ncols=len(values))
    text = "; ".join(f"{group}: {', '.join(parts)}" for group, parts in notes.items())
    return finish(fig, rows, f"groups of bars. {text}.", title)


@styled
def time_against_macs(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw the time of a forward pass, relative to the unpruned network, against the multiply-accumulates removed.

    rows: one a measurement, with ``batch`` (one panel each), ``kind`` (one curve each), ``macs_removed`` and ``relative``.
    Curves are medians, bands interquartile ranges; a dotted line shows what the count promises.
    """
    fig, panels = facets(rows.sort_values("batch", kind="stable"), "batch", 4.6, 3.9, sharey=True)
    notes = []
    for ax, batch, part in panels:
        for kind, median in spreads(ax, part, "kind", "macs_removed", "relative"):
            notes.append(f"batch {batch}, {kind}: {median.iloc[-1]:.2f} at {100 * median.index[-1]:.0f} % removed")
        ax.plot([0, 1], [1, 0], color=NEUTRAL, linestyle=":", label="promised by the count")
        ax.set(xlim=(-0.02, 1), xlabel="multiply-accumulates removed", title=f"batch of {batch}")
        ax.xaxis.set_major_formatter(percent)
    fig.axes[0].set(ylabel="time / time of the unpruned network", ylim=(0, None))
    return finish(fig, rows, f"relative time of a forward pass. {'; '.join(notes)}.", title)


@styled
def cost_of_widths(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw the time per multiply-accumulate against the width of a layer, in units of the cheapest width.

    rows: one a measurement, with ``layer`` (one curve each), ``width`` and ``time_per_mac`` in seconds, of which the least
    counts. Dotted lines stand at multiples of 16.
    """
    points = rows.groupby(["layer", "width"], as_index=False)["time_per_mac"].min()
    points["cost"] = points["time_per_mac"] / points["time_per_mac"].min()
    fig, ax = panel(size=(7.2, 3.6))
    notes = []
    for layer, curve in lines(ax, points, "layer", "width", "cost"):
        costs = zip(curve["cost"], curve["width"], strict=True)
        notes.append(f"{layer}: {', '.join(f'{cost:.2f} at {width}' for cost, width in costs)}")
    narrowest, widest = points["width"].min(), points["width"].max()
    for width in range(16 * -(-narrowest // 16), widest + 1, 16):
        ax.axvline(width, color=NEUTRAL, linestyle=":", linewidth=1)
    ax.set(xlabel="channels (dotted: multiples of 16)", ylabel="time of one multiply-accumulate", ylim=(0, None))
    return finish(fig, rows, f"time of one multiply-accumulate, 1 for the cheapest width. {'; '.join(notes)}.", title)


@styled
def csr_break_even(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw how many times faster a compressed-sparse-row product is than the dense one, against the sparsity.

    rows: ``sparsity``, ``speedup`` (of :func:`~pruning_core.models.timing.csr_speed`). The line at 1 is break-even.
    """
    curve = rows.sort_values("sparsity")
    fig, ax = panel()
    ax.plot(curve["sparsity"], curve["speedup"], color=SERIES[0], marker="o")
    level(ax, 1, "break-even")
    ax.set_yscale("log")
    set_sparsity_axis(ax, curve["sparsity"].to_numpy(float))
    plain_ticks(ax.yaxis, round_numbers(curve["speedup"].min() / 1.5, curve["speedup"].max() * 1.5))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}x"))
    ax.set(xlabel="weights removed", ylabel="dense time / sparse time")
    notes = ", ".join(f"{s:.2g} times at {percent(p)}" for p, s in curve[["sparsity", "speedup"]].to_numpy())
    return finish(fig, rows, f"speed of the sparse product over the dense one: {notes}.", title)


@styled
def weight_sizes(rows: pd.DataFrame, *, threshold: float, sparsity: float, title: str = "") -> BookFigure:
    """Draw the distribution of the absolute weights of each layer, with the global threshold of one sparsity.

    rows: ``layer``, ``size`` (middle of a bin), ``share`` (of the layer's weights in that bin).
    """
    fig, ax = panel()
    notes = [
        f"{layer}: {percent(round(curve.loc[curve['size'] < threshold, 'share'].sum(), 3))} below it"
        for layer, curve in lines(ax, rows, "layer", "size", "share", marker="", drawstyle="steps-mid")
    ]
    ax.axvline(threshold, color=NEUTRAL, linestyle="--", linewidth=1.2)
    words = f" {percent(sparsity)} of all\n weights are\n left of here"
    ax.annotate(words, (threshold, 0.62), xycoords=("data", "axes fraction"), fontsize=8)
    ax.set(xlabel="absolute value of a weight", ylabel="share of the layer's weights", xlim=(0, None), ylim=(0, None))
    ax.yaxis.set_major_formatter(percent)
    alt = f"distributions of absolute weights. Threshold {threshold:.3g}. {'; '.join(notes)}."
    return finish(fig, rows, alt, title)


@styled
def pixel_maps(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw for each input pixel which share of its weights into the first layer is alive, one picture a cut.

    rows: ``method``, ``asked``, ``row``, ``column``, ``kept`` (fraction). Methods are columns, sparsities rows.
    """
    methods, asked = list(dict.fromkeys(rows["method"])), sorted(rows["asked"].unique())
    fig, axes = figure(len(asked), len(methods), size=(2.7 * len(methods) + 0.9, 2.5 * len(asked) + 0.5))
    notes = []
    for i, sparsity in enumerate(asked):
        row = rows[rows["asked"] == sparsity]
        for j, method in enumerate(methods):
            ax, part = axes[i, j], row[row["method"] == method]
            grid = part.pivot(index="row", columns="column", values="kept").to_numpy(float)
            image = ax.imshow(grid, cmap="cividis", vmin=0, vmax=float(row["kept"].max()))
            ax.set(title=method if i == 0 else "", ylabel=f"{percent(sparsity)} removed" if j == 0 else "")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            edge = np.concatenate([grid[0], grid[-1], grid[1:-1, 0], grid[1:-1, -1]]).mean()
            quarters = tuple(slice(side // 4, -(side // 4)) for side in grid.shape)
            shares = f"{100 * grid[quarters].mean():.3g} % kept in the middle, {100 * edge:.3g} % at the edge"
            notes.append(f"{method} at {percent(sparsity)}: {shares}")
        fig.colorbar(image, ax=list(axes[i]), label="weights kept", format=FuncFormatter(percent))
    alt = f"pictures of the input, brighter where more weights are kept. {'; '.join(notes)}."
    return finish(fig, rows, alt, title)


@styled
def schedule_curves(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw the fraction removed after each round, one curve a schedule, on an axis logarithmic in what is kept.

    rows: ``schedule``, ``round`` (0 is the start), ``removed``.
    """
    fig, ax = panel()
    drawn = lines(ax, rows.assign(kept=1 - rows["removed"]), "schedule", "round", "kept")
    notes = [f"{name} {percent(round(curve['removed'].iloc[1], 3))}" for name, curve in drawn]
    ax.set_yscale("log")
    plain_ticks(ax.yaxis, round_numbers(0.01, 1))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda kept, _: percent(1 - kept)))
    ax.set(xlabel="round", ylabel="weights removed")
    ax.invert_yaxis()
    ax.legend(ncols=2)
    last = rows["removed"].max()
    return finish(fig, None, f"all schedules end at {percent(last)}; after round 1: {', '.join(notes)}.", title)


@captioned
def density_slider(rows: pd.DataFrame, *, start: int = 0, title: str = "") -> SliderFigure:
    """Make a slider over sparsities that shows which share of each layer is kept, one curve a way of spreading.

    rows: ``asked``, ``across``, ``layer``, ``sparsity``; the same layers and ways at every asked sparsity. Layers whose
    last weight is protected keep a density above 0, so the vertical axis is logarithmic.
    """
    require_rows(rows, ("asked", "across", "layer", "sparsity"))
    layers = list(dict.fromkeys(rows["layer"]))
    places = np.arange(1, len(layers) + 1)
    positions: dict[str, dict[str, Curve]] = {}
    for asked, at in rows.groupby("asked"):
        shares = 100 * (1 - at.pivot(index="layer", columns="across", values="sparsity").loc[layers])
        kept_by = {SPREAD_STYLE[way].label: shares[way].to_numpy(float) for way in dict.fromkeys(at["across"])}
        positions[percent(float(asked))] = {label: (places, kept) for label, kept in kept_by.items()}
    last = list(positions)[-1]
    notes = []
    for label, (_, kept) in positions[last].items():
        parts = (f"{share:.3g} % of {layer}" for share, layer in zip(kept, layers, strict=True))
        notes.append(f"{label} keeps {', '.join(parts)}")
    look: dict[str, Any] = {"x_label": "layer", "y_label": "weights kept in the layer (%)", "y_log": True}
    look |= {"mode": "lines+markers", "styles": {style.label: style for style in SPREAD_STYLE.values()}}
    alt = titled(title, f"densities of the layers as the sparsity moves. At {last}: {'; '.join(notes)}.")
    slider = slider_figure(positions, control="weights removed", alt=alt, start=start, title=title, **look)
    slider.layout["xaxis"] |= {"tickvals": places.tolist(), "ticktext": list(layers)}
    slider.layout["yaxis"] |= {"dtick": 1}
    slider.layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return slider
