"""Profile paper is the papers: every official setting, resolved into an experiment, against what the official files say.

The table ``official_files.yml`` is typed from the official files, in their words; what differs is named in DIFFERENCES with its
reason, and a difference that is not named, or is named and not there, fails.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import pruning_core as pc
from pruning_core.book.profiles import read_profiles
from pruning_core.data.sets import AUGMENTATIONS, DATASETS, NORMALISATIONS
from pruning_core.experiments import recipes
from pruning_core.experiments.asked import Asked
from pruning_core.experiments.stages import Attack, Measure, Prune, Rewind, Save, Train
from pruning_core.experiments.timelines import every_stage
from pruning_core.masks.schedules import fraction_after
from pruning_core.official import CATALOGUE, official, planned
from pruning_core.papers.how_sparse.configurations import CONFIGURATIONS, FILES
from pruning_core.papers.sipp_pfp.official import METHODS_OF_THE_FILES
from pruning_core.papers.sipp_pfp.parameter_files import PARAMETER_FILES
from pruning_core.version import REPOSITORY

TABLE = yaml.safe_load(Path(__file__).with_name("official_files.yml").read_text(encoding="utf-8"))

DIFFERENCES = {
    "seen": "the share of the official training images that is trained on: this book keeps 10 % for scoring and validation",
    "choice": "the best epoch is that of the validation split; the official code takes it from the test images",
    "transforms": "LeNet-5 takes 32x32 images in the first repository, and has one recipe here; the later one crops to 28",
}  # fmt: skip


@cache
def plan(name: str) -> list[pc.Experiment]:
    found = planned(official(name), Asked(seeds=1))
    assert {experiment.profile for experiment in found} == {"paper"}
    assert all(experiment.limit is None and experiment.width == 1 for experiment in found)
    return found


def of(experiment: pc.Experiment, kind) -> list:
    return [stage for stage in every_stage(experiment.timeline) if isinstance(stage, kind)]


def parameters(experiment: pc.Experiment) -> int:
    with torch.device("meta"):
        return pc.count_parameters(pc.build_model(experiment.model, experiment.data))


def images(experiment: pc.Experiment) -> dict:
    """Mean, deviation and what happens to a training image, in the words of torchvision."""
    info = DATASETS[experiment.data]
    normal = NORMALISATIONS[experiment.normalise] if experiment.normalise else info
    recipe = AUGMENTATIONS[experiment.augment] if experiment.augment else AUGMENTATIONS["none"]
    side = recipe.side or info.shape[1]
    steps = [f"Resize({recipe.side})"] if recipe.side and recipe.side != info.shape[1] else []
    if recipe.scale:
        steps.append(f"RandomResizedCrop({side}, scale={recipe.scale})".replace(", scale=(0.08, 1.0)", ""))
    if recipe.pad:
        steps += [f"Pad({recipe.pad})", f"RandomCrop({side})"]
    if recipe.flip:
        steps.append("RandomHorizontalFlip()" if recipe.flip == 0.5 else f"RandomHorizontalFlip({recipe.flip})")
    return {"mean": list(normal.mean), "std": list(normal.std), "transforms": steps}


def rates(experiment: pc.Experiment, stage: Train, steps: int = 2) -> list[float]:
    """The learning rate at every step of a training."""
    schedule, optimizer = (stage.learning_rate or experiment.learning_rate), (stage.optimizer or experiment.optimizer)
    return [optimizer.lr * schedule.factor(step, steps, stage.epochs) for step in range(steps * stage.epochs)]


def dropping(lr: float, epochs: int, milestones, gamma: float, warmup: float = 0, steps: int = 2) -> list[float]:
    """What MultiStepLR and a linear warm-up, step by step, come to."""
    found = []
    for step in range(steps * epochs):
        scheduled = gamma ** sum(milestone <= step // steps for milestone in milestones)
        found.append(lr * (min(step / (warmup * steps), scheduled) if step < warmup * steps else scheduled))
    return found


# --- SiPP and PFP

SIPP = TABLE["sipp_pfp"]
OUR_METHODS = {
    "PFPNet": "pfp", "FilterThresNet": "l1_norm", "SoftNet": "l2_norm", "ThiNet": "thinet", "SiPPNet": "sipp",
    "SiPPNetRand": "sipp_random", "SiPPNetHybrid": "sipp_hybrid", "ThresNet": "magnitude", "SnipNet": "snip",
}  # fmt: skip
PARAMETERS = {
    "resnet20": 272_474, "resnet56": 869_530, "resnet110": 1_704_154, "vgg16_bn": 14_728_266, "densenet22": 71_686,
    "wrn16_8": 10_961_370, "lenet300_100": 266_610,
}  # fmt: skip


def spaced(parts) -> list[float]:
    """numpy's own spacings, as the official code calls them."""
    found: list[float] = []
    for kind, n, *ends in parts:
        if kind == "harmonic":
            power = math.log(2) / math.log(1 + n)
            found += [(i + 1) ** -power for i in range(1, max(1, int(ends[0] ** (-1 / power))) + 1)]
        else:
            found += {"geometric": np.geomspace, "linear": np.linspace}[kind](*ends, n).tolist()
    return found


