"""A network with the absolute values of all its parameters and buffers, fed with ones: the flow along its paths."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor

from pruning_core.errors import BadInput
from pruning_core.methods.base import View
from pruning_core.models.modes import evaluating


def absolute(view: View) -> View:
    """Absolute values of everything, in place: whoever called the method puts the network back. Where the flow through them
    is beyond the network's precision, a twin in double precision instead."""
    with torch.no_grad():
        for tensor in [*view.model.parameters(), *view.model.buffers()]:
            if tensor.is_floating_point():
                tensor.abs_()
    view.alive.apply_(view.model)
    if view.example_input is None:
        raise BadInput("SynFlow needs example_input (or batches), to know the shape of an image of ones.")
    with evaluating(view.model), torch.no_grad():
        if torch.isfinite(flow(view)):
            return view
    return replace(view, model=copy.deepcopy(view.model).double(), example_input=_double(view.example_input))


def flow(view: View) -> Tensor:
    """The sum of all that the network puts out for an input of ones."""
    return _total(view.model(*_ones(view.example_input)))


def _double(example):
    if isinstance(example, tuple):
        return tuple(_double(each) for each in example)
    return example.double() if example.is_floating_point() else example


def _ones(example):
    if isinstance(example, tuple):
        return tuple(part for each in example for part in _ones(each))
    one = example[:1]
    return (torch.ones_like(one) if one.is_floating_point() else one,)


def _total(output) -> Tensor:
    if isinstance(output, Tensor):
        return output.sum()
    parts = output.values() if hasattr(output, "values") else output
    return torch.stack([_total(part) for part in parts if part is not None]).sum()
