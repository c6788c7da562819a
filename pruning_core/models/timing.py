"""How fast a network and a sparse matrix product are: seconds, as medians with their quartiles."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks import Real, Several, Whole, check, checked
from pruning_core.errors import BadInput
from pruning_core.models import folding
from pruning_core.models.calls import tried
from pruning_core.models.cost import check_example
from pruning_core.models.modes import copied, observing


class Timing(NamedTuple):
    """Median and quartiles of ``n`` repeated measurements, in seconds, and with how many ``threads`` on the processor."""

    median: float
    q1: float
    q3: float
    n: int
    threads: int


@checked
def latency(
    model: nn.Module,
    example: Tensor,
    repeats: int = 30,
    warmup: int = 5,
    *,
    channels_last: bool = False,
    fold_batch_norm: bool = False,
) -> Timing:
    """Seconds of one forward pass over the whole batch ``example``, in evaluation mode, without gradients.

    The input stays the same; ``warmup`` passes are not timed; on a GPU each pass is waited for. torch computes with as many
    threads as ``torch.set_num_threads`` says. The options time a copy: with the channels of each pixel side by side in
    memory (``channels_last``, of weights and input), and without the batch norms that
    :func:`~pruning_core.models.fold_batch_norm` can fold. Raises BadInput when ``repeats`` < 1 or ``warmup`` < 0, or for
    ``channels_last`` of an input that is no batch of images.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    >>> timing = latency(network, torch.zeros(1, 3, 8, 8), channels_last=True, fold_batch_norm=True)
    >>> 0 < timing.q1 <= timing.median <= timing.q3
    True
    """
    check_example(example)
    if channels_last and example.dim() != 4:
        raise BadInput(
            f"channels_last is an order of images (N, C, H, W), and the example has shape {tuple(example.shape)}."
        )
    if fold_batch_norm:
        model = folding.fold_batch_norm(model, example)
    if channels_last:
        model = copied(model).to(memory_format=torch.channels_last)
        example = example.to(memory_format=torch.channels_last)
    with observing(model):
        tried(model, example)
        return time_calls(lambda: model(example), repeats, warmup, example.device)


@checked
def latency_in_turns(networks: Mapping[Any, nn.Module], example: Tensor, turns: int = 10) -> list[dict[str, Any]]:
    """Latencies of several networks that can be compared on a machine that does other things as well.

    In each of ``turns`` rounds every network has one pass over the batch ``example``, after one that is not timed. Returns
    one dict a measurement: ``network`` (its key), ``turn``, ``time`` in seconds, and ``relative``: the time divided by that
    of the first network in the same turn. Raises BadInput when there is no network or ``turns`` < 1.

    >>> rows = latency_in_turns({"wide": nn.Linear(64, 64), "narrow": nn.Linear(64, 8)}, torch.zeros(1, 64), turns=2)
    >>> [(row["network"], row["turn"]) for row in rows]
    [('wide', 0), ('narrow', 0), ('wide', 1), ('narrow', 1)]
    """
    turns = check("turns", turns, Whole(at_least=1))
    if not networks:
        raise BadInput("there is no network whose latency could be measured.")
    rows = []
    for turn in range(turns):
        times = {key: latency(network, example, repeats=1, warmup=1).median for key, network in networks.items()}
        first = next(iter(times.values()))
        rows += [{"network": key, "turn": turn, "time": time, "relative": time / first} for key, time in times.items()]
    return rows


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
    q1, median, q3 = np.quantile(seconds, (0.25, 0.5, 0.75)).tolist()
    return Timing(median, q1, q3, repeats, torch.get_num_threads())


@checked
def csr_speed(
    sparsities: Sequence[float] = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99),
    *,
    size: tuple[int, int] = (2048, 2048),
    columns: int = 64,
    repeats: int = 10,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Time of a dense against a compressed-sparse-row product of W (``size``) and X (``columns`` wide).

    W has float32 entries of which the given fraction, drawn at random, is zero. Returns one dict a sparsity:
    ``sparsity``, ``dense_seconds``, ``csr_seconds`` (medians) and ``speedup`` = dense / CSR; break-even is
    where it passes 1. Raises BadInput for a sparsity outside [0, 1].

    >>> (row,) = csr_speed([0.9], size=(64, 64), columns=8, repeats=1)
    >>> row["sparsity"]
    0.9
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
        slow, fast = (time_calls(partial(torch.matmul, weights, x), repeats, 2).median for weights in (sparse, csr))
        rows.append({"sparsity": sparsity, "dense_seconds": slow, "csr_seconds": fast, "speedup": slow / fast})
    return rows
