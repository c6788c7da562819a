"""The pictures of SNIP-it's code: what a pixel, a line, a point of them says."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput
from pruning_core.methods.l0 import L0
from pruning_core.papers.snipit import OfficialTags, pictures


def official_weight_picture(weight: torch.Tensor) -> torch.Tensor:
    """As in Metrics.py of the official code, whose bytes here are divided by 255."""
    rows = weight.shape[0] if weight.dim() == 2 else int(max(weight.shape))
    shown = (weight.reshape(rows, -1) / 6) * 255
    layers = [(shown * x).long() for x in [shown < 0, shown > 0]] + [(shown == 0).long() * 255]
    return torch.stack(layers).abs() / 255


@pytest.mark.parametrize("shape", [(4, 7), (5, 3, 2, 2), (3, 8, 1, 1)])
def test_weights_have_the_official_colours(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2
    weight[weight.abs() < 0.5] = 0
    found = pictures.weight_picture(weight)
    assert torch.allclose(found, official_weight_picture(weight), atol=1 / 255)
    assert found[2].sum() == (weight == 0).sum()


def test_confusions_are_those_of_the_official_code():
    digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    pc.fit(network, digits, epochs=1, progress=False)
    inputs, labels = digits.test.inputs[:200], digits.test.labels[:200]
    with torch.no_grad():
        taken = network.eval()(inputs).argmax(1)
    official = 1 - confusion_matrix(labels, taken) / (200 / 10)
    network.train()
    found = pictures.confusion_picture(network, inputs, labels, 10)
    np.testing.assert_allclose(found[0], np.clip(official, 0, 1), atol=1e-6)
    assert network.training


def test_a_line_stands_for_each_weight_that_is_not_zero_and_only_the_largest_are_drawn(monkeypatch):
    network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.arange(12.0).view(3, 4))
        network[2].weight.copy_(torch.tensor([[0.0, 20.0, 0.0], [30.0, 0.0, 0.0]]))

    def drawn():
        edges, points = pictures.network_picture(network).axes[0].collections
        return len(edges.get_segments()), len(points.get_offsets())

    assert drawn() == (11 + 2, 4 + 3 + 2)
    monkeypatch.setattr(pictures, "MOST_EDGES", 3)
    assert drawn() == (3, 9)


def test_what_has_no_picture_is_refused():
    with pytest.raises(BadInput, match="this one has none"):
        pictures.network_picture(nn.Conv2d(1, 1, 1))
    for weight in (torch.zeros(3), torch.zeros(0, 3)):
        with pytest.raises(BadInput, match="two dimensions or more"):
            pictures.weight_picture(weight)


def test_gates_have_their_expected_weights_among_the_tags(tmp_path):
    network, example = pc.build_model("mlp5_snip", "digits", seed=0, width=0.1), torch.zeros(1, 1, 8, 8)
    gated = L0().prepare(network, example)
    history = pc.fit(gated, pc.load_data("digits", limit=200), epochs=1, progress=False, observers=[
        lambda trainer, row: row.update(OfficialTags(trainer.model, example, 100)(trainer))])  # fmt: skip
    parts = [m for m in gated.modules() if type(m).__name__ == "Gated"]
    alike = sum(float(p.gate.open_probability().detach().sum()) * p.layer.in_features for p in parts)
    assert parts and history[0]["norm/l0"] == pytest.approx(alike)


def test_shares_are_those_of_what_is_not_zero():
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight[:2] = 0
    found = pictures.official_histograms(network)
    assert found["layer/sparsity"].tolist() == pytest.approx([100 / 3, 100])
    assert (found["weight/magnitude"] == 0).sum() == 8
