"""Playing the stages that train nothing: those that change a network, and those that write down rows about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.checks import checked
from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BudgetError
from pruning_core.experiments.importances import importances, spread
from pruning_core.experiments.stages import Attack, Importances, Measure, Prune, Rewind
from pruning_core.experiments.state import State, Step, built
from pruning_core.masks.groups import Group, any_alive
from pruning_core.masks.masks import Masks
from pruning_core.masks.removal import Kept
from pruning_core.masks.reports import NOTHING_CUT, count_removed, make_report
from pruning_core.masks.schedules import fraction_after
from pruning_core.masks.sites import Sites, find_sites
from pruning_core.methods.base import Method
from pruning_core.methods.shared.objective import statistic
from pruning_core.methods.shrinking import shrunk
from pruning_core.models.calls import tried
from pruning_core.models.modes import evaluating
from pruning_core.pruning import prune_step
from pruning_core.training.attacks import attack
from pruning_core.training.evaluation import evaluate_each
from pruning_core.training.losses import loss_of
from pruning_core.training.trainer_state import lay_out


def scope_of(stage: Prune, step: Step) -> list[str] | None:
    """The layers that a Prune may touch, by pattern: those of the part and those of its own; None for all."""
    return [*(step.part or ()), *(stage.scope or ())] or None


def sites_of(state: State, method: Method, scope: list[str] | None = None) -> Sites:
    """What the method can prune in the network as it is now."""
    channels = method.unit == "channel"
    traced = state.traced() if channels else None
    return find_sites(
        state.model, channels=channels, example_input=state.example, scope=scope, refuses=method.refuses, traced=traced
    )


def prune_stage(state: State, stage: Prune, step: Step, seed: int) -> None:
    """All rounds of a Prune, on a network that may already be smaller than it was built."""
    method, budget = stage.method, stage.budget
    rounds = [(i, stage.rounds) for i in range(1, stage.rounds + 1)] if stage.rounds > 1 else [(step.round, step.of)]
    # Masks change no shape, so the sites are the same in every round; only Shrink makes a new search necessary.
    sites = sites_of(state, method, scope_of(stage, step))
    before = count_removed("weights", state.masks, sites)
    loss = None if state.experiment.loss is None else statistic(loss_of(state.experiment.loss))
    for number, (i, n) in enumerate(rounds):
        masks = Masks.dense(state.model, sites.weights) & state.masks
        now = budget
        if budget.to is not None:
            target = fraction_after(stage.schedule, i, n, budget.to)
            now = replace(budget, to=of_what_is_left(state, sites, target, budget.of))
        batches = _scoring_batches(state, stage, seed + number)
        state.masks = prune_step(
            state.model, method, now, sites, masks, batches, seed + number, None, state.example, loss, i, n
        ).masks
    state.last.pop("remark", None)
    if budget.below is not None and count_removed("weights", state.masks, sites) == before:
        state.last["remark"] = NOTHING_CUT
    state.last |= {"method": method.name, "asked": budget.to, "of": budget.of}
    if sites.groups:
        # Of all channels that the method could remove, in or out of scope, the share that is gone or dead.
        groups = sites_of(state, method).groups
        living = sum(int(group.alive(state.masks).sum()) for group in groups.values())
        state.dense["channels"] = _as_built(state, groups) | state.dense["channels"]
        state.last |= {"channels_removed": 1 - living / sum(state.dense["channels"].values())}


def _as_built(state: State, groups: Mapping[str, Group]) -> dict[str, int]:
    """Group -> its channels in the network as built, where that is known: of one that began smaller; else those of now."""
    built = state.dense.get("built", {})
    return {name: built.get(name, group.size) for name, group in groups.items()}


def _scoring_batches(state: State, stage: Prune, seed: int) -> list[tuple[Tensor, Tensor]] | None:
    if stage.method.needs not in ("inputs", "labels"):
        return None
    generator = torch.Generator().manual_seed(seed)
    return some_batches(getattr(state.data, stage.batches), stage.samples, stage.batch_size, generator)


def of_what_is_left(state: State, sites: Sites, target: float, of: str) -> float:
    """``target`` counts the network as built; after a removal the budget is a fraction of what is still there."""
    if of == "channels":
        sizes = {name: group.size for name, group in sites.groups.items()}
        state.dense[of] = _as_built(state, sites.groups) | state.dense[of]
    else:
        places = sites.positions or {}
        sizes = {n: sites.shapes[n].numel() * (places.get(n, 0) if of == "macs" else 1) for n in sites.weights}
    now, whole = sum(sizes.values()), sum(state.dense[of][name] for name in sizes)
    if now == whole:
        return target
    left = (1 - target) * whole / now
    if left > 1:
        raise BudgetError(f"the network already lacks more than the fraction {target:.4f} of its {of}.")
    # Removing whole channels can overshoot a target in weights by part of a channel.
    return min(max(1 - left, 0.0), 1 - 1e-9)


@torch.no_grad()
def rewind(state: State, stage: Rewind, seed: int) -> None:
    if stage.to == "new":
        values = dict(built(state.experiment, state.data, seed).state_dict())
    elif stage.to in state.snapshots:
        values = state.snapshots[stage.to]
    else:
        raise BadInput(f"nothing was saved as {stage.to!r}; saved: {', '.join(sorted(state.snapshots))}.")
    prunable = set(find_sites(state.model, channels=False).weights)
    for name, tensor in state.model.state_dict().items():
        if stage.what == "weights" and name not in prunable:
            continue
        if name not in values or values[name].shape != tensor.shape:
            raise BadInput(f"{name!r} of {stage.to!r} does not fit the network any more; rewind before Shrink.")
        tensor.copy_(values[name])
    state.masks.apply_(state.model)


def shrink(state: State) -> Kept:
    """Cut dead channels out of the network, its masks and snapshots; returns what is kept."""
    sites = find_sites(state.model, channels=True, example_input=state.example, traced=state.traced())
    state.model, kept = shrunk(state.model, state.masks, sites, state.example)
    lay_out(state.model, state.experiment.channels_last)
    state.masks = kept.masks(state.masks)
    for label, snapshot in state.snapshots.items():
        state.snapshots[label] = {name: kept.slice(name, tensor) for name, tensor in snapshot.items()}
    return kept


@checked
def recalibrate(model: nn.Module, split: Split, samples: int, seed: int = 0) -> None:
    """Replace the running statistics of batch norm by plain averages over ``samples`` of ``split``, in place.

    >>> import pruning_core as pc
    >>> network = nn.BatchNorm2d(1)
    >>> recalibrate(network, pc.load_data("digits").train, samples=256)
    >>> round(float(network.running_var), 1)
    1.0
    """
    momenta = {m: m.momentum for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats}
    if not momenta:
        return
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        for norm in momenta:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        for inputs, _ in some_batches(split, samples, 256, torch.Generator().manual_seed(seed)):
            if len(inputs) > 1:
                tried(model, inputs.to(device))
    for norm, momentum in momenta.items():
        norm.momentum = momentum


def some_batches(split: Split, samples: int, size: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Batches with ``samples`` random samples of a split."""
    size = min(size, samples)
    batches = split.batches(size, generator)
    return [(x[:missing], y[:missing]) for missing, (x, y) in zip(range(samples, 0, -size), batches, strict=False)]


