"""What methods make of batches: samples count, not batches; what was not looked at is told; a batch dimension is needed."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput
from pruning_core.methods.base import METHODS, as_method
from pruning_core.methods.shared.elasticities import loss_gradients

X = torch.randn((60, 2, 6, 6), generator=torch.Generator().manual_seed(0)).double()
Y = torch.randint(4, (60,), generator=torch.Generator().manual_seed(1))
AVERAGED = ["snip", "snap", "cnip", "gates", "grasp"]
NEED = sorted(name for name, method in METHODS.items() if method.needs in ("inputs", "labels"))


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 4)).double().eval()


def batches(*sizes: int) -> list:
    return [*zip(X.split(list(sizes)), Y.split(list(sizes)), strict=True)]


def cut(method: str, *sizes: int) -> pc.PruneResult:
    model = as_method(method).prepare(network(), X[:1])
    return pc.prune(model, method, 0.5, batches=batches(*sizes), example_input=X[:1])


@pytest.mark.parametrize("sizes", [(40, 17, 3), (1, 59), (30, 30)])
@pytest.mark.parametrize("method", AVERAGED)
def test_a_statistic_is_a_mean_over_samples_however_they_are_batched(method, sizes):
    assert cut(method, *sizes).masks == cut(method, 60).masks


@pytest.mark.parametrize("method", [name for name in NEED if name not in (*AVERAGED, "greedy")])
def test_so_are_the_choices_of_methods_that_look_at_inputs(method):
    assert cut(method, 40, 17, 3).masks == cut(method, 60).masks


def test_gradients_are_those_of_the_mean_loss_over_all_samples():
    loss = nn.functional.cross_entropy
    whole, value = loss_gradients(network(), ["0.weight"], batches(60), loss)
    parts, again = loss_gradients(network(), ["0.weight"], batches(50, 7, 3), loss)
    assert value == pytest.approx(again, rel=1e-12)
    assert (whole["0.weight"] - parts["0.weight"]).abs().max() < 1e-12


@pytest.mark.parametrize("method", AVERAGED)
def test_batches_that_were_not_looked_at_are_told(method):
    assert "only the first 5 of 6 batches were looked at" in cut(method, *[10] * 6).report.summary
    assert "looked at" not in cut(method, *[12] * 5).report.summary


@pytest.mark.parametrize("call", [pc.fit, pc.evaluate])
def test_single_samples_are_no_batches(call):
    options = {"epochs": 1, "progress": False} if call is pc.fit else {}
    with pytest.raises(BadInput, match="single samples, which a DataLoader puts into batches"):
        call(network(), [(X[0], Y[0])], **options)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pc.prune(network(), "magnitude", 0.5, example_input=X[0]),
        lambda: pc.prune(network(), "snip", 0.5, batches=[(X[0], Y[0])]),
        lambda: pc.prune(network(), "sipp", 0.5, batches=[(X[0], Y[0])]),
        lambda: pc.count_macs(network(), X[0]),
        lambda: pc.export_network(network(), "never.pt2", X[0]),
        lambda: pc.count_macs(nn.Sequential(nn.Linear(6, 3)), torch.zeros(6)),
    ],
)
def test_a_missing_batch_dimension_is_named_with_the_remedy(call):
    with pytest.raises(BadInput, match=r"their batch dimension is missing, x\[None\] has one") as caught:
        call()
    assert "\n" not in str(caught.value)
