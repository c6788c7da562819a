"""How fast the Trainer is: against a bare loop over resident tensors, and against a DataLoader loop, in one
run.

    python tests/benchmarks/bench_training.py [--epochs 5] [--threads 1] [--resnet-samples 512]

The loops take turns, epoch by epoch. "Speed of the Trainer" is (seconds of that loop) / (seconds of the Trainer), each in
its fastest epoch, because whatever else the machine does can only slow an epoch down: 0.9 means 90 % of its speed,
above 1 the Trainer is faster. On a machine that others use too, trust the processor time. Nothing is asserted.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pruning_core.data.loading import load_data
from pruning_core.data.splits import Split
from pruning_core.masks.masks import Masks
from pruning_core.models.build import build_model
from pruning_core.training.evaluation import evaluate
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.trainer import Trainer

BATCH = 128


class OneByOne(Dataset):
    """What a folder of pictures looks like to a DataLoader: one sample at a time, put together by its collate
    function.
    """

    def __init__(self, split: Split):
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.split.inputs[index], self.split.labels[index]


def bare_loop(model: nn.Module, optimizer: torch.optim.Optimizer, split: Split) -> Callable[[], None]:
    """One epoch as anybody would write it by hand over two tensors."""
    generator = torch.Generator().manual_seed(0)

    def epoch() -> None:
        model.train()
        order = torch.randperm(len(split), generator=generator)
        for start in range(0, len(split), BATCH):
            chosen = order[start : start + BATCH]
            optimizer.zero_grad()
            functional.cross_entropy(model(split.inputs[chosen]), split.labels[chosen]).backward()
            optimizer.step()

    return epoch


def loader_loop(model: nn.Module, optimizer: torch.optim.Optimizer, data: Dataset, workers: int) -> Callable[[], None]:
    """One epoch over a shuffling DataLoader, with the running loss that tutorials print."""
    loader: DataLoader = DataLoader(data, BATCH, shuffle=True, num_workers=workers)

    def epoch() -> None:
        model.train()
        total = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()

    return epoch


def compare(name: str, model: nn.Module, split: Split, settings: Optimizer, epochs: int) -> None:
    """Print the ratios of every loop to the Trainer's epoch."""

    def trainer(masks: Masks | None = None) -> Trainer:
        return Trainer(copy.deepcopy(model), settings, epochs=10**6, batch_size=BATCH, masks=masks)

    def by_hand() -> tuple[nn.Module, torch.optim.Optimizer]:
        twin = copy.deepcopy(model)
        if settings.name == "sgd":
            return twin, torch.optim.SGD(twin.parameters(), settings.lr, settings.momentum)
        return twin, torch.optim.Adam(twin.parameters(), settings.lr)

    ours = trainer()
    masked = trainer(Masks({n: torch.rand_like(p) > 0.5 for n, p in model.named_parameters() if p.dim() > 1}))
    resident = TensorDataset(split.inputs, split.labels)
    loops: dict[str, Callable[[], object]] = {
        "Trainer": lambda: ours.train_epoch(split),
        "Trainer, half of the weights masked": lambda: masked.train_epoch(split),
        "bare loop over resident tensors": bare_loop(*by_hand(), split),
        "DataLoader over a TensorDataset": loader_loop(*by_hand(), resident, 0),
        "DataLoader over samples, 2 workers": loader_loop(*by_hand(), OneByOne(split), 2),
    }
    measured: dict[str, list[tuple[float, float]]] = {label: [] for label in loops}
    order = [label for label in loops if "workers" not in label]
    for _ in range(epochs + 1):
        for label in order:
            measured[label].append(timed(loops[label]))
        order = order[1:] + order[:1]  # nobody always comes after the same other
    for label in set(loops) - set(order):  # leaving workers still run while the next loop begins, so these come last
        measured[label] = [timed(loops[label]) for _ in range(min(epochs, 5))]
    print(f"\n{name}, {settings.name}, {len(split)} samples, batch {BATCH}, {epochs} epochs")
    print(f"  {'':36s} {'wall s':>8s} {'cpu s':>8s}   speed of the Trainer by wall and by cpu time")
    ours_wall, ours_cpu = map(min, zip(*measured["Trainer"], strict=True))
    for label, pairs in measured.items():
        wall, cpu = map(min, zip(*pairs, strict=True))
        by_cpu = "-" if "workers" in label else f"{cpu / ours_cpu:.2f}"
        print(f"  {label:36s} {wall:8.3f} {cpu:8.3f}   {wall / ours_wall:5.2f} {by_cpu:>5s}")


def timed(loop: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    loop()
    return time.perf_counter() - wall, time.process_time() - cpu


def precisions(split: Split, test: Split, epochs: int, seeds: int) -> None:
    """Print accuracy and time of float32, bfloat16 and channels_last on the same real data."""
    print(
        f"\nLeNet-5 and ResNet-20 (quarter width), {len(split)} real samples, {epochs} epochs, {seeds} seeds: test accuracy"
    )
    for model_name, width in (("lenet5", 1.0), ("resnet20", 0.25)):
        for label, options in (
            ("float32", {}),
            ("channels_last", {"channels_last": True}),
            ("bfloat16", {"precision": "bfloat16"}),
            ("bfloat16 + channels_last", {"precision": "bfloat16", "channels_last": True}),
        ):
            found, start = [], time.perf_counter()
            for seed in range(seeds):
                shape = tuple(split.inputs.shape[1:])
                model = build_model(model_name, (shape, 10), width=width, seed=seed)
                trainer = Trainer(
                    model, Optimizer("sgd", lr=0.05), epochs=epochs, batch_size=64,
                    learning_rate=LearningRate("cosine"), seed=seed, **options,
                )  # fmt: skip
                for _ in range(epochs):
                    trainer.train_epoch(split)
                found.append(evaluate(model, test).accuracy)
            each = (time.perf_counter() - start) / seeds
            mean, spread = statistics.mean(found), statistics.stdev(found) if seeds > 1 else 0.0
            print(f"  {model_name:9s} {label:26s} {mean:6.2f} % ± {spread:.2f}   {each:6.2f} s a run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resnet-samples", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    data = load_data("mnist5k")
    lenet = build_model("lenet300", data, seed=0)
    for optimizer in (Optimizer("sgd", lr=0.1), Optimizer("adam", lr=1e-3)):
        compare("LeNet-300-100", lenet, data.train, optimizer, 4 * arguments.epochs)
    coloured = data.train.inputs[: arguments.resnet_samples].repeat(1, 3, 1, 1)
    split = Split(functional.pad(coloured, (2, 2, 2, 2)), data.train.labels[: arguments.resnet_samples])
    resnet = build_model("resnet20", ((3, 32, 32), 10), seed=0)
    compare("ResNet-20", resnet, split, Optimizer("sgd", lr=0.1), arguments.epochs)
    precisions(data.train, data.test, 8, arguments.seeds)


if __name__ == "__main__":
    main()
