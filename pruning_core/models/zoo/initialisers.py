"""How the papers draw the first weights of their networks."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pruning_core.models.zoo.base import LEAK, Initialiser


def initialiser(
    conv: Callable[[Any], None] | None = None,
    linear: Callable[[Any], None] | None = None,
    last: Callable[[Any], None] | None = None,
    norm_scale: float = 1.0,
) -> Initialiser:
    """A function that draws all parameters of a network anew, in an order that does not depend on its norm layers.

    Convolutions and linear layers come first (torch's own initialisation, then ``conv``, ``linear`` or, for
    the classifier, ``last`` on top), norm layers afterwards: one seed gives the same weights whatever the
    norm, so that two norms can be compared. ``norm_scale`` is the initial scale of norm layers that have a
    shift.
    """

    def initialise(model: nn.Module) -> None:
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        # A seed for each layer: a bias here must not change the weights there.
        for layer, seed in zip(layers, torch.randint(2**62, (len(layers),)).tolist(), strict=True):
            torch.default_generator.manual_seed(seed)
            layer.reset_parameters()
            own = conv if isinstance(layer, nn.Conv2d) else (last or linear) if layer is layers[-1] else linear
            if own is not None:
                torch.default_generator.manual_seed(seed)
                own(layer)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.reset_parameters()
                if module.bias is not None:
                    nn.init.constant_(module.weight, norm_scale)

    return initialise


def _no_bias(layer: Any) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _he_fan_out(layer: Any) -> None:
    """Normal with variance 2 / (kernel area x outputs), bias 0: He et al. 2015, backward form."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    _no_bias(layer)


def _he_fan_in(layer: Any) -> None:
    """Normal with variance 2 / inputs, the bias as torch draws it: He et al. 2015, forward form."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")


def _he_fan_in_no_bias(layer: Any) -> None:
    _he_fan_in(layer)
    _no_bias(layer)


def _small_normal(layer: Any) -> None:
    nn.init.normal_(layer.weight, std=0.01)
    _no_bias(layer)


def _orthogonal_leaky(layer: Any) -> None:
    """Orthogonal with the gain of the leaky ReLU behind the layer."""
    nn.init.orthogonal_(layer.weight, gain=nn.init.calculate_gain("leaky_relu", LEAK))


def _orthogonal(layer: Any) -> None:
    nn.init.orthogonal_(layer.weight)


def _xavier(layer: Any) -> None:
    nn.init.xavier_uniform_(layer.weight)
    _no_bias(layer)


def _transformer(model: Any) -> None:
    initialiser(linear=_xavier)(model)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    nn.init.normal_(model.position, std=0.02)


STARTS: dict[str, Initialiser] = {
    "torch": initialiser(),
    "he": initialiser(conv=_he_fan_in_no_bias, linear=_he_fan_in_no_bias),
    "he_fan_in": initialiser(conv=_he_fan_in, linear=_he_fan_in),
    "he_fan_in_convolutions": initialiser(conv=_he_fan_in),
    "he_fan_out": initialiser(conv=_he_fan_out),
    "rni": initialiser(conv=_he_fan_out, linear=_small_normal, norm_scale=0.5),
    "snip": initialiser(conv=_orthogonal_leaky, linear=_orthogonal_leaky, last=_orthogonal),
    "wide_resnet": initialiser(conv=_he_fan_out, linear=_no_bias),
    "transformer": _transformer,
}
"""What ``networks.yml`` calls the start of a network."""
