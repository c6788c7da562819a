"""The protocol by which a layer owns its quirks.

Any module may carry

- ``learning_rate_scale``: a factor on the learning rate of its own parameters,
- ``decays = False``: no weight decay on its own parameters,
- ``project_()``: called after every optimizer step, to clamp what must stay in bounds,
- ``to_plain()``: returns the ordinary layer with the same outputs in evaluation mode.

Training honours the first three; :func:`to_plain` uses the last before a network is shrunk, saved or exported.
"""

from __future__ import annotations

from torch import nn

from pruning_core.checks import checked


@checked
def project_(model: nn.Module) -> None:
    """Call ``project_()`` of every module that has one (after each optimizer step).

    >>> from pruning_core.models.layers import ClampedBatchNorm1d
    >>> network = nn.Sequential(ClampedBatchNorm1d(2))
    >>> network[0].weight.data.fill_(-1.0)
    tensor([-1., -1.])
    >>> project_(network)
    >>> network[0].weight.data
    tensor([0., 0.])
    """
    for module in model.modules():
        project = getattr(module, "project_", None)
        if module is not model and project is not None:
            project()


@checked
def to_plain(model: nn.Module) -> nn.Module:
    """Replace every layer that has ``to_plain()`` by the ordinary layer it returns, in place; returns the network.

    >>> from pruning_core.models.layers import SigmoidBatchNorm1d
    >>> to_plain(nn.Sequential(SigmoidBatchNorm1d(2)))
    Sequential(
      (0): BatchNorm1d(2, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    )
    """
    own = getattr(model, "to_plain", None)
    if own is not None:
        return own()
    for name, child in model.named_children():
        setattr(model, name, to_plain(child))
    return model
