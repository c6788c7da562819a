"""Every source that the code names can be looked up in the book's bibliography."""

import re
from pathlib import Path

import pytest

from pruning_core.methods.base import METHODS
from pruning_core.models import MODELS

KEYS = set(
    re.findall(r"^@\w+\{([^,\s]+),", Path(__file__).parents[2].joinpath("book/references.bib").read_text(), re.M)
)


@pytest.mark.parametrize("name", METHODS)
def test_method_cites_an_entry_of_the_bibliography(name: str) -> None:
    assert METHODS[name].citation in KEYS


@pytest.mark.parametrize("name", MODELS)
def test_model_cites_an_entry_of_the_bibliography(name: str) -> None:
    assert MODELS[name].paper in KEYS
