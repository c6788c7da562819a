"""Finding the channel groups of a network, by our own search in ``finder``: labels through the operators.

Whatever cannot be cut out exactly is returned as a group with a reason, never silently left out.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pruning_core.checks import checked
from pruning_core.errors import BadInput, PruningError, Unprunable, said
from pruning_core.masks.finder.cache import architecture, remember, remembered
from pruning_core.masks.finder.grouping import PRODUCERS, grouped, with_ways_out
from pruning_core.masks.finder.owners import CONVOLUTIONS
from pruning_core.masks.finder.probe import probed
from pruning_core.masks.finder.trace import Trace, traced
from pruning_core.masks.groups import Group
from pruning_core.masks.time_limit import OutOfTime, limited
from pruning_core.models.calls import mapped
from pruning_core.models.cost import values_cost_little, weightless_copy
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.modes import copied, own_random_numbers
from pruning_core.models.ready import check_open

__all__ = ["CONVOLUTIONS", "PRODUCERS", "find_groups", "groups_and_positions"]


@checked
def find_groups(model: nn.Module, example_input, time_limit: float = 60.0) -> list[Group]:
    """All channel groups of ``model``, in the order of its layers; the ones that cannot be pruned say why.

    ``example_input`` is a tensor (N, ...) or a tuple of the arguments of ``forward``; a batch of one is enough.
    What was found for the last few architectures is remembered.
    Raises Unprunable when the network cannot be traced, or not within ``time_limit`` seconds.

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> [(group.name, group.size, group.reason_fixed) for group in find_groups(network, torch.zeros(1, 4))]
    [('0', 3, None), ('2', 2, 'they are outputs of the network')]
    """
    return groups_and_positions(model, example_input, time_limit)[0]


def groups_and_positions(
    model: nn.Module, example_input, time_limit: float = 60.0
) -> tuple[list[Group], dict[str, int]]:
    """The groups, and the output positions of every layer for one sample, from one forward pass."""
    check_open(model)
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    key = architecture(model, arguments)
    if (known := remembered(key)) is not None:
        return known
    try:
        with limited(time_limit), own_random_numbers(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trace, fresh = _traced(model, arguments)
            groups = with_ways_out(probed(grouped(trace, model), trace, model, arguments, fresh))
    except OutOfTime:
        raise Unprunable(
            f"the channel groups of {type(model).__name__} were not found within {time_limit:g} s; prune weights instead."
        ) from None
    except PruningError:
        raise
    except Exception as error:
        _refuse_wrong_example(model, arguments)
        raise Unprunable(
            f"{type(model).__name__} cannot be traced for channel groups ({type(error).__name__}: {said(error)}); "
            "prune weights instead, or check that example_input fits the network."
        ) from error
    if not trace.shapes:
        raise Unprunable(
            f"{type(model).__name__} puts out no tensor, so nothing says which channels it needs; prune weights instead."
        )
    if not trace.looks:
        remember(key, (groups, trace.positions))
    return groups, trace.positions


def _traced(model: nn.Module, arguments: tuple) -> tuple[Trace, Callable[[], tuple]]:
    """The trace of a copy of ``model``, and what makes further copies with the arguments on which they run."""

    def whole() -> tuple[nn.Module, tuple]:
        return copied(model), mapped(Tensor.clone, arguments)  # a network may compute in place

    def weightless() -> tuple[nn.Module, tuple]:
        twin = weightless_copy(model)
        for mine, its in zip(model.modules(), twin.modules(), strict=True):
            if isinstance(mine, ChannelIndex):
                its.index = mine.index.detach().cpu().clone()
        return twin, mapped(lambda tensor: tensor.to("meta"), arguments)

    # Values fail where the example lies elsewhere than the network, shapes where a forward pass looks at values.
    if values_cost_little(model, arguments):
        with contextlib.suppress(Exception):
            return traced(*whole()), whole
        _refuse_wrong_example(model, arguments)  # shapes alone would take whole numbers for a linear layer
    with contextlib.suppress(Exception):
        return traced(*weightless()), weightless
    return traced(*whole()), whole


def _refuse_wrong_example(model: nn.Module, arguments: tuple) -> None:
    twin = copied(model).eval()
    device = next((parameter.device for parameter in model.parameters()), None)
    try:
        with torch.no_grad():
            twin(*mapped(lambda tensor: tensor.to(device, copy=True), arguments))
    except Exception as error:
        raise BadInput(f"example_input does not pass through {type(model).__name__}: {said(error)}") from error
