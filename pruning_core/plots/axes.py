"""What is drawn into one panel: curves with bands, named levels, ticks, and the axis with a wide sparse end."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import mean_interval, require_columns
from pruning_core.plots.style import LOOK, NEUTRAL, MethodStyle, style_of

AXIS_NAMES: dict[str, str] = LOOK["axes"]
FRACTIONS: frozenset[str] = frozenset(LOOK["fractions"])
"""Columns that hold fractions in [0, 1], whose axes are in percent."""
MAP_LINE: dict[str, Any] = LOOK["map_line"] | {"path_effects": [withStroke(linewidth=3.4, foreground="#101010")]}
MAP_LEGEND: dict[str, Any] = LOOK["map_legend"]
# in the order in which they are wanted; a tick too close to an earlier one is left out
TICKS = (0.0, 0.9, 0.99, 0.999, 0.9999, 0.5, 0.1, 0.01, 0.95, 0.995, 0.8, 0.98, 0.998, 0.2, 0.05, 0.02)


def interval_of(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean over seeds, as seaborn's ``errorbar`` wants it."""
    return mean_interval(values)[1:3]


def interval_within(column: str, log: bool) -> Callable[[Sequence[float]], np.ndarray]:
    """:func:`interval_of`, cut off where ``column`` cannot be: intervals of few seeds may leave what is possible.

    On a logarithmic axis it ends at half of the mean.
    """
    least, most = (0, 1) if column in FRACTIONS else (0, 100) if column.endswith("accuracy") else (-np.inf, np.inf)
    return lambda values: np.clip(interval_of(values), np.mean(values) / 2 if log else least, most)


def draw_curve(
    ax: Axes,
    rows: pd.DataFrame,
    x: str,
    y: str,
    style: MethodStyle,
    errorbar: Any = None,
    middle: str = "mean",
    **look: Any,
) -> pd.Series:
    """Draw the ``middle`` of ``y`` ("mean" or "median") at each ``x`` in a band, seaborn's ``errorbar``; return it, x -> y."""
    import seaborn as sns  # slow to load, scipy.stats with it

    drawn: dict[str, Any] = {"color": style.colour, "marker": style.marker, "label": style.label, "markeredgewidth": 0}
    if rows[x].nunique() > 30:  # a line of its own
        drawn["marker"] = ""
    if errorbar is not None:
        drawn["err_kws"] = {"alpha": 0.18, "linewidth": 0}
    sns.lineplot(rows, x=x, y=y, estimator=middle, errorbar=errorbar, ax=ax, legend=False, **drawn | look)
    return rows.groupby(x, sort=pd.api.types.is_numeric_dtype(rows[x]))[y].agg(middle)


def together(rows: pd.DataFrame, by: str, at: str, x: str) -> pd.DataFrame:
    """The rows with ``x`` at the mean of those of one value of ``by`` that have the same ``at``: they are one point."""
    require_columns(rows, (by, x))
    place = rows[at].fillna(rows[x]) if at in rows else rows[x]
    return rows.assign(**{x: rows.groupby([rows[by], place])[x].transform("mean")})


def above_zero(values: pd.Series) -> pd.Series:
    """The values as a logarithmic axis can show them: what is not positive lies a power of ten below all that is."""
    positive = values[values > 0]
    return values.clip(lower=10.0 ** np.floor(np.log10(positive.min() if len(positive) else 1e-17)))


def dress(
    ax: Axes,
    axis: Literal["x", "y"],
    column: str,
    values: pd.Series,
    scale: str = "linear",
    labels: Mapping[str, str] | None = None,
) -> None:
    """Name the ``axis`` ("x" or "y") after its ``column``, and give it its scale and ticks that can be read.

    ``scale``: "linear", "log", or "kept" (:func:`set_sparsity_axis`). Fractions are in percent.
    """
    ax.set(**{f"{axis}label": named(column, labels)})
    if not pd.api.types.is_numeric_dtype(values):  # words, from front to back
        if max(map(len, values)) > 4:
            ax.tick_params(axis, rotation=45, labelsize=8)
        return
    where = getattr(ax, f"{axis}axis")
    if scale == "kept":
        set_sparsity_axis(ax, values.to_numpy(float), axis)
    elif scale == "log":
        getattr(ax, f"set_{axis}scale")("log")
        low, high, steps = values.min(), values.max(), sorted(values.unique())
        if axis == "x" and len(steps) <= 9:
            plain_ticks(where, steps)
        elif low > 1e-3 and high < min(300 * low, 1e4):
            plain_ticks(where, round_numbers(0.7 * low, 1.3 * high))
    elif axis == "y" and column.endswith("accuracy"):  # intervals of few seeds may leave what is possible
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 0), min(high, 101))
    elif axis == "y" and 0 <= values.min() < values.max() / 4:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    elif pd.api.types.is_integer_dtype(values):
        where.set_major_locator(MaxNLocator(integer=True))
    if column in FRACTIONS:
        where.set_major_formatter(percent)


