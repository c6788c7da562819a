"""What flows through a layer: its inputs over some batches, without changing anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from .errors import Unprunable
from .measure import evaluating


def layer_inputs(model: nn.Module, names: Iterable[str], batches: Iterable) -> Iterator[dict[str, Tensor]]:
    """For every batch the inputs of the layers ``names`` (layer -> tensor), in evaluation mode, without gradients.

    Nothing is kept: one batch is in memory at a time. Raises Unprunable for a layer that no batch reaches.
    """
    seen: dict[str, Tensor] = {}

    def hook(name: str):
        return lambda module, inputs: seen.__setitem__(name, inputs[0].detach())

    names = list(names)
    hooks = [model.get_submodule(name).register_forward_pre_hook(hook(name)) for name in names]
    device = next(model.parameters()).device
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                seen.clear()
                model(batch[0].to(device))
                missing = [name for name in names if name not in seen]
                if missing:
                    raise Unprunable(f"layer {missing[0]!r} takes no part in the forward pass, so it has no inputs.")
                yield dict(seen)
    finally:
        for handle in hooks:
            handle.remove()
