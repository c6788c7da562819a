"""Layers of the papers, and the protocol by which a layer owns its quirks.

Any module may carry

- ``learning_rate_scale``: a factor on the learning rate of its own parameters,
- ``decays = False``: no weight decay on its own parameters,
- ``project_()``: called after every optimizer step, to clamp what must stay in bounds,
- ``to_plain()``: returns the ordinary layer with the same outputs in evaluation mode.

Training honours the first three; :func:`to_plain` uses the last before a network is shrunk, saved or exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import ClassVar
from typing import Self

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pruning_core.checks import Real
from pruning_core.checks import check
from pruning_core.errors import BadInput
from pruning_core.errors import BadType


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
        found = cls._like(norm)
        with torch.no_grad():
            found.weight.copy_(torch.logit(wide))
        return found

    @classmethod
    def fresh(cls, norm: Any) -> Self:
        """A sigmoid batch norm in place of ``norm``, for training from the start: g ~ N(0, 1) of torch's global state."""
        _check_plain(cls, norm)
        found = cls._like(norm)
        nn.init.normal_(found.weight)
        return found

    @classmethod
    def _like(cls, norm: Any) -> Self:
        settings = (norm.num_features, norm.eps, norm.momentum)
        where = {"device": norm.weight.device, "dtype": norm.weight.dtype}
        # Without initialisation: a conversion draws no random numbers.
        found = nn.utils.skip_init(cls, *settings, track_running_stats=norm.track_running_stats, **where)
        found.weight.requires_grad_(norm.weight.requires_grad)
        _copy_buffers(norm, found)
        return found.train(norm.training)

    @torch.no_grad()
    def to_plain(self) -> nn.Module:
        """An ordinary batch norm with scale sigmoid(g) and shift 0: the form in which networks are exported."""
        plain = self.plain(self.num_features, self.eps, self.momentum, track_running_stats=self.track_running_stats)
        plain.to(self.weight).requires_grad_(self.weight.requires_grad)
        plain.weight.copy_(self.importance)
        nn.init.zeros_(plain.bias)
        _copy_buffers(self, plain)
        return plain.train(self.training)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, scale sigmoid(weight), no shift, eps={self.eps}, momentum={self.momentum}, "
            f"track_running_stats={self.track_running_stats}"
        )


class SigmoidBatchNorm2d(_SigmoidNorm, nn.BatchNorm2d):
    """Batch norm whose scale is ``sigmoid(weight)`` and which has no shift (Suteu and Guo 2022, the RNI layer).

    Input and output (N, C, H, W). ``weight`` is the raw scale g, drawn from N(0, 1), so importances start in (0, 1).
    Training gives it ten times the learning rate and no weight decay.
    """

    plain = nn.BatchNorm2d


class SigmoidBatchNorm1d(_SigmoidNorm, nn.BatchNorm1d):
    """:class:`SigmoidBatchNorm2d` behind linear layers: input and output (N, C) or (N, C, L)."""

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
        super().__init__(num_features, eps, momentum, True, track_running_stats)
        self.upper = float(upper)

    @torch.no_grad()
    def project_(self) -> None:
        """Put every scale back into [0, upper]; training calls this after each step."""
        self.weight.clamp_(0, self.upper)

    @classmethod
    def from_plain(cls, norm: Any, upper: float = 1.0) -> Self:
        """The same norm with its scale clamped to [0, upper]; shift, statistics and settings are carried over.

        Raises BadType for another layer, BadInput for one without a scale.
        """
        _check_plain(cls, norm)
        found = cls(norm.num_features, norm.eps, norm.momentum, upper, track_running_stats=norm.track_running_stats)
        _copy_affine(norm, found)
        found.project_()
        return found.train(norm.training)

    def to_plain(self) -> nn.Module:
        """The ordinary batch norm with the same numbers."""
        plain = self.plain(self.num_features, self.eps, self.momentum, track_running_stats=self.track_running_stats)
        _copy_affine(self, plain)
        return plain.train(self.training)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, scale in [0, {self.upper:g}]"


