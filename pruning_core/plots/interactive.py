"""Figures with one slider whose positions were computed beforehand, so that they stay alive on a static page.

On the website plotly.js comes from the site's own ``_static/lib/plotly.min.js``; no other host is asked.
JupyterLab draws the same figure with the extension that the plotly wheel brings. Elsewhere (Colab, a file
sent by mail) use ``embed=True``: the library then travels inside the output (4.8 MB).
"""

import html
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pruning_core.errors import BadInput
from pruning_core.plots.style import NEUTRAL, SERIES, MethodStyle, style_of

Curve = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]

_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "D": "diamond",
    "P": "cross",
    "X": "x",
    "<": "triangle-left",
    ">": "triangle-right",
    "h": "hexagon",
}

# While plotly.min.js runs, `define.amd` must look absent: require.js is on the page, and a library that finds
# it registers itself there instead of becoming window.Plotly. Only that one script sees the absence, so that
# modules which require.js loads at the same time are not disturbed. (`define` itself is a global variable and
# cannot be given a getter.) A script element works from file:// too, where fetch() does not.
_LOADER = """
window.pruningPlotly = window.pruningPlotly || new Promise(function (done, failed) {
  if (window.Plotly) { done(window.Plotly); return; }
  var page = document.documentElement, options = window.DOCUMENTATION_OPTIONS || {};
  var root = page.dataset.content_root || options.URL_ROOT || page.dataset.url_root || "./";
  if (root.slice(-1) !== "/") root += "/";
  var script = document.createElement("script"), define = window.define, amd = define && define.amd;
  if (amd) Object.defineProperty(define, "amd", {configurable: true, enumerable: true,
    get: function () { return document.currentScript === script ? undefined : amd; }});
  function restore() {
    if (amd) Object.defineProperty(define, "amd", {configurable: true, enumerable: true, writable: true,
      value: amd});
  }
  script.onload = function () { restore(); window.Plotly ? done(window.Plotly) : failed(); };
  script.onerror = function () { restore(); failed(); };
  script.src = root + "_static/lib/plotly.min.js";
  document.head.appendChild(script);
});
"""

_DRAW = """
(function () {
  var box = document.getElementById("%(id)s"), plot = box.querySelector(".plot");
  var input = box.querySelector("input"), output = box.querySelector("output");
  var spec = %(spec)s, names = %(names)s, per = %(per)d;
  function chosen() { return Number(input.value); }
  function label() {
    output.textContent = names[chosen()];
    input.setAttribute("aria-valuetext", names[chosen()]);
  }
  function visible() { return spec.data.map(function (_, i) { return Math.floor(i / per) === chosen(); }); }
  label();
  window.pruningPlotly.then(function (Plotly) {
    Plotly.newPlot(plot, spec.data, spec.layout, {responsive: true, displaylogo: false});
    input.disabled = false;
    function show() { label(); Plotly.restyle(plot, {visible: visible()}); }
    var button = box.querySelector("button.play"), clock = null;
    function stop() { clearInterval(clock); clock = null; if (button) button.textContent = "\u25b6 play"; }
    input.addEventListener("input", function () { stop(); show(); });
    if (button) {
      button.disabled = false;
      button.addEventListener("click", function () {
        if (clock) { stop(); return; }
        if (chosen() === names.length - 1) { input.value = 0; show(); }
        button.textContent = "\u23f8 pause";
        clock = setInterval(function () {
          input.value = chosen() + 1; show();
          if (chosen() === names.length - 1) stop();
        }, 600);
      });
    }
  }, function () {
    plot.textContent = "plotly.js was not found: open this page in the built book or in JupyterLab.";
  });
})();
"""


