"""Files in the official forms: both repositories' of SiPP and PFP with their inclusions, How Sparse's sample configuration."""

from pathlib import Path
from textwrap import dedent

import pytest
import yaml

import pruning_core as pc
from pruning_core.errors import BadInput, UnknownName
from pruning_core.experiments.asked import Asked
from pruning_core.experiments.stages import Prune
from pruning_core.official import Shorter, official, planned, run_official
from pruning_core.official.files import settings_of_file
from pruning_core.papers.how_sparse.configurations import CONFIGURATIONS, FILES
from pruning_core.papers.how_sparse.official import read_configuration
from pruning_core.papers.sipp_pfp.config_file import read_parameter_file
from pruning_core.papers.sipp_pfp.official import METHODS_OF_THE_FILES
from pruning_core.papers.sipp_pfp.parameter_files import PARAMETER_FILES, ParameterFile

TABLE = yaml.safe_load(Path(__file__).with_name("official_files.yml").read_text(encoding="utf-8"))

SAMPLE = """
model: AlexNet
init: kaiming_normal
data_path: "datasets/"
dataset: cifar10
use_full_data: True
batch_size: 128
gpu: 0
criterion: cross_entropy
optim: sgd
lr: 0.01
momentum: 0.9
weight_decay: 0
gamma: 0.5
warm: 5
schedu: True
schedumode: multistep
milestones: [60, 120, 160]
epoch: 200
l1: True
lmbda: 0.00003
regularizer: L1
mode: train
sparse: True
sparse_epoch: 1000
file_path: ' '
save_model: True
lanczos_iter: 96
lanczos_num: 1
"""
"""The sample of How Sparse's README."""

SPACING = [{"type": "manual", "values": [0.5]}]
FIRST = {
    "epochs": "numEpochs", "batch": "batchSize", "lr": "learningRate", "milestones": "lRmilestones", "gamma": "lRgamma",
    "warmup": "warmup", "decay": "weightDecay", "momentum": "momentum", "nesterov": "nesterov", "optimizer": "optimizer",
    "transforms": "transformsTrain", "start": "startEpoch",
}  # fmt: skip


def written(folder: Path, name: str) -> Path:
    """The file of that name in the form of its repository, and what it includes, written from the table."""
    says = TABLE["sipp_pfp"]["files"][name]
    training = TABLE["sipp_pfp"]["trainings"][says["training"]]
    first = says["training"].startswith("first/")
    include = "cifar/training/some.yaml" if first else "training/cifar/some.yaml"
    keys = ("numIntervals", "maxVal", "minVal")
    spacing = [
        {"type": kind} | dict(zip(keys if len(numbers) == 3 else keys[::2], numbers, strict=True))
        for kind, *numbers in says["spacing"]
    ]
    document = {
        "network": {"name": says["network"], "dataset": says["dataset"], "outputSize": 10},
        "training": {"file": include} | {FIRST[k]: v for k, v in says.get("training_changes", {}).items()},
        "retraining": {FIRST[key]: value for key, value in says.get("retraining", {}).items()},
        "experiments": {
            "methods": ["ReferenceNet", *says["methods"]], "mode": says["mode"], "numRepetitions": 1,
            "numNets": says["nets"], "plotting": {"minVal": 0.02, "maxVal": 0.85}, "spacing": spacing,
            "retrainIterations": says["groups"],
        },
    }  # fmt: skip
    if "deltaS" in says and not isinstance(says["deltaS"], list):
        document["coresets"] = {"deltaS": says["deltaS"], "sizeOfT": 0.1}
    path = folder / "param" / "cifar" / "own.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    _write_training(folder / "param" / include, training, first)
    return path


