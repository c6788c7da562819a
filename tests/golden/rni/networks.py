"""The two small networks of RNI's golden files, built from the arrays of a state: whatever widths, norms and biases it has."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.layers.norms import SigmoidBatchNorm2d

State = dict[str, Tensor]
NOT_STORED = ("num_batches_tracked", "shortcut.index")


def state_of(z: Mapping[str, np.ndarray], start: str) -> State:
    """The tensors below ``start``, such as "before", by their names in torch."""
    names = [key for key in z if key.startswith(f"{start}/")]
    return {name.removeprefix(f"{start}/").replace("/", "."): torch.from_numpy(z[name]) for name in names}


def widths_of(state: State, layer: str = "conv") -> list[int]:
    """Outputs of the convolutions, in the order of the network, or of those whose name ends with ``layer``."""
    return [len(w) for name, w in state.items() if w.dim() == 4 and (layer == "conv" or f"{layer}.weight" in name)]


def is_sigmoid(state: State) -> bool:
    """Sigmoid batch norms have no shift."""
    return not any(f"{name.removesuffix('running_mean')}bias" in state for name in state if name.endswith("mean"))


def vgg(state: State) -> nn.Module:
    """Convolutions with norm and ReLU, max-pools where the numbering leaves room, average pool, one linear layer."""
    layers: dict[int, nn.Module] = {}
    convolutions = sorted(int(name.split(".")[1]) for name, tensor in state.items() if tensor.dim() == 4)
    for i, following in zip(convolutions, [*convolutions[1:], None], strict=True):
        layers[i] = conv(state, f"features.{i}")
        layers[i + 1] = norm(state, f"features.{i + 1}")
        layers[i + 2] = nn.ReLU()
        if following == i + 4:
            layers[i + 3] = nn.MaxPool2d(2)
    assert [*layers] == [*range(len(layers))]
    rows, columns = state["classifier.0.weight"].shape
    model = nn.Sequential()
    model.add_module("features", nn.Sequential(*layers.values()))
    model.add_module("pool", nn.AvgPool2d(2))
    model.add_module("flatten", nn.Flatten())
    model.add_module("classifier", nn.Sequential(nn.Linear(columns, rows, "classifier.0.bias" in state)))
    return filled(model, state)


class Block(nn.Module):
    """conv1, bn1, ReLU, conv2, bn2 beside a shortcut without parameters, then ReLU."""

    def __init__(self, state: State, name: str, stride: int):
        super().__init__()
        self.residual = nn.Module()
        self.residual.conv1 = conv(state, f"{name}.residual.conv1", stride)
        self.residual.bn1 = norm(state, f"{name}.residual.bn1")
        self.residual.conv2 = conv(state, f"{name}.residual.conv2")
        self.residual.bn2 = norm(state, f"{name}.residual.bn2")
        inputs, outputs = self.residual.conv1.in_channels, self.residual.conv2.out_channels
        plain = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if plain else ChannelIndex.option_a(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        part = self.residual
        hidden = part.bn2(part.conv2(F.relu(part.bn1(part.conv1(x)))))
        return F.relu(hidden + self.shortcut(x))


def resnet(state: State, blocks_per_stage: int) -> nn.Module:
    """Stem without ReLU, blocks, of which the first of every later stage has stride 2, average pool, linear layer."""
    last = max(int(name.split(".")[0]) for name in state)
    model = nn.Sequential(nn.Sequential(conv(state, "0.0"), norm(state, "0.1")))
    for k in range(1, last):
        first_of_a_later_stage = k > 1 and (k - 1) % blocks_per_stage == 0
        model.append(Block(state, str(k), 2 if first_of_a_later_stage else 1))
    rows, columns = state[f"{last}.2.weight"].shape
    linear = nn.Linear(columns, rows, f"{last}.2.bias" in state)
    model.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear))
    return filled(model, state)


def conv(state: State, name: str, stride: int = 1) -> nn.Conv2d:
    outputs, inputs, size, _ = state[f"{name}.weight"].shape
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=f"{name}.bias" in state)


def norm(state: State, name: str) -> nn.Module:
    channels = len(state[f"{name}.weight"])
    return nn.BatchNorm2d(channels) if f"{name}.bias" in state else SigmoidBatchNorm2d(channels)


def filled(model: nn.Module, state: State) -> nn.Module:
    """The network with the dtype and the values of ``state``, which holds all but what NOT_STORED names."""
    model.to(next(iter(state.values())).dtype)
    missing = model.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith(NOT_STORED) for name in missing.missing_keys)
    return model.eval()
