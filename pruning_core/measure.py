"""How large, how costly and how fast a network is: parameters, multiply-accumulates, latency, bytes, calibration.

One convention for cost in the whole book: a multiply-accumulate (MAC) is one product of a weight with an
activation, counted in convolutions and linear layers for ONE sample. Batch norm, biases, activations and
pooling are not counted, nor are products of two activations (the scores and the mixing inside attention),
because no weight can be pruned from them. A zeroed weight still counts; only removing it (a smaller layer)
lowers the number.
"""

import math
import time
import warnings
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.conv import _ConvTransposeNd

from pruning_core.checks import Real
from pruning_core.checks import Several
from pruning_core.checks import Whole
from pruning_core.checks import check
from pruning_core.errors import BadInput
from pruning_core.errors import BadType

COUNTED = (
    torch.ops.aten.convolution,
    torch.ops.aten._convolution,
    torch.ops.aten.cudnn_convolution,
    torch.ops.aten.addmm,
    torch.ops.aten.mm,
)
LAYERS = (_ConvNd, nn.Linear)
PASSES_OF_A_TRAINING_STEP = 3  # forward, gradient of the inputs, gradient of the weights


class Timing(NamedTuple):
    """Median and quartiles of ``n`` repeated measurements, in seconds."""

    median: float
    q1: float
    q3: float
    n: int


@contextmanager
def observing(model: nn.Module) -> Iterator[None]:
    """Within the block: evaluation mode, no gradients, own random numbers; afterwards mode and global RNG are as before."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {parameter.device.index or 0 for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(devices)), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, the modes from before afterwards; gradients can be taken."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def count_parameters(model: nn.Module) -> int:
    """Number of trainable and frozen parameters; one that is shared by two layers counts once, buffers do not count.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    return sum(parameter.numel() for parameter in model.parameters())


def sparsity_of(model: nn.Module, names: Iterable[str] | None = None) -> float:
    """Fraction of exact zeros, in [0, 1], among the weights of convolutions and linear layers (or among ``names``).

    Raises BadInput when there is no such weight.

    >>> layer = nn.Linear(4, 1)
    >>> _ = nn.init.zeros_(layer.weight[:, :3])
    >>> sparsity_of(layer)
    0.75
    """
    parameters = dict(model.named_parameters())
    if names is None:
        weights = [module.weight for module in model.modules() if isinstance(module, LAYERS)]
    else:
        names = list(names)
        missing = [name for name in names if name not in parameters]
        if missing:
            raise BadInput(f"the network has no parameter {missing[0]!r}.")
        weights = [parameters[name] for name in names]
    unique = list({id(weight): weight for weight in weights}.values())
    total = sum(weight.numel() for weight in unique)
    if total == 0:
        raise BadInput("there is no convolution or linear layer whose sparsity could be measured.")
    return sum(int((weight == 0).sum()) for weight in unique) / total


def size_on_disk(model: nn.Module) -> int:
    """Bytes of the network as one safetensors file: parameters and buffers, zeros stored like any other value."""
    unique: dict[tuple, str] = {}
    state = model.state_dict()
    for name, tensor in state.items():
        unique.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,), name)
    kept = {name: state[name].detach().cpu().contiguous().clone() for name in unique.values()}
    return len(safetensors.torch.save(kept))


def count_macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one forward pass for one sample (the convention is in the docstring of this module).

    ``example`` is a batch (N, ...) of which the first sample is used. Mode, gradients, buffers and RNG stay
    as they were. Raises BadType or BadInput when ``example`` is no non-empty batch.

    >>> count_macs(nn.Conv2d(3, 8, 3, padding=1), torch.zeros(1, 3, 4, 4)) == 8 * 3 * 9 * 16
    True
    """
    return sum(macs_by_layer(model, example).values())


def macs_by_layer(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Multiply-accumulates for one sample, by the name of the module that computed them, in order of first use.

    Modules without any are left out; what a module computes itself, outside its children, is listed under its
    own name. A module that is used twice is counted twice. Arguments and errors as in ``count_macs``.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton, which takes longer than the rest of us

    found: dict[str, int] = {}
    running: list[list[int]] = []  # one [count at entry, counted inside children] for every module now being computed
    counter = FlopCounterMode(display=False)

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

    with _hooks(model, leave, enter), observing(model), _plain_attention(), counter:
        model(_first(example))
    return found


def norm_operations(model: nn.Module, example: Tensor) -> int:
    """A multiplication and an addition for every value that passes a batch norm, for one sample: fvcore's convention.

    ``count_macs`` leaves them out, as torch's counter does. Arguments and errors as there.
    """
    found = 0

    def leave(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            nonlocal found
            if isinstance(module, _BatchNorm):
                found += 2 * output.numel()

        return hook

    with _hooks(model, leave), observing(model):
        model(_first(example))
    return found


def output_positions(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Number of positions at which each weight of a convolution or linear layer is used for one sample, by layer name.

    Height x width of the output for a convolution (of the input for a transposed one), 1 for a linear layer
    on (N, F), the number of tokens on (N, T, F), also for the projections of attention (the tokens of its
    queries); so non-zero weights x positions = MACs that are left. Layers that the forward pass never calls
    are missing; a layer called twice has the sum. Arguments and errors as in ``count_macs``.
    """
    with counting_positions(model) as found, observing(model):
        model(_first(example))
    return found


