"""Stand-ins for layers that the search for groups cannot follow, with the same shapes and the same coupling."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.models.layers.attention import PrunableAttention
from pruning_core.models.layers.index import ChannelIndex


def make_traceable(twin: nn.Module, arguments: tuple) -> None:
    """Evaluation mode, gradients on, index layers replaced by 1x1 convolutions, attention by a sum, in place."""
    twin.eval().requires_grad_(True)
    for module in twin.modules():
        if isinstance(module, PrunableAttention):
            module.forward = partial(_summed, module)  # type: ignore[method-assign]
    index_layers = {name: module for name, module in twin.named_modules() if isinstance(module, ChannelIndex)}
    if not index_layers:
        return
    widths: dict[nn.Module, int] = {}
    hooks = [
        m.register_forward_pre_hook(lambda m, inputs: widths.update({m: inputs[0].shape[1]}))
        for m in index_layers.values()
    ]
    with torch.no_grad():
        twin(*arguments)
    for hook in hooks:
        hook.remove()
    for name, module in index_layers.items():
        with torch.device(arguments[0].device):
            stand_in = nn.Conv2d(widths[module], len(module.index), 1, module.stride, bias=False)
        twin.set_submodule(name, stand_in.to(arguments[0].dtype).eval())


def _summed(
    attention: PrunableAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Outputs of the shapes of ``attention``, from a sum in place of heads, whose reshapes torch-pruning cannot follow.

    In a sum, the rows of queries, keys and values and the columns of the output layer depend on each other.
    """
    tokens = 1 if query.dim() == 3 and attention.batch_first else 0
    summed = attention.q(query) + (attention.k(key) + attention.v(value)).mean(tokens, keepdim=True)
    if not need_weights:
        return attention.out(summed), None
    batch = [query.shape[1 - tokens]] if query.dim() == 3 else []
    heads = [] if average_attn_weights else [attention.num_heads]
    weights = query.new_zeros(*batch, *heads, query.shape[tokens], key.shape[tokens])
    return attention.out(summed), weights


def gate_finder(base: Any) -> Any:
    """Tells torch-pruning, by its class ``base``, how many channels a gate has; it never slices anything for us."""

    class GateFinder(base):
        def prune_out_channels(self, layer, idxs):
            raise NotImplementedError("groups.remove slices, not torch-pruning")

        prune_in_channels = prune_out_channels

        def get_out_channels(self, layer):
            return next(layer.parameters()).numel()

        get_in_channels = get_out_channels

    return GateFinder()
