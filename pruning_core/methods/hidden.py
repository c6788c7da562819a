r"""A hidden layer and the linear layer that reads it: what i-SpaSP and its relatives look at.

With H the hidden maps of all samples (N, inputs, ...) and L the reading layer with the batch norm right behind it, in
evaluation mode, L is linear up to an offset: ``L(H) = A(H) + b``. The selection of i-SpaSP then needs the hidden maps only
through their *sum* M over the samples, since ``sum_n A^T A(H_n) = A^T A(M)``. So one pass over the samples is enough,
nothing is kept of it but M, and an iteration costs as much as one sample.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from typing import ClassVar
from typing import Literal

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pruning_core.activations import Place
from pruning_core.activations import layer_inputs
from pruning_core.activations import places
from pruning_core.budgets import Budget
from pruning_core.errors import BadInput
from pruning_core.errors import BadType
from pruning_core.errors import Unprunable
from pruning_core.groups import Group
from pruning_core.groups import Member
from pruning_core.groups import expand
from pruning_core.methods.base import Choice
from pruning_core.methods.base import Method
from pruning_core.methods.base import View
from pruning_core.methods.base import channel_counts
from pruning_core.sensitivity import unfolded

LARGEST_SYSTEM = 10_000  # a square of float64 of this size takes 800 MB


@dataclass(frozen=True, eq=False)
class Hidden:
    """Hidden maps in chunks, and the affine layer that reads them.

    ``chunks()`` gives the maps anew each time it is called, as tensors (N, inputs, ...); ``consume`` maps them to the
    outputs. ``channel_of`` (inputs,) says which channel an input belongs to, -1 for inputs that are no candidates.
    ``alive`` (size,) is False for channels that are gone already. ``name`` is for messages. ``maps_of(batches)`` gives the
    maps of other batches than those that ``chunks`` goes through, where a network makes them.
    """

    chunks: Callable[[], Iterable[Tensor]]
    consume: nn.Module
    channel_of: Tensor
    size: int
    alive: Tensor
    name: str = "the hidden layer"
    maps_of: Callable[[Iterable], Iterable[Tensor]] | None = None

    @classmethod
    def of(cls, hidden: Tensor | Callable[[], Iterable[Tensor]], consume: Tensor | nn.Module) -> Hidden:
        """Of plain maps (samples, hidden, ...), or a function that gives them in chunks, and weights (outputs, hidden)."""
        layer = consume if isinstance(consume, nn.Module) else _linear(consume)
        if isinstance(hidden, Tensor):
            whole = hidden
            chunks: Callable[[], Iterable[Tensor]] = lambda: (whole,)  # noqa: E731
        else:
            chunks = hidden
        if not callable(chunks):
            raise BadType(
                f"hidden maps are a tensor, or a function that gives them in chunks, not {type(hidden).__name__}."
            )
        first = next(iter(chunks()), None)
        if first is None or first.dim() < 2 or len(first) == 0:
            raise BadInput("hidden maps have the shape (samples, hidden, ...), with at least one sample.")
        size = first.shape[1]
        _check_fit(layer, first)
        return cls(chunks, layer, torch.arange(size), size, torch.ones(size, dtype=torch.bool))

    def per_channel(self, per_input: Tensor) -> Tensor:
        """Sum values of inputs (inputs,) to values of channels (size,), on the CPU."""
        ours = self.channel_of >= 0
        return torch.zeros(self.size, dtype=per_input.dtype).index_add_(0, self.channel_of[ours], per_input.cpu()[ours])

    def per_input(self, keep: Tensor) -> Tensor:
        """A choice of channels (size,) as one of inputs (inputs,); what is no candidate stays."""
        return torch.where(self.channel_of >= 0, keep[self.channel_of.clamp(min=0)], True)

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
        if total is None:
            raise BadInput("batches is empty: there is nothing to compute scores on.")
        if not bool(torch.isfinite(total).all()):
            raise BadInput(f"the activations of {self.name} are NaN or infinite for these samples.")
        return total, count

    def activations(self, kind: str = "sum") -> Tensor:
        """One value a channel (size,): the "sum" of its activations, of their "absolute" values, or their "norm"."""
        if kind == "sum":
            return self.per_channel(_over_positions(self.total[0]))
        total = torch.zeros(len(self.channel_of), dtype=torch.float64)
        for chunk in self.chunks():
            exact = chunk.double()
            total += _over_positions(exact.abs() if kind == "absolute" else exact.square()).cpu()
        found = self.per_channel(total)
        return found.sqrt() if kind == "norm" else found

    def masked(self, maps: Tensor, keep: Tensor) -> Tensor:
        """The maps with the inputs of channels outside ``keep`` set to zero."""
        return maps * self.per_input(keep).to(maps).view(1, -1, *[1] * (maps.dim() - 2))

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
            if keep is None:
                # With nothing kept there is no output at all, not even an offset.
                residual = output - offset + count * offset - self._of_others(total)
            elif not batch_statistics:
                residual = output - self.exact(self.masked(total, keep))
            else:
                residual = output - offset + count * offset
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
                    output = F.batch_norm(output, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)
                except ValueError as error:
                    raise BadInput(f"statistics of a batch need more than one value a channel: {error}") from error
            else:
                output = layer(output)
        return output

    def squared_residuals(self, keeps: Sequence[Tensor | None], batch_statistics: bool = False) -> list[float]:
        """||V||^2 over all samples for every choice in ``keeps`` (None: of nothing), in one pass over the chunks."""
        found = [0.0] * len(keeps)
        for chunk in self.chunks():
            exact = chunk.double()
            dense = self.exact(exact)
            for i, keep in enumerate(keeps):
                if keep is None:
                    residual = dense - self._of_others(exact)
                elif batch_statistics:
                    residual = dense - self.by_batch(self.masked(exact, keep))
                else:
                    residual = dense - self.exact(self.masked(exact, keep))
                found[i] += float(residual.square().sum())
        return found

    # --- second moments, for least squares and for greedy imitation

    @property
    def layer(self) -> Any:
        """The reading layer itself, without the norm behind it."""
        return self.consume[0] if isinstance(self.consume, nn.Sequential) else self.consume

    def second_moments(self) -> Tensor:
        """P P^T over all samples and output positions in float64: (groups, r + 1, r + 1).

        A column of P is what one output sees: r = inputs of a linear layer, or the patch (inputs of one group times
        kernel) of a convolution, with a one behind it for the offset.
        """
        total: Tensor | None = None
        seen = self.layer.weight[0].numel()
        if seen > LARGEST_SYSTEM:
            raise Unprunable(
                f"one output of the layer behind {self.name} sees {seen:,} values; least squares end at {LARGEST_SYSTEM:,}."
            )
        for chunk in self.chunks():
            patches = _patches(self.layer, chunk.double())  # (groups, r, columns)
            ones = patches.new_ones(len(patches), 1, patches.shape[2])
            patches = torch.cat([patches, ones], 1)
            part = patches @ patches.transpose(1, 2)
            total = part if total is None else total + part
        if total is None:
            raise BadInput("batches is empty: there is nothing to compute scores on.")
        if not bool(torch.isfinite(total).all()):
            raise BadInput(f"the activations of {self.name} are NaN or infinite for these samples.")
        return total

    def columns_of(self) -> Tensor:
        """Which channel each of the r entries of a patch belongs to: (groups, r)."""
        weight = self.layer.weight
        groups = getattr(self.layer, "groups", 1)
        kernel = weight[0, 0].numel()
        return self.channel_of.view(groups, -1).repeat_interleave(kernel, 1)

    def least_squares(self, keep: Tensor, moments: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the reading layer that rebuild its dense outputs best from the channels in ``keep``.

        Both in the layer's shapes and in float64; entries of other channels are zero. The bias is None where the layer
        has none; otherwise it takes part in the fit.
        """
        weight: Tensor = self.layer.weight.detach().double().cpu()
        bias: Tensor | None = self.layer.bias
        rows = weight.flatten(1).view(len(moments), -1, weight[0].numel())
        columns = self.columns_of()
        fitted, offsets = torch.zeros_like(rows), []
        for g, moment in enumerate(moments.cpu()):
            # Columns of zeros were pruned before, and what they read may be anything.
            used = torch.where(columns[g] >= 0, keep[columns[g].clamp(min=0)], rows[g].abs().sum(0) > 0)
            used = torch.cat([used, torch.tensor([bias is not None])])
            target = moment[used][:, :-1] @ rows[g].T
            solution = _solved(moment[used][:, used], target).T
            if bias is not None:
                offsets.append(solution[:, -1])
                solution = solution[:, :-1]
            fitted[g][:, used[:-1]] = solution
        offset = None if bias is None else bias.detach().double().cpu() + torch.cat(offsets)
        return fitted.reshape(weight.shape), offset

    def norm_scale(self) -> Tensor:
        """By how much the batch norm behind the layer multiplies each of its outputs: (outputs,) in float64 on the CPU."""
        assert isinstance(self.exact, nn.Sequential)
        norm: Any = copy.deepcopy(self.exact[1]).cpu()
        positions = [1] * (0 if isinstance(norm, nn.BatchNorm1d) else 2)
        inputs = torch.stack([torch.zeros(norm.num_features), torch.ones(norm.num_features)]).double()
        low, high = norm(inputs.view(2, -1, *positions)).flatten(1)
        return high - low

    def contributions(self) -> Tensor:
        """Inner products <c_i, c_j> of what the channels add to the output, over all samples: (size, size) in float64."""
        weight: Tensor = self.layer.weight.detach().double().cpu()
        rows = weight.flatten(1)
        moments = self.second_moments()[:, :-1, :-1].cpu()
        if isinstance(self.consume, nn.Sequential):
            rows = rows * self.norm_scale()[:, None]
        columns = self.columns_of()
        found = torch.zeros(self.size, self.size, dtype=torch.float64)
        for g, part in enumerate(rows.view(len(moments), -1, rows.shape[1])):
            products = (part.T @ part) * moments[g]
            ours = columns[g] >= 0
            summed = torch.zeros(self.size, int(ours.sum()), dtype=torch.float64)
            summed.index_add_(0, columns[g][ours], products[ours][:, ours])
            found.index_add_(1, columns[g][ours], summed)
        return found


