"""A mask is a value: parameter name -> bool tensor, True where the weight is alive.

Channels, heads and groups are units of scores and budgets only. Whatever was pruned, the mask is kept per parameter, so
that training, rewinding and saving know one case.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks import Dense, Text, check, checked
from pruning_core.errors import BadInput, BadType, CorruptFile, shown
from pruning_core.models.storage import CARRIED
from pruning_core.records.checkpoints import load_tensors, save_tensors


class NamedTensors(Mapping[str, Tensor]):
    """An immutable mapping from names to tensors."""

    def __init__(self, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = ()):
        try:
            self._tensors = dict(tensors)
        except (TypeError, ValueError):
            raise BadType(f"{type(self).__name__} maps names to tensors; {shown(tensors)} does not.") from None
        for name, tensor in self._tensors.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise BadType(f"{type(self).__name__} maps names to tensors, not {shown(name)} to {shown(tensor)}.")

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


class Masks(NamedTensors):
    """An immutable mapping from parameter names to bool tensors of the parameters' shapes.

    A parameter without an entry counts as alive everywhere. Masks are made on the CPU, wherever the network lives, and
    moved when they are applied. ``a & b`` is alive where both are, ``a | b`` where one is,
    ``a <= b`` says that every weight alive in ``a`` is alive in ``b``.

    >>> masks = Masks({"weight": torch.tensor([True, False, False, False])})
    >>> masks.sparsity
    0.75
    """

    def __init__(self, alive: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = ()):
        super().__init__(alive)
        for name, mask in self.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = f"a tensor of {mask.dtype}" if isinstance(mask, Tensor) else type(mask).__name__
                raise BadType(f"the mask of {name!r} must be a bool tensor, not {kind}.")
            check(f"the mask of {name!r}", mask, Dense())

    @classmethod
    @checked
    def dense(cls, model: nn.Module, names: Iterable[str] | None = None) -> Masks:
        """Everything alive, for the parameters in ``names`` (default: all parameters)."""
        parameters = dict(model.named_parameters())
        chosen = parameters if names is None else _chosen(parameters, names)
        return cls({name: torch.ones(parameter.shape, dtype=torch.bool) for name, parameter in chosen.items()})

    @classmethod
    @checked
    def of_nonzero(cls, model: nn.Module, names: Iterable[str]) -> Masks:
        """Alive where the weight is not zero. Raises BadInput for a name that no parameter has."""
        chosen = _chosen(dict(model.named_parameters()), names)
        return cls({name: (parameter.detach() != 0).cpu() for name, parameter in chosen.items()})

    def __repr__(self) -> str:
        return f"Masks({len(self)} parameters, {self.removed:,} of {self.total:,} weights removed)"

    @property
    def total(self) -> int:
        """Number of weights that have a mask."""
        return sum(mask.numel() for mask in self.values())

    @property
    def removed(self) -> int:
        """Number of dead weights."""
        return self.total - sum(map(count_alive, self.values()))

    @property
    def sparsity(self) -> float:
        """Fraction of the masked parameters' weights that is dead, in [0, 1]; 0 when there are none."""
        return self.removed / self.total if self.total else 0.0

    def __and__(self, other: Masks) -> Masks:
        self._same_shapes(other)
        return Masks({**self, **other} | {name: _both(self[name], other[name]) for name in self.keys() & other.keys()})

    def __or__(self, other: Masks) -> Masks:
        self._same_shapes(other)
        return Masks({name: mask | other[name] for name, mask in self.items() if name in other})

    def __le__(self, other: Masks) -> bool:
        self._same_shapes(other)
        return all(bool((theirs | ~self[name] if name in self else theirs).all()) for name, theirs in other.items())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Masks):
            return NotImplemented
        return self.keys() == other.keys() and all(torch.equal(mask, other[name]) for name, mask in self.items())

    def _same_shapes(self, other: Masks) -> None:
        if not isinstance(other, Masks):
            raise BadType(f"masks are combined and compared with Masks, not with {shown(other)}.")
        for name in self.keys() & other.keys():
            if self[name].shape != other[name].shape:
                raise BadInput(
                    f"the masks of {name!r} differ in shape: {tuple(self[name].shape)} and {tuple(other[name].shape)}."
                )

    @checked
    def check(self, model: nn.Module) -> Masks:
        """Return self if every entry fits a parameter of ``model``; otherwise raise BadInput naming the first misfit."""
        parameters = dict(model.named_parameters())
        for name, mask in self.items():
            if name not in parameters:
                raise BadInput(f"the network has no parameter {name!r} for the mask of that name.")
            if parameters[name].shape != mask.shape:
                shapes = f"{tuple(mask.shape)}, the parameter {tuple(parameters[name].shape)}"
                raise BadInput(f"the mask of {name!r} has shape {shapes}.")
        return self

    @classmethod
    @checked
    def carried(cls, model: nn.Module) -> Masks:
        """The masks that :meth:`carry` left on a network, for the parameters that it still has; a weight that is not zero
        any more, as after training without masks, is alive."""
        parameters = dict(model.named_parameters())
        found = {}
        for owner, module in model.named_modules():  # what was pruned may have become a part of another network
            for name, mask in getattr(module, CARRIED, {}).items():
                full = f"{owner}.{name}" if owner else name
                if full in parameters and parameters[full].shape == mask.shape:
                    found[full] = mask | (parameters[full].detach() != 0).cpu()
        return cls({name: mask for name, mask in found.items() if not alive_everywhere(mask)})

    @checked
    def carry(self, model: nn.Module) -> None:
        """Leave the masks on the network as a plain attribute, so that pruning it again knows what is dead."""
        for module in model.modules():
            vars(module).pop(CARRIED, None)
        setattr(model, CARRIED, {name: mask for name, mask in self.items() if not alive_everywhere(mask)})

    @checked
    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Set the dead weights of ``model`` to exactly zero, in place (also where they are infinite or NaN)."""
        self.check(model)
        for name, parameter in model.named_parameters():
            if name in self:
                try:
                    parameter.masked_fill_(~self[name].to(parameter.device), 0)
                except NotImplementedError as error:
                    kind = f"{parameter.dtype} ({parameter.layout})"
                    raise BadType(f"{name!r} holds {kind}, of which torch masks nothing.") from error

    @checked
    def save(self, path: str | PathLike) -> None:
        """Write the masks to one file, atomically, with a checksum."""
        save_tensors(path, {f"mask:{name}": mask for name, mask in self.items()}, {"kind": "masks"})

    @classmethod
    @checked
    def load(cls, path: str | PathLike) -> Masks:
        """Read masks from a file of :meth:`save`, or from a pruned network saved by :func:`~pruning_core.pruning.prune`."""
        tensors, _ = load_tensors(path)
        masks = {name.removeprefix("mask:"): mask for name, mask in tensors.items() if name.startswith("mask:")}
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise CorruptFile(
                    f"{path} is damaged: its mask of {name!r} holds {mask.dtype}, not torch.bool; delete it."
                )
        return cls(masks)


def count_alive(mask: Tensor) -> int:
    """The number of living weights; numpy counts them several times faster than torch, as it does what follows."""
    return int(np.count_nonzero(mask.cpu().numpy()))


def alive_everywhere(mask: Tensor) -> bool:
    """Whether no weight is dead."""
    return bool(mask.cpu().numpy().all())


def _both(one: Tensor, other: Tensor) -> Tensor:
    """Alive where both masks are."""
    if one.is_cuda or other.is_cuda:
        return one & other
    found = np.empty(one.shape, dtype=bool)
    np.logical_and(one.numpy(), other.numpy(), out=found)
    return torch.from_numpy(found)


def _chosen(parameters: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    chosen = [check("each of names", name, Text()) for name in names]
    if unknown := [name for name in chosen if name not in parameters]:
        raise BadInput(f"the network has no parameter {shown(unknown[0])}.")
    return {name: parameters[name] for name in chosen}
