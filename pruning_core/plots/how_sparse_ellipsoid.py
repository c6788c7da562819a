"""The central picture of the theory, in the plane: an ellipsoid of low loss, seen from a point outside."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pruning_core.checks import Real, Several, check
from pruning_core.errors import BadInput
from pruning_core.plots.captions import captioned
from pruning_core.plots.interactive import Curve, SliderFigure, slider_figure
from pruning_core.plots.style import NEUTRAL, MethodStyle, series_style

_RAYS = 72
"""Directions that are tried: one every five degrees, a half of which falls on either side of the line of sight."""
_SHORT = 1.0
"""How far a ray is drawn that meets nothing."""
_WIDTHS = (2.5, 1.2, 0.8, 2.0, 2.0)
"""Of the lines: seventy rays are thin, else they are a blot."""


def angles_seen(along: float, across: float, distance: float) -> tuple[float, float]:
    """Half the angle under which an ellipse is seen from ``distance``, and that of the ends of its axis, in radians.

    ``along`` and ``across``: half axes along and across the line of sight. A line of sight touches the ellipse where
    tan = across / sqrt(R^2 - along^2); the formula of Zhang et al. 2024 looks at the ends of the axis, tan = across / R.
    Raises BadInput for a point that is not outside of the ellipse.

    >>> touching, ends = angles_seen(1.0, 1.0, 2.0)
    >>> round(math.degrees(touching), 2), round(math.degrees(ends), 2)
    (30.0, 26.57)
    """
    for name, value in {"along": along, "across": across}.items():
        check(name, value, Real(above=0))
    if not distance > along:
        raise BadInput(f"the distance {distance:g} is not outside of an ellipse that reaches to {along:g}.")
    return math.atan(across / math.sqrt(distance**2 - along**2)), math.atan(across / distance)


@captioned
def ellipsoid_slider(
    distances: Sequence[float], *, along: float = 1.2, across: float = 2.0, title: str = ""
) -> SliderFigure:
    """An ellipse of low loss, and rays in every fifth direction from a point at the distance R; the slider moves R.

    ``along``, ``across``: half axes along and across the line of sight. Rays that meet the ellipse end on it. Two lines
    touch it, and two go to the ends of its axis, which is where the paper's formula looks. Raises BadInput for a distance
    of at most ``along``.
    """
    places = check("distances", distances, Several(Real(above=0), at_least=1))
    turn = np.linspace(0, 2 * np.pi, 181)
    positions: dict[str, dict[str, Curve]] = {}
    notes = []
    for distance in places:
        touching, ends = angles_seen(along, across, distance)
        directions = 2 * np.pi * (np.arange(_RAYS) - _RAYS // 2) / _RAYS
        inside = np.abs(directions) <= touching
        met = [(t, _entry(along, across, distance, t)) for t in directions[inside]]
        touched = (distance - along**2 / distance) / math.cos(touching)  # as far as the point where a line touches
        positions[f"{distance:g}, seen under {2 * math.degrees(touching):.0f}°"] = {
            "loss at most ε above its minimum": (along * np.cos(turn), across * np.sin(turn)),
            "directions that meet it": _star(distance, met),
            "directions that miss it": _star(distance, [(t, _SHORT) for t in directions[~inside]]),
            "lines that touch it": _star(distance, [(t, touched) for t in (-touching, touching)]),
            "to the ends of its axis": _star(distance, [(t, distance / math.cos(ends)) for t in (-ends, ends)]),
        }
        notes.append(f"R = {distance:g}: {len(met)} of {_RAYS}")
    alt = f"{title}: an ellipse, and rays from a point outside. The nearer the point, the more meet it: {'; '.join(notes)}."
    names = list(positions[next(iter(positions))])
    styles = {name: series_style(i, name) for i, name in enumerate(names)}
    styles[names[2]] = MethodStyle(NEUTRAL, "o", names[2])
    reach = max(places) + 1.1 * _SHORT
    axes: dict[str, Any] = {"x_label": "along the line of sight", "y_label": "across it"}
    axes |= {"x_range": (-reach, 1.3 * along), "y_range": (-1.25 * across, 1.25 * across)}
    made = slider_figure(
        positions, control="distance R =", title=title, alt=alt, start=len(places) // 2, styles=styles, **axes
    )
    made.layout["yaxis"] |= {"scaleanchor": "x", "constrain": "domain"}  # angles look as they are
    made.layout["xaxis"] |= {"constrain": "domain"}
    # The legend stands above: beside the figure it would leave little room, most of all on a telephone.
    made.layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    made.layout["margin"] |= {"t": 135}
    made.layout |= {"height": 440}
    for trace, width in zip(made.data, _WIDTHS * len(places), strict=True):
        trace["line"] |= {"width": width}
    return made


def _star(distance: float, rays: Sequence[tuple[float, float]]) -> Curve:
    """Rays (direction, length) from the point at -distance, in one line that returns to the point after each."""
    x, y = [-distance], [0.0]
    for direction, length in rays:
        x += [length * math.cos(direction) - distance, -distance]
        y += [length * math.sin(direction), 0.0]
    return x, y


def _entry(along: float, across: float, distance: float, direction: float) -> float:
    """How far a ray from the point at -distance goes until it meets the ellipse: the smaller root of a quadratic."""
    c, s = math.cos(direction) / along, math.sin(direction) / across
    a, b, e = c * c + s * s, c * distance / along, (distance / along) ** 2 - 1
    return (b - math.sqrt(max(b * b - a * e, 0.0))) / a
