"""The networks of SNIP-it's golden files, built from the names and shapes of a state dict; an unknown name is an error."""

import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

LEAK = 0.05
State = Mapping[str, Tensor]


def named(z, part: str) -> dict[str, np.ndarray]:
    """The arrays whose names begin with ``part``, without it."""
    return {name[len(part) :]: z[name] for name in z if name.startswith(part)}


class Tiny(nn.Module):
    """Convolutions, an adaptive pool to ``side`` x ``side``, linear layers."""

    def __init__(self, conv: nn.Sequential, fc: nn.Sequential, side: int):
        super().__init__()
        self.conv, self.pool, self.fc = conv, nn.AdaptiveAvgPool2d(side), fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.conv(x)).flatten(1))


class Perceptron(nn.Module):
    def __init__(self, layers: nn.Sequential):
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


class Block(nn.Module):
    """Two convolutions with norms, beside them a 1x1 convolution of stride 2 where there is a ``downsample``."""

    def __init__(self, state: State):
        super().__init__()
        stride = 2 if "downsample.0.weight" in state else 1
        self.conv1, self.bn1 = _layer(state, "conv1", stride), _layer(state, "bn1")
        self.conv2, self.bn2 = _layer(state, "conv2"), _layer(state, "bn2")
        self.downsample = nn.Sequential()
        if stride == 2:
            self.downsample = nn.Sequential(_layer(state, "downsample.0", 2), _layer(state, "downsample.1"))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.bn2(self.conv2(nn.functional.leaky_relu(self.bn1(self.conv1(x)), LEAK)))
        return nn.functional.leaky_relu(hidden + self.downsample(x), LEAK)


