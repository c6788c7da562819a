"""Figures drawn straight from rows: curves with bands over seeds, bars a layer, heat maps, latencies."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, NullLocator

from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.intervals import over_seeds, require_columns
from pruning_core.plots.style import (
    AXIS_NAMES,
    COLOURS,
    NEUTRAL,
    BookFigure,
    MethodStyle,
    finish,
    level,
    panel,
    percent,
    plain_ticks,
    style_of,
    styled,
)

# in the order in which they are wanted; a tick too close to an earlier one is left out
TICKS = (0.0, 0.9, 0.99, 0.999, 0.9999, 0.5, 0.1, 0.01, 0.95, 0.995, 0.8, 0.98, 0.998, 0.2, 0.05, 0.02)
MAP_LINE: dict[str, Any] = {  # white with a dark edge can be seen on every colour of a map
    "color": "#ffffff",
    "linewidth": 1.6,
    "path_effects": [withStroke(linewidth=3.4, foreground="#101010")],
}
MAP_LEGEND: dict[str, Any] = {"labelcolor": "#ffffff", "facecolor": "#303030", "frameon": True, "framealpha": 0.85}


def set_sparsity_axis(ax: Axes, removed: Sequence[float] | np.ndarray) -> None:
    """Make the x axis logarithmic in the fraction kept: 90 %, 99 %, 99.9 % are equally far apart, and 0 % can be shown.

    ``removed`` are the fractions that must be seen.
    """
    values = np.asarray(removed, float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if not 0 <= low <= high < 1:
        raise BadInput(f"fractions removed must lie in [0, 1), but they reach from {low} to {high}.")

    def forward(share: Any) -> np.ndarray:
        return -np.log10(np.maximum(1 - np.asarray(share), 1e-9))

    def back(place: Any) -> np.ndarray:
        return 1 - 10.0 ** -np.asarray(place)

    ax.set_xscale("function", functions=(forward, back))
    edges = forward([low, high])
    span = float(np.ptp(edges))
    margin = 0.04 * span or 0.1
    ax.set_xlim(*back(edges + [-margin, margin]))
    ticks: list[float] = []
    for tick in TICKS:
        inside = edges[0] - margin <= forward(tick) <= edges[1] + margin
        if inside and all(abs(forward(tick) - forward(other)) > 0.08 * span for other in ticks):
            ticks.append(tick)
    ax.xaxis.set_major_locator(FixedLocator(sorted(ticks) or [high]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(percent)


def band(ax: Axes, curve: pd.DataFrame, x: str, style: MethodStyle, low: Any = None, high: Any = None) -> None:
    """Draw one curve of means with its intervals (columns ``x``, mean, low, high: ``over_seeds``) as a band.

    Intervals of few seeds may leave what is possible: the band ends at ``low`` and ``high`` where they are given.
    """
    ax.plot(curve[x], curve["mean"], color=style.colour, marker=style.marker, label=style.label)
    edges = curve["low"].clip(low, high), curve["high"].clip(low, high)
    ax.fill_between(curve[x], *edges, color=style.colour, alpha=0.18, linewidth=0)


def spread(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, style: MethodStyle, *, middle: str = "median", within: float = 50
) -> pd.Series:
    """Draw the ``middle`` of ``y`` at each ``x`` ("median" or "mean") in a band over the central ``within`` percent.

    Returns the curve: x -> middle.
    """
    sns.lineplot(
        rows,
        x=x,
        y=y,
        estimator=middle,
        errorbar=("pi", within),
        color=style.colour,
        marker=style.marker,
        markeredgewidth=0,
        label=style.label,
        err_kws={"alpha": 0.18, "linewidth": 0},
        legend=False,
        ax=ax,
    )
    return rows.groupby(x)[y].agg(middle)


def method_lines(ax: Axes, rows: pd.DataFrame, x: str, y: str) -> list[str]:
    """Draw means over seeds of ``y`` against ``x``, both logarithmic: a line a method, with its band.

    Returns what an alt text says of each line. A band ends at half of the mean: intervals of few seeds may reach below zero.
    """
    notes = []
    for name, part in rows.groupby("method", sort=False):
        style = style_of(str(name))
        curve = over_seeds(part, [x], y)
        band(ax, curve, x, style, low=0.5 * curve["mean"])
        notes.append(f"{style.label} {curve['mean'].iloc[0]:.2g} to {curve['mean'].iloc[-1]:.2g}")
    ax.set(xscale="log", yscale="log")
    plain_ticks(ax.xaxis, sorted(rows[x].unique()))
    return notes


@styled
def accuracy_against_sparsity(
    rows: pd.DataFrame,
    *,
    x: str = "sparsity",
    y: str = "accuracy",
    by: str = "method",
    scale: str = "kept",
    reference: float | None = None,
    title: str = "",
    styles: dict[str, MethodStyle] | None = None,
) -> BookFigure:
    """Draw one curve a method: the mean over seeds, with the 95 % interval of the mean as a band.

    rows: tidy rows; ``x`` a fraction removed, ``y`` any number, ``by`` the column that makes the curves. Rows that asked for
    the same sparsity are one point, at the mean of what they reached. ``scale``: "kept" (the x axis of
    ``set_sparsity_axis``) or "linear" from 0 to 1. ``reference`` draws a level (the unpruned network). ``styles`` overrides
    the palette for values of ``by`` that are no methods. Raises BadInput when no row is left to draw.
    """
    known_name("scale", scale, ("kept", "linear"))
    require_columns(rows, (x,))
    points = over_seeds(rows.assign(point=rows.get("asked", rows[x]).fillna(rows[x])), [by, "point"], y, keep=[x])
    if points.empty:
        raise BadInput(f"there is no row with a value of {y!r} to draw.")
    fig, ax = panel()
    notes = []
    limits = (0, 100) if y.endswith("accuracy") else (None, None)
    for name, curve in points.groupby(by, sort=False):
        style = (styles or {}).get(str(name)) or style_of(str(name))
        curve = curve.sort_values(x)
        band(ax, curve, x, style, *limits)
        ends = (f"{point['mean']:.4g} at {percent(point[x])}" for _, point in curve.iloc[[0, -1]].iterrows())
        notes.append(f"{style.label} from {' to '.join(ends)}")
    if reference is not None:
        level(ax, reference, "unpruned")
    if scale == "kept":
        set_sparsity_axis(ax, points[x].to_numpy(float))
    else:
        ax.set_xlim(0, 1)
        ax.xaxis.set_major_formatter(percent)
    x_name, y_name = AXIS_NAMES.get(x, x), AXIS_NAMES.get(y, y)
    ax.set(xlabel=x_name, ylabel=y_name)
    if points[by].nunique() > 6:  # so many lines leave no room inside
        fig.legend(loc="outside right upper")
    else:
        ax.legend()
    seeds = int(points["n"].max())
    drawn = f"Means over {seeds} seeds; bands are 95 % intervals." if seeds > 1 else "One seed, so no bands."
    return finish(fig, rows, f"{y_name} against {x_name}. {'; '.join(notes)}. {drawn}", title)


@styled
def layer_bars(rows: pd.DataFrame, *, by: str | None = None, title: str = "") -> BookFigure:
    """Draw the fraction removed in each layer as bars, layers in the order of the rows.

    rows: columns ``layer`` and ``sparsity`` (a fraction in [0, 1]); ``by`` (for instance ``method``) makes groups of bars.
    """
    styles = [style_of(str(name)) for name in (dict.fromkeys(rows[by]) if by else ["magnitude"])]
    drawn = rows.assign(bars=[style_of(str(name)).label for name in rows[by]] if by else styles[0].label)
    removed = drawn.pivot_table(index="layer", columns="bars", values="sparsity", sort=False)
    fig, ax = panel(size=(max(6.4, 0.28 * len(removed) * max(len(styles), 2)), 3.6))
    look: dict[str, Any] = {"palette": {style.label: style.colour for style in styles}, "saturation": 1}
    sns.barplot(drawn, x="layer", y="sparsity", hue="bars", errorbar=None, legend=False, ax=ax, **look)
    ax.set(xlabel="", ylabel=AXIS_NAMES["sparsity"], ylim=(0, 1))
    ax.yaxis.set_major_formatter(percent)
    ax.tick_params("x", rotation=60, labelsize=8)
    for label in ax.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    if by:
        handles = [Patch(color=style.colour, label=style.label) for style in styles]
        fig.legend(handles=handles, loc="outside upper center", ncols=len(styles))  # inside it would hide bars
    notes = "; ".join(
        f"{f'{name}: ' if by else ''}least {100 * shares.min():.3g} % ({shares.idxmin()}), "
        f"most {100 * shares.max():.3g} % ({shares.idxmax()})"
        for name, shares in removed.items()
    )
    return finish(fig, rows, f"bars of the fraction removed in each of {len(removed)} layers. {notes}.", title)


@styled
def heatmap(
    rows: pd.DataFrame,
    *,
    x: str,
    y: str,
    value: str,
    curve: pd.DataFrame | None = None,
    labels: tuple[str, str, str] | None = None,
    title: str = "",
) -> BookFigure:
    """Draw ``value`` over a grid of ``x`` and ``y`` (means over rows of one cell), with a predicted curve on top.

    rows: columns ``x``, ``y``, ``value``; the grid need not be complete nor evenly spaced. curve: columns
    ``x``, ``y``. labels: names of the x axis, y axis and colour bar.
    """
    grid = rows.pivot_table(index=y, columns=x, values=value).sort_index()
    if grid.empty:
        raise BadInput(f"there is no row with a value of {value!r} to draw.")
    cells, across, up = grid.to_numpy(float), grid.columns.to_numpy(float), grid.index.to_numpy(float)
    fig, ax = panel(size=(6.4, 4.6))
    mesh = ax.pcolormesh(across, up, cells, cmap="cividis", shading="nearest", rasterized=True)
    x_name, y_name, value_name = labels or (x, y, AXIS_NAMES.get(value, value))
    fig.colorbar(mesh, ax=ax, label=value_name)
    ax.grid(visible=False)
    ax.set(xlabel=x_name, ylabel=y_name)
    note = ""
    if curve is not None:
        ax.plot(curve[x], curve[y], label="predicted", **MAP_LINE)
        ax.legend(**MAP_LEGEND)
        ax.set(xlim=(across.min(), across.max()), ylim=(up.min(), up.max()))
        ends = (f"({point[x]:.3g}, {point[y]:.3g})" for _, point in curve.iloc[[0, -1]].iterrows())
        note = f" The predicted curve runs from {' to '.join(ends)}."
    low, high = np.nanmin(cells), np.nanmax(cells)
    return finish(
        fig, rows, f"heat map of {value_name} over {x_name} and {y_name}, from {low:.3g} to {high:.3g}.{note}", title
    )


@styled
def latency_bars(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw median times as horizontal bars with their interquartile range.

    rows: columns ``label``, ``median``, ``q1``, ``q3`` (seconds); shown in milliseconds.
    """
    times = 1e3 * rows.set_index("label")[["median", "q1", "q3"]]
    if times.empty:
        raise BadInput("there is no time to draw.")
    fig, ax = panel(size=(6.4, 0.9 + 0.42 * len(times)))
    errors = times["median"] - times["q1"], times["q3"] - times["median"]
    ax.barh(times.index, times["median"], 0.62, xerr=errors, color=COLOURS["sky"], ecolor=NEUTRAL, capsize=3)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="time (ms), median and interquartile range")
    notes = "; ".join(f"{name} {median:.3g} ms" for name, median in times["median"].items())
    return finish(fig, rows, f"median times with interquartile ranges. {notes}.", title)
