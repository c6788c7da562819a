"""Whether two networks are one function: their outputs, in double precision, on random inputs."""

import contextlib
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from pruning_core.errors import Unprunable
from pruning_core.masks.removal import Kept
from pruning_core.masks.widening import WIDE, Widened, widening
from pruning_core.models.calls import tensors_of
from pruning_core.models.modes import copied, evaluating
from pruning_core.models.storage import CARRIED

SMALL = 64
Trial = tuple[Any, list[Tensor]]  # arguments of a network, and its outputs
Run = Callable[[nn.Module, Any], list[Tensor]]


def compare(masked: nn.Module, small: nn.Module, example_input, kept: Kept | None = None, precise: bool = True) -> None:
    """Raise Unprunable unless both networks give the same outputs in evaluation mode.

    Copies in double precision are compared, on random inputs like the example, to 1e-9 of the largest output:
    in single precision a dependency of channels that was not found hides behind the tolerance for rounding, on an example
    of zeros behind the zeros. A network that cannot run in double precision, or lowers it on its way, is held to the
    tolerance of its own type, the root of the machine epsilon. ``precise=False`` compares the networks themselves, on the
    example alone: for two whose weights were rounded apart, or where a difference does no harm. ``kept``, the slices that
    made ``small``, lets the message name the layer at which the two part.
    """
    device = next(masked.parameters()).device
    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    arguments = tree_map_only(Tensor, lambda part: part.to(device), arguments)
    if precise and _are_one(masked, small, tree_map_only(Tensor, _double, arguments)):
        return
    trials: list[Trial] = []
    large_network = masked
    if precise:
        with contextlib.suppress(Exception):
            twin = in_double(masked)
            trials = [*_trials(twin, tree_map_only(Tensor, _double, arguments), _run)]
            large_network = twin
    double = bool(trials)
    if not double:
        try:
            trials = [*_trials(masked, arguments, _run)] if precise else [(arguments, _run(masked, arguments))]
        except Exception as error:
            raise Unprunable(f"the network does not run on the example: {error}") from error
    other = in_double(small) if double else small
    for inputs, outputs in trials:
        try:
            found = _run(other, inputs)
        except Exception as error:
            raise Unprunable(f"the smaller network does not run: {error}") from error
        for large, little in zip(outputs, found, strict=True):
            if large.shape != little.shape:
                raise Unprunable(
                    f"removing channels changed the output shape from {tuple(large.shape)} to {tuple(little.shape)}; "
                    "keep those layers out of scope."
                )
            tolerance, difference = _tolerance(large), _difference(large, little)
            if double and not difference <= tolerance:
                tolerance = _tolerance(large, _lowered(large_network, inputs))
            hidden = not bool(large.any())  # behind a head of zeros, say: the layers in front of it must agree
            if not difference <= tolerance or hidden:
                where = _parting(large_network, other, inputs, kept, tolerance)
                if hidden and not where:
                    continue
                raise Unprunable(
                    f"masked and smaller network differ by {difference:.2g} of the largest output{where}; the network has "
                    "a dependency of channels that was not found, so prune weights instead."
                )


def _are_one(masked: nn.Module, small: nn.Module, arguments) -> bool:
    """Whether two networks pass the comparison without copies of their weights in double precision; False where they
    do not pass, and where they do not run so: then copies are compared, which tells what differs."""
    with contextlib.suppress(Exception):
        twins = widening(masked), widening(small)
        if twins[0] is None or twins[1] is None:
            return False
        mode = Widened()

        def run(network: nn.Module, inputs) -> list[Tensor]:
            with mode:
                return _run(network, inputs)

        trials = [*_trials(twins[0], arguments, run)]
        results = [run(twins[1], inputs) for inputs, _ in trials]
        pairs = [
            pair for (_, large), found in zip(trials, results, strict=True) for pair in zip(large, found, strict=True)
        ]
        return bool(pairs) and all(
            large.shape == little.shape
            and large.dtype in WIDE
            and bool(large.any())
            and _difference(large, little) <= _tolerance(large)
            for large, little in pairs
        )
    return False


