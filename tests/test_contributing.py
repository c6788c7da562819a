"""What CONTRIBUTING.md says about new methods, networks, data sets, recipes and plots works as it stands there."""

import re
from pathlib import Path
from unittest.mock import patch

from pruning_core import DATASETS, METHODS, MODELS

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.M | re.S)


def test_the_examples_run_in_their_order(empty_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "contributing"}
    with patch.dict(METHODS), patch.dict(MODELS), patch.dict(DATASETS):
        for block in BLOCKS:
            exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    assert len(names["rows"]) == 2
    assert len(BLOCKS) == 4


def test_it_is_short():
    assert len(TEXT.splitlines()) <= 110
