"""Networks that others wrote, and what becomes of them: here, and in torch-pruning, on the same channels.

``python -m tests.models.third_party [name ...]`` judges them in both, in about half an hour, keeps what it finds after every
network in ``pruning_core/book/other_networks.yml``, which the book shows, and prints the table in Markdown (``--stored``: of
what is kept). A cut is *exact* where the smaller network computes what the whole one computes when nothing reads the removed
channels any more, in double precision on fresh inputs; anything else that runs is another network, and the table says by how
much. What torch-pruning's user has to find out, which layers make the outputs, is found out for it here. Seconds are of the
processor, one reading each with nothing remembered: here with the comparison of the two networks, there without one.
"""

from __future__ import annotations

import copy
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

import torch
import torchvision
import yaml
from torch import Tensor, nn
from torchvision.models import detection, segmentation

import pruning_core as pc
from pruning_core.book.other_networks import STORED
from pruning_core.book.tables import read_table
from pruning_core.errors import PruningError
from pruning_core.models.calls import tensors_of
from pruning_core.records.files import write_atomically

REMOVED = 0.3  # of the channels of every group
SECONDS = 60  # of processor time for one network in torch-pruning, as many as the search of our own may take


class Network(NamedTuple):
    """How to make it, the shape of one input, and whether it is pruned here today, so that it must be tomorrow."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 64, 64)
    exact: bool = True
    classes: int | None = 10  # so many outputs; None where they are features


def _vision(name: str, size: int = 64, exact: bool = True) -> Network:
    return Network(lambda: torchvision.models.get_model(name, weights=None, num_classes=10), (3, size, size), exact)


def _video(name: str) -> Network:
    make = torchvision.models.get_model_builder(name)
    return Network(lambda: make(weights=None, num_classes=10), (3, 16, 64, 64))


def _dense(make: Callable, exact: bool = True) -> Network:
    return Network(lambda: make(weights=None, weights_backbone=None, num_classes=5), exact=exact, classes=5)


def _body(make: Callable, exact: bool = True) -> Network:
    """What a detector computes features with: the part that costs, and that takes a tensor."""
    return Network(lambda: make(weights=None, weights_backbone=None).backbone, exact=exact, classes=None)


def _timm(name: str, exact: bool = True) -> Network:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10)

    return Network(make, (3, 224, 224) if "vit" in name else (3, 64, 64), exact)


NETWORKS = {
    "alexnet": _vision("alexnet"),
    "vgg13_bn": _vision("vgg13_bn"),
    "resnet34": _vision("resnet34"),
    "resnet101": _vision("resnet101"),
    "resnext101_32x8d": _vision("resnext101_32x8d"),
    "squeezenet1_0": _vision("squeezenet1_0"),
    "mobilenet_v3_large": _vision("mobilenet_v3_large"),
    "mnasnet0_5": _vision("mnasnet0_5"),
    "efficientnet_b1": _vision("efficientnet_b1"),
    "efficientnet_v2_s": _vision("efficientnet_v2_s"),
    "regnet_x_400mf": _vision("regnet_x_400mf"),
    "regnet_y_800mf": _vision("regnet_y_800mf"),
    "densenet169": _vision("densenet169"),
    "shufflenet_v2_x1_0": _vision("shufflenet_v2_x1_0"),
    "convnext_small": _vision("convnext_small"),
    "vit_b_32": _vision("vit_b_32", 224),
    "swin_t": _vision("swin_t"),
    "swin_v2_t": _vision("swin_v2_t", exact=False),
    "maxvit_t": _vision("maxvit_t", 224, exact=False),
    "video r3d_18": _video("r3d_18"),
    "video mc3_18": _video("mc3_18"),
    "segmentation fcn_resnet50": _dense(segmentation.fcn_resnet50),
    "segmentation deeplabv3_mobilenet_v3_large": _dense(segmentation.deeplabv3_mobilenet_v3_large),
    "segmentation lraspp_mobilenet_v3_large": _dense(segmentation.lraspp_mobilenet_v3_large),
    "body of fasterrcnn_resnet50_fpn": _body(detection.fasterrcnn_resnet50_fpn),
    "body of retinanet_resnet50_fpn_v2": _body(detection.retinanet_resnet50_fpn_v2, exact=False),
    "body of ssd300_vgg16": _body(detection.ssd300_vgg16, exact=False)._replace(shape=(3, 300, 300)),
    "body of ssdlite320_mobilenet_v3_large": _body(detection.ssdlite320_mobilenet_v3_large),
    "timm vit_tiny_patch16_224": _timm("vit_tiny_patch16_224"),
    "timm convnext_atto": _timm("convnext_atto"),
    "timm mobilenetv4_conv_small": _timm("mobilenetv4_conv_small"),
}  # fmt: skip


def built(network: Network) -> nn.Module:
    """In double precision, in evaluation mode, with statistics and scales that let every part be seen in the outputs."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = network.make().double().eval()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
            elif isinstance(module, nn.Linear) and not isinstance(
                module, nn.modules.linear.NonDynamicallyQuantizableLinear
            ):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for name, parameter in model.named_parameters():
            if name.endswith(("layer_scale", "gamma")):  # of ConvNeXt: at the usual 1e-6 a block adds nothing
                nn.init.ones_(parameter)
    return model


