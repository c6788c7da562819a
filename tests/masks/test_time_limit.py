"""An end to work that does not come back, however short the time and wherever it is over."""

import time

import pytest

from pruning_core.masks.time_limit import OutOfTime, limited


def busy(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def stubborn() -> None:
    """Catches everything, once."""
    try:
        busy(30)
    except BaseException:
        busy(30)


def test_work_that_takes_too_long_is_ended_also_where_it_catches_everything():
    with pytest.raises(OutOfTime), limited(0.05):
        stubborn()


def test_a_time_that_is_over_at_once_ends_nothing_else():
    """The interruption may come while the watch is set or taken down; it must not reach what follows, nor come again."""
    for seconds in (5e-324, 1e-9, 1e-6, 1e-5, 1e-4, 3e-4) * 100:
        try:
            with limited(seconds):
                sum(range(3000))
        except OutOfTime:
            pass
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        sum(range(3000))


def test_a_time_beyond_what_threads_can_wait_is_no_limit():
    with limited(1.7e308):
        assert sum(range(10)) == 45
