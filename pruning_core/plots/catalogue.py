"""Pictures of the methods' pages: where in a network a method cuts, and whether it keeps what is large."""

import pandas as pd
from matplotlib.axes import Axes

from pruning_core.errors import BadInput
from pruning_core.experiments.intervals import require_names, require_rows, with_numbers
from pruning_core.plots.axes import percent
from pruning_core.plots.style import NEUTRAL, BookFigure, figure, finish, style_of, styled

SIZES = "by size, smallest left"
"""The last panel, and the only one of a thumbnail: what is kept of the smallest tenth, the next, and so on."""


@styled
def kept_by(rows: pd.DataFrame, *, method: str, thumbnail: bool = False) -> BookFigure:
    """Draw which share ``method`` keeps, in its colour, and what its rivals keep, in grey.

    rows: ``panel`` (a panel for each), ``method``, ``place`` (names, in the order of the rows) and ``kept`` (a fraction in
    [0, 1]). A ``thumbnail`` has the panel SIZES alone, without words. Raises BadInput for a method without a row.
    """
    require_rows(rows, ("panel", "method", "place", "kept"))
    require_names(rows, ("panel", "method", "place"))
    rows = with_numbers(rows, ["kept"])
    if method not in set(rows["method"]):
        raise BadInput(f"there is no row of {method!r}.")
    titles = [SIZES] if thumbnail else list(dict.fromkeys(rows["panel"]))
    fig, axes = figure(1, len(titles), size=(2.6, 1.7) if thumbnail else (7.6, 2.9), sharey=True)
    for ax, title in zip(axes[0], titles, strict=True):
        table = rows[rows["panel"] == title].pivot_table(index="place", columns="method", values="kept", sort=False)
        _draw(ax, table, method)
        if thumbnail:
            ax.set(xticks=[], yticks=[])
        else:
            ax.set_title(title, fontsize=10)
        least, most = percent(round(table[method].iloc[0], 3)), percent(round(table[method].iloc[-1], 3))
    axes[0, 0].set(ylim=(-0.03, 1.03))
    if not thumbnail:
        axes[0, 0].set_ylabel("share kept")
        axes[0, 0].yaxis.set_major_formatter(percent)
    label = style_of(method).label
    return finish(
        fig, None, f"curves of the shares kept: {label} keeps {least} of the smallest tenth, {most} of the largest."
    )


def _draw(ax: Axes, table: pd.DataFrame, method: str) -> None:
    style = style_of(method)
    ax.plot(table.drop(columns=method), color=NEUTRAL, linewidth=0.7, alpha=0.45, marker="")
    ax.plot(table[method], color=style.colour, marker=style.marker, linewidth=2)
    ax.tick_params("x", rotation=40 if max(map(len, table.index)) > 5 else 0, labelsize=8)
