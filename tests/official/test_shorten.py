"""Official settings in less time: everything in proportion, and nobody can take the rows for the paper's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pruning_core as pc
from pruning_core.errors import BadInput, UnknownName
from pruning_core.experiments.asked import Asked
from pruning_core.experiments.stages import Each, Every, Prune, Repeat, Train
from pruning_core.experiments.timelines import every_stage
from pruning_core.official import CATALOGUE, Shorter, official, planned, shortened
from pruning_core.papers.how_sparse.configurations import SteppedPerIteration


def trained(experiment) -> list[int]:
    return [stage.epochs for stage in every_stage(experiment.timeline) if isinstance(stage, Train)]


@given(
    epochs=st.integers(1, 200), k=st.integers(1, 20), after=st.integers(-19, 40), times=st.integers(1, 20),
    short=st.integers(1, 60),
)  # fmt: skip
def test_events_stay_within_the_training_in_their_order_and_as_many_as_fit(epochs, k, after, times, short):
    if not 1 <= after + k <= epochs:
        return
    during = Every(k, (Prune("magnitude", 0.5),), after, times)
    before = during.epochs(epochs)
    long = pc.Experiment("lenet300", "digits", [Train(epochs, during=during)], profile="paper")
    (stage, _) = shortened(long, Shorter(epochs=short)).timeline
    found = stage.during.epochs(stage.epochs)
    assert stage.epochs == short
    assert len(found) == min(len(before), short)
    assert all(1 <= epoch <= short for epoch in found)


def test_schedules_shrink_with_the_training():
    rate = pc.LearningRate("multistep", warmup=5, milestones=(91, 136))
    stages = [
        Train(182),
        Repeat(2, (Train(91, learning_rate=rate),)),
        Each("groups", (Train(1), Prune("l1_norm", 0.5))),
    ]
    short = shortened(pc.Experiment("resnet20", "cifar10", stages, learning_rate=rate), Shorter(epochs=18))
    assert trained(short) == [18, 9, 1]
    assert short.learning_rate.milestones == pytest.approx((9, 13.45), abs=0.01)
    assert short.learning_rate.warmup == pytest.approx(5 * 18 / 182)
    assert short.timeline[1].stages[0].learning_rate == short.learning_rate
    stepped = SteppedPerIteration("multistep", warmup=5, milestones=(60,))
    short = shortened(pc.Experiment("fc5", "cifar10", [Train(200)], learning_rate=stepped), Shorter(epochs=40))
    assert (short.learning_rate.warmup, short.learning_rate.milestones) == (1, (60,))


def test_what_is_not_shortened_is_the_papers_and_what_is_is_quick():
    (whole,) = planned(official("fc5_cifar10"), Asked(points=1))
    assert whole.profile == "paper"
    assert shortened(whole, Shorter()) is whole
    for shorter in (Shorter(epochs=40), Shorter(limit=70_000), Shorter(width=1.0), Shorter(data="mnist5k")):
        assert shortened(whole, shorter).profile == "quick"


def test_other_images_come_with_their_own_recipe_and_fit_the_split_for_scoring():
    (whole, *_) = planned(official("cifar/lenet5"), Asked(seeds=1))
    assert (whole.normalise, whole.augment) == ("cifar10/sipp", "cifar10/sipp_lenet5")
    short = shortened(whole, Shorter(data="digits", limit=400))
    assert (short.data, short.normalise, short.augment, short.limit) == ("digits", None, None, 400)
    (samples,) = {stage.samples for stage in short.timeline if isinstance(stage, Prune)}
    scored = len(pc.load_data("digits", limit=400).score)
    assert scored - 10 / 2 <= samples <= scored, "half an image a class"


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"epochs": 0}, BadInput, "epochs must be between 1 and 1000000"),
        ({"width": 0}, BadInput, "width must be finite and above 0"),
        ({"limit": 0}, BadInput, "limit must be at least 1"),
        ({"data": "digit"}, UnknownName, "did you mean 'digits'"),
    ],
)
def test_what_cannot_be_shortened_so_is_refused(asked, error, message):
    with pytest.raises(error, match=message):
        Shorter(**asked)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_setting_can_be_shortened_to_one_epoch(name):
    if name.endswith("deepknight"):
        with pytest.raises(BadInput, match="not public"):
            planned(official(name), Asked())
        return
    whole = planned(official(name), Asked(seeds=1, points=2))
    short = [shortened(e, Shorter(epochs=1, data="digits", limit=400)) for e in whole]
    assert all(max(trained(e)) == 1 for e in short if any(trained(e)))
    assert {e.profile for e in short} == {"quick"}
    assert len({e.key for e in short}) <= len({e.key for e in whole})
