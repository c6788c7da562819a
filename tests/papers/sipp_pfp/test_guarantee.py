"""The guarantee from layer to layer: the recursion, its inverse, and the table on small chains."""

import itertools
import math

import pytest
import torch
from torch import nn

from pruning_core.errors import BadInput, Unprunable
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.papers.sipp_pfp.guarantee import composed, equal_error, error_promised, guarantee_table


def chain(*sizes: int, seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layer = nn.Linear(a, b)
        layer.weight.data = torch.randn(b, a, generator=generator) / math.sqrt(a)
        layer.bias.data = torch.randn(b, generator=generator) / 10
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def inputs(n: int, width: int, seed: int) -> torch.Tensor:
    return torch.rand(n, width, generator=torch.Generator().manual_seed(seed))


def test_the_composition_is_what_two_factors_do():
    e1 = 2.0 * (1.1 - 1)
    assert composed([0.1, 0.2], [2.0, 5.0]) == pytest.approx([e1, 5 * (1.2 * (1 + e1) - 1)])
    assert composed([0.3], [1.0]) == pytest.approx([0.3])
    assert composed([], []) == []


@pytest.mark.parametrize("bad", [([0.1], []), ([-0.1], [1.0]), ([0.1], [-1.0])])
def test_a_composition_of_unequal_or_negative_things_is_refused(bad):
    with pytest.raises(BadInput, match="one error and one cancellation"):
        composed(*bad)


@pytest.mark.parametrize("promise", [0.01, 0.5, 10.0])
@pytest.mark.parametrize("cancellations", [[3.0], [2.0, 7.0, 1.5]])
def test_equal_errors_compose_to_the_promise(promise, cancellations):
    each = equal_error(promise, cancellations)
    assert composed([each] * len(cancellations), cancellations)[-1] == pytest.approx(promise, rel=1e-9)


def test_equal_errors_need_something_positive():
    for promise, cancellations in ((0.0, [1.0]), (1.0, []), (1.0, [0.0])):
        with pytest.raises(BadInput, match="positive"):
            equal_error(promise, cancellations)


def test_the_table_of_one_layer_by_hand():
    model, points, held_out = chain(12, 5), inputs(20, 12, 1), inputs(30, 12, 2)
    row = guarantee_table(model, points, held_out, 40).iloc[0]
    layer = model[0]
    scores = sensitivity(layer, [points]).weight
    sums = [(scores * (sign * layer.weight.detach() > 0)).sum(1).max() for sign in (1, -1)]
    assert row["sensitivities"] == pytest.approx(float(max(sums)), rel=1e-6)
    assert row["half"] == pytest.approx(error_promised(40, float(max(sums)), 5), rel=1e-6)
    z = layer(held_out).detach()
    delta = (held_out @ layer.weight.detach().abs().T / z.abs()).median()
    assert row["cancellation"] == pytest.approx(float(delta), rel=1e-4)
    assert row["promised"] == pytest.approx(float(delta) * row["half"], rel=1e-4)
    assert row["weights"] == 6.0


def test_measured_errors_fall_with_the_draws_and_stay_below_the_promise():
    model, points, held_out = chain(64, 40, 30, 6), inputs(64, 64, 3), inputs(200, 64, 4)
    few, many = (guarantee_table(model, points, held_out, draws) for draws in (50, 5000))
    assert (many["measured"] < few["measured"] / 3).all()
    for table in (few, many):
        assert list(table["layer"]) == ["0", "2", "4"]
        assert (table["measured"] < table["promised"]).all()
    assert many["measured"].iloc[-1] < 0.2


def test_signed_inputs_are_covered():
    model, points = chain(10, 4), inputs(50, 10, 5) - 0.5
    table = guarantee_table(model, points, points, 100_000)
    assert table["measured"].iloc[0] < 0.05


def test_the_model_is_left_alone_and_draws_follow_the_seed():
    model, points = chain(8, 6, 3), inputs(10, 8, 6)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tables = [guarantee_table(model, points, points, 20, seed=seed) for seed in (0, 0, 1)]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_neurons_without_positive_or_without_any_weights():
    model, points = chain(8, 6, 3), inputs(10, 8, 7)
    model[0].weight.data[0].clamp_(max=0)
    model[0].weight.data[1] = 0
    table = guarantee_table(model, points, points, 10_000)
    assert table["measured"].max() < 0.5


def test_other_layers_are_refused():
    with pytest.raises(Unprunable, match=r"'0\.weight'"):
        guarantee_table(nn.Sequential(nn.Conv2d(1, 2, 3)), torch.rand(2, 1, 5, 5), torch.rand(2, 1, 5, 5), 5)
    with pytest.raises(Unprunable, match="no linear layer"):
        guarantee_table(nn.Sequential(nn.ReLU()), torch.rand(2, 3), torch.rand(2, 3), 5)
