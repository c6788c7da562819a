"""Files of the known kinds as others might make them: other sizes, seeds, settings, types, and fields that may be missing.

Like forms.py this uses nothing of the package: each number is computed from the rules of the README with other means.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.golden.forms import LEAK, Arrays, arrays, norm_state, random


def sigmoid_norm_with_cumulative_average() -> Arrays:
    """Momentum -1 stands for None: running statistics are plain averages. In single precision."""
    draw = random(11)
    gamma, xs, upstream, x_eval = (
        t.float() for t in (2 * draw(7), draw(4, 5, 7, 3, 2), draw(4, 5, 7, 3, 2), draw(3, 7, 3, 2))
    )
    means, variances, found = (
        [],
        [],
        {name: [] for name in ("y_train", "grad_gamma", "grad_x", "running_mean", "running_var")},
    )
    for x, up in zip(xs, upstream, strict=True):
        g, x = gamma.clone().requires_grad_(True), x.clone().requires_grad_(True)
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        scaled = (x - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + 1e-3).sqrt()
        y = torch.sigmoid(g).view(1, -1, 1, 1) * scaled
        slopes = torch.autograd.grad((y * up).sum(), (g, x))
        means.append(mean.detach())
        variances.append(x.detach().var((0, 2, 3), unbiased=True))
        values = (y.detach(), *slopes, torch.stack(means).mean(0), torch.stack(variances).mean(0))
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    mean, variance = (found[name][-1].view(1, -1, 1, 1) for name in ("running_mean", "running_var"))
    y_eval = torch.sigmoid(gamma).view(1, -1, 1, 1) * (x_eval - mean) / (variance + 1e-3).sqrt()
    return arrays(
        gamma=gamma, x_train=xs, upstream=upstream, x_eval=x_eval, y_eval=y_eval, momentum=-1.0, eps=1e-3, has_bias=0,
        num_batches_tracked=len(xs), **{name: torch.stack(values) for name, values in found.items()},
    )  # fmt: skip


def masks_of_one_scope() -> Arrays:
    """Sigmoid scores by quantiles of each layer alone; another minimum, under which one layer falls."""
    draw, sizes, least = random(12), [9, 30, 5, 64], 4
    gamma = (2 * draw(sum(sizes))).numpy()
    scores = 1 / (1 + np.exp(-gamma))
    z = {"percentages": [0.25, 0.5, 0.97], "mask_local": [], "quantile_local": [], "kept_local": []}
    for share in z["percentages"]:
        keep, thresholds = [], []
        for part in np.split(scores, np.cumsum(sizes)[:-1]):
            threshold = np.quantile(part, share)
            thresholds.append(threshold)
            if (part >= threshold).sum() < least:
                threshold = np.sort(part)[-least - 1]
            keep.append(part > threshold)
        z["mask_local"].append(np.concatenate(keep).astype(np.uint8))
        z["kept_local"].append([int(mask.sum()) for mask in keep])
        z["quantile_local"].append(thresholds)
    return arrays(gamma=gamma, sizes=sizes, min_filters=least, sigmoid_scores=1, **z)


def penalties_of_other_shifts() -> Arrays:
    """R(s) = s (1 - ln s) of s = sigmoid(g + b), and its slope, -ln s times s (1 - s)."""
    draw, sizes = random(13), [2, 11, 1, 4]
    gamma, model, shifts, strengths = (5 * draw(50)).numpy(), draw(sum(sizes)).numpy(), [-2.0, 0.5], [1e-2, 3e-4, 1e-3]

    def penalty(g: np.ndarray, b: float) -> np.ndarray:
        s = 1 / (1 + np.exp(-(g + b)))
        return s * (1 - np.log(s))

    def slope(g: np.ndarray, b: float) -> np.ndarray:
        s = 1 / (1 + np.exp(-(g + b)))
        return -np.log(s) * s * (1 - s)

    of_pairs = [0.0, 1.5, 3.0]
    return arrays(
        gamma=gamma, b=shifts, loss_elem=[penalty(gamma, b) for b in shifts], grad=[slope(gamma, b) for b in shifts],
        loss_sum=[penalty(gamma, b).sum() for b in shifts], model_gamma=model, model_sizes=sizes, reg_b=of_pairs,
        reg_weight=strengths, none_for_ucs=1, none_for_zero=1, l1_grad_first=strengths[0] * np.sign(model),
        reg_rni=[s * penalty(model, b).sum() for s, b in zip(strengths, of_pairs, strict=True)],
        reg_l1=[s * np.abs(model).sum() for s in strengths],
    )  # fmt: skip


def shortcuts_without_parameters() -> Arrays:
    """Every other row and column, and channels of zeros on both sides, the odd one at the end; also with stride 1."""
    specs = [(3, 8, 2, 7), (4, 9, 1, 3), (6, 6, 1, 5), (2, 5, 3, 8)]
    z: Arrays = arrays(specs=specs)
    for i, (inputs, outputs, stride, side) in enumerate(specs):
        x = random(20 + i)(3, inputs, side, side)
        before = (outputs - inputs) // 2
        y = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, outputs - inputs - before))
        z |= arrays(**{f"x{i}": x, f"y{i}": y})
    return z


def one_iteration_of_ispasp() -> Arrays:
    return ispasp(seed=14, ratio=0.13, iterations=1, shape=(9, 6, 31, 4))


def many_iterations_of_ispasp() -> Arrays:
    return ispasp(seed=15, ratio=0.3, iterations=12, shape=(50, 20, 40, 3))


def ispasp(seed: int, ratio: float, iterations: int, shape: tuple[int, int, int, int]) -> Arrays:
    """Propose 2 s by the summed gradient of half the squared residual, join, keep the s with the largest sums."""
    draw, (n, inputs, hidden, outputs) = random(seed), shape
    x, w0, w1 = (t.numpy() for t in (draw(n, inputs), draw(hidden, inputs), draw(outputs, hidden)))
    values = np.maximum(x @ w0.T, 0)
    h, whole, s = values.sum(0), values @ w1.T, int(hidden * ratio)
    chosen: list[int] = []
    importance, support, residual = [], [], [0.5 * (whole**2).sum()]
    for _ in range(iterations):
        y = (whole - values[:, chosen] @ w1[:, chosen].T).sum(0) @ w1
        proposed = sorted({*np.argsort(-y, kind="stable")[: 2 * s].tolist(), *chosen})
        chosen = sorted(sorted(proposed, key=lambda i: -h[i])[:s])
        importance.append(y)
        support.append(chosen)
        residual.append(0.5 * ((whole - values[:, chosen] @ w1[:, chosen].T) ** 2).sum())
    return arrays(
        X=x,
        W0=w0,
        W1=w1,
        ratio=ratio,
        T=iterations,
        s=s,
        h=h,
        importance=importance,
        support=support,
        residual=residual,
    )


def smoothed_labels() -> Arrays:
    draw = random(16)
    logits, targets, epsilon = 3 * draw(23, 4), torch.arange(23) % 4, 0.25
    logs = logits - logits.exp().sum(1, keepdim=True).log()
    wanted = (1 - epsilon) * F.one_hot(targets, 4) + epsilon / 4
    top1 = 100 * float((logits.argmax(1) == targets).double().mean())
    return arrays(logits=logits, targets=targets, epsilon=epsilon, loss=-(wanted * logs).sum() / 23, top1=top1)


def magnitudes_of_convolutions_without_biases() -> Arrays:
    """Two colours, no biases, the last keep ratio so small that nothing stays of the smallest layer."""
    draw = random(17)
    weights = [draw(5, 2, 3, 3) / 4, draw(6, 5, 3, 3) / 6, draw(9, 6, 4, 4) / 9, draw(3, 9) / 3]
    x = draw(4, 2, 8, 8)

    def network(ws: list[Tensor]) -> Tensor:
        hidden = F.relu(F.conv2d(x, ws[0], padding=1))
        hidden = F.relu(F.conv2d(hidden, ws[1], stride=2, padding=1))
        return F.relu(F.conv2d(hidden, ws[2])).flatten(1) @ ws[3].T

    total, ratios, positions = sum(w.numel() for w in weights), [0.7, 0.33, 0.04], [64, 16, 1, 1]
    z = arrays(x=x, y=torch.arange(4) % 3, keep_ratios=ratios, size_total=total, size_compressible=total)
    z |= arrays(**{f"w{i}": w for i, w in enumerate(weights)})
    pool = torch.cat([w.abs().flatten() for w in weights]).sort(descending=True).values
    for k, ratio in enumerate(ratios):
        kept = int(int((ratio - 1) * total + total) / total * total)
        masks = [w.abs() >= pool[kept - 1] for w in weights]
        left = [int(mask.sum()) for mask in masks]
        z |= arrays(**{
            f"nnz_per_layer_{k}": left, f"size_after_{k}": sum(left),
            f"flops_after_{k}": sum(n * places for n, places in zip(left, positions, strict=True)),
            f"logits_{k}": network([w * mask for w, mask in zip(weights, masks, strict=True)]),
            **{f"mask{i}_{k}": mask for i, mask in enumerate(masks)},
            **{f"alloc{i}_{k}": mask.flatten(1).sum(1) for i, mask in enumerate(masks)},
        })  # fmt: skip
    return z


def cuts_of_linear_layers() -> Arrays:
    """Layers without biases, removed to the last weight but few."""
    draw = random(18)
    state = {"linear.0.weight": draw(8, 5), "linear.2.weight": draw(6, 8), "linear.4.weight": draw(2, 6)}
    flat = torch.cat([w.flatten() for w in state.values()])
    order, rates = flat.abs().sort().values, [0.0, 0.123, 0.5, 0.9, 0.999]
    thresholds = [float(order[max(math.ceil(rate * len(flat)), 1) - 1]) for rate in rates]
    keep = torch.stack([flat.abs() > threshold for threshold in thresholds])
    norms = torch.stack([w.norm() for w in state.values()])
    return arrays(
        **{f"sd__{name}": w for name, w in state.items()}, layer_order=[name.removesuffix(".weight") for name in state],
        rates=rates, threshold=thresholds, n_kept=keep.sum(1), keep_mask=keep, n_params=len(flat),
        l2_distance=[float(flat[~mask].norm()) for mask in keep], pruned_flat=flat * keep, param_order=[*state],
        sum_of_tensor_l2_norms=norms.sum(), global_l2_norm=flat.norm(), max_weight=flat.max(),
    )  # fmt: skip


def training_of_a_padded_convolution() -> Arrays:
    """Convolution 3x3 with padding 1, ReLU, max-pool, linear: SGD with momentum, the penalty on all parameters, no warm-up,
    and a rate that falls at the fifth iteration, which the official scheduler takes for the fifth epoch."""
    draw, epochs, steps, momentum, strength = random(19), 2, 3, 0.8, 2e-3
    rates = [0.05] * 4 + [0.01] * 2
    x, y = draw(11, 2, 6, 6), torch.arange(11) % 3
    state = {"conv.0.weight": draw(4, 2, 3, 3) / 4, "conv.0.bias": draw(4) / 4}
    state |= {"linear.0.weight": draw(3, 36) / 6, "linear.0.bias": draw(3) / 4}
    first = {name: value.clone() for name, value in state.items()}
    speed = {name: torch.zeros_like(value) for name, value in state.items()}
    for epoch in range(epochs):
        for step, (inputs, labels) in enumerate(zip(x.split(4), y.split(4), strict=True)):
            leaves = {name: value.clone().requires_grad_(True) for name, value in state.items()}
            maps = F.relu(F.conv2d(inputs, leaves["conv.0.weight"], leaves["conv.0.bias"], padding=1))
            logits = F.linear(F.max_pool2d(maps, 2).flatten(1), leaves["linear.0.weight"], leaves["linear.0.bias"])
            loss = F.cross_entropy(logits, labels) + strength * sum(value.abs().sum() for value in leaves.values())
            for name, slope in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
                speed[name] = momentum * speed[name] + slope
                state[name] = state[name] - rates[steps * epoch + step] * speed[name]
    return arrays(
        X=x, y=y, batch_size=4, iters_per_epoch=steps, epochs=epochs, warm_epochs=0, schedule="multistep",
        milestones=[4], gamma=0.2, lr=rates[0], momentum=momentum, lmbda=strength, lr_per_iteration=rates,
        reg_l1_at_init=strength * sum(value.abs().sum() for value in first.values()),
        reg_l2_at_init=strength * sum(value.square().sum() for value in first.values()), param_order=[*first],
        **{f"init__{name}": value for name, value in first.items()},
        **{f"final__{name}": value for name, value in state.items()},
    )  # fmt: skip


def snip_of_inner_layers() -> Arrays:
    """A convolutional network whose first and last layer are spared; seven batches, of which five are looked at."""
    draw = random(21)
    state = {"conv.0.weight": draw(3, 2, 3, 3) / 4, "conv.0.bias": draw(3) / 4} | norm_state(draw, "conv.1", 3)
    state |= {"conv.4.weight": draw(4, 3, 3, 3) / 5, "conv.4.bias": draw(4) / 4} | norm_state(draw, "conv.5", 4)
    state |= {"fc.0.weight": draw(8, 16) / 4, "fc.0.bias": draw(8) / 4} | norm_state(draw, "fc.1", 8)
    state |= {"fc.3.weight": draw(3, 8) / 3, "fc.3.bias": draw(3) / 4}
    x, y, share = draw(7, 6, 2, 8, 8), torch.arange(42).view(7, 6) % 3, 0.7
    leaves = {name: value.clone().requires_grad_(name.endswith("weight")) for name, value in state.items()}

    def norm(hidden: Tensor, name: str) -> Tensor:
        own = [leaves[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.leaky_relu(F.batch_norm(hidden, *own), LEAK)

    def network(images: Tensor) -> Tensor:
        hidden = norm(F.conv2d(images, leaves["conv.0.weight"], leaves["conv.0.bias"], padding=1), "conv.1")
        hidden = F.conv2d(F.max_pool2d(hidden, 2), leaves["conv.4.weight"], leaves["conv.4.bias"], padding=1)
        hidden = F.adaptive_avg_pool2d(norm(hidden, "conv.5"), 2).flatten(1)
        hidden = norm(F.linear(hidden, leaves["fc.0.weight"], leaves["fc.0.bias"]), "fc.1")
        return F.linear(hidden, leaves["fc.3.weight"], leaves["fc.3.bias"])

    loss = sum(F.nll_loss(network(images), labels) for images, labels in zip(x[:5], y[:5], strict=True)) / 5
    names = ["conv.4.weight", "fc.0.weight"]
    slopes = torch.autograd.grad(loss, [leaves[name] for name in names])
    scores = {n: (state[n] * g / (loss.detach() + 1e-8)).abs() for n, g in zip(names, slopes, strict=True)}
    pool = torch.cat([score.flatten() for score in scores.values()]).sort(descending=True).values
    kept = int(len(pool) * (1 - share))
    masks = {name: score > pool[kept - 1] for name, score in scores.items()}
    gone = sum(int((~mask).sum()) for mask in masks.values())
    weights = sum(value.numel() for name, value in state.items() if name.endswith("weight"))
    spared = state["conv.0.weight"].numel() + state["fc.3.weight"].numel()  # which the official count takes off
    return arrays(
        x=x, y=y, sparsity=share, loss_sum=loss, num_scores=len(pool), num_to_keep=kept, threshold=pool[kept - 1],
        pruned_percentage=gone / weights, pruned_percentage_of_prunable=gone / (weights - spared + 1e-6),
        **{f"init/{name}": value for name, value in state.items()}, **{f"scores/{n}": s for n, s in scores.items()},
        **{f"mask/{name}": mask.to(torch.int8) for name, mask in masks.items()},
    )  # fmt: skip


VARIATIONS: dict[tuple[str, str], Callable[[], Arrays]] = {
    ("rni", "sigbn_forward_cumulative_float32"): sigmoid_norm_with_cumulative_average,
    ("rni", "03_masks_local_only"): masks_of_one_scope,
    ("rni", "penalties_other_shifts"): penalties_of_other_shifts,
    ("rni", "pad_channels_more"): shortcuts_without_parameters,
    ("ispasp", "two_layer_one_iteration"): one_iteration_of_ispasp,
    ("ispasp", "two_layer_many_iterations"): many_iterations_of_ispasp,
    ("ispasp", "label_smooth_quarter"): smoothed_labels,
    ("sipp_pfp", "base_wt_cnn_without_biases"): magnitudes_of_convolutions_without_biases,
    ("how_sparse", "mask_linear_only"): cuts_of_linear_layers,
    ("how_sparse", "l1_training_padded"): training_of_a_padded_convolution,
    ("snipit", "02_snip_conv_p70_inner"): snip_of_inner_layers,
}
"""(paper, name of a file) -> its content."""
