"""The page "Your data, your network, your method" works as it stands there, in twenty lines a thing."""

import re
from pathlib import Path
from unittest.mock import patch

from pruning_core import DATASETS, METHODS, MODELS

TEXT = (Path(__file__).parents[2] / "book" / "yours.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)


def test_the_examples_run_in_their_order(empty_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "yours"}
    with patch.dict(METHODS), patch.dict(MODELS), patch.dict(DATASETS):
        for block in BLOCKS:
            exec(compile(block, "yours.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "(1, 12, 12) 2 768 96 96 240"
    assert printed[1:3] == ["(3, 32, 32)", "(3, 24, 24) 20"]
    assert any("slimming" in line for line in printed)
    assert [line.split(" removed")[0] for line in printed[-7:-5]] == ["cut 80%", "final 80%"]
    assert printed[-5] == "confident"
    assert [line.split(" removed")[0] for line in printed[-4:-1]] == ["before cut 0%", "cut 80%", "final 80%"]
    assert printed[-1] == "['epochs.csv', 'epochs.csv', 'measured.csv']"


def test_each_example_is_short():
    assert len(BLOCKS) == 6
    assert max(len(block.strip().splitlines()) for block in BLOCKS) <= 20
