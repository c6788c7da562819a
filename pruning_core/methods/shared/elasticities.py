"""Gradients of the loss over a few batches, and what they say about weights and channels: elasticities.

The elasticity of a quantity q is the relative change of the loss for a relative change of q, ``q / L * dL/dq``. For a
weight it is ``w / L * dL/dw``. For a channel it belongs to a gate c = 1 that multiplies what the channel's layer puts
out, before any norm: ``1 / L * dL/dc``. A layer's output is linear in its weights and biases, so

    dL/dc_j = sum over the weights w of row j, and its bias, of  w * dL/dw      (Euler's theorem)

and a channel's elasticity is the signed sum of those of its weights. No gate has to be put into the network, one
gradient serves both, and it does not matter which activations or norms follow, or how often the layer is used. Where
channels alone are asked for, a gate costs less: the gradients of weights are a third of the work (gate_elasticities).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, OneOf, Whole, checked
from pruning_core.errors import BadInput, known_name
from pruning_core.masks import Group, Member
from pruning_core.masks.scores import combine
from pruning_core.methods.base import Method, View, weight_rows
from pruning_core.methods.shared.objective import OfClasses
from pruning_core.models.calls import like_model, raised, samples, tried
from pruning_core.models.modes import evaluating
from pruning_core.models.ready import check_values
from pruning_core.training.losses import loss_value

LOSSES = ("training", "nll_logits")
SMALL = 1e-8
"""What the official code of SNIP-it adds to the loss that it divides elasticities of weights by, so that they stay finite at
a loss of zero. It changes no ranking, and scores by 1e-8 over the loss; those of channels are divided by the loss alone."""


def statistic_loss(name: str, training_loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a sensitivity statistic: the one of training, or "nll_logits", the mean of ``-logit[label]``.

    The second is what the official code of SNIP-it computes: a negative log-likelihood of logits that no softmax has
    seen. Its gradient is another one than that of cross-entropy, and so is the ranking.
    """
    known_name("loss of the statistic", name, LOSSES)
    return training_loss if name == "training" else OfClasses(nn.functional.nll_loss)


@checked
def loss_gradients(
    model: nn.Module,
    names: Iterable[str],
    batches: Iterable,
    loss: Callable[[Tensor, Tensor], Tensor],
    count: int | None = None,
    training: bool = False,
) -> tuple[dict[str, Tensor], float]:
    """Gradients of the mean loss over the samples of the first ``count`` batches (None: all), and that loss.

    In evaluation mode, or in training mode, which moves the running statistics of norms (prune() puts them back).
    Returns parameter name -> gradient (float32 or better) of ``names``, zeros where the loss does not depend on one. No
    ``.grad`` is touched. Raises BadInput when a loss is NaN or infinite.

    >>> network = nn.Linear(1, 1, bias=False)
    >>> network.weight.data.fill_(2.0)
    tensor([[2.]])
    >>> batches = [(torch.ones(1, 1), torch.ones(1, 1))]
    >>> gradients, loss = loss_gradients(network, ["weight"], batches, nn.functional.mse_loss)
    >>> gradients["weight"], loss
    (tensor([[2.]]), 1.0)
    """
    check_values(model)
    known = dict(model.named_parameters(remove_duplicate=False))
    parameters = {name: known[known_name("parameter", name, known)] for name in names}
    if not parameters:
        raise BadInput("names is empty: there is no parameter to take a gradient by.")
    wanted = [parameter.requires_grad for parameter in parameters.values()]
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        found, value = _mean_gradients(model, list(parameters.values()), batches, loss, count, training)
    finally:
        for parameter, before in zip(parameters.values(), wanted, strict=True):
            parameter.requires_grad_(before)
    return dict(zip(parameters, found, strict=True)), value


def _mean_gradients(
    model: nn.Module, leaves: list[Tensor], batches: Iterable, loss: Callable, count: int | None, training: bool = False
) -> tuple[list[Tensor], float]:
    """What loss_gradients says, for tensors that require a gradient."""
    sums: list[Tensor] = []
    total, used, shares, size = 0.0, 0, 0.0, 0
    with evaluating(model), torch.enable_grad():
        model.train(training)
        for batch in islice(batches, count):
            inputs, labels = like_model(model, batch[0], batch[1])
            value = loss_value(loss, raised(tried(model, inputs)), labels)
            number = float(value.detach())
            size = size or samples(inputs)
            share = samples(inputs) / (size or 1)  # 1 for batches as large as the first: then nothing is multiplied
            value = value if share == 1 else value * share
            total, used, shares = total + number * share, used + 1, shares + share
            if not math.isfinite(total):
                raise BadInput(f"the loss of batch {used} is {number}: there is no gradient to rank by.")
            found = map(raised, torch.autograd.grad(value, leaves, materialize_grads=True))
            if sums:
                sums = [gradients.add_(gradient) for gradients, gradient in zip(sums, found, strict=True)]
            else:
                sums = [gradient.clone() for gradient in found]
    if not used:
        raise BadInput("batches is empty: there is no loss to take a gradient of.")
    return [gradient.div_(shares) for gradient in sums], total / shares


