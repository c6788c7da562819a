"""An epoch of the Trainer against the loop that anybody would write by hand, and a step with the penalty of RNI."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pruning_core as pc
from pruning_core.data.splits import Split
from pruning_core.experiments.play import play
from pruning_core.experiments.recipes.chapters import RECEDING_OPTIMIZER
from pruning_core.experiments.state import Step, start
from pruning_core.methods.l1 import L1
from pruning_core.methods.rni import RecedingNeurons
from pruning_core.papers.rni.pipeline import penalty_of
from stopwatch import Made, drawn, row

SGD = pc.Optimizer("sgd", lr=0.01, momentum=0.9)
FAST = {"channels_last": True, "precision": "bfloat16"}
OPTIONS = {"float32": {}, "channels_last": {"channels_last": True}, "bfloat16, channels_last": FAST}


def by_hand(model: nn.Module, batches: Callable, penalty: float = 0.0, channels_last=False, precision="float32"):
    """One epoch as anybody would write it."""
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), SGD.lr, SGD.momentum)

    def epoch() -> None:
        model.train()
        for x, y in batches():
            if channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                outputs = model(x)
            loss = F.cross_entropy(outputs.float(), y)
            if penalty:
                loss = loss + penalty * sum((p + 1e-8).abs().sum() for p in model.parameters())
            loss.backward()
            optimizer.step()

    return epoch


def resident(split: Split, size: int) -> Callable:
    """Batches of two tensors, in an order drawn anew for each epoch."""
    generator = torch.Generator().manual_seed(0)

    def batches():
        for chosen in torch.randperm(len(split), generator=generator).split(size):
            yield split.inputs[chosen], split.labels[chosen]

    return batches


def epochs(name: str, samples: int, peer: Callable | None = None, masked: bool = False, **options) -> Made:
    """An epoch of the Trainer and one by hand, over ``samples`` random images of 32 x 32, in batches of 64."""
    split = Split(*drawn(1, samples, (3, 32, 32))[0])
    model, twin = (pc.build_model(name, "cifar10", seed=0) for _ in range(2))
    masks = {n: torch.rand_like(p) > 0.5 for n, p in model.named_parameters() if p.dim() > 1} if masked else None
    trainer = pc.Trainer(model, SGD, epochs=10**6, batch_size=64, masks=masks, **options)
    return lambda: trainer.train_epoch(split), by_hand(twin, (peer or resident)(split, 64), **options)


for label, options in OPTIONS.items():

    @row(f"Epoch of Conv6, {label}", "the plain loop, the same", at_most=1.05, turns=3)
    def conv6(options=options) -> Made:
        return epochs("conv6_snip", 128, **options)


for label in [label for label in OPTIONS if label != "float32"]:

    @row(f"Epoch of ResNet-20, {label}", "the Trainer in float32", at_most=0.9, turns=3)
    def faster(options=OPTIONS[label]) -> Made:
        return epochs("resnet20", 256, **options)[0], epochs("resnet20", 256)[0]


@row("Epoch of Conv6, half of the weights masked", "the plain loop without masks", at_most=1.05, turns=3)
def masked() -> Made:
    return epochs("conv6_snip", 128, masked=True)


@row("Epoch of LeNet-300-100", "the plain loop", at_most=1.1, turns=9)
def perceptron() -> Made:
    return epochs("lenet300", 4096)


@row("Epoch of LeNet-300-100, by DataLoader", "a loop over torch's DataLoader", at_most=0.8, turns=9)
def loader() -> Made:
    def batches(split: Split, size: int) -> Callable:
        loader: DataLoader = DataLoader(TensorDataset(split.inputs, split.labels), size, shuffle=True)
        return lambda: loader

    return epochs("lenet300", 4096, batches)


@row("Epoch of FC5 with L1", "the plain loop with the same penalty", at_most=0.9, turns=3)
def fc5_with_l1() -> Made:
    strength = 1e-5
    stage = pc.Train(1, optimizer=SGD, penalty=((L1(), strength),), batch_size=128)
    state = start(pc.Experiment("fc5", "mnist5k", [stage]))
    twin = pc.build_model("fc5", "mnist5k", seed=0)
    plain = by_hand(twin, resident(state.data.train, 128), strength)
    return lambda: play(state, Step(stage), 0, progress=False), plain


@row("Step of VGG-16 with sigmoid norms and RNI's penalty", "the step without either", at_most=1.05, turns=15)
def receding() -> Made:
    ((x, y),) = drawn(1, 64, (3, 32, 32))

    def step(norm: str, penalty) -> Callable[[], None]:
        model = pc.build_model("vgg16_rni", "cifar10", norm=norm, width=0.25, seed=0).train()
        optimizer = replace(RECEDING_OPTIMIZER, lr=0.01).build(model)

        def call() -> None:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            (loss + penalty(model) if penalty else loss).backward()
            optimizer.step()

        return call

    return step("sigmoid", penalty_of(RecedingNeurons(b=3.0), 1e-3)), step("batch", None)
