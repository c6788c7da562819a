"""The state of a run: what changes, how it begins, and how it is kept on disk so that a killed run goes on. And its steps: a
timeline as a flat list, each step with its round and the part of the network that it is narrowed to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.checks import A, Constraints, OneOf, Real, Text, Whole, check, check_finite
from pruning_core.checks.arguments import Named
from pruning_core.data.loading import Data, load_data
from pruning_core.errors import BadInput, CorruptFile, PruningError
from pruning_core.experiments.network_file import begun
from pruning_core.experiments.stages import Each, Prune, Repeat, Stage, Train
from pruning_core.experiments.timelines import every_stage
from pruning_core.masks.groups import Group
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.masks.tracing import groups_and_positions
from pruning_core.models.build import build_model
from pruning_core.models.cost import output_positions
from pruning_core.models.storage import fit_tensors
from pruning_core.records.checkpoints import join_parts, load_tensors, save_tensors, split_parts
from pruning_core.records.rows import Rows, check_entries
from pruning_core.records.table import storable
from pruning_core.training.trainer import Trainer
from pruning_core.training.trainer_state import lay_out

if TYPE_CHECKING:
    from pruning_core.experiments.experiment import Experiment
    from pruning_core.experiments.watching import Log

KEPT = Constraints(
    dense=Named(OneOf("weights", "macs", "rows", "channels", "built"), Named(Text(), Whole(at_least=0))),
    rows=Rows(),
    epoch=Whole(0, 2**53),
    training_macs=Real(at_least=0),
    seconds=Real(at_least=0),
    last=A(dict, "a mapping"),
)
"""What a checkpoint keeps of a state as JSON."""
AGAIN = "delete it, and it is made again"
OPTIONS_OF_DATA = ("device", "normalise", "augment", "limit", "random_labels")
"""The fields of an experiment by which its data are loaded."""


@dataclass
class State:
    """What changes: the network, its masks, snapshots, counters, and the rows measured so far.

    ``dense``: what the network had when it was built, of each "weights", "macs" and "rows" (by weight) and "channels" (by
    group, those that were pruned so far; "built": all, of a network that began smaller); ``last``: columns of the rows to
    come, from the last training and the last cut; ``ends``: when to stop, as of time.time(); ``log``: of a watched run.
    """

    experiment: Experiment
    data: Data
    model: nn.Module
    masks: Masks
    snapshots: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    dense: dict[str, dict[str, int]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    training_macs: float = 0.0
    seconds: float = 0.0
    last: dict[str, Any] = field(default_factory=dict)
    ends: float | None = None
    log: Log | None = None
    _traced: tuple[Any, Any] = (None, None)

    def traced(self) -> tuple[list[Group], dict[str, int]]:
        """The channel groups and output positions of the network as it is now; searched for again when shapes change."""
        shapes = [(name, tensor.shape) for name, tensor in self.model.state_dict().items()]
        if self._traced[0] != shapes:
            self._traced = (shapes, groups_and_positions(self.model, self.example))
        return self._traced[1]

    @property
    def example(self) -> Tensor:
        """One sample, on the device; fixed, so that counts never depend on a shuffle."""
        return next(iter(self.data.train.batches(1)))[0].to(self.experiment.device)

    def save(self, path: Path, trainer: Trainer | None = None) -> None:
        """Write everything needed to go on, atomically. The file knows its own name, and is believed under no other."""
        parts: dict[str, Mapping[str, Tensor]] = {"model": self.model.state_dict(), "mask": self.masks}
        parts |= {f"snapshot:{label}": snapshot for label, snapshot in self.snapshots.items()}
        info: dict[str, Any] = {"kind": "run", "name": path.stem} | {name: getattr(self, name) for name in KEPT}
        if trainer is not None:
            parts["trainer"], info["trainer"] = trainer.state_dict()
        save_tensors(path, join_parts(parts), info)

    def load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Take over a saved state; returns the trainer's own part, if there is one. CorruptFile says what to delete."""
        try:
            tensors, info = load_tensors(path)
        except PruningError as error:
            raise CorruptFile(f"{error} Delete it, and it is made again.") from error
        complete = info.keys() >= KEPT.keys() and isinstance(info.get("trainer", {}), dict)
        if info.get("kind") != "run" or info.get("name") != path.stem or not complete:
            raise CorruptFile(f"{path} is not the checkpoint that belongs there: {AGAIN}.")
        parts = split_parts(tensors)
        try:
            kept = {name: check(f"its {name}", info[name], constraint) for name, constraint in KEPT.items()}
            check_entries(
                [{name: storable(row[name], name) for name in row} for row in kept["rows"]], "the {} of its rows"
            )
            for of in ("weights", "macs", "rows"):
                if kept["dense"].get(of) != self.dense[of]:
                    raise BadInput(f"its {of} are those of another network.")
            masks, snapshots = Masks(parts.get("mask", {})), split_parts(parts.get("snapshot", {}))
            if lost := self.snapshots.keys() - snapshots.keys():
                raise BadInput(f"its snapshot {sorted(lost)[0]!r} is missing.")
            for label, snapshot in snapshots.items():
                for name, tensor in snapshot.items():
                    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                        raise BadInput(f"{name!r} of its snapshot {label!r} holds NaN or infinite values.")
            fit_tensors(self.model, parts.get("model", {}), str(path))
            check_finite(self.model)
            masks.check(self.model)
        except PruningError as error:
            raise CorruptFile(f"{path} is a damaged checkpoint: {str(error).rstrip('.')}: {AGAIN}.") from error
        self.model.to(self.experiment.device)
        lay_out(self.model, self.experiment.channels_last)
        self.masks, self.snapshots = masks, snapshots
        for name, value in kept.items():
            setattr(self, name, value)
        return (parts.get("trainer", {}), info["trainer"]) if "trainer" in info else None

    def snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}


