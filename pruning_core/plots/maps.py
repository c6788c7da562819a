"""Heat maps straight from rows: one with a predicted curve on top, or several side by side on one scale."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pruning_core.checks import checked
from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import require_names, with_numbers
from pruning_core.plots.axes import FRACTIONS, named, percent
from pruning_core.plots.style import BookFigure, figure, finish, looks_of, set_caption, sourced, styled


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
    'heat maps of share kept over column and row. SNIP: 25 % in the mean, most (40 %) at 1, 1.'
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    require_names(rows, (across, *([down] if down else [])))
    rows = with_numbers(rows, [x, y, value], finite=True)
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
            part = shown[shown[across] == name].dropna(subset=[x, y, value])
            if part.empty:
                raise BadInput(f"there is no row of {name!r} to draw.")
            grid = part.pivot_table(index=y, columns=x, values=value)
            high, wide = grid.shape
            ticks = {"xticklabels": max(1, wide // 6), "yticklabels": max(1, high // 6), "square": high == wide}
            sns.heatmap(grid, ax=ax, cmap="cividis", vmin=0, vmax=most, cbar=False, rasterized=True, **ticks)
            head = f"{look.label}{f', {lead}' * bool(lead)}"
            ax.tick_params(rotation=0)
            ax.set(xlabel=named(x), ylabel=named(y) if ax is line[0] else "", title=head)
            row, column = divmod(int(np.nanargmax(grid)), wide)
            ends = (
                percent(round(n, 3)) if value in FRACTIONS else f"{n:.3g}" for n in (np.nanmean(grid), np.nanmax(grid))
            )
            place = f"{grid.columns[column]:g}, {grid.index[row]:g}"
            notes.append("{}: {} in the mean, most ({}) at {}".format(head, *ends, place))
        if upwards:
            line[0].invert_yaxis()
        scale = fig.colorbar(line[0].collections[0], ax=list(line), label=named(value))
        if value in FRACTIONS:
            scale.ax.yaxis.set_major_formatter(percent)
    fig = finish(
        fig, sourced(rows), f"heat maps of {named(value)} over {named(x)} and {named(y)}. {'; '.join(notes)}.", title
    )
    return set_caption(fig, caption) if caption else fig
