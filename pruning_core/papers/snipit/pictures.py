"""Pictures and histograms that SNIP-it's code sends to TensorBoard beside its numbers (verdenius2020snipit, as implemented)."""

from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Whole, checked
from pruning_core.errors import BadInput
from pruning_core.experiments.observers import watched_weights
from pruning_core.methods.shared.elasticities import loss_gradients, weight_elasticities
from pruning_core.models.calls import logits, tried
from pruning_core.models.modes import evaluating
from pruning_core.papers.snipit.counts import saliency_picture
from pruning_core.training.losses import Loss

BRIGHTEST = 6.0
"""A weight of this magnitude is as bright as can be."""

MOST_EDGES = 20_000
"""So many connections, the largest, are drawn of a network; the official code draws them all, which takes it minutes."""

LOWEST = 1e-11
"""Elasticities below this lie on the lower edge of their curve."""


@checked
def weight_picture(weight: Tensor) -> Tensor:
    """Red where a weight is negative, green where it is positive, both by its magnitude; blue where it is exactly zero.

    Returns (3, rows, columns) in [0, 1]. A convolution has as many rows as the longest side of its tensor, as there.

    >>> weight_picture(torch.tensor([[-3.0, 0.0, 12.0]])).tolist()
    [[[0.5, 0.0, 0.0]], [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]]
    """
    if weight.dim() < 2 or not weight.numel():
        raise BadInput("a picture is drawn of a weight with two dimensions or more, and with entries.")
    shown = weight.detach().float().reshape(weight.shape[0] if weight.dim() == 2 else max(weight.shape), -1)
    bright = shown / BRIGHTEST
    return torch.stack([(-bright).clamp(0, 1) + 0, bright.clamp(0, 1), (shown == 0).float()]).cpu()


@checked(classes=Whole(at_least=1))
def confusion_picture(model: nn.Module, inputs: Tensor, labels: Tensor, classes: int) -> Tensor:
    """One less the images of a class (rows) that are taken for another (columns), over those of a class on average.

    Returns (1, classes, classes) in [0, 1], dark where images are, in evaluation mode; nothing of the network is changed.

    >>> first = nn.Linear(2, 2, bias=False)
    >>> _ = first.weight.data.copy_(torch.eye(2))
    >>> confusion_picture(first, torch.eye(2), torch.tensor([0, 1]), 2).tolist()
    [[[0.0, 1.0], [1.0, 0.0]]]
    """
    place = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        found = logits(tried(model, inputs.to(place))).argmax(1).cpu()
    counts = torch.bincount(labels.cpu() * classes + found, minlength=classes**2).view(1, classes, classes)
    return (1 - counts / (len(labels) / classes)).clamp(0, 1)


@checked
def network_picture(model: nn.Module) -> Any:
    """Units of linear layers as points, a column a layer, and a line for each weight that is not zero: a matplotlib Figure.

    Convolutions are left out, as there. Of more than MOST_EDGES weights the largest are drawn. Raises BadInput for a network
    without linear layers.

    >>> len(network_picture(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))).axes[0].collections)
    2
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    weights = [m.weight.detach().float().cpu() for m in model.modules() if isinstance(m, nn.Linear)]
    if not weights:
        raise BadInput("a network is drawn by its linear layers, and this one has none.")
    columns = [weights[0].shape[1], *(len(weight) for weight in weights)]
    tallest = max(columns)
    heights = [torch.arange(n) * (tallest / n) for n in columns]
    sizes = torch.cat([weight[weight != 0].abs() for weight in weights])
    least = float(sizes.topk(min(MOST_EDGES, len(sizes))).values[-1]) if len(sizes) else 0.0
    lines = [
        ((i, float(heights[i][column])), (i + 1, float(heights[i + 1][row])))
        for i, weight in enumerate(weights)
        if weight.shape[1] == columns[i]  # the inputs of a layer behind something else are others
        for row, column in ((weight != 0) & (weight.abs() >= least)).nonzero().tolist()
    ]
    figure = Figure(figsize=(6.4, 4.8), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.add_collection(LineCollection(lines, linewidths=0.2, colors="black", alpha=0.5))
    across = [i for i, column in enumerate(heights) for _ in column]
    axes.scatter(across, torch.cat(heights).tolist(), s=max(0.5, 300 / tallest), color="tab:blue", zorder=2)
    return figure


@checked
def elasticity_picture(model: nn.Module, batches: list, loss: Loss) -> Any:
    """Sorted elasticities ``|w dL/dw / L|`` of the weights, as powers of ten: a matplotlib Figure.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> figure = elasticity_picture(network, list(digits.score.batches(64)), nn.functional.cross_entropy)
    >>> len(figure.axes[0].lines[0].get_ydata()) == sum(w.numel() for w in watched_weights(network).values())
    True
    """
    from matplotlib.figure import Figure

    gradients, value = loss_gradients(model, list(watched_weights(model)), batches, loss)
    every = torch.cat([e.flatten() for e in weight_elasticities(model, gradients, value).values()]).cpu()
    figure = Figure(figsize=(6.4, 4.8), dpi=100)
    axes = figure.add_subplot()
    axes.plot(every.clamp_min(LOWEST).log10().sort().values.numpy())
    axes.set(ylim=(-11, 0), xlabel="weight, by its elasticity", ylabel="power of ten of the elasticity")
    axes.grid(True)
    return figure


def official_histograms(model: nn.Module) -> dict[str, Tensor]:
    """Official tag -> values of a histogram: a hundred times every weight, and the share of each layer's that is not zero.

    >>> [len(values) for values in official_histograms(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))).values()]
    [8, 2]
    """
    weights = watched_weights(model)
    shares = [torch.count_nonzero(weight) / weight.numel() for weight in weights.values()]
    return {
        "weight/magnitude": 100 * torch.cat([weight.flatten() for weight in weights.values()]),
        "layer/sparsity": 100 * torch.stack(shares),  # its name there, though it is the percentage that is left
    }


def official_pictures(model: nn.Module, batches: list, classes: int, loss: Loss) -> dict[str, Any]:
    """Official tag -> picture: network/confusion, network/saliency (of images), network/visualisation (of linear layers),
    track/weight_saliency, and weight/<name> of every layer. ``batches``: (inputs, labels), the first of which is shown.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("mlp5_snip", "digits", seed=0, width=0.1)
    >>> found = official_pictures(network, list(digits.validation.batches(64)), 10, nn.functional.cross_entropy)
    >>> [tag for tag in found if not tag.startswith("weight/")]
    ['network/confusion', 'network/saliency', 'network/visualisation', 'track/weight_saliency']
    """
    inputs, labels = batches[0]
    found: dict[str, Any] = {"network/confusion": confusion_picture(model, inputs, labels, classes)}
    if inputs.dim() == 4:
        found["network/saliency"] = saliency_picture(model, inputs[:8])[None]
    if any(isinstance(module, nn.Linear) for module in model.modules()):
        found["network/visualisation"] = network_picture(model)
    found["track/weight_saliency"] = elasticity_picture(model, batches, loss)
    return found | {f"weight/{name}": weight_picture(weight) for name, weight in watched_weights(model).items()}
