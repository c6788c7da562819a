"""Playing a timeline: what every stage does to the state of a run.

A run is a flat list of steps, each with its (round, of). After every training the state is kept under the hash of all
steps so far, so a killed run resumes, and experiments that begin alike share their beginning: no dense network is
trained twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import NamedTuple

import torch
from torch import Tensor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.budgets import Budget
from pruning_core.discovery import find_groups
from pruning_core.errors import BadInput
from pruning_core.errors import BudgetError
from pruning_core.evaluation import CrossEntropy
from pruning_core.groups import Group
from pruning_core.groups import Kept
from pruning_core.groups import Sites
from pruning_core.layers import ChannelGate
from pruning_core.layers import HardConcreteGate
from pruning_core.masks import Masks
from pruning_core.measure import count_macs
from pruning_core.measure import output_positions
from pruning_core.methods import Method
from pruning_core.models.build import build_model
from pruning_core.models.published import load_published
from pruning_core.pruning import prune_step
from pruning_core.pruning import shrunk
from pruning_core.rows import attacked
from pruning_core.rows import measured
from pruning_core.schedules import fraction_after
from pruning_core.sites import find_sites
from pruning_core.stages import Attack
from pruning_core.stages import Each
from pruning_core.stages import Every
from pruning_core.stages import Load
from pruning_core.stages import Measure
from pruning_core.stages import Prune
from pruning_core.stages import RecalibrateBatchNorm
from pruning_core.stages import Repeat
from pruning_core.stages import Rewind
from pruning_core.stages import Save
from pruning_core.stages import Shrink
from pruning_core.stages import Stage
from pruning_core.stages import Train
from pruning_core.state import Setting
from pruning_core.state import State
from pruning_core.supermasks import Scored
from pruning_core.trainer import Trainer
from pruning_core.training import progress_bar

SECONDS_BETWEEN_SAVES = 10.0


class Step(NamedTuple):
    """One stage to play, as round ``round`` of ``of``, narrowed to the layers of ``part``."""

    stage: Stage
    round: int = 1
    of: int = 1
    part: tuple[str, ...] | None = None


def flatten(stages, model: nn.Module, example_input) -> Iterator[Step]:
    """The steps of a timeline in order: Repeat and Each unrolled."""
    return _unrolled(stages, model, lambda: find_groups(model, example_input), Step(stages))


def steps_of(stages, state: State) -> list[Step]:
    """The steps of a timeline for the network of ``state``, whose groups are searched for once only."""
    return list(_unrolled(stages, state.model, lambda: state.traced()[0], Step(stages)))


def _unrolled(stages, model: nn.Module, groups: Callable[[], list[Group]], around: Step) -> Iterator[Step]:
    for stage in stages:
        if isinstance(stage, Repeat):
            for i in range(1, stage.n + 1):
                yield from _unrolled(stage.stages, model, groups, around._replace(round=i, of=stage.n))
        elif isinstance(stage, Each):
            for part in _parts(stage, model, groups):
                yield from _unrolled(stage.stages, model, groups, around._replace(part=part))
        else:
            yield around._replace(stage=stage)


def _parts(stage: Each, model: nn.Module, find: Callable[[], list[Group]]) -> list[tuple[str, ...]]:
    if not isinstance(stage.parts, str):
        return [(pattern,) for pattern in stage.parts]
    methods = [inner.method for inner in stage.stages if isinstance(inner, Prune)]
    groups = [
        group
        for group in find()
        if group.reason_fixed is None and not any(method.refuses(model, group) for method in methods)  # type: ignore[union-attr]
    ]
    if stage.parts == "groups":
        names = [tuple(dict.fromkeys(m.layer for m in group.produces if not m.is_buffer)) for group in groups]
        if not names:
            raise BadInput(f"{type(model).__name__} has no group of channels that the methods of Each could prune.")
        return names
    kinds = ("Block", "Bottleneck", "InvertedResidual")
    blocks = [n for n, m in model.named_modules() if type(m).__name__.endswith(kinds)]
    if not blocks:
        raise BadInput(f"{type(model).__name__} has no residual blocks; name the parts of Each by patterns.")
    # Blocks without anything to prune inside, such as an inverted residual without expansion, are passed over.
    inside = [n for n in blocks if any(all(m.layer.startswith(f"{n}.") for m in g.produces) for g in groups)]
    if not inside:
        raise BadInput(
            f"no residual block of {type(model).__name__} has channels that the methods of Each could prune."
        )
    return [(f"{name}.*",) for name in inside]


def start(setting: Setting, timeline) -> State:
    """The state before the first stage: the network built after the seed is set, and prepared for its penalties."""
    model = build_model(seed=setting.seed, **_built(setting.recipe)).to(setting.device)
    if setting.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = State(setting, model, Masks())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        for method in _penalties(timeline):
            model = method.prepare(model, state.example)
    state.model = model.to(setting.device)
    positions = output_positions(model, state.example)
    weights = find_sites(model, channels=False).weights
    state.dense = {
        "weights": {name: model.get_parameter(name).numel() for name in weights},
        "macs": {n: model.get_parameter(n).numel() * positions.get(n.rpartition(".")[0], 0) for n in weights},
        "channels": {},
        "rows": {name: len(model.get_parameter(name)) for name in weights},
    }
    state.snapshots["init"] = state.snapshot()
    return state


def _built(recipe: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in recipe.items() if key != "seed"}


def _penalties(stages) -> list[Method]:
    found: list[Method] = []
    for stage in stages:
        inner = getattr(stage, "stages", ())
        if isinstance(stage, Train) and stage.penalty is not None:
            found += [pair[0] for pair in stage.penalty]  # type: ignore[misc, index]
        found += _penalties(inner)
    return list(dict.fromkeys(found))


def play(state: State, step: Step, seed: int, checkpoint: Path | None = None, progress: bool = True) -> None:
    """Do what one step says, in place. ``seed`` is the step's own; ``checkpoint`` is for interrupted trainings."""
    started = time.perf_counter()
    before = state.seconds
    stage = step.stage
    if isinstance(stage, Train):
        _train(state, stage, seed, checkpoint, progress)
        return
    if isinstance(stage, Prune):
        _prune(state, stage, step, seed)
    elif isinstance(stage, Save):
        state.snapshots[stage.label] = state.snapshot()
    elif isinstance(stage, Load):
        load_published(state.model, state.setting.recipe["name"], stage.weights, stage.classes)
    elif isinstance(stage, Rewind):
        _rewind(state, stage, seed)
    elif isinstance(stage, Shrink):
        _shrink(state)
    elif isinstance(stage, RecalibrateBatchNorm):
        recalibrate(state.model, state.setting.data.train, stage.samples, seed)
    elif isinstance(stage, Measure):
        state.rows.append(measured(state, stage))
    elif isinstance(stage, Attack):
        state.rows += attacked(state, stage, seed)
    state.seconds = before + time.perf_counter() - started
    if isinstance(stage, Measure):
        state.rows[-1]["seconds"] = state.seconds


