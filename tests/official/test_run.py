"""Official settings from their name to their report, at smoke length on images that come with the packages."""

import re
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from pruning_core.commands import main
from pruning_core.errors import BadInput
from pruning_core.experiments.asked import Asked, read_flags, spread
from pruning_core.official import Shorter, results, run_official, write_results
from pruning_core.official.claims import beside_the_paper

SMALL = Shorter(epochs=1, limit=400, width=0.1, data="digits")


def rows(**columns) -> pd.DataFrame:
    base = {
        "label": "final",
        "method": "snip",
        "seed": 0,
        "asked": 0.5,
        "sparsity": 0.5,
        "macs_removed": 0.5,
        "loss": 1.0,
    }
    return pd.DataFrame([base | columns])


def test_a_run_leaves_rows_curves_figures_and_the_papers_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(results, "FIGURES", (("accuracy", "sparsity"), ("loss", "macs_removed")))
    line = ["official", "snipit", "--model", "LeNet300", "--data_set", "MNIST", "--prune_criterion", "SNIPitDuring"]
    line += [
        "--pruning_limit",
        "0.9",
        "--outer_layer_pruning",
        "--epochs",
        "8",
        "--prune_freq",
        "1",
        "--snip_steps",
        "2",
    ]
    line += ["--data", "digits", "--limit", "400", "--width", "0.1", "--seeds", "2", "--out", str(tmp_path)]
    assert main(line) == 0, capsys.readouterr().err
    assert "4 rows; the report" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "rows.csv")
    assert sorted(zip(table["method"], table["seed"], strict=True)) == [
        ("dense", 333), ("dense", 334), ("snip-it-during", 333), ("snip-it-during", 334),
    ]  # fmt: skip
    assert table.loc[table["method"] == "snip-it-during", "sparsity"].tolist() == pytest.approx([0.9, 0.9], abs=2e-3)
    assert set(table["epoch"]) == {8}
    assert set(table["profile"]) == {"quick"}
    with np.load(tmp_path / "curves.npz") as curves:
        assert curves["accuracy"].tolist() == table["accuracy"].tolist()
        assert curves["method"].tolist() == table["method"].tolist()
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    drawn = ("accuracy-sparsity-final", "loss-macs_removed-final")
    assert figures == {f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")}
    report = (tmp_path / "report.md").read_text()
    assert "**shortened** (limit 400, width 0.1, data digits)" in report
    assert all((tmp_path / "figures" / name.partition(")")[0]).is_file() for name in report.split("(figures/")[1:])


CRITERIA = {
    "EmptyCrit": "", "SNIP": "", "SNIPit": "--snip_steps 1", "SNIPitDuring": "--snip_steps 1", "SNAP": "",
    "SNAPit": "--snip_steps 1", "SNAPitDuring": "--snip_steps 1", "CNIP": "", "CNIPit": "--snip_steps 1",
    "CNIPitDuring": "--snip_steps 1", "GRASP": "", "IMP": "--snip_steps 1 --enable_rewinding", "UnstructuredRandom": "",
    "StructuredRandom": "", "HoyerSquare": "--hoyer_square --hoyer_reg 1e-3", "EfficientConvNets": "",
    "GroupHoyerSquare": "--group_hoyer_square --hoyer_reg 1e-3", "L0": "--l0 --l0_reg 1", "GateDecorators": "--epochs 12",
}  # fmt: skip
UNSTRUCTURED = ("SNIP", "SNIPit", "SNIPitDuring", "GRASP", "IMP", "UnstructuredRandom")


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        *((criterion, "--outer_layer_pruning") for criterion in CRITERIA),
        ("SNIP", "--l1_reg 1e-4 --reference"), ("GRASP", "--reference"), ("EmptyCrit", "--random_shuffle_labels"),
        ("SNIPit", "--optimizer SGD --learning_rate 0.1 --grad_noise 1e-3"), ("SNAP", "--lp_reg 1e-5 --eval_freq 10"),
    ],
)  # fmt: skip
def test_every_criterion_of_snip_it_runs_typed_as_in_its_readme(criterion, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(results, "FIGURES", ())
    own = CRITERIA[criterion]
    name = "--prune_criterion SNAP" if criterion == "L0" else f"--prune_criterion {criterion}"
    limit = "0.1" if criterion == "GateDecorators" else "0.6"
    line = f"official snipit --model LeNet300 --data_set MNIST {name} --epochs 4 --pruning_limit {limit} {own} {words}"
    assert main([*line.split(), "--data", "digits", "--limit", "400", "--width", "0.1", "--out", str(tmp_path)]) == 0
    table = pd.read_csv(tmp_path / "rows.csv")
    assert "dense" in set(table["method"])
    final = table[~table["method"].isin(["dense"])]
    if criterion not in ("EmptyCrit", "HoyerSquare", "GroupHoyerSquare", "L0"):  # whose sparsity follows from a penalty
        whole = words == "--outer_layer_pruning" and criterion in UNSTRUCTURED  # otherwise the outer layers stay
        column = "sparsity" if whole else "asked"
        assert final[column].iloc[-1] == pytest.approx(float(limit), abs=0.01)


@pytest.mark.parametrize(
    ("name", "asked", "labels"),
    [
        ("mnist/lenet300_100", {"points": 2, "methods": ("SiPP",)}, ["dense", "step pruned", "step", "step pruned", "step"]),
        ("sipp/mnist/lenet300_sizes", {"points": 1, "methods": ("SiPP",)}, ["dense", "pruned", "fine-tuned"] * 15),
        ("fc5_cifar10_l1", {"points": 3}, ["dense", "pruned", "pruned", "pruned"]),
    ],
)  # fmt: skip
def test_each_systems_settings_run_shortened(name, asked, labels):
    shorter = Shorter(epochs=1, limit=400, width=0.05, data="digits")
    found = run_official(name, Asked(seeds=1, **asked), shorter, progress=False).rows
    assert found["label"].tolist() == labels
    assert set(found.loc[found["label"] == "dense", "method"]) == {"dense"}
    pruned = found[found["label"] != "dense"]
    assert (pruned["sparsity"] > 0).all()
    assert found.iloc[: len(labels) // labels.count("dense")]["sparsity"].is_monotonic_increasing


def test_a_setting_that_was_stopped_goes_on_and_one_that_has_run_is_read(empty_cache, monkeypatch):
    asked = Asked(seeds=1, points=1, methods=("WT",))
    first = run_official("mnist/lenet300_100", asked, SMALL, progress=False).rows
    monkeypatch.setattr("pruning_core.experiments.runs._played", lambda *arguments: pytest.fail("it has run before"))
    assert run_official("mnist/lenet300_100", asked, SMALL, progress=False).rows.equals(first)


def test_ten_classes_and_more_have_a_top_five_accuracy():
    measured = run_official("fc5_cifar10", Asked(points=1), SMALL, progress=False).rows
    assert (measured["accuracy5"] >= measured["accuracy"]).all()
    assert measured["accuracy5"].between(0, 100).all()


def test_a_column_called_file_does_not_spoil_the_curves(tmp_path):
    write_results(rows(file="cifar/resnet20", accuracy=50.0), tmp_path, "a title")
    with np.load(tmp_path / "curves.npz") as curves:
        assert curves["setting"].tolist() == ["cifar/resnet20"]


def test_figures_of_equal_rows_are_equal_files(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FIGURES", (("accuracy", "sparsity"),))
    table = pd.concat([rows(accuracy=50.0 + seed, seed=seed) for seed in range(3)])
    for name in ("a", "b"):
        write_results(table, tmp_path / name, "a title")
    first, second = ((tmp_path / name / "figures" / "accuracy-sparsity-final.pdf").read_bytes() for name in ("a", "b"))
    assert first == second


def test_long_sweeps_are_thinned_out_in_the_report_only(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FIGURES", ())
    table = pd.concat([rows(accuracy=50.0, asked=i / 1000, sparsity=i / 1000) for i in range(1, 1000)])
    report = write_results(table, tmp_path, "a title").read_text()
    assert report.count("| final |") == 40
    assert "40 of 999 lines" in report
    assert len(pd.read_csv(tmp_path / "curves.csv")) == 999


def test_results_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="out is a folder for files"):
        write_results(rows(accuracy=1.0), tmp_path / "file", "a title")
    with pytest.raises(BadInput, match="no rows"):
        write_results(rows().iloc[:0], tmp_path / "out", "a title")
    assert not (tmp_path / "out").exists()


def test_our_numbers_stand_beside_the_papers():
    base = {"model": "vgg16_snip", "data": "cifar10", "of": "channels"}
    table = pd.concat([
        rows(method="snap-it", asked=0.93, accuracy=90.0, sparsity=0.99, training_macs=1.0, **base),
        rows(method="dense", asked=0.0, accuracy=93.0, sparsity=0.0, training_macs=9.0, **base),
    ])  # fmt: skip
    text = beside_the_paper(table, "verdenius2020snipit", "vgg16_snip", "cifar10")
    assert "| -1 points | -3 | readme |" in text
    assert "| 0.99 fraction | 0.99 | readme |" in text
    assert "| 8 times | 9 | readme |" in text
    assert "not in these rows" in beside_the_paper(table.iloc[1:], "verdenius2020snipit", "vgg16_snip", "cifar10")
    assert "holds no number" in beside_the_paper(table, "baykal2019sipp", "vgg16_snip", "cifar10")


@pytest.mark.parametrize("points", range(1, 9))
def test_a_thinned_out_sweep_ends_where_it_did_and_is_spread(points):
    found = spread(list(range(1, 9)), points)
    assert len(found) == points
    assert found[-1] == 8
    assert len(set(found)) == points
    assert found == sorted(found)


def test_flags_of_an_official_program_have_the_types_of_their_defaults():
    found = read_flags(
        "main.py", {"rate": 0.1, "n": 1, "on": False, "layer1-ratio": 0.4}, ["--n=3", "--layer1-ratio", "1"]
    )
    assert found == {"rate": 0.1, "n": 3, "on": False, "layer1_ratio": 1.0}
    for words, message in (
        (["--n", "x"], "not a valid integer"),
        (["--m", "1"], "No such option"),
        (["x"], "unexpected"),
    ):
        with pytest.raises(BadInput, match=message):
            read_flags("main.py", {"n": 1}, words)


@pytest.mark.parametrize(
    "labels",
    [
        ("x/../../../../evil", "x-..-..-..-..-evil"),
        ("a b", "a-b", "a/b"),
        ("a\tb", "a\nb"),
        ("é" * 300, "é" * 301),
        ("/", "..", "."),
    ],
    ids=ascii,
)
def test_figures_lie_in_their_folder_one_for_each_label(labels, tmp_path):
    """A label is free text; a part of a file's name is not."""
    seen = [{"label": label, "method": "magnitude", "seed": 0, "asked": 0.5, "sparsity": 0.5} for label in labels]
    folder = tmp_path / "a" / "b" / "c" / "out"
    report = write_results(pd.DataFrame(seen).assign(accuracy=50.0), folder, "$\\bad{$")
    drawn = sorted(tmp_path.rglob("*.png"))
    assert {path.parent for path in drawn} == {folder / "figures"}
    links = re.findall(r"\]\(figures/(.+?)\.png\)", report.read_text(encoding="utf-8"))
    assert sorted(path.stem for path in drawn) == sorted(map(unquote, links))
    assert len(drawn) == len(labels)