def _check_fit(layer: nn.Module, maps: Tensor) -> None:
    """Raise BadInput unless the layer can read the maps."""
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


def _patches(layer: nn.Module, maps: Tensor) -> Tensor:
    """What every output of a layer sees, as columns: (groups, patch, samples x positions)."""
    if not isinstance(layer, nn.Linear):
        if not isinstance(layer, nn.Conv1d | nn.Conv2d) or layer.padding_mode != "zeros":
            raise Unprunable(f"least squares are not available behind {type(layer).__name__}.")
        if isinstance(layer.padding, str):
            raise Unprunable("least squares are not available for a convolution whose padding is given as a word.")
    return unfolded(layer, maps).permute(1, 2, 0, 3).flatten(2)


def _solved(square: Tensor, target: Tensor) -> Tensor:
    """The smallest least-squares solution; directions that no sample shows are left at zero, not blown up."""
    # Every entry in units of its own size, so that a small one is not taken for one that is never seen.
    sizes = square.diagonal().sqrt()
    units = torch.where(sizes > 0, 1 / sizes, 0.0)
    square, target = square * units[:, None] * units, target * units[:, None]
    factor, failed = torch.linalg.cholesky_ex(square)
    if not failed and float(factor.diagonal().min()) > 1e-5:
        return units[:, None] * torch.cholesky_solve(target, factor)
    values, vectors = torch.linalg.eigh(square)
    inverse = torch.where(values > 1e-12 * values[-1], 1 / values, 0.0)
    return units[:, None] * (vectors @ (inverse[:, None] * (vectors.T @ target)))


