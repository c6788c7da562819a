"""Hidden maps of a layer pair: chunks in memory, norms behind the reader, and what is refused."""

import copy
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, Unprunable
from pruning_core.methods.ispasp import ISpaSP, two_layer
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shared.least_squares import second_moments
from pruning_core.models.activations import places
from tests.methods.hidden_by_hand import (
    DOUBLE,
    LAYERWISE,
    Watched,
    alive_channels,
    conv_reader,
    last_linear,
    matrices,
    network,
    plain,
    prepared,
    pruned,
    seeded,
)

# --- through prune(), on networks


def test_the_norm_in_front_of_the_reader_is_the_hidden_layers_own():
    """Hidden maps are what the reader is given: behind norm, activation and pooling."""
    model, x, plan = network("conv norm pool conv")
    (group, _, _, owner, s), *_ = plan
    maps = F.max_pool2d(F.relu(model.eval()[1](model[0](x))), 2).detach()
    steps = plain(maps, nn.Sequential(model[4], model[5]), s, 20, owner)
    assert alive_channels(pruned(model, x, plan[:1]))[group] == steps[-1][2]


# --- the norm behind the reader


def behind_norm(act: nn.Module | None) -> nn.Module:
    """Channels 0 and 1 reach an output that the norm makes small, channels 2 and 3 one that it makes large."""
    middle = [] if act is None else [act]
    model = nn.Sequential(
        nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False), *middle, nn.BatchNorm1d(2), nn.Linear(2, 2),
    ).double()  # fmt: skip
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(4))
        model[2].weight.copy_(torch.tensor([[2.0, 2, 0, 0], [0, 0, 1, 1]]))
        model[-2].weight.copy_(torch.tensor([0.01, 10]))
    return model.eval()


class Between(nn.Module):
    """An activation that is no layer of the kind the search knows by name."""

    def forward(self, x):
        return x.relu_()


@pytest.mark.parametrize(
    ("act", "norm", "kept"),
    [(None, "3", [2]), (nn.ReLU(inplace=True), None, [0]), (nn.ReLU(), None, [0]), (Between(), None, [0])],
)
def test_the_norm_behind_the_reader_decides_unless_something_comes_between(act, norm, kept):
    x = torch.tensor([4.0, 3, 2, 1], dtype=DOUBLE) * (1 + torch.rand(8, 1, generator=seeded(0), dtype=DOUBLE))
    model = behind_norm(act)
    assert places(model, ["2"], x[:1])["2"].norm == norm
    found = pc.prune(model, "ispasp", None, across={"0": 0.75}, batches=[(x, None)])
    assert alive_channels(found)["0"] == kept
    # The activations alone would keep channel 0, whatever stands behind the reader.
    assert alive_channels(pc.prune(model, "activation_sum", None, across={"0": 0.75}, batches=[(x, None)]))["0"] == [0]


def test_only_batch_statistics_depend_on_chunks():
    layers = conv_reader().double()
    maps = torch.relu(torch.randn(12, 12, 5, 5, generator=seeded(8), dtype=DOUBLE))
    steps = {}
    for reference in (False, True):
        for sizes in ((12,), (3, 9), (4, 4, 4)):
            hidden = prepared(maps.split(sizes), layers, np.arange(12))
            found = two_layer(hidden, None, 3, 3, reference=reference, until_repeat=False, residuals=True)
            steps[reference, sizes] = found
    for sizes in ((3, 9), (4, 4, 4)):
        whole, cut = steps[False, (12,)], steps[False, sizes]
        np.testing.assert_allclose(whole.steps[1].importance, cut.steps[1].importance, rtol=1e-9)
        whole, cut = steps[True, (12,)], steps[True, sizes]
        np.testing.assert_allclose(whole.steps[0].importance, cut.steps[0].importance, rtol=1e-9)
        assert (whole.steps[1].importance - cut.steps[1].importance).abs().max() > 1e-3
        assert abs(whole.residuals[1] - cut.residuals[1]) > 1e-3
    # By hand: the pruned branch in training mode, chunk by chunk, the dense one in evaluation mode.
    found = steps[True, (3, 9)]
    keep = found.steps[0].support
    masked = torch.zeros_like(maps)
    masked[:, keep] = maps[:, keep]
    fresh = copy.deepcopy(layers).train()
    with torch.no_grad():
        fake = torch.cat([fresh(part) for part in masked.split((3, 9))])
    leaf = maps.clone().requires_grad_(True)
    loss = 0.5 * (layers(leaf) - fake).square().sum()
    loss.backward()
    np.testing.assert_allclose(found.steps[1].importance, leaf.grad.sum((0, 2, 3)), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.residuals[1], 2 * loss.item(), rtol=1e-10)


# --- memory


@pytest.mark.parametrize("options", [{}, {"activation": "norm"}, {"residuals": True}, {"reference": True}])
def test_at_most_two_chunks_are_in_memory(options):
    chunks = Watched()
    two_layer(chunks, conv_reader(), 2, **options)
    assert chunks.most <= 2
    assert chunks.passes >= 2  # one to see the shape, the others over everything