@contextmanager
def counting_positions(model: nn.Module) -> Iterator[dict[str, int]]:
    """While it lasts, add up the ``output_positions`` of every forward pass of ``model``, of all its samples."""
    found: dict[str, int] = {}

    def leave(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if isinstance(module, LAYERS):
                if isinstance(module, _ConvTransposeNd):
                    positions = inputs[0].numel() // module.in_channels
                else:
                    positions = output.numel() // module.weight.shape[0]
                found[name] = found.get(name, 0) + positions
            elif isinstance(module, nn.MultiheadAttention):
                # Its projections are computed by one function that calls no layer.
                tokens = output[0].numel() // module.embed_dim
                for part in (name, f"{name}.out_proj"):
                    found[part] = found.get(part, 0) + tokens

        return hook

    with _hooks(model, leave), _plain_attention():
        yield found


def training_macs(macs: int, samples: int) -> int:
    """Multiply-accumulates of training on ``samples`` samples, when a forward pass costs ``macs`` a sample.

    The two products of the backward pass cost as much as the forward pass each, hence three passes.
    """
    return PASSES_OF_A_TRAINING_STEP * macs * samples


def latency(model: nn.Module, example: Tensor, repeats: int = 30, warmup: int = 5) -> Timing:
    """Seconds of one forward pass over the whole batch ``example``, in evaluation mode, without gradients.

    The input stays the same; ``warmup`` passes are not timed; on a GPU each pass is waited for. Raises
    BadInput when ``repeats`` < 1 or ``warmup`` < 0.
    """
    _check(example)
    with observing(model):
        return time_calls(lambda: model(example), repeats, warmup, example.device)


def time_calls(
    call: Callable[[], object], repeats: int = 30, warmup: int = 5, device: torch.device | str = "cpu"
) -> Timing:
    """Median and quartiles of the seconds that ``call()`` takes. Raises BadInput when ``repeats`` < 1 or ``warmup`` < 0."""
    repeats, warmup = check("repeats", repeats, Whole(at_least=1)), check("warmup", warmup, Whole(at_least=0))
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    seconds = []
    for index in range(warmup + repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        if index >= warmup:
            seconds.append(time.perf_counter() - start)
    q1, median, q3 = (
        torch.tensor(seconds, dtype=torch.float64).quantile(torch.tensor([0.25, 0.5, 0.75]).double()).tolist()
    )
    return Timing(median, q1, q3, repeats)


def csr_speed(
    sparsities: Sequence[float] = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99),
    *,
    size: tuple[int, int] = (2048, 2048),
    columns: int = 64,
    repeats: int = 10,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Time of a dense against a compressed-sparse-row matrix product, W (rows x columns of ``size``) times X
    (``columns`` wide).

    W has float32 entries of which the given fraction, drawn at random, is zero. Returns one dict a sparsity:
    ``sparsity``, ``dense_seconds``, ``csr_seconds`` (medians) and ``speedup`` = dense / CSR; break-even is
    where it passes 1. Raises BadInput for a sparsity outside [0, 1].
    """
    sparsities = check("sparsities", sparsities, Several(Real(at_least=0, at_most=1)))
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(size, generator=generator)
    order = torch.rand(size, generator=generator).flatten().argsort()
    x = torch.randn(size[1], columns, generator=generator)
    rows = []
    for sparsity in sparsities:
        sparse = dense.clone()
        sparse.view(-1)[order[: round(sparsity * order.numel())]] = 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            csr = sparse.to_sparse_csr()
        dense_seconds = time_calls(lambda w=sparse: w @ x, repeats, 2).median  # type: ignore[misc]
        csr_seconds = time_calls(lambda w=csr: w @ x, repeats, 2).median  # type: ignore[misc]
        rows.append(
            {
                "sparsity": sparsity,
                "dense_seconds": dense_seconds,
                "csr_seconds": csr_seconds,
                "speedup": dense_seconds / csr_seconds,
            }
        )
    return rows


def expected_calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy, a fraction in [0, 1]: sum over bins of n_b / n * |accuracy_b - confidence_b|.

    ``logits`` (N, classes), ``labels`` (N,) integers; the confidence is the largest softmax probability, cut
    into ``bins`` bins of equal width. Raises BadInput for empty or unequal shapes, NaN, or ``bins`` < 1. Guo
    et al. (2017), equation 3.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise BadInput(
            f"logits (N, classes) and labels (N,) are needed, not {tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    bins = check("bins", bins, Whole(at_least=1))
    if not torch.isfinite(logits).all():
        raise BadInput("the logits hold NaN or infinite values.")
    confidence, predicted = logits.double().softmax(1).max(1)
    correct = (predicted == labels).double()
    index = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bin b holds (b / bins, (b + 1) / bins]
    gap = torch.zeros(bins, dtype=torch.float64, device=logits.device).index_add_(0, index, correct - confidence)
    return math.fsum(gap.abs().tolist()) / len(labels)


def _check(example: Tensor) -> None:
    if not isinstance(example, Tensor):
        raise BadType(f"the example input must be a tensor (N, ...), not {type(example).__name__}.")
    if example.dim() == 0 or example.numel() == 0:
        raise BadInput(f"the example input must hold at least one sample, but its shape is {tuple(example.shape)}.")


def _first(example: Tensor) -> Tensor:
    _check(example)
    return example[:1]


@contextmanager
def _hooks(model: nn.Module, leave: Callable[[str], Callable], enter: Callable | None = None) -> Iterator[None]:
    handles = []
    try:
        for name, module in model.named_modules():
            if enter is not None:
                handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused attention kernel, whose matrix products no counter and no hook sees."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