def drawn(network: Network, seed: int, size: int = 1) -> Tensor:
    return torch.randn((size, *network.shape), generator=torch.Generator().manual_seed(seed)).double()


def apart(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """The largest difference of their outputs, as a fraction of the largest output; infinite for other shapes."""
    with torch.no_grad():
        first, second = tensors_of(one.eval()(x)), tensors_of(other.eval()(x))
    if [tensor.shape for tensor in first] != [tensor.shape for tensor in second]:
        return float("inf")
    return max(float((a - b).abs().max()) / float(a.abs().max()) for a, b in zip(first, second, strict=True))


class Outcome(NamedTuple):
    """``kind`` is "exact", "differs" or "refused"; ``said`` the sentence or the size of the difference; processor seconds."""

    kind: str
    said: str
    weights: float = 0.0
    seconds: float = 0.0


def ours(network: Network) -> Outcome:
    model, start = built(network), time.process_time()
    try:
        result = pc.prune(model, "l1_norm", REMOVED, across="layer", example_input=drawn(network, 1))
        small = result.shrink()
    except PruningError as error:
        return Outcome("refused", str(error), 0.0, time.process_time() - start)
    seconds = time.process_time() - start
    return _judged(model, result.model, small, network, seconds)


def _judged(whole: nn.Module, masked: nn.Module, small: nn.Module, network: Network, seconds: float) -> Outcome:
    x = drawn(network, 2, 2)
    if not apart(whole, masked, x) > 1e-6:
        return Outcome("differs", "nothing that was cut can be seen in the outputs", 0.0, seconds)
    difference = apart(masked, small, x)
    kind = "exact" if difference < 1e-9 else "differs"
    fewer = 1 - pc.count_parameters(small) / pc.count_parameters(whole)
    return Outcome(kind, f"{difference:.1g} of the largest output", fewer, seconds)


class _TooLong(Exception):
    pass


def theirs(network: Network) -> Outcome:
    """The same by torch-pruning: its groups, of each the channels with the smallest L1 norm, all that its user would do."""

    def stop(*_: object) -> None:
        raise _TooLong(f"no end within {SECONDS} s of processor time")

    model, start = built(network), time.process_time()
    if any(_is_grouped(layer) for layer in model.modules()):
        return Outcome("not judged", "grouped convolutions, whose channels its own pruners choose in step")
    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            masked, small, seconds = _cut_by_torch_pruning(model, drawn(network, 1), network.classes)
        return _judged(model, masked, small, network, seconds)
    except Exception as error:  # whatever it raises: that is what the table is about
        words = (str(error).strip().splitlines() or [""])[0]
        return Outcome("refused", f"{type(error).__name__}: {words}", 0.0, time.process_time() - start)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def _cut_by_torch_pruning(model: nn.Module, x: Tensor, classes: int | None) -> tuple[nn.Module, nn.Module, float]:
    """(the network in which nothing reads the removed channels, torch-pruning's smaller network, seconds for the smaller)."""
    import torch_pruning

    masked, small = copy.deepcopy(model), copy.deepcopy(model)
    names = {module: name for name, module in masked.named_modules()}
    whole = torch_pruning.DependencyGraph().build_dependency(masked, x)
    start = time.process_time()
    cut = torch_pruning.DependencyGraph().build_dependency(small, x)
    seconds = time.process_time() - start
    done = 0
    for group in list(whole.get_all_groups()):
        first = group[0].dep
        name, weight = names[first.target.module], first.target.module.weight.detach()
        rows = weight.transpose(0, 1) if isinstance(first.target.module, nn.modules.conv._ConvTransposeNd) else weight
        least = rows.flatten(1).abs().sum(1).argsort()[: int(REMOVED * len(group[0].idxs))].tolist()
        if not least or len(group[0].idxs) == classes or (classes is None and _reaches_outputs(model, name, x)):
            continue
        for dep, idxs in whole.get_pruning_group(first.target.module, first.handler, least):
            if dep.handler.__name__ == "prune_in_channels":
                _silence(dep.target.module, idxs)
        start = time.process_time()
        cut.get_pruning_group(small.get_submodule(name), first.handler, least).prune()
        seconds += time.process_time() - start
        done += 1
    if not done:
        raise ValueError("no group of channels was found")
    return masked, small, seconds


def _is_grouped(layer: nn.Module) -> bool:
    """Whether a convolution reads its channels in several parts, of which all lose the same: not depthwise, not whole."""
    return isinstance(layer, nn.modules.conv._ConvNd) and 1 < layer.groups < layer.in_channels


def _silence(layer: nn.Module, channels: list[int]) -> None:
    """Let a layer read nothing of some of the channels that go into it."""
    with torch.no_grad():
        if isinstance(layer, nn.modules.conv._ConvTransposeNd):
            layer.weight[channels] = 0
        elif isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
            layer.weight[:, channels] = 0


def _reaches_outputs(model: nn.Module, name: str, x: Tensor) -> bool:
    """Whether the outputs of the network lose a channel with this group, which its user would have to keep out by hand."""
    import torch_pruning

    twin = copy.deepcopy(model)
    layer = twin.get_submodule(name)
    graph = torch_pruning.DependencyGraph().build_dependency(twin, x)
    graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, [0]).prune()
    with torch.no_grad():
        return [t.shape for t in tensors_of(twin(x))] != [t.shape for t in tensors_of(model(x))]


