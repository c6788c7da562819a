"""How fast sensitivities are found, and in how much memory, as ratios in one run. Nothing is asserted about time."""

import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.methods.shared.sensitivities import RunningSensitivity
from pruning_core.models.activations import layer_inputs

CHUNK, POINTS = 32, 256
NETWORKS = {"resnet20_b": 1.0, "vgg16": 1.0}


class Work:
    """All layers of a network with random weights, and images that are made anew chunk by chunk."""

    def __init__(self, name: str, points: int):
        self.model = pc.build_model(name, "cifar10", width=NETWORKS[name], seed=0).eval().requires_grad_(False)
        self.points = points
        self.layers = {n: m for n, m in self.model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}

    def batches(self) -> Iterator[tuple[Tensor, None]]:
        # Numbers are drawn, not kept, so that their memory does not grow with the number of points.
        generator = torch.Generator().manual_seed(1)
        for _ in range(self.points // CHUNK):
            yield torch.randn((CHUNK, 3, 32, 32), generator=generator), None

    def inputs(self) -> Iterator[dict[str, Tensor]]:
        return layer_inputs(self.model, self.layers, self.batches())

    def sensitivities(self, reduce: str = "max", kernel: str = "reduce") -> dict[str, Tensor]:
        running = {
            name: RunningSensitivity(layer, reduce, kernel, channels=reduce == "max")
            for name, layer in self.layers.items()
        }
        for seen in self.inputs():
            for name, maps in seen.items():
                running[name].add(maps)
        return {name: part.result().weight for name, part in running.items()}

    def forward(self) -> None:
        for _ in self.inputs():
            pass

    def unfolded(self) -> None:
        """Forward passes, and every layer once more as unfolding and a matrix product."""
        for seen in self.inputs():
            for name, maps in seen.items():
                self.layers[name].weight.flatten(1) @ patches(self.layers[name], maps)

    def elementwise(self) -> None:
        """The same with a product for each filter that is multiplied out entry by entry, and summed then."""
        for seen in self.inputs():
            for name, maps in seen.items():
                columns = patches(self.layers[name], maps)
                for row in self.layers[name].weight.flatten(1):
                    (columns * row[:, None]).sum(0)

    def plain(self) -> dict[str, Tensor]:
        """Sensitivities as they are defined, filter by filter and sign by sign, with all shares written out."""
        found = {name: torch.zeros_like(layer.weight.flatten(1)) for name, layer in self.layers.items()}
        for seen in self.inputs():
            for name, maps in seen.items():
                points = torch.cat([maps.clamp(min=0), (-maps).clamp(min=0)]) if bool((maps < 0).any()) else maps
                columns = patches(self.layers[name], points)
                for i, row in enumerate(self.layers[name].weight.flatten(1)):
                    for half in (row.clamp(min=0), row.clamp(max=0)):
                        products = columns * half[:, None]
                        z = products.sum(0)
                        shares = products / torch.where(z.abs() <= 1.1920929e-07, math.inf, z)
                        found[name][i] = torch.maximum(found[name][i], shares.amax(1))
        return {name: share.view_as(self.layers[name].weight) for name, share in found.items()}


def patches(layer: nn.Module, maps: Tensor) -> Tensor:
    """What every output position sees, (inputs of a filter, points x positions)."""
    if isinstance(layer, nn.Linear):
        return maps.T
    assert isinstance(layer, nn.Conv2d)
    return F.unfold(maps, layer.kernel_size, layer.dilation, layer.padding, layer.stride).transpose(0, 1).flatten(1)


def seconds(call: Callable[[], object], rounds: int = 1) -> float:
    """The processor time of one call on one thread, the least of some ``rounds``: what else runs changes it little."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return min(taken)


def speed(name: str) -> None:
    """Sensitivities of all layers, beside forward passes and, for fewer points, beside the straightforward way."""
    whole, part = Work(name, POINTS), Work(name, CHUNK)
    part.sensitivities(), part.sensitivities("mean")  # compiled once; the first pass of a process takes longer anyway
    mine, mean = seconds(whole.sensitivities, 2), seconds(lambda: whole.sensitivities("mean"), 2)
    forward, unfolded = seconds(whole.forward, 2), seconds(whole.unfolded, 2)
    print(f"{name}, width {NETWORKS[name]:g}: all {len(whole.layers)} layers, {POINTS} points in chunks of {CHUNK}")
    print(f"  maximum {mine:.2f} s, mean {mean:.2f} s; forward passes alone {forward:.2f} s")
    ratios = f"{mine / unfolded:.1f}, mean {mean / unfolded:.1f}"
    print(f"  ratio to forward passes with the same unfolding ({unfolded:.2f} s): {ratios}")
    quickly: dict[str, Tensor] = {}
    slowly: dict[str, Tensor] = {}
    few, multiplied = seconds(lambda: quickly.update(part.sensitivities())), seconds(part.elementwise)
    written_out = seconds(lambda: slowly.update(part.plain()))
    print(
        f"  {CHUNK} points: {few:.2f} s; ratio to the elementwise forward ({multiplied:.2f} s): {few / multiplied:.2f}"
    )
    print(f"  ratio to a loop over filters and signs ({written_out:.2f} s): {few / written_out:.2f}")
    away = max(float((share - slowly[n]).abs().max()) for n, share in quickly.items())
    print(f"  largest difference from that loop: {away:.1g}")


def most_memory(start_anew: bool = False) -> float:
    """The most memory that this process has held so far, in MB; ``start_anew`` forgets it, where the system can."""
    try:
        if start_anew:  # imports take more for a moment
            Path("/proc/self/clear_refs").write_text("5")
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return float(line.split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak(name: str, points: int) -> None:
    """Prints the peak memory of this process, before and after. Runs in a process of its own."""
    work = Work(name, points)
    before = most_memory(start_anew=True)
    work.sensitivities("mean")
    print(before, most_memory())


def memory(name: str) -> None:
    """Peak memory must not depend on the number of points. Taken with means, which are fast and unfold the same."""
    taken = {}
    for points in (64, 256):
        command = [sys.executable, __file__, "--peak", name, str(points)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, after = (float(word) for word in answer.split())
        taken[points] = after - before
        print(f"  {points} points: peak memory {after:.0f} MB, {after - before:.0f} MB of them for the sensitivities")
    print(f"  256 points over 64: ratio {taken[256] / taken[64]:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak(sys.argv[2], int(sys.argv[3]))
    else:
        torch.set_num_threads(1)
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
        for network in NETWORKS:
            speed(network)
            memory(network)
