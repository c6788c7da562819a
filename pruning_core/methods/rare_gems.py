r"""Rare Gems: scores are trained, weights are not (Sreenivasan et al. 2022, sreenivasan2022raregems).

    min over p in [0, 1]^D  of  L( w_0 * f * 1[p > 1/2] ) + lambda * |p|^2,        dL/dp = w_0 * dL/dw  (straight through)

w_0 are the weights of the initialisation and stand still; the scores p start uniform. f is the mask: after every few epochs
the smallest scores among those alive are frozen at 0 for good, over all layers together, so that every cut removes the same
share of what is left and the last one reaches the target. The ticket found is f; its weights are then trained from w_0, the
scores out of the way. The authors call the search Gem-Miner.

Verified in the authors' code (repository ksreenivasan/pruning_is_enough, algorithm ``hc_iter``): rounding in the forward
pass with the gradient straight through, the projection on [0, 1], uniform scores, the sum of squares times lambda = 1e-4
without decay of the weights, the cuts by score and their number, fine-tuning all of the mask ("unflag": scores that the
penalty left below one half count too), and w_0 of one size in a layer, its sign times sqrt(2 / fan_in). Of the paper itself
only summaries were read.

Ours: ties are spread over layers; biases and norms stand still during the search, while the authors' networks have no biases
and norms without parameters; the penalty leaves dead scores out, which changes nothing for the living. ``signed=False`` is
ours too; on digits it finds much worse tickets, as the gradient on a score is in proportion to its weight.
"""

import math
from typing import Any

from torch import Tensor, nn

from pruning_core.errors import Unprunable
from pruning_core.masks import Budget, Masks, Scores, find_sites
from pruning_core.masks.tracing import PRODUCERS
from pruning_core.methods.base import Choice, Method, View, register
from pruning_core.methods.shared.penalties import living, summed
from pruning_core.models.layers.scored import Scored


@register
class RareGems(Method):
    """Weights with the smallest trained scores go; the scores must have been trained (``Train(penalty=("rare_gems", ...))``).

    ``finish``: the mask is the ticket, so the scores of what stays become 1 and all of it takes part from now on.
    ``signed``: preparing gives all weights of a layer one size, sqrt(2 / fan_in), and leaves their signs; with False the
    network keeps the initialisation it has.
    """

    name, citation = "rare_gems", "sreenivasan2022raregems"
    spreads = "asked"

    finish: bool = False
    signed: bool = True

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Put scores on every convolution and linear layer; returns the network, changed in place."""
        for name in find_sites(model, channels=False).weights:
            path, _, leaf = name.rpartition(".")
            layer: Any = model.get_submodule(path)
            if not isinstance(layer, PRODUCERS) or leaf != "weight" or not path:
                kind = type(layer).__name__
                raise Unprunable(
                    f"scores go on convolutions and linear layers inside a network, not on {name!r} of a {kind}."
                )
            if not isinstance(model.get_submodule(path.rpartition(".")[0]), Scored):
                if self.signed:
                    layer.weight.data.sign_().mul_(math.sqrt(2 / layer.weight[0].numel()))
                model.set_submodule(path, Scored(layer))
        return model

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Sum of squares of the scores that are alive."""
        scored = ((name, module.scores) for name, module in model.named_modules() if isinstance(module, Scored))
        parts = (living(scores, f"{name}.layer.weight", alive).square().sum() for name, scores in scored)
        return summed(parts, "the network has no scores; Rare Gems prepares it before training.")

    def score(self, view: View) -> Scores:
        return Scores({name: view.parameter(_score_of(view, name)) for name in view.sites.weights})

    def choose(self, view: View, budget: Budget) -> Choice:
        choice = super().choose(view, budget)
        if not self.finish:
            return choice
        scores = self.score(view).items()
        return choice._replace(values={_score_of(view, name): choice.masks[name].to(score) for name, score in scores})


def _score_of(view: View, name: str) -> str:
    """The name of the scores that belong to the weight ``name``."""
    owner = name.removesuffix(".layer.weight")
    if owner == name or not isinstance(view.model.get_submodule(owner), Scored):
        raise Unprunable(f"{name!r} has no scores; Rare Gems prepares the network before training.")
    return f"{owner}.scores"
