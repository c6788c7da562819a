"""What flows through a layer: its inputs over some batches, without changing anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.checks import checked
from pruning_core.errors import Unprunable, known_name
from pruning_core.models.calls import call, like_model, tried
from pruning_core.models.modes import evaluating
from pruning_core.models.ready import check_open


def _refuse_unreached(names: list[str], seen: Mapping[str, object]) -> None:
    if missing := [name for name in names if name not in seen]:
        raise Unprunable(f"layer {missing[0]!r} takes no part in the forward pass, so it has no inputs.")


class _Reached(BaseException):
    """Ends a forward pass as soon as everything wanted was seen; not an Exception, because networks may catch those."""


@checked
def layer_inputs(model: nn.Module, names: Iterable[str], batches: Iterable) -> Iterator[dict[str, Tensor]]:
    """For every batch the inputs of the layers ``names`` (layer -> tensor), in evaluation mode, without gradients.

    Nothing is kept: one batch is in memory at a time, and where one layer is wanted, those behind it are not run. Raises
    Unprunable for a layer that no batch reaches, or that is used more than once (where several are wanted).

    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> [found["2"].shape for found in layer_inputs(network, ["2"], [(torch.zeros(5, 4), torch.zeros(5))])]
    [torch.Size([5, 3])]
    """
    check_open(model)
    seen: dict[str, Tensor] = {}
    names, layers = list(names), dict(model.named_modules(remove_duplicate=False))
    for name in names:
        known_name("layer", name, layers)

    def hook(name: str):
        def remember(module, inputs, options):
            if name in seen:
                raise Unprunable(f"layer {name!r} is used more than once in a forward pass.")
            maps = _first_of(inputs, options).detach()
            # Where the pass goes on, something in place behind this layer could change what was seen.
            seen[name] = maps if len(names) == 1 else maps.clone()
            if len(names) == 1:
                raise _Reached

        return remember

    for batch in batches:
        seen.clear()
        # Nothing may stay in force while the caller has the turn: neither hooks, nor modes, nor the lack of gradients.
        with ExitStack() as hooks, evaluating(model), torch.no_grad(), suppress(_Reached):
            for name in names:
                hooks.enter_context(layers[name].register_forward_pre_hook(hook(name), with_kwargs=True))
            tried(model, like_model(model, batch[0], None)[0])
        _refuse_unreached(names, seen)
        yield dict(seen)


def _first_of(inputs: tuple, options: dict) -> Tensor:
    """The tensor that a layer is given, by position or by keyword."""
    return inputs[0] if inputs else next(iter(options.values()))


class Place(NamedTuple):
    """Where a layer stands in the forward pass: its position, the batch norm right behind it, whether it is the end.

    A layer that gives the network's output has no norm behind it.
    """

    order: int
    norm: str | None
    last: bool


def places(model: nn.Module, names: Iterable[str], example_input) -> dict[str, Place]:
    """The places of the layers ``names``, found by one forward pass on the example.

    A batch norm counts as right behind a layer when it is given the very tensor that the layer returned. Raises
    Unprunable for a layer that is not reached, or more than once.
    """
    order: dict[str, int] = {}
    outputs: dict[str, tuple[Tensor, int]] = {}
    norms: dict[str, str] = {}

    def produced(name: str):
        def hook(module, inputs, output):
            if name in order:
                raise Unprunable(f"layer {name!r} is used more than once in a forward pass.")
            order[name] = len(order)
            outputs[name] = (output, output._version)

        return hook

    def is_from(tensor: object, name: str) -> bool:
        # The version tells whether something in place, such as a ReLU, has come between.
        return tensor is outputs[name][0] and outputs[name][0]._version == outputs[name][1]

    def read(norm: str):
        def hook(module, inputs, options):
            given = _first_of(inputs, options)
            norms.update({name: norm for name in outputs if is_from(given, name)})

        return hook

    names = list(dict.fromkeys(names))
    with ExitStack() as hooks, evaluating(model), torch.no_grad():
        for name in names:
            hooks.enter_context(model.get_submodule(name).register_forward_hook(produced(name)))
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                hooks.enter_context(module.register_forward_pre_hook(read(name), with_kwargs=True))
        result = call(model, like_model(model, example_input, None)[0])
    _refuse_unreached(names, order)
    last = {name: is_from(result, name) for name in order}
    return {name: Place(order[name], None if last[name] else norms.get(name), last[name]) for name in order}
