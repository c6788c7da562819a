"""What a training step costs with sigmoid batch norms and the RNI penalty, as a ratio to the same step without either.

    python tests/benchmarks/bench_rni.py [--repeats 20] [--width 0.25]

VGG-16 at a quarter of its width, batches of 64 images of 32x32. The steps take turns, one of each kind a round, and medians
of processor and wall time are compared. Nothing is asserted about time; the aim is a ratio of at most 1.05.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch
from torch.nn import functional as F

from pruning_core.experiments.recipes.chapters import RECEDING_OPTIMIZER
from pruning_core.methods.base import Method
from pruning_core.methods.rni import RecedingNeurons
from pruning_core.methods.slimming import Slimming
from pruning_core.models.build import build_model
from pruning_core.papers.rni.pipeline import penalty_of


class Step:
    """One optimizer step of a network, with or without a penalty."""

    def __init__(self, norm: str, method: Method | None, width: float, inputs: torch.Tensor, labels: torch.Tensor):
        self.model = build_model("vgg16_rni", ((3, 32, 32), 10), norm=norm, width=width, seed=0).train()
        self.optimizer = replace(RECEDING_OPTIMIZER, lr=0.01).build(self.model)
        self.penalty = penalty_of(method, 1e-3) if method is not None else None
        self.inputs, self.labels = inputs, labels

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.inputs), self.labels)
        if self.penalty is not None:
            loss = loss + self.penalty(self.model)
        loss.backward()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--width", type=float, default=0.25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn((64, 3, 32, 32), generator=generator)
    labels = torch.randint(10, (64,), generator=generator)
    kinds: dict[str, tuple[str, Method | None]] = {
        "ordinary batch norm": ("batch", None),
        "ordinary batch norm, sum of |gamma|": ("batch", Slimming()),
        "sigmoid batch norm": ("sigmoid", None),
        "sigmoid batch norm, RNI penalty": ("sigmoid", RecedingNeurons(b=3.0)),
    }
    steps = {label: Step(norm, method, arguments.width, inputs, labels) for label, (norm, method) in kinds.items()}
    spent: dict[str, list[tuple[float, float]]] = {label: [] for label in steps}
    order = list(steps)
    for _ in range(arguments.repeats + 1):
        for label in order:
            wall, cpu = time.perf_counter(), time.process_time()
            steps[label]()
            spent[label].append((time.perf_counter() - wall, time.process_time() - cpu))
        order = order[1:] + order[:1]  # nobody always comes after the same other
    print(f"a training step of VGG-16 at width {arguments.width:g}, batch 64, medians of {arguments.repeats}")
    medians = {label: [statistics.median(t) for t in zip(*times[1:], strict=True)] for label, times in spent.items()}
    base = medians["ordinary batch norm"]
    for label, (wall, cpu) in medians.items():
        print(
            f"  {label:38s} {1e3 * wall:7.1f} ms, {wall / base[0]:.3f} of wall, {cpu / base[1]:.3f} of processor time"
        )


if __name__ == "__main__":
    main()
