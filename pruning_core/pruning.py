"""The public way to prune a network: ``prune(model, method, sparsity)``, and to save and load the outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import SEED, Maybe, Whole, check, check_finite, checked
from pruning_core.errors import BadInput, BadType, Unprunable, shown
from pruning_core.masks.budgets import SPARSITY, Budget
from pruning_core.masks.comparing import compare
from pruning_core.masks.masks import Masks
from pruning_core.masks.reports import NOTHING_CUT, Report, count_removed, make_report
from pruning_core.masks.schedules import fraction_of_rest_after, rounds_of
from pruning_core.masks.sites import Scope, Sites, check_batches, find_sites
from pruning_core.methods import cards
from pruning_core.methods.base import Choice, Method, View, as_method, counted
from pruning_core.methods.shared.objective import OfClasses, statistic
from pruning_core.methods.shared.promises import (
    check_reached,
    check_rounded,
    check_sum_of_sites,
    held,
    refuse_without_example,
)
from pruning_core.methods.shrinking import shrunk
from pruning_core.models import folding
from pruning_core.models.calls import first_sample, like_model
from pruning_core.models.cost import check_example
from pruning_core.models.effective import zeros_out_of_use
from pruning_core.models.layers.protocol import to_plain
from pruning_core.models.modes import copied, undisturbed
from pruning_core.models.ready import check_plain
from pruning_core.models.storage import save_network
from pruning_core.records.files import write_atomically
from pruning_core.training.losses import Loss


@dataclass(frozen=True)
class PruneResult:
    """A pruned copy of a network, with zeros in place of what was removed.

    ``model`` has the shapes of the network given; ``masks`` say what is alive; ``report`` prints well. For channel
    methods ``shrink()`` gives the smaller network, and ``save`` stores that one. ``settings`` are what ``prune`` was told."""

    model: nn.Module
    masks: Masks
    report: Report
    sites: Sites
    example_input: object = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @checked
    def shrink(self, *, fold_batch_norm: bool = False, channels_last: bool = False) -> nn.Module:
        """A smaller, plain network with the same outputs: dead channels are cut out, special layers made ordinary.

        For inference, ``fold_batch_norm=True`` folds batch norms into the layers in front of them where the outputs stay
        equal (:func:`~pruning_core.models.fold_batch_norm`); the result is in evaluation mode, so fine-tune before.
        ``channels_last=True`` stores filters in that memory format, in which convolutions are often faster.
        Raises Unprunable if the method prunes single weights, or if the outputs of the two networks differ.

        >>> conv, norm, head = nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 1, 1)
        >>> result = prune(nn.Sequential(conv, norm, head), "l1_norm", 0.5, example_input=torch.zeros(1, 1, 4, 4))
        >>> result.shrink(fold_batch_norm=True, channels_last=True)
        Sequential(
          (0): Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): Identity()
          (2): Conv2d(8, 1, kernel_size=(1, 1), stride=(1, 1))
        )
        """
        if not self.sites.groups:
            raise Unprunable(
                f"{self.report.method!r} removed single weights, which leave no smaller network; only whole channels do."
            )
        small, _ = shrunk(self.model, self.masks, self.sites, self.example_input)
        small = to_plain(small)
        if fold_batch_norm:
            folded = folding.fold_batch_norm(small, self.example_input)
            compare(small, folded, self.example_input, precise=False)
            small = folded
        return small.to(memory_format=torch.channels_last) if channels_last else small

    @checked
    def save(self, path: str | PathLike) -> None:
        """Write one safetensors file (JSON and checksum inside): the shrunk network for channel methods, else the masked
        one with its masks. :func:`load_pruned` reads it."""
        if self.sites.groups:
            save_network(self.shrink(), path, plain=True, like=self.model)
        else:
            save_network(self.model, path, masks=self.masks)

    @checked
    def save_card(
        self,
        path: str | PathLike,
        network: nn.Module | None = None,
        *,
        name: str | None = None,
        before: float | None = None,
        after: float | None = None,
        metric: str = "accuracy",
        dataset: str | None = None,
        licence: str | None = None,
        task: str | None = None,
    ) -> None:
        """Write a model card for Hugging Face's hub, ``README.md``: what was pruned, how, cost before and after, versions.

        ``network`` is what you ship, fine-tuned say (default: what ``save`` writes). The rest is what only you know, and
        optional: ``before`` and ``after``, the ``metric`` of the network that you gave and of what you ship, on ``dataset``;
        a ``licence`` such as "mit"; a ``task`` such as "image-classification".
        Raises BadInput or BadType for what is no text or number, or a path that cannot be written.

        >>> import tempfile
        >>> from pathlib import Path
        >>> place = Path(tempfile.mkdtemp(), "README.md")
        >>> prune(nn.Linear(4, 2), "magnitude", 0.5).save_card(place, before=91.5, after=90.25, licence="mit")
        >>> [line for line in place.read_text().splitlines() if line.startswith(("license", "| accuracy"))]
        ['license: mit', '| accuracy | 91.5 | 90.25 |']
        """
        facts = cards.Facts(name, before, after, metric, dataset, licence, task)
        shipped = network if network is not None else self.shrink() if self.sites.groups else self.model
        text = cards.card(self.report, self.model, shipped, self.example_input, self.settings, facts)
        write_atomically(path, text)

    def __repr__(self) -> str:
        return self.report.summary

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


@checked(method=None, loss=None, masks=None)
@torch.inference_mode(False)
def prune(
    model: nn.Module,
    method: str | Method,
    sparsity: float | Budget | None,
    *,
    of: str | None = None,
    across: str | Mapping[str, float] = "global",
    round_to: int = 1,
    batches=None,
    example_input=None,
    scope: Scope = None,
    rounds: int | None = None,
    schedule: str = "geometric",
    seed: int = 0,
    loss: Loss | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> PruneResult:
    """Prune a copy of ``model``; the network given is left as it was.

    ``method`` is a name of METHODS or an instance like ``Magnitude(normalise="l2")``. ``sparsity`` in [0, 1) is the
    fraction removed of what ``of`` counts: "weights", "channels" or "macs" (default: what the method prunes).
    ``across`` says how it is spread (see Budget); with a sparsity for each site there, the overall one may be None, and
    otherwise must agree with them. ``round_to`` (8 or 16, as wide as the processor's registers): what is kept of each group
    of channels is rounded up to a multiple, so a little less than ``sparsity`` goes. A Budget in place of the sparsity says
    all this, or a threshold (``below``). ``batches`` are what a :class:`~pruning_core.data.Feed` takes; ``example_input`` is
    one input with its batch dimension, or a tuple of inputs (default: of the batches, or of the shape that build_model noted).
    ``loss(outputs, labels)``, a mean over samples, is what methods that look at labels differentiate, as torch.nn.MSELoss()
    (default: cross-entropy, for labels that are classes). ``scope`` narrows the layers; ``rounds`` > 1 scores and cuts
    again and again, along ``schedule`` (of SCHEDULES; by default once, or as often as "snip_it" and "tick_tock" say).
    ``masks`` say what is dead already: it stays dead, and counts as
    removed (default: what a network out of an earlier ``prune`` or ``load_pruned`` carries, and is still zero; {} forgets).

    >>> import pruning_core, torch
    >>> result = pruning_core.prune(torch.nn.Linear(4, 2), "magnitude", 0.5)
    >>> result.masks.sparsity
    0.5
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2))
    >>> pruning_core.prune(network, "l1_norm", 0.7, round_to=8, example_input=torch.zeros(1, 4)).shrink()[0].out_features
    8
    """
    check_plain(model)
    check_finite(model)
    method = as_method(method)
    if isinstance(sparsity, Budget):
        if of is not None or across != "global" or round_to != 1:
            raise BadInput(
                "a Budget says itself what it counts, how it is spread and rounded; give neither of= nor across= nor "
                "round_to= beside it."
            )
        budget, asked = sparsity, sparsity.to
    else:
        for_each = isinstance(across, Mapping)  # the sites have sparsities of their own
        asked = check("sparsity", sparsity, Maybe(SPARSITY) if for_each else SPARSITY)
        to = None if for_each else asked
        budget = Budget(to, of=of or counted(method), across=across, round_to=round_to)  # type: ignore[arg-type]
    method.check_budget(budget)
    rounds = rounds_of(schedule, check("rounds", rounds, Maybe(Whole(at_least=1))), budget.to)
    seed = check("seed", seed, SEED)
    objective = statistic(loss)
    batches = check_batches(batches, method.needs, method.name, model)
    example_input = example_for(model, example_input, batches)
    if example_input is None:
        refuse_without_example(method, budget)
    dead = Masks.carried(model) if masks is None else _given(masks).check(model)
    pruned = copied(model)
    dead.apply_(pruned)
    channels = method.unit == "channel"
    sites = find_sites(pruned, channels=channels, example_input=example_input, scope=scope, refuses=method.refuses)
    overall, found = budget.to, dead
    remarks: tuple[str, ...] = ()
    removed, total = count_removed(budget.of, dead, sites)
    gone = removed / max(total, 1)
    for i in range(1, rounds + 1):
        if overall is not None:
            budget = replace(budget, to=fraction_of_rest_after(schedule, i, rounds, overall, gone))
        original = model if i == 1 and not dead.removed else None
        found, _, remarks = prune_step(
            pruned, method, budget, sites, found, batches, seed + i - 1, original, example_input, objective, i, rounds
        )
    whole = Masks.dense(pruned, [name for name in sites.weights if name not in found])
    found = Masks({name: found[name] if name in found else whole[name] for name in sites.weights} | dict(found))
    found.carry(pruned)
    if dead.removed:
        remarks = (
            *remarks,
            f"{dead.removed:,} weights were dead before, by masks that were given or that the network carried",
        )
    if unused := zeros_out_of_use(pruned, found):
        remarks = (
            *remarks,
            f"zeros of {', '.join(unused[:3])} are none of the weights in use, which are made of them anew",
        )
    if budget.below is not None and found.removed == dead.removed:
        remarks = (*remarks, NOTHING_CUT)
    if budget.round_to > 1:
        remarks = (*remarks, f"numbers of channels kept are rounded up to multiples of {budget.round_to}")
    report = make_report(method.name, asked, budget.of, found, sites, remarks + held(found, sites, budget))
    check_sum_of_sites(report, budget)
    settings = cards.told(method, asked, budget, rounds, schedule, seed)
    return PruneResult(pruned, found, report, sites, example_input, settings)


def _given(masks: Mapping[str, Tensor]) -> Masks:
    if not isinstance(masks, Mapping):
        raise BadType(
            f"masks must map names of parameters to bool tensors, as PruneResult.masks does, not {shown(masks)}."
        )
    return Masks(masks)


def prune_step(
    model: nn.Module,
    method: Method,
    budget: Budget,
    sites: Sites,
    masks: Masks,
    batches=None,
    seed: int = 0,
    original: nn.Module | None = None,
    example_input=None,
    loss: Loss | None = None,
    round: int = 1,
    of: int = 1,
) -> Choice:
    """One choice of ``method``, applied to ``model`` in place: new values first, then the masks.

    ``original`` may be a network with the values that ``model`` has now, which saves a copy. The method hears that this
    is cut ``round`` of ``of``; what it does to the network while it looks is undone. BudgetError: it missed the budget.
    """
    method.check_budget(budget)
    generator = torch.Generator().manual_seed(seed)
    loss = OfClasses() if loss is None else loss
    if example_input is None and batches is not None:
        example_input = first_sample(next(iter(batches))[0])
    with undisturbed(model, original):
        view = View(model, sites, masks, batches, loss, generator, example_input, round, of)
        choice = method.choose(view, budget)
    found = choice.masks if method.revives else masks & choice.masks
    check_reached(method, budget, found, sites)
    check_rounded(method, budget, found, masks, sites)
    with torch.no_grad():
        for name, value in choice.values.items():
            if not torch.isfinite(value).all():
                raise BadInput(f"method {method.name!r} gave NaN or infinite values for {name!r}.")
            model.get_parameter(name).copy_(value)
    found.apply_(model)
    return choice._replace(masks=found, remarks=(*choice.remarks, *view.remarks))


def example_for(model: nn.Module, example_input=None, batches=None):
    """One input of the network: as given, the first of the batches, or random numbers of the shape in ``model.recipe``."""
    if example_input is not None:
        return like_model(model, check_example(example_input), None)[0]
    if batches is not None:
        return first_sample(like_model(model, next(iter(batches))[0], None)[0])
    if (recipe := getattr(model, "recipe", None)) is None:
        return None
    noise = torch.randn((1, *recipe["shape"]), generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()))
