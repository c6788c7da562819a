"""Curves straight from rows: means over seeds in their intervals, medians, points; a panel for each value of a column."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pruning_core.checks import Maybe, OneOf, Real, Whole, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.experiments.intervals import require_names, require_rows, with_numbers
from pruning_core.plots.axes import (
    AXIS_NAMES,
    above_zero,
    draw_curve,
    dress,
    interval_within,
    level,
    name_ends,
    named,
    open_markers,
    together,
    told,
)
from pruning_core.plots.style import (
    NEUTRAL,
    BookFigure,
    MethodStyle,
    figure,
    finish,
    looks_of,
    set_caption,
    sourced,
    styled,
)


@checked(
    points=OneOf("", "beside", "only"),
    columns=Whole(at_least=1),
    band=Maybe(Real(at_least=0, at_most=100)),
    middle=OneOf("mean", "median"),
)
@styled
def chart(
    rows: pd.DataFrame,
    x: str,
    y: str | Sequence[str],
    by: str = "method",
    *,
    panels: str | None = None,
    columns: int = 3,
    sharey: bool = True,
    at: str | None = None,
    mine: pd.DataFrame | None = None,
    middle: str = "mean",
    band: float | None = None,
    points: str = "",
    log: str = "",
    kept: str = "",
    coloured: Sequence[str] = (),
    dashed: Sequence[str] = (),
    levels: Mapping[str, float] | None = None,
    marks: Mapping[Any, float] | None = None,
    guides: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    slope: float | None = None,
    styles: Mapping[Any, MethodStyle] | None = None,
    labels: Mapping[str, str] | None = None,
    size: tuple[float, float] | None = None,
    title: str = "",
    caption: str = "",
) -> BookFigure:
    """Draw ``y`` against ``x``, a curve for each value of ``by``: the mean over seeds with its 95 % interval as a band.

    Several columns ``y`` have a panel each; so has each value of the column ``panels``, ``columns`` of them side by side, on
    one scale where they ``sharey``. Rows with the same value of the column ``at`` are one point, at the mean of their ``x``.
    ``mine``: rows of the reader's own run, drawn as open markers. ``middle`` ("mean", "median") in a ``band`` over the central
    so many percent of the rows, or in none (0), takes the place of mean and interval. ``points``: "beside" the curves each
    row is drawn too, or it "only".

    The axes named in ``log`` ("x", "y", "xy") are logarithmic, those in ``kept`` logarithmic in what a fraction removed
    leaves. Where values of ``by`` are ``coloured``, all others are grey, and every curve has its name at its end; those in
    ``dashed`` have broken lines. ``levels``: name -> height of a dotted line. ``marks``: where a dashed vertical line stands,
    by a value of ``by`` (in its colour) or by a name. ``guides``: name -> (x, y) of a dotted line; ``slope``: the exponent
    of one below the curves. ``styles`` and ``labels`` replace the looks of curves and the names of axes, ``size`` (inches)
    that of the figure. Raises BadInput for missing columns and where there is nothing to draw.

    >>> kinds, removed = ["small", "small", "large", "large"], [0.0, 0.5, 0.0, 0.5]
    >>> rows = pd.DataFrame({"kind": kinds, "macs_removed": removed, "accuracy": [98.5, 97.0, 99.0, 98.0]})
    >>> chart(rows, "macs_removed", "accuracy", "kind").alt.split(". ")[1]
    'small from 98.5 at 0 % to 97 at 50 %'
    """
    ys = [y] if isinstance(y, str) else list(y)
    require_rows(rows, (x, *ys, by, *([panels] if panels else [])))
    require_names(rows, (x, by, *([panels] if panels else [])))
    if mine is not None:
        require_names(mine, (x, by, *([panels] if panels else [])))
        mine = with_numbers(mine.infer_objects(), ys).dropna(subset=[by])
    kept_by = [x, by, *([panels] if panels else [])]  # what belongs to no curve is not drawn
    rows = with_numbers(rows.infer_objects(), ys).dropna(subset=kept_by).dropna(subset=ys, how="all")
    if rows.empty:
        raise BadInput(f"there is no row with a value of {ys[0]!r} to draw.")
    if at:
        rows, mine = together(rows, by, at, x), None if mine is None else together(mine, by, at, x)
    looks, notes = looks_of(rows[by], by, styles), []
    if coloured and (missing := [name for name in coloured if name not in looks]):
        raise BadInput(f"no row of {missing[0]!r} has {x!r} and {ys[0]!r}.")
    if coloured:  # drawn last, above the others
        grey = {name: look._replace(colour=NEUTRAL) for name, look in looks.items() if name not in coloured}
        looks = grey | {name: looks[name] for name in coloured}
    elif len(looks) == 1 and not guides and slope is None:  # the title says what one curve is
        looks = {name: look._replace(label="") for name, look in looks.items()}
    groups = [("", column, rows, mine) for column in ys] if panels is None else list(_groups(rows, ys[0], panels, mine))
    scale = {axis: "log" if axis in log else "kept" if axis in kept else "linear" for axis in "xy"}
    wide = min(columns, len(groups))
    high = -(-len(groups) // wide)
    usual = (min(6.4 if wide == 1 else 4.8 * wide, 9.6), 3.8 if high == 1 else 3.0 * high)
    fig, axes = figure(high, wide, size=size or usual, sharey=sharey and panels is not None)
    for ax, (head, column, part, own) in zip(axes.flat, groups, strict=False):
        part = part.dropna(subset=[x, column])
        if part.empty:
            raise BadInput(f"there is no row with a value of {column!r} to draw.")
        part = part.assign(**{column: above_zero(part[column])}) if "y" in log else part
        found = {}
        for name, some in ((name, part[part[by] == name]) for name in looks if (part[by] == name).any()):
            back = bool(coloured) and name not in coloured
            if band is None and "seed" in some:  # several rows of one seed count as their mean
                some = some.groupby([x, "seed"], sort=False, dropna=False, as_index=False)[column].mean()
            colour, marker, label = looks[name]
            if points:
                faint: dict[str, Any] = {"alpha": 0.35} if points == "beside" else {"label": label, "marker": marker}
                ax.scatter(some[x], some[column], s=14, color=colour, linewidth=0, **faint)
            look: dict[str, Any] = {"linestyle": "--"} if name in dashed else {}
            look |= {"linewidth": 0.9, "markersize": 3, "zorder": 1.9} if back else {}
            errorbar = interval_within(column, "y" in log) if band is None else ("pi", band) if band else None
            found[name] = some.set_index(x)[column]
            if points != "only":
                found[name] = draw_curve(ax, some, x, column, looks[name], None if back else errorbar, middle, **look)
            if not back:
                notes.append(f"{head}{', ' * bool(head)}{label} {told(found[name], x, column, points == 'only')}")
        _frame(ax, found, looks, levels or {}, marks or {}, guides or {}, slope)
        places = part[x] if own is None or "x" not in kept else pd.concat([part[x], own[x].dropna()])
        dress(ax, "x", x, places, scale["x"], labels)
        dress(ax, "y", column, pd.concat(found.values()), scale["y"], labels)
        ax.set_title(head)
        if coloured:
            name_ends(ax, {looks[name]: curve for name, curve in found.items()})
            notes = [f"{len(looks)} curves, of which in colour {', '.join(looks[name].label for name in coloured)}"]
        if own is not None and len(own := own.dropna(subset=[x, column])):
            open_markers(ax, own, x, column, by, looks, named=not coloured)
    for ax in axes.flat[len(groups) :]:
        ax.set_visible(False)
    for ax in axes[:, 1:].flat if panels else ():
        ax.set_ylabel("")
    if (len(looks) > 6 or points == "only") and not coloured:  # so much leaves no room inside
        fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper")
    if band is None and "seed" in rows and points != "only":
        seeds = rows["seed"].nunique()
        notes.append(f"Means over {seeds} seeds in their 95 % intervals" if seeds > 1 else "One seed, so no bands")
    lead = f"{' and '.join(named(column, labels) for column in ys)} against {named(x, labels) or x}"
    drawn = finish(fig, sourced(rows), f"{lead}. {'. '.join(notes)}.", title, legend=not coloured)
    return set_caption(drawn, caption) if caption else drawn


def _groups(
    rows: pd.DataFrame, y: str, panels: str, mine: pd.DataFrame | None
) -> Iterator[tuple[str, str, pd.DataFrame, pd.DataFrame | None]]:
    for value, part in rows.groupby(panels, sort=False):
        head = str(value).replace("_", " ") if isinstance(value, str) else f"{AXIS_NAMES.get(panels, panels)} {value:g}"
        yield head, y, part, None if mine is None else mine[mine[panels] == value]


def _frame(
    ax: Axes,
    found: Mapping[Any, pd.Series],
    looks: Mapping[Any, MethodStyle],
    levels: Mapping[str, float],
    marks: Mapping[Any, float],
    guides: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    slope: float | None,
) -> None:
    """Draw what the curves (value of ``by`` -> their points) are compared with: see :func:`chart`."""
    for name, height in levels.items():
        level(ax, height, name)
    for name, place in marks.items():
        ax.axvline(place, color=looks[name].colour if name in looks else NEUTRAL, linestyle="--", linewidth=1.2)
        if name not in looks:
            ax.annotate(f" {name}", (place, 0.62), xycoords=("data", "axes fraction"), fontsize=8)
    for name, (xs, ys) in guides.items():
        ax.plot(xs, ys, ":", color=NEUTRAL, label=name)
    if slope is not None:
        places = np.unique(np.concatenate([curve.index for curve in found.values()]))
        lowest = min(curve.iloc[-1] * (places[-1] / curve.index[-1]) ** slope for curve in found.values())
        exponent = str(Fraction(slope).limit_denominator(100)).replace("-", "−")
        ax.plot(places, 0.85 * lowest * (places / places[-1]) ** slope, ":", color=NEUTRAL, label=f"slope {exponent}")


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
    marks: Mapping[Any, float] | None = None,
    styles: Mapping[Any, MethodStyle] | None = None,
    title: str = "",
    caption: str = "",
) -> BookFigure:
    """Draw one curve a method: the mean over seeds, with the 95 % interval of the mean as a band.

    rows: tidy rows; ``x`` a fraction removed, ``y`` any number, ``by`` the column that makes the curves. Rows that asked for
    the same sparsity are one point, at the mean of what they reached. ``scale``: "kept" (the x axis of
    ``set_sparsity_axis``) or "linear" from 0 to 1. ``reference`` draws a level (the unpruned network). ``marks``: value of
    ``by`` -> where a dashed line of its colour stands. ``styles`` overrides the palette for values of ``by`` that are no
    methods. Raises BadInput when no row is left to draw.

    >>> methods, accuracies = ["snip"] * 2 + ["random"] * 2, [98, 97, 97, 80]
    >>> rows = pd.DataFrame({"method": methods, "seed": 0, "sparsity": [0.5, 0.9] * 2, "accuracy": accuracies})
    >>> accuracy_against_sparsity(rows).alt.partition(".")[0]
    'test accuracy (%) against weights removed'
    """
    known_name("scale", scale, ("kept", "linear"))
    require_names(rows, (by,))
    rows = with_numbers(rows, [x, y]).sort_values(by, kind="stable")
    look: dict[str, Any] = {
        "levels": {} if reference is None else {"unpruned": reference},
        "marks": marks,
        "styles": styles,
    }
    fig = chart(rows, x, y, by, at="asked", kept="x" if scale == "kept" else "", title=title, caption=caption, **look)
    if scale == "linear":
        fig.axes[0].set_xlim(0, 1)
    return fig
