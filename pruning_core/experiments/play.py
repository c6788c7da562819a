"""Playing a timeline: what every stage does to the state of a run, and what happens while it trains."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.errors import CorruptFile, OutOfTime, PruningError
from pruning_core.experiments import stages
from pruning_core.experiments.network_stages import attacked, measured, prune_stage, recalibrate, rewind, shrink
from pruning_core.experiments.state import AGAIN, State, Step
from pruning_core.models.cost import count_macs, training_macs
from pruning_core.models.layers.gates import ChannelGate, HardConcreteGate
from pruning_core.models.layers.scored import Scored
from pruning_core.models.published import load_published
from pruning_core.progress import progress_bar
from pruning_core.training.losses import CrossEntropy, loss_of
from pruning_core.training.trainer import Trainer

SECONDS_BETWEEN_SAVES = 10.0


def play(state: State, step: Step, seed: int, checkpoint: Path | None = None, progress: bool = True) -> None:
    """Do what one step says, in place. ``seed`` is the step's own; ``checkpoint`` is for interrupted trainings."""
    started, stage = time.perf_counter(), step.stage
    if isinstance(stage, stages.Train):
        _train(state, stage, seed, checkpoint, progress)
        return
    if isinstance(stage, stages.Prune):
        prune_stage(state, stage, step, seed)
    elif isinstance(stage, stages.Save):
        state.snapshots[stage.label] = state.snapshot()
    elif isinstance(stage, stages.Load):
        load_published(state.model, state.experiment.model, stage.weights, stage.classes)
    elif isinstance(stage, stages.Rewind):
        rewind(state, stage, seed)
    elif isinstance(stage, stages.Shrink):
        shrink(state)
    elif isinstance(stage, stages.RecalibrateBatchNorm):
        recalibrate(state.model, state.data.train, stage.samples, seed)
    elif isinstance(stage, stages.Measure):
        state.rows.append(measured(state, stage))
    elif isinstance(stage, stages.Attack):
        state.rows += attacked(state, stage, seed)
    state.seconds += time.perf_counter() - started
    if isinstance(stage, stages.Measure):
        state.rows[-1]["seconds"] = state.seconds


def _train(state: State, stage: stages.Train, seed: int, checkpoint: Path | None, progress: bool) -> None:
    data, epochs = state.data, stage.epochs
    log = state.log if checkpoint is not None else None  # trainings only, not what happens within one
    resumed = state.load(checkpoint) if checkpoint is not None and checkpoint.exists() else None
    trainer = _trainer(state, stage, seed)
    if resumed is not None:
        try:
            trainer.load_state_dict(resumed)
        except PruningError as error:
            raise CorruptFile(f"{checkpoint} is a damaged checkpoint: {str(error).rstrip('.')}: {AGAIN}.") from error
    validation = data.validation if stage.keep == "best_validation" or (log and len(data.validation)) else None
    events = {e: i for i, e in enumerate(stage.during.epochs(epochs), 1)} if stage.during else {}
    if trainer.epoch < epochs:
        trainer.check(data.train)  # before a log or a bar begins that has nothing to tell
    cost = count_macs(state.model, state.example)
    saved = time.perf_counter()
    if log:
        log.begin(trainer.epoch, state)
    with (
        log or nullcontext(),
        progress_bar(progress, total=epochs, initial=trainer.epoch, unit="epoch", desc="training", leave=False) as bar,
    ):
        while trainer.epoch < epochs:
            begun = time.perf_counter()
            if log:
                log.before_epoch(state)
            result = trainer.train_epoch(data.train, validation)
            state.epoch += 1
            state.training_macs += training_macs(cost, len(data.train))
            state.last |= {
                "train_loss": result["loss"],
                "train_accuracy": result["accuracy"],
                "precision": trainer.precision,
            }
            if trainer.channels_last:  # rows without the column come from weights as torch lays them by itself
                state.last["channels_last"] = True
            if log:
                log.after_epoch(state, trainer)
            if trainer.epoch in events:
                trainer = _event(state, stage, trainer, events[trainer.epoch], len(events), seed)
                cost = count_macs(state.model, state.example)
            state.seconds += time.perf_counter() - begun
            bar.update()
            over = state.ends is not None and time.time() > state.ends
            long_ago = time.perf_counter() - saved > SECONDS_BETWEEN_SAVES
            if checkpoint is not None and (long_ago or over) and trainer.epoch < epochs:
                state.save(checkpoint, trainer)
                saved = time.perf_counter()
                if over:
                    raise OutOfTime(
                        f"the time is over after epoch {state.epoch}, and the same call goes on from there."
                    )
    if stage.keep == "best_validation":
        trainer.restore_best()
    trainer.take_average()
    state.masks = trainer.masks


def _trainer(state: State, stage: stages.Train, seed: int) -> Trainer:
    penalties = stage.penalty or ()

    def penalty(model: nn.Module) -> torch.Tensor:
        return torch.stack([s * method.penalty(model, state.masks).reshape(()) for method, s in penalties]).sum()

    def pull_(model: nn.Module) -> None:
        for method, strength in penalties:
            method.pull_(model, state.masks, strength)

    asked: dict[str, Any] = {name: getattr(stage, name) for name in ("epochs", "keep", "average")}
    for name in ("optimizer", "learning_rate", "batch_size"):
        asked[name] = getattr(stage, name) or getattr(state.experiment, name)
    either = (stage.precision, state.experiment.precision)
    asked["precision"] = "bfloat16" if "bfloat16" in either else "float32"
    asked["channels_last"] = state.experiment.channels_last
    given = state.experiment.loss
    return Trainer(
        state.model,
        loss=CrossEntropy(stage.label_smoothing) if given is None else loss_of(given),
        masks=state.masks,
        penalty=penalty if penalties else None,
        pull_=pull_ if penalties and all(method.absolute for method, _ in penalties) else None,
        only=trained_only(stage, state.model),
        seed=seed,
        **asked,
    )


def trained_only(stage: stages.Train, model: nn.Module) -> Callable[[str], bool] | None:
    """Which parameters a stage trains, by name: None for all.

    Gates are those of channels and scores of weights; in a network without either, the scales of batch norm.
    """
    if stage.only is None:
        return None
    gates = (HardConcreteGate, ChannelGate, Scored)
    kinds = gates if any(isinstance(module, gates) for module in model.modules()) else _BatchNorm
    layers = {name for name, module in model.named_modules() if isinstance(module, kinds)}
    return lambda name: (name.rpartition(".")[0] in layers and not name.endswith(".bias")) == (stage.only == "gates")


def _event(state: State, training: stages.Train, trainer: Trainer, round: int, of: int, seed: int) -> Trainer:
    """What happens between two epochs; the optimizer goes on with what is left of its state."""
    assert training.during is not None
    for position, stage in enumerate(training.during.stages):
        if not isinstance(stage, stages.Shrink):
            play(state, Step(stage, round, of), seed + 7919 * trainer.epoch + position)
            trainer.masks = state.masks
        elif stage.fresh_optimizer:
            shrink(state)
            fresh = _trainer(state, training, seed)
            fresh.epoch, fresh.history, fresh.generator = trainer.epoch, trainer.history, trainer.generator
            trainer = fresh
        else:
            trainer.slice_state(shrink(state), state.model)
    return trainer
