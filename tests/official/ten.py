"""Ten official commands, two a system: their first numbers against the golden files, and a shortened run of each.

``python -m tests.official.ten`` prints a table and fails where a number differs; ``--plan`` leaves the runs out. A command is
typed as in its README. Its plan is compared at the paper's scale: the stages that it will play are asked for scores, masks,
kept counts and learning rates on the arrays of a golden file. Its run, shortened and on images that come with the packages,
must then remove what it was asked to. Golden files lie below $PRUNING_GOLDEN (default: tests/golden); one that is not there is
named.
"""

from __future__ import annotations

import shlex
import sys
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import click
import numpy as np
import pandas as pd
import torch
from torch import nn

import pruning_core as pc
from pruning_core.experiments.asked import Asked
from pruning_core.experiments.stages import Prune, Train
from pruning_core.experiments.timelines import every_stage
from pruning_core.masks.masks import Masks
from pruning_core.masks.schedules import fraction_after
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.ispasp import ISpaSP
from pruning_core.methods.shared.batch_norm_scales import scales_of
from pruning_core.models.cost import count_macs, count_parameters
from pruning_core.official import Shorter, official, planned, run_official, typed
from pruning_core.papers.ispasp.configurations import STAGES, cost
from tests.golden import test_ispasp as ispasp
from tests.golden.harness import arrays_of, files
from tests.golden.how_sparse import training
from tests.golden.rni.networks import state_of, vgg
from tests.golden.sipp_pfp.networks import budget
from tests.golden.sipp_pfp.networks import network as sipp_network
from tests.golden.snipit.built import batches, named, network
from tests.golden.snipit.gradients import number_kept, official_keep, official_nodes, relative, view_of

Experiments = list[pc.Experiment]
SMALL = Shorter(epochs=1, limit=300, width=0.1, data="digits")
ONE, REFERENCE = Asked(seeds=1), Asked(seeds=1, reference=True)


class Absent(Exception):
    """A golden file does not hold this; another folder's files may be of other settings."""


class Golden(dict[str, np.ndarray]):
    """The arrays of a file; Absent, where one is not there."""

    def __missing__(self, key: str) -> np.ndarray:
        raise Absent(key)

    def row(self, which: np.ndarray, what: str) -> int:
        """The only place where ``which`` holds."""
        found = np.flatnonzero(which)
        if len(found) != 1:
            raise Absent(what)
        return int(found[0])


