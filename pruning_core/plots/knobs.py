"""A figure with a knob: in a notebook that runs, the package computes again; on a page, pictures computed beforehand.

Both come from one function, which draws the figure for one value of the knob.
"""

import asyncio
import html
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning_core.checks import Real, Several, Whole, check
from pruning_core.errors import BadInput
from pruning_core.plots.interactive import _dump
from pruning_core.plots.style import BookFigure, Picture, show
from pruning_core.progress import STILL

if TYPE_CHECKING:
    import ipywidgets

WAIT = 0.25  # seconds without a further movement before a computation starts
_SCRIPT = Path(__file__).with_name("frames.js").read_text(encoding="utf-8")


@dataclass
class Live:
    """What :func:`live` returns: shows itself as a panel in a running notebook, as a figure with pictures elsewhere."""

    draw: Callable[[float], BookFigure]
    values: list[float]
    control: str
    step: float | None
    start: int = 0

    def pictures(self) -> list[Picture]:
        """The figure at each of the values."""
        return [show(self.draw(value)) for value in self.values]

    def to_html(self) -> str:
        """One self-contained ``<figure>`` with a slider over the pictures and the caption of the one seen first."""
        pictures = self.pictures()
        names = [f"{value:g}" for value in self.values]
        name = f"frames-{zlib.crc32(b''.join(picture.data for picture in pictures)):08x}"
        images = "".join(picture.image(hidden=i != self.start) for i, picture in enumerate(pictures))
        control = html.escape(self.control)
        return (
            "<style>.text_html:has(> .pruning-frames){background:none!important;padding:0!important}"
            ".pruning-frames img[hidden]{display:none}</style>"
            f'<figure class="pruning-frames" id="{name}" style="margin:0">{images}'
            f'<label style="display:flex;gap:.75em;align-items:center"><span>{control}</span>'
            f'<input type="range" min="0" max="{len(names) - 1}" step="1" value="{self.start}" disabled style="flex:1">'
            f'<output style="min-width:6em">{names[self.start]}</output></label>'
            f"<figcaption>{html.escape(pictures[self.start].caption)}</figcaption>"
            f"<script>{_SCRIPT}pruningFrames({_dump(name)}, {_dump(names)});</script></figure>"
        )

    def widget(self) -> "ipywidgets.VBox":
        """The panel: a slider between the smallest and the largest value, and the figure, drawn anew a moment after the
        slider comes to rest."""
        import ipywidgets

        low, high = min(self.values), max(self.values)
        step = self.step or (high - low) / 100
        layout, style = {"width": "32em"}, {"description_width": "initial"}
        whole = all(float(number).is_integer() for number in (low, high, step))
        kind = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider
        number: Any = int if whole else float
        slider = kind(
            value=number(self.values[self.start]), min=number(low), max=number(high), step=number(step),
            description=self.control, layout=layout, style=style, **({} if whole else {"readout_format": ".4g"}),
        )  # fmt: skip
        picture = ipywidgets.HTML(show(self.draw(self.values[self.start])).to_html())
        waiting: list[asyncio.TimerHandle] = []

        def redraw(value: float) -> None:
            try:
                picture.value = show(self.draw(value)).to_html()
            except BadInput as problem:  # what the package says of this value is part of the lesson
                picture.value = f"<p>{html.escape(str(problem))}</p>"

        def moved(change: dict[str, Any]) -> None:
            for handle in waiting:
                handle.cancel()
            waiting[:] = [asyncio.get_event_loop().call_later(WAIT, redraw, change["new"])]

        slider.observe(moved, "value")
        return ipywidgets.VBox([slider, picture])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        if os.environ.get(STILL):
            return {"text/html": self.to_html(), "text/plain": self.control}
        return self.widget()._repr_mimebundle_()


def live(
    draw: Callable[[float], BookFigure],
    values: Sequence[float],
    *,
    control: str,
    step: float | None = None,
    start: int = 0,
) -> Live:
    """A figure whose knob makes the package compute again.

    ``draw`` computes and draws the figure for one value of the knob; its caption and alt text come along. In a notebook
    that runs, a slider from the smallest to the largest of ``values`` calls it again, in steps of ``step`` (None: a
    hundredth of the way). On a page, where nothing computes, the slider walks through pictures for ``values``. Number
    ``start`` of the values, counted from 0, is what is seen at the beginning. ``control``: what the knob changes, in
    words. Raises BadInput for fewer than two values, and for a ``start`` that is the number of none.

    >>> from pruning_core.plots import accuracy_against_sparsity
    >>> import pandas as pd
    >>> def draw(drop):
    ...     rows = [{"method": "snip", "seed": 0, "sparsity": p, "accuracy": 99 - drop * p} for p in (0.5, 0.9)]
    ...     return accuracy_against_sparsity(pd.DataFrame(rows))
    >>> len(live(draw, [1, 5, 20], control="drop").pictures())
    3
    """
    values = check("values", values, Several(Real(), at_least=2))
    start = check("start, the number of a value,", start, Whole(at_least=0, at_most=len(values) - 1))
    return Live(draw, list(values), control, step, start)
