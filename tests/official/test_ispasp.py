"""i-SpaSP's scripts and what they read from disk: a folder of images, a network that was pruned before; the code's rules."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import pruning_core as pc
from pruning_core.commands import main
from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput
from pruning_core.experiments.asked import Asked
from pruning_core.experiments.stages import Load, Prune, Train
from pruning_core.official import Shorter, official, planned, run_official
from pruning_core.papers.ispasp.official import photographs


@pytest.fixture
def pictures(tmp_path):
    """A folder train/<class>/, val/<class>/ of small pictures, and no name of theirs afterwards."""
    draw, known = np.random.default_rng(0), set(DATASETS)
    for part, count in (("train", 60), ("val", 8)):
        for kind in ("bright", "dark"):
            folder = tmp_path / "photos" / part / kind
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 128, (32, 32, 3)) + (120 if kind == "bright" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    yield tmp_path / "photos"
    for name in set(DATASETS) - known:
        del DATASETS[name]


def plan(name: str, *flags: str, **asked) -> pc.Experiment:
    (found,) = planned(official(name), Asked(seeds=1, flags=flags, **asked))
    return found


def test_a_folder_of_pictures_takes_the_place_of_imagenet(pictures):
    found = plan("ispasp/resnet34", "--data-path", str(pictures))
    assert (found.data, found.normalise, found.augment) == ("photos", "imagenet/ispasp", "imagenet/ispasp")
    assert found.profile == "quick"  # whatever comes out is not the paper's
    assert isinstance(found.timeline[0], Train)  # the published weights know other classes
    assert isinstance(plan("ispasp/resnet34").timeline[0], Load)
    with pytest.raises(BadInput, match="named twice"):
        planned(official("ispasp/resnet34"), Asked(flags=("--data-path", str(pictures))), Shorter(data="digits"))
    with pytest.raises(BadInput, match="there is no folder"):
        plan("ispasp/resnet34", "--data-path", str(pictures / "nowhere"))


def test_a_folder_with_a_name_of_the_book_is_another_set_and_a_thousand_classes_are_imagenets(pictures, monkeypatch):
    other = pictures.rename(pictures.with_name("cifar10"))
    assert plan("ispasp/resnet34", "--data-path", str(other)).data == "cifar10 of mine"
    assert not photographs("cifar10 of mine")
    monkeypatch.setitem(DATASETS, "all", replace(DATASETS["cifar10 of mine"], classes=1000))
    assert photographs("all")


def test_resnet34_on_a_folder_of_pictures_from_the_shell(pictures, tmp_path, capsys):
    words = "--layer2-ratio 1.0 --layer3-ratio 1.0 --block-ft-epochs 0 --num-cs-iter 2 --seeds 1"  # one block is cut
    line = f"official ispasp/resnet34 --data-path {pictures} {words} --epochs 1 --out {tmp_path / 'out'}"
    assert main(line.split()) == 0, capsys.readouterr().err
    assert "the report" in capsys.readouterr().out
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "**shortened** (epochs 1, data photos): these numbers are not to be compared with the paper's" in report


def test_a_network_that_was_pruned_before_is_fine_tuned_alone(tmp_path):
    model, example = pc.build_model("torchvision/resnet34", "digits", seed=0), torch.zeros(1, 1, 8, 8)
    cut = pc.prune(model, "l1_norm", None, across={"layer1.1.conv1": 0.5, "layer4.2.conv1": 0.9}, example_input=example)
    cut.save(tmp_path / "small.safetensors")
    asked = Asked(seeds=1, flags=("--pruned-path", str(tmp_path / "small.safetensors")))
    rows = run_official("ispasp/resnet34", asked, Shorter(epochs=1, limit=130, data="digits"), progress=False).rows
    assert rows["label"].tolist() == ["pruned", "fine-tuned"]
    assert set(rows["parameters"]) == {pc.count_parameters(cut.shrink())}
    with pytest.raises(BadInput, match=r"none\.safetensors"):
        plan("ispasp/resnet34", "--pruned-path", str(tmp_path / "none.safetensors"))


def official_rule(name: str) -> bool:
    """Whether a parameter decays, by the code of the scripts."""
    return not (".bn" in name or ".bias" in name)


@pytest.mark.parametrize("network", ["resnet34", "mobilenet_v2"])
def test_reference_takes_the_codes_rule_of_names_and_its_pruned_branch(network):
    found = plan(f"ispasp/{network}", reference=True)
    with torch.device("meta"):
        model = pc.build_model(found.model, "imagenet")
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def decaying(experiment):
        groups = experiment.optimizer.build(model).param_groups
        return {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}

    assert decaying(found) == {name for name in names.values() if official_rule(name)}
    assert decaying(plan(f"ispasp/{network}")) < decaying(found)
    assert all(stage.method.reference for stage in found.timeline if isinstance(stage, Prune))
    assert not any(stage.method.reference for stage in plan(f"ispasp/{network}").timeline if isinstance(stage, Prune))