# --- from a network


def hidden_of(view: View, group: Group, place: Place) -> Hidden:
    """The hidden maps of one group in the network as it is now, and the layer that reads them."""
    member = group.consumes[0]
    reader = view.model.get_submodule(member.layer)

    def maps_of(batches: Iterable) -> Iterator[Tensor]:
        for seen in layer_inputs(view.model, [member.layer], batches):
            maps = seen[member.layer]
            yield maps.flatten(0, -2) if isinstance(reader, nn.Linear) else maps

    def chunks() -> Iterator[Tensor]:
        return maps_of(view.batches or ())

    consume = reader if place.norm is None else nn.Sequential(reader, view.model.get_submodule(place.norm))
    name = f"the layer in front of {member.layer!r}"
    alive = group.alive(view.alive)
    return Hidden(chunks, consume, inputs_of(reader, member), group.size, alive, name, maps_of)


def inputs_of(reader: Any, member: Member) -> Tensor:
    """Which channel of the group each input of the reading layer belongs to, -1 for none: (inputs,)."""
    inputs = reader.in_features if isinstance(reader, nn.Linear) else reader.in_channels
    channel_of = torch.full((inputs,), -1)
    channel_of[member.indices] = member.channels
    groups = getattr(reader, "groups", 1)
    if groups > 1:  # the same columns of the weight serve every group of inputs
        channel_of = channel_of[: inputs // groups].repeat(groups)
    return channel_of


class LayerByLayer(Method):
    """Base of methods that take one hidden layer after the other, each on what the pruned layers before it pass on.

    A subclass chooses in ``select``; how many channels a layer keeps follows from the budget.
    """

    unit = "channel"
    needs: ClassVar[Literal["nothing", "shape", "inputs", "labels"]] = "inputs"

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        readers = {member.layer for member in group.consumes}
        if len(readers) != 1 or group.consumes[0].is_buffer:
            return f"several layers read these channels; {self.name} needs one"
        reader = model.get_submodule(group.consumes[0].layer)
        if not isinstance(reader, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            return f"they are read by {type(reader).__name__}; {self.name} needs a linear layer or a convolution"
        return None

    def choose(self, view: View, budget: Budget) -> Choice:
        counts, remarks = channel_counts(view, budget)
        groups = view.sites.groups
        example = view.example_input
        if example is None:
            example = next(iter(view.batches or ()))[0][:1]
        found = places(view.model, [group.consumes[0].layer for group in groups.values()], example)
        masks = view.alive
        values: dict[str, Tensor] = {}
        for name in sorted(groups, key=lambda name: found[groups[name].consumes[0].layer].order):
            group = groups[name]
            place = found[group.consumes[0].layer]
            masks.apply_(view.model)
            hidden = hidden_of(view, group, place)
            keep = torch.zeros(group.size, dtype=torch.bool)
            if counts[name] == int(hidden.alive.sum()):
                continue
            support, new = self.select(view, hidden, counts[name], place)
            keep[support] = True
            masks = masks & expand({name: keep & hidden.alive}, groups, view.sites.shapes)
            for part, value in new.items():
                parameter = f"{group.consumes[0].layer}.{part}"
                values[parameter] = value.to(view.model.get_parameter(parameter))
                with torch.no_grad():  # the layers behind must see it; the caller puts the network back
                    view.model.get_parameter(parameter).copy_(values[parameter])
        return Choice(masks, values, remarks)

    def select(self, view: View, hidden: Hidden, s: int, place: Place) -> tuple[Tensor, dict[str, Tensor]]:
        """Indices of the ``s`` channels to keep, and new values of the reading layer's "weight" or "bias"."""
        raise NotImplementedError


def largest(values: Tensor, count: int) -> Tensor:
    """Indices of the largest values, the lower index first among equals."""
    return torch.sort(values, descending=True, stable=True).indices[:count]
