"""What the official code of SNIP-it counts, so that its numbers can be compared, and its pictures of saliency.

The book's own measure of cost is the multiply-accumulate (models/cost.py). Source: verdenius2020snipit, as implemented.
"""

import math
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.pooling import _AvgPoolNd, _MaxPoolNd

from pruning_core.checks import Real, checked
from pruning_core.errors import BadInput
from pruning_core.models.calls import like_model, logits, tried
from pruning_core.models.modes import evaluating, observing
from pruning_core.models.ready import check_numbers, check_open

ACTIVATIONS = (nn.ReLU, nn.LeakyReLU)
BITS_A_WEIGHT, BITS_A_ROW = 34, 2


@checked(example=None)
def reference_flops(model: nn.Module, example: Tensor, *, reference: bool = False) -> int:
    """FLOPs of one sample by the rules of SNIP-it's code, in evaluation mode; nothing of the network is changed.

    A product with its sum counts one: convolution ``out (k k in + bias) H W`` (a transposed one ``in k k out`` an input
    position, its bias an output element), linear ``in out + out bias``; batch norm 2 an element, (leaky) ReLU 1, pooling
    ``k k`` an output element; adaptive pools, dropout and masks nothing. Layers are found as modules: functional calls
    count nothing. ``reference=True`` counts norms and activations for a batch of eight, as the official code does while
    it counts all else for one.

    >>> reference_flops(nn.Linear(10, 5), torch.zeros(1, 10))
    55
    """
    if not isinstance(example, Tensor) or example.dim() < 2 or len(example) == 0:
        raise BadInput("FLOPs need an example input with its batch dimension.")
    check_open(model)
    total = 0

    def count(module: nn.Module, inputs: tuple, output: Any) -> None:
        nonlocal total
        if isinstance(module, _ConvTransposeNd):
            total += module.weight[0].numel() * inputs[0].numel() + output.numel() * (module.bias is not None)
        elif isinstance(module, (_ConvNd, nn.Linear)):
            each = module.weight[0].numel() + (module.bias is not None)
            total += each * output.numel()
        elif isinstance(module, _BatchNorm):
            total += 2 * output.numel() * (8 if reference else 1)
        elif isinstance(module, ACTIVATIONS):
            total += output.numel() * (8 if reference else 1)
        elif isinstance(module, (_MaxPoolNd, _AvgPoolNd)):
            size: Any = module.kernel_size
            output = output[0] if isinstance(output, tuple) else output  # max pooling may return its indices too
            total += (math.prod(size) if isinstance(size, tuple) else size ** (output.dim() - 2)) * output.numel()

    with ExitStack() as hooks, observing(model):
        for module in model.modules():
            hooks.enter_context(module.register_forward_hook(count))
        tried(model, example[:1])
    return total


@checked
def compressed_bits(model: nn.Module) -> int:
    """Bits of the network in a sparse format: 34 a non-zero weight, and 2 (min(rows, columns) + 1) a tensor.

    Weight tensors are those called ``weight``, norms included; a convolution is a matrix (outputs, everything else).

    >>> compressed_bits(nn.Linear(10, 5, bias=False))
    1712
    """
    check_numbers(model)
    bits = 0
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            smaller = min(len(parameter), math.prod(parameter.shape[1:])) if parameter.dim() > 1 else 1
            bits += BITS_A_WEIGHT * int(torch.count_nonzero(parameter)) + BITS_A_ROW * (smaller + 1)
    return bits


@checked(sparsity=Real())
def harmonic_mean(sparsity: float, accuracy: float) -> float:
    """``2 s a / (s + a)`` of a sparsity in [0, 1] and an accuracy in percent, in [0, 1]; 0 where both are 0.

    >>> round(harmonic_mean(0.9, 60.0), 3)
    0.72
    """
    a = accuracy / 100
    if not (0 <= sparsity <= 1 and 0 <= a <= 1):
        raise BadInput(f"sparsity lies in [0, 1] and accuracy in [0, 100], not {sparsity} and {accuracy}.")
    return 2 * sparsity * a / (sparsity + a) if sparsity + a > 0 else 0.0


@checked
def saliency_maps(model: nn.Module, inputs: Tensor, *, reference: bool = False) -> Tensor:
    """Gradient of the largest logit by each pixel, brought to [0, 1] as ``(g - mean) / std * 0.1 + 0.5``, per image.

    ``inputs`` (N, C, H, W), floating-point; returns the same shape. ``reference=True`` takes mean and standard deviation
    over all images together, as the official code does: a picture then depends on what it is shown with. Gradients of
    parameters, mode and buffers stay as they were.

    >>> import pruning_core as pc
    >>> network = pc.build_model("lenet5_snip", "mnist5k", seed=0)
    >>> saliency_maps(network, torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 1, 28, 28])
    """
    return _shown(_slopes(model, inputs), together=reference)


def saliency_picture(model: nn.Module, inputs: Tensor) -> Tensor:
    """The official picture (rows, columns) of ``inputs`` (N, C, H, W): maps and images side by side, in two pairs of columns.

    The first half of the images stands in the left pair, the other half in the right one; maps and images are each brought
    to [0, 1] over all of them together, and channels are averaged. Raises as :func:`saliency_maps` does.

    >>> import pruning_core as pc
    >>> network = pc.build_model("lenet5_snip", "mnist5k", seed=0)
    >>> saliency_picture(network, torch.zeros(2, 1, 28, 28)).shape
    torch.Size([28, 112])
    """
    maps = saliency_maps(model, inputs, reference=True)
    rows = torch.cat([maps, _shown(inputs.detach().to(maps), together=True)], dim=3).mean(1)
    if len(rows) % 2:
        rows = torch.cat([rows, torch.zeros_like(rows[:1])])
    return torch.cat([half.flatten(0, 1) for half in rows.chunk(2)], dim=1)


def _slopes(model: nn.Module, inputs: Tensor) -> Tensor:
    """Gradient of the largest logit by each pixel, of the shape of ``inputs``."""
    if not isinstance(inputs, Tensor) or inputs.dim() != 4 or inputs.numel() == 0 or not inputs.is_floating_point():
        raise BadInput("saliency maps need floating-point images (N, C, H, W), at least one.")
    images = like_model(model, inputs.detach().clone(), inputs)[0].requires_grad_(True)
    with evaluating(model), torch.enable_grad():
        top = logits(tried(model, images)).max(1).values.sum()
        (gradient,) = torch.autograd.grad(top, images)
    return gradient


def _shown(values: Tensor, together: bool) -> Tensor:
    """``values`` (N, ...) in [0, 1]: less their mean, over their standard deviation, a tenth of it around one half."""
    flat = values.flatten()[None] if together else values.flatten(1)
    spread = flat.std(1, correction=min(1, flat.shape[1] - 1), keepdim=True).clamp_min(1e-12)
    return ((flat - flat.mean(1, keepdim=True)) / spread * 0.1 + 0.5).clamp(0, 1).view_as(values)
