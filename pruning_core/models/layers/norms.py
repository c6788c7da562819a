"""Batch norms whose scale is an importance: sigmoid (Suteu and Guo 2022) and clamped (Zhuang et al. 2020)."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.checks import Maybe, Real, check, checked
from pruning_core.errors import BadInput, BadType

MOMENTUM = Real(at_least=0, at_most=1)
"""Weight of a batch in running statistics; None stands for the plain average over all batches."""


OFFICIAL = "SigBatchNorm2d"
"""RNI's own class: an ordinary batch norm by type, without a shift, which takes the sigmoid of its scale."""


def is_official(norm: Any) -> bool:
    """Whether this is a sigmoid batch norm of the code of RNI, of whichever copy of its class."""
    return isinstance(norm, nn.BatchNorm2d) and type(norm).__name__ == OFFICIAL and norm.bias is None


class _SigmoidNorm(nn.modules.batchnorm._BatchNorm):
    """What the sigmoid batch norms share; the classes below say which inputs they take and what they become."""

    plain: ClassVar[type[nn.BatchNorm1d] | type[nn.BatchNorm2d]]

    learning_rate_scale = 10.0  # sigmoid' <= 1/4 damps every gradient on g
    decays = False  # decay would pull g to 0, that is the importance to 1/2, against both poles

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        check("momentum", momentum, Maybe(MOMENTUM))
        super().__init__(num_features, eps, momentum, True, track_running_stats, device, dtype)
        self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        """Fresh running statistics, and g drawn from N(0, 1)."""
        self.reset_running_stats()
        nn.init.normal_(self.weight)

    @property
    def importance(self) -> Tensor:
        """sigmoid(g), shape (C,)."""
        return torch.sigmoid(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        momentum, seen = self.momentum, self.num_batches_tracked
        if self.training and self.track_running_stats and seen is not None:
            seen.add_(1)
            if momentum is None:  # a cumulative average, as in torch
                momentum = 1.0 / float(seen)
        use_batch = self.training or (self.running_mean is None and self.running_var is None)
        tracked = not self.training or self.track_running_stats
        mean, variance = (self.running_mean, self.running_var) if tracked else (None, None)
        return F.batch_norm(input, mean, variance, self.importance, None, use_batch, momentum or 0.0, self.eps)

    @classmethod
    @checked
    def from_plain(cls, norm: Any, *, nearest: bool = False) -> Self:
        """The sigmoid batch norm that does what ``norm``, an ordinary one with scale s and shift 0, does: g = logit(s).

        Exact for scales in (0, 1); then ``from_plain(norm).to_plain()`` has the outputs of ``norm``. ``nearest=True``
        also takes norms that have no such form: scales are clamped to the reach of the dtype's sigmoid and the shift is
        dropped, which changes the outputs. Running statistics, eps, momentum, mode, dtype and device are carried over.
        Raises BadType for another layer, BadInput for scales or shifts that cannot be represented.
        """
        _check_plain(cls, norm)
        scale, shift = norm.weight.detach(), norm.bias.detach()
        if not nearest and not bool(((scale > 0) & (scale < 1)).all()):
            low, high = float(scale.min()), float(scale.max())
            raise BadInput(
                f"the scales run from {low:g} to {high:g}, but a sigmoid reaches (0, 1) only; nearest=True clamps them."
            )
        if not nearest and bool(shift.any()):
            raise BadInput("a sigmoid batch norm has no shift, and this one's is not zero; nearest=True drops it.")
        wide = scale.double()
        if nearest:
            limits = torch.finfo(scale.dtype)
            wide = wide.clamp(limits.tiny, 1 - limits.eps / 2)
        found = _like(norm, cls)
        with torch.no_grad():
            found.weight.copy_(torch.logit(wide))
        return found

    @classmethod
    def from_official(cls, norm: Any) -> Self:
        """The same norm as one of RNI's code, its class ``SigBatchNorm2d``: raw scale and statistics are taken over."""
        if not is_official(norm):
            raise BadType(f"{OFFICIAL} of the code of RNI is needed, not {type(norm).__name__}.")
        found = _like(norm, cls)
        with torch.no_grad():
            found.weight.copy_(norm.weight)
        return found

    @classmethod
    def fresh(cls, norm: Any) -> Self:
        """A sigmoid batch norm in place of ``norm``, for training from the start: g ~ N(0, 1) of torch's global state."""
        _check_plain(cls, norm)
        found = _like(norm, cls)
        nn.init.normal_(found.weight)
        return found

    @torch.no_grad()
    def to_plain(self) -> nn.Module:
        """An ordinary batch norm with scale sigmoid(g) and shift 0: the form in which networks are exported."""
        plain = _like(self, self.plain)
        plain.weight.copy_(self.importance)
        plain.bias.zero_()
        return plain

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale sigmoid(weight), no shift"


@checked
class SigmoidBatchNorm2d(_SigmoidNorm, nn.BatchNorm2d):
    """Batch norm whose scale is ``sigmoid(weight)`` and which has no shift (Suteu and Guo 2022, the RNI layer).

    Input and output (N, C, H, W). ``weight`` is the raw scale g, drawn from N(0, 1), so importances start in (0, 1).
    Training gives it ten times the learning rate and no weight decay.

    >>> norm = SigmoidBatchNorm2d(3)
    >>> norm(torch.zeros(4, 3, 2, 2)).shape, type(norm.to_plain()).__name__
    (torch.Size([4, 3, 2, 2]), 'BatchNorm2d')
    """

    plain = nn.BatchNorm2d


@checked
class SigmoidBatchNorm1d(_SigmoidNorm, nn.BatchNorm1d):
    """:class:`SigmoidBatchNorm2d` behind linear layers: input and output (N, C) or (N, C, L).

    >>> norm = SigmoidBatchNorm1d(3)
    >>> norm(torch.zeros(4, 3)).shape, type(norm.to_plain()).__name__
    (torch.Size([4, 3]), 'BatchNorm1d')
    """

    plain = nn.BatchNorm1d


class _ClampedNorm(nn.modules.batchnorm._BatchNorm):
    """What the clamped batch norms share."""

    plain: ClassVar[type[nn.BatchNorm1d] | type[nn.BatchNorm2d]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        upper: float = 1.0,
        track_running_stats: bool = True,
    ):
        check("the upper end of the scales", upper, Real(above=0))
        check("momentum", momentum, Maybe(MOMENTUM))
        super().__init__(num_features, eps, momentum, True, track_running_stats)
        self.upper = float(upper)

    @torch.no_grad()
    def project_(self) -> None:
        """Put every scale back into [0, upper]; training calls this after each step."""
        self.weight.clamp_(0, self.upper)

    @classmethod
    @checked
    def from_plain(cls, norm: Any, upper: float = 1.0) -> Self:
        """The same norm with its scale clamped to [0, upper]; shift, statistics and settings are carried over.

        Raises BadType for another layer, BadInput for one without a scale.
        """
        _check_plain(cls, norm)
        found = _like(norm, cls, upper=upper)
        found.project_()
        return found

    def to_plain(self) -> nn.Module:
        """The ordinary batch norm with the same numbers."""
        return _like(self, self.plain)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale in [0, {self.upper:g}]"


@checked(upper=None)
class ClampedBatchNorm2d(_ClampedNorm, nn.BatchNorm2d):
    """Batch norm whose scale is clamped to [0, upper] after every step (Zhuang et al. 2020). Input (N, C, H, W).

    >>> norm = ClampedBatchNorm2d(3)
    >>> norm.weight.data.fill_(7.0)
    tensor([7., 7., 7.])
    >>> norm.project_()
    >>> norm.weight.data
    tensor([1., 1., 1.])
    """

    plain = nn.BatchNorm2d


@checked(upper=None)
class ClampedBatchNorm1d(_ClampedNorm, nn.BatchNorm1d):
    """:class:`ClampedBatchNorm2d` behind linear layers: input (N, C) or (N, C, L).

    >>> norm = ClampedBatchNorm1d(3)
    >>> norm.weight.data.fill_(7.0)
    tensor([7., 7., 7.])
    >>> norm.project_()
    >>> norm.weight.data
    tensor([1., 1., 1.])
    """

    plain = nn.BatchNorm1d


def _check_plain(cls: Any, norm: Any) -> None:
    if type(norm) is not cls.plain:
        raise BadType(f"{cls.__name__} is made from {cls.plain.__name__}, not from {type(norm).__name__}.")
    if norm.weight is None:
        raise BadInput(f"a batch norm without a scale (affine=False) cannot become a {cls.__name__}.")


def _like(norm: Any, kind: Any, **options: Any) -> Any:
    """A norm of another kind with the settings, tensors (where it has them), dtype, device and mode of ``norm``."""
    with torch.device("meta"):  # without initialisation: a conversion draws no random numbers
        settings = (norm.num_features, norm.eps, norm.momentum)
        found = kind(*settings, track_running_stats=norm.track_running_stats, **options)
    found.to_empty(device=norm.weight.device).to(norm.weight.dtype)
    found.load_state_dict(norm.state_dict(), strict=False)
    for name, parameter in found.named_parameters():
        own = getattr(norm, name)
        parameter.requires_grad_((norm.weight if own is None else own).requires_grad)
    return found.train(norm.training)