def _train(state: State, stage: Train, seed: int, checkpoint: Path | None, progress: bool) -> None:
    setting, data = state.setting, state.setting.data
    epochs = stage.epochs

    def trainer_for(model: nn.Module, masks: Masks) -> Trainer:
        return Trainer(
            model,
            stage.optimizer or setting.optimizer,
            epochs=epochs,
            learning_rate=stage.learning_rate or setting.learning_rate,
            batch_size=stage.batch_size or setting.batch_size,
            loss=CrossEntropy(stage.label_smoothing),
            masks=masks,
            penalty=_bound_penalty(stage, state),
            only=_only(stage, model),
            precision=stage.precision,
            channels_last=setting.channels_last,
            seed=seed,
            keep=stage.keep,
            average=stage.average,
        )

    resumed = state.load(checkpoint) if checkpoint is not None and checkpoint.exists() else None
    trainer = trainer_for(state.model, state.masks)
    if resumed is not None:
        trainer.load_state_dict(resumed)
    events = {e: i for i, e in enumerate(stage.during.epochs(epochs), 1)} if stage.during else {}
    cost = count_macs(state.model, state.example)
    saved = time.perf_counter()
    with progress_bar(progress, total=epochs, initial=trainer.epoch, unit="epoch", desc="training", leave=False) as bar:
        while trainer.epoch < epochs:
            begun = time.perf_counter()
            result = trainer.train_epoch(data.train, data.validation if stage.keep == "best_validation" else None)
            state.epoch += 1
            state.training_macs += 3.0 * cost * len(data.train)
            state.last |= {"train_loss": result["loss"], "train_accuracy": result["accuracy"]}
            if trainer.epoch in events and stage.during is not None:
                trainer = _event(state, stage.during, trainer, events, trainer_for, seed)
                cost = count_macs(state.model, state.example)
            state.seconds += time.perf_counter() - begun
            bar.update()
            if (
                checkpoint is not None
                and time.perf_counter() - saved > SECONDS_BETWEEN_SAVES
                and trainer.epoch < epochs
            ):
                state.save(checkpoint, trainer)
                saved = time.perf_counter()
    if stage.keep == "best_validation":
        trainer.restore_best()
    trainer.take_average()
    state.masks = trainer.masks