@pytest.mark.parametrize("name", SIPP["files"])
def test_a_parameter_file_is_what_it_says(name):
    says = SIPP["files"][name]
    training = SIPP["trainings"][says["training"]] | says.get("training_changes", {})
    training.setdefault("milestones", range(training.get("step_size", 10**6), 10**4, training.get("step_size", 10**6)))
    retraining = training | says.get("retraining", {})
    found = plan(name)
    gpus = training["gpus"]
    assert {e.timeline[2].method.name for e in found} == {OUR_METHODS[m] for m in says["methods"] if m in OUR_METHODS}
    first = found[0]
    if says["dataset"] != "ImageNet":
        assert parameters(first) == PARAMETERS.get(says["network"], parameters(first))
    seen = images(first)
    side = f"Resize({DATASETS[first.data].shape[1]})"  # which changes nothing
    named = name == "sipp/mnist/lenet5"
    assert (seen.pop("transforms") != [t for t in training["transforms"] if t != side]) == named, DIFFERENCES[
        "transforms"
    ]
    assert seen == SIPP["normalise"][says["dataset"]]
    optimizer = first.optimizer
    assert (optimizer.name, optimizer.nesterov) == (training["optimizer"].lower(), training["nesterov"])
    assert optimizer.weight_decay == training["decay"]
    assert optimizer.momentum == training.get("momentum", 0.9)  # which Adam does not know
    assert first.batch_size == training["batch"] * gpus
    dense, again = of(first, Train)[0], of(first, Train)[-1]
    assert dense.epochs == training["epochs"]
    wanted = [training[key] for key in ("epochs", "milestones", "gamma")]
    assert rates(first, dense) == pytest.approx(dropping(training["lr"] * gpus, *wanted, training.get("warmup", 0)))
    assert again.epochs == retraining["epochs"] - retraining.get("start", 0)
    wanted = [again.epochs, retraining["milestones"], retraining["gamma"]]
    assert rates(first, again) == pytest.approx(dropping(retraining["lr"] * gpus, *wanted, retraining.get("warmup", 0)))
    assert again.batch_size == retraining["batch"] * gpus
    method = next(m for m in PARAMETER_FILES[name].methods if m in METHODS_OF_THE_FILES)
    assert len({e.seed for e in planned(official(name), Asked(points=1, methods=(method,)))}) == says["nets"]