def built(experiment: Experiment, data: Data, seed: int) -> nn.Module:
    """The network of an experiment, with fresh weights."""
    size = (data.shape, data.classes)
    e = experiment
    return build_model(e.model, size, width=e.width, norm=e.norm, start=e.start, seed=seed)


def start(experiment: Experiment, data: Data | None = None) -> State:
    """The state before the first stage: the network built after the seed is set, and prepared for its penalties; ``data``,
    where they are loaded already."""
    if data is None:
        data = load_data(experiment.data, **{option: getattr(experiment, option) for option in OPTIONS_OF_DATA})
    for stage in every_stage(experiment.timeline):
        if not isinstance(stage, Prune) or stage.method.needs not in ("inputs", "labels"):
            continue
        if stage.batches == "score" and stage.samples > len(data.score):
            raise BadInput(
                f"{stage.samples} samples were asked for, but the split for scoring holds {len(data.score)}; "
                "ask for fewer, or use batches='train'."
            )
    dense = built(experiment, data, experiment.seed)
    model = begun(experiment.network, dense) if experiment.network else dense
    state = State(experiment, data, model.to(experiment.device), Masks.carried(model))
    trainings = [stage for stage in every_stage(experiment.timeline) if isinstance(stage, Train)]
    methods = dict.fromkeys(method for training in trainings for method, _ in training.penalty or ())

    def prepared(network: nn.Module) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(experiment.seed)
            for method in methods:
                network = method.prepare(network, state.example)
        return network.to(experiment.device)

    state.model = prepared(model)
    lay_out(state.model, experiment.channels_last)  # from the start, so that it does not matter where a run goes on
    state.dense = _sizes(prepared(dense) if dense is not model else state.model, state.example)
    if experiment.network:
        _count_what_is_gone(state, dense)
    state.snapshots["init"] = state.snapshot()
    return state


def _sizes(model: nn.Module, example: Tensor) -> dict[str, dict[str, int]]:
    """What a network has: ``State.dense`` at the beginning."""
    positions = output_positions(model, example)
    weights = {name: model.get_parameter(name) for name in find_sites(model, channels=False).weights}
    return {
        "weights": {name: weight.numel() for name, weight in weights.items()},
        "macs": {name: weight.numel() * positions.get(name.rpartition(".")[0], 0) for name, weight in weights.items()},
        "channels": {},
        "rows": {name: len(weight) for name, weight in weights.items()},
    }


