"""Figures with one slider whose positions were computed beforehand, so that they stay alive on a static page.

On the website plotly.js comes from the site's own ``_static/lib/plotly.min.js``; no other host is asked. JupyterLab draws
the same figure with the extension that the plotly wheel brings. What the page runs stands in ``slider.js``.
"""

import html
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pruning_core.checks import checked
from pruning_core.errors import BadInput
from pruning_core.plots.captions import shortened
from pruning_core.plots.style import LOOK, METHOD_STYLE, SYMBOLS, MethodStyle, series_style, style_of

Curve = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]

PLOTLY: dict[str, Any] = LOOK["plotly"]
_UNBOXED = "background:none!important;padding:0!important;color:inherit"
_SCRIPT = Path(__file__).with_name("slider.js").read_text(encoding="utf-8")


@dataclass
class SliderFigure:
    """A plotly figure with one slider; ``to_html`` for static pages, the plotly mime type for JupyterLab.

    ``data`` holds the traces of all positions one after the other, equally many a position; ``names`` labels the positions.

    >>> curves = {"50 %": {"snip": ([0, 1], [1, 2])}, "90 %": {"snip": ([0, 1], [2, 3])}}
    >>> figure = slider_figure(curves, control="removed", x_label="x", y_label="y", alt="A line that rises.")
    >>> figure.names, figure.per_position
    (['50 %', '90 %'], 1)
    """

    data: list[dict[str, Any]]
    layout: dict[str, Any]
    names: list[str]
    start: int
    control: str
    alt: str
    play: bool = False
    caption: str = ""

    @property
    def per_position(self) -> int:
        return len(self.data) // len(self.names)

    def to_html(self) -> str:
        """Return one self-contained ``<figure>``; only plotly.js is looked for, below the site's own root."""
        spec = {"data": self.data, "layout": self.layout}
        name = f"slider-{zlib.crc32(_dump([spec, self.names]).encode()):08x}"
        call = f"pruningSlider({_dump(name)}, {_dump(spec)}, {_dump(self.names)}, {self.per_position});"
        alt, control = html.escape(shortened(self.alt), quote=True), html.escape(self.control, quote=True)
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        look = "min-width:6em;padding:.2em;color:inherit;background:none;border:1px solid;border-radius:4px"
        button = f'<button type="button" class="play" disabled style="{look}">\u25b6 play</button>' if self.play else ""
        return (
            f"<style>.text_html:has(> .pruning-slider){{{_UNBOXED}}}</style>"
            f'<figure class="pruning-slider" id="{name}" style="margin:0">'
            # a group, not an image: its buttons can be reached, and what is in an image cannot
            f'<div class="plot" role="group" aria-label="{alt}" style="min-height:{self.layout["height"]}px"></div>'
            f'<div style="display:flex;flex-wrap:wrap;gap:.75em">{button}'
            f'<label style="display:flex;gap:.75em;align-items:center;flex:1"><span>{control}</span>'
            f'<input type="range" min="0" max="{len(self.names) - 1}" step="1" value="{self.start}" disabled '
            f'style="flex:1;min-width:4em"><output style="min-width:4em"></output></label></div>'
            f"<noscript>{html.escape(self.alt)}</noscript>{caption}<script>{_SCRIPT}{call}</script></figure>"
        )

    def to_plotly(self) -> dict[str, Any]:
        """Return the figure as a plotly specification that brings its own slider."""
        steps = []
        for i, name in enumerate(self.names):
            visible = [j // self.per_position == i for j in range(len(self.data))]
            steps.append({"label": name, "method": "restyle", "args": [{"visible": visible}]})
        slider = {"active": self.start, "steps": steps, "currentvalue": {"prefix": f"{self.control}: "}}
        return {"data": self.data, "layout": self.layout | {"sliders": [slider | PLOTLY["slider"]]}}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/html": self.to_html(), "application/vnd.plotly.v1+json": self.to_plotly(), "text/plain": self.alt}


@checked
def slider_figure(
    positions: Mapping[str, Mapping[str, Curve]],
    *,
    control: str,
    x_label: str,
    y_label: str,
    alt: str,
    start: int = 0,
    title: str = "",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_log: bool = False,
    y_log: bool = False,
    mode: str = "lines",
    play: bool = False,
    styles: Mapping[str, MethodStyle] | None = None,
    caption: str = "",
) -> SliderFigure:
    """Make a figure whose slider walks through ``positions``: label of the position -> curve name -> (x, y).

    Every position must hold the same curves in the same order. Where all curves are named after methods they take their
    colours and markers, else those of SERIES in order; ``styles`` overrides both. ``control`` names what the slider
    changes; ``alt`` says in words what the figure shows, ``caption`` what to see in it and what to try. Axis ranges are in
    data units and, if not given, span all positions, so that nothing jumps. ``mode``: "lines", "markers", "lines+markers"
    or "bars". ``play`` adds a button that walks through the positions by itself on static pages. Raises BadInput for no
    positions, unequal curves, values that are not finite, or an empty alt text.

    >>> curves = {"50 %": {"snip": ([0, 1], [1, 2])}, "90 %": {"snip": ([0, 1], [2, 3])}}
    >>> figure = slider_figure(curves, control="removed", x_label="x", y_label="y", alt="A line that rises.")
    >>> "pruning-slider" in figure.to_html()
    True
    """
    names = check_positions(positions, start)
    if not alt.strip():
        raise BadInput("a slider figure needs an alt text.")
    methods = all(name.lower().replace("-", "_") in METHOD_STYLE for name in names)
    looks = {name: style_of(name) if methods else series_style(i, name) for i, name in enumerate(names)}
    looks |= styles or {}
    data, all_x, all_y = [], [], [np.zeros(int(mode == "bars"))]  # a bar that does not start at 0 misleads
    for i, position in enumerate(positions.values()):
        for name, (x, y) in position.items():
            xs, ys = np.asarray(x, float), np.asarray(y, float)
            if xs.shape != ys.shape or not (np.isfinite(xs).all() and np.isfinite(ys).all()):
                raise BadInput(f"the curve {name!r} must have finite x and y of one length.")
            all_x.append(xs)
            all_y.append(ys)
            data.append(_trace(looks[name], xs, ys, mode, visible=i == start))
    if mode == "bars" and x_range is None and not x_log:  # the outer bars reach half a step beyond their places
        places = np.unique(np.concatenate(all_x))
        half = float(np.diff(places).min()) / 2 if len(places) > 1 else 0.5
        x_range = float(places[0]) - half, float(places[-1]) + half
    layout = page_layout(title, 380, l=60, r=15, t=80 if title else 40, b=50) | {
        "showlegend": len(names) > 1,
        "xaxis": PLOTLY["axis"] | {"title": {"text": x_label}} | _range(all_x, x_range, x_log),
        "yaxis": PLOTLY["axis"] | {"title": {"text": y_label}} | _range(all_y, y_range, y_log),
    }
    words = " ".join(alt.split()), play, " ".join(caption.split())
    return SliderFigure(data, layout, list(positions), start, control, *words)


def check_positions(positions: Mapping[str, Mapping[str, Any]], start: int) -> list[str]:
    """The names of what every position of a slider holds; BadInput where they differ, or ``start`` is none of them."""
    if not positions:
        raise BadInput("a slider figure needs at least one position.")
    names = [list(position) for position in positions.values()]
    if any(others != names[0] for others in names):
        raise BadInput(f"every position must hold the same curves or layers; the first has {', '.join(names[0])}.")
    if not 0 <= start < len(positions):
        raise BadInput(f"start={start} is not one of the {len(positions)} positions.")
    return names[0]


def page_layout(title: str, height: int, **margin: int) -> dict[str, Any]:
    """What the layouts of all sliders share; margins l, r, t and b in pixels."""
    about = {"title": {"text": title, "y": 0.98, "yanchor": "top"}, "height": height, "margin": margin}
    return about | PLOTLY["layout"]


def _dump(value: Any) -> str:
    """JSON in which no label can end the script early: it holds no "<" at all, be it of "</script>" or of "<!--"."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _trace(style: MethodStyle, x: np.ndarray, y: np.ndarray, mode: str, visible: bool) -> dict[str, Any]:
    # six digits are more than a screen can show and keep the page small
    points = {axis: [float(f"{v:.6g}") for v in values] for axis, values in (("x", x), ("y", y))}
    trace: dict[str, Any] = {"name": style.label, "visible": visible} | points
    if mode == "bars":
        return trace | {"type": "bar", "marker": {"color": style.colour}}
    marker = {"color": style.colour, "symbol": SYMBOLS[style.marker], "size": 8}
    return trace | {"type": "scatter", "mode": mode, "line": {"color": style.colour, "width": 2.5}, "marker": marker}


def _range(values: list[np.ndarray], given: tuple[float, float] | None, log: bool) -> dict[str, Any]:
    every = np.concatenate(values)
    if log and min([every.min(), *(given or ())]) <= 0:
        raise BadInput("a logarithmic axis needs positive values.")
    low, high = given or (float(every.min()), float(every.max()))
    if log:
        low, high = float(np.log10(low)), float(np.log10(high))
    margin = 0 if given else 0.04 * (high - low) or 0.5
    return {"type": "log" if log else "linear", "range": [low - margin, high + margin]}
