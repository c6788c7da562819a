"""Playing a timeline: what every stage does to the state of a run.

A run is a flat list of steps, each with its (round, of). After every training the state is kept under the hash of all
steps so far, so a killed run resumes, and experiments that begin alike share their beginning: no dense network is
trained twice.
"""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

from pruning_core.experiments.network_stages import recalibrate, rewind, shrink
from pruning_core.experiments.penalties import bound_penalty, trained_only
from pruning_core.experiments.pruning_stage import prune_stage
from pruning_core.experiments.rows import attacked, measured
from pruning_core.experiments.stages import (
    Attack,
    Every,
    Load,
    Measure,
    Prune,
    RecalibrateBatchNorm,
    Rewind,
    Save,
    Shrink,
    Train,
)
from pruning_core.experiments.state import State
from pruning_core.experiments.steps import Step
from pruning_core.masks.masks import Masks
from pruning_core.models.cost import count_macs, training_macs
from pruning_core.models.published import load_published
from pruning_core.progress import progress_bar
from pruning_core.training.evaluation import CrossEntropy
from pruning_core.training.trainer import Trainer

SECONDS_BETWEEN_SAVES = 10.0


def play(state: State, step: Step, seed: int, checkpoint: Path | None = None, progress: bool = True) -> None:
    """Do what one step says, in place. ``seed`` is the step's own; ``checkpoint`` is for interrupted trainings."""
    started = time.perf_counter()
    before = state.seconds
    stage = step.stage
    if isinstance(stage, Train):
        _train(state, stage, seed, checkpoint, progress)
        return
    if isinstance(stage, Prune):
        prune_stage(state, stage, step, seed)
    elif isinstance(stage, Save):
        state.snapshots[stage.label] = state.snapshot()
    elif isinstance(stage, Load):
        load_published(state.model, state.setting.recipe["name"], stage.weights, stage.classes)
    elif isinstance(stage, Rewind):
        rewind(state, stage, seed)
    elif isinstance(stage, Shrink):
        shrink(state)
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
            penalty=bound_penalty(stage, state),
            only=trained_only(stage, model),
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
            state.training_macs += training_macs(cost, len(data.train))
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
            kept = shrink(state)
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
