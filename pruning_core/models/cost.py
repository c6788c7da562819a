"""How large and how costly a network is: parameters, multiply-accumulates, bytes.

One convention for cost in the whole book: a multiply-accumulate (MAC) is one product of a weight with an activation,
counted in convolutions and linear layers for ONE sample. Batch norm, biases, activations and pooling are not counted,
nor are products of two activations (the scores and the mixing inside attention), because no weight can be pruned from
them. A zeroed weight still counts; only removing it (a smaller layer) lowers the number. A bilinear layer counts the products
of its weights with the first input and those of their sums with the second: (in1 + 1) in2 out.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pruning_core.checks import Dense, check, checked
from pruning_core.errors import BadInput, BadType
from pruning_core.models.calls import first_sample, mapped, tensors_of, tried
from pruning_core.models.modes import copied, observing, plain_attention
from pruning_core.models.ready import check_numbers, check_open, check_shapes, state_tensors

ATEN = torch.ops.aten
QUICK = 5e10
LAYERS = (_ConvNd, nn.Linear)
QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


@checked
def count_parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters; one that is shared by two layers counts once, buffers do not count.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    check_shapes(model)
    return sum(parameter.numel() for parameter in model.parameters())


@checked
def sparsity_of(model: nn.Module) -> float:
    """Fraction of exact zeros, in [0, 1], among the weights of convolutions and linear layers.

    Raises BadInput when there is no such weight, and for weights without values (lazy layers, the meta device).

    >>> layer = nn.Linear(4, 1)
    >>> _ = nn.init.zeros_(layer.weight[:, :3])
    >>> sparsity_of(layer)
    0.75
    """
    check_numbers(model)
    unique = {module.weight for module in model.modules() if isinstance(module, LAYERS)}
    total = sum(weight.numel() for weight in unique)
    if total == 0:
        raise BadInput("there is no convolution or linear layer whose sparsity could be measured.")
    return sum(int((weight == 0).sum()) for weight in unique) / total


@checked
def size_on_disk(model: nn.Module) -> int:
    """Bytes of the network as one safetensors file: parameters and buffers, zeros stored like any other value. Raises BadInput
    for weights without values (lazy layers, the meta device).

    >>> size_on_disk(nn.Linear(100, 10)) > 4 * 1010
    True
    """
    unique: dict[tuple, tuple[str, Tensor]] = {}
    for name, tensor in state_tensors(model).items():
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
        unique.setdefault(place, (name, tensor.detach().cpu().contiguous().clone()))
    return len(safetensors.torch.save(dict(unique.values())))


@checked
def count_macs(model: nn.Module, example: Any) -> int:
    """Multiply-accumulates of one forward pass for one sample (the convention is in the docstring of this module).

    ``example`` is a batch (N, ...), or a tuple of the arguments of ``forward``, of which the first sample is used. Mode,
    gradients, buffers and RNG stay as they were. Raises BadType or BadInput when ``example`` is no non-empty batch, or not
    one that the network takes, BadInput for quantised layers.

    >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 4, 4)) == 8 * 3 * 9 * 16
    True
    """
    return sum(macs_by_layer(model, example).values())


@checked
def macs_by_layer(model: nn.Module, example: Any) -> dict[str, int]:
    """Multiply-accumulates for one sample, by the name of the module that computed them, in order of first use.

    Modules without any are left out; what a module computes itself, outside its children, is listed under its own name.
    A module that is used twice is counted twice. Arguments and errors as in ``count_macs``.

    >>> macs_by_layer(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 5)), torch.zeros(1, 1, 4, 4))
    {'0': 72, '2': 40}
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which takes longer than the rest of us

    if quantised := quantised_layers(model):
        raise BadInput(
            f"layers {', '.join(quantised[:3])} are quantised, and multiply whole numbers, which are not counted; count before "
            "quantising."
        )
    check_open(model, traced=True)
    found: dict[str, int] = {}
    running: list[list[int]] = []  # one [count at entry, counted inside children] for every module now being computed
    counter = FlopCounterMode(
        display=False, custom_mapping={ATEN._trilinear: _bilinear_flops, ATEN.mkldnn_rnn_layer: _recurrent_flops}
    )

    def counted() -> int:
        flops = counter.get_flop_counts().get("Global", {})
        return sum(flops.get(operation, 0) for operation in COUNTED)

    def enter(module: nn.Module, inputs: object) -> None:
        running.append([counted(), 0])

    def leave(name: str) -> Callable:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            start, inside = running.pop()
            spent = counted() - start
            if spent > inside:
                found[name] = found.get(name, 0) + (spent - inside) // 2
            if running:
                running[-1][1] += spent

        return hook

    with _hooks(model, leave, enter), observing(model), plain_attention(), counter:
        tried(model, first_sample(check_example(example)))
    return found


def quantised_layers(model: nn.Module) -> list[str]:
    """Names of the layers whose weights are packed whole numbers: nothing in them can be pruned or counted."""
    packed = (
        n for n, m in model.named_modules() if type(m).__module__.startswith(QUANTISED) and hasattr(m, "_packed_params")
    )
    return [name for name in packed if not name.endswith("_packed_params")]


def _recurrent_flops(inputs, *weights, out_shape=None, **kwargs) -> int:
    """The same for one layer and direction of an LSTM: (steps, N, in), (4 hidden, in), (4 hidden, hidden), biases."""
    return 2 * inputs[0] * inputs[1] * sum(rows * columns for rows, columns in weights[:2])


