"""Official formulas, rebuilt: what the papers' own programs compute, step by step as they do, written anew from their
description. They are peers of the benchmarks; what they compute is checked against official numbers in tests/golden."""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune as torch_prune

Batches = list[tuple[Tensor, Tensor]]
REBUILT = "official formula, rebuilt"


def layers_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _masked(layer: nn.Module, x: Tensor) -> Tensor:
    weight = layer.weight * layer.weight_mask
    if isinstance(layer, nn.Linear):
        return F.linear(x, weight, layer.bias)
    return F.conv2d(x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def snip_with_masks(model: nn.Module, batches: Batches) -> Tensor:
    """Lee et al. 2019: a copy with a mask beside every weight, whose gradients are the scores; shares of their sum."""
    twin = copy.deepcopy(model).eval()
    layers = layers_of(twin)
    for layer in layers:
        layer.weight_mask = nn.Parameter(torch.ones_like(layer.weight))
        layer.weight.requires_grad_(False)
        layer.forward = partial(_masked, layer)
    for x, y in batches:
        (F.cross_entropy(twin(x), y) / len(batches)).backward()
    scores = torch.cat([layer.weight_mask.grad.abs().flatten() for layer in layers])
    return scores / scores.sum()


def snip_of_snipit(model: nn.Module, batches: Batches) -> Tensor:
    """Verdenius et al. 2020: gradients of all parameters, times the weights, over the loss."""
    model.eval().zero_grad()
    total = 0.0
    for x, y in batches:
        loss = F.cross_entropy(model(x), y) / len(batches)
        loss.backward()
        total += loss.item()
    scores = [(layer.weight * layer.weight.grad / (total + 1e-8)).abs().flatten() for layer in layers_of(model)]
    return torch.cat(scores).detach()


def grasp(model: nn.Module, batches: Batches, temperature: float = 200.0) -> Tensor:
    """Wang et al. 2020: a copy in training mode, each batch in two halves, a first pass without and a second with a graph,
    whose product with the first gradient is differentiated by everything."""
    twin = copy.deepcopy(model).train()
    twin.zero_grad()
    weights = [layer.weight for layer in layers_of(twin)]
    first: list[Tensor] | None = None
    for x, y in batches:
        for part, labels in zip(x.chunk(2), y.chunk(2), strict=True):
            found = torch.autograd.grad(F.cross_entropy(twin(part) / temperature, labels), weights)
            first = [*found] if first is None else [a + b for a, b in zip(first, found, strict=True)]
    assert first is not None
    for x, y in batches:
        for part, labels in zip(x.chunk(2), y.chunk(2), strict=True):
            loss = F.cross_entropy(twin(part) / temperature, labels)
            found = torch.autograd.grad(loss, weights, create_graph=True)
            sum((a * b).sum() for a, b in zip(first, found, strict=True)).backward()
    scores = torch.cat([(-weight * weight.grad).flatten() for weight in weights]).detach()
    return scores / scores.sum().abs()


def snap_it(model: nn.Module, batches: Batches, sparsity: float, halvings: int = 5) -> nn.Module:
    """Verdenius et al. 2020: ``halvings`` + 2 cuts of a chain of layers, which really loses its channels at each of them."""
    twin = copy.deepcopy(model).eval()
    layers = layers_of(twin)
    start, gone = sum(len(layer.weight) for layer in layers[:-1]), 0.0
    for share in [sparsity - (sparsity - 0.5) * 0.5**i for i in range(halvings + 1)] + [sparsity]:
        gates = [torch.ones(len(layer.weight), requires_grad=True) for layer in layers]
        hooks = [
            layer.register_forward_hook(lambda m, i, out, c=c: out * c.view(-1, *[1] * (out.dim() - 2)))
            for layer, c in zip(layers, gates, strict=True)
        ]
        twin.zero_grad()
        total = 0.0
        for x, y in batches:
            loss = F.cross_entropy(twin(x), y) / len(batches)
            loss.backward()
            total += loss.item()
        for hook in hooks:
            hook.remove()
        scores = [(c.grad / total).abs() for c in gates[:-1]]  # type: ignore[operator]
        pool = torch.cat(scores)
        kept = min(max(int(len(pool) * (1 - (share - gone) / (1 - gone + 1e-8))), 1), len(pool))
        threshold = pool.sort(descending=True).values[kept - 1]
        keep = [score >= threshold for score in scores]
        for flags, score in zip(keep, scores, strict=True):
            flags[score.argmax()] = True
        _cut_chain(twin, keep)
        gone = 1 - sum(int(flags.sum()) for flags in keep) / start
    return twin


def _cut_chain(model: nn.Module, keep: list[Tensor]) -> None:
    """Cuts rows of each hidden layer, its norm, and the columns of the layer that follows."""
    outputs, left = None, iter(keep)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.data
            if outputs is not None:
                weight = weight[:, outputs.repeat_interleave(weight.shape[1] // len(outputs))]
            outputs = next(left, None)
            if outputs is not None:
                weight = weight[outputs]
                if module.bias is not None:
                    module.bias = nn.Parameter(module.bias.data[outputs])
            module.weight = nn.Parameter(weight)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and outputs is not None:
            for name in ("weight", "bias"):
                setattr(module, name, nn.Parameter(getattr(module, name).data[outputs]))
            for name in ("running_mean", "running_var"):
                setattr(module, name, getattr(module, name)[outputs])


def patches(layer: nn.Module, maps: Tensor) -> Tensor:
    """What every output position sees, (points, inputs of a filter, positions)."""
    if isinstance(layer, nn.Linear):
        return maps[..., None]
    return F.unfold(maps, layer.kernel_size, layer.dilation, layer.padding, layer.stride)


def sensitivities(layer: nn.Module, maps: Tensor, mean: bool) -> Tensor:
    """Baykal et al. 2019, Liebenwein et al. 2020: four points at a time, all shares of a filter's outputs written out."""
    found = torch.zeros_like(layer.weight.flatten(1))
    for part in maps.split(4):
        points = torch.cat([part.clamp(min=0), (-part).clamp(min=0)]) if bool((part < 0).any()) else part
        columns = patches(layer, points)
        for i, filter in enumerate(layer.weight.flatten(1)):
            shares = None
            for half in (filter.clamp(min=0), filter.clamp(max=0)):
                products = columns * half[:, None]
                z = products.sum(1, keepdim=True)
                share = products / torch.where(z.abs() <= 1.1920929e-07, math.inf, z)
                shares = share if shares is None else torch.maximum(shares, share)
            reduced = shares.mean(2) if mean else shares.amax(2)  # type: ignore[union-attr]
            found[i] = torch.maximum(found[i], reduced.amax(0))
    return found.view_as(layer.weight)


def ispasp_block(chunks: Callable[[], Iterator[Tensor]], reader: nn.Module, s: int, iterations: int = 20) -> Tensor:
    """Wolfe and Kyrillidis 2022: every iteration runs forward and backward through the layers behind the hidden maps."""
    maps = [*chunks()]
    with torch.no_grad():
        sizes = sum(x.sum((0, 2, 3)) for x in maps)
        targets = [reader(x) for x in maps]
    keep = torch.zeros(maps[0].shape[1], dtype=torch.bool)
    for _ in range(iterations):
        y = torch.zeros(len(keep))
        for x, target in zip(maps, targets, strict=True):
            leaf = (x * keep[None, :, None, None]).requires_grad_(True)
            (0.5 * (target - reader(leaf)).square().sum()).backward()
            y -= leaf.grad.sum((0, 2, 3))  # type: ignore[union-attr]
        merged = keep.clone()
        merged[y.topk(min(2 * s, len(y))).indices] = True
        keep = torch.zeros_like(keep)
        keep[torch.where(merged, sizes, -torch.inf).topk(s).indices] = True  # type: ignore[arg-type]
    return keep.nonzero().flatten()


class PyHessian:
    """Yao et al. 2020: a fresh graph for each batch and product, lists of tensors, a list of Lanczos vectors."""

    def __init__(self, model: nn.Module, batches: Batches):
        self.model, self.batches, self.parameters = model, batches, list(model.parameters())

    def product(self, v: list[Tensor]) -> list[Tensor]:
        total, count = [torch.zeros_like(p) for p in self.parameters], 0
        for x, y in self.batches:
            gradients = torch.autograd.grad(F.cross_entropy(self.model(x), y), self.parameters, create_graph=True)
            found = torch.autograd.grad(gradients, self.parameters, v, only_inputs=True, retain_graph=False)
            total = [a + b * len(x) for a, b in zip(total, found, strict=True)]
            count += len(x)
        return [t / count for t in total]

    def lanczos(self, steps: int) -> tuple[Tensor, Tensor]:
        def inner(a: list[Tensor], b: list[Tensor]) -> float:
            return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))

        def normalised(a: list[Tensor]) -> list[Tensor]:
            return [x / (inner(a, a) ** 0.5 + 1e-6) for x in a]

        generator = torch.Generator().manual_seed(0)
        v = [torch.randint(2, p.shape, generator=generator) * 2.0 - 1 for p in self.parameters]
        vectors, alpha, beta = [normalised(v)], [], []
        for step in range(steps):
            w = self.product(vectors[-1])
            alpha.append(inner(w, vectors[-1]))
            w = [x - alpha[-1] * y for x, y in zip(w, vectors[-1], strict=True)]
            if step:
                w = [x - beta[-1] * z for x, z in zip(w, vectors[-2], strict=True)]
            beta.append(inner(w, w) ** 0.5)
            for old in vectors:
                overlap = inner(w, old)
                w = [x - overlap * y for x, y in zip(w, old, strict=True)]
            vectors.append(normalised(w))
        return torch.tensor(alpha), torch.tensor(beta[:-1])


def torch_global(layers: list[tuple[nn.Module, str]], amount: float) -> int:
    """One threshold of torch.nn.utils.prune; the masks are taken off again, so that it can be timed again. Weights kept."""
    torch_prune.global_unstructured(layers, torch_prune.L1Unstructured, amount=amount)
    kept = 0
    for module, name in layers:
        kept += int(torch.count_nonzero(module.get_buffer(f"{name}_mask")))
        original = module._parameters.pop(f"{name}_orig")
        del module._buffers[f"{name}_mask"], module.__dict__[name]
        module._forward_pre_hooks.clear()
        module.register_parameter(name, original)
    return kept
