"""Weights that torchvision publishes for its networks."""

from collections.abc import Sequence

import torch
from torch import nn

from pruning_core.errors import BadInput, known_name


def check_published(name: str, weights: str) -> None:
    """Raise BadInput or UnknownName unless torchvision has weights of this name for the network ``name``."""
    from torchvision import models

    if not name.startswith("torchvision/"):
        raise BadInput(f"published weights exist for torchvision's networks ('torchvision/<name>'), not for {name!r}.")
    short = name.removeprefix("torchvision/")
    known_name("model", short, models.list_models(module=models))
    known_name(f"weights of {name}", weights, models.get_model_weights(short).__members__)


def load_published(model: nn.Module, name: str, weights: str, classes: Sequence[int] | None = None) -> None:
    """Overwrite the parameters and buffers of ``model``, a network "torchvision/<name>", by its published ones.

    Downloads them on first use, by torchvision, which checks the hash. ``classes`` picks outputs of the classifier for data
    that hold some of ImageNet's classes only. Raises BadInput where shapes differ (for another number of classes).
    """
    from torchvision import models

    check_published(name, weights)
    entry = models.get_model_weights(name.removeprefix("torchvision/"))[weights]
    values = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    own = model.state_dict()
    if classes is not None:
        rows = torch.tensor(list(classes))
        last = [key for key in values if key.rpartition(".")[0] == list(values)[-1].rpartition(".")[0]]
        if len(rows) == 0 or int(rows.min()) < 0 or int(rows.max()) >= len(values[last[0]]):
            raise BadInput(f"the published network has classes 0 to {len(values[last[0]]) - 1}, not {list(classes)}.")
        values = dict(values) | {key: values[key][rows] for key in last}
    for key, value in values.items():
        if key in own and own[key].shape != value.shape:
            raise BadInput(
                f"{key!r} of the published weights has shape {tuple(value.shape)}, that of the network "
                f"{tuple(own[key].shape)}; published weights are for 1,000 classes."
            )
    model.load_state_dict(values)
