"""Networks whose weights are not there as plain parameters: one sentence that names the layer and what to do."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as masks_of_torch

import pruning_core as pc
from pruning_core.errors import BadInput, Unprunable

X, Y = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


def network():
    return nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3)).eval()


def masked_by_torch():
    model = network()
    masks_of_torch.random_unstructured(model[2], "weight", 0.5)
    model(X)
    return model


def with_hook(wrap):
    model = network()
    wrap(model[0])
    model(X)
    return model


REFUSED = {
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(9), nn.Linear(9, 3)), "layer '0' .LazyLinear.*run one batch"),
    "meta": (lambda: network().to("meta"), "'0.weight' lies on the meta device.*to_empty"),
    "masked": (masked_by_torch, r"layer '2' is under torch.nn.utils.prune.*prune.remove\(layer, name\) first"),
    "weight norm": (lambda: with_hook(nn.utils.weight_norm), r"layer '0' is under weight_norm.*remove_weight_norm"),
    "spectral norm": (lambda: with_hook(nn.utils.spectral_norm), "layer '0' is under spectral_norm"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}),
        "layer '0' is quantised .Linear.: prune the network before",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["magnitude", "snip", "l1_norm", "synflow"])
@pytest.mark.parametrize(("make", "words"), REFUSED.values(), ids=REFUSED)
def test_pruning_names_the_layer_and_the_remedy(make, words, method):
    with pytest.raises(BadInput, match=words) as caught:
        pc.prune(make(), method, 0.5, batches=[(X, Y)], example_input=X[:1])
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_the_remedies_help():
    lazy = nn.Sequential(nn.LazyLinear(9), nn.Linear(9, 3))
    lazy(X)
    masked, normed = masked_by_torch(), with_hook(nn.utils.weight_norm)
    masks_of_torch.remove(masked[2], "weight")
    nn.utils.remove_weight_norm(normed[0])
    for model in (lazy, masked, normed):
        assert pc.prune(model, "magnitude", 0.5).masks.sparsity == pytest.approx(0.5, abs=0.01)
    assert int((masked[2].weight == 0).sum()) >= 13


def test_training_and_counting_refuse_what_has_no_weights_yet():
    lazy = nn.Sequential(nn.LazyLinear(3))
    calls = [lambda: pc.Trainer(lazy, epochs=1), lambda: pc.evaluate(lazy, [(X, Y)]), lambda: pc.count_parameters(lazy)]
    for call in calls:
        with pytest.raises(BadInput, match="run one batch"):
            call()
    with pytest.raises(BadInput, match="meta device"):
        pc.fit(network().to("meta"), [(X, Y)], epochs=1)
    assert pc.count_parameters(network().to("meta")) == pc.count_parameters(network())


def test_a_parametrised_weight_is_left_out_with_its_remedy():
    model = network()
    nn.utils.parametrizations.weight_norm(model[0])
    excluded = pc.prune(model, "magnitude", 0.5).sites.excluded
    assert {name: reason for name, reason in excluded.items() if "remove_parametrizations" in reason}
    with pytest.raises(Unprunable, match=r"no prunable layer.*remove_parametrizations"):
        pc.prune(model[0], "magnitude", 0.5)
    parametrize.remove_parametrizations(model[0], "weight")
    assert pc.prune(model, "magnitude", 0.5).sites.excluded == {}


def test_a_frozen_layer_is_named_by_predict_limit():
    model, batches = network(), [(X[i : i + 3], Y[i : i + 3]) for i in range(0, 12, 3)]
    model[0].requires_grad_(False)
    options = {"probes": 2, "steps": 4, "points": 4, "progress": False}
    with pytest.raises(BadInput, match=r"'0.weight' is frozen.*scope=\['!0'\]"):
        pc.predict_limit(model, batches, **options)
    assert 0 <= pc.predict_limit(model, batches, scope=["!0"], **options).removed <= 1