def _count_what_is_gone(state: State, dense: nn.Module) -> None:
    """Channels that a network from a file lacks count as removed, and a pruned one is not called dense."""
    shapes = {name: parameter.shape for name, parameter in state.model.named_parameters()}
    if lost := state.masks.keys() - shapes.keys():
        raise BadInput(
            f"the mask of {sorted(lost)[0]!r} in the file of the network is of a layer that a penalty replaces."
        )
    smaller = any(shapes.get(name, p.shape) != p.shape for name, p in dense.named_parameters())
    if smaller:
        groups, _ = groups_and_positions(dense, state.example)
        state.dense["built"] = {group.name: group.size for group in groups}
    if smaller or state.masks:
        state.last |= {"method": "network file", "asked": None, "channels_removed": None}


class Step(NamedTuple):
    """One stage to play, as round ``round`` of ``of``, narrowed to the layers of ``part``."""

    stage: Stage
    round: int = 1
    of: int = 1
    part: tuple[str, ...] | None = None


def flatten(
    stages: Iterable[Stage], model: nn.Module | None, groups: Callable[[], list[Group]], **place: Any
) -> Iterator[Step]:
    """The steps of a timeline in order, Repeat and Each unrolled; ``groups()`` gives the channel groups, where they matter,
    ``place`` the round, of and part of all steps that are not in a Repeat or an Each among the stages."""
    for stage in stages:
        if isinstance(stage, Repeat):
            for i in range(1, stage.n + 1):
                yield from flatten(stage.stages, model, groups, **place | {"round": i, "of": stage.n})
        elif isinstance(stage, Each):
            for part in _parts(stage, model, groups):
                yield from flatten(stage.stages, model, groups, **place | {"part": part})
        else:
            yield Step(stage, **place)


def blocks(model: nn.Module) -> list[str]:
    """The names of a network's residual blocks: torchvision's, and all modules whose attribute ``is_block`` is true."""
    from torchvision import models

    kinds = attrgetter(
        "resnet.BasicBlock", "resnet.Bottleneck", "regnet.ResBottleneckBlock", "mobilenetv2.InvertedResidual",
        "mobilenetv3.InvertedResidual", "mnasnet._InvertedResidual", "efficientnet.MBConv", "efficientnet.FusedMBConv",
        "convnext.CNBlock", "vision_transformer.EncoderBlock", "swin_transformer.SwinTransformerBlock",
        "maxvit.MaxVitBlock",
    )(models)  # fmt: skip
    return [n for n, m in model.named_modules() if isinstance(m, kinds) or getattr(m, "is_block", False)]


def _parts(stage: Each, model: nn.Module | None, find: Callable[[], list[Group]]) -> list[tuple[str, ...]]:
    if not isinstance(stage.parts, str):
        return [(pattern,) for pattern in stage.parts]
    assert model is not None, "only the network itself knows its blocks and groups"
    kind = type(model).__name__
    if stage.parts == "blocks" and not blocks(model):
        raise BadInput(
            f"{kind} has no residual blocks that are known: set is_block = True in the class of its blocks, "
            "or name the parts of Each by patterns."
        )
    methods = [inner.method for inner in stage.stages if isinstance(inner, Prune)]
    groups = [g for g in find() if g.reason_fixed is None and not any(m.refuses(model, g) for m in methods)]
    if stage.parts == "groups":
        parts = [tuple(dict.fromkeys(m.layer for m in group.produces if not m.is_buffer)) for group in groups]
    else:
        # Blocks without anything to prune inside, such as an inverted residual without expansion, are passed over.
        inside = [n for n in blocks(model) if any(all(m.layer.startswith(f"{n}.") for m in g.produces) for g in groups)]
        parts = [(f"{name}.*",) for name in inside]
    if not parts:
        what = "group" if stage.parts == "groups" else "residual block with a group"
        raise BadInput(f"{kind} has no {what} of channels that the methods of Each could prune.")
    return parts


def epochs_in(halfway: Path) -> int:
    """The epochs of a training that its checkpoint within it holds; none of a damaged one, which says so when it is loaded."""
    try:
        return int(load_tensors(halfway)[1]["trainer"]["epoch"])
    except (KeyError, TypeError, ValueError, OverflowError):  # BadInput is a ValueError
        return 0
