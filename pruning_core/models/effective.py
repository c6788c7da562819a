"""The weight that a layer computes with, where that is not the parameter itself."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

PLAIN = tuple(
    kind.forward
    for kind in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
)
PRODUCTS = frozenset(
    getattr(nn.functional, name)
    for name in ("linear", *(f"conv{turned}{n}d" for turned in ("", "_transpose") for n in (1, 2, 3)))
)


class _Products(TorchFunctionMode):
    """Notes the second operands of products while it is in force."""

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in PRODUCTS:
            self.operands.append(args[1] if len(args) > 1 else (kwargs or {})["weight"])
        return func(*args, **(kwargs or {}))


def remakes_weight(layer: nn.Module) -> bool:
    """Whether a convolution or linear layer of the user's multiplies by a weight made of its parameter that lacks its zeros.

    So do convolutions with weight standardisation. A copy with every second weight zero is run, alone; a layer that cannot
    be run so is taken at its word.

    >>> class Centred(nn.Linear):
    ...     def forward(self, x):
    ...         return nn.functional.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)
    >>> remakes_weight(Centred(3, 2)), remakes_weight(nn.Linear(3, 2))
    (True, False)
    """
    if (
        not isinstance(layer, (nn.Linear, _ConvNd))
        or type(layer).forward in PLAIN
        or parametrize.is_parametrized(layer)
    ):
        return False
    try:
        twin = copy.deepcopy(layer)
        weight = twin.weight.detach()
        dead = (torch.arange(weight.numel(), device=weight.device) % 2 == 0).view_as(weight)
        weight.masked_fill_(dead, 0)
        if isinstance(twin, _ConvNd):
            window = [d * (k - 1) + 1 for d, k in zip(twin.dilation, twin.kernel_size, strict=True)]
            zeros = weight.new_zeros(1, twin.in_channels, *window)
        else:
            zeros = weight.new_zeros(1, twin.in_features)
        with torch.no_grad(), _Products() as seen:
            twin(zeros)
    except Exception:
        return False
    return any(used.shape == weight.shape and bool(used[dead].any()) for used in seen.operands)


def zeros_out_of_use(model: nn.Module, masks: Mapping[str, Tensor]) -> list[str]:
    """Names of masked parameters whose zeros the weight in use does not have: of parametrised layers, and those that remake it.

    >>> layer = parametrize.register_parametrization(nn.Linear(3, 3), "weight", nn.Softplus())
    >>> zeros_out_of_use(layer, {"parametrizations.weight.original": torch.eye(3) > 0})
    ['parametrizations.weight.original']
    """
    found = []
    for owner, module in model.named_modules():
        start = f"{owner}." if owner else ""
        if f"{start}weight" in masks and remakes_weight(module) and not masks[f"{start}weight"].all():
            found.append(f"{start}weight")
        for leaf, chain in getattr(module, "parametrizations", {}).items():
            with torch.no_grad():
                used = getattr(module, leaf).cpu()
            for name, _ in chain.named_parameters(recurse=False):
                full = f"{start}parametrizations.{leaf}.{name}"
                if full in masks and masks[full].shape == used.shape and bool(used[~masks[full]].any()):
                    found.append(full)
    return found