@dataclass(frozen=True)
class Sensitivity(Method):
    """What the methods of SNIP-it share: a loss, and the number of batches it is averaged over.

    ``loss``: "training", or "nll_logits" as in the official code (see :func:`statistic_loss`). ``batches``: how many are
    looked at, the first ones.
    """

    needs = "labels"
    constraints = Constraints(batches=Whole(at_least=1), loss=OneOf(*LOSSES, kind="loss of the statistic"))

    batches: int = 5
    loss: Literal["training", "nll_logits"] = "training"

    def gradients(self, view: View, names: Iterable[str], training: bool = False) -> tuple[dict[str, Tensor], float]:
        """Gradients of the loss by the parameters ``names``, and the loss."""
        loss = statistic_loss(self.loss, view.loss)
        view.note_unread(self.batches)
        gradients, value = loss_gradients(view.model, names, view.batches or (), loss, self.batches, training)
        view.note_zeros(gradients)
        return gradients, value


@checked
def weight_elasticities(model: nn.Module, gradients: Mapping[str, Tensor], loss: float) -> dict[str, Tensor]:
    """``|w dL/dw / (L + 1e-8)|`` of every weight that has a gradient, each of the parameter's shape.

    >>> network = nn.Linear(2, 1, bias=False)
    >>> network.weight.data = torch.tensor([[1.0, -2.0]])
    >>> weight_elasticities(network, {"weight": torch.tensor([[3.0, 1.0]])}, 2.0)["weight"].round(decimals=2)
    tensor([[1.5000, 1.0000]])
    """
    known = dict(model.named_parameters(remove_duplicate=False))
    return {
        name: (raised(known[known_name("parameter", name, known)].detach()) * gradient / (loss + SMALL or SMALL)).abs()
        for name, gradient in gradients.items()
    }


@checked
def channel_elasticities(
    model: nn.Module, gradients: Mapping[str, Tensor], loss: float, groups: Mapping[str, Group], how: str = "sum"
) -> dict[str, Tensor]:
    """``|dL/dc / L|`` of every channel, (group.size,) each: c is a gate on the outputs of the layers that make it.

    Where several layers make a channel (a residual sum), ``how`` combines their signed elasticities: "sum" is the
    derivative by one gate that all of them share.

    >>> import pruning_core as pc
    >>> network = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1))
    >>> network[0].weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> (hidden, _) = pc.find_groups(network, torch.ones(1, 2))
    >>> gradients = {"0.weight": torch.tensor([[3.0, 0.0], [0.0, 1.0]])}
    >>> channel_elasticities(network, gradients, 1.0, {"0": hidden})["0"]
    tensor([3., 2.])
    """

    def product(member: Member) -> Tensor:
        terms = raised(model.get_parameter(member.parameter).detach()) * gradients[member.parameter]
        return terms.movedim(member.dim, 0).reshape(terms.shape[member.dim], -1).sum(1)

    members = {name: [m for m in group.produces if not m.is_buffer] for name, group in groups.items()}
    return {name: _combined(members[name], product, group.size, loss, how) for name, group in groups.items()}


def _combined(
    members: Iterable[Member], slopes: Callable[[Member], Tensor], size: int, loss: float, how: str
) -> Tensor:
    """``|dL/dc / L|`` of a group's channels from what its members add to dL/dc, layer by layer."""
    of_layer: dict[str, Any] = {}
    for member in members:
        of_layer[member.layer] = of_layer.get(member.layer, 0) + member.per_channel(slopes(member), size)
    return (combine(of_layer.values(), how) / (loss or SMALL)).abs()


def gate_elasticities(
    model: nn.Module,
    groups: Mapping[str, Group],
    batches: Iterable,
    loss: Callable[[Tensor, Tensor], Tensor],
    count: int | None = None,
    how: str = "sum",
) -> dict[str, Tensor]:
    """The same as :func:`channel_elasticities`, from gates of one that hooks put behind the layers.

    Where the network uses a layer's weights without calling the layer, no gate acts, and the gradients of weights are taken.
    """
    rows = {name: weight_rows(group) for name, group in groups.items()}
    dims = {row.layer: row.dim for members in rows.values() for row in members}
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in dims}
    gates = {n: layer.weight.new_ones(layer.weight.shape[dims[n]], requires_grad=True) for n, layer in layers.items()}
    called: set[str] = set()

    def behind(name: str) -> Callable:
        def hook(layer: Any, inputs: tuple, output: Tensor) -> Tensor:
            called.add(name)
            gate = gates[name]
            if dims[name] == 1:  # of a transposed convolution in parts a slice makes a channel of each part
                gate = gate.repeat(layer.groups)
            return output * (gate.view([-1] + [1] * (layer.weight.dim() - 2)))

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_hook(behind(name)))
        found, value = _mean_gradients(model, list(gates.values()), batches, loss, count)
    if called != gates.keys():
        gradients, value = loss_gradients(model, producing_parameters(groups.values()), batches, loss, count)
        return channel_elasticities(model, gradients, value, groups, how)
    slopes = dict(zip(gates, found, strict=True))
    return {n: _combined(rows[n], lambda m: slopes[m.layer], group.size, value, how) for n, group in groups.items()}


@checked
def producing_parameters(groups: Iterable[Group]) -> list[str]:
    """Weights and biases of the layers that make the channels of ``groups``.

    >>> import pruning_core as pc
    >>> network = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> producing_parameters(pc.find_groups(network, torch.zeros(1, 4)))
    ['0.weight', '0.bias', '2.weight', '2.bias']
    """
    return list(dict.fromkeys(m.parameter for group in groups for m in group.produces if not m.is_buffer))