def test_hidden_maps_of_a_network_are_not_kept():
    model, x, plan = network("basic blocks")
    refs: list[weakref.ref] = []
    most = 0

    def watch(module, inputs):
        nonlocal most
        refs.append(weakref.ref(inputs[0]))
        most = max(most, sum(ref() is not None for ref in refs))

    handles = [model.get_submodule(reader).register_forward_pre_hook(watch) for _, reader, *_ in plan]
    pruned(model, x, plan, sizes=(3, 3, 3, 3, 3, 3, 3, 2))
    for handle in handles:
        handle.remove()
    # prune() works on a copy, and hooks are copied along: what they saw counts all the same.
    assert len(refs) >= 8 * len(plan)
    assert most <= 2 + len(plan)  # two chunks of one layer, and what one forward pass over the example holds


# --- what cannot be worked with


@pytest.mark.parametrize(
    "hidden", [torch.ones(5), torch.ones(0, 5), lambda: iter([]), lambda: iter([torch.ones(0, 5)])]
)
def test_hidden_maps_need_samples_and_channels(hidden):
    with pytest.raises(BadInput, match=r"hidden maps have the shape \(samples, hidden, ...\)"):
        two_layer(hidden, torch.ones(2, 5), 1)


@pytest.mark.parametrize(
    ("maps", "consume"),
    [
        (torch.ones(4, 6), torch.ones(3, 5)),
        (torch.ones(4, 6), torch.ones(6)),
        (torch.ones(4, 6), nn.Conv2d(6, 3, 1)),
        (torch.ones(4, 5, 3, 3), nn.Conv2d(6, 3, 1)),
    ],
)
def test_maps_that_do_not_fit_the_reading_layer(maps, consume):
    with pytest.raises(BadInput):
        two_layer(maps, consume, 1)


def test_tokens_in_front_of_a_linear_layer_are_refused():
    """(samples, hidden, positions) is the order of maps; a linear layer would read the positions as channels."""
    with pytest.raises(BadInput):
        two_layer(torch.rand(2, 7, 6), nn.Linear(6, 3), 2)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_nan_and_infinite_activations_are_named(bad):
    maps, weight = matrices(0)
    maps[3, 2] = bad
    with pytest.raises(BadInput, match="the activations of the hidden layer are NaN or infinite"):
        two_layer(maps, weight, 2)
    with pytest.raises(BadInput, match="NaN or infinite"):
        second_moments(Hidden.of(maps, weight))


OVERFLOWING = [
    "ispasp", "activation_sum", "imitation", ISpaSP(debias=True), ISpaSP(activation="norm"),
    "greedy",
]  # fmt: skip


@pytest.mark.parametrize("method", OVERFLOWING)
def test_finite_weights_with_inputs_that_overflow(method):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    nn.init.ones_(model[0].weight)
    batches = [(torch.full((8, 4), 3e38), torch.zeros(8, dtype=torch.long))]
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(BadInput, match="NaN or infinite"):
        pc.prune(model, method, 0.5, batches=batches)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_samples_of_different_sizes():
    with pytest.raises(BadInput, match="maps of different sizes; use inputs of one size"):
        two_layer(lambda: [torch.rand(2, 12, 5, 5), torch.rand(2, 12, 4, 4)], conv_reader(), 2)
    model, x, _ = network("basic blocks")
    batches = [(x, None), (x[:, :, :6, :6], None)]
    for method in ("ispasp", "activation_sum"):
        with pytest.raises(BadInput, match=r"the layer in front of 'blocks\.0\.conv2' maps of different sizes"):
            pc.prune(model, method, None, across={"blocks.0.conv1": 0.5}, batches=batches)


@pytest.mark.parametrize("method", ["ispasp", "activation_sum", "imitation", "greedy"])
def test_empty_batches(method):
    model = last_linear()
    with pytest.raises(BadInput, match="batches is empty"):
        pc.prune(model, method, 0.5, batches=[])
    with pytest.raises(BadInput, match="needs batches"):
        pc.prune(model, method, 0.5)
    with pytest.raises(BadInput, match="holds no sample"):
        pc.prune(model, method, 0.5, batches=[(torch.rand(0, 6, dtype=DOUBLE), torch.zeros(0, dtype=torch.long))])
    with pytest.raises(BadInput, match="does not pass through"):
        pc.prune(model, method, 0.5, batches=[(torch.rand(3, 5, dtype=DOUBLE), torch.zeros(3, dtype=torch.long))])


@pytest.mark.parametrize("method", LAYERWISE)
def test_channels_that_no_linear_layer_reads_alone_are_refused(method):
    turned = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.ConvTranspose2d(6, 2, 3))
    x = torch.rand(3, 1, 6, 6)
    batches = [(x, torch.zeros(3, dtype=torch.long))]
    with pytest.raises(Unprunable, match=f"read by ConvTranspose2d; {method} needs a linear layer or a convolution"):
        pc.prune(turned, method, 0.5, batches=batches)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 2, 1), nn.Conv2d(6, 2, 1)

        def forward(self, x):
            hidden = F.relu(self.a(x))
            return self.b(hidden) + self.c(hidden)

    with pytest.raises(Unprunable, match=f"several layers read these channels; {method} needs one"):
        pc.prune(Twice(), method, 0.5, batches=batches)
    # Nothing reads the only channels there are.
    with pytest.raises(Unprunable, match="outputs of the network"):
        pc.prune(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU()), method, 0.5, batches=batches)
