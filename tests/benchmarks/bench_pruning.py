"""How fast pruning is, as ratios against other ways of doing the same in the same run. Nothing is asserted about time."""

import copy
import time
import warnings

import torch
import torch_pruning
import torchvision
from torch.nn.utils import prune as torch_prune

from pruning_core import prune
from pruning_core.masks.budgets import Budget, allocate
from pruning_core.masks.masks import Masks
from pruning_core.masks.scores import Scores
from pruning_core.masks.sites import find_sites
from pruning_core.methods.shrinking import shrunk
from stopwatch import seconds


def global_threshold() -> None:
    """One threshold over all weights of a ResNet-50: 25.5 million."""
    model = torchvision.models.resnet50(weights=None)
    sites = find_sites(model, channels=False)
    alive = Masks.dense(model, sites.weights)

    def ours() -> Masks:
        scores = Scores({name: model.get_parameter(name).detach().abs() for name in sites.weights})
        return allocate(scores, Budget(0.9), alive, sites)

    twin = copy.deepcopy(model)
    twin_layers = [(twin.get_submodule(name.rpartition(".")[0]), "weight") for name in sites.weights]

    def theirs() -> None:
        torch_prune.global_unstructured(twin_layers, torch_prune.L1Unstructured, amount=0.9)
        for module, name in twin_layers:
            torch_prune.remove(module, name)

    kept_here = sum(int(mask.sum()) for mask in ours().values())
    mine = seconds(ours, 5)
    start = time.perf_counter()
    theirs()  # once: a second cut would start from zeros
    other = time.perf_counter() - start
    kept_there = sum(int(torch.count_nonzero(module.weight)) for module, _ in twin_layers)
    total = sum(sites.shapes[name].numel() for name in sites.weights)
    print(f"global threshold over {total:,} weights: kept {kept_here:,} (torch: {kept_there:,})")
    print(f"  {mine:.3f} s; torch.nn.utils.prune {other:.3f} s; ratio {other / mine:.1f}")


def channel_pruning() -> None:
    """Half of the channels of a ResNet-50 removed by L1 norm, from the dense network to the small one."""
    example = torch.randn(1, 3, 224, 224)
    model = torchvision.models.resnet50(weights=None).eval()

    def ours() -> int:
        small = prune(model, "l1_norm", 0.5, across="layer", example_input=example).shrink()
        return sum(p.numel() for p in small.parameters())

    def unchecked() -> int:
        result = prune(model, "l1_norm", 0.5, across="layer", example_input=example)
        small, _ = shrunk(result.model, result.masks, result.sites)
        return sum(p.numel() for p in small.parameters())

    def theirs() -> int:
        twin = copy.deepcopy(model)
        pruner = torch_pruning.pruner.MagnitudePruner(
            twin,
            example,
            importance=torch_pruning.importance.MagnitudeImportance(p=1),
            pruning_ratio=0.5,
            ignored_layers=[twin.fc],
        )
        pruner.step()
        return sum(p.numel() for p in twin.parameters())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print(f"half the channels of ResNet-50: {ours():,} parameters left (torch-pruning: {theirs():,})")
        mine, bare, other = seconds(ours, 5), seconds(unchecked, 5), seconds(theirs, 5)
    print(f"  {mine:.3f} s; torch-pruning {other:.3f} s; ratio {other / mine:.2f}")
    print(f"  {bare:.3f} s without comparing masked and smaller network on the example; ratio {other / bare:.2f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    global_threshold()
    channel_pruning()
