"""The commands of the five official READMEs, typed behind this program's name: each works, or says what takes its place."""

import inspect
import shlex
from pathlib import Path

import pytest
import torch

import pruning_core as pc
from pruning_core.commands import main
from pruning_core.errors import BadInput
from pruning_core.experiments.asked import Asked
from pruning_core.official import CATALOGUE, official, planned, typed
from pruning_core.papers.sipp_pfp.config_file import METHODS

SNIPIT = Path(__file__).with_name("snipit_readme.txt").read_text(encoding="utf-8").splitlines()
"""The lines of SNIP-it's README as they are, with a number for its <REG>."""

LAUNCHED = {
    "CUDA_VISIBLE_DEVICES=1 python prune_resnet34_ispasp.py --save-dir ./results/ --exp-name ispasp_rn34_imn_00 "
    "--batch-size 256 --num-cs-batches 5 --num-cs-iter 20 --layer1-ratio 0.4 --layer2-ratio 0.4 --layer3-ratio 0.4 "
    "--layer4-ratio 1.0 --block-ft-epochs 1 --block-ft-lr 0.01 --prune-ft-epochs 90 "
    "--prune-ft-lr 0.01 --use-lr-sched": "ispasp/resnet34",
    "CUDA_VISIBLE_DEVICES=0 python prune_mobilenetv2_ispasp.py --save-dir ./results/ --exp-name ispasp_mbnv2_imn_00 "
    "--batch-size 256 --num-cs-batches 5 --num-cs-iter 20 --block-ft-epochs 1 --block-ft-lr 0.01 --prune-ft-epochs 90 "
    "--prune-ft-lr 0.01 --use-lr-sched": "ispasp/mobilenet_v2",
    "python scripts/prune_rn34_ispasp.py": "ispasp/resnet34",
    "python scripts/prune_mbnv2_ispasp.py": "ispasp/mobilenet_v2",
}

NAMED = {
    "python -m experiment.main cifar/resnet20.yaml": "cifar/resnet20",
    "python -m experiment.main paper/pfp/param/cifar/resnet20.yaml": "pfp/cifar/resnet20",
    "python -m experiment.main paper/sipp/cifar/cascade/resnet20.yaml": "sipp/cifar/cascade/resnet20",
    "cifar/resnet20.yaml": "cifar/resnet20",
    "python main.py --config configs/AlexNet_CIFAR10_l1.yml": "alexnet_cifar10_l1",
    "--config FC_CIFAR10.yml": "fc5_cifar10",
}

TOLD = {
    "python gradient.py --config configs/AlexNet_CIFAR10_l1.yml": "null_rows=True",
    "python gaussian_width.py --config configs/AlexNet_CIFAR10_l1.yml": "predict_limit",
    "python -m experiment.util.download_imagenet_weights": "are fetched when a setting asks",
    "python -m experiment.main cifar/resnet20.yaml -j 4": "--workers",
    "python3 main.py --rewind_epoch 6": "--rewind_to",
    "python3 main.py --tuning": "test data decide nothing",
    "python prune_resnet34_ispasp.py --data-path /imagenet": "there is no folder",
}


def plan(line: str) -> list[pc.Experiment]:
    """What a line means, as the command line reads it; ``--config`` and ``--epochs`` are options of this program."""
    words = shlex.split(line)
    config = Path(words[at + 1]) if "--config" in words and (at := words.index("--config")) >= 0 else None
    if config is not None:
        del words[at : at + 2]
    wanted, flags = typed(words, config)
    assert isinstance(wanted, str)
    return planned(official(wanted), Asked(seeds=1, points=1, flags=flags))


@pytest.mark.parametrize("line", SNIPIT)
def test_a_line_of_snip_its_readme_is_the_setting_of_that_name(line):
    found, flags = plan(line), line.partition("main.py ")[2]
    keys = [experiment.key for experiment in found]
    settings = [
        [e.key for e in planned(entry, Asked(seeds=1))] for n, entry in CATALOGUE.items() if n.startswith("snipit/")
    ]
    assert keys in settings
    assert found[0].seed == 333
    assert [e.key for e in plan(f"main.py {flags}")] == [e.key for e in plan(flags)] == keys


@pytest.mark.parametrize("line", LAUNCHED)
def test_a_script_of_i_spasp_is_its_setting(line):
    assert [e.key for e in plan(line)] == [e.key for e in plan(LAUNCHED[line])]


def test_a_script_of_i_spasp_has_its_own_defaults():
    scheduled, constant = (
        plan(f"prune_resnet34_ispasp.py {words}")[0].timeline[-2].learning_rate for words in ("--use-lr-sched", "")
    )
    assert (scheduled.kind, constant.kind) == ("cosine", "constant")


@pytest.mark.parametrize("line", NAMED)
def test_an_official_file_that_is_not_there_is_known_by_its_name(line):
    assert {e.key for e in plan(line)} == {e.key for e in plan(NAMED[line])}


def test_a_file_that_is_there_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("FC_CIFAR10.yml").write_text("{model: FC, dataset: mnist, lr: 0.5, epoch: 3}")
    assert typed(["main.py"], Path("FC_CIFAR10.yml")) == (Path("FC_CIFAR10.yml"), ())
    assert typed(["FC_CIFAR10.yml"]) == (Path("FC_CIFAR10.yml"), ())


@pytest.mark.parametrize("line", TOLD)
def test_what_has_no_command_of_its_own_says_what_takes_its_place(line):
    with pytest.raises(BadInput, match=TOLD[line]):
        plan(line)


@pytest.mark.parametrize("line", ["", "cifar/resnet20 --config FC_CIFAR10.yml"])
def test_nothing_or_two_things_are_refused(line):
    with pytest.raises(BadInput, match="give the name of a setting"):
        plan(line)


def test_from_the_shell(capsys):
    line = "official python main.py --config configs/FC_CIFAR10_l1.yml --plan"
    assert main(shlex.split(line)) == 0
    assert "fc5_cifar10_l1 is the setting of that name" in capsys.readouterr().out
    assert main(shlex.split(f"official {SNIPIT[0]} --plan")) == 0
    assert " 80" in capsys.readouterr().out


def test_a_network_that_does_not_fit_is_refused_before_anything_runs(capsys):
    assert main(shlex.split("official vgg16_cifar10 --data digits")) == 2
    assert "needs images of at least 32x32" in capsys.readouterr().err


def test_the_calls_of_rnis_readme_have_the_same_arguments():
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    call = {"epochs": 160, "lr": 0.1, "batch_size": 64, "seed": 0, "device": device}
    train, tune = (inspect.signature(function) for function in (pc.train, pc.prune_finetune))
    given = train.bind(dataset="cifar10", arch="vgg16", method="rni", reg_weight=1e-4, b=3, **call).arguments
    assert all(train.parameters[name].default == value for name, value in given.items() if name != "device")
    given = tune.bind(None, dataset="cifar10", method="rni", prune_pc=0.5, **call).arguments
    assert all(tune.parameters[n].default == v for n, v in given.items() if n not in ("model", "device"))


def test_the_page_translates_every_class_of_torchprune():
    page = (Path(pc.__file__).parents[1] / "book" / "from_sipp_pfp.md").read_text(encoding="utf-8")
    short = {"ALDSNet": "ALDS"}
    assert [name for name in METHODS if f"`{short.get(name, name)}`" not in page] == []
