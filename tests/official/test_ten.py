"""Ten official commands: their plans agree with the golden files; shortened, they run (ten.py says what is compared)."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pruning_core.experiments.asked import Asked
from pruning_core.official import official
from tests.official.ten import TEN, compared, ran


def test_they_are_two_a_system():
    systems = Counter(official(command.meant()[0]).system for command in TEN.values())
    assert systems == {"SNIP-it": 2, "SiPP/PFP": 2, "RNI": 2, "i-SpaSP": 2, "How sparse": 2}


@pytest.mark.parametrize("name", TEN)
def test_first_numbers_are_those_of_the_golden_files(name, monkeypatch):
    monkeypatch.delenv("PRUNING_GOLDEN", raising=False)  # the files that lie here are complete
    found = compared(name)
    assert not found.missing
    assert len({where for _, where, _, _ in found.lines}) > 1


def test_other_golden_files_are_compared_as_far_as_they_go(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_GOLDEN", str(tmp_path))
    assert len(compared("ispasp-resnet34").missing) == 3
    (tmp_path / "ispasp").mkdir()
    costs = {"ratios": [[0.4, 0.4, 0.4, 1.0]], "prune_last": [0], "mid_widths": [[0] * 16], "params": [0], "flops": [0]}
    np.savez(tmp_path / "ispasp" / "resnet34_cost_more.npz", **{key: np.array(value) for key, value in costs.items()})
    found = compared("ispasp-resnet34")
    assert found.missing == ["ispasp/basic_block_evalbn", "ispasp/finetune", "row for .4/.4/.4/.7 last"]


@pytest.mark.slow
@pytest.mark.parametrize("name", TEN)
def test_a_shortened_run_removes_what_was_asked(name):
    assert len(ran(name)) > 1


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("SNIPitDuring", "--prune_delay 4", "--prune_delay 3"),
        ("SNIPitDuring", "0.98", "0.97"),
        ("lenet300", "lenet300_100", "lenet5"),
        ("alexnet", "AlexNet", "FC"),
    ],
)
def test_another_command_has_other_numbers(name, old, new, monkeypatch):
    command = TEN[name]
    config = command.config and command.config.replace(old, new)
    monkeypatch.setitem(TEN, name, replace(command, line=command.line.replace(old, new), config=config))
    with pytest.raises(AssertionError):
        compared(name)


def test_the_statistic_of_the_paper_is_not_that_of_the_code(monkeypatch):
    monkeypatch.setitem(TEN, "SNIPitDuring", replace(TEN["SNIPitDuring"], asked=Asked(seeds=1)))
    with pytest.raises(AssertionError, match="score at the cut"):
        compared("SNIPitDuring")