def measured(state: State, stage: Measure) -> dict[str, Any]:
    """Accuracy, sparsity, sizes and costs of the network as it is now.

    ``fitted_accuracy``, ``fitted_loss``: on as many training images as there are test images; ``generalisation_gap``: this
    accuracy minus that on the test images, in points.
    ``dead_layers``: layers without a living weight; ``dead_units``: output rows without one, of the network as built.
    ``by_layer``: "layer:living weights/weights:living rows/rows", of the network as built, separated by spaces. An
    Importances stage adds what importances.spread says, and ``importance``, the method whose scores they are.
    """
    data, model = state.data, state.model
    sites = find_sites(model, channels=False, example_input=state.example)
    report = make_report("", None, "weights", state.masks, sites)
    alive = {of: report.removed[of][1] - report.removed[of][0] for of in ("weights", "macs")}
    whole = {of: sum(state.dense[of].values()) for of in ("weights", "macs")}
    seen = data.train.subset(min(len(data.train), len(data.test)))
    loss = loss_of(state.experiment.loss)
    test, validation, fitted = evaluate_each(model, (data.test, data.validation, seen), loss=loss)
    layers = _by_layer(state)
    spreads = {}
    if isinstance(stage, Importances):
        scores = importances(model, stage.method, state.example, traced=state.traced())
        spreads = {"importance": stage.method.name, **spread(torch.cat(list(scores.values())))}
    return {
        **_about(state, stage),
        "channels_removed": state.last.get("channels_removed", 0.0),
        "sparsity": 1 - alive["weights"] / whole["weights"],
        "macs_removed": 1 - alive["macs"] / whole["macs"],
        "parameters": sum(p.numel() for p in model.parameters()) - report.removed["weights"][0],
        "macs": alive["macs"],
        "training_macs": state.training_macs,
        "accuracy": test.accuracy,
        **({} if test.accuracy5 is None else {"accuracy5": test.accuracy5}),
        "loss": test.loss,
        "validation_accuracy": validation.accuracy,
        "validation_loss": validation.loss,
        "fitted_accuracy": fitted.accuracy,
        "fitted_loss": fitted.loss,
        "generalisation_gap": fitted.accuracy - test.accuracy,
        "dead_layers": sum(weights == 0 for _, weights, _, _, _ in layers),
        "dead_units": sum(rows - living for _, _, _, living, rows in layers),
        "by_layer": " ".join(f"{name}:{alive}/{total}:{living}/{rows}" for name, alive, total, living, rows in layers),
        **spreads,
    }


def attacked(state: State, stage: Attack, seed: int) -> list[dict[str, Any]]:
    """One row an epsilon: ``attack_success`` is the share of images, in [0, 1], that the attack turns (or finds wrong)."""
    test = state.data.test
    inputs, labels = next(iter(test.batches(min(stage.samples, len(test)))))
    options = dict(stage.options)
    result = attack(state.model, inputs, labels, stage.name, epsilons=stage.epsilons, seed=seed, **options)
    about = _about(state, stage) | {"attack": stage.name, "training_macs": state.training_macs}
    return [about | row for row in result.rows()]


def _about(state: State, stage: Measure | Attack) -> dict[str, Any]:
    return {"label": stage.label, "epoch": state.epoch, "method": "dense", "asked": 0.0, "of": "weights", **state.last}


def _by_layer(state: State) -> list[tuple[str, int, int, int, int]]:
    """(layer, living weights, weights as built, living rows, rows as built); a row lives if one of its weights does."""
    found = []
    for name, total in state.dense["weights"].items():
        layer = name.rpartition(".")[0]
        shape = state.model.get_parameter(name).shape
        mask = state.masks.get(name)
        weights = math.prod(shape) if mask is None else int(torch.count_nonzero(mask))
        rows = shape[0] if mask is None else int(any_alive(mask, 0).sum())
        found.append((layer, weights, total, rows, state.dense["rows"][name]))
    return found
