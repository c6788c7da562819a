"""How the papers draw the first weights of their networks."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

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


def _he(
    mode: Literal["fan_in", "fan_out"], bias: bool = False, fill: Callable[..., Any] = nn.init.kaiming_normal_
) -> Callable[[Any], None]:
    """Variance 2 / inputs ("fan_in") or 2 / (kernel area x outputs) ("fan_out"), normal unless ``fill`` is uniform: He et
    al. 2015, forward and backward form. The bias is 0, or with ``bias`` as torch draws it."""

    def draw(layer: Any) -> None:
        fill(layer.weight, mode=mode, nonlinearity="relu")
        if not bias:
            _no_bias(layer)

    return draw


def _small_normal(layer: Any) -> None:
    nn.init.normal_(layer.weight, std=0.01)
    _no_bias(layer)


def _orthogonal(layer: Any, gain: float = 1.0) -> None:
    nn.init.orthogonal_(layer.weight, gain=gain)


def _xavier(layer: Any) -> None:
    nn.init.xavier_uniform_(layer.weight)
    _no_bias(layer)


def _transformer(model: Any) -> None:
    initialiser(linear=_xavier)(model)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.reset_parameters()
    nn.init.normal_(model.position, std=0.02)


_uniform = _he("fan_in", fill=nn.init.kaiming_uniform_)
_snip = partial(_orthogonal, gain=nn.init.calculate_gain("leaky_relu", LEAK))  # of the activation behind the layer
STARTS: dict[str, Initialiser] = {
    "torch": initialiser(),
    "he": initialiser(conv=_he("fan_in"), linear=_he("fan_in")),
    "he_uniform": initialiser(conv=_uniform, linear=_uniform),
    "he_fan_in": initialiser(conv=_he("fan_in", bias=True), linear=_he("fan_in", bias=True)),
    "he_fan_in_convolutions": initialiser(conv=_he("fan_in", bias=True)),
    "he_fan_out": initialiser(conv=_he("fan_out")),
    "rni": initialiser(conv=_he("fan_out"), linear=_small_normal, norm_scale=0.5),
    "snip": initialiser(conv=_snip, linear=_snip, last=_orthogonal),
    "wide_resnet": initialiser(conv=_he("fan_out"), linear=_no_bias),
    "transformer": _transformer,
}
"""What ``networks.yml`` calls the start of a network."""