def _write_training(path: Path, training: dict, first: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if first:
        path.write_text(yaml.safe_dump({"training": {FIRST[k]: v for k, v in training.items() if k in FIRST}}))
        return
    steps = {"milestones": training["milestones"]} if "milestones" in training else {"step_size": training["step_size"]}
    kind = "MultiStepLR" if "milestones" in training else "StepLR"
    schedules = [{"type": kind, "stepKwargs": steps, "kwargs": {"gamma": training["gamma"]}}]
    if "warmup" in training:
        schedules.append({"type": "WarmupLR", "stepKwargs": {"warmup_epoch": training["warmup"]}, "kwargs": {}})
    kwargs = {"lr": training["lr"], "weight_decay": training["decay"], "nesterov": training["nesterov"]}
    kwargs |= {"momentum": training["momentum"]} if "momentum" in training else {}
    sizes = {"Pad": "padding", "RandomCrop": "size", "RandomResizedCrop": "size", "Resize": "size"}
    transforms = []
    for text in training["transforms"]:
        name, _, number = text.rstrip(")").partition("(")
        transforms.append({"type": name, "kwargs": {sizes[name]: int(number)} if number else {}})
    common = {"transformsTrain": transforms, "loss": "CrossEntropyLoss"}
    path.with_name("common.yaml").write_text(yaml.safe_dump(common))
    own = {"file": "training/cifar/common.yaml", "batchSize": training["batch"], "optimizer": training["optimizer"]}
    own |= {"optimizerKwargs": kwargs, "numEpochs": training["epochs"], "lrSchedulers": schedules}
    path.write_text(yaml.safe_dump(own))


def facts(entry: ParameterFile) -> dict:
    """What a file and the table of this package must agree on; GPUs, and milestones behind the end, change nothing."""
    found = vars(entry) | {
        "kept": [round(kept, 9) for kept in entry.kept],
        "retrained": entry.retrained or len(entry.kept),
    }
    for part in ("training", "retraining"):
        training = vars(getattr(entry, part)) | {"gpus": 1}
        training["milestones"] = tuple(m for m in training["milestones"] if m < training["epochs"])
        found[part] = training
    return {key: value for key, value in found.items() if key not in ("augment", "delta", "deltas")}


@pytest.mark.parametrize(
    "name",
    [
        "cifar/resnet20", "cifar/vgg16", "cifar/lenet5", "mnist/lenet300_100", "imagenet/vgg11", "pfp/cifar/cnn5",
        "pfp/cifar/vgg16", "pfp/mnist/lenet300_100", "sipp/cifar/cascade/densenet22", "sipp/cifar/rand/resnet56_rand",
        "sipp/mnist/fc_nettrim", "sipp/mnist/lenet300_sizes2",
    ],
)  # fmt: skip
def test_a_parameter_file_is_read_as_the_table_of_this_package_has_it(name, tmp_path):
    (found,) = read_parameter_file(written(tmp_path, name)).values()
    wanted = PARAMETER_FILES[name]
    assert facts(found) == facts(wanted)
    assert found.delta == (wanted.delta if not wanted.deltas else 1e-16)


def test_a_file_may_include_another_one_and_customize_it(tmp_path):
    base = written(tmp_path, "sipp/mnist/lenet300_sizes")
    own = base.with_name("sizes.yaml")
    deltas = TABLE["sipp_pfp"]["files"]["sipp/mnist/lenet300_sizes"]["deltaS"]
    changes = [{"key": ["coresets", "deltaS"], "value": delta} for delta in deltas]
    own.write_text(
        yaml.safe_dump({"file": "param/cifar/own.yaml", "experiments": {"numNets": 2}, "customizations": changes})
    )
    found = read_parameter_file(own)
    assert list(found) == [f"sizes#{i}" for i in range(1, 16)]
    assert tuple(entry.delta for entry in found.values()) == PARAMETER_FILES["sipp/mnist/lenet300_sizes"].deltas
    assert {entry.nets for entry in found.values()} == {2}
    assert [setting.name for setting in settings_of_file(own)] == list(found)


def test_the_sample_configuration_is_the_official_alexnet(tmp_path):
    path = tmp_path / "sample.yml"
    path.write_text(SAMPLE)
    assert read_configuration(path) == CONFIGURATIONS["alexnet_cifar10_l1"]
    (setting,) = settings_of_file(path)
    assert (setting.name, setting.room) == ("sample", "how_sparse")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_official_configuration_is_read_as_it_is_here(name, tmp_path):
    path = tmp_path / "own.yml"
    file = FILES[name.removesuffix("_l1")] + "_l1" * name.endswith("_l1")
    path.write_text(yaml.safe_dump(TABLE["how_sparse"]["files"][file]))
    assert read_configuration(path) == CONFIGURATIONS[name]


def test_a_squared_penalty_is_a_weight_decay_of_twice_its_factor(tmp_path):
    path = tmp_path / "own.yml"
    path.write_text(SAMPLE.replace("regularizer: L1", "regularizer: L2"))
    found = read_configuration(path)
    assert (found.l1, found.weight_decay) == (False, pytest.approx(6e-5))


@pytest.mark.parametrize(
    ("model", "start"), [("AlexNet", "he_uniform"), ("FC12", "he_uniform"), ("FC", None), ("FC2", None)]
)
def test_a_uniform_start_is_taken_where_the_official_network_takes_it(model, start, tmp_path):
    path = tmp_path / "own.yml"
    path.write_text(SAMPLE.replace("model: AlexNet", f"model: {model}").replace("kaiming_normal", "kaiming_uniform"))
    assert read_configuration(path).start == start
    (setting,) = settings_of_file(path)
    (experiment,) = planned(setting, Asked(points=1))
    assert experiment.start == start


def test_a_squared_error_is_the_loss_of_training(tmp_path):
    path = tmp_path / "own.yml"
    path.write_text("{model: FC2, dataset: mnist, criterion: mse, lr: 0.1, epoch: 2, sparse_epoch: 2}")
    shorter = Shorter(epochs=1, limit=200, width=0.1, data="digits")
    (experiment,) = planned(settings_of_file(path)[0], Asked(), shorter)
    assert experiment.loss == "mse"
    dense, pruned = run_official(path, Asked(), shorter, progress=False).rows.to_dict("records")
    assert (dense["criterion"], pruned["asked"]) == ("mse", 0.5)
    assert 0 < dense["loss"] < 1  # of a squared error, a tenth of that of one output that is 1


@pytest.mark.parametrize("model", ["VGG11", "VGG13", "VGG19", "ResNet34", "ResNet101", "ResNet152"])
def test_networks_of_the_official_models_file_can_be_chosen(model, tmp_path):
    path = tmp_path / "own.yml"
    path.write_text(SAMPLE.replace("model: AlexNet", f"model: {model}"))
    (experiment,) = planned(settings_of_file(path)[0], Asked(points=1))
    assert experiment.model == f"{model.lower()}_how_sparse"


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("model: AlexNet", "model: AlexNt", UnknownName, "did you mean 'AlexNet'"),
        ("lr: 0.01", "rate: 0.01", UnknownName, "unknown key of .* 'rate'"),
        ("epoch: 200", "", BadInput, "lacks epoch"),
        ("lr: 0.01", "lr: fast", BadInput, "lr of .* must be a number"),
        ("criterion: cross_entropy", "criterion: mae", UnknownName, "unknown criterion 'mae'"),
        ("init: kaiming_normal", "init: kaiming_unifrm", UnknownName, "did you mean 'kaiming_uniform'"),
        ("optim: sgd", "optim: adam", BadInput, "trains by SGD all the same"),
        ("milestones: [60, 120, 160]", "milestones: 60", BadInput, "milestones of"),
        ("l1: True", "l1: 'yes'", BadInput, "l1 of .* must be True or False"),
        ("model: AlexNet", "network: AlexNet", BadInput, "is neither a configuration"),
        ("model: AlexNet", "model: [", BadInput, "is no YAML"),
    ],
)
def test_a_configuration_that_cannot_be_is_one_sentence(old, new, error, message, tmp_path):
    path = tmp_path / "own.yml"
    path.write_text(SAMPLE.replace(old, new))
    with pytest.raises((error, TypeError), match=message):
        settings_of_file(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"name": "resnet21", "dataset": "CIFAR10"}}, "did you mean"),
        ({"network": {"name": "resnet20", "dataset": "Driving"}}, "the driving data are not public"),
        ({"network": None}, "network of .* must hold keys and values"),
        ({"training": {"file": "training/none.yaml"}}, "lies neither beside it"),
        ({"training": {"numEpochs": 2}}, "lacks batchSize, learningRate"),
        (
            {"experiments": {"methods": ["PCANet"], "mode": "cascade", "spacing": SPACING}},
            "PCANet, .* takes layers apart",
        ),
        ({"experiments": {"methods": ["FakeNet"], "mode": "cascade", "spacing": SPACING}}, "FakeNet, .* without a cut"),
        ({"experiments": {"methods": ["SiPNet"], "mode": "cascade", "spacing": []}}, "did you mean 'SiPPNet'"),
        ({"experiments": {"methods": ["SiPPNet"], "mode": "cascad", "spacing": SPACING}}, "did you mean 'cascade'"),
        ({"customizations": [{"key": [], "value": 1}]}, "key of customization 1"),
        ({"customizations": [{"key": ["coresets", "deltaS"]}]}, "and a value"),
    ],
)
def test_a_parameter_file_that_cannot_be_is_one_sentence(change, message, tmp_path):
    path = written(tmp_path, "cifar/resnet20")
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(document | change))
    with pytest.raises(BadInput, match=message):
        read_parameter_file(path)


