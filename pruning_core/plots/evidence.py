"""Figures of a result: stored rows as curves, the reader's own run as open markers, and differences with their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pruning_core.checks import checked
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import Interval
from pruning_core.plots.axes import percent, plain_ticks
from pruning_core.plots.curves import chart
from pruning_core.plots.style import COLOURS, NEUTRAL, BookFigure, finish, panel, set_caption, style_of, styled

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
    'test accuracy (%) against weights removed. 2 curves, of which in colour SNIP. One seed, so no bands.'
    """
    levels = {} if reference is None else {"unpruned": reference}
    look: dict[str, Any] = {
        "coloured": coloured,
        "levels": levels,
        "size": (7.6, 4.2),
        "title": title,
        "caption": caption,
    }
    return chart(stored, x, y, at="asked", mine=mine, kept="x", **look)


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
