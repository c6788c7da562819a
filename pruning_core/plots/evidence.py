"""Figures of a result: stored rows as curves, the reader's own run as open markers, and differences with their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pruning_core.checks import checked
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import Interval, mean_interval, require_columns
from pruning_core.plots.axes import AXIS_NAMES, level, percent, set_sparsity_axis
from pruning_core.plots.style import (
    COLOURS,
    NEUTRAL,
    BookFigure,
    MethodStyle,
    finish,
    panel,
    set_caption,
    style_of,
    styled,
)

SIDES = {1: ("ahead", COLOURS["blue"]), -1: ("behind", COLOURS["crimson"]), 0: ("open", NEUTRAL)}


@checked
@styled
def evidence(
    stored: pd.DataFrame,
    mine: pd.DataFrame | None = None,
    *,
    coloured: Sequence[str],
    caption: str,
    x: str = "sparsity",
    y: str = "accuracy",
    reference: float | None = None,
    title: str = "",
) -> BookFigure:
    """Draw ``y`` against the fraction removed ``x``: a curve for each method of the ``stored`` rows, named at its end.

    The methods in ``coloured`` have their colour and the 95 % interval of the mean over seeds as a band, all others are
    grey. ``mine``: rows of the reader's own run, drawn as open markers. Rows that asked for the same sparsity are one
    point, at the mean of what they reached. ``reference`` draws a level (the unpruned network). ``caption``: what to see.
    Raises BadInput for a method in ``coloured`` without a stored row.
    """
    rows = _points(stored, x, y)
    if missing := [name for name in coloured if name not in set(rows["method"])]:
        raise BadInput(f"no stored row of {missing[0]!r} has {x!r} and {y!r}.")
    fig, ax = panel(size=(7.6, 4.2))
    looks = {name: _look(name, name in coloured) for name in dict.fromkeys(rows["method"])}
    ends = dict(_curves(ax, rows, x, y, looks, coloured))
    seen = rows[x]
    if mine is not None and len(own := _points(mine, x, y)):
        seen = pd.concat([seen, own[x]])
        open_markers(ax, own, x, y, {name: _look(name, name in coloured) for name in own["method"].unique()})
    if reference is not None:
        level(ax, reference, "unpruned")
    set_sparsity_axis(ax, seen.to_numpy(float))
    if y.endswith("accuracy"):  # intervals of few seeds may leave what is possible
        low, high = ax.get_ylim()
        ax.set_ylim(max(low, 0), min(high, 101))
    _name_ends(ax, ends)
    x_name, y_name = AXIS_NAMES.get(x, x), AXIS_NAMES.get(y, y)
    ax.set(xlabel=x_name, ylabel=y_name)
    names = ", ".join(looks[name].label for name in coloured)
    alt = f"{y_name} against {x_name} for {len(looks)} methods, {names} in colour."
    return set_caption(finish(fig, stored, alt, title), caption)


def _points(rows: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The rows with a value, at the mean ``x`` of those of one method that asked for the same."""
    require_columns(rows, (x, y, "method", "seed"))
    rows = rows.dropna(subset=[x, y])
    asked = rows.get("asked", rows[x]).fillna(rows[x])
    return rows.assign(**{x: rows.groupby([rows["method"], asked])[x].transform("mean")})


def _look(method: str, coloured: bool) -> MethodStyle:
    style = style_of(method)
    return style if coloured else style._replace(colour=NEUTRAL)


def _curves(
    ax: Axes, rows: pd.DataFrame, x: str, y: str, looks: Mapping[str, MethodStyle], coloured: Sequence[str]
) -> Iterator[tuple[str, tuple[float, float, str]]]:
    """Draw each method, the grey ones first; yield its label and where its curve ends, in which colour."""
    import seaborn as sns  # slow to load, scipy.stats with it

    def interval(values: Sequence[float]) -> tuple[float, float]:
        return mean_interval(values)[1:3]

    for name in sorted(looks, key=lambda name: name in coloured):
        part, style, front = rows[rows["method"] == name], looks[name], name in coloured
        look: dict[str, Any] = {
            "color": style.colour,
            "marker": style.marker,
            "markeredgewidth": 0,
            "zorder": 3 if front else 2,
        }
        weight: dict[str, Any] = {"linewidth": 1.8 if front else 0.9, "markersize": 5.5 if front else 3}
        shade: dict[str, Any] = {"err_kws": {"alpha": 0.16, "linewidth": 0}, "errorbar": interval if front else None}
        sns.lineplot(part, x=x, y=y, ax=ax, legend=False, **look, **weight, **shade)
        last = part[part[x] == part[x].max()]
        yield style.label, (float(last[x].iloc[0]), float(last[y].mean()), style.colour)


