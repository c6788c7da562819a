r"""SiPP, randomised (Baykal et al. 2019): sample weights by sensitivity and re-weight them, without bias.

A half h is one filter's weights of one sign. With sensitivities s_e, their sum S_h, and q_e = s_e / S_h:

    draws c ~ Multinomial(m_h, q),        w^_e = w_e c_e / (m_h q_e),        E w^ = w
    error of x distinct draws     f(x) = 1/2 [a/x + sqrt((a/x)^2 + 6 a/x)],   a = S_h (2 C / 3) ln(8 (P+1) k1 k2 / delta)

The budget is shared by minimising sum lambda_h f_h(x_h) over x, lambda_h = 1 / (filters of the layer). Paper: arXiv
1910.05422; the constants follow the authors' code.
"""

import numpy as np
import torch

from pruning_core.checks import Constraints, OneOf
from pruning_core.masks import Scores
from pruning_core.methods.base import Method, View, register
from pruning_core.methods.shared.draws import Draws, coefficient, error, water_fill
from pruning_core.methods.shared.halves import Half, Largest, Sampling, layer_sensitivities, of_one_sign
from pruning_core.methods.shared.sensitivities import CONSTANT, PROBABILITY


@register
class SiPP(Method):
    """The weights with the largest share in some output stay, all layers ranked together (deterministic SiPP).

    ``reduce`` over output positions: "mean" as the authors' code has it, or the "max" of the theory; linear layers have one
    position.
    """

    name, citation = "sipp", "baykal2019sipp"
    needs = "inputs"
    constraints = Constraints(reduce=OneOf("max", "mean", kind="reduction"))

    reduce: str = "mean"

    def score(self, view: View) -> Scores:
        layers = {name: name.rpartition(".")[0] for name in view.sites.weights}
        found = layer_sensitivities(view, layers.values(), self.reduce, channels=False)
        return Scores({name: found[layer].weight for name, layer in layers.items()})


@register
class SiPPRand(Sampling):
    """Weights are drawn in proportion to their sensitivity, and what is drawn is re-weighted so that nothing is biased.

    ``constant`` is the paper's C, ``delta`` the failure probability; ``reference=True`` leaves the paper's number of draws.
    """

    name, citation = "sipp_random", "baykal2019sipp"
    needs = "inputs"
    constraints = Constraints(constant=CONSTANT, delta=PROBABILITY)

    constant: float = 3.0
    delta: float = 1e-16
    reference: bool = False

    def halves(self, view: View) -> list[Half]:
        """All halves with a positive sum of sensitivities, layer by layer."""
        halves = []
        found = layer_sensitivities(view, [name.rpartition(".")[0] for name in view.sites.weights])
        for name in view.sites.weights:
            layer = found[name.rpartition(".")[0]]
            kernel = layer.weight[0, 0].numel() if layer.weight.dim() == 4 else 1
            for entries, scores in of_one_sign(view.parameter(name), layer.weight):
                a = coefficient(float(scores.sum()), layer.positions, kernel, self.constant, self.delta)
                halves.append(Half(name, entries, scores, a, 1 / len(layer.weight)))
        return halves

    parts = halves

    def shares(self, parts: list[Half], kept: int) -> np.ndarray:
        a = np.array([half.coefficient / 3 for half in parts])
        sizes = np.array([len(half.entries) for half in parts])
        return water_fill(a, np.array([half.weight for half in parts]), sizes, kept)


@register
class SiPPHybrid(SiPPRand):
    """In every half the better of two: draw, or keep the largest, whichever promises the smaller error (SiPPHybrid).

    The error of keeping the x largest is C times the sensitivities that are left out.
    """

    name = "sipp_hybrid"

    def drawn(self, part: Half, count: int, generator: torch.Generator) -> Draws:
        if self.by_sampling(part, count):
            return super().drawn(part, count, generator)
        return Largest(part.scores, count)

    def by_sampling(self, half: Half, count: int) -> bool:
        """Whether drawing ``count`` entries promises a smaller error than keeping the largest."""
        ordered = half.scores.sort(descending=True).values
        # The official code keeps none where it may keep only one.
        lost = float(ordered[count if count > 1 else 0 :].sum())
        return self.constant * lost > float(error(np.array([max(count, 1)]), np.array([half.coefficient / 3]))[0])