class ClampedBatchNorm2d(_ClampedNorm, nn.BatchNorm2d):
    """Batch norm whose scale is clamped to [0, upper] after every step (Zhuang et al. 2020). Input (N, C, H, W)."""

    plain = nn.BatchNorm2d


class ClampedBatchNorm1d(_ClampedNorm, nn.BatchNorm1d):
    """:class:`ClampedBatchNorm2d` behind linear layers: input (N, C) or (N, C, L)."""

    plain = nn.BatchNorm1d


def _check_plain(cls: Any, norm: Any) -> None:
    if type(norm) is not cls.plain:
        raise BadType(f"{cls.__name__} is made from {cls.plain.__name__}, not from {type(norm).__name__}.")
    if norm.weight is None:
        raise BadInput(f"a batch norm without a scale (affine=False) cannot become a {cls.__name__}.")


@torch.no_grad()
def _copy_affine(norm, to) -> None:
    """Scale, shift, running statistics, dtype, device and whether they are trained."""
    to.to(norm.weight)
    for name in ("weight", "bias"):
        getattr(to, name).copy_(getattr(norm, name)).requires_grad_(getattr(norm, name).requires_grad)
    _copy_buffers(norm, to)


@torch.no_grad()
def _copy_buffers(norm, to) -> None:
    for name, buffer in norm.named_buffers():
        getattr(to, name).copy_(buffer)


class HardConcreteGate(nn.Module):
    """One gate in [0, 1] a channel, random while training and deterministic afterwards (Louizos et al. 2018).

    Input (N, C, ...) and output of the same shape: channel c is multiplied by z_c. With u uniform,
    ``s = sigmoid((log u - log(1 - u) + alpha) / T)`` and ``z = clip(s (b - a) + a, 0, 1)``; in evaluation mode
    ``z = clip(sigmoid(alpha) (b - a) + a, 0, 1)``. One sample of the gates serves a whole batch.
    """

    decays = False

    def __init__(
        self,
        channels: int,
        open_probability: float = 0.5,
        temperature: float = 2 / 3,
        limits: tuple[float, float] = (-0.1, 1.1),
    ):
        super().__init__()
        if not 0 < open_probability < 1:
            raise BadInput(f"open_probability must lie in (0, 1), not {open_probability}.")
        self.temperature, self.limits, self.eps = temperature, limits, 1e-6
        mean = torch.logit(torch.tensor(open_probability))
        self.log_alpha = nn.Parameter(mean + 0.01 * torch.randn(channels))

    def open_probability(self) -> Tensor:
        """P(z > 0), shape (C,): ``1 - sigmoid(T log(-a/b) - alpha)``."""
        a, b = self.limits
        shift = self.temperature * torch.log(torch.tensor(-a / b, dtype=self.log_alpha.dtype))
        closed = torch.sigmoid(shift - self.log_alpha).clamp(self.eps, 1 - self.eps)
        return 1 - closed

    def gates(self) -> Tensor:
        """The gate values of evaluation mode, shape (C,)."""
        return self._stretched(torch.sigmoid(self.log_alpha))

    def sample(self, u: Tensor | None = None) -> Tensor:
        """One draw of the gates, shape (C,); ``u`` in (0, 1) may be given for reproduction."""
        if u is None:
            u = torch.rand_like(self.log_alpha) * (1 - 2 * self.eps) + self.eps
        return self._stretched(torch.sigmoid((torch.log(u) - torch.log1p(-u) + self.log_alpha) / self.temperature))

    def _stretched(self, s: Tensor) -> Tensor:
        a, b = self.limits
        return (s * (b - a) + a).clamp(0, 1)

    def forward(self, input: Tensor, dim: int = 1) -> Tensor:
        return _times(input, self.sample() if self.training else self.gates(), dim)

    @torch.no_grad()
    def project_(self) -> None:
        """Keep alpha in [log 0.01, log 100]: outside, the gate no longer moves."""
        self.log_alpha.clamp_(-4.605170185988092, 4.605170185988092)


