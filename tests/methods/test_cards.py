"""Model cards: what they say is what the network is, the hub's own reader takes them, and bad facts are refused."""

import re
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, BadType

GIVEN = {
    "before": 97.5,
    "after": 96.25,
    "dataset": "Shapes and colours",
    "licence": "mit",
    "task": "image-classification",
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()


X = torch.randn((1, 1, 8, 8), generator=torch.Generator().manual_seed(0))


def row(text: str, name: str) -> list[str]:
    (line,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", text, re.M)
    return line.split(" | ")


@pytest.mark.parametrize(("method", "options"), [("l1_norm", {}), ("magnitude", {"rounds": 3, "across": "erk"})])
def test_a_card_says_what_was_pruned_how_and_what_is_left(method, options, tmp_path):
    result = pc.prune(network(), method, 0.5, example_input=X, seed=3, **options)
    shipped = result.shrink() if method == "l1_norm" else result.model
    result.save_card(tmp_path / "README.md", **GIVEN)
    text = (tmp_path / "README.md").read_text()
    assert f"Method `{method}` (" in text and "reference `" in text
    assert f"50.00% of {result.report.of} were asked for, {result.report.reached:.2%} were removed" in text
    assert row(text, "parameters") == [f"{pc.count_parameters(m):,}" for m in (result.model, shipped)]
    assert row(text, "multiply-accumulates for one sample") == [
        f"{pc.count_macs(m, X):,}" for m in (result.model, shipped)
    ]
    assert row(text, "accuracy on Shapes and colours") == ["97.5", "96.25"]
    assert row(text, "seed") == ["`3`"] and ("| rounds | `3` |" in text) == (method == "magnitude")
    assert all(f"`{name}`: {reason}" in text for name, reason in result.report.not_prunable.items())
    assert f"torch {torch.__version__.partition('+')[0]}" in text and f"Python {sys.version.split()[0]}" in text
    assert "`mit`" in text and text.endswith("\n")
    if method == "l1_norm":
        assert "whole channels were removed" in text
    else:
        removed, total = result.report.removed["weights"]
        assert f"{removed:,} of {total:,} prunable weights were set to zero" in text


def test_the_hub_reads_the_head(tmp_path):
    pc.prune(network(), "l1_norm", 0.5, example_input=X).save_card(
        tmp_path / "README.md", name="colon: and 'quote'", **GIVEN
    )
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "pytorch", "image-classification")
    (found,) = data.eval_results
    assert (found.dataset_name, found.metric_type, found.metric_value) == ("Shapes and colours", "accuracy", 96.25)
    assert data.model_name == "colon: and 'quote'" and "pruning" in data.tags


def test_what_was_not_given_is_not_made_up(tmp_path):
    pc.prune(network(), "magnitude", 0.5).save_card(tmp_path / "README.md")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "unknown" and card.data.eval_results is None
    assert "Not stated." in card.text and "was not given: measure it" in card.text
    assert "| accuracy" not in card.text and "multiply-accumulates" not in card.text


def test_the_network_that_is_shipped_is_the_one_that_is_counted(tmp_path):
    result = pc.prune(network(), "l1_norm", 0.5, example_input=X)
    small = result.shrink()
    tuned = pc.prune(small, "l1_norm", 0.5, example_input=X).shrink()
    result.save_card(tmp_path / "README.md", tuned, after=1)
    text = (tmp_path / "README.md").read_text()
    assert row(text, "parameters")[1] == f"{pc.count_parameters(tuned):,}"
    assert row(text, "accuracy") == ["not given", "1"]


@pytest.mark.parametrize("budget", [pc.Budget(0.5, of="channels", round_to=2), pc.Budget(below=1.0, of="channels")])
def test_a_budget_is_told_with_its_rounding_or_its_threshold(budget, tmp_path):
    pc.prune(network(), "l1_norm", budget, example_input=X).save_card(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    assert row(text, "below" if budget.to is None else "round_to") == ["`1.0`" if budget.to is None else "`2`"]
    assert ("no fixed share was asked for" in text) == (budget.to is None)


def test_a_bar_in_a_setting_does_not_break_the_table(tmp_path):
    model = nn.Sequential()
    model.add_module("a|b", nn.Linear(4, 4))
    pc.prune(model, "magnitude", None, across={"a|b.weight": 0.5}).save_card(tmp_path / "README.md")
    assert row((tmp_path / "README.md").read_text(), "across") == [r"`{'a\|b.weight': 0.5}`"]


@pytest.mark.parametrize(
    ("facts", "error", "words"),
    [
        ({"after": "96 %"}, BadType, "after must be a number, not '96 %'"),
        ({"before": float("nan")}, BadInput, "before must be"),
        ({"licence": ""}, BadInput, "licence must not be empty"),
        ({"dataset": 3}, BadType, "dataset must be a text"),
    ],
)
def test_bad_facts_are_refused_and_no_card_is_written(facts, error, words, tmp_path):
    result = pc.prune(network(), "magnitude", 0.5)
    with pytest.raises(error, match=words):
        result.save_card(tmp_path / "README.md", **facts)
    assert not any(tmp_path.iterdir())
