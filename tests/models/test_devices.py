"""Networks on a device: random numbers, costs, times, and files that any machine reads."""

import pytest
import torch

import pruning_core as pc
from pruning_core.models.modes import own_random_numbers, undisturbed
from pruning_core.models.timing import latency
from pruning_core.training.evaluation import computes_bfloat16


def states(device):
    """The global random states of the CPU and, where it is another one, of the device."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device == "cuda" else [])]


def unchanged(before, device):
    return all(torch.equal(a, b) for a, b in zip(before, states(device), strict=True))


def test_building_a_network_draws_nothing_from_any_global_state(device):
    torch.rand(1, device=device)
    before = states(device)
    model = pc.build_model("resnet20", "digits", width=0.25, seed=0)
    assert unchanged(before, device)
    assert next(model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("context", [own_random_numbers, undisturbed])
def test_what_is_drawn_inside_leaves_the_random_states_as_they_were(context, device):
    model = torch.nn.Linear(2, 2).to(device)
    before = states(device)
    with context(model):
        torch.rand(5, device=device)
        assert not unchanged(before, device)
    assert unchanged(before, device)


def test_costs_do_not_depend_on_the_device_and_times_are_positive(device):
    model, example = pc.build_model("vgg8", "digits", width=0.25, seed=0), torch.zeros(2, 1, 8, 8)
    macs = pc.count_macs(model, example)
    model.to(device)
    assert pc.count_macs(model, example.to(device)) == macs
    assert latency(model, example.to(device), repeats=2, warmup=1).median > 0


def test_a_network_pruned_on_a_device_is_read_anywhere(device, tmp_path):
    model = pc.build_model("vgg8", "digits", width=0.25, seed=0).to(device)
    result = pc.prune(model, "l1_norm", 0.5)
    result.save(tmp_path / "small.safetensors")
    loaded, small = pc.load_pruned(tmp_path / "small.safetensors"), result.shrink().eval()
    assert {parameter.device.type for parameter in small.parameters()} == {device}
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}
    for one, other in zip(small.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(one.cpu(), other)


def test_a_device_says_whether_it_computes_in_bfloat16(device):
    assert isinstance(computes_bfloat16(device), bool)
    if not torch.cuda.is_available():
        assert not computes_bfloat16("cuda")
