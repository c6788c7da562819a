"""Hessian-vector products and Lanczos: against loops as in PyHessian, against curvlinops, and in units of gradients.

    python tests/benchmarks/bench_curvature.py [--threads 1] [--steps 100] [--repeats 5] [--skip-convolutional]

Everything is timed in one run, in turns, on the 1,797 digits of scikit-learn; a ratio above 1 says how much faster ours is.
"Two gradients" are two forward and backward passes over the same samples, "two backward passes" the backward passes
alone, of a graph that is kept; each over batches of 128, and over all samples at once, as ours computes. Nothing is asserted.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.papers.how_sparse.curvature.hessian import Hessian
from pruning_core.papers.how_sparse.curvature.lanczos import lanczos, quadrature, rademacher
from pruning_core.papers.how_sparse.curvature.measures import spectrum

BATCH = 128
Batches = list[tuple[Tensor, Tensor]]


def perceptron() -> nn.Module:
    """12,002 parameters."""
    return nn.Sequential(nn.Linear(64, 120), nn.ReLU(), nn.Linear(120, 32), nn.ReLU(), nn.Linear(32, 10)).eval()


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10),
    ).eval()  # fmt: skip


class LikePyHessian:
    """The loop that PyHessian makes: a fresh graph a batch and product, lists of tensors, a list of Lanczos vectors."""

    def __init__(self, model: nn.Module, batches: Batches):
        self.batches = batches
        self.parameters = list(model.parameters())
        self.model = model

    def product(self, v: list[Tensor]) -> list[Tensor]:
        total = [torch.zeros_like(p) for p in self.parameters]
        count = 0
        for x, y in self.batches:
            loss = F.cross_entropy(self.model(x), y)
            gradients = torch.autograd.grad(loss, self.parameters, create_graph=True)
            found = torch.autograd.grad(gradients, self.parameters, v, only_inputs=True, retain_graph=False)
            total = [a + b * len(x) for a, b in zip(total, found, strict=True)]
            count += len(x)
        return [t / count for t in total]

    def spectrum(self, steps: int, generator: torch.Generator) -> Tensor:
        def inner(a: list[Tensor], b: list[Tensor]) -> Tensor:
            return sum((x * y).sum() for x, y in zip(a, b, strict=True))  # type: ignore[return-value]

        def normalised(a: list[Tensor]) -> list[Tensor]:
            size = float(inner(a, a)) ** 0.5 + 1e-6
            return [x / size for x in a]

        v = [torch.randint(2, p.shape, generator=generator) * 2.0 - 1 for p in self.parameters]
        vectors, alpha, beta = [normalised(v)], [], []
        w = self.product(vectors[0])
        alpha.append(float(inner(w, vectors[0])))
        w = [x - alpha[0] * y for x, y in zip(w, vectors[0], strict=True)]
        for _ in range(1, steps):
            beta.append(float(inner(w, w)) ** 0.5)
            for old in vectors:
                overlap = float(inner(w, old))
                w = [x - overlap * y for x, y in zip(w, old, strict=True)]
            vectors.append(normalised(w))
            w = self.product(vectors[-1])
            alpha.append(float(inner(w, vectors[-1])))
            w = [x - alpha[-1] * y - beta[-1] * z for x, y, z in zip(w, vectors[-1], vectors[-2], strict=True)]
        return quadrature(torch.tensor(alpha), torch.tensor(beta))[0]


def in_turns(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Wall-clock seconds of each in its fastest of ``repeats`` rounds, in which they take turns; a first round does not count.

    Whatever else the machine does can only slow a round down.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in times.items()}


def curvlinops_operator(model: nn.Module, batches: Batches):
    """The operator of curvlinops, or None where it is not installed."""
    try:
        import curvlinops
    except ImportError:
        return None
    parameters = [p for p in model.parameters() if p.requires_grad]
    return curvlinops.HessianLinearOperator(
        model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
    )


def drawn(model: nn.Module) -> nn.Module:
    """The network with weights of its own drawing: the same in every run."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5, generator=generator)
    return model


