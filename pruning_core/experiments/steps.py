"""A timeline as a flat list of steps, each with its round and the part of the network that it is narrowed to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput
from pruning_core.experiments.stages import Each, Prune, Repeat, Stage
from pruning_core.experiments.state import State
from pruning_core.masks.groups import Group
from pruning_core.masks.tracing import find_groups


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


def some_batches(split, samples: int, size: int, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """Batches with ``samples`` random samples of a split."""
    batches, count = [], 0
    for inputs, labels in split.batches(min(size, samples), generator):
        take = min(len(labels), samples - count)
        batches.append((inputs[:take], labels[:take]))
        count += take
        if count >= samples:
            break
    return batches
