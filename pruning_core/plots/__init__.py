"""Every figure of the book, drawn from rows only; each comes with an alt text and the book's one palette."""

from .curves import accuracy_against_sparsity, heatmap, latency_bars, layer_bars, over_seeds
from .interactive import SliderFigure, slider_figure
from .style import (
    COLOURS,
    METHOD_STYLE,
    NEUTRAL,
    BookFigure,
    MethodStyle,
    alt_text,
    figure,
    set_alt,
    show,
    stamp,
    style_of,
)

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
    "over_seeds",
    "set_alt",
    "show",
    "slider_figure",
    "stamp",
    "style_of",
]
