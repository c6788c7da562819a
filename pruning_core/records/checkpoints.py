"""Tensors and JSON in one safetensors file that notices when it was altered: no pickle, written all or not at all.

``describe`` turns the settings of a run into JSON, so that a checkpoint can be told from that of another run.
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from enum import Enum
from numbers import Number
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pruning_core.checks import A, Text, check, checked, plain
from pruning_core.errors import BadInput, BadType, CorruptFile, shown
from pruning_core.records.files import write_atomically
from pruning_core.records.places import each_once, regular_file

FORMAT = "pruning-core tensors 1"
LARGEST = 2**35
"""Bytes of the largest file that is read: ten times the weights of torchvision's largest network (vit_h_14, 2.5 GB), as a
checkpoint with snapshots and the state of an optimizer holds them. A file with a hole in it may claim terabytes."""
STORED = frozenset({
    torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
})  # fmt: skip
"""The types of numbers that come back as they were: safetensors takes others too, and does not read them."""
LONGEST_HEADER = 10**8  # bytes; safetensors reads no longer one


def join_parts(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of several parts under names that say their part, as "mask:0.weight"; :func:`split_parts` undoes it."""
    return {f"{part}:{name}": tensor for part, held in parts.items() for name, tensor in held.items()}


def split_parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by what stands before the first colon of their names; a part without tensors is missing.

    >>> split_parts({"mask:0.weight": torch.ones(1), "model:0.bias": torch.zeros(1)})
    {'mask': {'0.weight': tensor([1.])}, 'model': {'0.bias': tensor([0.])}}
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        part, _, name = key.partition(":")
        parts.setdefault(part, {})[name] = tensor
    return parts


@checked(tensors=None)
def save_tensors(path: str | PathLike, tensors: Mapping[str, Tensor], info: Mapping[str, Any] | None = None) -> None:
    """Write named tensors and a JSON-able ``info`` into one safetensors file at ``path``.

    The file appears whole or not at all and carries a SHA-256 over names, dtypes, shapes, bytes and ``info``. Tensors may be
    on any device, of any strided dtype and shape, and may share memory (each name gets its own copy). Raises BadType for a
    value that is no tensor or no JSON, BadInput when the place cannot be written.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "three.safetensors"
    >>> save_tensors(place, {"weight": torch.ones(3)}, {"epoch": 4})
    >>> load_tensors(place)
    ({'weight': tensor([1., 1., 1.])}, {'epoch': 4})
    """
    plain = {name: _plain(name, tensor) for name, tensor in check("tensors", tensors, A(Mapping, "a mapping")).items()}
    try:
        text = json.dumps(dict(info or {}), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise BadType(f"the information stored in {path} must be JSON-able: {error}.") from error
    metadata = {"format": FORMAT, "info": text, "sha256": _digest(plain, text)}
    write_atomically(Path(path), safetensors.torch.save(plain, metadata))


@checked
def load_tensors(path: str | PathLike) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_tensors`` wrote: (tensors on the CPU, info). Raises BadInput when there is no readable file at
    ``path``, CorruptFile when it is truncated, altered or of another kind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_tensors(f"{folder}/a", {"x": torch.ones(2)}, {"step": 3})
    ...     load_tensors(f"{folder}/a")
    ({'x': tensor([1., 1.])}, {'step': 3})
    """
    try:
        with regular_file(path, LARGEST) as file:
            metadata = _metadata(path, file)
            file.seek(0)
            content = file.read()
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}.") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}.") from error
    if metadata.get("format") != FORMAT:
        raise CorruptFile(f"{path} is a safetensors file, but not one that pruning_core wrote ({FORMAT!r}).")
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CorruptFile(f"{path} is truncated or damaged: its tensors cannot be read.") from error
    text = metadata.get("info", "")
    if _digest(tensors, text) != metadata.get("sha256"):
        raise CorruptFile(f"{path} was altered after it was written: its checksum does not match.")
    try:
        info = json.loads(text, object_pairs_hook=each_once)
    except (ValueError, TypeError, RecursionError):
        info = None
    if not isinstance(info, dict):  # whoever made it made the checksum, too
        raise CorruptFile(f"{path} is no file of pruning_core: what it says about its tensors is no JSON object.")
    return tensors, info


def describe(value: Any, within: tuple[int, ...] = ()) -> Any:
    """``value`` as JSON that is equal for equal settings: how a checkpoint knows the run that it belongs to.

    Tensors and arrays enter by their SHA-256, dataclasses and modules by class, fields and tensors, functions by their name and
    the values that they have captured, members of enumerations by theirs; other objects by their class alone, so two of a
    kind cannot be told apart. ``within``: the ids of what ``value`` is a part of, which may hold it in turn.
    """
    value = plain(value) if isinstance(value, np.generic) else value
    if value is None or isinstance(value, bool | int | float | str):
        return value if value == value else "nan"  # which equals itself
    if isinstance(value, Tensor):
        return _digest_of(value)
    if id(value) in within:
        return "what holds it"
    inner = functools.partial(describe, within=(*within, id(value)))
    if isinstance(value, Mapping):
        return {str(key): inner(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [inner(entry) for entry in value]
    if isinstance(value, functools.partial):
        return {"partial": inner(value.func), "arguments": inner([value.args, value.keywords])}
    if isinstance(value, nn.Module):
        simple = {name: entry for name, entry in vars(value).items() if isinstance(entry, bool | int | float | str)}
        return {"type": type(value).__qualname__, **simple, "tensors": inner(value.state_dict())}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: inner(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {"type": type(value).__qualname__, **fields}
    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        return {"method": value.__func__.__qualname__, "of": inner(value.__self__)}
    if hasattr(value, "__code__"):
        captured = [content for cell in value.__closure__ or () for content in _content(cell)]
        constants = [constant for constant in value.__code__.co_consts if isinstance(constant, int | float | str)]
        return {"function": value.__qualname__, "values": inner([constants, captured, value.__defaults__])}
    return {"type": getattr(value, "__qualname__", type(value).__qualname__), **_told_apart(value, inner)}


def _told_apart(value: Any, inner: Callable[[Any], Any]) -> dict[str, Any]:
    """What else there is to say of values that are told apart by more than their class."""
    if isinstance(value, np.ndarray):
        numbers = value.dtype.kind in "biufc"
        return {"values": inner(torch.from_numpy(np.array(value)) if numbers else value.tolist())}
    if isinstance(value, set | frozenset):
        return {"values": sorted(map(inner, value), key=json.dumps)}
    if isinstance(value, Enum | torch.dtype | torch.device | PurePath | bytes | complex | range | Number):
        return {"value": str(value)}
    return {}


def describe_whole(value: Any) -> Any:
    """The same, and of an object of a plain class what it holds: a loss with a strength of its own, say."""
    found = describe(value)
    if hasattr(value, "__dict__") and found == {"type": type(value).__qualname__}:
        found |= describe(vars(value), (id(value),))
    return found


def _content(cell: Any) -> list[Any]:
    """What a function has captured under one name; nothing where that gets its value later, or never."""
    try:
        return [cell.cell_contents]
    except ValueError:
        return []


def _digest_of(tensor: Tensor) -> Any:
    """The SHA-256 of a tensor; of one without values what there is to say of it."""
    if is_lazy(tensor):
        return {"type": str(tensor.dtype), "shape": None}
    if tensor.is_meta:
        return {"type": str(tensor.dtype), "shape": list(tensor.shape)}
    dense = tensor.detach() if tensor.layout is torch.strided else tensor.detach().to_dense()
    return _digest({"": dense.cpu().resolve_conj().resolve_neg()}, "")[:16]


def refuse_foreign(path: str | PathLike, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise BadInput, naming what differs, unless both descriptions of a run are the same."""
    if different := sorted(key for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key)):
        raise BadInput(
            f"{path} belongs to another run (it differs in {', '.join(different)}); "
            "give this run a path of its own, or delete the file."
        )


