"""What a user gains: a ResNet-50 as torchvision gives it against half of its channels, step by step, batch 1 and 8.

    python tests/benchmarks/bench_gains.py [--threads 1] [--repeats 9] [--batches 1 8] [--compile]
    python tests/benchmarks/bench_gains.py --sparsity 0.7 --of macs --round-to 16

Networks of one batch size take turns; times are the processor's own, medians, so that other work on the machine does not
count; with one thread that is the latency. Each step keeps those before it, and the last line treats the dense network in
the same way. ``--compile`` adds torch.compile with frozen weights, which needs a C++ compiler and minutes. bfloat16 is
compared with bfloat16. Nothing is asserted.

Half of the channels of a ResNet-50 are multiples of 8 already; what rounding brings shows where both ways cost as many MACs,
as in the second line above.
"""

import argparse
import copy
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

from pruning_core import count_macs, prune
from pruning_core.models import fold_batch_norm
from stopwatch import processor_seconds


def networks(model: nn.Module, example: Tensor, sparsity: float, of: str, round_to: int) -> dict[str, nn.Module]:
    """The dense network and what each step makes of it."""
    cut = partial(prune, model, "l1_norm", sparsity, of=of, across="layer", example_input=example)
    rounded = cut(round_to=round_to)
    return {
        "dense": model,
        f"{100 * sparsity:g} % of the {of} removed": cut().shrink(),
        f"... round_to={round_to}": rounded.shrink(),
        "... fold_batch_norm": rounded.shrink(fold_batch_norm=True),
        "... channels_last": rounded.shrink(fold_batch_norm=True, channels_last=True),
        "dense, folded, channels_last": fold_batch_norm(model, example).to(memory_format=torch.channels_last),
    }


def compiled(network: nn.Module) -> nn.Module:
    """Compiled on the first call, with its weights as constants."""
    return torch.compile(copy.deepcopy(network), options={"freezing": True}, dynamic=False)  # type: ignore[return-value]


def report(turned: dict[str, nn.Module], macs: dict[str, int], images: Tensor, repeats: int) -> None:
    with torch.inference_mode():
        seconds = processor_seconds([partial(network, images) for network in turned.values()], repeats)
    print(f"\n{str(images.dtype).removeprefix('torch.')}, batch of {len(images)}")
    for step, spent in zip(turned, seconds, strict=True):
        work = f"{macs['dense'] / macs[step]:4.2f} times fewer MACs" if step in macs else ""
        print(f"  {step:30} {1e3 * spent:8.1f} ms  {seconds[0] / spent:5.2f} times as fast, {work}".rstrip(", "))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--of", choices=["channels", "macs"], default="channels")
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    example = torch.randn(1, 3, 224, 224)
    dense = torchvision.models.resnet50(weights=None).eval()
    made = networks(dense, example, arguments.sparsity, arguments.of, arguments.round_to)
    macs = {step: count_macs(network, example) for step, network in made.items()}
    print(
        f"{arguments.threads} threads, torch {torch.__version__}, processor time, median of {arguments.repeats} turns"
    )
    for dtype in (torch.float32, torch.bfloat16):
        turned = {step: copy.deepcopy(network).to(dtype) for step, network in made.items()}
        if arguments.compile:
            turned["... torch.compile, frozen"] = compiled(turned["... channels_last"])
        for batch in arguments.batches:
            report(turned, macs, torch.randn(batch, 3, 224, 224).to(dtype), arguments.repeats)


if __name__ == "__main__":
    main()
