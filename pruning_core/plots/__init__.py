"""Every figure of the book, drawn from rows only; each comes with an alt text and the book's one palette."""

from pruning_core.plots.curves import accuracy_against_sparsity
from pruning_core.plots.curves import heatmap
from pruning_core.plots.curves import latency_bars
from pruning_core.plots.curves import layer_bars
from pruning_core.plots.interactive import SliderFigure
from pruning_core.plots.interactive import slider_figure
from pruning_core.plots.style import COLOURS
from pruning_core.plots.style import METHOD_STYLE
from pruning_core.plots.style import NEUTRAL
from pruning_core.plots.style import BookFigure
from pruning_core.plots.style import MethodStyle
from pruning_core.plots.style import alt_text
from pruning_core.plots.style import figure
from pruning_core.plots.style import set_alt
from pruning_core.plots.style import show
from pruning_core.plots.style import stamp
from pruning_core.plots.style import style_of

__all__ = [
    "COLOURS",
    "METHOD_STYLE",
    "NEUTRAL",
    "BookFigure",
    "MethodStyle",
    "SliderFigure",
    "accuracy_against_sparsity",
    "alt_text",
    "figure",
    "heatmap",
    "latency_bars",
    "layer_bars",
    "set_alt",
    "show",
    "slider_figure",
    "stamp",
    "style_of",
]
