r"""Products with the Hessian of a network's mean loss.

With L(w) the mean loss over fixed samples, H = d^2 L / dw^2 is (D, D) and never formed; one product costs about two
gradients (Pearlmutter 1994):

    H v = d/dw (dL/dw . v)

The network is in evaluation mode, so that every sample has a loss of its own, and H does not depend on how the samples
are cut into batches. Coordinates are those of ``model.parameters()``, one tensor after the other, each row by row.

Products are our own and not those of curvlinops, which is the oracle of our tests (tests/benchmarks/bench_scores.py times
both): here batches, weights, buffers and modes are held together, so that H is one fixed matrix or an error, and the graph
of the gradient is kept from one product to the next where it fits into memory.
"""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from pruning_core.checks import Whole, check, checked
from pruning_core.errors import BadInput
from pruning_core.models.calls import part, samples, tensors_of
from pruning_core.papers.how_sparse.curvature.batches import (
    Batches,
    Loss,
    finite_loss,
    forward_pass,
    held,
    refuse_training,
)
from pruning_core.papers.how_sparse.curvature.lanczos import rademacher
from pruning_core.training.losses import CrossEntropy, loss_value

Parameters = Callable[[str, Tensor], bool] | Iterable[str] | None
UNUSED: Any = {"allow_unused": True, "materialize_grads": True}  # zeros for a parameter that takes no part


