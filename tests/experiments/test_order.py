"""Timelines that cannot be played to their end: refused before anything is trained."""

import contextlib

import pytest

import pruning_core as pc
from pruning_core.errors import BadInput, BudgetError, PruningError, Unprunable
from pruning_core.experiments import recipes
from pruning_core.experiments.order import check_amounts, check_order
from pruning_core.experiments.stages import to
from pruning_core.records import cache_root

TRAIN = pc.Train(1)
GEOMETRIC = {"schedule": "geometric"}
REFUSED = {
    "rewound to what was never saved": (lambda: [TRAIN, pc.Rewind("early")], "nothing was saved as 'early'; saved: init"),
    "saved too late": (lambda: [TRAIN, pc.Rewind("early"), pc.Save("early")], "nothing was saved as 'early'"),
    "saved too late in a Repeat": (lambda: [pc.Repeat(2, [TRAIN, pc.Rewind("a"), pc.Save("a")])], "nothing was saved as 'a'"),
    "rewound in an event": (lambda: [pc.Train(2, during=pc.Every(1, [pc.Rewind("a")]))], "nothing was saved as 'a'"),
    "saved as what Rewind takes for fresh": (lambda: [TRAIN, pc.Save("new")], "fresh random weights"),
    "a penalty that is none": (lambda: [TRAIN, pc.Train(1, penalty=("magnitude", 0.1))], "has no penalty"),
    "two kinds of gates": (lambda: [TRAIN, pc.Train(1, penalty=[("l0", 0.1), ("gates", 0.1)])], "each put gates of their own"),
    "channels of a method that has none": (lambda: [TRAIN, pc.Prune("snip", to(0.5, "snap"))], "counts weights or macs"),
    "more samples than the split has": (lambda: [TRAIN, pc.Prune("snip", 0.5, batches="score")], "640 samples were asked for"),
    "a falling sparsity": (lambda: [TRAIN, pc.Prune("magnitude", 0.8), pc.Prune("snip", 0.2)], "stays pruned"),
    "rounds in a Repeat": (lambda: [pc.Repeat(3, [TRAIN, pc.Prune("snip", 0.5, 2, "geometric")])], "a Repeat plays it"),
    "a Repeat in a Repeat": (
        lambda: [TRAIN, pc.Repeat(2, [pc.Repeat(3, [pc.Prune("l1_norm", 0.5, **GEOMETRIC)])])], "a Repeat plays it"
    ),
    "a scope that fits nothing": (lambda: [TRAIN, pc.Prune("snip", 0.5, scope=("nope",))], "scope 'nope' fits no layer"),
    "a part that is none": (lambda: [TRAIN, pc.Each(("nope",), [pc.Prune("snip", 0.5)])], "scope 'nope' fits no layer"),
    "in an event": (lambda: [pc.Train(2, during=pc.Every(1, [pc.Prune("snip", 0.5, scope=("nope",))]))], "fits no layer"),
    "scales of batch norms that are not there": (lambda: [TRAIN, pc.Prune("slimming", 0.5)], "no channels that can be removed"),
    "fresh weights for a smaller network": (
        lambda: [TRAIN, pc.Prune("l1_norm", 0.5), pc.Shrink(), pc.Rewind("new")], "stands before Shrink"
    ),
    "fresh weights in the second round": (
        lambda: [pc.Repeat(2, [pc.Rewind("new"), TRAIN, pc.Prune("l1_norm", 0.5), pc.Shrink()])], "stands before Shrink"
    ),
    "more than can go": (lambda: [TRAIN, pc.Prune("l1_norm", 0.999)], "a layer would be emptied"),
    "more than can go, after a cut": (
        lambda: [pc.Prune("l1_norm", 0.5), TRAIN, pc.Prune("l1_norm", 0.999)], "a layer would be emptied"
    ),
    "more than can go of the weights": (
        lambda: [TRAIN, pc.Prune("l1_norm", pc.Budget(0.9999, across="layer"))], "of the weights can be removed"
    ),
    "a site that is none": (lambda: [TRAIN, pc.Prune("magnitude", pc.Budget(across={"nix": 0.5}))], "site of the budget 'nix'"),
    "a site that is none, after a cut": (
        lambda: [pc.Prune("cnip", 0.5), TRAIN, pc.Prune("magnitude", pc.Budget(across={"nix": 0.5}))], "'nix'"
    ),
    "importances of batch norms that are not there": (lambda: [TRAIN, pc.Importances()], "no channels that can be removed"),
    "gates that are not there": (lambda: [TRAIN, pc.Train(1, only="gates")], "no parameter to train"),
    "after an event": (
        lambda: [pc.Train(2, during=pc.Every(1, [pc.Prune("snip", 0.8)])), pc.Prune("snip", 0.4)], "0.4 after one of 0.8"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_played_is_refused_before_work(name, empty_cache):
    timeline, message = REFUSED[name]
    with pytest.raises(PruningError, match=message) as caught:
        pc.run(pc.Experiment("lenet300", "digits", timeline(), width=0.1, limit=300, profile="smoke"), progress=False)
    assert isinstance(caught.value, BadInput | BudgetError | Unprunable)
    assert not list(cache_root().glob("checkpoints/*"))


@pytest.mark.parametrize(
    "timeline",
    [
        [pc.Rewind("new"), pc.Rewind(), pc.Save("init")],
        [pc.Repeat(1, [pc.Rewind("new"), TRAIN, pc.Prune("l1_norm", 0.5), pc.Shrink()])],
        [pc.Repeat(3, [pc.Prune("magnitude", 0.5), pc.Save("a")]), pc.Rewind("a")],
        [pc.Repeat(3, [pc.Prune("magnitude", 0.9, **GEOMETRIC)]), pc.Prune("magnitude", 0.95)],
        [pc.Prune("magnitude", 0.8, scope="fc1"), pc.Prune("magnitude", 0.2, scope="fc2")],
        [pc.Prune("magnitude", 0.8), pc.Prune("rigl", 0.2)],
        [pc.Prune("magnitude", 0.8), pc.Prune("l1_norm", 0.2)],
        [pc.Each(("fc1", "fc2"), [pc.Prune("magnitude", 0.8, 2, "geometric")])],
        [pc.Train(4, during=pc.Every(1, [pc.Prune("snip", 0.9, **GEOMETRIC)]))],
        recipes.lottery_ticket(0.8, 2, rounds=2, early=1),
    ],
)
def test_what_can_be_played_is_taken(timeline):
    check_order(timeline)
    check_amounts(timeline)


def test_a_scope_may_be_one_pattern(empty_cache):
    cut = pc.Prune("magnitude", 0.5, scope="fc1")
    assert cut == pc.Prune("magnitude", 0.5, scope=["fc1"])
    pc.run(pc.Experiment("lenet300", "digits", [cut], width=0.1, profile="smoke"), progress=False)


BUDGETS = {
    "within layers": {"to": 0.5, "across": "layer"},
    "by kernels, of macs": {"to": 0.5, "of": "macs", "across": "erk"},
    "rounded": {"to": 0.4, "round_to": 4},
    "threshold": {"below": 0.0, "of": "channels"},
    "nearly all weights": {"to": 0.9999},
    "nearly all channels": {"to": 0.99, "of": "channels", "across": "uniform"},
    "no such site": {"across": {"nix": 0.5}, "of": "channels"},
}


@pytest.mark.parametrize("method", sorted(pc.METHODS))
def test_no_budget_is_refused_only_after_training(method, empty_cache, monkeypatch):
    """Whatever a cut refuses on the network as it was built, it refuses before anything is trained."""

    class Begun(Exception):
        pass

    def begun(*_):
        raise Begun

    monkeypatch.setattr("pruning_core.training.trainer.Trainer.train_epoch", begun)
    common = {"width": 0.25, "limit": 300, "profile": "smoke"}
    late = []
    for name, settings in BUDGETS.items():
        try:
            cut = pc.Prune(method, pc.Budget(**settings), samples=16)
        except PruningError:
            continue
        try:
            pc.run(pc.Experiment("basic4", "digits", [TRAIN, cut], **common), progress=False)
        except PruningError:
            continue
        except Begun:
            penalty = [pc.Train(1, penalty=(method, 0.0))] if method == "rare_gems" else []
            with contextlib.suppress(Begun):
                try:
                    pc.run(pc.Experiment("basic4", "digits", [*penalty, cut], **common), progress=False)
                except PruningError as error:
                    late.append(f"{name}: {error}")
    assert late == []


def test_batches_of_one_are_refused_before_the_first_training(empty_cache):
    experiment = pc.Experiment(
        "basic4", "digits", [TRAIN, pc.Train(1, batch_size=1)], width=0.25, limit=300, profile="smoke"
    )
    with pytest.raises(BadInput, match="batch norm cannot train on batches of one sample"):
        pc.run(experiment, progress=False)
    assert not list(cache_root().glob("checkpoints/*"))


def test_a_list_is_looked_through_before_its_first_experiment(empty_cache):
    common = {"width": 0.1, "limit": 300, "profile": "smoke"}
    good, bad = ([TRAIN, pc.Prune("l1_norm", p), pc.Measure("pruned")] for p in (0.5, 0.999))
    listed = [pc.Experiment("lenet300", "digits", cut, seed=s, **common) for cut in (good, bad) for s in (0, 1)]
    with pytest.raises(BudgetError, match=r"^experiment 3 of 4 cannot be played: .* a layer would be emptied"):
        pc.run_all(listed, progress=False)
    assert not list(cache_root().glob("*/*.json"))
    assert not list(cache_root().glob("checkpoints/*"))
    assert len(pc.run_all(listed[:2], progress=False)) == 2