def _event(state: State, every: Every, trainer: Trainer, events: dict[int, int], trainer_for, seed: int) -> Trainer:
    """What happens between two epochs; the optimizer goes on with what is left of its state."""
    for position, stage in enumerate(every.stages):
        step = Step(stage, events[trainer.epoch], len(events))
        if isinstance(stage, Shrink):
            kept = _shrink(state)
            if stage.fresh_optimizer:
                fresh = trainer_for(state.model, state.masks)
                fresh.epoch, fresh.history, fresh.generator = trainer.epoch, trainer.history, trainer.generator
                trainer = fresh
            elif kept is not None:
                trainer.slice_state(kept, state.model)
        else:
            play(state, step, seed + 7919 * trainer.epoch + position)
            trainer.masks = state.masks
    return trainer


def _bound_penalty(stage: Train, state: State):
    if stage.penalty is None:
        return None
    pairs: tuple[tuple[Method, float], ...] = stage.penalty  # type: ignore[assignment]
    return lambda model: torch.stack([s * m.penalty(model, state.masks).reshape(()) for m, s in pairs]).sum()


def _only(stage: Train, model: nn.Module):
    """Which parameters a stage trains: None for all."""
    if stage.only is None:
        return None
    gates = _gate_names(model)
    return lambda name: (name in gates) == (stage.only == "gates")


def _gate_names(model: nn.Module) -> set[str]:
    """Parameters of gates, and scores of weights; in a network without either, the scales of batch norm."""
    gates = (HardConcreteGate, ChannelGate, Scored)
    kinds = gates if any(isinstance(module, gates) for module in model.modules()) else _BatchNorm
    return {
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if isinstance(module, kinds)
        for leaf, _ in module.named_parameters(recurse=False)
        if leaf != "bias"
    }


