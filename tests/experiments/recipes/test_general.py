"""When the general recipes cut."""

import pytest

from pruning_core.experiments import recipes


@pytest.mark.parametrize("early", [0, 1, 6, 8])
def test_cutting_during_training_follows_the_official_epochs_whatever_the_rewinding(early):
    """After 9, 13, ..., 33 epochs: `--prune_delay 4 --prune_freq 4 --rewind_to 6` of the official code, counted from 1."""
    first, _, then = recipes.magnitude_rewind_during(0.98, 80, early=early)
    assert [first.epochs + n for n in then.during.epochs(then.epochs)] == list(range(9, 34, 4))
    (train,) = recipes.snip_it_during(0.98, 80)[:1]
    assert train.during.epochs(80) == list(range(9, 34, 4))


def test_a_cut_comes_after_the_weights_that_it_puts_back():
    first, _, then = recipes.magnitude_rewind_during(0.9, 20, steps=1, every=2, after=0, early=4)
    assert [first.epochs + n for n in then.during.epochs(then.epochs)] == [6, 8, 10]
