"""The toy networks of the SiPP and PFP fixtures, and the rules of the official code that are not the project's own."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def perceptron(z) -> nn.Module:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for weight, bias in zip(*_weights(z), strict=True):
        layers += [_filled(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None), weight, bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


def convolutional(z) -> nn.Module:
    """Conv 3x3 padding 1, ReLU, Conv 3x3 stride 2 padding 1, ReLU, Conv over the whole map, ReLU, flatten, Linear."""
    weights, biases = _weights(z)
    layers: list[nn.Module] = []
    convolutions = [i for i, weight in enumerate(weights) if weight.ndim == 4]
    for i in convolutions:
        weight, bias = weights[i], biases[i]
        whole = i == convolutions[-1]
        geometry = {"stride": 2 if i == 1 else 1, "padding": 0 if whole else 1}
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], bias=bias is not None, **geometry)
        layers += [_filled(conv, weight, bias), nn.ReLU()]
    layers.append(nn.Flatten())
    for i in range(len(convolutions), len(weights)):
        weight, bias = weights[i], biases[i]
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layers += [_filled(linear, weight, bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


class Block(nn.Module):
    """conv, batch norm, ReLU, conv, batch norm, plus a 1x1 shortcut where the stride is 2."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool):
        super().__init__()
        stride = 2 if shortcut else 1
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if shortcut:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.downsample(x) if self.downsample is not None else x))