def in_double(network: nn.Module) -> nn.Module:
    """A copy in double precision, with parameters, buffers and tensors that are plain attributes of modules; of masks that
    the network carries, without."""
    memo: dict[int, Any] = {}
    attributes = []
    for module in network.modules():
        attributes += [value for value in vars(module).values() if isinstance(value, Tensor)]
        if CARRIED in vars(module):
            memo[id(vars(module)[CARRIED])] = {}
    for tensor in [*network.parameters(), *network.buffers(), *attributes]:
        if tensor.is_floating_point():
            twin = tensor.detach().double()
            memo[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
    return copied(network, memo)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


class _Lowered(TorchFunctionMode):
    """Notes to what precision values in double precision are lowered while it is in force."""

    def __init__(self) -> None:
        super().__init__()
        self.epsilon = 0.0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        before = args[0].dtype if args and isinstance(args[0], Tensor) else None
        after = found.dtype if isinstance(found, Tensor) and found.is_floating_point() else torch.float64
        if before == torch.float64 != after:
            self.epsilon = max(self.epsilon, torch.finfo(after).eps)
        return found


def _lowered(network: nn.Module, inputs) -> float:
    """The machine epsilon of what a network in double precision lowers values to on its way; 0 where it does not."""
    with _Lowered() as seen:
        _run(network, inputs)
    return seen.epsilon


def _tolerance(output: Tensor, lowered: float = 0.0) -> float:
    kind = output.dtype if output.is_floating_point() or output.is_complex() else torch.float64
    epsilon = max(torch.finfo(kind).eps, lowered)
    return 1e-9 if epsilon == torch.finfo(torch.float64).eps else math.sqrt(epsilon)


def _difference(large: Tensor, little: Tensor) -> float:
    """The largest difference as a fraction of the largest entry; NaN where one is NaN."""
    if not large.numel():
        return 0.0
    wide, narrow = (tensor if tensor.is_complex() else tensor.double() for tensor in (large, little))
    return float((wide - narrow).abs().max()) / (float(wide.abs().max()) + 1e-300)


def _trials(network: nn.Module, arguments, run: Run) -> Iterator[Trial]:
    """Random inputs of the example's types, with the outputs.

    Noise first; where the network does not take it (a logarithm, a table of limited length), what lies between the least
    and the largest entry of the example; where it takes neither, the example itself. Noise has SMALL pixels a side first,
    which show the same channels in a fraction of the time, and the example's size where the network refuses those.
    """
    generator = torch.Generator().manual_seed(0)
    small = tree_map_only(Tensor, _small, arguments)
    differ = any(a.shape != b.shape for a, b in zip(tensors_of(small), tensors_of(arguments), strict=True))
    first = [(_noise, small)] if differ else []
    for draw, template in (*first, (_noise, arguments), (_within, arguments)):
        inputs = tree_map_only(Tensor, partial(draw, generator), template)
        with contextlib.suppress(Exception):
            outputs = run(network, inputs)
            if all(bool(torch.isfinite(output).all()) for output in outputs):
                yield inputs, outputs
                return
    yield arguments, run(network, arguments)


def _small(tensor: Tensor) -> Tensor:
    """A batch of images, cut down to SMALL pixels a side, from its corner; anything else as it is."""
    return tensor[..., :SMALL, :SMALL] if tensor.dim() == 4 and tensor.is_floating_point() else tensor


def _noise(generator: torch.Generator, part: Tensor) -> Tensor:
    """Standard normal numbers; whole numbers between those of the example; what is true or false as it is."""
    if part.dtype == torch.bool or not part.numel():
        return part
    if not part.is_floating_point():
        return torch.randint(min(0, int(part.min())), int(part.max()) + 1, part.shape, generator=generator).to(part)
    return torch.randn(part.shape, generator=generator).to(part)


def _within(generator: torch.Generator, part: Tensor) -> Tensor:
    if not part.is_floating_point() or not part.numel():
        return _noise(generator, part)
    low, high = float(part.min()), float(part.max())
    return low + (high - low) * torch.rand(part.shape, generator=generator).to(part)


def _run(network: nn.Module, arguments) -> list[Tensor]:
    with evaluating(network), torch.no_grad():
        return tensors_of(network(*arguments))


def _parting(masked: nn.Module, small: nn.Module, inputs, kept: Kept | None, tolerance: float) -> str:
    """The first layer whose outputs differ in other than the channels that were cut, in words; "" if none is found."""
    if kept is None:
        return ""
    latest: Tensor | None = None
    for (name, large), (_, little) in zip(_calls(masked, inputs), _calls(small, inputs), strict=False):
        layer = masked.get_submodule(name)
        latest = next(iter(kept.slices.get(f"{name}.weight", {0: latest}).values()), latest)
        dim = -1 if isinstance(layer, nn.Linear) else 1
        if (
            large.shape != little.shape
            and latest is not None
            and large.dim() > 1
            and int(latest.max()) < large.shape[dim]
        ):
            large = large.index_select(dim, latest.to(large.device))
        if large.shape == little.shape and not _difference(large, little) <= tolerance:
            return f", from {type(layer).__name__} {name!r} on"
    return ""


def _calls(network: nn.Module, inputs) -> list[tuple[str, Tensor]]:
    """Name and output of every layer without children, in the order of the calls."""
    found: list[tuple[str, Tensor]] = []

    def noted(name: str) -> Callable:
        return lambda layer, given, output: found.extend((name, tensor) for tensor in tensors_of(output)[:1])

    with ExitStack() as hooks:
        for name, layer in network.named_modules():
            if not any(True for _ in layer.children()):
                hooks.enter_context(layer.register_forward_hook(noted(name)))
        _run(network, inputs)
    return found
