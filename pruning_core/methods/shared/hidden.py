r"""A hidden layer and the linear layer that reads it: what i-SpaSP and its relatives look at.

With H the hidden maps of all samples (N, inputs, ...) and L the reading layer with the batch norm right behind it, in
evaluation mode, L is linear up to an offset: ``L(H) = A(H) + b``. The selection of i-SpaSP then needs the hidden maps only
through their *sum* M over the samples, since ``sum_n A^T A(H_n) = A^T A(M)``. So one pass over the samples is enough,
nothing is kept of it but M, and an iteration costs as much as one sample.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput, BadType
from pruning_core.methods.base import along
from pruning_core.models.ready import check_numbers

ACTIVATIONS = ("sum", "absolute", "norm")


@dataclass(frozen=True, eq=False)
class Hidden:
    """Hidden maps in chunks, and the affine layer that reads them.

    ``chunks()`` gives the maps anew each time it is called, as tensors (N, inputs, ...); ``consume`` maps them to the
    outputs. ``channel_of`` (inputs,) says which channel an input belongs to, -1 for inputs that are no candidates.
    ``alive`` (size,) is False for channels that are gone already. ``name`` is for messages. ``maps_of(batches)`` gives the
    maps of other batches than those that ``chunks`` goes through, where a network makes them. ``last``: the layer gives
    the network's output.
    """

    chunks: Callable[[], Iterable[Tensor]]
    consume: nn.Module
    channel_of: Tensor
    size: int
    alive: Tensor
    name: str = "the hidden layer"
    maps_of: Callable[[Iterable], Iterable[Tensor]] | None = None
    last: bool = False

    @classmethod
    def of(cls, hidden: Tensor | Callable[[], Iterable[Tensor]], consume: Tensor | nn.Module) -> Self:
        """Of plain maps (samples, hidden, ...), or a function that gives them in chunks, and weights (outputs, hidden)."""
        layer = consume if isinstance(consume, nn.Module) else _linear(consume)
        check_numbers(layer)
        chunks: Any = (lambda: (hidden,)) if isinstance(hidden, Tensor) else hidden
        if not callable(chunks):
            raise BadType(f"hidden maps are a tensor, or a function that gives chunks, not {type(hidden).__name__}.")
        first = next(iter(chunks()), None)
        if first is None or first.dim() < 2 or len(first) == 0:
            raise BadInput("hidden maps have the shape (samples, hidden, ...), with at least one sample.")
        _check_fit(layer, first)
        size = first.shape[1]
        return cls(chunks, layer, torch.arange(size), size, torch.ones(size, dtype=torch.bool))

    def per_channel(self, per_input: Tensor) -> Tensor:
        """Sum values of inputs (inputs,) to values of channels (size,), on the CPU."""
        ours = self.channel_of >= 0
        return torch.zeros(self.size, dtype=per_input.dtype).index_add_(0, self.channel_of[ours], per_input.cpu()[ours])

    def per_input(self, per_channel: Tensor) -> Tensor:
        """A choice, or factors, of channels (size,) as that of inputs (inputs,); what is no candidate stays as it is."""
        return torch.where(self.channel_of >= 0, per_channel[self.channel_of.clamp(min=0)], per_channel.new_ones(()))

    @cached_property
    def exact(self) -> nn.Module:
        """The reading layer in float64 and evaluation mode, frozen."""
        return copy.deepcopy(self.consume).double().eval().requires_grad_(False)

    @cached_property
    def total(self) -> tuple[Tensor, int]:
        """The sum of all hidden maps, (1, inputs, ...) in float64, and the number of samples. One pass over the chunks."""
        total, count = None, 0
        for chunk in self.chunks():
            part = chunk.sum(0, keepdim=True, dtype=torch.float64)
            if total is not None and total.shape != part.shape:
                raise BadInput(f"the samples give {self.name} maps of different sizes; use inputs of one size.")
            total, count = part if total is None else total + part, count + len(chunk)
        return self.checked(total), count

    def checked(self, total: Tensor | None) -> Tensor:
        """A sum over the chunks; raises BadInput if there were none, or if it is not finite."""
        if total is None:
            raise BadInput("batches is empty: there is nothing to compute scores on.")
        if not bool(torch.isfinite(total).all()):
            raise BadInput(f"the activations of {self.name} are NaN or infinite for these samples.")
        return total

    def activations(self, kind: str = "sum") -> Tensor:
        """One value a channel (size,): the "sum" of its activations, of their "absolute" values, or their "norm"."""
        if kind == "sum":
            return self.per_channel(_over_positions(self.total[0]))
        total = torch.zeros(len(self.channel_of), dtype=torch.float64)
        for chunk in self.chunks():
            total += _over_positions(chunk.double().abs() if kind == "absolute" else chunk.double().square()).cpu()
        found = self.per_channel(total)
        return found.sqrt() if kind == "norm" else found

    def masked(self, maps: Tensor, keep: Tensor) -> Tensor:
        """The maps with the inputs of channels outside ``keep`` set to zero."""
        return maps * along(self.per_input(keep), maps, 1)

    def correlation(self, keep: Tensor | None, batch_statistics: bool = False) -> Tensor:
        """How much each channel correlates with the residual of ``keep``: sum over samples of A^T V, (size,) in float64.

        ``V = L(H) - L(H[keep])``, or ``L(H)`` for None. ``batch_statistics``: the batch norm of the second term uses the
        statistics of each chunk (the authors' code), which takes a pass over the chunks.
        """
        total, count = self.total
        leaf = total.clone().requires_grad_(True)
        with torch.enable_grad():
            output = self.exact(leaf)
        with torch.no_grad():
            offset = self.exact(torch.zeros_like(total))
            dense = output - offset + count * offset
            if keep is None:  # then there is no output at all, not even an offset
                residual = dense - self._of_others(total)
            elif not batch_statistics:
                residual = output - self.exact(self.masked(total, keep))
            else:
                residual = dense
                for chunk in self.chunks():
                    residual -= self.by_batch(self.masked(chunk.double(), keep)).sum(0, keepdim=True)
        (gradient,) = torch.autograd.grad(output, leaf, residual.detach())
        return self.per_channel(_over_positions(gradient))

    def _of_others(self, maps: Tensor) -> Tensor | float:
        """What inputs that are no candidates add to the output: they are never removed."""
        if bool((self.channel_of >= 0).all()):
            return 0.0
        nothing = torch.zeros(self.size, dtype=torch.bool)
        return self.exact(self.masked(maps, nothing)) - self.exact(torch.zeros_like(maps[:1]))

    def by_batch(self, maps: Tensor) -> Tensor:
        """The layer's output with batch norm in training mode, its running statistics left alone."""
        output = maps
        for layer in self.exact if isinstance(self.exact, nn.Sequential) else [self.exact]:
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                try:
                    output = nn.functional.batch_norm(
                        output, None, None, layer.weight, layer.bias, True, 0.0, layer.eps
                    )
                except ValueError as error:
                    raise BadInput(f"statistics of a batch need more than one value a channel: {error}") from error
            else:
                output = layer(output)
        return output

    def squared_residuals(self, keeps: Sequence[Tensor | None], batch_statistics: bool = False) -> list[float]:
        """||V||^2 over all samples for every choice in ``keeps`` (None: of nothing), in one pass over the chunks."""
        found = [0.0] * len(keeps)
        read = self.by_batch if batch_statistics else self.exact
        for chunk in self.chunks():
            exact = chunk.double()
            dense = self.exact(exact)
            for i, keep in enumerate(keeps):
                rest = self._of_others(exact) if keep is None else read(self.masked(exact, keep))
                found[i] += float((dense - rest).square().sum())
        return found

    @property
    def layer(self) -> Any:
        """The reading layer itself, without the norm behind it."""
        return self.consume[0] if isinstance(self.consume, nn.Sequential) else self.consume


def _check_fit(layer: nn.Module, maps: Tensor) -> None:
    reader: Any = layer[0] if isinstance(layer, nn.Sequential) else layer
    dimensions = {nn.Linear: 2, nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5}
    wanted = next((d for kind, d in dimensions.items() if isinstance(reader, kind)), None)
    if wanted is None:
        raise BadInput(f"hidden maps are read by a linear layer or a convolution, not by {type(reader).__name__}.")
    inputs = reader.in_features if wanted == 2 else reader.in_channels
    if maps.dim() != wanted or maps.shape[1] != inputs:
        raise BadInput(
            f"{type(reader).__name__} reads maps of {wanted} dimensions with {inputs} channels, "
            f"not of the shape {tuple(maps.shape)}."
        )


def _linear(weight: Tensor) -> nn.Linear:
    if weight.dim() != 2:
        raise BadInput(f"the weights of the reading layer have the shape (outputs, hidden), not {tuple(weight.shape)}.")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.detach().clone())
    return layer


def _over_positions(maps: Tensor) -> Tensor:
    """Sum over samples and positions, (N, inputs, ...) -> (inputs,)."""
    return maps.detach().transpose(0, 1).flatten(1).sum(1)