def gradients(model: nn.Module, batches: Batches) -> Callable[[], object]:
    parameters = list(model.parameters())

    def run() -> None:
        for _ in range(2):
            for x, y in batches:
                torch.autograd.grad(F.cross_entropy(model(x), y), parameters)

    return run


def backward_passes(model: nn.Module, batches: Batches) -> Callable[[], object]:
    parameters = list(model.parameters())
    losses = [F.cross_entropy(model(x), y) for x, y in batches]

    def run() -> None:
        for _ in range(2):
            for loss in losses:
                torch.autograd.grad(loss, parameters, retain_graph=True)

    return run


def compare(name: str, model: nn.Module, x: Tensor, y: Tensor, steps: int, repeats: int) -> None:
    batches, whole = list(zip(x.split(BATCH), y.split(BATCH), strict=True)), [(x, y)]
    hessian, fresh = Hessian(model, batches), Hessian(model, batches, reuse_graph=False)
    loop, peer = LikePyHessian(model, batches), curvlinops_operator(model, batches)
    v = torch.randn(hessian.dimension, generator=torch.Generator().manual_seed(1))
    pieces = [
        part.view_as(p) for part, p in zip(v.split([p.numel() for p in loop.parameters]), loop.parameters, strict=True)
    ]
    print(f"\n{name}: {hessian.dimension} parameters, {hessian.samples} samples, batches of {BATCH}")
    print(f"  estimated graph: {hessian.graph_bytes / 2**20:.1f} MiB, kept: {hessian.keeps_graph}")
    products: dict[str, Callable[[], object]] = {
        "ours": lambda: hessian.matvec(v),
        "ours, no graph kept": lambda: fresh.matvec(v),
        "as in PyHessian": lambda: loop.product(pieces),
        "two gradients, batches": gradients(model, batches),
        "two gradients, all at once": gradients(model, whole),
        "two backward passes, batches": backward_passes(model, batches),
        "two backward passes, all at once": backward_passes(model, whole),
    }
    if peer is not None:
        at_once = curvlinops_operator(model, whole)
        products["curvlinops"] = lambda: peer @ v
        products["curvlinops, all at once"] = lambda: at_once @ v
    _table("one product", in_turns(products, 3 * repeats))

    def with_flat(product: Callable[[Tensor], Tensor]) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return quadrature(*lanczos(product, rademacher(hessian.dimension, generator, v.dtype), steps))[0]

    def ours() -> float:
        generator = torch.Generator().manual_seed(0)
        return spectrum(hessian, steps=steps, generator=generator, exact_below=0, progress=False).top

    def reading_included() -> float:
        """The Hessian made as well: reading, checks and graph."""
        made = Hessian(model, batches)
        return spectrum(made, steps=steps, generator=torch.Generator(), exact_below=0, progress=False).top

    spectra: dict[str, Callable[[], object]] = {
        "ours": ours,
        "ours, Hessian made anew": reading_included,
        "ours, no graph kept": lambda: with_flat(fresh.matvec),
        "as in PyHessian": lambda: loop.spectrum(steps, torch.Generator().manual_seed(0)),
    }
    if peer is not None:
        spectra["curvlinops' product, our Lanczos"] = lambda: with_flat(lambda u: (peer @ u).detach())
        spectra["the same, all at once"] = lambda: with_flat(lambda u: (at_once @ u).detach())
    _table(f"{steps} Lanczos steps", in_turns(spectra, repeats))


def _table(what: str, found: dict[str, float]) -> None:
    print(f"  {what}")
    for label, seconds in found.items():
        print(f"    {label:36s} {1e3 * seconds:9.2f} ms   {seconds / found['ours']:6.2f} times ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-convolutional", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    if curvlinops_operator(perceptron(), [(x, y)]) is None:
        print("curvlinops is not installed; for a comparison: pip install curvlinops-for-pytorch==3.0.1")
    compare("perceptron", drawn(perceptron()), x, y, arguments.steps, arguments.repeats)
    if not arguments.skip_convolutional:
        compare(
            "convolutional network", drawn(convolutional()), x, y, arguments.steps // 4, max(1, arguments.repeats // 2)
        )
    print(f"\nlargest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