@pytest.mark.parametrize("name", SIPP["files"])
def test_a_parameter_file_keeps_what_it_says(name):
    says = SIPP["files"][name]
    ratios = spaced(says["spacing"])
    groups = [part.tolist() for part in np.array_split(ratios, says["groups"] if says["groups"] > 0 else len(ratios))]
    found = plan(name)
    method = found[0].timeline[2].method
    own = [experiment for experiment in found if experiment.timeline[2].method == method]
    if says["mode"] == "cascade":
        timelines = [[kept for group in groups for kept in group]]
        assert len(of(own[0], Train)) == 1 + len(groups)
    else:
        timelines = [[*(k for g in groups[: i + 1] for k in g[:-1]), group[-1]] for i, group in enumerate(groups)]
    whole = parameters(found[0])
    with torch.device("meta"):
        model = pc.build_model(found[0].model, found[0].data)
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear))
    assert len(own) == len(timelines) * (len(says["deltaS"]) if isinstance(says.get("deltaS"), list) else 1)
    for experiment, kept in zip(own, timelines, strict=False):
        removed = [stage.budget.to * weights for stage in of(experiment, Prune)]
        assert removed == pytest.approx([min((1 - k) * whole, 0.999 * weights) for k in kept])
    assert of(found[0], Measure)[0].label == "dense"


# --- How sparse

FILE_OF = {name: f"{FILES[name.removesuffix('_l1')]}{'_l1' * name.endswith('_l1')}" for name in CONFIGURATIONS}
OUR_NETWORKS = {
    "FC": 3_885_010, "FC12": 7_269_610, "AlexNet": 46_787_978, "VGG16": 14_728_266, "ResNet18": 11_220_132,
    "ResNet50": 23_705_252,
}  # fmt: skip


