"""The criteria of SNIP-it's code as timelines: when each of them prunes, on what, and how far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pruning_core.checks import Real, Whole, check
from pruning_core.errors import BadInput
from pruning_core.experiments.recipes.chapters import tick_tock
from pruning_core.experiments.recipes.general import Timeline, snip_it_rounds
from pruning_core.experiments.stages import (
    Every,
    Measure,
    Prune,
    RecalibrateBatchNorm,
    Rewind,
    Save,
    Shrink,
    Stage,
    Train,
    to,
)
from pruning_core.masks.budgets import Budget
from pruning_core.masks.schedules import tick_tock_rounds
from pruning_core.methods.cnip import Cnip
from pruning_core.methods.grasp import Grasp
from pruning_core.methods.l0 import L0
from pruning_core.methods.snap import Snap
from pruning_core.methods.snip import Snip

Flags = Mapping[str, Any]
BATCHES = 5  # of the statistic, each as large as a batch of the training
SMALL = 1e-3  # weights below it go after a training with a Hoyer penalty


def timeline(
    criterion: str, flags: Flags, images: int, scope: tuple[str, ...] | None = None, reference: bool = False
) -> Timeline:
    """What a run with this criterion does. ``images``: of the training set, for L0; ``scope`` as in Prune."""
    kinds = {"SNIP": Snip, "SNAP": Snap, "CNIP": Cnip}
    loss: Any = "nll_logits" if reference else "training"
    if criterion.startswith(tuple(kinds)):
        method = kinds[criterion[:4]](loss=loss)
        return _by_sensitivity(method, criterion[4:], flags, scope, shrink=criterion[:4] != "SNIP")
    if criterion == "GRASP":
        return [_cut(Grasp(loss=loss, reference=reference), flags, scope), *_trained(flags)]
    if criterion == "UnstructuredRandom":
        return [_cut("random", flags, scope), *_trained(flags)]
    if criterion == "StructuredRandom":
        spread = Budget(_limit(flags), of="channels", across="layer")
        return [Prune("random_channels", spread), Shrink(), *_trained(flags)]
    own: dict[str, Callable[[], Timeline]] = {
        "EmptyCrit": lambda: _trained(flags),
        "IMP": lambda: _imp(flags, scope),
        "HoyerSquare": lambda: _hoyer("hoyer_square", flags, "weights", scope),
        "GroupHoyerSquare": lambda: _hoyer("group_hoyer_square", flags, "channels", None),
        "EfficientConvNets": lambda: _after_training(_cut("efficient_convnets", flags), flags),
        "GateDecorators": lambda: _gates(flags),
        "L0": lambda: _l0(flags, images),
    }  # fmt: skip
    return own[criterion]()


def _limit(flags: Flags) -> float:
    return float(check("--pruning_limit", flags["pruning_limit"], Real(at_least=0, below=1)))


def _penalties(flags: Flags) -> list[tuple[str, float]]:
    return [(name, flags[f"{name}_reg"]) for name in ("l1", "lp") if flags[f"{name}_reg"]]


def _training(epochs: int, flags: Flags, **options: Any) -> Train:
    return Train(epochs, penalty=[*options.pop("penalty", []), *_penalties(flags)] or None, **options)


def _trained(flags: Flags) -> Timeline:
    return [_training(flags["epochs"], flags)]


def _cut(method: Any, flags: Flags, scope: tuple[str, ...] | None = None, **options: Any) -> Prune:
    size = flags["batch_size"]
    return Prune(method, to(_limit(flags), method), scope=scope, samples=BATCHES * size, batch_size=size, **options)


def _steps(flags: Flags) -> int:
    return snip_it_rounds(flags["snip_steps"])


def _events(flags: Flags, stages: tuple[Stage, ...], times: int | None = None, since: int = 0) -> Every:
    """Events after epochs delay + freq, delay + 2 freq, ... counted from 0, in a training that begins after ``since``."""
    every = check("--prune_freq", flags["prune_freq"], Whole(at_least=1))
    after = check("--prune_delay", flags["prune_delay"], Whole(at_least=0)) + 1 - since
    return Every(every, stages, max(after, -(-after % every) if after < 0 else after), times)


def _by_sensitivity(method: Any, kind: str, flags: Flags, scope: tuple[str, ...] | None, shrink: bool) -> Timeline:
    """SNIP, SNAP or CNIP: at once, "it" in steps before the training, or "itDuring" it."""
    if kind == "itDuring":
        cut = _cut(method, flags, scope, schedule="snip_it")
        stages = (cut, Shrink(fresh_optimizer=True)) if shrink else (cut,)
        return [_training(flags["epochs"], flags, during=_events(flags, stages, _steps(flags)))]
    steps = {"rounds": _steps(flags), "schedule": "snip_it"} if kind == "it" else {}
    return [_cut(method, flags, scope, **steps), *([Shrink()] if shrink else []), *_trained(flags)]


def _imp(flags: Flags, scope: tuple[str, ...] | None) -> Timeline:
    """Magnitude pruning in SNIP-it's steps during training; with rewinding to the weights after epoch ``rewind_to``."""
    cut = _cut("magnitude", flags, scope, schedule="snip_it")
    epochs, early = flags["epochs"], check("--rewind_to", flags["rewind_to"], Whole(at_least=0)) + 1
    if not flags["enable_rewinding"]:
        return [_training(epochs, flags, during=_events(flags, (cut,), _steps(flags)))]
    if early >= epochs:
        raise BadInput(f"--rewind_to {early - 1} lies beyond the last of {epochs} epochs, which count from 0.")
    events = _events(flags, (cut, Rewind("early", what="weights")), _steps(flags), since=early)
    return [_training(early, flags), Save("early"), _training(epochs - early, flags, during=events)]


