"""What a user gains: a ResNet-50 as torchvision gives it against half of its channels, step by step, batch 1 and 8.

    python tests/benchmarks/bench_gains.py [--threads 1] [--repeats 9] [--batches 1 8]

All networks of a batch size take turns; times are the processor's own, medians, so that other work on the machine does not
count; with one thread that is the latency. Each step keeps those before it. bfloat16 is compared with bfloat16. Nothing is
asserted.
"""

import argparse
import copy

import torch
import torchvision
from torch import Tensor, nn

from pruning_core import count_macs, prune
from stopwatch import processor_seconds

STEPS = ("dense", "half of the channels", "... round_to=8", "... batch norm folded", "... channels_last")


def networks(model: nn.Module, example: Tensor) -> list[nn.Module]:
    """The dense network and what each step makes of it; the stem, which is 1/34 of the work, is cut as well."""
    half = prune(model, "l1_norm", 0.5, across="layer", example_input=example)
    rounded = prune(model, "l1_norm", 0.5, across="layer", round_to=8, example_input=example)
    folded = rounded.shrink(fold_batch_norm=True)
    return [model, half.shrink(), rounded.shrink(), folded, rounded.shrink(fold_batch_norm=True, channels_last=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    example = torch.randn(1, 3, 224, 224)
    made = networks(torchvision.models.resnet50(weights=None).eval(), example)
    macs = [count_macs(network, example) for network in made]
    print(
        f"{arguments.threads} threads, torch {torch.__version__}, processor time, median of {arguments.repeats} turns"
    )
    for dtype in (torch.float32, torch.bfloat16):
        turned = [copy.deepcopy(network).to(dtype) for network in made]
        for batch in arguments.batches:
            images = torch.randn(batch, 3, 224, 224).to(dtype)
            with torch.inference_mode():
                calls = [lambda network=network: network(images) for network in turned]
                seconds = processor_seconds(calls, arguments.repeats)
            print(f"\n{str(dtype).removeprefix('torch.')}, batch of {batch}")
            for step, work, spent in zip(STEPS, macs, seconds, strict=True):
                faster, fewer = seconds[0] / spent, macs[0] / work
                print(f"  {step:22} {1e3 * spent:8.1f} ms  {faster:5.2f} times as fast, {fewer:4.2f} times fewer MACs")


if __name__ == "__main__":
    main()