@dataclass
class Compared:
    """Where ours and theirs were set side by side: what, in which file, how many numbers, the largest difference."""

    lines: list[tuple[str, str, int, float]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def same(self, what: str, where: str, ours, theirs, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Raises AssertionError where a number differs by more; counts and masks must be equal."""
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        np.testing.assert_allclose(ours, theirs, rtol, atol, err_msg=f"{what} of {where}")
        assert theirs.size, f"{what} of {where} holds nothing"
        self.lines.append((what, where, theirs.size, float(np.abs(ours - theirs).max())))

    def arrays(self, paper: str, beginning: str) -> Golden | None:
        """The first golden file of that name, None where there is none."""
        found = [path for path in files(paper) if path.stem.lstrip("0123456789_").startswith(beginning)]
        if not found:
            self.missing.append(f"{paper}/{beginning}")
        return Golden(arrays_of(found[0])) if found else None


@dataclass(frozen=True)
class Command:
    """A line of a README, with its ``--config``; ``compare`` takes its plan at the paper's scale; ``asked`` and ``shorter``
    make a run of it that takes seconds, whose rows must say in ``column`` what was asked of them, within ``tolerance``."""

    line: str
    compare: Callable[[Experiments, Compared], None]
    asked: Asked = ONE
    shorter: Shorter = SMALL
    config: str | None = None
    column: str = "sparsity"
    tolerance: float = 5e-3

    def meant(self) -> tuple[str, Asked]:
        """The setting that the line names, and what is asked of it."""
        wanted, flags = typed(shlex.split(self.line), Path(self.config) if self.config else None)
        assert isinstance(wanted, str), "a file of an official repository has a setting of that name"
        return wanted, replace(self.asked, flags=flags)


def stages(experiment: pc.Experiment, kind) -> list:
    return [stage for stage in every_stage(experiment.timeline) if isinstance(stage, kind)]


def factors(experiment: pc.Experiment, train: Train, rate: float, steps: int, epochs: int, count: int) -> list[float]:
    """The first learning rates of a training as the command plans it, of another length where a file has one."""
    schedule = train.learning_rate or experiment.learning_rate
    return [rate * schedule.factor(step, steps, epochs) for step in range(count)]


# --- SNIP-it


def targets(cut: Prune, rounds: int) -> list[float]:
    return [fraction_after(cut.schedule, i, rounds, cut.budget.to) for i in range(1, rounds + 1)]


def network_of_snipit(plan: Experiments, name: str, compared: Compared) -> None:
    z = compared.arrays("snipit", "network_counts")
    if z is None:
        return
    with torch.device("meta"):
        model = pc.build_model(plan[0].model, plan[0].data)
    weights = sum(model.get_parameter(n).numel() for n in find_sites(model, channels=False).weights)
    compared.same("parameters", "network_counts", count_parameters(model), z[f"{name}/parameters"])
    compared.same("weights", "network_counts", weights, z[f"{name}/prunable_weights"])


def weights_during(plan: Experiments, compared: Compared) -> None:
    """SNIPitDuring: when it cuts, how far, by which scores, and what the first cut leaves."""
    network_of_snipit(plan, "ResNet18/3x32", compared)
    (cut,) = stages(plan[0], Prune)
    train = next(stage for stage in plan[0].timeline if isinstance(stage, Train))
    events: list[int] = [] if train.during is None else train.during.epochs(train.epochs)
    aims = targets(cut, len(events))
    if (z := compared.arrays("snipit", "schedules")) is not None:
        attempts = z["prune_epochs/SNIPitDuring/delay=4/freq=4/epochs=80"]  # once all targets are met they do nothing
        compared.same("epochs of the cuts", "schedules", np.array(events) - 1, attempts[: len(events)])
        compared.same("targets", "schedules", aims, z["snipit/limit=0.98/S=5"], atol=1e-12)
    if (z := compared.arrays("snipit", "snipit_conv")) is None:
        return
    model, where = network(z), "snipit_conv"
    theirs = named(z, "step0/mask/")
    scores = cut.method.score(view_of(z, model, theirs))
    total = sum(score.numel() for score in scores.values())
    kept = number_kept(total, aims[0])
    compared.same("kept weights", where, kept, z["step0/num_to_keep"])
    masks, threshold = official_keep(scores, kept)
    compared.same("score at the cut", where, threshold, z["step0/threshold"], rtol=1e-9)
    scope = [name.rpartition(".")[0] for name in theirs]
    gone = total - sum(int(mask.sum()) for mask in masks.values())  # the official cut is strict: one fewer stays
    found = pc.prune(model, cut.method, replace(cut.budget, to=gone / total), scope=scope, batches=batches(z)).masks
    for name, mask in theirs.items():
        compared.same(f"mask of {name}", where, found[name], mask)


def nodes_before(plan: Experiments, compared: Compared) -> None:
    """SNAPit: how far each event goes, by which scores, and how many nodes the first one leaves in each layer."""
    network_of_snipit(plan, "VGG16/3x32", compared)
    (cut,) = stages(plan[0], Prune)
    aims = targets(cut, cut.rounds)
    if (z := compared.arrays("snipit", "schedules")) is not None:
        compared.same("targets", "schedules", aims, z["snapit/limit=0.93/S=5"], atol=1e-12)
    if (z := compared.arrays("snipit", "snapit_conv")) is None:
        return
    model, where = network(z), "snapit_conv"
    hidden = cut.method.score(view_of(z, model, channels=True))
    inputs, *_, outputs = z["step0/vector_lengths"].tolist()
    theirs = z["step0/all_scores"]
    compared.same("scores", where, torch.cat([*hidden.values()]), theirs[inputs : len(theirs) - outputs], rtol=1e-9)
    share = relative(aims[0], 0.0)
    compared.same("share of the nodes", where, share, z["step0/percentage"], atol=1e-12)
    keep = official_nodes(hidden, share)
    gone = 1 - sum(int(mask.sum()) for mask in keep.values()) / sum(mask.numel() for mask in keep.values())
    result = pc.prune(model, cut.method, replace(cut.budget, to=gone), batches=batches(z))
    widths = [int(group.alive(result.masks).sum()) for group in result.sites.groups.values()]
    compared.same("kept nodes", where, widths, z["step0/out_widths"][:-1])


# --- SiPP and PFP


def kept_of_a_file(plan: Experiments, name: str, compared: Compared) -> None:
    """The kept fractions, of all parameters there and of weights here, and where it is trained in between."""
    if (z := compared.arrays("sipp_pfp", "keep_ratio_schedules")) is None:
        return
    first = plan[0]
    with torch.device("meta"):
        model = pc.build_model(first.model, first.data)
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    groups: list[int] = []
    for stage in first.timeline:
        if isinstance(stage, Train):
            groups.append(0)
        elif isinstance(stage, Prune):
            groups[-1] += 1
    kept = [1 - stage.budget.to * weights / count_parameters(model) for stage in stages(first, Prune)]
    compared.same("kept fractions", "keep_ratio_schedules", kept, z[f"{name}.all"], rtol=1e-9)
    compared.same("cuts before each training", "keep_ratio_schedules", groups[:-1], z[f"{name}.group_sizes"])


def best_weights(plan: Experiments, method: str, beginning: str, compared: Compared) -> None:
    """Scores of a method that keeps the best weights of the whole network, and its masks at the first keep ratio."""
    (experiment,) = [e for e in plan if stages(e, Prune)[0].method.name == method]
    cut = stages(experiment, Prune)[0]
    if (z := compared.arrays("sipp_pfp", beginning)) is None:
        return
    model, names = sipp_network(z)
    seen = [(torch.from_numpy(z["x"]), None)]
    view = View(model, find_sites(model, channels=False), Masks(), seen, nn.functional.cross_entropy, torch.Generator())
    scores = cut.method.score(view)
    for i, name in enumerate(names):
        theirs = z[f"sensitivity{i}"] if f"sensitivity{i}" in z else np.abs(z[f"w{i}"])
        compared.same(f"scores of {method}, layer {i}", beginning, scores[f"{name}.weight"].detach(), theirs, rtol=1e-9)
    total = sum(score.numel() for score in scores.values())
    aim = replace(cut.budget, to=1 - budget(z, float(z["keep_ratios"][0])) / total, keep_at_least=0)
    found = pc.prune(model, cut.method, aim, batches=seen).masks
    for i, name in enumerate(names):
        compared.same(f"mask of {method}, layer {i}", beginning, found[f"{name}.weight"], z[f"mask{i}_0"])
        compared.same("kept weights", beginning, int(found[f"{name}.weight"].sum()), z["nnz_per_layer_0"][i])


def resnet20(plan: Experiments, compared: Compared) -> None:
    kept_of_a_file(plan, "cifar.resnet20", compared)
    best_weights(plan, "sipp", "sipp_det", compared)


def lenet300(plan: Experiments, compared: Compared) -> None:
    kept_of_a_file(plan, "mnist.lenet300_100", compared)
    best_weights(plan, "magnitude", "base_wt", compared)


# --- RNI


def receded(plan: Experiments, beginning: str, compared: Compared) -> None:
    """The channels that stay in every layer at .5 and .9, with the importances of the file, and what the network costs."""
    first = plan[0]
    if (z := compared.arrays("rni", "train_steps_rni")) is not None:
        settings = replace(first.optimizer, lr=float(z["lr"])).build(vgg(state_of(z, "before")))
        groups = sorted({(group["lr"], -group["weight_decay"]) for group in settings.param_groups})
        compared.same("learning rates", "train_steps_rni", [lr for lr, _ in groups], z["group_lr"], rtol=1e-12)
        compared.same("weight decays", "train_steps_rni", [-decay for _, decay in groups], z["group_wd"], rtol=1e-12)
    if (z := compared.arrays("rni", beginning)) is None:
        return
    model = pc.build_model(first.model, first.data, norm=first.norm, seed=0).eval()
    example = torch.zeros(1, 3, 32, 32)
    costs = (count_macs(model, example), count_parameters(model))
    compared.same("multiply-accumulates, parameters", beginning, costs, z["macs_params_full"])
    cut = stages(first, Prune)[0]
    sites = find_sites(model, channels=True, example_input=example, scope=cut.scope, refuses=cut.method.refuses)
    groups = list(sites.groups.values())
    compared.same("channels", beginning, [group.size for group in groups], z["sizes"])
    for group, part in zip(groups, torch.from_numpy(z["gamma"]).split(z["sizes"].tolist()), strict=True):
        (member,) = scales_of(model, group)
        model.get_parameter(member.parameter).data = part.clone()
    for experiment in plan:
        cut = stages(experiment, Prune)[0]
        row = z.row((z["scope_global_and_pc"] == (1.0, cut.budget.to)).all(1), f"row for {cut.budget.to:g}")
        result = pc.prune(model, cut.method, cut.budget, scope=cut.scope, example_input=example)
        alive = [int(result.sites.groups[name].alive(result.masks).sum()) for name in sites.groups]
        what = f"kept channels at {cut.budget.to:g}"
        compared.same(what, beginning, alive, z["kept"][row])
        small = result.shrink()
        if first.norm == "batch":  # of sigmoid norms a small network has plain ones, with a shift
            compared.same(
                "cost", beginning, (count_macs(small, example), count_parameters(small)), z["macs_params"][row]
            )
        else:
            compared.same("multiply-accumulates", beginning, count_macs(small, example), z["macs_params"][row][0])


# --- i-SpaSP


def selected(plan: Experiments, beginning: str, kind, consumer: str, compared: Compared) -> None:
    """The channels that the command's selection keeps of a block, after as many iterations as the file has."""
    method = stages(plan[0], Prune)[0].method
    compared.same("iterations", "the launch script", method.iterations, 20)
    if (z := compared.arrays("ispasp", beginning)) is None:
        return
    model, x = kind(z).eval(), torch.from_numpy(z["x"]).double()
    seen = [(chunk, None) for chunk in x.split(int(z["bs"]))]
    sites = pc.prune(model, ISpaSP(), 0.0, batches=seen).sites
    (site,) = [name for name, group in sites.groups.items() if group.consumes[0].layer == consumer]
    size, s = len(z["h"]), int(z["s"])
    result = pc.prune(model, replace(method, iterations=int(z["T"])), None, across={site: 1 - s / size}, batches=seen)
    alive = np.flatnonzero(result.sites.groups[site].alive(result.masks))
    compared.same("kept channels", beginning, alive, np.sort(z["support"][-1]))


def tuned(plan: Experiments, compared: Compared) -> None:
    """The learning rates of the fine-tuning at the end, for as many epochs as the file has."""
    if (z := compared.arrays("ispasp", "finetune")) is None:
        return
    theirs, epochs = z["lr_wd_per_step"][:, 0], int(z["epochs"])
    last, steps = stages(plan[0], Train)[-1], len(z["lr_wd_per_step"]) // int(z["epochs"])
    ours = factors(plan[0], last, float(z["lr"]), steps, epochs, len(theirs))
    compared.same("learning rates", "finetune", ours, theirs, rtol=1e-12)


def resnet34(plan: Experiments, compared: Compared) -> None:
    selected(plan, "basic_block_evalbn", ispasp.Block, "conv2", compared)
    tuned(plan, compared)
    if (z := compared.arrays("ispasp", "resnet34_cost")) is None:
        return
    row = z.row((z["ratios"] == (0.4, 0.4, 0.4, 0.7)).all(1) & (z["prune_last"] == 1), "row for .4/.4/.4/.7 last")
    removed = {site: share for cut in stages(plan[0], Prune) for site, share in cut.budget.across.items()}
    found = cost(plan[0].model, removed)
    every = [f"layer{stage}.{b}.conv1" for stage, (blocks, _) in enumerate(STAGES, 1) for b in range(blocks)]
    widths = [found.widths.get(name, STAGES[int(name[5]) - 1][1]) for name in every]
    compared.same("kept channels of every block", "resnet34_cost", widths, z["mid_widths"][row])
    compared.same("parameters", "resnet34_cost", found.parameters, z["params"][row])
    compared.same("multiply-accumulates", "resnet34_cost", found.macs_with_norm, z["flops"][row], rtol=5e-3)


def mobilenet_v2(plan: Experiments, compared: Compared) -> None:
    selected(plan, "inverted_residual_evalbn", ispasp.InvertedResidual, "project", compared)
    tuned(plan, compared)


# --- How sparse


def one_cut(plan: Experiments, key: str, compared: Compared) -> None:
    """The rates of the first epochs, the penalty, and what a cut of the sweep leaves."""
    (experiment,) = plan
    (train,) = stages(experiment, Train)
    if (z := compared.arrays("how_sparse", "lr_official")) is not None:
        steps, rate = int(z["iters_per_epoch"]), experiment.optimizer.lr
        ours = factors(experiment, train, rate, steps, train.epochs, len(z[key]))
        compared.same("learning rates", "lr_official_configs", ours, z[key], rtol=1e-6, atol=1e-9 * rate)
    ((method, _),) = train.penalty or ()
    if (z := compared.arrays("how_sparse", "l1_training_cosine")) is not None:
        model = training.network(training.state_of(z, "init__"), torch.from_numpy(z["X"]))
        value = float(z["lmbda"]) * float(method.penalty(model, Masks()).detach())
        shifts = 1.001e-8 * float(z["lmbda"]) * count_parameters(model)  # of the book's own penalty
        compared.same("penalty", "l1_training_cosine_warmup", value, z["reg_l1_at_init"], atol=shifts)
    cut = stages(experiment, Prune)[0]
    if (z := compared.arrays("how_sparse", "mask_mlp")) is None:
        return
    state = training.state_of(z, "sd__")
    model = nn.Sequential()
    for part in ("conv", "linear"):
        if any(name.startswith(f"{part}.") for name in state):
            model.add_module(part, training.sequence(part, state, last_activation=False))
    model.double().load_state_dict(state)
    order = [str(name) if str(name) in state else f"{name}.weight" for name in z["layer_order"]]
    for kept, theirs, distance in zip(z["n_kept"], z["keep_mask"], z["l2_distance"], strict=True):
        if not kept:  # no sparsity is 1
            continue
        result = pc.prune(model, cut.method, replace(cut.budget, to=1 - int(kept) / theirs.size))
        mine = torch.cat([result.masks[name].flatten() for name in order])
        compared.same("mask", "mask_mlp", mine, theirs)
        weights = torch.cat([state[name].flatten() for name in order])
        compared.same("distance", "mask_mlp", float(weights[~mine].norm()), distance, rtol=1e-12, atol=1e-12)


DURING = (
    "python3 main.py --model ResNet18 --data_set CIFAR10 --prune_criterion SNIPitDuring --pruning_limit 0.98 "
    "--outer_layer_pruning --epochs 80 --prune_delay 4 --prune_freq 4"
)
BEFORE = "python3 main.py --model VGG16 --data_set CIFAR10 --prune_criterion SNAPit --pruning_limit 0.93 --epochs 80"
LARGER = replace(SMALL, data="mnist5k")

TEN: dict[str, Command] = {
    "SNIPitDuring": Command(DURING, weights_during, REFERENCE, SMALL),
    "SNAPit": Command(BEFORE, nodes_before, REFERENCE, replace(LARGER, width=0.05), column="channels_removed"),
    "resnet20": Command("python -m experiment.main cifar/resnet20.yaml", resnet20, Asked(seeds=1, points=2, methods=("SiPP",))),
    "lenet300": Command(
        "python -m experiment.main mnist/lenet300_100.yaml", lenet300, Asked(seeds=1, points=2, methods=("WT",))
    ),
    "rni-vgg16": Command(
        "rni/vgg16-cifar10-rni", lambda plan, c: receded(plan, "sizes_vgg16_sigbn", c), REFERENCE, LARGER,
        column="channels_removed", tolerance=0.1,  # at least three channels stay of the few that a narrow layer has
    ),
    "rni-resnet56": Command(
        "rni/resnet56-cifar10-rni", lambda plan, c: receded(plan, "sizes_resnet56_sigbn", c), REFERENCE,
        replace(SMALL, width=0.5), column="channels_removed", tolerance=0.3,
    ),
    "ispasp-resnet34": Command(
        "python prune_resnet34_ispasp.py --layer4-ratio 0.7 --prune-last-layer --use-lr-sched", resnet34,
        shorter=Shorter(epochs=1, limit=200, data="digits"), column="channels_removed",
    ),
    "ispasp-mobilenet_v2": Command(
        "python prune_mobilenetv2_ispasp.py --use-lr-sched", mobilenet_v2,
        shorter=Shorter(epochs=1, limit=200, data="digits"), column="channels_removed",
    ),
    "alexnet": Command(
        "python main.py", lambda plan, c: one_cut(plan, "alexnet_multistep_lr", c), replace(REFERENCE, points=3),
        replace(SMALL, limit=150, width=0.05), config="configs/AlexNet_CIFAR10_l1.yml",
    ),
    "resnet18": Command(
        "python main.py", lambda plan, c: one_cut(plan, "resnet_cos_lr", c), replace(REFERENCE, points=3),
        config="configs/ResNet18_CIFAR100_l1.yml",
    ),
}  # fmt: skip
"""Name -> command; what follows `python -m pruning_core official`."""


def compared(name: str) -> Compared:
    """The first numbers of a command against the golden files, as far as those go. Raises AssertionError where one differs."""
    found, (wanted, asked) = Compared(), TEN[name].meant()
    every = replace(asked, points=None, methods=())  # of a file all methods and fractions are planned
    try:
        TEN[name].compare(planned(official(wanted), every), found)
    except Absent as absent:
        found.missing.append(str(absent))
    return found


def ran(name: str) -> pd.DataFrame:
    """The rows of a shortened run of a command. Raises AssertionError where they do not say what was asked for."""
    command, (wanted, asked) = TEN[name], TEN[name].meant()
    rows = run_official(wanted, asked, command.shorter, progress=False).rows
    pruned = rows[(rows["method"] != "dense") & (rows["sparsity"] > 0)]
    assert len(pruned), f"{name} has pruned nothing"
    assert rows["accuracy"].between(0, 100).all() and np.isfinite(rows["loss"]).all()
    for row in pruned[pruned["asked"].notna()].to_dict("records"):
        np.testing.assert_allclose(row[command.column], row["asked"], 0, command.tolerance, err_msg=f"{name}: {row}")
    first = planned(official(wanted), asked)[0]
    shares = [cut.budget.across for cut in stages(first, Prune) if isinstance(cut.budget.across, Mapping)]
    if shares:  # of single groups, whose channels cost the same whatever the images are
        fewer = cost(first.model, {}).parameters - cost(first.model, dict(ChainMap(*shares))).parameters
        counted = rows.set_index("label")["parameters"]
        assert counted["dense"] - counted["pruned"] == fewer > 0, f"{name}: {counted.to_dict()}, and not {fewer} fewer"
    else:
        assert pruned["asked"].notna().all()
    return rows


@click.command(epilog="Example: python -m tests.official.ten rni-vgg16 --plan")
@click.argument("names", nargs=-1, type=click.Choice(list(TEN)))
@click.option("--plan", is_flag=True, help="compare with the golden files, and run nothing")
def main(names: tuple[str, ...], plan: bool) -> None:
    """Compare ten official commands, or these NAMES, with the golden files, and run them shortened."""
    failed = 0
    for name in names or TEN:
        print(f"{name}: {TEN[name].line}{f' --config {TEN[name].config}' if TEN[name].config else ''}")
        try:
            found = compared(name)
            for what, where, count, largest in found.lines:
                print(f"    {what}: {count} numbers of {where}, largest difference {largest:.2g}")
            for where in found.missing:
                print(f"    not in the golden files: {where}")
            if not plan:
                rows = ran(name)
                print(
                    f"    ran shortened: {len(rows)} rows, the last one with accuracy {rows['accuracy'].iloc[-1]:.1f}"
                )
        except AssertionError as error:
            failed += 1
            print(f"    FAILED: {error}")
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
