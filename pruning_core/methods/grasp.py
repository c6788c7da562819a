r"""GraSP: keep the gradient flowing (Wang et al. 2020, wang2020grasp).

    score(w) = w * (H g)_w,      g = dL/dw,  H = d2L/dw2

To first order, removing w changes the squared norm of the gradient by ``-2 w (Hg)_w``: where the score is large the
gradient would fall, so the weight stays; where it is negative, it would rise, and the weight goes first. Logits are
divided by a temperature T, which flattens the softmax of a network that is not trained yet.

The authors' code removes what has the largest ``-w Hg``, which is the rule above. The GraSP baseline in the code of
SNIP-it keeps those instead: the opposite order. ``reference=True`` gives that baseline.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import islice

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from pruning_core.checks import Constraints, Maybe, Real, Whole
from pruning_core.masks import Scores
from pruning_core.methods.base import View, register
from pruning_core.methods.shared.elasticities import Sensitivity
from pruning_core.methods.shared.objective import Given
from pruning_core.models.calls import like_model, logits, part, raised, samples, tried
from pruning_core.models.modes import evaluating


@register
class Grasp(Sensitivity):
    """Weights whose removal would not weaken the gradient go first: w * (Hessian times gradient).

    ``temperature`` divides the logits of a classification, not outputs under another loss. ``chunk``
    samples are differentiated twice at a time (None: a batch, which counts by its samples); as in the official code a
    smaller last chunk counts as much as a whole one. ``reference=True`` turns the order round, as the code of SNIP-it has it.
    """

    name, citation = "grasp", "wang2020grasp"
    constraints = Constraints(temperature=Real(above=0), chunk=Maybe(Whole(at_least=1)))

    temperature: float = 200.0
    chunk: int | None = None
    reference: bool = False

    def score(self, view: View) -> Scores:
        """g and H are sums over the chunks of the first batches, which are run through twice."""
        names = view.sites.weights
        parameters = [view.model.get_parameter(name).requires_grad_(True) for name in names]
        # Fused attention has no second derivative; the plain formula does.
        with evaluating(view.model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            vector = _sum(torch.autograd.grad(loss, parameters, materialize_grads=True) for loss in self._losses(view))
            product = _sum(_product(loss, parameters, vector) for loss in self._losses(view))
        view.note_zeros(dict(zip(names, vector, strict=True)))
        sign = -1.0 if self.reference else 1.0
        return Scores({name: sign * view.parameter(name) * hg for name, hg in zip(names, product, strict=True)})

    def _losses(self, view: View) -> Iterator[Tensor]:
        """The loss of each chunk of the first batches, with its graph."""
        view.note_unread(self.batches)
        first = 0
        for batch in islice(view.batches or (), self.batches):
            inputs, labels = like_model(view.model, batch[0], batch[1])
            size = self.chunk or samples(inputs)
            first = first or samples(inputs)
            share = 1 if self.chunk else samples(inputs) / first
            for start in range(0, samples(inputs), size):
                chosen = slice(start, start + size)
                outputs = tried(view.model, part(inputs, chosen))
                if type(view.loss) is not Given:
                    outputs = raised(logits(outputs)) / self.temperature
                loss = view.loss(outputs, part(labels, chosen))
                yield loss if share == 1 else loss * share


def _product(loss: Tensor, parameters: list[Tensor], vector: Sequence[Tensor]) -> Sequence[Tensor]:
    once = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    along = [(g * v).sum() for g, v in zip(once, vector, strict=True) if g.requires_grad]
    if not along:  # the gradient is constant: the Hessian is zero
        return [torch.zeros_like(parameter) for parameter in parameters]
    return torch.autograd.grad(torch.stack(along).sum(), parameters, materialize_grads=True)


def _sum(rounds: Iterable[Sequence[Tensor]]) -> Sequence[Tensor]:
    return reduce(lambda total, found: [a + b for a, b in zip(total, found, strict=True)], rounds)
