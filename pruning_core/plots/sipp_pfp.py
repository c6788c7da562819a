"""Figures of the chapter on sensitivities."""

import numpy as np
import pandas as pd

from pruning_core.plots.axes import method_lines, plain_ticks, round_numbers
from pruning_core.plots.style import NEUTRAL, BookFigure, finish, panel, styled


@styled
def error_against_draws(rows: pd.DataFrame, *, title: str = "") -> BookFigure:
    """Draw the relative error of an estimate against the number of draws, both logarithmic; a dotted line has slope -1/2.

    rows: method, draws, relative_error, seed. Bands are 95 % intervals over seeds.
    """
    fig, ax = panel()
    notes = method_lines(ax, rows, "draws", "relative_error")
    draws = np.array(sorted(rows["draws"].unique()), float)
    low = rows["relative_error"].min()
    ax.plot(draws, 0.85 * low * np.sqrt(draws[-1] / draws), ":", color=NEUTRAL, label=r"$1/\sqrt{m}$")
    ax.set(xlabel="draws", ylabel="mean relative error")
    plain_ticks(ax.yaxis, round_numbers(0.7 * low, 1.2 * rows["relative_error"].max()))
    return finish(fig, rows, f"relative error against draws. {'; '.join(notes)}.", title)
