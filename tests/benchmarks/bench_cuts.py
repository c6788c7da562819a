"""What cutting takes: global thresholds, small networks, SNAP-it's seven cuts, channel removal, growth in depth."""

import copy
import warnings

import torch
import torch_pruning
import torchvision
from torch import nn

import peers
import pruning_core as pc
from pruning_core.masks import find_sites
from stopwatch import Made, drawn, row

SMALL = {
    "LeNet-300-100": lambda: pc.build_model("lenet300", "mnist5k", seed=0),
    "LeNet-5": lambda: pc.build_model("lenet5", "mnist5k", seed=0),
    "three convolutions": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ),
}  # fmt: skip
LARGE = {
    "25 million weights": (lambda: torchvision.models.resnet50(weights=None), False),
    "101 million weights": (lambda: nn.Sequential(nn.Linear(10_050, 10_050, bias=False)), True),
}
TORCH = "torch.nn.utils.prune.global_unstructured"
REMOVED = {"resnet18": 5, "resnet50": 5, "mobilenet_v2": 5, "vgg16_bn": 3, "densenet121": 3}
SLOW = {"resnet152": 3, "densenet201": 3}


for title, (build, slow) in LARGE.items():

    @row(f"One threshold over {title}", TORCH, at_most=0.2, turns=3, slow=slow)
    def global_threshold(build=build) -> Made:
        model = build().requires_grad_(False)
        sites = find_sites(model, channels=False)
        alive = pc.Masks.dense(model, sites.weights)
        layers = [(model.get_submodule(name.rpartition(".")[0]), "weight") for name in sites.weights]

        def ours() -> int:
            scores = pc.Scores({name: model.get_parameter(name).abs() for name in sites.weights})
            return sum(int(torch.count_nonzero(m)) for m in pc.allocate(scores, pc.Budget(0.9), alive, sites).values())

        return ours, lambda: peers.torch_global(layers, 0.9), lambda a, b: f"kept {a:,} and {b:,}"


for title, build in SMALL.items():

    @row(f"prune() of {title}", f"a copy and {TORCH}", at_most=2.0, turns=9)
    def small_network(build=build) -> Made:
        model, example = build(), torch.randn(1, 1, 28, 28)

        def theirs() -> int:
            twin = copy.deepcopy(model)
            layers = [(m, "weight") for m in peers.layers_of(twin)]
            return peers.torch_global(layers, 0.9)  # type: ignore[arg-type]

        return lambda: pc.prune(model, "magnitude", 0.9, example_input=example), theirs


for title, network, shape, size in (("MLP5", "mlp5_snip", (1, 28, 28), 128), ("Conv6", "conv6_snip", (3, 32, 32), 8)):

    @row(f"SNAP-it, seven cuts, {title}", f"{peers.REBUILT}: a smaller network after every cut", at_most=1.0, turns=3)
    def snap_it(network: str = network, shape: tuple[int, ...] = shape, size: int = size) -> Made:
        model, batches = pc.build_model(network, (shape, 10), seed=0).eval(), drawn(5, size, shape)
        how = {"rounds": 7, "schedule": "snip_it", "batches": batches}

        def sizes(ours: pc.PruneResult, theirs: nn.Module) -> str:
            kept = [sum(len(layer.weight) for layer in peers.layers_of(small)) for small in (ours.shrink(), theirs)]
            return f"{kept[0]} and {kept[1]} units left"

        return lambda: pc.prune(model, "snap", 0.93, **how), lambda: peers.snap_it(model, batches, 0.93), sizes


for name, turns in {**REMOVED, **SLOW}.items():

    @row(f"Half of the channels of {name} removed", "torch-pruning", at_most=1.0, turns=turns, slow=name in SLOW)
    def channel_removal(name: str = name) -> Made:
        example = torch.randn(1, 3, 224, 224)
        model = torchvision.models.get_model(name, weights=None).eval()

        def ours() -> nn.Module:
            return pc.prune(model, "l1_norm", 0.5, across="layer", example_input=example).shrink()

        def theirs() -> nn.Module:
            twin = copy.deepcopy(model)
            importance = torch_pruning.importance.MagnitudeImportance(p=1)
            last = [[m for m in twin.modules() if isinstance(m, nn.Linear)][-1]]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                settings = {"importance": importance, "pruning_ratio": 0.5, "ignored_layers": last}
                torch_pruning.pruner.MagnitudePruner(twin, example, **settings).step()
            return twin

        return ours, theirs, lambda a, b: f"{pc.count_parameters(a):,} and {pc.count_parameters(b):,} parameters left"


@row("Channel removal, growth with depth: ResNet-110", "six times that of ResNet-20", at_most=1.5, turns=3)
def growth_with_depth() -> Made:
    def removal(name: str):
        model, example = pc.build_model(name, "cifar10", seed=0).eval(), torch.randn(1, 3, 32, 32)
        return lambda: pc.prune(model, "l1_norm", 0.5, across="layer", example_input=example).shrink()

    deep, shallow = removal("resnet110"), removal("resnet20")
    return deep, lambda: [shallow() for _ in range(6)]
