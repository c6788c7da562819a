"""How fast i-SpaSP selects, and in how much memory, as ratios in the same run. Nothing is asserted about time."""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

import pruning_core as pc
from pruning_core.data.splits import Split
from pruning_core.methods.greedy import Greedy
from pruning_core.methods.ispasp import Recovery, two_layer
from pruning_core.methods.shared.hidden import Hidden
from stopwatch import seconds

CHUNK, CHANNELS = 32, 128
MAPS = (CHANNELS, 28, 28)


class Block:
    """Block layer2.1 of torchvision's ResNet-34 with random weights, and inputs of it that are made anew chunk by chunk."""

    def __init__(self, images: int):
        torch.manual_seed(0)
        block = BasicBlock(CHANNELS, CHANNELS)
        for norm in (block.bn1, block.bn2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
        self.block, self.images = block.eval().requires_grad_(False), images

    def inputs(self) -> Iterator[Tensor]:
        # Numbers are drawn, not kept: 512 maps would take 200 MB, and hide what the selection itself needs.
        generator = torch.Generator().manual_seed(1)
        for _ in range(self.images // CHUNK):
            yield torch.rand((CHUNK, *MAPS), generator=generator)

    def hidden(self) -> Iterator[Tensor]:
        with torch.no_grad():
            for x in self.inputs():
                yield F.relu(self.block.bn1(self.block.conv1(x)))

    def reader(self) -> nn.Module:
        return nn.Sequential(self.block.conv2, self.block.bn2)

    def select(self, s: int = 51) -> Recovery:
        return two_layer(Hidden.of(self.hidden, self.reader()), None, s)

    def forward_and_backward(self) -> None:
        """One pass of the half block, which is what an iteration costs when it is written down naively."""
        reader = self.reader()
        for maps in self.ready:
            leaf = maps.requires_grad_(True)
            reader(leaf).square().sum().backward()
            leaf.grad = None

    def prepare(self) -> None:
        self.ready = [maps.clone() for maps in self.hidden()]


def one_layer(s: int) -> None:
    """Selection for 256 images, against the passes over all of them that the iterations would take one by one."""
    work = Block(256)
    work.prepare()
    steps = len(work.select(s).steps)
    mine, made = seconds(lambda: work.select(s)), seconds(lambda: [None for _ in work.hidden()])
    one_pass = seconds(work.forward_and_backward)
    allowed = (steps + 1) * 1.2 * one_pass
    print(f"layer2.1 of ResNet-34, 256 images, s = {s}: the support repeats in iteration {steps}")
    print(f"  {mine:.2f} s, making the hidden maps alone {made:.2f} s; forward and backward {one_pass:.2f} s")
    print(f"  ratio to (iterations + 1) x 1.2 x forward and backward: {mine / allowed:.2f}")


def most_memory(start_anew: bool = False) -> float:
    """The most memory that this process has held so far, in MB; ``start_anew`` forgets it, where the system can."""
    try:
        if start_anew:  # imports take more for a moment than the selection ever does
            Path("/proc/self/clear_refs").write_text("5")
        (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return float(line.split()[1]) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak(images: int, at_once: bool) -> None:
    """Prints the peak memory of this process, before and after the selection. Runs in a process of its own."""
    work = Block(images)
    before = most_memory(start_anew=True)
    if at_once:
        two_layer(torch.cat([*work.hidden()]), work.reader(), 51)
    else:
        work.select()
    print(before, most_memory())


def memory() -> None:
    """Peak memory must not depend on the number of images; the last line shows that it would be seen if it did."""
    taken = {}
    for images, how in ((64, "chunks"), (512, "chunks"), (512, "at-once")):
        command = [sys.executable, __file__, "--peak", str(images), how]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, after = (float(word) for word in answer.split())
        taken[images, how] = after - before
        print(f"peak memory, {images} images, {how}: {after:.0f} MB, {after - before:.0f} MB of them for the selection")
    few, many = taken[64, "chunks"], taken[512, "chunks"]
    print(
        f"  512 images over 64: ratio {many / few:.2f}; all maps of 512 are {512 * CHANNELS * 28 * 28 / 2**18:.0f} MB"
    )


def greedy() -> None:
    """Greedy forward selection beside i-SpaSP on a perceptron 784-512-10, 102 neurons kept, 512 samples."""
    data = pc.load_data("mnist5k")
    model = pc.build_model("ffn2_ispasp", "mnist5k", seed=0)
    pc.fit(model, data, epochs=2, optimizer=pc.Optimizer("sgd", lr=0.05), batch_size=128, progress=False)
    batches = list(Split(data.train.inputs[:512], data.train.labels[:512]).batches(512))

    def select(method: str | pc.Method) -> Callable[[], object]:
        return lambda: pc.prune(model, method, None, across={"fc1": 1 - 102 / 512}, batches=batches)

    mine = seconds(select("ispasp"), 5)
    print(f"784-512-10, 102 of 512 neurons kept, 512 samples: i-SpaSP {mine:.3f} s, prune() around it included")
    for name, method, repeats in (("all candidates", Greedy(), 1), ("50 candidates", Greedy(50), 1)):
        other = seconds(select(method), repeats)
        print(f"  greedy with {name}: {other:.3f} s; ratio {other / mine:.1f}")
    hidden = torch.relu(batches[0][0].flatten(1) @ model.fc1.weight.detach().T)
    bare = seconds(lambda: two_layer(hidden, model.fc2.weight.detach(), 102), 5)
    print(f"  the selection alone, from the hidden maps: {bare:.4f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        peak(int(sys.argv[2]), sys.argv[3] == "at-once")
    else:
        torch.manual_seed(0)
        print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
        one_layer(s=12)
        one_layer(s=51)
        memory()
        greedy()
