"""Figures of chapter 0: where a sparsity puts the zeros, and which layer plays which part in which channel group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pruning_core.errors import known_name
from pruning_core.experiments.intervals import require_rows
from pruning_core.plots.axes import percent
from pruning_core.plots.captions import captioned
from pruning_core.plots.interactive import Curve, SliderFigure, slider_figure
from pruning_core.plots.style import COLOURS, STYLES, BookFigure, finish, panel, styled, titled

SPREAD_STYLE, ROUNDS_STYLE = STYLES["spreads"], STYLES["rounds"]
"""How the ways of spreading a budget, and cuts in one round and in several, are drawn."""


@captioned
def density_slider(rows: pd.DataFrame, *, start: int = 0, title: str = "") -> SliderFigure:
    """Make a slider over sparsities that shows which share of each layer is kept, one curve a way of spreading.

    rows: ``asked``, ``across``, ``layer``, ``sparsity``; the same layers and ways at every asked sparsity. Layers whose
    last weight is protected keep a density above 0, so the vertical axis is logarithmic.
    """
    require_rows(rows, ("asked", "across", "layer", "sparsity"))
    layers = list(dict.fromkeys(rows["layer"]))
    places = np.arange(1, len(layers) + 1)
    positions: dict[str, dict[str, Curve]] = {}
    for asked, at in rows.groupby("asked"):
        shares = 100 * (1 - at.pivot(index="layer", columns="across", values="sparsity").loc[layers])
        kept_by = {SPREAD_STYLE[way].label: shares[way].to_numpy(float) for way in dict.fromkeys(at["across"])}
        positions[percent(float(asked))] = {label: (places, kept) for label, kept in kept_by.items()}
    last = list(positions)[-1]
    notes = []
    for label, (_, kept) in positions[last].items():
        parts = (f"{share:.3g} % of {layer}" for share, layer in zip(kept, layers, strict=True))
        notes.append(f"{label} keeps {', '.join(parts)}")
    look: dict[str, Any] = {"x_label": "layer", "y_label": "weights kept in the layer (%)", "y_log": True}
    look |= {"mode": "lines+markers", "styles": {style.label: style for style in SPREAD_STYLE.values()}}
    alt = titled(title, f"densities of the layers as the sparsity moves. At {last}: {'; '.join(notes)}.")
    slider = slider_figure(positions, control="weights removed", alt=alt, start=start, title=title, **look)
    slider.layout["xaxis"] |= {"tickvals": places.tolist(), "ticktext": list(layers)}
    slider.layout["yaxis"] |= {"dtick": 1}
    slider.layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    return slider


ROLES = {"produces": ("ochre", "P"), "normalises": ("mauve", "N"), "consumes": ("blue", "C")}
"""Role of a layer in a group -> colour and letter."""


@styled
def group_map(rows: pd.DataFrame, *, order: Sequence[str] | None = None, title: str = "") -> BookFigure:
    """Draw layers (down) against channel groups (across); a tile says what a layer does with a group's channels.

    rows: columns ``group``, ``role`` ("produces", "normalises", "consumes") and ``parameter``; the layer is the part of
    ``parameter`` before its last dot. Groups keep the order of the rows, layers too, or that of ``order``. A layer with
    two roles in one group shows both letters. Raises BadInput for missing columns or no rows.
    """
    require_rows(rows, ("group", "role", "parameter"))
    for role in rows["role"]:
        known_name("role", role, ROLES)
    parts = rows.assign(layer=rows["parameter"].str.rpartition(".")[0])
    groups, named = list(dict.fromkeys(parts["group"])), set(parts["layer"])
    layers = [layer for layer in order or dict.fromkeys(parts["layer"]) if layer in named]
    fig, ax = panel(size=(min(2.6 + 0.9 * len(groups), 9.6), 1.2 + 0.3 * len(layers)))
    for (group, layer), tile in parts.groupby(["group", "layer"], sort=False):
        roles = [role for role in ROLES if role in set(tile["role"])]  # they share the tile
        y, width = layers.index(layer), 0.84 / len(roles)
        for i, role in enumerate(roles):
            colour, letter = ROLES[role]
            middle = groups.index(group) - 0.42 + i * width + width / 2
            ax.bar(middle, 0.8, width, y - 0.4, color=COLOURS[colour])
            ax.text(middle, y, letter, ha="center", va="center", fontsize=9, color="white", weight="bold")
    ax.set_xticks(range(len(groups)), groups, rotation=30, ha="right", rotation_mode="anchor", fontsize=9)
    ax.set_yticks(range(len(layers)), layers, fontsize=9)
    ax.set(xlim=(-0.6, len(groups) - 0.4), ylim=(len(layers) - 0.4, -0.6), xlabel="channel group", ylabel="layer")
    for role, (colour, letter) in ROLES.items():
        ax.scatter([], [], marker="s", s=60, color=COLOURS[colour], label=f"{letter}: {role}")
    fig.legend(loc="outside upper center", ncols=3)
    tiles = parts.drop_duplicates(["group", "layer", "role"]).sort_values(["layer", "role"])
    tiles = tiles.assign(part=tiles["layer"] + " " + tiles["role"]).groupby("group")["part"].agg(", ".join)
    notes = "; ".join(f"{group}: {tiles[group]}" for group in groups)
    return finish(fig, None, f"tiles of layers against channel groups. {notes}.", title)
