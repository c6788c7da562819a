"""Figures of the chapter on sensitivities."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from pruning_core.plots.axes import plain_ticks
from pruning_core.plots.style import NEUTRAL, BookFigure, finish, panel, style_of, styled


@styled
def error_spread(errors: Mapping[str, Tensor], draws: int, *, title: str = "") -> BookFigure:
    """Draw how far estimates from ``draws`` weights stray: the share of estimates with at most a relative error.

    errors: rule of drawing -> relative errors (any number, at least 0). The dotted line is at one half of the estimates.
    """
    import seaborn as sns  # slow to load, scipy.stats with it

    fig, ax = panel()
    notes = []
    for rule, found in errors.items():
        style = style_of(rule)
        few = np.quantile(found.double().cpu().numpy(), np.linspace(0, 1, 200))  # all points would fill megabytes
        sns.ecdfplot(x=100 * few, ax=ax, color=style.colour, label=style.label)
        notes.append(f"{style.label} {100 * float(found.double().median()):.2g} %")
    ax.axhline(0.5, color=NEUTRAL, linestyle=":", linewidth=1.2)
    ax.set(xscale="log", xlim=(0.1, 200), xlabel="relative error (%)", ylabel="share of estimates", ylim=(0, 1))
    plain_ticks(ax.xaxis, [0.1, 1, 10, 100])
    return finish(fig, None, f"half of the estimates from {draws} draws are off by at most: {'; '.join(notes)}.", title)