def _plain(name: str, tensor: Tensor) -> Tensor:
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise BadType(f"a checkpoint maps names to tensors, not {shown(name)} to {type(tensor).__name__}.")
    check("the name of a tensor", name, Text(empty=True))
    if name == "__metadata__":
        raise BadInput("no tensor can be called '__metadata__' in a file: safetensors keeps its own notes there.")
    if tensor.is_meta:
        raise BadInput(f"{name} lies on the meta device: it has a shape, but no values that could be saved.")
    if tensor.is_quantized:
        raise BadType(f"{name} is quantised ({tensor.dtype}); save what dequantize() makes of it.")
    if tensor.layout != torch.strided or tensor.is_nested:
        kind = "nested" if tensor.is_nested else f"stored as {tensor.layout}"
        raise BadType(f"{name} is {kind}; only dense (strided) tensors can be saved.")
    if tensor.dtype not in STORED:
        raise BadType(f"{name} holds {tensor.dtype}, which a safetensors file cannot hold.")
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _metadata(path: str | PathLike, file: BinaryIO) -> dict[str, str]:
    """The metadata of a safetensors header, read by hand: safetensors shows it for mapped files only. CorruptFile where the
    tensors that the header tells of do not fill the file, which is found before these are read."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    try:
        if length > min(size - 8, LONGEST_HEADER):
            raise ValueError
        header = json.loads(file.read(length), object_pairs_hook=each_once)
        metadata = dict(header.pop("__metadata__", None) or {})
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, AttributeError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise CorruptFile(f"{path} is no safetensors file, or its header is truncated or damaged.") from error
    if end != size:
        raise CorruptFile(f"{path} is truncated or damaged: it has {size:,} bytes, and its header tells of others.")
    return metadata


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(json.dumps([FORMAT, text]).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
