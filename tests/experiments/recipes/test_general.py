"""When the general recipes cut, and what comes before they measure."""

import itertools

import pytest

import pruning_core as pc
from pruning_core.experiments import recipes
from pruning_core.experiments.stages import Measure, RecalibrateBatchNorm


@pytest.mark.parametrize("early", [0, 1, 6, 8])
def test_cutting_during_training_follows_the_official_epochs_whatever_the_rewinding(early):
    """After 9, 13, ..., 33 epochs: `--prune_delay 4 --prune_freq 4 --rewind_to 6` of the official code, counted from 1."""
    first, _, then, *_ = recipes.magnitude_rewind_during(0.98, 80, early=early)
    assert [first.epochs + n for n in then.during.epochs(then.epochs)] == list(range(9, 34, 4))
    train, *_ = recipes.snip_it_during(0.98, 80)
    assert train.during.epochs(80) == list(range(9, 34, 4))


def test_a_cut_comes_after_the_weights_that_it_puts_back():
    first, _, then, *_ = recipes.magnitude_rewind_during(0.9, 20, steps=1, every=2, after=0, early=4)
    assert [first.epochs + n for n in then.during.epochs(then.epochs)] == [6, 8, 10]


COMPARED = {
    "dense": (40,),
    "magnitude_rewind_during": (0.9, 80),
    **dict.fromkeys(("snip", "snip_it", "snap", "snap_it", "cnip_it", "grasp", "synflow"), (0.9, 40)),
    **dict.fromkeys(("snip_it_during", "snap_it_during", "cnip_it_during"), (0.9, 40)),
    **dict.fromkeys(("l0", "hoyer_square", "group_hoyer_square"), (1e-3, 40, 5)),
    **dict.fromkeys(("tick_tock", "efficient_convnets"), (0.5, 40, 5)),
    **{("before_training", method): (0.9, 40) for method in ("random", "magnitude", "random_channels")},
}


@pytest.mark.parametrize("name", COMPARED)
def test_all_that_snip_it_is_compared_with_measures_batch_norm_anew(name):
    name, *method = [name] if isinstance(name, str) else name
    timeline = pc.Experiment(
        "mlp5_snip", "digits", recipes.recipe(name, *method, *COMPARED.get(name, (0.9, 40)))
    ).timeline
    before = [first for first, second in itertools.pairwise(timeline) if isinstance(second, Measure)]
    assert before
    assert all(isinstance(stage, RecalibrateBatchNorm) for stage in before)