def open_markers(ax: Axes, own: pd.DataFrame, x: str, y: str, looks: Mapping[str, MethodStyle] | None = None) -> None:
    """Draw the reader's own run, a marker at each mean over seeds, and say so in the legend; ``looks``: of the methods."""
    for name, part in own.groupby("method"):
        style, means = (looks or {}).get(str(name)) or style_of(str(name)), part.groupby(x)[y].mean()
        hollow: dict[str, Any] = {
            "markerfacecolor": "none",
            "markeredgecolor": style.colour,
            "markersize": 7.5,
            "markeredgewidth": 1.3,
        }
        ax.plot(means.index, means, linestyle="none", marker=style.marker, zorder=4, **hollow)
    sign = Line2D([], [], linestyle="none", marker="o", markerfacecolor="none", markeredgecolor=NEUTRAL, markersize=7.5)
    handles, labels = ax.get_legend_handles_labels()
    ax.legend([*handles, sign], [*labels, "your run"], loc="lower left")


def _name_ends(ax: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Write each curve's name right of its end; names keep a line's distance from each other."""
    low, high = ax.get_ylim()
    step = 0.052 * (high - low)
    rising = sorted(ends.items(), key=lambda end: end[1][1])
    heights = _apart([y for _, (_, y, _) in rising], step, high)
    for (label, (x, y, colour)), height in zip(rising, heights, strict=True):
        ax.annotate(
            label, (x, y), xytext=(1.015, height), textcoords=("axes fraction", "data"), color=colour, fontsize=8.5,
            va="center", annotation_clip=False, arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5},
        )  # fmt: skip


def _apart(rising: Sequence[float], step: float, top: float) -> list[float]:
    """The same heights, moved until each lies at least ``step`` above the one before and none above ``top``."""
    raised = list(rising)
    for i in range(1, len(raised)):
        raised[i] = max(raised[i], raised[i - 1] + step)
    for i in reversed(range(len(raised))):
        raised[i] = min(raised[i], top - step * (len(raised) - 1 - i))
    return raised


@checked
@styled
def differences(
    found: Mapping[str, Mapping[float, Interval]], *, ours: str, caption: str, unit: str = "points", title: str = ""
) -> BookFigure:
    """Draw what the method ``ours`` gains on each rival at each setting, with its 95 % interval, about a line at zero.

    found: rival -> setting (a fraction removed) -> difference, as ``book.gaps`` computes it. Filled markers are clear, open
    ones leave it open. Raises BadInput where there is nothing to draw.
    """
    lines = [(rival, setting, gap) for rival, by in found.items() for setting, gap in by.items()]
    if not lines:
        raise BadInput("there is no difference to draw.")
    fig, ax = panel(size=(7.6, 1.1 + 0.24 * len(lines) + 0.12 * len(found)))
    places = np.cumsum([1.0 + 0.6 * (i > 0 and lines[i][0] != lines[i - 1][0]) for i in range(len(lines))])
    for place, (_, _, gap) in zip(places, lines, strict=True):
        _, colour = SIDES[gap.side]
        error: dict[str, Any] = {
            "xerr": [[gap.mean - gap.low], [gap.high - gap.mean]],
            "ecolor": colour,
            "capsize": 2.5,
        }
        face = colour if gap.side else "none"
        ax.errorbar(gap.mean, place, fmt="o", color=colour, markerfacecolor=face, **error)
    ax.axvline(0, color=NEUTRAL, linewidth=1)
    ax.set_yticks(places, [f"{style_of(rival).label}, {percent(setting)}" for rival, setting, _ in lines], fontsize=8.5)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    name = style_of(ours).label
    ax.set_xlabel(f"← {name} behind    {unit}    {name} ahead →")
    counts = [sum(gap.side == side for _, _, gap in lines) for side in (1, -1, 0)]
    alt = f"{name} against {len(found)} rivals: {counts[0]} differences clearly ahead, {counts[1]} behind, {counts[2]} open."
    return set_caption(finish(fig, None, alt, title), caption)
