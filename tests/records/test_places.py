"""Paths that lead to nothing, in every call that takes one: a sentence, and not an error of the operating system."""

import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core import official, records
from pruning_core.book import chapters
from pruning_core.commands import main
from pruning_core.data import register_data, sources
from pruning_core.errors import BadInput
from pruning_core.experiments import Watch, runs

CALLS: dict[str, Callable[[str], object]] = {
    "data set": lambda place: pc.load_data(f"{place}/photos"),
    "root": lambda place: pc.load_data("mnist", root=place),
    "root of images": lambda place: pc.load_data("imagewoof", root=place),
    "register": lambda place: register_data("mine", place),
    "load": records.load,
    "rows": records.read_rows,
    "tensors": records.load_tensors,
    "network": pc.load_pruned,
    "hash": records.file_sha256,
    "collect": lambda place: records.collect([], target=place),
    "write": lambda place: records.write_atomically(f"{place}/new.txt", "x"),
    "report": lambda place: official.write_results(pd.DataFrame({"label": ["cut"]}), Path(place), "Nothing"),
    "watch": lambda place: Watch(place, tensorboard=False),
    "begin": lambda place: pc.Experiment("lenet300", "digits", [pc.Measure()], network=place),
    "checkpoint": lambda place: pc.fit(
        nn.Linear(4, 2), [(torch.ones(2, 4), torch.tensor([0, 1]))], epochs=1, checkpoint=f"{place}/state"
    ),
}
NOWHERE = ["closed/below", "x" * 300, "x" * 5000, "loop", "a file/below"]
EXPANDED = ["data set", "root", "register", "watch", "begin"]  # those that know what ~ is


