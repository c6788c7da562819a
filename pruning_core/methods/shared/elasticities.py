"""Gradients of the loss over a few batches, and what they say about weights and channels: elasticities.

The elasticity of a quantity q is the relative change of the loss for a relative change of q, ``q / L * dL/dq``. For a
weight it is ``w / L * dL/dw``. For a channel it belongs to a gate c = 1 that multiplies what the channel's layer puts
out, before any norm: ``1 / L * dL/dc``. A layer's output is linear in its weights and biases, so

    dL/dc_j = sum over the weights w of row j, and its bias, of  w * dL/dw      (Euler's theorem)

and a channel's elasticity is the signed sum of those of its weights. No gate has to be put into the network, one
gradient serves both, and it does not matter which activations or norms follow, or how often the layer is used.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, OneOf, Whole
from pruning_core.errors import BadInput, known_name
from pruning_core.masks import Group
from pruning_core.masks.scores import combine
from pruning_core.methods.base import Method, View, raised
from pruning_core.models.modes import evaluating
from pruning_core.training.evaluation import like_model

LOSSES = ("training", "nll_logits")
SMALL = 1e-8  # keeps an elasticity finite where the loss is zero


def statistic_loss(name: str, training_loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of a sensitivity statistic: the one of training, or "nll_logits", the mean of ``-logit[label]``.

    The second is what the official code of SNIP-it computes: a negative log-likelihood of logits that no softmax has
    seen. Its gradient is another one than that of cross-entropy, and so is the ranking.
    """
    return training_loss if known_name("loss of the statistic", name, LOSSES) == "training" else nn.functional.nll_loss


def loss_gradients(
    model: nn.Module,
    names: Iterable[str],
    batches: Iterable,
    loss: Callable[[Tensor, Tensor], Tensor],
    count: int | None = None,
    training: bool = False,
) -> tuple[dict[str, Tensor], float]:
    """Gradients of the mean loss over the first ``count`` batches (None: all), and that loss.

    In evaluation mode, or in training mode, which moves the running statistics of norms (prune() puts them back).
    Returns parameter name -> gradient (float32 or better) of ``names``, zeros where the loss does not depend on one. No
    ``.grad`` is touched. Raises BadInput when a loss is NaN or infinite.
    """
    parameters = {name: model.get_parameter(name) for name in names}
    wanted = [parameter.requires_grad for parameter in parameters.values()]
    sums: dict[str, Tensor] = {}
    total, used = 0.0, 0
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        with evaluating(model), torch.enable_grad():
            model.train(training)
            for batch in islice(batches, count):
                inputs, labels = like_model(model, batch[0], batch[1])
                value = loss(raised(model(inputs)), labels)
                number = float(value.detach())
                total, used = total + number, used + 1
                if not math.isfinite(total):
                    raise BadInput(f"the loss of batch {used} is {number}: there is no gradient to rank by.")
                found = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
                for name, gradient in zip(parameters, map(raised, found), strict=True):
                    sums[name] = sums[name].add_(gradient) if name in sums else gradient.clone()
    finally:
        for parameter, before in zip(parameters.values(), wanted, strict=True):
            parameter.requires_grad_(before)
    if not used:
        raise BadInput("batches is empty: there is no loss to take a gradient of.")
    return {name: gradient.div_(used) for name, gradient in sums.items()}, total / used


@dataclass(frozen=True)
class Sensitivity(Method):
    """What the methods of SNIP-it share: a loss, and the number of batches it is averaged over.

    ``loss``: "training", or "nll_logits" as in the official code (see :func:`statistic_loss`).
    """

    needs = "labels"
    constraints = Constraints(batches=Whole(at_least=1), loss=OneOf(*LOSSES, kind="loss of the statistic"))

    batches: int = 5
    loss: Literal["training", "nll_logits"] = "training"

    def gradients(self, view: View, names: Iterable[str], training: bool = False) -> tuple[dict[str, Tensor], float]:
        """Gradients of the loss by the parameters ``names``, and the loss."""
        loss = statistic_loss(self.loss, view.loss)
        return loss_gradients(view.model, names, view.batches or (), loss, self.batches, training)


def weight_elasticities(model: nn.Module, gradients: Mapping[str, Tensor], loss: float) -> dict[str, Tensor]:
    """``|w dL/dw / L|`` of every weight that has a gradient, each of the parameter's shape."""
    return {
        name: (raised(model.get_parameter(name).detach()) * gradient / (loss + SMALL or SMALL)).abs()
        for name, gradient in gradients.items()
    }


def channel_elasticities(
    model: nn.Module, gradients: Mapping[str, Tensor], loss: float, groups: Mapping[str, Group], how: str = "sum"
) -> dict[str, Tensor]:
    """``|dL/dc / L|`` of every channel, (group.size,) each: c is a gate on the outputs of the layers that make it.

    Where several layers make a channel (a residual sum), ``how`` combines their signed elasticities: "sum" is the
    derivative by one gate that all of them share.
    """
    found = {}
    for name, group in groups.items():
        of_layer: dict[str, Any] = {}
        for member in group.produces:
            if not member.is_buffer:
                product = raised(model.get_parameter(member.parameter).detach()) * gradients[member.parameter]
                rows = product.movedim(member.dim, 0).reshape(product.shape[member.dim], -1).sum(1)
                of_layer[member.layer] = of_layer.get(member.layer, 0) + member.per_channel(rows, group.size)
        found[name] = (combine(of_layer.values(), how) / (loss or SMALL)).abs()
    return found


def producing_parameters(groups: Iterable[Group]) -> list[str]:
    """Weights and biases of the layers that make the channels of ``groups``."""
    return list(dict.fromkeys(m.parameter for group in groups for m in group.produces if not m.is_buffer))
