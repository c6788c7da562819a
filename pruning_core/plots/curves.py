"""Figures drawn straight from rows: curves with bands over seeds, bars a layer, heat maps, latencies."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.intervals import over_seeds, require_columns
from pruning_core.plots.style import (
    NEUTRAL,
    BookFigure,
    MethodStyle,
    band,
    finish,
    panel,
    plain_ticks,
    style_of,
    styled,
)

# in the order in which they are wanted; a tick too close to an earlier one is left out
TICKS = (0.0, 0.9, 0.99, 0.999, 0.9999, 0.5, 0.1, 0.01, 0.95, 0.995, 0.8, 0.98, 0.998, 0.2, 0.05, 0.02)
AXIS_NAMES = {
    "sparsity": "weights removed",
    "asked": "sparsity asked for",
    "channels_removed": "channels removed",
    "macs_removed": "multiply-accumulates removed",
    "accuracy": "test accuracy (%)",
    "validation_accuracy": "validation accuracy (%)",
    "train_accuracy": "training accuracy (%)",
    "loss": "test loss",
    "train_loss": "training loss",
    "generalisation_gap": "training minus test accuracy (points)",
    "fitted_accuracy": "accuracy on training images (%)",
    "training_macs": "multiply-accumulates of training",
}


def _logit(p: np.ndarray) -> np.ndarray:
    p = np.clip(p, 1e-4, 1 - 1e-9)
    return np.log10(p / (1 - p))


_TRANSFORMS: dict[str, tuple[Callable, Callable]] = {
    "kept": (lambda p: -np.log10(np.maximum(1 - np.asarray(p), 1e-9)), lambda u: 1 - 10.0 ** -np.asarray(u)),
    "logit": (_logit, lambda u: 1 / (1 + 10.0 ** -np.asarray(u))),
    "linear": (np.asarray, np.asarray),
}


def set_sparsity_axis(ax: Axes, removed: Sequence[float] | np.ndarray, scale: str = "kept") -> None:
    """Give the x axis a scale for fractions removed that leaves most room to the sparse end.

    ``kept``: logarithmic in the fraction kept, so 90 %, 99 %, 99.9 % are equally far apart and 0 % can be
    shown. ``logit``: wide at both ends. ``linear``: as it is. ``removed`` are the values that must be seen.
    """
    known_name("scale", scale, _TRANSFORMS)
    values = np.asarray(removed, float)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if not 0 <= low <= high < 1:
        raise BadInput(f"fractions removed must lie in [0, 1), but they reach from {low} to {high}.")
    forward, back = _TRANSFORMS[scale]
    ax.set_xscale("function", functions=(forward, back))
    edges = forward(np.array([low, high]))
    margin = 0.04 * float(edges[1] - edges[0]) or 0.1
    ax.set_xlim(*back(np.array([edges[0] - margin, edges[1] + margin])))
    if scale != "linear":
        span, ticks = float(np.ptp(edges)), []
        places: list[float] = []
        for tick, u in zip(TICKS, forward(np.array(TICKS)), strict=True):
            inside = edges[0] - margin <= u <= edges[1] + margin
            if inside and all(abs(u - other) > 0.08 * span for other in places):
                ticks.append(tick)
                places.append(float(u))
        ax.xaxis.set_major_locator(FixedLocator(sorted(ticks) or [high]))
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda p, _: f"{100 * p:.4g} %"))


def method_lines(ax: Axes, rows: pd.DataFrame, x: str, y: str) -> list[str]:
    """Draw means over seeds of ``y`` against ``x``, both logarithmic: a line a method, with its band.

    Returns what an alt text says of each line. A band ends at half of the mean: intervals of few seeds may reach below zero.
    """
    notes = []
    for name, part in rows.groupby("method", sort=False):
        style = style_of(str(name))
        curve = over_seeds(part, [x], y)
        band(ax, curve[x], curve["mean"], curve["low"].clip(lower=0.5 * curve["mean"]), curve["high"], style)
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

    rows: tidy rows; ``x`` a fraction removed, ``y`` any number, ``by`` the column that makes the curves. Rows
    that asked for the same sparsity are one point, at the mean of what they reached. ``reference`` draws a
    level (the unpruned network). ``styles`` overrides the palette for values of ``by`` that are no methods.
    Raises BadInput when no row is left to draw.
    """
    require_columns(rows, (x,))
    asked = rows["asked"] if "asked" in rows else pd.Series(np.nan, rows.index)
    points = over_seeds(rows.assign(point=asked.fillna(rows[x])), [by, "point"], y, keep=[x])
    if points.empty:
        raise BadInput(f"there is no row with a value of {y!r} to draw.")
    fig, ax = panel()
    notes = []
    if y.endswith("accuracy"):  # an interval of few seeds may leave the range that is possible
        points = points.assign(low=points["low"].clip(0, 100), high=points["high"].clip(0, 100))
    for name, curve in points.groupby(by, sort=False):
        style = (styles or {}).get(str(name)) or style_of(str(name))
        curve = curve.sort_values(x)
        band(ax, curve[x], curve["mean"], curve["low"], curve["high"], style)
        first, last = curve.iloc[0], curve.iloc[-1]
        notes.append(
            f"{style.label} from {first['mean']:.4g} at {100 * first[x]:.4g} % "
            f"to {last['mean']:.4g} at {100 * last[x]:.4g} %"
        )
    if reference is not None:
        ax.axhline(reference, color=NEUTRAL, linestyle=":", linewidth=1.2)
        ax.annotate("unpruned", (0.005, reference), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")
    set_sparsity_axis(ax, points[x].to_numpy(float), scale)
    x_name, y_name = AXIS_NAMES.get(x, x), AXIS_NAMES.get(y, y)
    ax.set(xlabel=x_name, ylabel=y_name, title=title)
    if points[by].nunique() > 6:  # so many lines leave no room inside
        fig.legend(loc="outside right upper")
    else:
        ax.legend()
    seeds = int(points["n"].max())
    drawn = f"Means over {seeds} seeds; bands are 95 % intervals." if seeds > 1 else "One seed, so no bands."
    return finish(fig, rows, f"{y_name} against {x_name}. {'; '.join(notes)}. {drawn}", title)


@styled
def layer_bars(rows: pd.DataFrame, *, value: str = "sparsity", by: str | None = None, title: str = "") -> BookFigure:
    """Draw the fraction removed in each layer as bars, layers in the order of the rows.

    rows: columns ``layer`` and ``value`` (a fraction in [0, 1]); ``by`` (for instance ``method``) makes
    groups of bars.
    """
    layers = list(dict.fromkeys(rows["layer"]))
    names = list(dict.fromkeys(rows[by])) if by else [""]
    fig, ax = panel(size=(max(6.4, 0.28 * len(layers) * max(len(names), 2)), 3.6))
    width = 0.8 / len(names)
    notes = []
    for i, name in enumerate(names):
        part = rows[rows[by] == name] if by else rows
        heights = part.groupby("layer")[value].mean().reindex(layers)
        style = style_of(str(name)) if by else style_of("magnitude")
        ax.bar(
            np.arange(len(layers)) + (i - (len(names) - 1) / 2) * width,
            heights,
            width,
            color=style.colour,
            label=style.label,
        )
        who = f"{style.label}: " if by else ""
        notes.append(
            f"{who}least {100 * heights.min():.3g} % ({heights.idxmin()}), "
            f"most {100 * heights.max():.3g} % ({heights.idxmax()})"
        )
    ax.set(ylabel=AXIS_NAMES.get(value, value), title=title, ylim=(0, 1))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda p, _: f"{100 * p:.0f} %"))
    ax.set_xticks(np.arange(len(layers)), layers, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
    ax.grid(axis="x", visible=False)
    if by:
        fig.legend(loc="outside upper center", ncols=len(names))  # inside it would hide bars
    return finish(
        fig, rows, f"bars of the fraction removed in each of {len(layers)} layers. {'; '.join(notes)}.", title
    )


@styled
def heatmap(
    rows: pd.DataFrame,
    *,
    x: str,
    y: str,
    value: str,
    curve: pd.DataFrame | None = None,
    curve_label: str = "predicted",
    labels: tuple[str, str, str] | None = None,
    title: str = "",
) -> BookFigure:
    """Draw ``value`` over a grid of ``x`` and ``y`` (means over rows of one cell), with a predicted curve on
    top.

    rows: columns ``x``, ``y``, ``value``; the grid need not be complete nor evenly spaced. curve: columns
    ``x``, ``y``. labels: names of the x axis, y axis and colour bar.
    """
    grid = rows.pivot_table(index=y, columns=x, values=value, aggfunc="mean").sort_index()
    if grid.empty:
        raise BadInput(f"there is no row with a value of {value!r} to draw.")
    fig, ax = panel(size=(6.4, 4.6))
    mesh = ax.pcolormesh(
        grid.columns.to_numpy(float),
        grid.index.to_numpy(float),
        grid.to_numpy(float),
        cmap="cividis",
        shading="nearest",
        rasterized=True,
    )
    x_name, y_name, value_name = labels or (x, y, AXIS_NAMES.get(value, value))
    fig.colorbar(mesh, ax=ax, label=value_name)
    ax.grid(visible=False)
    note = ""
    if curve is not None:
        # white with a dark edge can be seen on every colour of the map
        ax.plot(curve[x], curve[y], color="#101010", linewidth=3.4)
        ax.plot(curve[x], curve[y], color="#ffffff", linewidth=1.6, label=curve_label)
        ax.legend(loc="best", labelcolor="#ffffff", facecolor="#303030", frameon=True, framealpha=0.85)
        ax.set(xlim=(grid.columns.min(), grid.columns.max()), ylim=(grid.index.min(), grid.index.max()))
        note = (
            f" The {curve_label} curve runs from ({curve[x].iloc[0]:.3g}, {curve[y].iloc[0]:.3g}) "
            f"to ({curve[x].iloc[-1]:.3g}, {curve[y].iloc[-1]:.3g})."
        )
    ax.set(xlabel=x_name, ylabel=y_name, title=title)
    return finish(
        fig,
        rows,
        f"heat map of {value_name} over {x_name} and {y_name}, from "
        f"{np.nanmin(grid.to_numpy()):.3g} to {np.nanmax(grid.to_numpy()):.3g}.{note}",
        title,
    )


@styled
def latency_bars(rows: pd.DataFrame, *, by: str = "label", title: str = "", unit: str = "ms") -> BookFigure:
    """Draw median times as horizontal bars with their interquartile range.

    rows: columns ``by``, ``median``, ``q1``, ``q3`` (seconds); shown in ``unit`` ("s", "ms" or "us").
    """
    factor = {"s": 1.0, "ms": 1e3, "us": 1e6}[known_name("unit", unit, ("s", "ms", "us"))]
    times = rows.set_index(by)[["median", "q1", "q3"]] * factor
    if times.empty:
        raise BadInput("there is no time to draw.")
    fig, ax = panel(size=(6.4, 0.9 + 0.42 * len(times)))
    places = np.arange(len(times))[::-1]
    errors = np.vstack([times["median"] - times["q1"], times["q3"] - times["median"]])
    ax.barh(
        places,
        times["median"],
        0.62,
        color=[style_of(str(name)).colour if by == "method" else "#3096fe" for name in times.index],
    )
    ax.errorbar(times["median"], places, xerr=errors, fmt="none", ecolor=NEUTRAL, capsize=3)
    ax.set_yticks(places, [style_of(str(n)).label if by == "method" else str(n) for n in times.index])
    ax.grid(axis="y", visible=False)
    ax.set(xlabel=f"time ({unit}), median and interquartile range", title=title)
    notes = "; ".join(f"{name} {t['median']:.3g} {unit}" for name, t in times.iterrows())
    return finish(fig, rows, f"median times with interquartile ranges. {notes}.", title)
