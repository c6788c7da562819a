"""Every kind of network: cut, shrunk, trained on, saved, loaded and cut again; or refused in one sentence, and never wrong."""

import pytest
import torch

import pruning_core as pc
from pruning_core.errors import Unprunable
from tests.networks import attention, convolutional, generative, tables, ways
from tests.networks.trial import apart, made, steps, tensors, widths

CASES = convolutional.CASES | attention.CASES | generative.CASES | tables.CASES | ways.CASES
FAST = (
    "twins",
    "routed",
    "auxiliary head",
    "one expert a sample",
    "without condition",
    "gpt",
    "graph",
    "maxout",
    "cosine",
    "up in parts",
)
"""One of each kind that was wrong once, and runs in the fast tier; all others in the slow one."""


def named(fast: bool) -> list:
    return [pytest.param(n, marks=[pytest.mark.slow] * (n not in FAST)) for n in CASES if not fast or n in FAST]


@pytest.mark.parametrize("name", named(fast=False))
def test_what_can_go_goes_exactly_and_the_rest_says_why(name, tmp_path):
    case = CASES[name]
    model = made(case)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    if case.refused is not None:
        with pytest.raises(Unprunable, match=case.refused):
            pc.prune(model, "l1_norm", 0.5, example_input=case.batch(1))
        return
    result = pc.prune(model, "l1_norm", 0.5, across="layer", example_input=case.batch(1))
    small = result.shrink()
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in before.items())

    wide, narrow = widths(model), widths(small)
    assert [layer for layer in case.cut.split() if not narrow[layer] < wide[layer]] == []
    excluded = result.sites.excluded
    assert {group: words for group, words in case.fixed.items() if words not in excluded.get(group, "")} == {}
    assert apart(model, result.model, case.batch(4)) > 1e-6
    for seed in (11, 12, 13):
        assert apart(result.model, small, case.batch(4, seed)) < 1e-9

    result.save(tmp_path / "small.safetensors")
    loaded = pc.load_pruned(tmp_path / "small.safetensors", model=made(case, seed=1))
    assert apart(small, loaded, case.batch(4, 5)) < 1e-12
    once = pc.prune(small, "l1_norm", 0.3, example_input=case.batch(1))
    assert apart(once.model, once.shrink(), case.batch(4, 6)) < 1e-9
    for network, masks in ((result.model, result.masks), (small, {}), (loaded, {})):
        steps(network, masks, case.batch(6, 7))
    assert apart(result.model, small, case.batch(4, 8)) < 1e-7
    assert apart(small, loaded, case.batch(4, 8)) < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused is None])
def test_channels_drawn_at_random_over_the_whole_network_go_exactly(name):
    case = CASES[name]
    result = pc.prune(made(case), "random_channels", 0.3, example_input=case.batch(1), seed=3)
    assert apart(result.model, result.shrink(), case.batch(4, 21)) < 1e-9


@pytest.mark.parametrize("name", [param for param in named(fast=False) if CASES[param.values[0]].refused is None])
def test_channels_ranked_by_gates_behind_the_layers_go_exactly(name):
    """A gate has to act on what a layer puts out, however its weight is laid out."""
    case = CASES[name]

    def loss(outputs, labels):
        return sum(t.double().square().mean() for t in tensors(outputs) if t.is_floating_point())

    inputs = case.batch(4, 9)
    batches = [(inputs if len(inputs) > 1 else inputs[0], torch.zeros(4))]
    result = pc.prune(made(case), "snap", 0.3, batches=batches, example_input=case.batch(1), loss=loss)
    assert apart(result.model, result.shrink(), case.batch(4, 21)) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if "old" not in name])
def test_weights_of_every_network_can_be_removed_without_a_search(name):
    case = CASES[name]
    result = pc.prune(made(case), "magnitude", 0.5, example_input=case.batch(1))
    assert result.report.reached == pytest.approx(0.5, abs=0.01)
    assert all(
        not parameter[~result.masks[key]].any()
        for key, parameter in result.model.named_parameters()
        if key in result.masks
    )