class SliderFigure:
    """A plotly figure with one slider; ``to_html`` for static pages, the plotly mime type for JupyterLab."""

    def __init__(
        self,
        data: list[dict],
        layout: dict,
        names: list[str],
        start: int,
        control: str,
        alt: str,
        embed: bool = False,
        play: bool = False,
    ):
        self.data, self.layout, self.names, self.start = data, layout, names, start
        self.control, self.alt, self.embed, self.play = control, alt, embed, play

    @property
    def per_position(self) -> int:
        return len(self.data) // len(self.names)

    def to_html(self) -> str:
        """Return one self-contained ``<div>``; only plotly.js is looked for, below the site's own root."""
        spec = {"data": self.data, "layout": self.layout}

        # "</" would end the script early if a label contained it
        def dump(value: Any) -> str:
            return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")

        name = f"slider-{zlib.crc32(dump([spec, self.names]).encode()):08x}"
        script = _DRAW % {"id": name, "spec": dump(spec), "names": dump(self.names), "per": self.per_position}
        library = self._library() if self.embed else ""
        alt, control = html.escape(self.alt, quote=True), html.escape(self.control, quote=True)
        look = "min-width:6em;padding:.2em;color:inherit;background:none;border:1px solid;border-radius:4px"
        button = f'<button type="button" class="play" disabled style="{look}">\u25b6 play</button>' if self.play else ""
        unboxed = "{background:none!important;padding:0!important;color:inherit}"
        return (
            f"<style>.text_html:has(> .pruning-slider){unboxed}</style>"
            f'<div class="pruning-slider" id="{name}">'
            f'<div class="plot" role="img" aria-label="{alt}" '
            f'style="min-height:{self.layout["height"]}px"></div>'
            f'<div style="display:flex;gap:.75em;color:{NEUTRAL}">{button}'
            f'<label style="display:flex;gap:.75em;align-items:center;flex:1"><span>{control}</span>'
            f'<input type="range" min="0" max="{len(self.names) - 1}" step="1" value="{self.start}" disabled '
            f'style="flex:1"><output style="min-width:6em"></output></label></div>'
            f"<noscript>{alt}</noscript>{library}<script>{_LOADER}{script}</script></div>"
        )

    @staticmethod
    def _library() -> str:
        from plotly.offline import get_plotlyjs

        hidden = "<script>var pruningDefine=window.define;window.define=undefined;</script>"
        shown = "<script>window.define=pruningDefine;</script>"
        return f"{hidden}<script>{get_plotlyjs()}</script>{shown}"

    def to_plotly(self) -> dict[str, Any]:
        """Return the figure as a plotly specification that brings its own slider."""
        per = self.per_position
        steps = [
            {
                "label": name,
                "method": "restyle",
                "args": [{"visible": [j // per == i for j in range(len(self.data))]}],
            }
            for i, name in enumerate(self.names)
        ]
        slider = {
            "active": self.start,
            "steps": steps,
            "currentvalue": {"prefix": f"{self.control}: "},
            "pad": {"t": 40},
            "font": {"color": NEUTRAL},
        }
        return {"data": self.data, "layout": self.layout | {"sliders": [slider]}}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {
            "text/html": self.to_html(),
            "application/vnd.plotly.v1+json": self.to_plotly(),
            "text/plain": self.alt,
        }


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
    height: int = 380,
    embed: bool = False,
    play: bool = False,
    styles: Mapping[str, MethodStyle] | None = None,
) -> SliderFigure:
    """Make a figure whose slider walks through ``positions``: label of the position -> curve name -> (x, y).

    Every position must hold the same curves in the same order. Curves named after a method take its colour
    and marker. ``control`` names what the slider changes; ``alt`` says in words what the figure shows. Axis
    ranges are in data units and, if not given, span all positions, so that nothing jumps. ``mode``: "lines",
    "markers", "lines+markers" or "bars". ``play`` adds a button that walks through the positions by itself on static
    pages. ``styles`` overrides the palette for curves that are no methods. Raises BadInput for no positions, unequal
    curves, values that are not finite, or an empty alt text.
    """
    if not positions:
        raise BadInput("a slider figure needs at least one position.")
    if not alt.strip():
        raise BadInput("a slider figure needs an alt text.")
    curves = [list(position) for position in positions.values()]
    if any(names != curves[0] for names in curves):
        raise BadInput(f"every position must hold the same curves; the first has {', '.join(curves[0])}.")
    if not 0 <= start < len(positions):
        raise BadInput(f"start={start} is not one of the {len(positions)} positions.")
    data, all_x, all_y = [], [], []
    for i, position in enumerate(positions.values()):
        for name, (x, y) in position.items():
            xs, ys = np.asarray(x, float), np.asarray(y, float)
            if xs.shape != ys.shape or not (np.isfinite(xs).all() and np.isfinite(ys).all()):
                raise BadInput(f"the curve {name!r} must have finite x and y of one length.")
            all_x.append(xs)
            all_y.append(ys)
            style = (styles or {}).get(name) or style_of(name)
            data.append(_trace(style, xs, ys, mode, visible=i == start))
    if mode == "bars":
        all_y.append(np.zeros(1))  # a bar that does not start at 0 misleads
    axis = {"color": NEUTRAL, "gridcolor": "rgba(121,121,121,0.25)", "zeroline": False, "linecolor": NEUTRAL}
    layout = page_layout(title, height, l=60, r=15, t=80 if title else 40, b=50) | {
        "showlegend": len(curves[0]) > 1,
        "xaxis": axis | {"title": {"text": x_label}} | _range(all_x, x_range, x_log),
        "yaxis": axis | {"title": {"text": y_label}} | _range(all_y, y_range, y_log),
    }
    return SliderFigure(data, layout, list(positions), start, control, " ".join(alt.split()), embed, play)


def page_layout(title: str, height: int, **margin: int) -> dict[str, Any]:
    """What the layouts of all sliders share; margins l, r, t and b in pixels."""
    return {
        "title": {"text": title, "y": 0.98, "yanchor": "top"},
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": NEUTRAL},
        "margin": margin,
    }


def in_series(drawn: SliderFigure) -> SliderFigure:
    """The slider's curves in the order of SERIES: for names that are no methods, whose own colours may coincide."""
    for i, trace in enumerate(drawn.data):
        trace["line"]["color"] = SERIES[i % drawn.per_position % len(SERIES)]
    return drawn


def _trace(style: MethodStyle, x: np.ndarray, y: np.ndarray, mode: str, visible: bool) -> dict[str, Any]:
    # six digits are more than a screen can show and keep the page small
    trace: dict[str, Any] = {
        "name": style.label,
        "visible": visible,
        "x": [float(f"{v:.6g}") for v in x],
        "y": [float(f"{v:.6g}") for v in y],
    }
    if mode == "bars":
        return trace | {"type": "bar", "marker": {"color": style.colour}}
    return trace | {
        "type": "scatter",
        "mode": mode,
        "line": {"color": style.colour, "width": 2.5},
        "marker": {"color": style.colour, "symbol": _SYMBOLS[style.marker], "size": 8},
    }


def _range(values: list[np.ndarray], given: tuple[float, float] | None, log: bool) -> dict[str, Any]:
    every = np.concatenate(values)
    if log and (every.min() <= 0 or (given is not None and min(given) <= 0)):
        raise BadInput("a logarithmic axis needs positive values.")
    low, high = given if given is not None else (float(every.min()), float(every.max()))
    if log:
        low, high = float(np.log10(low)), float(np.log10(high))
    if given is None:
        margin = 0.04 * (high - low) or 0.5
        low, high = low - margin, high + margin
    return {"type": "log" if log else "linear", "range": [low, high]}
