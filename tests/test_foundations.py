"""Chapter 0: its exercises, its figures, and the counts that its first page relies on."""

import pandas as pd
import pytest
import torch

import pruning_core as pc
from pruning_core.book.exercises import EXERCISES, check
from pruning_core.errors import UnknownName
from pruning_core.masks.sites import find_sites
from pruning_core.models.cost import output_positions
from pruning_core.plots import foundations as draw


def by_rank(weights, p):
    keep = torch.ones(weights.numel(), dtype=torch.bool)
    keep[weights.abs().flatten().argsort()[: round(p * weights.numel())]] = False
    return keep.view_as(weights)


class Relative(pc.Method):
    """Weights that are small beside the largest of their layer go first."""

    name, citation = "relative", "han2015learning"

    def score(self, view):
        return pc.Scores({name: w.abs() / w.abs().max() for name, w in view.weights().items()})


RIGHT = {
    "sparsity/words": [0.95, 0.95, 0.6],
    "sparsity/half-the-channels": 0.75,
    "sparsity/bit-mask": 0.03125,
    "schedules/magnitude-mask": by_rank,
    "schedules/rounds": 18,
    "schedules/erk": 0.0385,
    "footing/share": 0.5,
    "footing/interval": [-0.638, 1.638],
    "footing/run": 3,
    "footing/score": lambda weight: weight.abs().amax(dim=(1, 2, 3)),
    "network/zeros-or-channels": "channels",
    "network/round-to": 8,
    "network/own-method": Relative,
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_are_accepted_and_others_get_a_hint(name, capsys):
    check(name, RIGHT[name])
    assert capsys.readouterr().out == "Right.\n"
    check(name, None)
    assert "No answer yet" in capsys.readouterr().out
    for wrong in (0.123, [1.0], "x", lambda weights, p: weights.abs() > 0.5):
        check(name, wrong)
        assert EXERCISES[name].hint in " ".join(capsys.readouterr().out.split())


def test_a_threshold_is_no_mask_by_rank(capsys):
    check("schedules/magnitude-mask", lambda weights, p: weights.abs() > weights.abs().flatten().quantile(p))
    assert "Right" not in capsys.readouterr().out


def test_plain_magnitude_is_no_relative_one(capsys):
    check("network/own-method", pc.METHODS["magnitude"])
    assert "Not yet" in capsys.readouterr().out


def test_unknown_exercises_are_refused():
    with pytest.raises(UnknownName, match="sparsity/words"):
        check("sparsity/word", 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_positions_do_not_depend_on_the_search_for_groups(batch):
    """torch-pruning first tries a bare tensor sample by sample; that pass must not be counted."""
    model = pc.build_model("lenet5_caffe", "mnist5k", seed=0)
    example = torch.randn(batch, 1, 28, 28)
    counted = output_positions(model, example)
    for channels in (False, True):
        sites = find_sites(model, channels=channels, example_input=example)
        assert sites.positions == {name: counted[name.removesuffix(".weight")] for name in sites.weights}


def test_the_slider_holds_every_sparsity_and_way():
    rows = [
        {"asked": p, "across": across, "layer": layer, "sparsity": p}
        for p in (0.5, 0.9)
        for across in ("global", "erk")
        for layer in ("fc1", "fc2")
    ]
    slider = draw.density_slider(pd.DataFrame(rows))
    assert slider.names == ["50 %", "90 %"]
    assert slider.per_position == 2
    assert [trace["y"] for trace in slider.data[2:]] == [pytest.approx([10, 10])] * 2
