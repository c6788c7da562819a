"""Units shared out in proportion: the factor that fits the bounds, to the last bit."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_core.masks.ranking import _factor


@st.composite
def rows_to_fill(draw):
    """Shares, bounds that may be equal or empty, and a total between them: what _spread and Budget ask share_out for."""
    share = st.one_of(st.integers(0, 30).map(float), st.floats(1e-6, 1e6))
    rows = draw(st.lists(st.tuples(share, st.integers(0, 4), st.integers(0, 40)), min_size=1, max_size=8))
    shares, lower, more = (np.array(column) for column in zip(*rows, strict=True))
    return draw(st.integers(int(lower.sum()), int((lower + more).sum()))), shares, lower, lower + more


@given(rows_to_fill())
@settings(max_examples=150, deadline=None)
def test_the_bisection_stops_where_more_of_it_changes_nothing(given_rows):
    total, shares, lower, upper = given_rows
    low, high = 0.0, 1.0

    def sum_at(c):
        return np.clip(c * shares, lower, upper).sum()

    while sum_at(high) < total and high < 1e300:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum_at(middle) < total else (low, middle)
    assert _factor(total, shares, lower, upper) == high
