"""What the package itself takes: its import, a first cut, a measurement, reading claims and records."""

import tempfile
from pathlib import Path

import torch
import yaml

import pruning_core as pc
from pruning_core.book import load_claims
from pruning_core.experiments.network_stages import measured
from pruning_core.experiments.state import start
from pruning_core.version import REPOSITORY
from stopwatch import Made, row, seconds_of_process

PROCESS = {"turns": 3, "unit": "s of a process"}
FIRST_CUT = """
import torch, pruning_core as pc
model, example = pc.build_model("lenet5", "mnist5k", seed=0), torch.ones(1, 1, 28, 28)
pc.prune(model, "l1_norm", 0.5, across="layer", example_input=example).shrink()
"""


@row("import pruning_core", "import torch", at_most=1.15, **PROCESS)
def start_of_package() -> Made:
    return lambda: seconds_of_process("import pruning_core"), lambda: seconds_of_process("import torch")


@row("import, prune LeNet-5, shrink", "import torch", at_most=1.35, **PROCESS)
def first_cut() -> Made:
    return lambda: seconds_of_process(FIRST_CUT), lambda: seconds_of_process("import torch")


@row("A Measure of LeNet-300-100", "three evaluations", at_most=2.0, turns=9)
def measure() -> Made:
    stage = pc.Measure("here")
    state = start(pc.Experiment("lenet300", "digits", [stage]))
    data = state.data
    splits = data.test, data.validation, data.train.subset(len(data.test))
    return lambda: measured(state, stage), lambda: [pc.evaluate(state.model, split) for split in splits]


@row("Claims read and checked", "yaml.safe_load of the ledger", at_most=0.5, turns=3)
def claims() -> Made:
    path = REPOSITORY / "book" / "claims.yml"
    return lambda: load_claims(path), lambda: yaml.safe_load(path.read_text(encoding="utf-8"))


def _records(folder: Path, count: int, rows: int = 20) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(count):
        made = [{"experiment": f"{i}", "label": f"{r}", "model": "lenet300", "accuracy": r / 7} for r in range(rows)]
        pc.records.write_rows(folder / f"{i}.json", made)
    return folder


@row("Records loaded: growth from 100 to 800 files", "eight times 100 files", at_most=1.2)
def growth_with_records() -> Made:
    place = Path(tempfile.mkdtemp(prefix="records-"))
    few, many = _records(place / "few", 100), _records(place / "many", 800)
    return lambda: pc.records.load(many), lambda: [pc.records.load(few) for _ in range(8)]


@row("VGG-16 saved and loaded", "built, torch.save and torch.load", at_most=2.0)
def network() -> Made:
    model, place = pc.build_model("vgg16", "cifar10", seed=0), Path(tempfile.mkdtemp(prefix="network-"))

    def theirs() -> None:
        torch.save(model.state_dict(), place / "theirs.pt")
        twin = pc.build_model("vgg16", "cifar10", seed=0)
        twin.load_state_dict(torch.load(place / "theirs.pt"))

    def ours() -> None:
        pc.save_network(model, place / "ours.safetensors")
        pc.load_pruned(place / "ours.safetensors")

    return ours, theirs
