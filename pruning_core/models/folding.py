"""Batch norms folded into the layers in front of them: equal outputs in evaluation mode from fewer operations."""

from collections import Counter, defaultdict
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pruning_core.checks import checked
from pruning_core.models.calls import like_model, tried
from pruning_core.models.cost import check_example
from pruning_core.models.modes import copied, observing

# Exactly these: a subclass may do more than the formula knows.
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@checked
def fold_batch_norm(model: nn.Module, example) -> nn.Module:
    """A copy of ``model`` for inference, in evaluation mode, whose batch norms are folded into the layers in front of them:

        W' = W gamma / sqrt(variance + eps),    b' = (b - mean) gamma / sqrt(variance + eps) + beta

    with the running mean and variance. The outputs stay equal up to rounding. A norm folds when all that reads the output
    of a convolution or linear layer is this norm, and both are called once in a forward pass of ``example`` (a batch, or a
    tuple of arguments); any other stays, like those in front of the activation and the convolution of a DenseNet. Do not
    train the copy: it has lost the norms that made training work. Source: ``fuse_conv_bn_eval`` of ``torch.nn.utils``.

    >>> import torch
    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
    >>> fold_batch_norm(network, torch.zeros(1, 1, 4, 4))
    Sequential(
      (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))
      (1): Identity()
    )
    """
    folded = copied(model).eval()
    pairs = _pairs(folded, example)
    for layer, norm in pairs:
        statistics = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        transposed = isinstance(layer, _ConvTransposeNd)
        layer.weight, layer.bias = fuse_conv_bn_weights(layer.weight, layer.bias, *statistics, transposed)
    gone = {id(norm) for _, norm in pairs}
    for parent in list(folded.modules()):
        for name, child in parent._modules.items():  # a module may have several names
            if id(child) in gone:
                setattr(parent, name, nn.Identity().eval())
    return folded


class _Readers(TorchDispatchMode):
    """Notes which norm, or None for anything else, reads each tensor, by the tensor's id."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[int, set[nn.Module | None]] = defaultdict(set)
        self.running: nn.Module | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.note(args, kwargs)
        return func(*args, **(kwargs or {}))

    def note(self, *tree: object) -> None:
        """Whatever runs now reads the tensors in there."""
        for leaf in tree_leaves(tree):
            if isinstance(leaf, Tensor):
                self.of[id(leaf)].add(self.running)


def _pairs(model: nn.Module, example) -> list[tuple[Any, Any]]:
    """Layers and the norms that fold into them, as the data flow of one forward pass shows them."""
    readers = _Readers()
    calls: Counter[nn.Module | None] = Counter()
    made: list[tuple[Any, Tensor]] = []  # the tensors are kept, or their ids would be given away again

    def after_layer(layer: nn.Module, inputs: tuple, output: Tensor) -> None:
        calls[layer] += 1
        made.append((layer, output))
        readers.of[id(output)].clear()

    def before_norm(norm: nn.Module, inputs: tuple) -> None:
        calls[norm] += 1
        readers.running = norm

    def after_norm(norm: nn.Module, inputs: tuple, output: Tensor) -> None:
        readers.running = None

    example = check_example(example)
    arguments = like_model(model, example if isinstance(example, tuple) else (example,), None)[0]
    with ExitStack() as hooks, observing(model):
        for module in model.modules():
            if module._forward_pre_hooks or module._forward_hooks:
                continue  # they may change what it computes
            if type(module) in LAYERS and not _grouped_transposed(module):
                hooks.enter_context(module.register_forward_hook(after_layer))
            elif type(module) in NORMS and module.running_mean is not None:
                hooks.enter_context(module.register_forward_pre_hook(before_norm))
                hooks.enter_context(module.register_forward_hook(after_norm))
        with readers:
            readers.note(tried(model, arguments))
    pairs = []
    for layer, output in made:
        norm, *others = readers.of[id(output)] or [None]
        alone = norm is not None and not others and calls[layer] == calls[norm] == 1
        if alone and output.dim() == layer.weight.dim():  # so channels are dimension 1 for both
            pairs.append((layer, norm))
    return pairs


def _grouped_transposed(module: nn.Module) -> bool:
    """Whether its weight has the outputs of one group only side by side, which torch's formula does not know."""
    return isinstance(module, _ConvTransposeNd) and module.groups > 1
