"""What is drawn into one panel: lines, curves with bands, named levels, ticks, and the axis with a wide sparse end."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, NullLocator

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import mean_interval, over_seeds
from pruning_core.plots.style import LOOK, NEUTRAL, MethodStyle, series, style_of

AXIS_NAMES: dict[str, str] = LOOK["axes"]
MAP_LINE: dict[str, Any] = LOOK["map_line"] | {"path_effects": [withStroke(linewidth=3.4, foreground="#101010")]}
MAP_LEGEND: dict[str, Any] = LOOK["map_legend"]
# in the order in which they are wanted; a tick too close to an earlier one is left out
TICKS = (0.0, 0.9, 0.99, 0.999, 0.9999, 0.5, 0.1, 0.01, 0.95, 0.995, 0.8, 0.98, 0.998, 0.2, 0.05, 0.02)


def lines(
    ax: Axes, rows: pd.DataFrame, by: str, x: str, y: str, label: str = "{}", *, sort: bool = False, **look: Any
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Draw ``y`` against ``x``, one line for each value of ``by`` (as :func:`series`); yield its label and its rows."""
    for _, style, part in series(rows, by, label, sort=sort):
        ax.plot(part[x], part[y], **{"color": style.colour, "marker": style.marker, "label": style.label} | look)
        yield style.label, part


def interval_of(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean over seeds, as seaborn's ``errorbar`` wants it."""
    return mean_interval(values)[1:3]


def band(ax: Axes, curve: pd.DataFrame, x: str, style: MethodStyle, low: Any = None, high: Any = None) -> None:
    """Draw one curve of means with its intervals (columns ``x``, mean, low, high: ``over_seeds``) as a band.

    Intervals of few seeds may leave what is possible: the band ends at ``low`` and ``high`` where they are given.
    """
    ax.plot(curve[x], curve["mean"], color=style.colour, marker=style.marker, label=style.label)
    edges = curve["low"].clip(low, high), curve["high"].clip(low, high)
    ax.fill_between(curve[x], *edges, color=style.colour, alpha=0.18, linewidth=0)


def bands(
    ax: Axes, points: pd.DataFrame, x: str, low: Any = None, high: Any = None, *, by: str = "method", styles: Any = None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Draw a :func:`band` for each value of ``by``, a method or a key of ``styles``; yield its label and its points."""
    for name, curve in points.sort_values([by, x]).groupby(by):
        style = (styles or {}).get(str(name)) or style_of(str(name))
        band(ax, curve, x, style, low, high)
        yield style.label, curve


def spreads(
    ax: Axes, rows: pd.DataFrame, by: str, x: str, y: str, *, middle: str = "median", within: float = 50
) -> Iterator[tuple[str, pd.Series]]:
    """Draw, for each value of ``by``, the ``middle`` of ``y`` at each ``x`` ("median" or "mean") in a band over the
    central ``within`` percent; yield the label of each curve and the curve itself, x -> middle."""
    import seaborn as sns  # slow to load, scipy.stats with it

    for _, style, part in series(rows, by):
        drawn: dict[str, Any] = {"color": style.colour, "marker": style.marker, "label": style.label}
        look = drawn | {"markeredgewidth": 0, "err_kws": {"alpha": 0.18, "linewidth": 0}, "legend": False}
        sns.lineplot(part, x=x, y=y, estimator=middle, errorbar=("pi", within), ax=ax, **look)
        yield style.label, part.groupby(x)[y].agg(middle)


def method_lines(ax: Axes, rows: pd.DataFrame, x: str, y: str) -> list[str]:
    """Draw means over seeds of ``y`` against ``x``, both logarithmic: a line a method, with its band.

    Returns what an alt text says of each. A band ends at half of the mean: intervals of few seeds may reach below zero.
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


def level(ax: Axes, height: float, name: str) -> None:
    """A dotted horizontal line with its name at the left end."""
    ax.axhline(height, color=NEUTRAL, linestyle=":", linewidth=1.2)
    ax.annotate(name, (0.005, height), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")


def percent(share: float, _: float | None = None) -> str:
    """A fraction as text; as a tick's label the position is given too."""
    return f"{100 * share:.4g} %"


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from 0.01 to 5000, that lie between ``low`` and ``high``."""
    return [n for power in range(-2, 4) for n in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if low <= n <= high]


def plain_ticks(axis, ticks: Sequence[float]) -> None:
    """Numbers in place of powers of ten on a short logarithmic axis."""
    axis.set_ticks(ticks, labels=[f"{t:g}" for t in ticks])
    axis.set_minor_locator(NullLocator())
