"""What methods look at: scores of SNIP, GraSP and SynFlow, sensitivities of SiPP and PFP, i-SpaSP's block, Lanczos."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

import peers
import pruning_core as pc
from peers import REBUILT
from pruning_core.masks import find_sites
from pruning_core.methods.ispasp import two_layer
from pruning_core.methods.shared.hidden import Hidden
from pruning_core.methods.shared.sensitivities import RunningSensitivity
from pruning_core.models.activations import layer_inputs
from pruning_core.papers.how_sparse import Hessian, spectrum
from stopwatch import Made, drawn, megabytes, row

IMAGE = (3, 32, 32)
GRADIENTS = {"Conv6": ("conv6_snip", 32), "ResNet-18": ("resnet18_snip", 64)}


def scoring(
    method: str, network: str, size: int, batches: int = 1
) -> tuple[nn.Module, peers.Batches, Callable[[], object]]:
    """The network, its batches, and the scores of a method for them."""
    model = pc.build_model(network, "cifar10", seed=0).eval()
    made = drawn(batches, size, IMAGE)
    view = pc.View(model, find_sites(model, channels=False), pc.Masks(), made, F.cross_entropy, torch.Generator())
    return model, made, lambda: pc.METHODS[method]().score(view)


for title, (network, size) in GRADIENTS.items():

    @row(f"SNIP scores, {title}", f"{REBUILT}: a mask beside every weight (Lee et al.)", at_most=1.0, turns=3)
    def snip(network: str = network, size: int = size) -> Made:
        model, batches, ours = scoring("snip", network, size)
        return ours, lambda: peers.snip_with_masks(model, batches)

    @row(f"SNIP scores, {title}, by gradients", f"{REBUILT}: gradients of everything (SNIP-it)", at_most=1.05, turns=3)
    def snip_of_snipit(network: str = network, size: int = size) -> Made:
        model, batches, ours = scoring("snip", network, size)
        return ours, lambda: peers.snip_of_snipit(model, batches)

    @row(f"GraSP scores, {title}", f"{REBUILT} (Wang et al.)", at_most=1.0, turns=3)
    def grasp(network: str = network, size: int = size) -> Made:
        model, batches, ours = scoring("grasp", network, size // 2)
        return ours, lambda: peers.grasp(model, batches)


@row("SNIP scores, growth with batches", "eight times the scores of one batch", at_most=1.1, turns=3)
def growth_with_batches() -> Made:
    many, one = (scoring("snip", "lenet5_snip", 128, batches)[2] for batches in (8, 1))
    return many, lambda: [one() for _ in range(8)]


@row("SynFlow, 100 rounds, VGG-16 of half the width", "its 100 forward and backward passes alone", at_most=2.0, turns=3)
def synflow() -> Made:
    model = pc.build_model("vgg16", "cifar10", width=0.5, seed=0).eval()
    ones, weights = torch.ones(1, *IMAGE), [p for p in model.parameters() if p.dim() > 1]

    def passes() -> None:
        for _ in range(100):
            torch.autograd.grad(model(ones).sum(), weights)

    return lambda: pc.prune(model, "synflow", 0.9), passes


def sensitivities_of(points: int, reduce: str = "mean") -> Callable[[], dict[str, Tensor]]:
    """Sensitivities of all layers of a VGG-16 of a quarter of its width, for images that are drawn chunk by chunk."""
    model = pc.build_model("vgg16", "cifar10", width=0.25, seed=0).eval().requires_grad_(False)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}

    def ours() -> dict[str, Tensor]:
        running = {n: RunningSensitivity(m, reduce, "reduce", channels=reduce == "max") for n, m in layers.items()}
        for seen in layer_inputs(model, layers, _images(points)):
            for n, maps in seen.items():
                running[n].add(maps)
        return {n: part.result().weight for n, part in running.items()}

    return ours


def _images(points: int) -> Iterator[tuple[Tensor, None]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(points // 16):  # drawn, not kept, so that their memory does not grow with the number of points
        yield torch.randn((16, *IMAGE), generator=generator), None


for method, reduce in (("SiPP", "mean"), ("PFP", "max")):

    @row(f"{method} sensitivities, VGG-16 of a quarter", f"{REBUILT}: all shares written out", at_most=0.3, turns=3)
    def sensitivities(reduce: str = reduce) -> Made:
        model = pc.build_model("vgg16", "cifar10", width=0.25, seed=0).eval().requires_grad_(False)
        layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}

        def theirs() -> dict[str, Tensor]:
            (seen,) = layer_inputs(model, layers, _images(16))
            return {n: peers.sensitivities(layers[n], maps, reduce == "mean") for n, maps in seen.items()}

        def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> str:
            return f"largest difference {max(float((a[n] - b[n]).abs().max()) for n in a):.0e}"

        return sensitivities_of(16, reduce), theirs, difference


@row("SiPP sensitivities, memory for 256 points", "for 64 points", at_most=1.1, turns=1, unit="MB")
def memory_of_sensitivities() -> Made:
    return tuple(lambda n=n: megabytes("bench_scores:sensitivities_of", n) for n in (256, 64))  # type: ignore[return-value]


class Block:
    """Block layer2.1 of torchvision's ResNet-34 with random weights, and hidden maps that are made anew chunk by chunk."""

    def __init__(self, images: int):
        torch.manual_seed(0)
        block = BasicBlock(128, 128)
        for norm in (block.bn1, block.bn2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
        self.block, self.images = block.eval().requires_grad_(False), images
        self.reader = nn.Sequential(block.conv2, block.bn2)

    def hidden(self) -> Iterator[Tensor]:
        # Numbers are drawn, not kept: 512 maps would take 200 MB, and hide what the selection itself needs.
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for _ in range(self.images // 32):
                x = torch.rand((32, 128, 28, 28), generator=generator)
                yield F.relu(self.block.bn1(self.block.conv1(x)))


def block_by_chunks(images: int) -> Callable[[], object]:
    work = Block(images)
    return lambda: two_layer(Hidden.of(work.hidden, work.reader), None, 51)


def block_at_once(images: int) -> Callable[[], object]:
    work = Block(images)
    return lambda: two_layer(torch.cat([*work.hidden()]), work.reader, 51)


@row("i-SpaSP, block of ResNet-34, 32 images", f"{REBUILT}: passes in all 20 iterations", at_most=0.1, turns=3)
def ispasp() -> Made:
    work = Block(32)
    return block_by_chunks(32), lambda: peers.ispasp_block(work.hidden, work.reader, 51)


@row("i-SpaSP, memory for 512 images", "for 128 images", at_most=1.1, turns=1, unit="MB")
def memory_of_ispasp() -> Made:
    return tuple(lambda n=n: megabytes("bench_scores:block_by_chunks", n) for n in (512, 128))  # type: ignore[return-value]


@row("i-SpaSP, memory for 512 images, by chunks", "all maps at once", at_most=0.5, turns=1, unit="MB")
def memory_of_chunks() -> Made:
    chunks, whole = "bench_scores:block_by_chunks", "bench_scores:block_at_once"
    return lambda: megabytes(chunks, 512), lambda: megabytes(whole, 512)


def perceptron() -> tuple[nn.Module, peers.Batches]:
    """12,002 parameters, and 1,797 random samples in batches of 128."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 120), nn.ReLU(), nn.Linear(120, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    ((x, y),) = drawn(1, 1797, (64,))
    return model, list(zip(x.split(128), y.split(128), strict=True))


@row("Lanczos, 50 steps, perceptron", f"{REBUILT} (PyHessian)", at_most=0.6)
def lanczos() -> Made:
    model, batches = perceptron()
    hessian, loop = Hessian(model, batches), peers.PyHessian(model, batches)

    def ours() -> object:
        return spectrum(hessian, steps=50, generator=torch.Generator().manual_seed(0), exact_below=0, progress=False)

    return ours, lambda: loop.lanczos(50)


@row("Hessian times vector, perceptron", "curvlinops, all samples at once", at_most=1.0)
def product() -> Made:
    from curvlinops import HessianLinearOperator

    model, batches = perceptron()
    hessian, v = Hessian(model, batches), torch.randn(12_002, generator=torch.Generator().manual_seed(1))
    whole = [tuple(torch.cat(part) for part in zip(*batches, strict=True))]
    settings = {"check_deterministic": False}
    peer = HessianLinearOperator(model, nn.CrossEntropyLoss(), list(model.parameters()), whole, **settings)
    return lambda: hessian.matvec(v), lambda: peer @ v