@pytest.fixture(autouse=True)
def _here(tmp_path, empty_cache, monkeypatch):
    """A folder that everybody may enter and write to, with one in it that nobody may."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "closed").mkdir(mode=0)
    (here / "loop").symlink_to("loop")
    (here / "a file").write_text("mine")
    for folder in (here, *itertools.takewhile(lambda parent: parent != Path(tempfile.gettempdir()), here.parents)):
        folder.chmod(0o777 if folder == here else folder.stat().st_mode | 0o011)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sources, "from_torchvision", lambda *given: pytest.fail("work began"))


@pytest.mark.parametrize("name", ["rows.csv", "curves.csv", "curves.npz", "report.md", "figures"])
@pytest.mark.parametrize("kind", ["a folder", "a file", "a dangling link"])
@pytest.mark.parametrize("line", ["run dense -p epochs 1", "official fc5_cifar10"])
def test_what_lies_in_the_place_of_a_result_is_found_out_before_the_work(line, kind, name, capsys, monkeypatch):
    monkeypatch.setattr(runs, "start", lambda *_: pytest.fail("work has begun"))
    if (kind == "a file") != (name == "figures"):
        kind = "a dangling link"
    there = Path("out") / name
    there.parent.mkdir()
    {"a folder": there.mkdir, "a file": there.touch, "a dangling link": lambda: there.symlink_to("nix")}[kind]()
    assert main([*line.split(), "--data", "digits", "--limit", "300", "--out", "out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("--out is a folder for files to be written to, and out/")
    assert len(said.splitlines()) == 1
    with pytest.raises(BadInput, match=r"^out is a folder for files"):
        official.write_results(pd.DataFrame({"label": ["cut"]}), Path("out"), "Nothing")
    assert os.listdir("out") == [name]


LINES = [
    *(f"run dense -p epochs 1 --data digits {option}" for option in ("--out", "--watch", "--root")),
    *(f"official fc5_cifar10 --data digits {option}" for option in ("--out", "--watch", "--root")),
    "notebooks 0_foundations/3 --always --into",
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("place", ["/proc/x", "/proc/self/x", "/sys/x"])
def test_a_folder_that_takes_no_files_is_found_out_before_the_work(place, line, capsys, monkeypatch):
    if not Path(place).parent.is_dir():
        pytest.skip("another system")
    monkeypatch.setenv("PRUNING_DATA", "")
    monkeypatch.setattr(runs, "start", lambda *_: pytest.fail("work has begun"))
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", lambda *_: pytest.fail("work has begun"))
    assert main([*line.split(), place]) == 2
    said = capsys.readouterr().err
    assert "is a folder for files to be written to, and /" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("stray", ["0_foundations", "0_foundations/3_masks_to_networks.ipynb/x", "_failed"])
def test_what_lies_in_the_place_of_an_executed_notebook_is_found_out_before_it_runs(stray, capsys, monkeypatch):
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", lambda *_: pytest.fail("a notebook has begun"))
    there = Path("out") / stray
    there.parent.mkdir(parents=True)
    there.touch()
    assert main(["notebooks", "0_foundations/3", "--always", "--into", "out"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("the place of an executed notebook is a folder for files to be written to, and out/")
    assert len(said.splitlines()) == 1


CASES = [(name, place) for name in CALLS for place in NOWHERE] + [(name, "~no such user/x") for name in EXPANDED]


@pytest.mark.parametrize(("name", "place"), CASES, ids=lambda text: f"{text[:12]} {len(text)}")
def test_a_place_that_leads_nowhere_gets_one_sentence(name, place):
    before = os.geteuid()
    if "closed" in place and not before:  # root may enter every folder
        with pytest.raises(BadInput):  # what is imported late is, as others may not read Python's own files
            CALLS[name]("loop")
        os.seteuid(65534)
    try:
        with pytest.raises(BadInput) as caught:
            CALLS[name](place)
    finally:
        os.seteuid(before)
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1500
    assert sorted(os.listdir()) == ["a file", "closed", "loop"]


@pytest.mark.parametrize(
    "name", sorted(CALLS.keys() - {"checkpoint"})
)  # torch's optimizers ask for the folder themselves
@pytest.mark.parametrize("place", ["below/x", "~nobody-of-that-name"])
def test_a_current_folder_that_was_deleted_is_said(name, place, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(BadInput) as refused:
        CALLS[name](place)
    assert len(str(refused.value).splitlines()) == 1


def test_a_relative_cache_in_a_folder_that_was_deleted_is_said(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setenv("PRUNING_CACHE", "rel")
    with pytest.raises(BadInput, match="PRUNING_CACHE is 'rel', seen from a current folder that was deleted"):
        records.cache_root()


@pytest.mark.parametrize("kind", ["records", "checkpoints"])
def test_a_file_in_the_place_of_a_folder_of_the_cache_is_named_as_such(kind, empty_cache):
    records.write_atomically(records.cache_root() / kind, "mine")
    experiment = pc.Experiment("lenet300", "digits", [pc.Train(1)], width=0.1, limit=300, profile="smoke")
    with pytest.raises(BadInput, match=f"cannot write .*/{kind}/.*: a part of the path is not a folder"):
        pc.run(experiment, progress=False)


@pytest.mark.parametrize("limit", ["RLIMIT_FSIZE", "RLIMIT_NOFILE"])
def test_a_limit_of_the_system_is_said_and_nothing_is_left(limit, tmp_path):
    resource = pytest.importorskip("resource")
    number = getattr(resource, limit)
    before, target = resource.getrlimit(number), tmp_path / "network.safetensors"
    network = pc.build_model("lenet300", "digits", seed=0)
    pc.save_network(network, target)  # what is imported for it is
    whole = target.read_bytes()
    os.close(held := os.open(os.devnull, os.O_RDONLY))  # the next free number
    resource.setrlimit(number, (1000 if limit == "RLIMIT_FSIZE" else held, before[1]))
    try:
        with pytest.raises(BadInput, match=r"larger than the system lets it be|too many files are open"):
            pc.save_network(network, target)
    finally:
        resource.setrlimit(number, before)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [target.name]
    assert target.read_bytes() == whole
