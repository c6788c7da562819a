"""What every test starts from: one thread, a cache folder of its own; and the devices that some run on."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Records and checkpoints of tests never meet those of the book; parsed data may be shared between tests."""
    shared = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("PRUNING_CACHE", os.environ.get("PRUNING_TEST_CACHE", str(shared)))


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request) -> str:
    """Each device in turn: what a test says about a GPU is said of the processor too, wherever it runs."""
    return request.param
