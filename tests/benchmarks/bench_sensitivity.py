"""What the sensitivity methods of chapter 4 cost, in units of the passes they consist of. Nothing is asserted about time."""

import copy
from collections.abc import Callable

import torch
from torch.nn import functional as F

from pruning_core import build_model, prune
from pruning_core.masks.budgets import Budget
from pruning_core.masks.masks import Masks
from pruning_core.masks.schedules import fraction_after
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.snap import Snap
from pruning_core.methods.snip import Snip
from pruning_core.pruning import prune_step
from stopwatch import seconds


def passes(model, batches) -> Callable[[], None]:
    """One forward and backward pass a batch, in evaluation mode: the least that a gradient costs."""
    model.eval()

    def run() -> None:
        for x, y in batches:
            model.zero_grad()
            F.cross_entropy(model(x), y).backward()

    return run


def snip_scores() -> None:
    """SNIP's scores of a ResNet-18 (SNIP-it's, CIFAR-10) at batch 128."""
    model = build_model("resnet18_snip", "cifar10", seed=0)
    batches = [(torch.randn(128, 3, 32, 32), torch.randint(10, (128,))) for _ in range(3)]
    sites = find_sites(model, channels=False)
    view = View(model, sites, Masks(), batches, F.cross_entropy, torch.Generator())
    mine, plain = seconds(lambda: Snip().score(view)), seconds(passes(model, batches))
    print(
        f"SNIP scores, ResNet-18, batch 128: {mine / plain:.2f} of a forward and backward pass ({mine / 3:.2f} s a batch)"
    )


def synflow_rounds() -> None:
    """100 rounds of SynFlow on the VGG-16 of 14.7 million weights."""
    model = build_model("vgg16", "cifar10", seed=0).eval()
    ones = torch.ones(1, 3, 32, 32)
    weights = [p for p in model.parameters() if p.dim() > 1]

    def passes_alone() -> None:
        for _ in range(100):
            torch.autograd.grad(model(ones).sum(), weights)

    plain = seconds(passes_alone, 1)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for sparsity in (0.9, 0.99):
            mine = seconds(lambda p=sparsity: prune(model, "synflow", p), 1)  # type: ignore[misc]
            print(
                f"SynFlow, 100 rounds, VGG-16, sparsity {sparsity}, {threads} threads: {mine:.1f} s, "
                f"{mine / plain:.2f} of its 100 passes on one thread"
            )
    torch.set_num_threads(1)


def snap_it_schedule() -> None:
    """The seven cuts of SNAP-it on SNIP-it's VGG-16 against its 35 gradient passes on the dense network."""
    model = build_model("vgg16_snip", "cifar10", width=0.5, seed=0)
    batches = [(torch.randn(64, 3, 32, 32), torch.randint(10, (64,))) for _ in range(5)]
    example = batches[0][0][:1]

    def schedule() -> None:
        twin = copy.deepcopy(model)
        sites = find_sites(twin, channels=True, example_input=example)
        masks = Masks()
        for i in range(1, 8):
            budget = Budget(fraction_after("snip_it", i, 7, 0.93), of="channels")
            masks = prune_step(twin, Snap(), budget, sites, masks, batches, i, None, example).masks

    mine, plain = seconds(schedule, 1), 7 * seconds(passes(model, batches), 1)
    print(f"SNAP-it, seven cuts, VGG-16 at half width: {mine / plain:.2f} of its gradient passes ({mine:.1f} s)")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    snip_scores()
    snap_it_schedule()
    synflow_rounds()
