"""What one epoch goes through: how many steps, which batches, and the state in which a network is trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.data.feeds import Feed
from pruning_core.data.splits import Split
from pruning_core.models.calls import samples
from pruning_core.models.modes import modes_kept


def steps_of(data: Split | Feed, size: int, most: int | None, merging: bool) -> int | None:
    """Steps of an epoch in batches of ``size``, ``most`` at most; None where batches have no length and there is no most."""
    if isinstance(data, Feed):
        known = data.steps()
        return most if known is None else min(known, most or known)
    full, rest = divmod(len(data), size)
    steps = full + (rest > 0) - (merging and len(data) > size > 1 == rest)
    return min(steps, most or steps)


def epoch_batches(
    data: Split | Feed, size: int, order: torch.Generator | None, most: int | None, merging: bool
) -> Iterator[tuple[Any, Any]]:
    """The batches of an epoch; with ``merging`` a single sample joins the batch before it."""
    batches = islice(data.batches(size, order), most)
    if not merging:
        yield from batches
        return
    if (held := next(batches, None)) is None:
        return
    for batch in batches:
        if samples(batch[0]) == 1:
            held = _joined(held, batch)
        else:
            yield held
            held = batch
    yield held


def _joined(one: Any, other: Any) -> Any:
    """Two batches, nested alike, as one."""
    if isinstance(one, Tensor):
        return torch.cat([one, other]) if one.dim() else one
    if isinstance(one, dict):
        return {key: _joined(entry, other[key]) for key, entry in one.items()}
    return type(one)(map(_joined, one, other)) if isinstance(one, tuple | list) else one


def channels_last(tensor: Tensor) -> Tensor:
    """A batch of images with the channels of each pixel side by side in memory; anything else as it is."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


@contextmanager
def training(model: nn.Module, trained: Sequence[nn.Parameter]) -> Iterator[None]:
    """Training mode, gradients only for what is trained; afterwards modes and flags are as before, no gradient left.

    A network in training mode keeps the parts that its user put into evaluation mode, as norms with fixed statistics.
    """
    ours = set(map(id, trained))
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in ours]
    asleep = [module for module in model.modules() if not module.training] if model.training else []
    with modes_kept(model):
        model.train()
        for module in asleep:
            module.training = False
        try:
            for parameter in frozen:
                parameter.requires_grad_(False)
            with torch.inference_mode(False), torch.enable_grad():  # whatever the caller is in
                yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
            for parameter in trained:
                parameter.grad = None