class Residual(nn.Module):
    """Stem, layer1, layer2, ... of blocks, average pool 4, linear layer; built from the names of a state dict."""

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        stem = state["conv1.weight"]
        self.conv1 = nn.Conv2d(stem.shape[1], stem.shape[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem.shape[0])
        stages = sorted({name.split(".")[0] for name in state if name.startswith("layer")})
        for stage in stages:
            count = len({name.split(".")[1] for name in state if name.startswith(f"{stage}.")})
            blocks = []
            for i in range(count):
                conv = state[f"{stage}.{i}.conv1.weight"]
                blocks.append(Block(conv.shape[1], conv.shape[0], f"{stage}.{i}.downsample.0.weight" in state))
            self.add_module(stage, nn.Sequential(*blocks))
        self.stages = stages
        self.fc = nn.Linear(state["fc.weight"].shape[1], state["fc.weight"].shape[0])
        self.double().load_state_dict(state)  # in double precision before any value is copied

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = getattr(self, stage)(x)
        return self.fc(F.avg_pool2d(x, 4).flatten(1))


def network(z) -> tuple[nn.Module, list[str]]:
    """The network of a fixture in evaluation mode, and the names of its compressible layers in forward order."""
    if any(name.startswith("sd.") for name in z):
        state = {name[3:]: torch.from_numpy(z[name]) for name in z if name.startswith("sd.")}
        model: nn.Module = Residual({k: v.double() if v.is_floating_point() else v for k, v in state.items()}).double()
        names = [str(name) for name in z["layer_names"]]
        for i, (weight, bias) in enumerate(zip(*_weights(z), strict=True)):  # once more, by number
            layer: Any = model.get_submodule(names[i])
            np.testing.assert_array_equal(layer.weight.detach(), weight)
            if bias is not None:
                np.testing.assert_array_equal(layer.bias.detach(), bias)
        return model.eval(), names
    model = perceptron(z) if z["w0"].ndim == 2 else convolutional(z)
    names = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return model.eval(), names


def is_chain(z) -> bool:
    return not any(name.startswith("sd.") for name in z)


def constants(z) -> dict[str, float]:
    """C and delta of a file, where it has its own."""
    return {ours: float(z[name]) for ours, name in (("constant", "c_constant"), ("delta", "delta")) if name in z}


def check_labels(z, model: nn.Module) -> None:
    """Labels that no method here looks at: one a sample, of a class that the network knows."""
    if "y" in z:
        with torch.no_grad():
            classes = model(torch.from_numpy(z["x"]).double()).shape[1]
        assert z["y"].shape == (len(z["x"]),)
        assert 0 <= z["y"].min() <= z["y"].max() < classes


def budget(z, keep_ratio: float) -> int:
    """The official number of weights to keep: it scales kappa by the size of the whole network, a little too much."""
    model, names = network(z)
    size = sum(int(torch.count_nonzero(parameter)) for parameter in model.parameters())
    compressible = sum(int(torch.count_nonzero(model.get_submodule(name).weight)) for name in names)
    for key, ours in (("size_total", size), ("size_compressible", compressible)):
        if key in z:
            np.testing.assert_equal(ours, int(z[key]))
    available = min(int((keep_ratio - 1) * size + compressible), compressible)
    return int(max(available / compressible, 1e-3) * size)


class Dependencies:
    """Who feeds a layer, and whose dead filters it copies: stored, or those of a chain."""

    def __init__(self, z, names: list[str]):
        def stored(key: str, i: int, chain: list[str]) -> list[str]:
            if f"{key}{i}" not in z:
                return chain
            return [str(name) for name in np.atleast_1d(z[f"{key}{i}"]) if str(name)]

        self.feeders = {n: stored("dep_out", i, names[i - 1 : i] if i else []) for i, n in enumerate(names)}
        self.copies = {n: stored("mask_source_out", i, []) for i, n in enumerate(names)}
        self.readers = {n: stored("dep_in", i, names[i + 1 : i + 2]) for i, n in enumerate(names)}
        self.last = names[-1]
        for name in names:
            if not is_chain(z):
                assert self.readers[name] == residual_readers(names, name)


def residual_readers(names: list[str], name: str) -> list[str]:
    """Who reads a layer of a residual network: the next of its block, or all first ones up to the next shortcut or the end."""
    block, _, own = name.rpartition(".")
    if own.startswith("conv") and (following := f"{block}.conv{int(own[4:]) + 1}") in names:
        return [following]
    block = block.removesuffix(".downsample")
    readers = []
    for other in names[names.index(name) + 1 :]:
        if other.startswith(f"{block}.") and block:
            continue
        if other.endswith(("conv1", "downsample.0")) or "." not in other:
            readers.append(other)
        if other.endswith("downsample.0"):
            break
    return readers


def propagate(weights: dict[str, Tensor], dense: dict[str, Tensor], links: Dependencies) -> None:
    """Layer by layer, in place: copy the dead filters of another layer, then zero the columns that dead filters feed."""
    for name, weight in weights.items():
        if links.copies[name]:
            weight.copy_(dense[name])
            weight[dead_filters(weights[links.copies[name][0]])] = 0
        for feeder in links.feeders[name]:
            weight[:, dead_filters(weights[feeder])] = 0


def dead_filters(weight: Tensor) -> Tensor:
    """Bool (filters,): True where nothing is left."""
    return weight.flatten(1).abs().sum(1) == 0


def settle_ties(ours: Tensor, stored: Tensor, scores: Tensor) -> Tensor:
    """The stored choice where it differs from ours only among scores that tie at the cut; otherwise ours.

    Both are bool tensors of one size; any choice of the same number among ties counts as right.
    """
    different = ours ^ stored
    if not different.any() or ours.sum() != stored.sum():
        return ours
    cut = scores[ours].min()
    return stored if bool(((scores[different] - cut).abs() < 1e-9).all()) else ours


def _weights(z) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    count = sum(1 for name in z if name.startswith("w") and name[1:].isdigit())
    return [z[f"w{i}"] for i in range(count)], [z.get(f"b{i}") for i in range(count)]


def _filled(layer, weight: np.ndarray, bias: np.ndarray | None):
    layer.weight = nn.Parameter(torch.from_numpy(weight).double())
    if bias is not None:
        layer.bias = nn.Parameter(torch.from_numpy(bias).double())
    return layer
