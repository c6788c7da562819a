"""The benchmarks' clock and table are right; what they find is asserted nowhere."""

import itertools
import json

import pytest
import torch

import run
import stopwatch
from peers import grasp, layers_of, snip_of_snipit, snip_with_masks
from pruning_core import build_model
from pruning_core.masks import find_sites
from pruning_core.masks.masks import Masks
from pruning_core.methods import METHODS, View
from stopwatch import Row, measured, word


def test_a_row_is_read_in_turns_and_its_ratio_has_quartiles():
    heard: list[str] = []
    ours, peer = itertools.count(1), itertools.repeat(2.0)

    def made():
        return lambda: heard.append("ours") or float(next(ours)), lambda: heard.append("peer") or next(peer)

    found = measured(Row("a", "b", made, turns=4, unit="MB"))
    assert heard == ["ours", "peer", "peer", "ours"] * 2
    # Ours reads 1, 2, 3, 4, the peer always 2.
    assert (found["ours"], found["peer"], found["ratio"]) == (2.5, 2.0, 1.25)
    assert found["quartiles"] == [0.875, 1.625]


def test_what_is_timed_is_the_processor_time_of_one_call(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(stopwatch.time, "process_time", lambda: now[0])

    def spends(seconds):
        def call():
            now[0] += seconds

        return call

    found = measured(Row("a", "b", lambda: (spends(0.001), spends(3.0)), turns=2))
    assert (found["ours"], found["peer"]) == (pytest.approx(0.001), pytest.approx(3.0))


def test_memory_is_what_a_call_holds_at_once():
    assert stopwatch.megabytes("test_rows:held", 40) - stopwatch.megabytes("test_rows:held", 8) == pytest.approx(
        32, abs=3
    )


def held(megabytes: int):
    return lambda: torch.ones(megabytes, 2**18).sum()


def test_words_compare_quartiles():
    stored = {"quartiles": [0.6, 0.7]}
    for quartiles, said in (
        ([0.4, 0.5], "better"),
        ([0.5, 0.65], "same"),
        ([0.71, 0.72], "same"),
        ([0.8, 0.9], "worse"),
    ):
        assert word({"quartiles": quartiles}, stored) == said
    assert word(stored, None) == "new"


def test_every_row_has_a_baseline_and_no_claim_is_left_of_a_row_that_is_gone():
    rows = {row.name for row in run.chosen([], slow=True)}
    stored = json.loads(run.BASELINE.read_text(encoding="utf-8"))
    fast = {row.name for row in run.chosen([], slow=False)}
    assert fast <= set(stored["rows"]) <= rows
    assert str(run.HERE) not in run.BASELINE.read_text(encoding="utf-8")


def test_rebuilt_formulas_give_our_scores():
    model = build_model("lenet300", "mnist5k", seed=0).eval()
    batches = stopwatch.drawn(2, 16, (1, 28, 28))
    sites = find_sites(model, channels=False)
    view = View(model, sites, Masks(), batches, torch.nn.functional.cross_entropy, torch.Generator())
    ours = {name: METHODS[name]().score(view) for name in ("snip", "grasp")}
    snip = torch.cat([ours["snip"][f"{n}.weight"].flatten() for n, m in model.named_modules() if m in layers_of(model)])
    for found in (snip_with_masks(model, batches), snip_of_snipit(model, batches)):
        torch.testing.assert_close(found / found.sum(), snip / snip.sum(), rtol=1e-3, atol=1e-9)
    hg = torch.cat([score.flatten() for score in ours["grasp"].values()])
    theirs = grasp(model, batches)  # removes the largest; a network without norms is the same in both modes
    assert float(torch.corrcoef(torch.stack([hg, -theirs]))[0, 1]) > 0.999