def set_sparsity_axis(ax: Axes, removed: Sequence[float] | np.ndarray, axis: str = "x") -> None:
    """Make an axis logarithmic in the fraction kept: 90 %, 99 %, 99.9 % are equally far apart, and 0 % can be shown.

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

    getattr(ax, f"set_{axis}scale")("function", functions=(forward, back))
    edges = forward([low, high])
    span = float(np.ptp(edges))
    margin = 0.04 * span or 0.1
    getattr(ax, f"set_{axis}lim")(*back(edges + [-margin, margin]))
    ticks: list[float] = []
    for tick in TICKS:
        inside = edges[0] - margin <= forward(tick) <= edges[1] + margin
        if inside and all(abs(forward(tick) - forward(other)) > 0.08 * span for other in ticks):
            ticks.append(tick)
    where = getattr(ax, f"{axis}axis")
    where.set_major_locator(FixedLocator(sorted(ticks) or [high]))
    where.set_minor_locator(NullLocator())
    where.set_major_formatter(percent)


def level(ax: Axes, height: float, name: str) -> None:
    """A dotted horizontal line with its name at the left end."""
    ax.axhline(height, color=NEUTRAL, linestyle=":", linewidth=1.2)
    ax.annotate(name, (0.005, height), xycoords=("axes fraction", "data"), fontsize=8, va="bottom")


def percent(share: float, _: float | None = None) -> str:
    """A fraction as text; as a tick's label the position is given too."""
    return f"{100 * share:.4g} %"


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from 0.001 to 5000, that lie between ``low`` and ``high``."""
    return [n for power in range(-3, 4) for n in (10.0**power, 2 * 10.0**power, 5 * 10.0**power) if low <= n <= high]


def plain_ticks(axis, ticks: Sequence[float]) -> None:
    """Numbers in place of powers of ten on a short logarithmic axis."""
    axis.set_ticks(ticks, labels=[f"{t:g}" for t in ticks])
    axis.set_minor_locator(NullLocator())


def named(column: str, labels: Mapping[str, str] | None = None) -> str:
    """What an axis of this column is called: by ``labels``, by style.yml, or by its own name."""
    return (labels or {}).get(column, AXIS_NAMES.get(column, column.replace("_", " ")))


def told(curve: pd.Series, x: str, y: str, points: bool) -> str:
    """Both ends of a curve in words; of single ``points``, how many they are and their median."""

    def words(column: str, value: Any) -> str:
        return value if isinstance(value, str) else percent(round(value, 4)) if column in FRACTIONS else f"{value:.3g}"

    if points:
        return f"{len(curve)} points, median {words(y, curve.median())}"
    ends = (f"{words(y, height)} at {words(x, place)}" for place, height in curve.iloc[[0, -1]].items())
    return f"from {' to '.join(ends)}"


def open_markers(
    ax: Axes, own: pd.DataFrame, x: str, y: str, by: str, looks: Mapping[Any, MethodStyle], named: bool = True
) -> None:
    """Draw the reader's own run, a marker at each mean over seeds, and say so in the legend; ``looks``: by value of ``by``.

    The legend has the other curves too where they are ``named`` there."""
    sign: dict[str, Any] = {"linestyle": "none", "markerfacecolor": "none", "markersize": 7.5, "markeredgewidth": 1.3}
    for name, part in own.groupby(by):
        style, means = looks.get(name) or style_of(str(name)), part.groupby(x)[y].mean()
        ax.plot(means.index, means, marker=style.marker, markeredgecolor=style.colour, zorder=4, **sign)
    handles, labels = ax.get_legend_handles_labels() if named else ([], [])
    mark = Line2D([], [], marker="o", markeredgecolor=NEUTRAL, **sign)
    ax.legend([*handles, mark], [*labels, "your run"], loc="lower left")


def name_ends(ax: Axes, curves: Mapping[MethodStyle, pd.Series]) -> None:
    """Write each curve's name right of its end; names keep a line's distance from each other."""
    low, high = ax.get_ylim()
    rising = sorted(curves.items(), key=lambda end: end[1].iloc[-1])
    heights = apart([curve.iloc[-1] for _, curve in rising], 0.052 * (high - low), high)
    for (style, curve), height in zip(rising, heights, strict=True):
        ax.annotate(
            style.label, (curve.index[-1], curve.iloc[-1]), xytext=(1.015, height), textcoords=("axes fraction", "data"),
            color=style.colour, fontsize=8.5, va="center", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": style.colour, "linewidth": 0.5},
        )  # fmt: skip


def apart(rising: Sequence[float], step: float, top: float) -> list[float]:
    """The same heights, moved until each lies at least ``step`` above the one before and none above ``top``."""
    raised = list(rising)
    for i in range(1, len(raised)):
        raised[i] = max(raised[i], raised[i - 1] + step)
    for i in reversed(range(len(raised))):
        raised[i] = min(raised[i], top - step * (len(raised) - 1 - i))
    return raised