def test_every_official_file_is_here():
    assert set(FILE_OF.values()) == set(TABLE["how_sparse"]["files"])
    runnable = [n for n, e in CATALOGUE.items() if e.system == "SiPP/PFP" and not n.endswith("deepknight")]
    assert set(runnable) == set(SIPP["files"])
    assert {f"snipit/{name}" for name in TABLE["snipit"]["lines"]} == {n for n in CATALOGUE if n.startswith("snipit/")}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_is_what_it_says(name):
    says = TABLE["how_sparse"]["files"][FILE_OF[name]]
    (found,) = plan(name)
    assert parameters(found) == OUR_NETWORKS[says["model"]]
    assert images(found) == TABLE["how_sparse"]["normalise"][says["dataset"]] | {
        "transforms": ["Pad(4)", "RandomCrop(32)", "RandomHorizontalFlip()"]
    }
    (train,) = of(found, Train)
    assert (train.epochs, found.batch_size, found.optimizer.lr) == (says["epoch"], says["batch_size"], says["lr"])
    assert (found.optimizer.momentum, found.optimizer.weight_decay) == (says["momentum"], says["weight_decay"])
    assert (found.optimizer.name, found.optimizer.nesterov, found.optimizer.clip) == ("sgd", False, None)
    penalty = [(method.name, method.over, strength) for method, strength in train.penalty or ()]
    assert penalty == ([("l1", "all", says["lmbda"])] if says["l1"] else [])
    cosine = says["schedu"] and says["schedumode"] == "cos"
    milestones = says["milestones"] if says["schedu"] and not cosine else ()
    wanted = dropping(says["lr"], says["epoch"], milestones, says["gamma"], says["warm"])
    if cosine:
        waves = [
            says["lr"] * (1 + math.cos(math.pi * (step // 2) / says["epoch"])) / 2 for step in range(2 * says["epoch"])
        ]
        rising = says["warm"] * 2
        wanted = [
            min(says["lr"] * step / rising, waves[step]) if step < rising else waves[step] for step in range(len(waves))
        ]
    assert rates(found, train) == pytest.approx(wanted)
    cuts = of(found, Prune)
    assert [cut.budget.to for cut in cuts] == [i / says["sparse_epoch"] for i in range(1, says["sparse_epoch"])]
    assert {(cut.method.name, cut.budget.across, cut.budget.keep_at_least) for cut in cuts} == {
        ("magnitude", "global", 0)
    }
    assert CONFIGURATIONS[name].lanczos_steps == says["lanczos_iter"]
    assert CONFIGURATIONS[name].probes == says["lanczos_num"]


# --- SNIP-it


def cut_after(experiment: pc.Experiment) -> list[int]:
    """After which epochs weights go, counted from 0 as the official code does; -1 is before the training."""
    epochs, found = 0, []
    for stage in experiment.timeline:
        if isinstance(stage, Train):
            found += [epochs + e - 1 for e in (stage.during.epochs(stage.epochs) if stage.during else [])]
            epochs += stage.epochs
        elif isinstance(stage, Prune):
            found.append(epochs - 1)
    return found


@pytest.mark.parametrize("name", TABLE["snipit"]["lines"])
def test_a_line_of_the_readme_is_what_it_says(name):
    says = TABLE["snipit"]["every"] | TABLE["snipit"]["lines"][name]
    found, *dense = plan(f"snipit/{name}")
    assert parameters(found) == says["parameters"]
    assert images(found) == TABLE["snipit"]["data"][says.get("data", "CIFAR10")]
    assert (found.batch_size, found.seed) == (says["batch"], says["seed"])
    adam = (found.optimizer.name, found.optimizer.lr, found.optimizer.weight_decay, found.optimizer.clip)
    decay = 0.0 if name.startswith("L0") else says["decay"]  # which its penalty holds
    assert adam == ("adam", says["lr"], decay, says["clip"])
    assert set(rates(found, Train(3))) == {says["lr"]}
    trained = sum(stage.epochs for stage in of(found, Train))
    assert trained == says["epochs"] + says.get("trained_before", 0)
    if not name.startswith(("EmptyCrit", "CarliniWagner")):
        (twin,) = dense
        assert [stage.epochs for stage in of(twin, Train)] == [80]
        assert (of(twin, Prune), twin.tags["method"], twin.optimizer.weight_decay) == ([], "dense", says["decay"])
    cuts = of(found, Prune)
    assert all(
        (c.samples, c.batch_size) == (says["statistic"], says["batch"]) for c in cuts if c.method.needs == "labels"
    )
    if says.get("before"):
        assert cut_after(found) == [-1] and of(found, Train)[0].during is None
    if "events" in says:
        assert cut_after(found) == says["events"]
    if "steps" in says:
        rounds = cuts[0].rounds if says.get("before") else len(says["events"])
        targets = [fraction_after(cuts[0].schedule, i, rounds, says["limit"]) for i in range(1, rounds + 1)]
        assert targets == pytest.approx(TABLE["snipit"]["halving"][says["limit"]])
    if "limit" in says:
        assert cuts[-1].budget.to == says["limit"]
        assert cuts[-1].budget.across == says.get("across", "global")
    if "penalty" in says and not name.startswith("L0"):
        (penalty,) = of(found, Train)[0].penalty
        assert (penalty[1], cuts[0].budget.below) == (says["penalty"], says["below"])
        assert of(found, Train)[1].penalty is None
    if "rewind" in says:
        (save,) = of(found, Save)
        before = found.timeline[: found.timeline.index(save)]
        assert sum(stage.epochs for stage in before) - 1 == says["rewind"]
        assert [(r.to, r.what) for r in of(found, Rewind)] == [(save.label, "weights")]
    if "attack" in says:
        (attack,) = of(found, Attack)
        assert (list(attack.epsilons), attack.samples, attack.name) == (
            says["attack"],
            says["images"],
            "carlini_wagner",
        )


def test_l0_weighs_gates_as_the_official_loss_does():
    """CE - R / N with R = sum (1 - q0) (-P w^2 / 2 - lambda), P = N l2: lambda / N a weight, and l2 / 2 its square."""
    found, _ = plan("snipit/L0-VGG16-CIFAR10")
    (train,) = of(found, Train)
    ((method, strength),) = train.penalty
    n = 45_000  # of 50,000, which the official line has
    assert strength == pytest.approx(TABLE["snipit"]["lines"]["L0-VGG16-CIFAR10"]["penalty"] / n), DIFFERENCES["seen"]
    assert strength * method.weight_decay == pytest.approx(TABLE["snipit"]["every"]["decay"])
    assert (method.open_probability, train.average) == (0.5, TABLE["snipit"]["lines"]["L0-VGG16-CIFAR10"]["ema"])


def test_ticks_and_tocks_take_turns_of_ten_epochs():
    found, _ = plan("snipit/GateDecorators-VGG16-CIFAR10")
    turns = [(stage.epochs, stage.only) for stage in of(found, Train)]
    assert turns[0] == (80, "weights")
    assert turns[1:] == [(1, "gates")] * 10 + [(10, None)] + [(1, "gates")] * 9 + [(10, None), (31, None)]
    targets = [stage.budget.to for stage in of(found, Prune)]
    assert targets == pytest.approx([*(0.01 + 0.05 * i for i in range(19)), 0.93])


# --- RNI


@pytest.mark.parametrize("name", [n for n in CATALOGUE if n.startswith("rni/")])
def test_a_setting_of_the_notebook_is_what_it_says(name):
    arch, data, method = name.removeprefix("rni/").split("-")
    says = TABLE["rni"]["every"] | TABLE["rni"]["data"][data] | TABLE["rni"]["networks"][arch]
    found = plan(name)
    assert [of(e, Prune)[0].budget.to for e in found] == says["fractions"]
    for experiment in found:
        with torch.device("meta"):
            model = pc.build_model(experiment.model, "cifar10")
        assert pc.count_parameters(model) == says["parameters"]
        assert images(experiment) == {key: says[key] for key in ("mean", "std", "transforms")}
        sgd = experiment.optimizer
        assert (sgd.name, sgd.lr, sgd.momentum, sgd.nesterov) == ("sgd", says["lr"], says["momentum"], says["nesterov"])
        assert (sgd.weight_decay, experiment.batch_size) == (says["decay"], says["batch"])
        assert experiment.norm == ("sigmoid" if method == "rni" else "batch")
        trained, tuned = of(experiment, Train)
        assert (trained.epochs, tuned.epochs) == (says["epochs"], says["tuned"])
        for stage in (trained, tuned):
            assert rates(experiment, stage) == pytest.approx(
                dropping(says["lr"], stage.epochs, says["drops"], says["gamma"])
            )
            assert stage.keep == "best_validation", DIFFERENCES["choice"]
        assert tuned.penalty is None
        penalty = [(m.name, strength, getattr(m, "b", None)) for m, strength in trained.penalty or ()]
        wanted = {"rni": [("rni", says["rni"], says["b"])], "l1": [("slimming", says["l1"], None)], "ucs": []}
        assert penalty == wanted[method]
        assert of(experiment, Prune)[0].budget.keep_at_least == says["least"]


@pytest.mark.parametrize("arch", TABLE["rni"]["networks"])
def test_sigmoid_norms_learn_ten_times_as_fast_and_do_not_decay(arch):
    (found, _) = plan(f"rni/{arch}-cifar10-rni")
    with torch.device("meta"):
        model = pc.build_model(found.model, "cifar10", norm="sigmoid")
    says = TABLE["rni"]["every"]
    groups = {(g["lr"], g["weight_decay"]) for g in found.optimizer.build(model.to_empty(device="cpu")).param_groups}
    assert groups == {(says["lr"], says["decay"]), (says["lr"] * says["norm_rate"], says["norm_decay"])}


# --- i-SpaSP


@pytest.mark.parametrize("network", TABLE["ispasp"]["networks"])
def test_a_script_is_what_it_says(network):
    says = TABLE["ispasp"]["every"] | TABLE["ispasp"]["networks"][network]
    (found,) = plan(f"ispasp/{network}")
    assert images(found) == {key: says[key] for key in ("mean", "std", "transforms")}
    assert (found.timeline[0].weights, found.batch_size) == ("IMAGENET1K_V1", says["batch"])
    *blocks, last = of(found, Train)
    assert [stage.epochs for stage in blocks] == [says["block_epochs"]] * len(says["kept"])
    assert {rate for stage in blocks for rate in rates(found, stage)} == {says["block_rate"]}
    wanted = [
        says["rate"] * (1 + math.cos(math.pi * (step // 2) / says["epochs"])) / 2 for step in range(2 * says["epochs"])
    ]
    assert rates(found, last) == pytest.approx(wanted)
    for stage in (*blocks, last):
        sgd = stage.optimizer or found.optimizer
        assert (sgd.name, sgd.momentum, sgd.nesterov, sgd.weight_decay) == ("sgd", 0.9, True, says["decay"])
        assert stage.label_smoothing == says["smoothing"]
    with torch.device("meta"):
        model = pc.build_model(found.model, found.data)
    kept = {}
    for cut in of(found, Prune):
        assert (cut.samples, cut.batch_size, cut.method.iterations) == (
            says["samples"],
            says["batch"],
            says["iterations"],
        )
        ((site, fraction),) = cut.budget.across.items()
        kept[site.partition(".conv")[0]] = round((1 - fraction) * len(model.get_parameter(f"{site}.weight")))
    assert kept == says["kept"]


# --- the notebooks at profile paper


def knobs(chapter: str, stem: str) -> dict:
    return read_profiles(REPOSITORY / "notebooks" / chapter / "profiles.yml", stem, "paper")


def test_the_pages_of_snip_it_have_the_readmes_numbers_at_profile_paper():
    says = TABLE["snipit"]
    for stem in ("2_weights", "3_nodes"):
        page = knobs("4_snip", stem)
        assert (page["batch"], page["epochs"], page["statistic"]) == (512, 80, says["every"]["statistic"])
        assert NORMALISATIONS[page["recipe"]].mean == tuple(says["data"]["CIFAR10"]["mean"])
        assert AUGMENTATIONS[page["recipe"]].flip == 0.2
        events = recipes.during_training("snip", 0.98, page["epochs"], **page["during"])[0].during.epochs(
            page["epochs"]
        )
        assert [epoch - 1 for epoch in events] == says["lines"]["SNIPitDuring-ResNet18-CIFAR10"]["events"]
    page, nodes = knobs("4_snip", "2_weights"), knobs("4_snip", "3_nodes")
    imp = recipes.magnitude_rewind_during(0.98, page["epochs"], every=page["imp_every"], **page["imp"])
    official_imp = plan("snipit/IMP-ResNet18-CIFAR10")[0]
    assert [stage.epochs for stage in imp if isinstance(stage, Train)] == [7, 73]
    assert imp[2].during.epochs(73) == of(official_imp, Train)[1].during.epochs(73)
    (after,) = says["lines"]["HoyerSquare-ResNet18-CIFAR10"]["events"]
    assert page["penalised_epochs"] == nodes["cut_after"] == nodes["penalised"]["epochs"] == after + 1
    assert page["fine_tune"] == nodes["fine_tune"] == 80 - after - 1
    assert nodes["penalised"]["l0_epochs"] == says["lines"]["L0-VGG16-CIFAR10"]["epochs"]
    gates = says["lines"]["GateDecorators-VGG16-CIFAR10"]
    assert nodes["gates_epochs"] == gates["trained_before"]
    assert (nodes["gates"]["sparsity"], nodes["gates"]["tocks"]) == (gates["limit"], gates["tocks"])
    assert 19 + 2 * gates["tocks"] + nodes["gates"]["fine_tune"] == gates["epochs"]


def test_the_page_of_rni_has_the_notebooks_numbers_at_profile_paper():
    for large in knobs("3_rni", "3_prune_fine_tune")["large"]:
        arch = large["model"].removesuffix("_rni")
        says = TABLE["rni"]["every"] | TABLE["rni"]["networks"][arch]
        assert (large["epochs"], large["fine_tune"], large["rate"]) == (says["epochs"], says["tuned"], says["lr"])
        assert (large["cuts"], large["b"]) == (says["fractions"], says["b"])
        assert large["strengths"] == {"rni": says["rni"], "slimming": says["l1"]}