def judged(name: str) -> dict[str, Any]:
    """What became of one network, here and in torch-pruning, as it is kept."""
    found = {"here": ours(NETWORKS[name]), "torch-pruning": theirs(NETWORKS[name])}
    return {
        who: {
            "kind": outcome.kind,
            "said": outcome.said,
            "removed": round(outcome.weights, 4),
            "seconds": round(outcome.seconds, 2),
        }
        for who, outcome in found.items()
    }


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """One line for each network: what became of it here, and in torch-pruning; below, how often each."""
    lines = [
        "| network | here | parameters removed | seconds | torch-pruning | parameters removed | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        cells = [name]
        for who in ("here", "torch-pruning"):
            kind, said, removed, seconds = (found[who][key] for key in ("kind", "said", "removed", "seconds"))
            cells.append(kind if kind == "exact" else f"{kind}: {said}".replace("|", "\\|"))
            cells.append(f"{removed:.0%}" if kind in ("exact", "differs") else "")
            cells.append(f"{seconds:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    for who in ("here", "torch-pruning"):
        kinds = Counter(found[who]["kind"] for found in rows.values())
        lines.append(f"\n{who}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    return "\n".join(lines)


def main(names: list[str]) -> None:
    stored = read_table(STORED, "table") if STORED.is_file() else {"rows": {}}
    if names != ["--stored"]:
        torch.set_num_threads(1)
        for name in names or NETWORKS:
            rows = stored["rows"] | {name: judged(name)}
            rows = {known: rows[known] for known in NETWORKS if known in rows}  # always in one order
            versions = {package: version(package) for package in ("torch", "torchvision", "timm", "torch-pruning")}
            stored = {"versions": versions, "rows": rows}
            write_atomically(STORED, yaml.safe_dump(stored, sort_keys=False, allow_unicode=True, width=120))
            print(name, rows[name], file=sys.stderr, flush=True)
    print(table(stored["rows"]))


if __name__ == "__main__":
    main(sys.argv[1:])