class ChannelGate(nn.Module):
    """A learned factor a channel, 1 at the start: input (N, C, ...) and output of the same shape."""

    decays = False

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def gates(self) -> Tensor:
        """The factors, shape (C,)."""
        return self.weight

    def forward(self, input: Tensor, dim: int = 1) -> Tensor:
        return _times(input, self.weight, dim)


class Gated(nn.Module):
    """A layer and the gate behind it; ``to_plain()`` folds the gate into the layer's weight and bias.

    The layer is a convolution, a linear layer, or a batch norm with a scale.
    """

    layer: nn.Module
    gate: HardConcreteGate | ChannelGate

    def __init__(self, layer: nn.Module, gate: HardConcreteGate | ChannelGate):
        super().__init__()
        self.layer, self.gate = layer, gate

    @property
    def output_dim(self) -> int:
        """Where the layer's weight counts its outputs: transposed convolutions store inputs first."""
        return 1 if getattr(self.layer, "transposed", False) else 0

    def forward(self, input: Tensor) -> Tensor:
        # Channels are the second dimension, but the last one behind a linear layer: of (N, T, F) for tokens.
        return self.gate(self.layer(input), -1 if isinstance(self.layer, nn.Linear) else 1)

    @torch.no_grad()
    def to_plain(self) -> nn.Module:
        z = self.gate.gates()
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        weight.copy_(_times(weight, z, self.output_dim))
        if self.layer.bias is not None:
            self.layer.bias.mul_(z)  # type: ignore[operator]
        return self.layer


def _times(input: Tensor, factors: Tensor, dim: int) -> Tensor:
    """``input`` with each channel, along ``dim``, multiplied by its factor."""
    shape = [1] * input.dim()
    shape[dim] = len(factors)
    return input * factors.view(shape)


class ChannelIndex(nn.Module):
    """Picks channels by index: ``y[:, j] = x[:, index[j], ::stride, ::stride]``, and zeros where ``index[j]`` is -1.

    The parameter-free shortcut of residual networks (option A of He et al. 2016) is such a layer; as an index, and not
    as a slice with padding, it can be pruned exactly. Input (N, C, H, W), output (N, len(index), H / stride, W / stride).
    """

    index: Tensor

    def __init__(self, index: Sequence[int], stride: int = 1):
        super().__init__()
        self.stride = stride
        self.register_buffer("index", torch.as_tensor(index, dtype=torch.long))

    @classmethod
    def option_a(cls, inputs: int, outputs: int, stride: int) -> ChannelIndex:
        """The shortcut that widens from ``inputs`` to ``outputs`` channels: zeros before and after, odd ones after."""
        before = (outputs - inputs) // 2
        return cls([-1] * before + list(range(inputs)) + [-1] * (outputs - inputs - before), stride)

    def forward(self, input: Tensor) -> Tensor:
        thinned = input[:, :, :: self.stride, :: self.stride]
        padded = F.pad(thinned, (0, 0, 0, 0, 0, 1))  # the last channel is the zero that index -1 points to
        return padded[:, self.index]

    def extra_repr(self) -> str:
        return f"{len(self.index)} channels, {int((self.index < 0).sum())} of them zero, stride {self.stride}"


def project_(model: nn.Module) -> None:
    """Call ``project_()`` of every module that has one (after each optimizer step)."""
    for module in model.modules():
        if module is not model and hasattr(module, "project_"):
            module.project_()  # type: ignore[operator]


def to_plain(model: nn.Module) -> nn.Module:
    """Replace every layer that has ``to_plain()`` by the ordinary layer it returns, in place; returns the network."""
    if hasattr(model, "to_plain"):
        return model.to_plain()  # type: ignore[operator]
    for name, child in model.named_children():
        setattr(model, name, to_plain(child))
    return model
