"""Figures of a result: stored rows as curves, the reader's own run as open markers, and differences with their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pruning_core.checks import checked
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import Interval, require_columns
from pruning_core.plots.axes import AXIS_NAMES, interval_of, level, percent, plain_ticks, set_sparsity_axis
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

    >>> methods, accuracies = ["snip"] * 2 + ["random"] * 2, [98, 97, 97, 80]
    >>> rows = pd.DataFrame({"method": methods, "seed": 0, "sparsity": [0.5, 0.9] * 2, "accuracy": accuracies})
    >>> evidence(rows, coloured=["snip"], caption="SNIP ends higher.").alt
    'test accuracy (%) against weights removed for 2 methods, SNIP in colour.'
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

    for name in sorted(looks, key=lambda name: name in coloured):
        part, style, front = rows[rows["method"] == name], looks[name], name in coloured
        look: dict[str, Any] = {
            "color": style.colour,
            "marker": style.marker,
            "markeredgewidth": 0,
            "zorder": 3 if front else 2,
        }
        weight: dict[str, Any] = {"linewidth": 1.8 if front else 0.9, "markersize": 5.5 if front else 3}
        shade: dict[str, Any] = {"err_kws": {"alpha": 0.16, "linewidth": 0}, "errorbar": interval_of if front else None}
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
    found: Mapping[str, Mapping[float, Interval]],
    *,
    ours: str | None = None,
    axis: str = "",
    source: str | None = None,
    caption: str,
    title: str = "",
) -> BookFigure:
    """Draw differences in points with their 95 % intervals about a line at zero; filled markers are clear, open ones open.

    found: group -> setting (a fraction removed) -> difference, as ``book.gaps`` computes it. Groups are the rivals of the
    method ``ours``, or comparisons of which ``axis`` says what was subtracted from what; ``source``: where the rows are from.
    Beyond 5 points the axis is logarithmic where differences of more than 25 must fit. Raises BadInput where there is
    nothing to draw, or neither ``ours`` nor ``axis``.

    >>> found = {"random": {0.9: Interval(10.0, 7.0, 13.0, 5)}}
    >>> differences(found, ours="snip", caption="SNIP is ahead.").alt
    'SNIP against 1 rivals: 1 differences clearly ahead, 0 behind, 0 open.'
    """
    groups = [(name, list(by.items())) for name, by in found.items() if by]
    if not groups:
        raise BadInput("there is no difference to draw.")
    if not (ours or axis):
        raise BadInput("differences need ours=, a method, or axis=, what was subtracted from what.")
    headed = any(len(lines) > 1 for _, lines in groups)
    ticks: dict[float, str] = {}
    gaps: list[Interval] = []
    heads: list[tuple[float, str]] = []
    for name, lines in groups:
        label, top = style_of(name).label, max(ticks, default=0.0) + (0.6 if headed else 0.0)
        if headed:
            heads.append((top := top + 0.9, label))
        for row, (setting, gap) in enumerate(lines, 1):
            ticks[top + row] = percent(setting) if headed else f"{label}, {percent(setting)}"
            gaps.append(gap)
    fig, ax = panel(size=(7.6, 1.1 + 0.24 * (max(ticks) + 0.5)))
    for place, gap in zip(ticks, gaps, strict=True):
        _, colour = SIDES[gap.side]
        reach = [[gap.mean - gap.low], [gap.high - gap.mean]]
        face = colour if gap.side else "none"
        ax.errorbar(
            gap.mean, place, xerr=reach, fmt="o", color=colour, ecolor=colour, markerfacecolor=face, capsize=2.5
        )
    for place, label in heads:
        ax.annotate(label, (0.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=9, weight="bold")
    ax.axvline(0, color=NEUTRAL, linewidth=1)
    ax.set_yticks(list(ticks), list(ticks.values()), fontsize=8.5)
    ax.set_ylim(max(ticks) + 0.7, 0.3)
    ax.grid(axis="y", visible=False)
    if max(abs(gap.mean) for gap in gaps) > 25:
        ax.set_xscale("symlog", linthresh=5)
        low, high = min(gap.low for gap in gaps), max(gap.high for gap in gaps)
        plain_ticks(ax.xaxis, [t for t in (-50, -20, -10, -5, -2, 0, 2, 5, 10, 20, 50, 100) if low <= t <= high])
    name = style_of(ours).label if ours else ""
    ax.set_xlabel(axis or f"← {name} behind    points    {name} ahead →")
    counts = [sum(gap.side == side for gap in gaps) for side in (1, -1, 0)]
    about = f"{name} against {len(groups)} rivals" if name else f"{len(groups)} comparisons, {axis}"
    alt = f"{about}: {counts[0]} differences clearly ahead, {counts[1]} behind, {counts[2]} open."
    return set_caption(finish(fig, source, alt, title), caption)
