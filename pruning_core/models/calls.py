"""How a network is called: with one tensor or several, on its device and in its type; and what its outputs hold."""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.errors import BadInput, PruningError

HALF = (torch.float16, torch.bfloat16)
LOGITS = ("logits", "out")  # of Hugging Face's and of torchvision's networks


def call(model: Callable, inputs: Any) -> Any:
    """What ``model`` puts out for a tensor, or for the tuple of its positional arguments."""
    return model(inputs) if isinstance(inputs, Tensor) else model(*inputs)


def tried(model: nn.Module, inputs: Any) -> Any:
    """The same, raising BadInput in one sentence where the network cannot take its inputs."""
    try:
        return call(model, inputs)
    except (PruningError, torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # whatever a network of somebody's own raises: a key, an attribute, an assertion
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors_of(inputs))
        kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors_of(inputs)}
        given = f"{shapes} ({', '.join(sorted(kinds))})"
        given += "; images are given as floating-point numbers" if "uint8" in kinds else ""
        given += "; their batch dimension is missing, x[None] has one" if _lacks_batch(model, inputs) else ""
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadInput(f"the network cannot take inputs of shape {given}: {what}") from error


def _lacks_batch(model: nn.Module, inputs: Any) -> bool:
    """Whether an input has fewer dimensions than the first layer with weights reads of a batch."""
    layers = (m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd | nn.Linear))
    wanted = next((len(layer.weight.shape) for layer in layers), 0)  # Conv2d: (N, C, H, W); Linear: (N, F)
    first = next(iter(tensors_of(inputs)), None)
    return first is not None and first.dim() < wanted


def mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """``value``, a tensor or a nested collection or dataclass, with ``change`` of every tensor in its place."""
    if isinstance(value, Tensor):
        return change(value)
    named = {key: mapped(change, entry) for key, entry in _named(value).items()}
    if isinstance(value, Mapping):
        return named
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **named)
    if hasattr(value, "_asdict"):
        return type(value)(**named)
    return type(value)(named.values()) if isinstance(value, tuple | list) else value


def part(inputs: Any, chosen: slice) -> Any:
    """Some samples of a batch; what has no batch dimension stays."""

    def cut(tensor: Tensor) -> Tensor:
        try:
            return tensor[chosen] if tensor.dim() else tensor
        except NotImplementedError as error:
            raise BadInput(f"a batch that is stored as {tensor.layout} cannot be cut into its samples.") from error

    return mapped(cut, inputs)


def first_sample(inputs: Any) -> Any:
    """The first sample of a batch, with its batch dimension.

    >>> first_sample((torch.ones(4, 2), None))
    (tensor([[1., 1.]]), None)
    """
    return part(inputs, slice(1))


def samples(inputs: Any) -> int:
    """How many samples a batch of inputs holds: the length of its first tensor.

    >>> samples((torch.ones(4, 2), torch.ones(4, 3)))
    4
    """
    first = inputs if isinstance(inputs, Tensor) else next(iter(tensors_of(inputs)), None)
    return len(first) if first is not None and first.dim() else 0


def like_model(model: nn.Module, inputs: Any, labels: Any) -> tuple[Any, Any]:
    """The batch on the device, and floating-point inputs in the dtype, of the model's parameters.

    Labels that are no classes are in that dtype too, or in float32 where the model computes in half precision.
    """
    reference = next(model.parameters(), None)
    if reference is None:
        return inputs, labels
    exact = torch.float32 if reference.dtype in HALF else reference.dtype
    return _placed(inputs, reference.device, reference.dtype), _placed(labels, reference.device, exact)


def _placed(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    if not isinstance(value, Tensor):
        return mapped(lambda tensor: _placed(tensor, device, dtype), value)
    if value.is_meta and device.type != "meta":
        raise BadInput("a batch on 'meta' holds no numbers that the network could be called with.")
    return value.to(device, dtype if value.is_floating_point() else value.dtype, non_blocking=True)


def raised(outputs: Any) -> Any:
    """A tensor of half precision in float32, in which losses and scores are computed; anything else as it is."""
    return outputs.float() if isinstance(outputs, Tensor) and outputs.dtype in HALF else outputs


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors in what a network puts out: one, or a nested collection or dataclass of them, and of what is none.

    >>> len(tensors_of({"logits": torch.ones(2), "hidden": None, "maps": (torch.ones(1), torch.ones(1))}))
    3
    """
    if isinstance(output, Tensor):
        return [output]
    values = _named(output).values()
    return [tensor for value in values for tensor in tensors_of(value)]


def shown(value: Any) -> str:
    """What a message says of a value that does not fit: type and shape of a tensor, else its class."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def logits(outputs: Any) -> Tensor:
    """The tensor that a loss on one tensor gets: the output itself, its entry "logits" or "out", or its only tensor; of a
    tuple the first. Raises BadInput where that is not clear.

    >>> logits({"logits": torch.zeros(2, 3), "loss": None}).shape
    torch.Size([2, 3])
    """
    if isinstance(outputs, Tensor):
        return outputs
    named = _named(outputs)
    for name in LOGITS:
        if isinstance(named.get(name), Tensor):
            return named[name]
    found = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if found and (len(found) == 1 or isinstance(outputs, tuple | list)):
        return next(iter(found.values()))
    names = ", ".join(map(repr, found)) or "no tensor"
    raise BadInput(
        f"the network puts out a {type(outputs).__name__} with {names}, and this loss takes one tensor: give a "
        "loss(outputs, labels) that reads it, or call one of them 'logits'."
    )


def _named(outputs: Any) -> dict[Any, Any]:
    """The entries of a structured output by name, or by number."""
    if isinstance(outputs, Mapping):
        return dict(outputs)
    if is_dataclass(outputs) and not isinstance(outputs, type):
        return {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    if hasattr(outputs, "_asdict"):
        return outputs._asdict()
    return dict(enumerate(outputs)) if isinstance(outputs, tuple | list) else {}