@checked(memory=None, batches=None, loss=None, parameters=None)
class Hessian:
    """The Hessian of the mean loss over ``batches`` as a linear map; it belongs to the weights at the time of its making.

    ``batches`` yields (inputs, labels); ``loss(outputs, labels)`` is a mean per sample (default: cross-entropy), so a
    short batch counts by its samples. ``parameters``: names or patterns like ``"fc*"``, or a function (name, parameter) ->
    bool, that say which trainable parameters are coordinates. None: all, without scale and shift of batch norms unless
    ``exclude_norms=False``.

    The batches are read once and kept on the network's device. ``merge=True`` (of batches that have one shape) computes on
    as many samples at once as ``memory`` allows; a loss for which that is not the same is refused.

    ``reuse_graph=True`` keeps the graph of the gradient between products, which saves half of the work, if that of all
    samples fits into ``memory`` bytes (``graph_bytes`` estimates it from a few samples). Otherwise merged samples are cut
    so that the graph of each part fits. In memory besides: held batches, a copy of parameters and buffers, and during a
    product intermediate results, which take one to two times the graph.

    Raises BadInput for a network in training mode, no trainable parameter, a loss that is not finite, no mean over
    samples or independent of the weights, and later when weights or buffers have changed in the meantime.

    >>> from pruning_core import build_model, load_data
    >>> data = load_data("digits")
    >>> hessian = Hessian(build_model("lenet300", data, seed=0, width=0.1).eval(), data.train)
    >>> hessian.matvec(torch.ones(hessian.dimension)).shape == (hessian.dimension,)
    True
    """

    def __init__(
        self, model: nn.Module, batches: Batches, loss: Loss | None = None,
        *, parameters: Parameters = None, exclude_norms: bool = True,
        merge: bool = True, reuse_graph: bool = True, memory: int = 2**30,
    ):  # fmt: skip
        refuse_training(model)
        check("memory (in bytes)", memory, Whole(at_least=1))
        self.model, self.loss = model, CrossEntropy() if loss is None else loss
        chosen = _chosen(model, parameters, exclude_norms)
        self.shapes = {name: parameter.shape for name, parameter in chosen.items()}
        self.dimension = sum(parameter.numel() for parameter in chosen.values())
        first = next(iter(chosen.values()))
        self.device, self.dtype = first.device, first.dtype
        if self.dtype not in (torch.float32, torch.float64):
            raise BadInput(f"curvature needs weights in float32 or float64, not {self.dtype}: call model.float().")
        # Leaves of our own, on the same memory: hooks, gradients and requires_grad of the caller's stay out of it.
        self._inputs = {name: parameter.detach() for name, parameter in model.named_parameters()}
        self._leaves = [self._inputs[name].requires_grad_() for name in chosen]
        self._before = {name: tensor.clone() for name, tensor in _tensors(model).items()}
        self.batches, whole = held(model, batches)
        merge = merge and all(
            isinstance(inputs, Tensor) for inputs, _ in self.batches
        )  # one alone can be cut as one likes
        self._check_losses(merge)
        self._graph: list[Tensor] | None = None
        self._chunks = self.batches
        self._prepare(whole if merge else None, reuse_graph, memory)

    def __repr__(self) -> str:
        return f"Hessian({type(self.model).__name__}: {self.dimension} parameters, {self.samples} samples)"

    @property
    def keeps_graph(self) -> bool:
        """Whether products reuse one graph of the gradient of all samples."""
        return self._graph is not None

    def weights(self) -> Tensor:
        """The coordinates' values, (D,)."""
        return torch.cat([leaf.detach().flatten() for leaf in self._leaves])

    def matvec(self, v: Tensor) -> Tensor:
        """H v: v (D,) -> (D,), or column by column (D, k) -> (D, k); in the network's precision, on its device."""
        if not isinstance(v, Tensor) or v.dim() not in (1, 2) or len(v) != self.dimension:
            shape = tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__
            raise BadInput(f"the Hessian multiplies tensors ({self.dimension},) or ({self.dimension}, k), not {shape}.")
        self.check_unchanged()
        v = v.detach().to(self.device, self.dtype)
        if v.dim() == 2:
            return torch.stack([self._product(column) for column in v.T], 1) if v.shape[1] else v.clone()
        return self._product(v)

    def gradient(self, inputs: Tensor, labels: Tensor) -> list[Tensor]:
        """The gradient of the loss of one batch, one tensor a parameter, which can be differentiated again."""
        with forward_pass(self.device), torch.enable_grad():
            value = self._loss_of(inputs, labels)
            if not value.requires_grad:
                raise BadInput("the loss does not depend on the parameters that were chosen, so it has no curvature.")
            return list(torch.autograd.grad(value, self._leaves, create_graph=True, **UNUSED))

    def mean_gradient(self) -> Tensor:
        """The gradient of the mean loss over all samples, (D,)."""
        total = torch.zeros(self.dimension, dtype=self.dtype, device=self.device)
        for batch in self.batches:
            flat = torch.cat([part.detach().flatten() for part in self.gradient(*batch)])
            total += samples(batch[0]) / self.samples * flat
        return total

    def differentiate(self, gradient: list[Tensor], v: Tensor, keep: bool = True) -> Tensor:
        """The derivative, (D,), of ``gradient . v`` for fixed v, (D,); ``keep`` the graph for another time."""
        along = v.split([leaf.numel() for leaf in self._leaves])
        pairs = [(g, a.view_as(g)) for g, a in zip(gradient, along, strict=True) if g.requires_grad]
        if not pairs:  # a loss that is linear in the weights
            return torch.zeros_like(v)
        outputs, factors = zip(*pairs, strict=True)
        try:
            found = torch.autograd.grad(outputs, self._leaves, factors, retain_graph=keep, **UNUSED)
        except RuntimeError as error:
            if "derivative for" not in str(error):
                raise
            what = str(error).splitlines()[0]
            raise BadInput(f"{type(self.model).__name__} has no second derivative: {what}") from error
        return torch.cat([part.reshape(-1) for part in found])

    def check_unchanged(self) -> None:
        """Raise BadInput if weights, buffers or the mode of the network are others than when the Hessian was made."""
        refuse_training(self.model)
        now = _tensors(self.model)
        for name, before in self._before.items():
            if name not in now or not torch.equal(now[name], before):
                raise BadInput(f"{name!r} has changed since the Hessian was made; make another one.")

    def _product(self, v: Tensor) -> Tensor:
        if self._graph is not None:
            return self.differentiate(self._graph, v)
        total = torch.zeros_like(v)
        for inputs, labels in self._chunks:
            part = self.differentiate(self.gradient(inputs, labels), v, keep=False)
            total.add_(part, alpha=samples(inputs) / self.samples)
        return total

    def _check_losses(self, merged: bool) -> None:
        """Count the samples; refuse losses that are not finite or, where that matters, no mean over samples."""
        for number, batch in enumerate(self.batches, 1):
            finite_loss(self._loss(*batch), number)
        self.samples = sum(samples(inputs) for inputs, _ in self.batches)
        if not merged:
            return
        few, half = self.batches[:2], len(self.batches[0][0]) // 2
        if len(few) == 1 and half > 1:
            inputs, labels = few[0]
            few = [(inputs[:half], labels[:half]), (inputs[half:], labels[half:])]
        if len(few) == 1 or few[0][0].shape[1:] != few[1][0].shape[1:]:
            return
        apart = sum(float(self._loss(*part)) * len(part[0]) for part in few) / sum(len(part[0]) for part in few)
        together = float(self._loss(*(torch.cat(parts) for parts in zip(*few, strict=True))))
        slack = 1e-3 if self.dtype == torch.float32 else 1e-6
        if abs(together - apart) > slack * max(abs(together), abs(apart), 1e-3):
            raise BadInput(
                f"the loss is no mean over samples: {together:.6g} for two batches together, but {apart:.6g} is their mean; "
                "give one that is (and batch norms with stored statistics), or merge=False."
            )

    def _loss_of(self, inputs: Any, labels: Any) -> Tensor:
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        return loss_value(self.loss, functional_call(self.model, self._inputs, arguments), labels)

    @torch.no_grad()
    def _loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        with forward_pass(self.device):
            return self._loss_of(inputs, labels)

    def _prepare(self, joined: tuple[Tensor, Tensor] | None, reuse: bool, memory: int) -> None:
        """Cut the samples, if ``joined``, into chunks, and build the graph of all when it may be kept."""
        few = [part(entry, slice(64)) for entry in self.batches[0]]
        found, flat = self._try(*few)
        each = max(1, found // samples(few[0]))
        self.graph_bytes = each * self.samples
        whole = reuse and self.graph_bytes <= memory
        if joined is not None:
            size = self.samples if whole else max(1, min(self.samples, memory // each))
            self._chunks = list(zip(*(part.split(size) for part in joined), strict=True))
        if whole:
            for chunk in self._chunks:
                share = [g * (samples(chunk[0]) / self.samples) for g in self.gradient(*chunk)]
                self._graph = share if self._graph is None else [a + b for a, b in zip(self._graph, share, strict=True)]
        v = rademacher(self.dimension, torch.Generator(), self.dtype, self.device)
        if flat and not bool(self._product(v).any()):
            raise BadInput("the loss is constant: its gradient and its Hessian are zero.")

    def _try(self, inputs: Tensor, labels: Tensor) -> tuple[int, bool]:
        """What the graph of a gradient holds beyond parameters and inputs, in bytes, and whether the gradient is zero."""
        kept: dict[int, torch.UntypedStorage] = {}

        def note(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
            return tensor.detach()

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            graph = self.gradient(inputs, labels)
        for tensor in [*_tensors(self.model).values(), *tensors_of(inputs), *tensors_of(labels)]:
            kept.pop(tensor.untyped_storage().data_ptr(), None)
        flat = not any(bool(part.detach().any()) for part in graph)
        return sum(storage.nbytes() for storage in kept.values()), flat


class LivingHessian:
    """The rows and columns of a Hessian that belong to living weights: H of a pruned network, whose dead weights stay 0.

    ``alive``: parameter name -> bool tensor; a parameter without an entry is alive. ``dimension`` counts living weights, in
    the order of the whole Hessian's; ``matvec`` takes and gives (dimension,). Raises BadInput when nothing is alive.
    """

    def __init__(self, whole: Hessian, alive: Mapping[str, Tensor]):
        self.whole, self.device, self.dtype = whole, whole.device, whole.dtype
        every = {name: torch.ones(shape, dtype=torch.bool) for name, shape in whole.shapes.items()}
        parts = [alive.get(name, ones).flatten().cpu() for name, ones in every.items()]
        self.places = torch.cat(parts).nonzero()[:, 0].to(whole.device)
        self.dimension = len(self.places)
        if not self.dimension:
            raise BadInput("no weight is alive, so there is no curvature.")

    def matvec(self, v: Tensor) -> Tensor:
        """The living part of H v, for a v that is 0 at the dead weights."""
        padded = torch.zeros(self.whole.dimension, dtype=self.dtype, device=self.device)
        padded[self.places] = v.to(padded)
        return self.whole.matvec(padded)[self.places]

    def mean_gradient(self) -> Tensor:
        """The living part of the gradient of the mean loss, (dimension,)."""
        return self.whole.mean_gradient()[self.places]

    def weights(self) -> Tensor:
        """The living weights, (dimension,)."""
        return self.whole.weights()[self.places]


def _chosen(model: nn.Module, parameters: Parameters, exclude_norms: bool) -> dict[str, nn.Parameter]:
    """The trainable parameters that are coordinates, in the order of ``model.parameters()``."""
    found = {name: p for name, p in model.named_parameters() if p.requires_grad and p.is_floating_point()}
    if parameters is not None:
        found = matching(found, parameters)
    elif exclude_norms:
        norms = {id(p) for m in model.modules() if isinstance(m, _BatchNorm) for p in m.parameters(recurse=False)}
        found = {name: p for name, p in found.items() if id(p) not in norms}
    if not found:
        raise BadInput(f"{type(model).__name__} has no trainable parameter that was chosen.")
    return found


def matching(found: dict[str, nn.Parameter], parameters: Parameters) -> dict[str, nn.Parameter]:
    if callable(parameters):
        return {name: p for name, p in found.items() if parameters(name, p)}
    patterns = [parameters] if isinstance(parameters, str) else list(parameters or ())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in found):
            raise BadInput(f"{pattern!r} fits no trainable parameter; there are {', '.join(found)}.")
    return {name: p for name, p in found.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach() for name, t in [*model.named_parameters(), *model.named_buffers()]}
