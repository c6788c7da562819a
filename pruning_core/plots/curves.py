"""Figures drawn straight from rows: curves with bands over seeds, bars a layer, heat maps, latencies."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from pruning_core.checks import checked
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.intervals import over_seeds, require_columns
from pruning_core.plots.axes import AXIS_NAMES, MAP_LEGEND, MAP_LINE, bands, level, percent, set_sparsity_axis
from pruning_core.plots.style import COLOURS, NEUTRAL, BookFigure, MethodStyle, finish, panel, style_of, styled


@checked
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
    styles: Mapping[str, MethodStyle] | None = None,
) -> BookFigure:
    """Draw one curve a method: the mean over seeds, with the 95 % interval of the mean as a band.

    rows: tidy rows; ``x`` a fraction removed, ``y`` any number, ``by`` the column that makes the curves. Rows that asked for
    the same sparsity are one point, at the mean of what they reached. ``scale``: "kept" (the x axis of
    ``set_sparsity_axis``) or "linear" from 0 to 1. ``reference`` draws a level (the unpruned network). ``styles`` overrides
    the palette for values of ``by`` that are no methods. Raises BadInput when no row is left to draw.

    >>> methods, accuracies = ["snip"] * 2 + ["random"] * 2, [98, 97, 97, 80]
    >>> rows = pd.DataFrame({"method": methods, "seed": 0, "sparsity": [0.5, 0.9] * 2, "accuracy": accuracies})
    >>> accuracy_against_sparsity(rows).alt.partition(".")[0]
    'test accuracy (%) against weights removed'
    """
    known_name("scale", scale, ("kept", "linear"))
    require_columns(rows, (x,))
    points = over_seeds(rows.assign(point=rows.get("asked", rows[x]).fillna(rows[x])), [by, "point"], y, keep=[x])
    if points.empty:
        raise BadInput(f"there is no row with a value of {y!r} to draw.")
    fig, ax = panel()
    notes = []
    limits = (0, 100) if y.endswith("accuracy") else (None, None)
    for label, curve in bands(ax, points, x, *limits, by=by, styles=styles):
        ends = (f"{point['mean']:.4g} at {percent(point[x])}" for _, point in curve.iloc[[0, -1]].iterrows())
        notes.append(f"{label} from {' to '.join(ends)}")
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
    seeds = int(points["n"].max())
    drawn = f"Means over {seeds} seeds; bands are 95 % intervals." if seeds > 1 else "One seed, so no bands."
    return finish(fig, rows, f"{y_name} against {x_name}. {'; '.join(notes)}. {drawn}", title)


@checked
@styled
def layer_bars(rows: pd.DataFrame, *, by: str | None = None, title: str = "") -> BookFigure:
    """Draw the fraction removed in each layer as bars, layers in the order of the rows.

    rows: columns ``layer`` and ``sparsity`` (a fraction in [0, 1]); ``by`` (for instance ``method``) makes groups of bars.

    >>> layer_bars(pd.DataFrame({"layer": ["fc1", "fc2"], "sparsity": [0.9, 0.5]})).alt
    'bars of the fraction removed in each of 2 layers. least 50 % (fc2), most 90 % (fc1).'
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    require_columns(rows, ("layer", "sparsity", *([by] if by else [])))
    styles = [style_of(str(name)) for name in (dict.fromkeys(rows[by]) if by else ["magnitude"])]
    drawn = rows.assign(bars=[style_of(str(name)).label for name in rows[by]] if by else styles[0].label)
    removed = drawn.pivot_table(index="layer", columns="bars", values="sparsity", sort=False)
    fig, ax = panel(size=(max(6.4, 0.28 * len(removed) * max(len(styles), 2)), 3.6))
    look: dict[str, Any] = {"palette": {style.label: style.colour for style in styles}, "saturation": 1}
    sns.barplot(drawn, x="layer", y="sparsity", hue="bars", errorbar=None, legend=False, ax=ax, **look)
    ax.set(xlabel="", ylabel=AXIS_NAMES["sparsity"], ylim=(0, 1))
    ax.yaxis.set_major_formatter(percent)
    ax.set_xticks(ax.get_xticks(), removed.index, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    if by:
        handles = [Patch(color=style.colour, label=style.label) for style in styles]
        fig.legend(handles=handles, loc="outside upper center", ncols=len(styles))  # inside it would hide bars
    notes = "; ".join(
        f"{f'{name}: ' if by else ''}least {100 * shares.min():.3g} % ({shares.idxmin()}), "
        f"most {100 * shares.max():.3g} % ({shares.idxmax()})"
        for name, shares in removed.items()
    )
    return finish(fig, rows, f"bars of the fraction removed in each of {len(removed)} layers. {notes}.", title)


@checked
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

    >>> rows = pd.DataFrame({"k": [1, 2, 1, 2], "m": [5, 5, 9, 9], "share": [0.0, 0.2, 0.9, 1.0]})
    >>> heatmap(rows, x="k", y="m", value="share").alt
    'heat map of share over k and m, from 0 to 1.'
    """
    require_columns(rows, (x, y, value))
    if curve is not None:
        require_columns(curve, (x, y))
    grid = rows.pivot_table(index=y, columns=x, values=value).sort_index()
    if grid.empty:
        raise BadInput(f"there is no row with a value of {value!r} to draw.")
    fig, ax = panel(size=(6.4, 4.6))
    mesh = ax.pcolormesh(grid.columns, grid.index, grid, cmap="cividis", shading="nearest", rasterized=True)
    x_name, y_name, value_name = labels or (x, y, AXIS_NAMES.get(value, value))
    fig.colorbar(mesh, ax=ax, label=value_name)
    ax.grid(visible=False)
    ax.set(xlabel=x_name, ylabel=y_name)
    note = ""
    if curve is not None:
        ax.plot(curve[x], curve[y], label="predicted", **MAP_LINE)
        ax.legend(**MAP_LEGEND)
        ax.set(xlim=(grid.columns.min(), grid.columns.max()), ylim=(grid.index.min(), grid.index.max()))
        ends = (f"({point[x]:.3g}, {point[y]:.3g})" for _, point in curve.iloc[[0, -1]].iterrows())
        note = f" The predicted curve runs from {' to '.join(ends)}."
    extent = f"from {np.nanmin(grid):.3g} to {np.nanmax(grid):.3g}"
    return finish(fig, rows, f"heat map of {value_name} over {x_name} and {y_name}, {extent}.{note}", title)


@checked
@styled
def latency_bars(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw median times as horizontal bars with their interquartile range.

    rows: columns ``label``, ``median``, ``q1``, ``q3`` (seconds); shown in milliseconds.

    >>> times = {"median": [0.02, 0.01], "q1": [0.019, 0.009], "q3": [0.021, 0.011]}
    >>> latency_bars(pd.DataFrame({"label": ["whole", "pruned"]} | times)).alt
    'median times with interquartile ranges. whole 20 ms; pruned 10 ms.'
    """
    require_columns(rows, ("label", "median", "q1", "q3"))
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
