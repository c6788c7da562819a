"""The ellipsoid seen from a distance: its lines touch it, its rays end on it, and their share is the angle's."""

import math

import numpy as np
import pytest

from pruning_core.errors import BadInput
from pruning_core.plots.how_sparse_ellipsoid import angles_seen, ellipsoid_slider

ALONG, ACROSS = 1.2, 2.0


def traces(drawn, position):
    """Curves of one position of a slider: name -> points, (n, 2)."""
    per = drawn.per_position
    return {t["name"]: np.column_stack([t["x"], t["y"]]) for t in drawn.data[position * per : (position + 1) * per]}


def height(points):
    """1 on the ellipse, more outside of it."""
    return np.square(points / [ALONG, ACROSS]).sum(-1)


@pytest.fixture(scope="module")
def drawn():
    return ellipsoid_slider([8, 4, 2], along=ALONG, across=ACROSS, title="t")


@pytest.mark.parametrize("position", [0, 1, 2])
def test_rays_end_on_the_ellipse_and_the_others_pass_by(drawn, position):
    curves = traces(drawn, position)
    met = curves["directions that meet it"][1::2]
    assert height(met) == pytest.approx(1, abs=1e-4)
    assert (met[:, 0] < 0).all()  # on the near side
    point = curves["directions that meet it"][0]
    missing = curves["directions that miss it"][1::2]
    assert len(met) + len(missing) == 72
    for end in missing:  # the whole ray, farther than it is drawn
        reach = np.linspace(0, 20, 4001)[:, None]
        assert height(point + reach * (end - point)).min() > 1


@pytest.mark.parametrize("position", [0, 1, 2])
def test_lines_touch_the_ellipse_in_one_point(drawn, position):
    point, first, _, second = traces(drawn, position)["lines that touch it"][:4]
    for end in (first, second):
        reach = np.linspace(0, 3, 30_001)[:, None]
        assert height(end) == pytest.approx(1, abs=1e-4)
        assert height(point + reach * (end - point)).min() == pytest.approx(1, abs=1e-4)
    top = traces(drawn, position)["to the ends of its axis"][3]
    assert top == pytest.approx([0, ACROSS], abs=1e-5)


def test_the_share_of_rays_is_that_of_the_angle_and_grows_as_one_comes_nearer(drawn):
    shares = []
    for position, distance in enumerate((8, 4, 2)):
        touching, ends = angles_seen(ALONG, ACROSS, distance)
        assert touching > ends  # what the formula looks at is the smaller cone
        share = len(traces(drawn, position)["directions that meet it"][1::2]) / 72
        assert abs(share - touching / math.pi) <= 1 / 72
        shares.append(share)
        assert drawn.names[position] == f"{distance}, seen under {2 * math.degrees(touching):.0f}°"
    assert shares == sorted(shares)
    assert "R = 8:" in drawn.alt and drawn.layout["yaxis"]["scaleanchor"] == "x"


def test_a_point_inside_sees_no_outline():
    with pytest.raises(BadInput, match="not outside"):
        ellipsoid_slider([4, 1.2], along=ALONG, across=ACROSS)
    with pytest.raises(BadInput, match="across"):
        angles_seen(1.0, 0.0, 3.0)
    with pytest.raises(BadInput, match="distances"):
        ellipsoid_slider([])
