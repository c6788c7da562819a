"""Figures of chapter 4: elasticities, masks layer by layer, widths, attacks, confusion, saliency."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from pruning_core.errors import BadInput
from pruning_core.plots.captions import captioned
from pruning_core.plots.interactive import PLOTLY, SliderFigure, check_positions, page_layout
from pruning_core.plots.maps import maps
from pruning_core.plots.style import BookFigure, figure, finish, set_alt, stamp, style_of, styled


def parse_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """The column ``by_layer`` of measured rows, spread out: one row a layer.

    Adds layer, position (from 1), weights, weights_kept, units, units_kept, and the kept fractions density and width.
    Raises BadInput when no row has the column.
    """
    if "by_layer" not in rows or not rows["by_layer"].notna().any():
        raise BadInput("the rows have no column 'by_layer'; measure them with this version of the package.")
    table = []
    for row in rows.dropna(subset=["by_layer"]).to_dict("records"):
        for position, part in enumerate(str(row["by_layer"]).split(), start=1):
            layer, *counts = part.rsplit(":", 2)
            (kept, weights), (alive, units) = (map(int, count.split("/")) for count in counts)
            about = {"layer": layer, "position": position}
            about |= {"weights": weights, "weights_kept": kept, "density": kept / weights}
            table.append(row | about | {"units": units, "units_kept": alive, "width": alive / units})
    return pd.DataFrame(table)


def curve_of(scores: Mapping[str, Tensor], points: int = 200) -> pd.DataFrame:
    """The sorted scores of all sites as a small table: rank (fraction of weights, from the largest) and value."""
    parts = [score.detach().flatten().double().cpu().numpy() for score in scores.values()]
    values = np.sort(np.concatenate(parts))[::-1]
    ranks = np.unique(np.round(np.linspace(0, len(values) - 1, points)).astype(int))
    return pd.DataFrame({"rank": (ranks + 1) / len(values), "value": values[ranks]})


@styled
def saliency_grid(
    inputs: Tensor, maps: Mapping[str, Tensor], *, title: str = "", rows: pd.DataFrame | None = None
) -> BookFigure:
    """Draw images (first row) and the saliency maps of several networks below them. Tensors are (N, C, H, W)."""
    count = len(inputs)
    fig, axes = figure(1 + len(maps), count, size=(min(1.1 * count + 1, 9.6), 1.15 * (1 + len(maps))))
    for row, (name, tensors) in zip(axes, {"image": inputs, **maps}.items(), strict=True):
        image = name == "image"
        for ax, tensor in zip(row, tensors, strict=True):
            low, high = (None, None) if image else (0, 1)
            picture = tensor.detach().mean(0).cpu().numpy()
            ax.imshow(picture, cmap="gray" if image else "viridis", vmin=low, vmax=high)
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
        row[0].set_ylabel(name if image else style_of(name).label, fontsize=8)
    alt = f"{count} images and, below, which pixels move the largest logit in {', '.join(maps)}."
    return finish(fig, pd.DataFrame() if rows is None else rows, alt, title)


@captioned
def mask_slider(
    positions: Mapping[str, Mapping[str, Tensor]], *, control: str, title: str = "", cells: int = 40, start: int = 0
) -> SliderFigure:
    """Make a slider over cuts that shows every layer's mask: a cell is a block of weights, its colour the share kept.

    positions: label of the cut -> layer -> bool mask (outputs, inputs, ...); the same layers in each.
    """
    layers = check_positions(positions, start)
    numbers = ["", *(str(j) for j in range(2, len(layers) + 1))]  # plotly calls the first axis x, the second x2
    data, notes = [], []
    for i, (label, masks) in enumerate(positions.items()):
        for number, layer in zip(numbers, layers, strict=True):
            shares = _blocks(masks[layer].flatten(1).double().numpy(), cells)
            place = {
                "xaxis": f"x{number}",
                "yaxis": f"y{number}",
                "showscale": layer == layers[-1],
                "visible": i == start,
            }
            data.append(PLOTLY["heat_map"] | place | {"z": np.round(shares, 3).tolist(), "name": layer})
        kept = ", ".join(f"{masks[layer].double().mean():.2%} of {layer}" for layer in layers)
        notes.append(f"at {label}: {kept}")
    layout = page_layout(title, 340, l=40, r=15, t=60, b=40)
    width = 1 / len(layers)
    for j, (number, layer) in enumerate(zip(numbers, layers, strict=True)):
        across = {"domain": [j * width, (j + 1) * width - 0.04], "title": {"text": f"{layer}: inputs"}}
        layout[f"xaxis{number}"] = PLOTLY["bare_axis"] | across | {"anchor": f"y{number}"}
        layout[f"yaxis{number}"] = PLOTLY["bare_axis"] | {"anchor": f"x{number}", "autorange": "reversed"}
    alt = f"{title}: the masks of {', '.join(layers)}, as blocks. Kept {'; '.join(notes)}."
    return SliderFigure(data, layout, list(positions), start, control, alt)


def _blocks(mask: np.ndarray, cells: int) -> np.ndarray:
    """Means over blocks, so that neither side has more than ``cells``."""
    for axis in (0, 1):
        parts = np.array_split(np.arange(mask.shape[axis]), min(cells, mask.shape[axis]))
        mask = np.stack([mask.take(part, axis).mean(axis) for part in parts], axis)
    return mask


@styled
def confusion(matrices: Mapping[str, Tensor], *, title: str = "", rows: pd.DataFrame | None = None) -> BookFigure:
    """Draw confusion matrices side by side: rows the true class, columns the predicted one, in percent of the row."""
    if not matrices:
        raise BadInput("there is no confusion matrix to draw.")
    cells, notes = [], []
    for name, counts in matrices.items():
        shares = pd.DataFrame((counts / counts.sum(1, keepdim=True).clamp(min=1)).double().numpy()).stack()
        cells.append(
            shares.rename_axis(["true class", "predicted class"]).rename("share").reset_index().assign(method=name)
        )
        true, taken = divmod(int((counts - counts.diag().diag()).argmax()), len(counts))
        notes.append(f"{style_of(name).label} most often takes {true} for {taken}")
    fig = maps(pd.concat(cells), "predicted class", "true class", "share", title=title)
    stamp(fig, pd.DataFrame() if rows is None else rows)
    set_alt(fig, f"{fig.alt} {'; '.join(notes)}.")
    return fig