def _after_training(
    cut: Prune, flags: Flags, penalty: tuple[tuple[str, float], ...] = (), shrink: bool = True
) -> Timeline:
    """One cut at the first event, fine-tuning without the penalty for the epochs that are left."""
    first = flags["prune_delay"] + flags["prune_freq"] + 1
    rest = flags["epochs"] - first
    if rest < 0:
        raise BadInput(f"the only cut comes after {first} epochs, of {flags['epochs']}: lower --prune_delay.")
    shrinks: Timeline = [Shrink()] if shrink else []
    return [_training(first, flags, penalty=list(penalty)), cut, *shrinks, Measure("pruned"), _training(rest, flags)]


def _hoyer(name: str, flags: Flags, of: Any, scope: tuple[str, ...] | None) -> Timeline:
    cut = Prune(name, Budget(below=SMALL, of=of), scope=scope)
    return _after_training(cut, flags, ((name, flags["hoyer_reg"]),), shrink=of == "channels")


def _gates(flags: Flags) -> Timeline:
    """A network of 80 epochs, then ticks and tocks in turns of ten epochs, and what is left of the epochs to fine-tune."""
    limit, turns = _limit(flags), 10
    ticks = tick_tock_rounds(limit) - 1
    left = flags["epochs"] - ticks - turns * -(-ticks // turns)
    if left < 0:
        raise BadInput(f"{flags['epochs']} epochs are {-left} too few for the ticks and tocks to {limit:g}.")
    size = flags["batch_size"]
    stages = tick_tock(limit, 80, left, turns, turns)
    return [
        replace(stage, samples=BATCHES * size, batch_size=size) if isinstance(stage, Prune) else stage
        for stage in stages
        if not isinstance(stage, RecalibrateBatchNorm)  # which the official code does not know
    ]


def _l0(flags: Flags, images: int) -> Timeline:
    """Gates are trained with the expected L0 norm and the decay of the weights behind them; shut ones are cut out."""
    strength = check("--l0_reg", flags["l0_reg"], Real(above=0))
    method = L0(weight_decay=flags["l2_reg"] * images / strength)
    train = _training(flags["epochs"], flags, penalty=[(method, strength / images)], average=flags["beta_ema"])
    return [train, Prune(method, Budget(below=0.0, of="channels")), Shrink()]
