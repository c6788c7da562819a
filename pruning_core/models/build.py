"""The networks of the papers by name: each variant has its own name and its own parameter count.

``build_model("resnet20", "cifar10", seed=0)`` builds one, ``model.recipe`` says how it was built, and ``rebuild`` makes
the same architecture from that recipe. ``torchvision/<name>`` builds torchvision's classification networks.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from pruning_core.checks import SEED, Maybe, Real, Several, Whole, check, checked
from pruning_core.data.loading import Data
from pruning_core.data.sets import DATASETS
from pruning_core.errors import BadInput, BadType, known_name, shown
from pruning_core.models.zoo.base import NETWORKS, NORMS, ModelInfo, Shape
from pruning_core.models.zoo.chains import chain
from pruning_core.models.zoo.densenet import DenseNet
from pruning_core.models.zoo.initialisers import STARTS
from pruning_core.models.zoo.resnet import ResNet, SnipResNet, WideResNet
from pruning_core.models.zoo.transformer import VisionTransformer

_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "chain": chain,
    "densenet": DenseNet,
    "resnet": ResNet,
    "snip_resnet": SnipResNet,
    "vision_transformer": VisionTransformer,
    "wide_resnet": WideResNet,
}


def _entry(start: str, network: str = "chain", **rest: Any) -> ModelInfo:
    """An entry of ``networks.yml``; what is no field of ModelInfo is an option of the network."""
    fields = {key: rest.pop(key) for key in ModelInfo.__dataclass_fields__ if key in rest}
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return ModelInfo(partial(_NETWORKS[network], **rest), STARTS[start], **fields)


MODELS: dict[str, ModelInfo] = {name: _entry(**entry) for name, entry in NETWORKS.items()}
"""Name -> entry: builder, paper, and the parameter count at its standard data."""


def shape_and_classes(data: Any) -> tuple[Shape, int]:
    """(C, H, W) and number of classes: of a data set by name, of loaded data, or as given."""
    if isinstance(data, str):
        info = DATASETS[known_name("data set", data, DATASETS)]
        return info.shape, info.classes
    if isinstance(data, Data):
        return data.shape, data.classes
    try:
        (channels, height, width), classes = data
    except (TypeError, ValueError):
        raise BadType(
            f"data must be the name of a data set, loaded data or ((C, H, W), classes), not {shown(data)}."
        ) from None
    numbers = (channels, height, width, classes)
    channels, height, width, classes = check("((C, H, W), classes)", numbers, Several(Whole(at_least=1)))
    return (channels, height, width), classes


def known_model(name: object, width: float = 1.0, norm: str = "batch") -> str:
    """``name``, if a network is called so, one of ``MODELS`` or one of torchvision's; UnknownName otherwise. BadInput for a
    ``width`` or ``norm`` that torchvision's cannot have.

    >>> known_model("lenet300"), known_model("torchvision/resnet18")
    ('lenet300', 'torchvision/resnet18')
    """
    if not isinstance(name, str) or not name.startswith("torchvision/"):
        return known_name("model", name, [*MODELS, "torchvision/<name>"])
    from torchvision import models

    if name.removeprefix("torchvision/") not in (names := models.list_models(module=models)):
        known_name("model", name, [f"torchvision/{known}" for known in names])
    if width != 1 or norm != "batch":
        raise BadInput(f"{name} is built as torchvision defines it: width must be 1 and norm 'batch'.")
    return name


def _torchvision(name: str, shape: Shape, classes: int) -> nn.Module:
    from torchvision import models

    short = name.removeprefix("torchvision/")
    # Auxiliary classifiers would change what the network returns while it trains.
    options = {"aux_logits": False, "init_weights": True} if short in ("googlenet", "inception_v3") else {}
    model = models.get_model(short, weights=None, num_classes=classes, **options)
    if shape[0] != 3:
        _read_channels(model, shape[0])
    return model


def _read_channels(model: nn.Module, channels: int) -> None:
    """Let the first convolution read ``channels`` channels in place of three, its weights drawn as wide as they were."""
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    weight = conv.weight.detach()
    conv.in_channels = channels
    conv.weight = nn.Parameter(weight.new_empty(len(weight), channels, *weight.shape[2:]))
    if not weight.is_meta:
        nn.init.normal_(conv.weight, std=float(weight.std()))


@checked
def build_model(
    name: str,
    data: str | Data | tuple[Shape, int],
    *,
    width: float = 1.0,
    norm: str = "batch",
    start: str | None = None,
    seed: int | None = None,
) -> nn.Module:
    """Build a network by name for a data set.

    Args:
        name: one of ``MODELS``, or "torchvision/<name>".
        data: what it is for: the name of a data set, loaded data, or ``((C, H, W), classes)``.
        width: factor on the number of channels or hidden units of every layer (rounded, at least 1).
        norm: "batch"; "sigmoid" (RNI's norm with scale sigmoid(g) and no shift, behind convolutions only); "none"
            (convolutions without bias get one). Networks without norm layers in their paper ignore "batch".
        start: how weights are drawn, in place of what the network's paper does: a name of ``STARTS``, such as "he_uniform".
        seed: fixes the initial weights and leaves the global random state alone; None draws from the global state.

    Returns:
        The network in training mode on the CPU, mapping (N, C, H, W) to logits (N, classes), with an attribute
        ``recipe`` for :func:`rebuild`. One seed gives the same convolutions and linear layers for every ``norm``. Inside
        ``with torch.device("meta")`` it has shapes but no values, and nothing is drawn: enough to count parameters.

    Raises:
        UnknownName: no such network, data set, norm or start. BadInput: images too small, or no such combination.

    >>> sum(p.numel() for p in build_model("lenet300", "mnist", seed=0).parameters())
    266610
    """
    seed = check("seed", seed, Maybe(SEED))
    if start is not None:
        known_name("start", start, STARTS)
        if name not in MODELS:
            raise BadInput(f"{name} starts as torchvision starts it: start={start!r} is for networks of the book.")
    with torch.random.fork_rng(devices=[]):
        drawn = int(torch.randint(2**62, (), device="cpu")) if seed is None else seed
        torch.default_generator.manual_seed(drawn)  # not torch.manual_seed, which would touch the GPUs' state too
        try:
            model = _architecture(name, data, width, norm)
        except (RuntimeError, OverflowError, MemoryError) as error:
            if width <= 1:
                raise
            raise BadInput(f"{name} cannot be built at width {width:g}: there is not so much memory.") from error
        if name in MODELS and not any(p.is_meta for p in model.parameters()):
            torch.default_generator.manual_seed(drawn)  # again: norms decide how many numbers were drawn so far
            initialise = MODELS[name].initialise if start is None else STARTS[start]
            initialise(model)
    if seed is None:
        torch.randint(2**62, (), device="cpu")  # the state was restored above: the next network must be another one
    return model


def recipe_for(name: str, shape: Shape, classes: int, width: float = 1.0, norm: str = "batch") -> dict[str, Any]:
    """What :func:`rebuild` needs to know about a network, fit for JSON."""
    return {"name": name, "shape": list(shape), "classes": classes, "width": float(width), "norm": norm}


def _architecture(name: str, data: Any, width: float, norm: str) -> nn.Module:
    """The network with its recipe and with weights as torch draws them: those of the paper are not drawn yet."""
    shape, classes = shape_and_classes(data)
    width = check("width", width, Real(above=0))
    known_name("norm", norm, NORMS)
    if known_model(name, width, norm).startswith("torchvision/"):
        model = _torchvision(name, shape, classes)
    else:
        info = MODELS[name]
        if norm not in info.norms:
            raise BadInput(f"{name} cannot have norm={norm!r}; allowed: {', '.join(info.norms)}.")
        if min(shape[1:]) < (side := info.smallest):
            raise BadInput(f"{name} needs images of at least {side}x{side}, not {shape[1]}x{shape[2]}.")
        model = info.build(shape, classes, width, norm)
    model.recipe = recipe_for(name, shape, classes, width, norm)  # type: ignore[assignment]
    return model


@checked
def rebuild(recipe: Mapping[str, Any]) -> nn.Module:
    """The architecture that ``model.recipe`` describes, to be overwritten by a state dict: its weights are not the paper's
    (drawing those takes seconds where they are orthogonal), and the global random state stays as it is.

    Raises BadInput for a recipe that lacks an entry or has one too many.

    >>> network = build_model("lenet300", "digits", seed=0)
    >>> rebuild(network.recipe).load_state_dict(network.state_dict())
    <All keys matched successfully>
    """
    needed = {"name", "shape", "classes", "width", "norm"}
    if not isinstance(recipe, Mapping) or set(recipe) != needed:
        raise BadInput(
            f"a recipe of a network has exactly the entries {', '.join(sorted(needed))}; got {shown(recipe)}."
        )
    shape = check("the shape of an image", recipe["shape"], Several(Whole(at_least=1), at_least=3, at_most=3))
    data: Any = (shape, recipe["classes"])
    with torch.random.fork_rng(devices=[]):
        return _architecture(recipe["name"], data, recipe["width"], recipe["norm"])
