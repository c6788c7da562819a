"""The prunability calculator: prediction, measured curve and warnings on small networks."""

import copy
import functools
import math

import pandas as pd
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput
from pruning_core.papers.how_sparse.prunability import magnitude_curve, predict_limit


def network(seed: int = 0, hidden: int = 12) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, 3))
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    return model.eval()


def batches(n: int = 12, size: int = 10, seed: int = 1) -> list:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, size, 6, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (n, size), generator=generator)
    return list(zip(x, y, strict=True))


def fitted() -> nn.Sequential:
    """A network at a minimum of its (slightly regularised) loss."""
    return copy.deepcopy(_fitted())


@functools.cache
def _fitted() -> nn.Sequential:
    model = network()
    held = batches()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300)

    def closure():
        optimizer.zero_grad()
        total = sum(nn.functional.cross_entropy(model(x), y) for x, y in held) / len(held)
        total = total + 1e-3 * sum(p.square().sum() for p in model.parameters())
        total.backward()
        return total

    optimizer.step(closure)
    return model


def test_exact_and_lanczos_spectra_predict_the_same():
    model, held = fitted(), batches()
    exact = predict_limit(model, held, points=12, progress=False)
    quadrature = predict_limit(model, held, points=12, exact_below=1, probes=20, steps=60, progress=False)
    assert exact.spectrum.exact
    assert exact.spectrum.dimension == 6 * 12 + 12 * 3  # the weights, without biases
    assert not quadrature.spectrum.exact
    assert quadrature.limit.removed_low <= quadrature.limit.removed <= quadrature.limit.removed_high
    assert quadrature.limit.removed == pytest.approx(exact.limit.removed, abs=0.03)


def test_the_tolerance_is_the_spread_of_the_batches_unless_given():
    model, held = fitted(), batches()
    losses = torch.stack([nn.functional.cross_entropy(model(x), y) for x, y in held]).detach()
    found = predict_limit(model, held, points=5, progress=False)
    assert found.limit.epsilon == pytest.approx(float(losses.std(correction=0)))
    wide = predict_limit(model, held, epsilon=10 * found.limit.epsilon, points=5, progress=False)
    assert wide.limit.removed > found.limit.removed


def test_the_curve_is_what_pruning_by_magnitude_gives():
    model, held = fitted(), batches()
    names = ["0.weight", "2.weight"]
    curve = magnitude_curve(model, held, names, points=5, progress=False)
    assert list(curve.columns) == ["removed", "loss", "accuracy"]
    x, y = torch.cat([b[0] for b in held]), torch.cat([b[1] for b in held])
    for _, row in curve.iloc[:-1].iterrows():
        pruned = pc.prune(model, "magnitude", row["removed"]).model
        outputs = pruned(x).detach()
        assert row["loss"] == pytest.approx(float(nn.functional.cross_entropy(outputs, y)), rel=1e-9)
        assert row["accuracy"] == pytest.approx(100 * float((outputs.argmax(1) == y).double().mean()))
    assert curve["removed"].iloc[-1] == pytest.approx(107 / 108)


def test_measured_limits_follow_from_the_curve():
    model, held = fitted(), batches()
    found = predict_limit(model, held, points=109, progress=False)
    inside = found.measured[found.measured["loss"] <= found.measured["loss"].iloc[0] + found.limit.epsilon]
    assert found.actual.within_epsilon == pytest.approx(inside["removed"].max())


def test_batches_of_unequal_size_count_by_their_samples():
    model = fitted()
    held = batches()
    short = [*held[:-1], (held[-1][0][:3], held[-1][1][:3])]
    curve = magnitude_curve(model, short, ["0.weight"], points=2, progress=False)
    x, y = torch.cat([b[0] for b in short]), torch.cat([b[1] for b in short])
    assert curve["loss"].iloc[0] == pytest.approx(float(nn.functional.cross_entropy(model(x).detach(), y)), rel=1e-9)


def test_the_model_is_left_as_it_was():
    model = fitted()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict_limit(model, batches(), points=3, progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None or p.requires_grad for p in model.parameters())


def test_a_generator_of_batches_is_enough():
    found = predict_limit(fitted(), (batch for batch in batches()), points=3, progress=False)
    assert 0 <= found.limit.removed < 1


def test_other_losses_have_no_accuracy():
    model = nn.Sequential(nn.Linear(6, 1)).double().eval()
    held = [(x, x.sum(1, keepdim=True) * 0.1) for x, _ in batches()]
    found = predict_limit(model, held, loss=nn.functional.mse_loss, points=4, progress=False)
    assert found.measured["accuracy"].isna().all()
    assert isinstance(found.measured, pd.DataFrame)
    assert "predicted limit" in repr(found)


def test_an_untrained_network_is_warned_about():
    untrained = predict_limit(network(), batches(), points=5, progress=False)
    assert any("has not converged" in warning for warning in untrained.warnings)
    assert any("negative" in warning for warning in untrained.warnings)
    trained = predict_limit(fitted(), batches(), points=5, progress=False)
    assert not any("negative" in warning for warning in trained.warnings)
    assert "warning" in repr(untrained)


def test_few_batches_are_warned_about():
    few = predict_limit(fitted(), batches()[:4], points=3, progress=False)
    assert any("only 4 batches" in warning for warning in few.warnings)
    many = predict_limit(fitted(), batches(), points=3, progress=False)
    assert not any("batches" in warning for warning in many.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": math.nan}, "epsilon"),
        ({"points": 1}, "points"),
        ({"exact_below": 1, "steps": 500}, "more"),
        ({"negative": "keep"}, "negative"),
    ],
)
def test_bad_settings_are_one_sentence(change, message):
    with pytest.raises(BadInput, match=message):
        predict_limit(fitted(), batches(), progress=False, **{"points": 3, **change})


def test_a_network_in_training_mode_or_with_a_broken_loss_is_refused():
    with pytest.raises(BadInput, match="training mode"):
        predict_limit(fitted().train(), batches(), progress=False)
    broken = fitted()
    broken[0].weight.data[0, 0] = math.nan
    with pytest.raises(BadInput):
        predict_limit(broken, batches(), progress=False)
