"""One hidden layer after the other, each on what the pruned layers before it pass on."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from pruning_core.masks import Budget, Group, expand
from pruning_core.methods.base import Choice, Method, Needs, View, along
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shared.reading import inputs_of
from pruning_core.methods.shared.within_layers import channel_counts
from pruning_core.models import layer_inputs
from pruning_core.models.activations import Place, places
from pruning_core.models.calls import first_sample


class LayerByLayer(Method):
    """Base of these methods: a subclass chooses in ``select``; how many channels a layer keeps follows from the budget."""

    unit = "channel"
    spreads = "layers"
    needs: ClassVar[Needs] = "inputs"

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
            example = first_sample(next(iter(view.batches or ()))[0])
        reader = {name: group.consumes[0].layer for name, group in groups.items()}
        found = places(view.model, reader.values(), example)
        masks = view.alive
        values: dict[str, Tensor] = {}
        for name in sorted(groups, key=lambda name: found[reader[name]].order):
            masks.apply_(view.model)
            hidden = hidden_of(view, groups[name], found[reader[name]])
            if counts[name] == int(hidden.alive.sum()):
                continue
            if counts[name]:
                support, new = self.select(view, hidden, counts[name])
            else:  # a budget with keep_at_least=0 may empty a layer: nothing is left to choose or to make up for it
                support, new = torch.empty(0, dtype=torch.long), {}
            keep = torch.isin(torch.arange(hidden.size), support) & hidden.alive
            masks = masks & expand({name: keep}, groups, view.sites.shapes)
            for part, value in new.items():
                parameter = f"{reader[name]}.{part}"
                values[parameter] = value.to(view.model.get_parameter(parameter))
                # The layers behind must see it; the caller puts the network back.
                view.model.get_parameter(parameter).data.copy_(values[parameter])
        return Choice(masks, values, remarks)

    def select(self, view: View, hidden: Hidden, s: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Indices of the ``s`` channels to keep, and new values of the reading layer's "weight" or "bias"."""
        raise NotImplementedError


def hidden_of(view: View, group: Group, place: Place) -> Hidden:
    """The hidden maps of one group in the network as it is now, and the layer that reads them."""
    member = group.consumes[0]
    reader = view.model.get_submodule(member.layer)

    def maps_of(batches: Iterable) -> Iterator[Tensor]:
        for seen in layer_inputs(view.model, [member.layer], batches):
            maps = seen[member.layer]
            yield maps.flatten(0, -2) if isinstance(reader, nn.Linear) else maps

    consume = reader if place.norm is None else nn.Sequential(reader, view.model.get_submodule(place.norm))
    name = f"the layer in front of {member.layer!r}"
    chunks = partial(maps_of, view.batches or ())
    alive = group.alive(view.alive)
    return Hidden(chunks, consume, inputs_of(reader, member), group.size, alive, name, maps_of, place.last)


def rescaled(hidden: Hidden, factor: float) -> dict[str, Tensor]:
    """The reading layer's weight with the columns of the candidates multiplied by ``factor``."""
    weight: Tensor = hidden.layer.weight.detach()
    groups = getattr(hidden.layer, "groups", 1)
    # In a grouped convolution one column of the weight serves an input of every group.
    ours = hidden.channel_of[: len(hidden.channel_of) // groups] >= 0
    factors = torch.where(ours, torch.tensor(factor, dtype=torch.float64), 1.0)
    return {"weight": weight * along(factors, weight, 1)}