def test_every_class_that_draws_can_be_asked_for(tmp_path):
    path = written(tmp_path, "cifar/resnet20")
    document = yaml.safe_load(path.read_text())
    names = {
        "UniNet": "uniform",
        "EllOneNet": "l1_sampling",
        "EllTwoNet": "l2_sampling",
        "EllOneAndTwoNet": "l1_l2_sampling",
    }
    document["experiments"]["methods"] = list(names)
    path.write_text(yaml.safe_dump(document))
    found = planned(settings_of_file(path)[0], Asked(seeds=1, points=1))
    assert [next(s.method.name for s in e.timeline if isinstance(s, Prune)) for e in found] == list(names.values())


@pytest.mark.parametrize("name", METHODS_OF_THE_FILES)
def test_every_method_of_the_files_cuts_as_its_budget_is_spread_there(name, empty_cache):
    method, across = METHODS_OF_THE_FILES[name]
    cut = Prune(method, pc.Budget(0.5, across=across), samples=32)
    experiment = pc.Experiment("lenet5", "digits", [cut, pc.Measure()], limit=300, width=0.5, profile="smoke")
    (row,) = pc.run(experiment, progress=False)
    assert row["sparsity"] == pytest.approx(0.5, abs=0.03)


def test_a_method_is_asked_for_by_its_class_as_well():
    one, other = (
        planned(official("cifar/resnet20"), Asked(seeds=1, points=1, methods=(m,))) for m in ("SiPPNet", "SiPP")
    )
    assert [e.key for e in one] == [e.key for e in other]


def test_a_momentum_that_moves_needs_a_cool_down_which_no_official_file_has(tmp_path):
    path = written(tmp_path, "mnist/lenet300_100")
    document = yaml.safe_load(path.read_text())
    plain = read_parameter_file(path)
    path.write_text(yaml.safe_dump(document | {"training": document["training"] | {"momentumDelta": 0.05}}))
    assert read_parameter_file(path) == plain
    moved = document["training"] | {"momentumDelta": 0.05, "cooldown": 5}
    path.write_text(yaml.safe_dump(document | {"training": moved}))
    with pytest.raises(BadInput, match=r"cooldown of .* can only be 0"):
        read_parameter_file(path)


def test_files_that_include_each_other_are_refused(tmp_path):
    for name, other in (("a.yaml", "b.yaml"), ("b.yaml", "a.yaml")):
        (tmp_path / name).write_text(dedent(f"file: {other}\nexperiments: {{}}\n"))
    with pytest.raises(BadInput, match="include each other"):
        read_parameter_file(tmp_path / "a.yaml")