def _prune(state: State, stage: Prune, step: Step, seed: int) -> None:
    method: Method = stage.method  # type: ignore[assignment]
    budget: Budget = stage.budget  # type: ignore[assignment]
    scope = list(step.part or ()) + list(stage.scope or ()) or None
    rounds = [(i, stage.rounds) for i in range(1, stage.rounds + 1)] if stage.rounds > 1 else [(step.round, step.of)]
    # Masks change no shape, so the sites are the same in every round; only Shrink makes a new search necessary.
    channels = method.unit == "channel"
    traced = state.traced() if channels else None
    sites = find_sites(
        state.model,
        channels=channels,
        example_input=state.example,
        scope=scope,
        refuses=method.refuses,
        traced=traced,
    )
    for number, (i, n) in enumerate(rounds):
        masks = Masks.dense(state.model, sites.weights) & state.masks
        now = budget
        if budget.to is not None:
            target = fraction_after(stage.schedule, i, n, budget.to)
            now = replace(budget, to=_of_what_is_left(state, sites, target, budget.of))
        generator = torch.Generator().manual_seed(seed + number)
        batches = None
        if method.needs in ("inputs", "labels"):
            split = state.setting.data.train if stage.batches == "train" else state.setting.data.score
            if stage.batches == "score" and stage.samples > len(split):
                raise BadInput(
                    f"{stage.samples} samples were asked for, but the split for scoring holds {len(split)}; "
                    "ask for fewer, or use batches='train'."
                )
            batches = _some(split, stage.samples, stage.batch_size, generator)
        choice = prune_step(
            state.model, method, now, sites, masks, batches, seed + number, None, state.example, round=i, of=n
        )
        state.masks = choice.masks
    state.last |= {"method": method.name, "asked": budget.to, "of": budget.of}
    if sites.groups:
        state.last |= {"channels_removed": _channels_removed(state, method)}


def _channels_removed(state: State, method: Method) -> float:
    """Share of all channels that the method could remove, in or out of scope, that is gone or dead."""
    sites = find_sites(
        state.model, channels=True, example_input=state.example, refuses=method.refuses, traced=state.traced()
    )
    for name, group in sites.groups.items():
        state.dense["channels"].setdefault(name, group.size)
    living = sum(int(group.alive(state.masks).sum()) for group in sites.groups.values())
    return 1 - living / sum(state.dense["channels"].values())


def _of_what_is_left(state: State, sites: Sites, target: float, of: str) -> float:
    """``target`` counts the network as built; after a removal the budget is a fraction of what is still there."""
    for name, group in sites.groups.items():
        state.dense["channels"].setdefault(name, group.size)
    if of == "channels":
        names, now = list(sites.groups), sum(group.size for group in sites.groups.values())
    else:
        names = list(sites.weights)
        positions = sites.positions or {}
        now = sum(sites.shapes[n].numel() * (positions.get(n, 0) if of == "macs" else 1) for n in names)
    whole = sum(state.dense[of][name] for name in names)
    if now == whole:
        return target
    left = (1 - target) * whole / now
    if left > 1:
        raise BudgetError(f"the network already lacks more than the fraction {target:.4f} of its {of}.")
    # Removing whole channels can overshoot a target in weights by part of a channel.
    return min(max(1 - left, 0.0), 1 - 1e-9)


def _some(split, samples: int, size: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Batches with ``samples`` random samples of a split."""
    batches, count = [], 0
    for inputs, labels in split.batches(min(size, samples), generator):
        take = min(len(labels), samples - count)
        batches.append((inputs[:take], labels[:take]))
        count += take
        if count >= samples:
            break
    return batches


@torch.no_grad()
def _rewind(state: State, stage: Rewind, seed: int) -> None:
    if stage.to == "new":
        fresh = build_model(seed=seed, **_built(state.setting.recipe))
        values = dict(fresh.state_dict())
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


def _shrink(state: State) -> Kept | None:
    sites = find_sites(state.model, channels=True, example_input=state.example, traced=state.traced())
    small, kept = shrunk(state.model, state.masks, sites, state.example)
    state.model, state.masks = small, kept.masks(state.masks)
    for label, snapshot in state.snapshots.items():
        state.snapshots[label] = {name: kept.slice(name, tensor) for name, tensor in snapshot.items()}
    return kept


def recalibrate(model: nn.Module, split, samples: int, seed: int = 0) -> None:
    """Replace the running statistics of batch norm by plain averages over ``samples`` of ``split``, in place."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    modes = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    device = next(model.parameters()).device
    with torch.no_grad():
        for inputs, _ in _some(split, samples, 256, torch.Generator().manual_seed(seed)):
            if len(inputs) > 1:
                model(inputs.to(device))
    for norm, momentum in momenta.items():
        norm.momentum = momentum
    for module, mode in modes.items():
        module.training = mode