class Residual(nn.Module):
    """``conv1`` with ``bn1``, blocks ``layer1``, ``layer2``, ... (single, or several in each), adaptive pool, ``fc``.

    A stem of 7x7 has stride 2 and a max-pool behind it, as on ImageNet; a smaller one neither.
    """

    def __init__(self, state: State):
        super().__init__()
        large = state["conv1.weight"].shape[-1] == 7
        self.conv1 = _layer(state, "conv1", 2 if large else 1)
        self.bn1 = _layer(state, "bn1") if "bn1.weight" in state else nn.Identity()
        self.pool = nn.MaxPool2d(3, 2, 1) if large else nn.Identity()
        self.stages = sorted({name.split(".")[0] for name in state if name.startswith("layer")})
        for stage in self.stages:
            own = under(state, stage)
            places = sorted({name.split(".")[0] for name in own if name[0].isdigit()})
            blocks = nn.Sequential(*(Block(under(own, place)) for place in places)) if places else Block(own)
            self.add_module(stage, blocks)
        heads = under(state, "fc")
        self.fc = _layer(state, "fc") if "weight" in heads else _stack(heads)
        first = heads.get("weight", next((t for t in heads.values() if t.dim() == 2), None))
        last = [t for name, t in state.items() if name.startswith(self.stages[-1]) and t.dim() == 4][-1]
        self.side = round((first.shape[1] / len(last)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(nn.functional.leaky_relu(self.bn1(self.conv1(x)), LEAK))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        return self.fc(nn.functional.adaptive_avg_pool2d(x, self.side).flatten(1))


def under(state: State, name: str) -> dict[str, Tensor]:
    """The tensors of one part of a network, by their names in it."""
    return {key[len(name) + 1 :]: tensor for key, tensor in state.items() if key.startswith(f"{name}.")}


def network(z, part: str = "init") -> nn.Module:
    """The network whose state dict the file holds under ``part``, in evaluation mode and double precision."""
    return built({name: torch.from_numpy(array) for name, array in named(z, f"{part}/").items()})


def built(state: State) -> nn.Module:
    """The network of a state dict; names that belong to none of its layers are an error."""
    assert state, "the file holds no network of that name"
    if any(name.startswith("conv.") for name in state):
        conv, fc = under(state, "conv"), under(state, "fc")
        last = max(int(name.split(".")[0]) for name, t in conv.items() if t.dim() == 4)
        side = round((fc["0.weight"].shape[1] / conv[f"{last}.weight"].shape[0]) ** 0.5)
        model: nn.Module = Tiny(_stack(conv, pool_at=3), _stack(fc), side)
    elif any(name.startswith("layers.") for name in state):
        model = Perceptron(_stack(under(state, "layers")))
    else:
        model = Residual(state)
    found = model.double().load_state_dict(state, strict=False)
    assert not found.unexpected_keys, f"no layer has the names {found.unexpected_keys}"
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    assert not missing, f"the file lacks {missing}"
    return model.eval()


def _layer(state: State, name: str, stride: int = 1) -> nn.Module:
    """The convolution (padded by half its kernel), linear layer or batch norm of that name."""
    weight, bias = state[f"{name}.weight"], f"{name}.bias" in state
    if weight.dim() == 4:
        size = weight.shape[2]
        return nn.Conv2d(weight.shape[1], len(weight), size, stride, padding=size // 2, bias=bias)
    if weight.dim() == 2:
        return nn.Linear(weight.shape[1], len(weight), bias=bias)
    return nn.BatchNorm2d(len(weight))


def _stack(state: State, pool_at: int | None = None) -> nn.Sequential:
    """Layers by index: convolutions, linear layers, batch norms; where nothing is, a leaky ReLU, or a max-pool.

    Dropout is off in evaluation mode: a free place at the start, or a second one behind an activation, does nothing.
    """
    layers: list[nn.Module] = []
    top = max(int(name.split(".")[0]) for name in state)
    for i in range(top + 1):
        if f"{i}.weight" in state:
            layer = _layer(state, str(i))
            if isinstance(layer, nn.BatchNorm2d) and state[f"{i - 1}.weight"].dim() == 2:
                layer = nn.BatchNorm1d(layer.num_features)
        elif i == pool_at:
            layer = nn.MaxPool2d(2)
        else:
            layer = nn.LeakyReLU(LEAK) if layers and not isinstance(layers[-1], nn.LeakyReLU) else nn.Identity()
        layers.append(layer)
    if pool_at is not None:
        layers.append(nn.LeakyReLU(LEAK))
    return nn.Sequential(*layers)


def ungated(state: State) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network under official gates, which stand as ``K.gate`` beside a norm ``K.bn.*``, and the gates by norm."""
    gates = {name.removesuffix(".gate"): tensor.flatten() for name, tensor in state.items() if name.endswith(".gate")}
    plain = {re.sub(r"\.bn\.(\w+)$", r".\1", n): tensor for n, tensor in state.items() if not n.endswith(".gate")}
    return built(plain), gates


def batches(z) -> list[tuple[Tensor, Tensor]]:
    return [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in zip(z["x"], z["y"], strict=True)]


def inputs(z) -> Tensor:
    """One batch of images (N, C, H, W): the first where the file has several."""
    x = torch.from_numpy(z["x"])
    return x[0] if x.dim() == 5 else x


def masked_layers(model: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers by name, in the order of the network."""
    kinds = (nn.Conv2d, nn.Linear)
    return {f"{name}.weight": m.weight for name, m in model.named_modules() if isinstance(m, kinds)}


def same_sparsity(z, part: str, model: nn.Module, start: nn.Module) -> None:
    """The official sparsities, as far as they are there, of ``model``, which was ``start``.

    Weights are what is zero or removed in every tensor called weight, batch norms in the denominator, or of what can be
    pruned; nodes are the rows of all layers but the last.
    """
    total, now = (sum(p.numel() for n, p in net.named_parameters() if n.endswith("weight")) for net in (start, model))
    zeros = sum(int((p == 0).sum()) for n, p in model.named_parameters() if n.endswith("weight"))
    nodes = [sum(len(weight) for weight in list(masked_layers(net).values())[:-1]) for net in (start, model)]
    outer, first = [weight.numel() for weight in masked_layers(start).values()], next(iter(masked_layers(start)))
    masks = [name for name in z if re.match(r"(step\d+/|event\d+/)?mask", name)]
    spared = outer[0] + outer[-1] if masks and not any(first in name for name in masks) else 0
    facts = {
        "pruned_percentage": (zeros + total - now) / total,
        "pruned_percentage_of_prunable": zeros / (total - spared),
        "structural_sparsity": 1 - nodes[1] / nodes[0],
    }
    for name, ours in facts.items():
        if f"{part}{name}" in z:
            np.testing.assert_allclose(ours, z[f"{part}{name}"], rtol=0, atol=1e-6, err_msg=name)


def same_widths(z, part: str, model: nn.Module) -> None:
    layers = list(masked_layers(model).values())
    np.testing.assert_array_equal([len(weight) for weight in layers], z[f"{part}out_widths"])
    np.testing.assert_array_equal([weight.shape[1] for weight in layers], z[f"{part}in_widths"])


def same_network(z, model: nn.Module) -> None:
    """Exact copies of rows and columns, and the outputs."""
    state, official = model.state_dict(), named(z, "pruned/")
    assert {name for name in state if not name.endswith("num_batches_tracked")} <= set(official) <= set(state)
    for name, tensor in official.items():
        np.testing.assert_array_equal(state[name], tensor, err_msg=name)
    if "logits_after" in z:
        with torch.no_grad():
            np.testing.assert_allclose(model(inputs(z)), z["logits_after"], rtol=1e-9, atol=1e-12)
