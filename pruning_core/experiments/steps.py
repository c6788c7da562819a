"""A timeline as a flat list of steps, each with its round and the part of the network that it is narrowed to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from torch import nn

from pruning_core.errors import BadInput
from pruning_core.experiments.stages import Each, Prune, Repeat, Stage
from pruning_core.masks.groups import Group


class Step(NamedTuple):
    """One stage to play, as round ``round`` of ``of``, narrowed to the layers of ``part``."""

    stage: Stage
    round: int = 1
    of: int = 1
    part: tuple[str, ...] | None = None


def flatten(
    stages: Iterable[Stage],
    model: nn.Module,
    groups: Callable[[], list[Group]],
    round: int = 1,
    of: int = 1,
    part: tuple[str, ...] | None = None,
) -> Iterator[Step]:
    """The steps of a timeline in order, Repeat and Each unrolled; ``groups()`` gives the channel groups, where they matter."""
    for stage in stages:
        if isinstance(stage, Repeat):
            for i in range(1, stage.n + 1):
                yield from flatten(stage.stages, model, groups, i, stage.n, part)
        elif isinstance(stage, Each):
            for inner in _parts(stage, model, groups):
                yield from flatten(stage.stages, model, groups, round, of, inner)
        else:
            yield Step(stage, round, of, part)


def blocks(model: nn.Module) -> list[str]:
    """The names of a network's residual blocks: torchvision's, and all modules whose attribute ``is_block`` is true."""
    from torchvision import models

    kinds = (
        models.resnet.BasicBlock,
        models.resnet.Bottleneck,
        models.regnet.ResBottleneckBlock,
        models.mobilenetv2.InvertedResidual,
        models.mobilenetv3.InvertedResidual,
        models.mnasnet._InvertedResidual,
        models.efficientnet.MBConv,
        models.efficientnet.FusedMBConv,
        models.convnext.CNBlock,
        models.vision_transformer.EncoderBlock,
        models.swin_transformer.SwinTransformerBlock,
        models.maxvit.MaxVitBlock,
    )
    return [n for n, m in model.named_modules() if isinstance(m, kinds) or getattr(m, "is_block", False)]


def _parts(stage: Each, model: nn.Module, find: Callable[[], list[Group]]) -> list[tuple[str, ...]]:
    if not isinstance(stage.parts, str):
        return [(pattern,) for pattern in stage.parts]
    kind = type(model).__name__
    named = blocks(model) if stage.parts == "blocks" else []
    if stage.parts == "blocks" and not named:
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
        inside = [n for n in named if any(all(m.layer.startswith(f"{n}.") for m in g.produces) for g in groups)]
        parts = [(f"{name}.*",) for name in inside]
    if not parts:
        what = "group" if stage.parts == "groups" else "residual block with a group"
        raise BadInput(f"{kind} has no {what} of channels that the methods of Each could prune.")
    return parts
