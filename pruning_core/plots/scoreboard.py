"""The picture at the top of the Scoreboard: how many claims of each paper came to which verdict."""

import pandas as pd
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pruning_core.experiments.intervals import require_rows
from pruning_core.plots.style import COLOURS, NEUTRAL, BookFigure, figure, finish, styled

_LOOK = {
    "reproduced": (COLOURS["green"], 1.0),
    "same trend": (COLOURS["sky"], 1.0),
    "open": (COLOURS["ochre"], 1.0),
    "not reproduced": (COLOURS["crimson"], 1.0),
    "not run": (NEUTRAL, 0.3),
}


@styled
def summary(board: pd.DataFrame) -> BookFigure:
    """Stacked bars, a panel for falsifiable measurements at full and at reduced scale, counts and identities.

    ``board``: rows of a scoreboard with the columns title, kind, seen, scale and verdict. What we expect ourselves and what
    nobody has seen is left out. Raises BadInput for missing columns or no rows.
    """
    require_rows(board, ("title", "kind", "seen", "scale", "verdict"))
    stated = board[board["seen"] != "own"]
    measured = stated["kind"] == "measurement"
    parts = {
        "measurements, full scale": stated[measured & (stated["scale"] == "full")],
        "measurements, reduced scale": stated[
            measured & (stated["scale"] == "reduced") & (stated["verdict"] != "not run")
        ],
        "counts (no evidence)": stated[stated["kind"] == "count"],
        "identities (no evidence)": stated[stated["kind"] == "identity"],
    }
    titles = list(dict.fromkeys(board["title"]))[::-1]
    shown = [titles, titles, *([t for t in titles if t in set(part["title"])] for part in list(parts.values())[2:])]
    ratios = [len(names) + 1.5 for names in shown]
    fig, axes = figure(4, 1, size=(6.4, 0.36 * sum(ratios) + 0.8), gridspec_kw={"height_ratios": ratios})
    said = []
    for ax, names, (name, part) in zip(axes.flat, shown, parts.items(), strict=True):
        counts = pd.crosstab(part["title"], part["verdict"]).reindex(index=names, columns=list(_LOOK), fill_value=0)
        left = pd.Series(0, index=names)
        for verdict, (colour, alpha) in _LOOK.items():
            bars = ax.barh(names, counts[verdict], left=left, color=colour, alpha=alpha)
            labels, ink = [str(n) if n else "" for n in counts[verdict]], "white" if alpha == 1 else NEUTRAL
            ax.bar_label(bars, labels, label_type="center", fontsize=8, color=ink)
            left = left + counts[verdict]
        ax.set_title(name)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        said.append(f"{name}: " + (", ".join(f"{n} {word}" for word, n in counts.sum().items() if n) or "none"))
    axes[-1, 0].set_xlabel("verdicts")
    handles = [Patch(color=colour, label=word, alpha=alpha) for word, (colour, alpha) in _LOOK.items()]
    fig.legend(handles=handles, loc="outside lower center", ncols=3)
    return finish(fig, None, "Bars of verdicts for each paper. " + "; ".join(said) + ".")
