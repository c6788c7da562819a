"""Small files in the forms of which no official one lies here, each computed from the formulas of the README alone.

What is written here uses nothing of the package: it is a second reading of the same rules, with other means.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Arrays = dict[str, np.ndarray]
LEAK, TRIM = 0.05, 1e-3


def random(seed: int) -> Callable[..., Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def arrays(**named: object) -> Arrays:
    return {name: np.asarray(value.detach() if isinstance(value, Tensor) else value) for name, value in named.items()}


def norm_state(draw, name: str, channels: int) -> dict[str, Tensor]:
    state = {"weight": draw(channels), "bias": draw(channels), "running_mean": draw(channels) / 4}
    state["running_var"] = draw(channels) ** 2 + 0.5
    return {f"{name}.{key}": value for key, value in state.items()}


def perceptron_state(draw, sizes: list[int], spacing: int = 4) -> dict[str, Tensor]:
    """Linear layers at 0, 4, 8, ..., batch norms behind all but the last."""
    state: dict[str, Tensor] = {}
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        state[f"layers.{spacing * i}.weight"] = draw(outputs, inputs) / math.sqrt(inputs)
        state[f"layers.{spacing * i}.bias"] = draw(outputs) / 4
        if i < len(sizes) - 2:
            state |= norm_state(draw, f"layers.{spacing * i + 1}", outputs)
    return state


def perceptron(state: dict[str, Tensor], x: Tensor, spacing: int = 4, gates=None) -> Tensor:
    """The network of such a state: in training mode, with gates behind the norms, where there are any."""
    x, last = x.flatten(1), max(int(name.split(".")[1]) for name in state)
    for i in range(0, last + 1, spacing):
        x = x @ state[f"layers.{i}.weight"].T + state[f"layers.{i}.bias"]
        if i == last:
            return x
        norm = f"layers.{i + 1}"
        own = [None, None] if gates else [state[f"{norm}.running_mean"], state[f"{norm}.running_var"]]
        x = F.batch_norm(x, *own, state[f"{norm}.weight"], state[f"{norm}.bias"], training=bool(gates))
        x = F.leaky_relu(gates[norm] * x if gates else x, LEAK)
    raise AssertionError("a network ends with a linear layer")


def base_snip() -> Arrays:
    """|mean gradient times weight| of cross-entropy, the largest of the whole network."""
    draw = random(1)
    weights = [draw(16, 10) / 3, draw(12, 16) / 3, draw(4, 12) / 3]
    biases = [draw(len(w)) / 4 for w in weights]
    x, y = draw(20, 10), torch.arange(20) % 4

    def network(ws: list[Tensor]) -> Tensor:
        hidden = x
        for i, (w, b) in enumerate(zip(ws, biases, strict=True)):
            hidden = hidden @ w.T + b
            hidden = hidden.relu() if i < 2 else hidden
        return hidden

    leaves = [w.clone().requires_grad_(True) for w in weights]
    found = torch.autograd.grad(F.cross_entropy(network(leaves), y), leaves)
    scores = [(w * g).abs() for w, g in zip(weights, found, strict=True)]
    ratios, total = [0.8, 0.4, 0.2], sum(w.numel() for w in weights) + sum(len(b) for b in biases)
    compressible = sum(w.numel() for w in weights)
    z = arrays(x=x, y=y, keep_ratios=ratios, size_total=total, size_compressible=compressible)
    for i, (w, b, s) in enumerate(zip(weights, biases, scores, strict=True)):
        z |= arrays(**{f"w{i}": w, f"b{i}": b, f"sensitivity{i}": s})
    pool = torch.cat([s.flatten() for s in scores])
    for k, ratio in enumerate(ratios):
        kappa = min(int((ratio - 1) * total + compressible), compressible) / compressible
        cut = pool.sort(descending=True).values[int(kappa * total) - 1]
        masks = [s >= cut for s in scores]
        masks = [m & (s > 0) for m, s in zip(masks, scores, strict=True)]
        left = [int(m.sum()) for m in masks]
        pruned = [w * m for w, m in zip(weights, masks, strict=True)]
        z |= arrays(**{
            f"nnz_per_layer_{k}": left, f"size_after_{k}": sum(left) + total - compressible,
            f"flops_after_{k}": sum(left), f"logits_{k}": network(pruned),
        })  # fmt: skip
        for i, (m, w) in enumerate(zip(masks, weights, strict=True)):
            halves = torch.stack([(m & (w * sign > 0)).sum(1) for sign in (1, -1)])
            z |= arrays(**{f"mask{i}_{k}": m, f"alloc{i}_{k}": halves.int()})
    return z


def group_hs() -> Arrays:
    """A perceptron in which whole rows are small: they go, and the columns that read them."""
    draw = random(2)
    sizes = [16, 9, 8, 7, 3]
    state = perceptron_state(draw, sizes)
    keep = [torch.arange(n) % 3 != 1 for n in sizes[1:-1]] + [torch.ones(3, dtype=torch.bool)]
    x, y = draw(6, 1, 4, 4), torch.arange(6) % 3
    pruned, before = {}, torch.ones(16, dtype=torch.bool)
    for i, mask in enumerate(keep):
        weight = state[f"layers.{4 * i}.weight"]
        weight[~mask] *= 1e-4
        weight[mask, 0] += 0.5  # one weight far above the threshold is enough
        pruned[f"layers.{4 * i}.weight"] = weight[mask][:, before]
        pruned[f"layers.{4 * i}.bias"] = state[f"layers.{4 * i}.bias"][mask]
        for part in ("weight", "bias", "running_mean", "running_var"):
            if (name := f"layers.{4 * i + 1}.{part}") in state:
                pruned[name] = state[name][mask]
        before = mask
    weights = [sum(t.numel() for n, t in each.items() if n.endswith("weight")) for each in (state, pruned)]
    nodes = [sum(sizes[1:-1]), sum(int(m.sum()) for m in keep[:-1])]
    widths = [pruned[f"layers.{4 * i}.weight"].shape for i in range(len(keep))]
    z = arrays(
        x=x, y=y, out_widths=[w[0] for w in widths], in_widths=[w[1] for w in widths],
        logits_after=perceptron(pruned, x), pruned_percentage=1 - weights[1] / weights[0],
        structural_sparsity=1 - nodes[1] / nodes[0],
    )  # fmt: skip
    return z | arrays(**{f"init/{n}": t for n, t in state.items()}, **{f"pruned/{n}": t for n, t in pruned.items()})


def l0_conv() -> Arrays:
    """A convolution of 3x3, padding 1, behind whose outputs hard concrete gates sit."""
    draw = random(3)
    lamda, precision, t, a, b = 0.7, 0.3, 2 / 3, -0.1, 1.1
    w, loga, bias = (p.requires_grad_(True) for p in (draw(5, 3, 3, 3), 2 * draw(5), draw(5)))
    x, eps = draw(4, 3, 6, 7), torch.sigmoid(draw(5))

    def clipped(s: Tensor) -> Tensor:
        return (s * (b - a) + a).clamp(0, 1)

    gates = clipped(torch.sigmoid(((eps / (1 - eps)).log() + loga) / t))
    q = torch.sigmoid(t * math.log(-a / b) - loga)
    reg = ((1 - q) * (-0.5 * precision * w**2 - lamda).sum((1, 2, 3))).sum()
    reg = reg - ((1 - q) * (0.5 * precision * bias**2 - lamda)).sum()
    slopes = torch.autograd.grad(reg, (w, loga, bias))
    places = (3 - 3 + 2 + 1) * (6 - 3 + 2 + 1)  # "height and width" are the channels and the height of x
    sampled, shut = gates.view(-1, 1, 1, 1) * w, clipped(torch.sigmoid(loga)).view(1, -1, 1, 1)
    return arrays(
        x=x, eps=eps, lamba=lamda, prior_prec=precision, temperature=t, limit_a=a, limit_b=b,
        train_output=F.conv2d(x, sampled, padding=1), eval_output=F.conv2d(x, w, bias, padding=1) * shut,
        sampled_weights=sampled, eval_gate=shut, cdf_at_0=q, reg=reg,
        expected_flops=places * (2 * 27 - 1 + 1) * (1 - q).sum(), expected_l0=28 * (1 - q).sum(),
        **{f"param/{n}": p for n, p in (("weights", w), ("qz_loga", loga), ("bias", bias))},
        **{f"reg_grad/{n}": g for n, g in zip(("weights", "qz_loga", "bias"), slopes, strict=True)},
    )  # fmt: skip


def gate_decorators() -> Arrays:
    """One event of Gate Decorators on a perceptron: |gate dL/dgate| over five batches in training mode."""
    draw = random(4)
    sizes = [16, 9, 8, 7, 3]
    state = perceptron_state(draw, sizes)
    norms = [f"layers.{4 * i + 1}" for i in range(3)]
    gates = {norm: draw(n).requires_grad_(True) for norm, n in zip(norms, sizes[1:], strict=False)}
    x, y = draw(5, 12, 1, 4, 4), torch.arange(60).view(5, 12) % 3
    for inputs, labels in zip(x, y, strict=True):
        (F.nll_loss(perceptron(state, inputs, gates=gates), labels) / 5).backward()
    scores = [(gate * gate.grad).abs().detach() for gate in gates.values()]
    vectors = [torch.zeros(16), *(s for score in scores for s in (score, score)), torch.zeros(3)]
    total = torch.cat(vectors).sum()
    steps = [n / 100 for n in range(1, 46, 5)] + [0.46]
    share = 0.46 / (1 + 1e-8)
    pool = torch.cat(vectors[1:-1]).sort(descending=True).values
    keep = [s >= pool[int(len(pool) * (1 - share)) - 1] for s in scores]
    kept = [int(m.sum()) for m in keep]
    assert all(kept)
    z = arrays(
        x=x, y=y, all_scores_normalised=torch.cat(vectors) / total, norm_factor=total, steps=steps, percentage=share,
        out_widths=[*kept, 3], in_widths=[16, *kept], structural_sparsity=1 - sum(kept) / sum(sizes[1:-1]),
    )  # fmt: skip
    for j, vector in enumerate(vectors):
        z |= arrays(**{f"vector{j}/name": f"layers.{4 * (j // 2)}.weight", f"vector{j}/score": vector})
    for name, tensor in state.items():
        layer, _, kind = name.rpartition(".")
        z[f"init/{layer}.bn.{kind}" if layer in gates else f"init/{name}"] = tensor.numpy()
    return z | {f"init/{norm}.gate": gate.detach().numpy() for norm, gate in gates.items()}


def statistics() -> Arrays:
    """Counts of a perceptron with exact zeros, and the picture of saliency of another one."""
    draw = random(5)
    masked = perceptron_state(draw, [25, 300, 100, 4], spacing=3)
    for tensor in masked.values():
        if tensor.dim() == 2:
            tensor[draw(*tensor.shape) < 0.5] = 0
    weights = [t for n, t in masked.items() if n.endswith("weight")]
    total, zeros = sum(w.numel() for w in weights), sum(int((w == 0).sum()) for w in weights)
    bits = sum(34 * int((w != 0).sum()) + 2 * (min(len(w), w[0].numel()) + 1) for w in weights)
    sparsity, accuracy = zeros / (total + 1e-6), 0.625
    state = perceptron_state(draw, [16, 8, 8, 8, 8, 3])
    x = draw(8, 1, 4, 4).requires_grad_(True)
    (slopes,) = torch.autograd.grad(perceptron(state, x).amax(1).sum(), x)
    picture = torch.zeros(16, 16, dtype=torch.float64)
    for i in range(8):
        for j, part in enumerate((slopes, x.detach())):
            shown = ((part - part.mean()) / part.std() * 0.1 + 0.5).clamp(0, 1)
            row, column = 4 * (i % 4), 8 * (i // 4) + 4 * j
            picture[row : row + 4, column : column + 4] = shown[i, 0]
    return arrays(
        pruned_percentage=sparsity, pruned_percentage_of_prunable=zeros / (total + 1e-6), structural_sparsity=0.0,
        weight_count=total, number_of_pruned_weights=zeros, compressed_size_bits=bits, log_disk_size=math.log(bits),
        test_acc=accuracy, hm=2 * sparsity * accuracy / (sparsity + accuracy + 1e-8),
        **{f"masked/{n}": t for n, t in masked.items()}, **{f"sal/init/{n}": t for n, t in state.items()},
        **{"sal/x": x, "sal/input_gradient": slopes, "sal/image": picture[None]},
    )  # fmt: skip


def mobilenetv2_cost() -> Arrays:
    """Hidden widths of inverted residuals scaled by one ratio, counted by hand: two 1x1 layers, a 3x3 one, two norms."""
    blocks = {
        6: (32, 192, 28, 32),
        9: (64, 384, 14, 64),
        12: (96, 576, 14, 96),
    }  # features: (inputs, hidden, side, outputs)
    ratios, whole = [0.3, 0.5], 3_504_872
    macs = 300_774_272 + 2 * 6_678_112  # convolutions and the linear layer, and two a value of every batch norm
    params, flops = [], []
    for ratio in ratios:
        gone = {k: hidden - int(hidden * ratio) for k, (_, hidden, _, _) in blocks.items()}
        params.append(whole - sum(n * (blocks[k][0] + 9 + blocks[k][3] + 4) for k, n in gone.items()))
        each = {k: s * s * (i + 9 + o + 4) for k, (i, _, s, o) in blocks.items()}
        flops.append(macs - sum(n * each[k] for k, n in gone.items()))
    return arrays(ratio=ratios, blocks=list(blocks), params=params, flops=flops)


FORMS: dict[tuple[str, str], Callable[[], Arrays]] = {
    ("ispasp", "mobilenetv2_cost"): mobilenetv2_cost,
    ("sipp_pfp", "base_snip"): base_snip,
    ("snipit", "group_hs"): group_hs,
    ("snipit", "l0_conv"): l0_conv,
    ("snipit", "gate_decorators"): gate_decorators,
    ("snipit", "statistics"): statistics,
}
