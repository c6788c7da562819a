r"""PFP, provable filter pruning (Liebenwein et al. 2020, liebenwein2020pfp): one error for all layers sets every width.

A layer that reads channels j with sensitivities s_j (the largest share of j in any of its outputs, over S) has S_l = sum s_j,
q_j = s_j / S_l and the coefficient a_l = S_l 2 C ln(8 (P + 1) k1 k2 / delta). For an error eps it needs

    m_l(eps) = ceil(3 (6 + 2 eps) a_l / eps^2)  draws,  which show  U(q, m_l) = ceil(sum_j 1 - (1 - q_j)^m_l)  channels.

So the channel of rank n by sensitivity stays until eps passes the largest error at which U >= n. That error is its score, and
ranking all channels of a network by it is the search for the one eps that meets a budget. A channel that several layers read
goes when the last of them would let it go, as in the authors' code. There the constant in m_l is 9 times that of SiPP's error
curve; both are kept as they are.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, Floats, OneOf, Real, checked, doubles
from pruning_core.errors import BadInput
from pruning_core.masks import Budget, Group, Member, Scores, allocate, expand
from pruning_core.methods.base import Choice, Method, View, along, reading_columns, register
from pruning_core.methods.shared.draws import Draws, coefficient, draws_for_distinct, expected_distinct, least_draws
from pruning_core.methods.shared.halves import layer_sensitivities
from pruning_core.methods.shared.reading import inputs_of, largest
from pruning_core.methods.shared.sensitivities import CONSTANT, PROBABILITY


def draws_at(error: float, a: float) -> int:
    """m(eps): draws that the error ``error`` asks of a layer with coefficient ``a``; at least one.

    Raises BadInput for an error or coefficient so extreme that no float holds what is between.
    """
    try:
        return max(math.ceil(3 * (6 + 2 * error) * a / error**2), 1)
    except ArithmeticError:
        raise BadInput(f"error={error:g} and a={a:g} ask for a number of draws that floats cannot compute.") from None


@checked(error=Real(above=0), a=Real(at_least=0))
def kept_at(error: float, q: np.ndarray, a: float) -> int:
    """How many of the channels with probabilities ``q`` stay at this error.

    >>> q = np.array([0.5, 0.3, 0.2])
    >>> [kept_at(error, q, a=0.1) for error in (0.5, 2.0, 50.0)]
    [3, 1, 1]
    """
    q = doubles("q", q).numpy()
    # So many draws show everything; powers of such size would only overflow.
    return min(expected_distinct(q, min(draws_at(error, a), 1e15)), int(np.count_nonzero(q)))


@checked(scores=Floats(1), a=Real(above=0))
def last_errors(scores: Tensor, a: float) -> Tensor:
    """For each channel the largest error at which it still stays; infinite for the best one, 0 without sensitivity.

    ``scores`` (channels,) are sensitivities; among equals the first counts as the larger.

    >>> last_errors(torch.tensor([0.5, 0.3, 0.2]), a=0.1).round(decimals=2)
    tensor([   inf,    inf, 1.1100], dtype=torch.float64)
    """
    scores = scores.detach()
    found = torch.zeros(len(scores), dtype=torch.float64)
    total = float(scores.sum())
    if total <= 0:
        return found
    q = (scores.double() / total).numpy()
    order = largest(scores, len(scores))
    living = int(np.count_nonzero(q))
    found[order[: min(living, 1)]] = math.inf
    least = 1
    for n in range(2, living + 1):
        least = least_draws(q, n, least - 1, least, 1e15)
        # ceil(v) >= least as long as v > least - 1: the error at which 3 (6 + 2 eps) a / eps^2 is so many draws.
        draws = least - 1
        found[order[n - 1]] = (3 * a + math.sqrt(9 * a * a + 18 * a * draws)) / draws if draws > 0 else math.inf
    return found


class Reader(NamedTuple):
    """A layer that reads channels: sensitivities of its units (units,), a_l, and which unit each channel is, by group."""

    scores: Tensor
    coefficient: float
    unit_of: dict[str, Tensor]


@dataclass(frozen=True)
class _Filters(Method):
    """What the three variants share: sensitivities of channels, the errors at which they go, the layers that read them.

    ``constant`` is C, ``delta`` the failure probability; ``kernel``: a channel's sensitivity is the "max" over its kernel
    positions (authors' code), or that of their "sum".
    """

    citation = "liebenwein2020pfp"
    unit, needs = "channel", "inputs"
    constraints = Constraints(
        constant=CONSTANT, delta=PROBABILITY, kernel=OneOf("max", "sum", kind="reduction over the kernel")
    )

    constant: float = 3.0
    delta: float = 1e-16
    kernel: str = "max"

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        readers = [model.get_submodule(member.layer) for member in reading_columns(group)]
        for layer in readers:
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                return f"they are read by {type(layer).__name__}, for which sensitivities are not defined"
        return None if readers else "no layer with weights reads them, so they have no sensitivity"

    def readers(self, view: View) -> dict[str, Reader]:
        """Every layer that reads prunable channels, by name."""
        members: dict[str, list[tuple[str, Member]]] = {}
        for name, group in view.sites.groups.items():
            for member in reading_columns(group):
                members.setdefault(member.layer, []).append((name, member))
        readers = {}
        sensitivities = layer_sensitivities(view, members, kernel="sum" if self.kernel == "sum" else "reduce")
        for layer, found in sensitivities.items():
            module = view.model.get_submodule(layer)
            units = torch.arange(len(found.channel))  # an input that belongs to no group is a unit of its own
            unit_of, free = {}, len(units)
            for name, member in members[layer]:
                channel = inputs_of(module, member)
                unit_of[name] = free + torch.arange(view.sites.groups[name].size)
                units = torch.where(channel >= 0, free + channel.clamp(min=0), units)
                free += view.sites.groups[name].size
            scores = torch.zeros(free, dtype=torch.float64)
            scores.scatter_reduce_(0, units, found.channel.double().cpu(), "amax")
            window = found.weight[0, 0].numel() if found.weight.dim() == 4 else 1
            # A linear layer behind a flatten reads several positions of a channel, as a kernel over the whole map would.
            window *= max(int(torch.bincount(units).max()) // getattr(module, "groups", 1), 1)
            a = coefficient(float(scores.sum()), found.positions, window, self.constant, self.delta)
            readers[layer] = Reader(scores, a, unit_of)
        return readers

    def score(self, view: View) -> Scores:
        return self._errors(view, self.readers(view))

    def _errors(self, view: View, readers: dict[str, Reader]) -> Scores:
        found = {name: torch.zeros(group.size, dtype=torch.float64) for name, group in view.sites.groups.items()}
        for reader in readers.values():
            errors = last_errors(reader.scores, reader.coefficient)
            for name, unit in reader.unit_of.items():
                found[name] = torch.maximum(found[name], errors[unit])
        # The last channel of a layer never goes; a number larger than all others says so and can be ranked.
        finite = [float(part[part.isfinite()].max()) for part in found.values() if bool(part.isfinite().any())]
        above = 2 * max(finite, default=1.0) + 1
        return Scores({name: part.clamp(max=above) for name, part in found.items()})


@register
class PFP(_Filters):
    """Filters that the next layers are least sensitive to go, as many in each layer as one common error allows."""

    name = "pfp"


def drawn(scores: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Factors of exactly ``count`` channels drawn in proportion to ``scores``; what has no score is drawn last, unweighted."""
    factors = torch.zeros(len(scores), dtype=torch.float64)
    positive = scores.nonzero().flatten()
    wanted = min(count, len(positive))
    if wanted:
        sample = Draws(scores[positive].double(), wanted, generator)
        while sample.distinct < wanted:
            sample.one_more()
        while sample.distinct > wanted:
            sample.one_less()
        factors[positive] = sample.factors()
    return factors


@register
class PFPRandom(_Filters):
    """PFP's widths, with channels drawn in proportion to their sensitivity and re-weighted without bias."""

    name = "pfp_random"
    spreads = "asked"

    def choose(self, view: View, budget: Budget) -> Choice:
        readers = self.readers(view)
        masks = allocate(self._errors(view, readers), budget, view.alive, view.sites)
        values: dict[str, Tensor] = {}
        keep = {}
        for name, group in view.sites.groups.items():
            alive = group.alive(view.alive)
            count = int(group.alive(masks).sum())
            seen = [reader.scores[reader.unit_of[name]] for reader in readers.values() if name in reader.unit_of]
            scores = torch.stack(seen).amax(0) * alive
            factors = self.factors(scores, count, view.generator)
            # Channels without any sensitivity stay, as they are, where the budget leaves room for them.
            spare = (alive & (factors == 0)).nonzero().flatten()[: max(count - int((factors > 0).sum()), 0)]
            factors[spare] = 1.0
            keep[name] = factors > 0
            for member in reading_columns(group):
                weight = values.get(member.parameter, view.parameter(member.parameter))
                scale = torch.ones(weight.shape[member.dim], dtype=torch.float64)
                scale[member.indices] = factors[member.channels]
                values[member.parameter] = weight * along(scale, weight, member.dim)
        return Choice(view.alive & expand(keep, view.sites.groups, view.sites.shapes), values)

    def factors(self, scores: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """What each channel is multiplied by in the layers that read it, 0 for those that go; ``count`` at most stay."""
        return drawn(scores, count, generator)


@register
class PFPTop(PFPRandom):
    """PFP's widths, partly derandomised: channels that a draw would show on average stay as they are, the rest is drawn."""

    name = "pfp_top"

    def factors(self, scores: Tensor, count: int, generator: torch.Generator) -> Tensor:
        certain, sampled = split(scores.double().numpy() / max(float(scores.sum()), 1e-300), count)
        best = largest(scores, certain)
        factors = drawn(scores.index_fill(0, best, 0), sampled, generator)
        factors[best] = 1.0
        return factors


def split(q: np.ndarray, count: int, draws: int | None = None) -> tuple[int, int]:
    """How many of ``count`` channels stay for certain, and how many are drawn: certain are those with q >= 1/m.

    m is the number of ``draws`` that show ``count`` channels, by default the least.
    """
    if count <= 1:
        return count, 0
    m = draws_for_distinct(q, count) if draws is None else draws
    certain = min(int(np.sum(q >= 1 / max(m, 1))), count)
    return certain, count - certain
