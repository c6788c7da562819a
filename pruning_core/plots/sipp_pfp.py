"""Figures of the chapter on sensitivities."""

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from pruning_core.plots.curves import method_lines
from pruning_core.plots.style import NEUTRAL
from pruning_core.plots.style import BookFigure
from pruning_core.plots.style import figure
from pruning_core.plots.style import set_alt
from pruning_core.plots.style import stamp
from pruning_core.plots.style import styled


@styled
def error_against_draws(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw the relative error of an estimate against the number of draws, both logarithmic; a dotted line has slope -1/2.

    rows: method, draws, relative_error, seed. Bands are 95 % intervals over seeds.
    """
    fig, axes = figure()
    ax = axes[0, 0]
    said = method_lines(ax, rows, "draws", "relative_error")
    draws = np.array(sorted(rows["draws"].unique()), float)
    low = rows["relative_error"].min()
    ax.plot(draws, 0.85 * low * np.sqrt(draws[-1] / draws), ":", color=NEUTRAL, label=r"$1/\sqrt{m}$")
    ax.set(xlabel="draws", ylabel="mean relative error", title=title)
    ticks = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if 0.7 * low <= t <= 1.2 * rows["relative_error"].max()]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.legend()
    stamp(fig, rows)
    set_alt(fig, f"{title + ': ' if title else ''}relative error against draws. {'; '.join(said)}.")
    return fig
