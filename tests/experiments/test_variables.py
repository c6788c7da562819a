"""The variables PRUNING_...: what they cannot be is one sentence before any work, and an empty one is one that is not set."""

import os

import pytest

import pruning_core as pc
from pruning_core.book import chapters, sweeps
from pruning_core.commands import main
from pruning_core.errors import BadInput, PruningError
from pruning_core.experiments import runs
from pruning_core.experiments.variables import bound_of_checkpoints, check_variables
from pruning_core.records.files import cache_root

LINE = "run dense -p epochs 1 --data digits --width 0.1 --limit 300 --profile smoke"
WRONG = {
    "PRUNING_CHECKPOINTS_GB": ["abc", "nan", "-1", " ", "1,5", "0x10", "10 GB"],
    "PRUNING_WORKERS": ["abc", "-1", "1.5", " ", "nan", "True", "host"],
    "PRUNING_DEVICE": ["nix", " ", "cuda:x"],
    "PRUNING_CACHE": ["file", "file/x", "/proc/x", "a\nb", "x" * 300, "x" * 5000, "dangling", "loop", "~nobody here/x"],
}
PLANS = ["pipe", ".", "/proc/x", "file/x", "none/x", "a\nb", "x" * 300, "loop", "~nobody here/x"]


@pytest.fixture(autouse=True)
def _here(empty_cache, monkeypatch, tmp_path):
    """A folder with things in it that are no folders; what computes fails."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "file").write_text("x")
    (here / "dangling").symlink_to("nowhere")
    (here / "loop").symlink_to("loop")
    os.mkfifo(here / "pipe")
    monkeypatch.chdir(here)
    for module, name in [(runs, "start"), (sweeps, "local_cluster"), (chapters, "ProcessPoolExecutor")]:
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("work has begun"))


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_variable_that_cannot_be_is_refused_before_any_work(name, value, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv(name, value)
    there = sorted(os.listdir())
    lines = [LINE, f"{LINE} --seeds 2", "notebooks 0_foundations/3 --always --into out", "sweep 0_foundations/3"]
    for line in lines:
        assert main(line.split()) == 2, line
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith(name), line
        assert len(printed.err.splitlines()) == 1
        assert len(printed.err) < 1000
    with pytest.raises(PruningError, match=rf"^{name}"):
        runs.final_state(pc.Experiment("lenet300", "digits", [pc.Train(1)], width=0.1))
    assert sorted(os.listdir()) == there
    assert not (tmp_path / "cache").exists()


def test_empty_variables_are_not_set(monkeypatch):
    for name in WRONG:
        monkeypatch.setenv(name, "")
    assert bound_of_checkpoints() == 10e9
    check_variables()


@pytest.mark.parametrize("value", PLANS)
def test_a_list_that_cannot_be_written_is_refused_before_any_work(value, monkeypatch, capsys):
    monkeypatch.setenv("PRUNING_PLAN", value)
    with pytest.raises(BadInput, match=r"^PRUNING_PLAN ") as caught:
        pc.run_all([pc.Experiment("lenet300", "digits", [pc.Train(1)], width=0.1)], progress=False)
    assert len(str(caught.value).splitlines()) == 1


def test_a_relative_folder_is_that_of_where_work_began(monkeypatch, tmp_path):
    for name in ("PRUNING_CACHE", "PRUNING_DATA"):
        monkeypatch.setenv(name, name.lower())
    (tmp_path / "there").mkdir()
    check_variables()
    monkeypatch.chdir(tmp_path / "there")
    check_variables()
    assert cache_root() == tmp_path / "here" / "pruning_cache"
    assert os.environ["PRUNING_DATA"] == str(tmp_path / "here" / "pruning_data")
