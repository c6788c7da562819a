"""Heat maps straight from rows: one with a predicted curve on top, or several side by side on one scale."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pruning_core.checks import checked
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import require_columns
from pruning_core.plots.axes import FRACTIONS, MAP_LEGEND, MAP_LINE, named, percent
from pruning_core.plots.style import BookFigure, figure, finish, looks_of, panel, set_caption, styled


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
    x_name, y_name, value_name = labels or (named(x), named(y), named(value))
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
def maps(
    rows: pd.DataFrame,
    x: str,
    y: str,
    value: str,
    across: str = "method",
    down: str | None = None,
    *,
    chosen: Sequence[str] = (),
    upwards: bool = False,
    title: str = "",
    caption: str = "",
) -> BookFigure:
    """Draw ``value`` over a grid of ``x`` and ``y``, a heat map for each value of ``across``, and a row of them for each of
    ``down``; means over the rows of one cell.

    One colour scale from 0 for all maps in a row. ``chosen``: the values of ``across`` in the order wanted (none: all, as
    they come). ``upwards``: ``y`` grows upwards. Raises BadInput for missing columns and for maps without a row.

    >>> rows = pd.DataFrame({"method": "snip", "row": [0, 0, 1, 1], "column": [0, 1] * 2, "kept": [0.1, 0.2, 0.3, 0.4]})
    >>> maps(rows, "column", "row", "kept").alt
    'heat maps of kept over column and row. SNIP: 25 % in the mean, most (40 %) at 1, 1.'
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    require_columns(rows, (x, y, value, across, *([down] if down else [])))
    looks = looks_of(chosen or rows[across], across)
    levels = list(dict.fromkeys(rows[down])) if down else [None]
    fig, axes = figure(
        len(levels), len(looks), size=(min(3.2 * len(looks) + 0.8, 9.6), 2.9 * len(levels) + 0.9), sharey=True
    )
    notes = []
    for line, at in zip(axes, levels, strict=True):
        shown = rows if at is None else rows[rows[down] == at]
        most = float(shown[value].max())
        lead = "" if at is None else percent(at) if down in FRACTIONS else f"{named(str(down))} {at}"
        for ax, (name, look) in zip(line, looks.items(), strict=True):
            part = shown[shown[across] == name]
            if part.empty:
                raise BadInput(f"there is no row of {name!r} to draw.")
            grid = part.pivot_table(index=y, columns=x, values=value)
            sns.heatmap(grid, ax=ax, cmap="cividis", vmin=0, vmax=most, cbar=False, rasterized=True)
            ax.tick_params("y", rotation=0)
            ax.set(
                xlabel=named(x),
                ylabel=named(y) if ax is line[0] else "",
                title=look.label if at is None else f"{look.label}, {lead}",
            )
            row, column = np.unravel_index(np.nanargmax(grid), grid.shape)
            mean, top = (
                percent(round(n, 3)) if value in FRACTIONS else f"{n:.3g}"
                for n in (grid.stack().mean(), np.nanmax(grid))
            )
            place = f"{grid.columns[column]:g}, {grid.index[row]:g}"
            notes.append(f"{look.label}{f', {lead}' * bool(lead)}: {mean} in the mean, most ({top}) at {place}")
        if upwards:
            line[0].invert_yaxis()
        scale = fig.colorbar(line[0].collections[0], ax=list(line), label=named(value))
        if value in FRACTIONS:
            scale.ax.yaxis.set_major_formatter(percent)
    fig = finish(fig, rows, f"heat maps of {named(value)} over {named(x)} and {named(y)}. {'; '.join(notes)}.", title)
    return set_caption(fig, caption) if caption else fig