def _bilinear_flops(first, weight, second, *args, out_shape=None, **kwargs) -> int:
    """Two operations a product, as torch counts; arguments are shapes: (N, in1), (out, in1, in2), (N, in2)."""
    out, in1, in2 = weight
    return 2 * first[0] * out * (in1 + 1) * in2


UNKNOWN_TO_TORCH = {ATEN._trilinear: _bilinear_flops, ATEN.mkldnn_rnn_layer: _recurrent_flops}
COUNTED = (ATEN.convolution, ATEN._convolution, ATEN.cudnn_convolution, ATEN.addmm, ATEN.mm, *UNKNOWN_TO_TORCH)


def norm_operations(model: nn.Module, example: Any) -> int:
    """A multiplication and an addition for every value that passes a batch norm, for one sample: fvcore's convention.

    ``count_macs`` leaves them out, as torch's counter does. Arguments and errors as there.
    """
    found: list[int] = []
    with ExitStack() as hooks, observing(model):
        for norm in (module for module in model.modules() if isinstance(module, _BatchNorm)):
            hooks.enter_context(norm.register_forward_hook(lambda _, inputs, output: found.append(2 * output.numel())))
        tried(model, first_sample(check_example(example)))
    return sum(found)


@checked
def output_positions(model: nn.Module, example: Any) -> dict[str, int]:
    """Number of positions at which each weight of a convolution or linear layer is used for one sample, by layer name.

    Height x width of the output for a convolution (of the input for a transposed one), 1 for a linear or bilinear layer on
    (N, F), the number of tokens on (N, T, F), of steps for a recurrent layer, also for the projections of attention (the
    tokens of its queries); so non-zero weights x positions = MACs that are left, of products with weights. Layers that the
    forward pass never calls are missing; a layer called twice has the sum. Arguments and errors as in ``count_macs``.

    >>> output_positions(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 5)), torch.zeros(1, 1, 4, 4))
    {'0': 4, '2': 1}
    """
    with counting_positions(model) as found, observing(model):
        tried(model, first_sample(check_example(example)))
    return found


@contextmanager
def counting_positions(model: nn.Module) -> Iterator[dict[str, int]]:
    """While it lasts, add up the ``output_positions`` of every forward pass of ``model``, of all its samples."""
    check_open(model)
    found: dict[str, int] = {}

    def leave(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if isinstance(module, (*LAYERS, nn.Bilinear)):
                if isinstance(module, _ConvTransposeNd):
                    positions = inputs[0].numel() // module.in_channels
                else:
                    positions = output.numel() // max(module.weight.shape[0], 1)
                found[name] = found.get(name, 0) + positions
            elif isinstance(module, nn.RNNBase):
                steps = output[0].data  # of a packed sequence, or the tensor itself
                found[name] = found.get(name, 0) + steps.numel() // steps.shape[-1]
            elif isinstance(module, nn.MultiheadAttention):
                # Its projections are computed by one function that calls no layer.
                tokens = output[0].numel() // module.embed_dim
                for part in (name, f"{name}.out_proj"):
                    found[part] = found.get(part, 0) + tokens

        return hook

    with _hooks(model, leave), plain_attention():
        yield found


def weightless_copy(model: nn.Module) -> nn.Module:
    """A copy whose tensors have shapes but no values (torch's meta device): it can be run at next to no cost."""
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copied(model, memo)


def values_cost_little(model: nn.Module, example: Any) -> bool:
    """Whether a forward pass with values takes no longer than one of a ``weightless_copy``.

    Without values torch runs its rules for shapes, written in Python, and imports its compiler before the first. A network
    for images of 32 x 32 is through sooner. Parameters times input values bound the multiply-accumulates of most networks.

    >>> values_cost_little(nn.Linear(784, 10), torch.zeros(1, 784))
    True
    """
    inputs = example[0] if isinstance(example, tuple) else example
    return isinstance(inputs, Tensor) and count_parameters(model) * inputs[:1].numel() <= QUICK


def training_macs(macs: int, samples: int) -> int:
    """Multiply-accumulates of training on ``samples`` samples, when a forward pass costs ``macs`` a sample.

    The backward pass has two products, for the gradients of inputs and of weights, that cost as much as the forward pass each.
    """
    return 3 * macs * samples


def check_example(example: Any) -> Any:
    """The example without its gradients; BadType or BadInput unless it is a tensor, or a tuple with one, that holds at least
    one sample, and is made of tensors that a layer can read."""
    try:
        given = tensors_of(example)
    except RecursionError:
        raise BadInput("the example input holds itself.") from None
    for tensor in given:
        if not tensor.is_meta:
            check("the example input", tensor, Dense())
    first = next(iter(given), None)
    if first is None or not isinstance(example, Tensor | tuple):
        raise BadType(
            f"the example input must be a tensor (N, ...), or a tuple of inputs, not {type(example).__name__}."
        )
    if first.dim() == 0 or first.numel() == 0:
        raise BadInput(f"the example input must hold at least one sample, but its shape is {tuple(first.shape)}.")
    return mapped(Tensor.detach, example) if any(tensor.requires_grad for tensor in given) else example


@contextmanager
def _hooks(model: nn.Module, leave: Callable[[str], Callable], enter: Callable | None = None) -> Iterator[None]:
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if enter is not None:
                hooks.enter_context(module.register_forward_pre_hook(enter))
            hooks.enter_context(module.register_forward_hook(leave(name)))
        yield
