"""What every pruning method is: a frozen dataclass that looks at a View and returns Scores, or a whole Choice.

>>> as_method("snap"), methods_table().set_index("name").loc["snap", "prunes"], Choice(Masks()).remarks
(Snap(batches=5, loss='training', combine='sum'), 'channel', ())
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, dataclass_transform, get_args

import torch
from torch import Tensor, nn

from pruning_core.checks import Constraints, OneOf, check_fields, checked
from pruning_core.data.feeds import Feed
from pruning_core.errors import BadInput, BadType, known_name, shown
from pruning_core.masks import Budget, Group, Masks, Member, Scores, Sites, allocate
from pruning_core.masks.budgets import check_kind, check_possible
from pruning_core.masks.scores import COMBINERS, NORMALISERS, combine
from pruning_core.methods.shrinking import living_part
from pruning_core.models.calls import raised

if TYPE_CHECKING:
    import pandas as pd

Needs = Literal["nothing", "shape", "inputs", "labels"]
Spreads = Literal["asked", "layers", "itself"]


@dataclass(frozen=True)
class View:
    """All that a method may look at. Whoever calls it restores weights, buffers, mode, gradients and random state.

    ``batches`` can be iterated again and again and yields (inputs, labels), or is None for methods that need no data;
    ``loss(outputs, labels)`` is a mean per sample; ``generator`` is the only source of randomness; ``example_input`` is
    one input with its batch dimension (or a tuple of arguments), or None when none is known. This is cut ``round`` of
    ``of``, as a schedule counts them. What is appended to ``remarks`` stands in the report.
    """

    model: nn.Module
    sites: Sites
    alive: Masks
    batches: Iterable[tuple[Tensor, Tensor]] | None
    loss: Callable[[Tensor, Tensor], Tensor]
    generator: torch.Generator
    example_input: object = None
    round: int = 1
    of: int = 1
    remarks: list[str] = field(default_factory=list)

    def note_zeros(self, gradients: Mapping[str, Tensor]) -> None:
        """Remark where a ranking by ``gradients`` says nothing, as they are all zero (in front of a head of zeros, say)."""
        zero = [name for name, gradient in gradients.items() if not bool(gradient.any())]
        if zero:
            of = f"{len(zero)} of {len(gradients)}" if len(zero) < len(gradients) else f"all {len(zero)}"
            self.remarks.append(f"all gradients are zero in {of} tensors ({', '.join(zero[:3])}): nothing ranks them")

    def note_unread(self, count: int) -> None:
        """Remark where only the first ``count`` of the batches are looked at, and more are known to be there."""
        feed = self.batches if isinstance(self.batches, Feed) else Feed(self.batches or ())
        there = feed.steps()
        remark = f"only the first {count} of {there} batches were looked at: a method's batches= says how many are"
        if there is not None and there > count and remark not in self.remarks:
            self.remarks.append(remark)

    def weights(self) -> dict[str, Tensor]:
        """The parameters in scope, without gradient, in float32 or better."""
        return {name: self.parameter(name) for name in self.sites.weights}

    def parameter(self, name: str) -> Tensor:
        """One parameter, without gradient, in float32 or better."""
        return raised(self.model.get_parameter(name).detach())

    def of_living(self, score: "Callable[[View], Scores]") -> Scores:
        """``score`` of the network without its dead channels, where they can be cut out; dead weights and channels score 0.

        It costs what the living part costs. Only for scores that :meth:`Method.shrinks` allows.
        """
        part = living_part(self.model, self.alive, self.sites, self.example_input)
        if part is None:
            return score(self)
        found = score(replace(self, model=part.model, sites=part.sites, alive=part.masks))
        return Scores({name: part.spread(name, values) for name, values in found.items()})

    def random_scores(self, channels: bool) -> Scores:
        """A score for each channel, or for each weight, drawn uniformly from [0, 1)."""
        shapes = self.sites.score_shapes(channels)
        return Scores({name: torch.rand(shape, generator=self.generator) for name, shape in shapes.items()})

    def per_channel(self, score: Callable[[Tensor], Tensor], how: str) -> Scores:
        """Score every group by its producing weights: ``score`` maps a matrix (rows, everything else) to (rows,).

        ``how`` says how the scores of several producers of one group are combined (scores.COMBINERS).
        """
        return Scores({name: self.of_group(group, score, how) for name, group in self.sites.groups.items()})

    def of_group(self, group: Group, score: Callable[[Tensor], Tensor], how: str) -> Tensor:
        """The same for one group: (group.size,)."""
        parts = [(m, self.parameter(m.parameter).movedim(m.dim, 0).flatten(1)) for m in weight_rows(group)]
        return combine([m.per_channel(score(rows), group.size) for m, rows in parts], how)


class Choice(NamedTuple):
    """What a method decided: masks, new values of surviving parameters, and remarks for the report."""

    masks: Masks
    values: Mapping[str, Tensor] = {}
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """Base of all methods. Fields of a subclass are the method's own parameters; class variables describe it,
    ``constraints`` (field -> constraint, see checks) what the parameters must be.

    ``needs``: "nothing", "shape" (an example input), "inputs" or "labels". ``counts``: what a sparsity counts when nothing
    else is said ("" means the unit itself). ``revives``: its masks may bring dead weights back, so they replace the old
    ones; those of all other methods are cut by what was alive before. ``absolute``: its penalty is a sum of absolute values,
    whose gradient ``pull_`` adds in place. ``spreads``: how it shares out a budget: as ``asked``, always within ``layers``,
    or by ``itself``, which is what a ``choose`` of one's own says where the class says nothing. Most methods override only
    ``score``.

    ``combine``: how the scores of several producers of one channel become one; ``normalise``: what a layer's scores are
    divided by before layers are compared. Several methods have these fields.
    """

    constraints: ClassVar[Constraints] = Constraints(
        combine=OneOf(*COMBINERS, kind="combination"), normalise=OneOf(*NORMALISERS, kind="normaliser")
    )  # of parameters that several methods have

    name: ClassVar[str]
    citation: ClassVar[str]
    unit: ClassVar[Literal["weight", "channel"]] = "weight"
    needs: ClassVar[Needs] = "nothing"
    counts: ClassVar[Literal["", "weights", "channels", "macs"]] = ""
    revives: ClassVar[bool] = False
    absolute: ClassVar[bool] = False
    spreads: ClassVar[Spreads] = "asked"

    def __init_subclass__(cls) -> None:
        if "choose" in vars(cls) and "spreads" not in vars(cls):
            cls.spreads = "itself"

    def __post_init__(self) -> None:
        check_fields(self)

    def check_budget(self, budget: Budget) -> None:
        """Raise BudgetError or BadInput for a budget that this method cannot meet on any network."""
        check_kind(budget, self.unit == "channel", f"method {self.name!r}", spread=self.spreads == "itself")
        if self.spreads == "layers" and budget.below is not None:
            raise BadInput(
                f"{self.name!r} takes the same fraction of every layer and has no scores to compare with a threshold; give a "
                "sparsity."
            )

    def check_possible(self, budget: Budget, alive: Masks, sites: Sites) -> None:
        """Raise what ``choose`` would raise for this budget whatever the scores are, before there are any."""
        if self.spreads == "itself" or not self.meets_budget():
            return
        if self.spreads == "layers" and budget.across == "global":
            budget = replace(budget, across="layer")
        check_possible(budget, alive, sites, channels=self.unit == "channel")

    def prepare(self, model: nn.Module, example_input) -> nn.Module:
        """Swap layers before training, where the method needs its own; returns the network, by default unchanged."""
        return model

    def penalty(self, model: nn.Module, alive: Masks) -> Tensor:
        """Added to the training loss, times the strength that the Train stage gives; dead channels contribute nothing."""
        raise BadInput(f"{self.name!r} has no penalty; it cannot be used as one in training.")

    def pull_(self, model: nn.Module, alive: Masks, strength: float) -> None:
        """Add ``strength`` times the gradient of ``penalty`` to the gradients of the parameters, in place: the same numbers
        as by autograd, for less. Methods that are ``absolute`` have it (methods.shared.penalties does it)."""
        raise NotImplementedError

    def refuses(self, model: nn.Module, group: Group) -> str | None:
        """Why this method cannot prune a group whose channels could be removed; None when it can."""
        return None

    def meets_budget(self) -> bool:
        """Whether the budget holds to the unit; False for a reference behaviour that meets it on average only."""
        return True

    def shrinks(self) -> bool:
        """Whether dead channels may be cut out before living ones are scored, which must not change any score.

        True for products with gradients in evaluation mode: where every column that reads a channel is zero, no output and
        no other gradient depends on it, and its own are zero. False wherever a score counts entries or channels of a
        layer (means, quantiles, shares of a budget), draws random numbers by shape (as dropout does in training mode), or
        reads weights or activations of the dead channels themselves.
        """
        return False

    def score(self, view: View) -> Scores:
        """One tensor a site, larger is more important: a parameter's shape, or (channels,) for a group."""
        raise NotImplementedError

    def choose(self, view: View, budget: Budget) -> Choice:
        """Masks that meet the budget; by default those of the highest scores."""
        scores = view.of_living(self.score) if self.shrinks() else self.score(view)
        return Choice(allocate(scores, budget, view.alive, view.sites))


METHODS: dict[str, type[Method]] = {}


@checked
@dataclass_transform(frozen_default=True)
def register(method: type[Method]) -> type[Method]:
    """Make a subclass of Method a frozen dataclass, unless it is one, and add it to METHODS, under its ``name``; use as a
    decorator. A notebook may register its class again."""
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise BadType("register takes a subclass of Method.")
    for attribute in ("name", "citation"):
        if not isinstance(getattr(method, attribute, None), str):
            raise BadInput(f"{method.__name__} needs a class variable {attribute!r}.")
    known_name("unit of a method", method.unit, ("weight", "channel"))
    known_name("need of a method", method.needs, get_args(Needs))
    held = METHODS.get(method.name)
    if held is not None and (held.__module__, held.__qualname__) != (method.__module__, method.__qualname__):
        raise BadInput(f"the name {method.name!r} is taken by {held.__module__}.{held.__qualname__}.")
    if "__dataclass_params__" not in vars(method):
        method = dataclass(frozen=True)(method)
    METHODS[method.name] = method
    return method


@checked(method=None)
def as_method(method: str | Method) -> Method:
    """The method of that name with its default parameters, or the instance given."""
    if isinstance(method, Method):
        return method
    if isinstance(method, type) and issubclass(method, Method):
        return method()
    if not isinstance(method, str):
        raise BadType(f"a method is a name or an instance, like 'magnitude' or Magnitude(), not {shown(method)}.")
    return METHODS[known_name("method", method, METHODS)]()


def methods_table() -> "pd.DataFrame":
    """All registered methods: name, what they prune, what they need, parameters with defaults, citation, first sentence."""
    import pandas as pd

    rows = []
    for name, method in sorted(METHODS.items()):
        parameters = ", ".join(f"{f.name}={f.default!r}" for f in fields(method))
        summary = (method.__doc__ or "").strip().partition("\n")[0]
        rows.append((name, method.unit, method.needs, parameters, method.citation, summary))
    return pd.DataFrame(rows, columns=["name", "prunes", "needs", "parameters", "citation", "summary"])


def counted(method: Method) -> Literal["weights", "channels", "macs"]:
    """What a sparsity counts for this method when nothing else is said."""
    return method.counts or ("weights" if method.unit == "weight" else "channels")


def weight_rows(group: Group) -> list[Member]:
    """The weights (not biases, not index layers) that produce a group's channels."""
    return [m for m in group.produces if m.parameter.endswith(".weight")]


def reading_columns(group: Group) -> list[Member]:
    """The weights that read a group's channels (not the index layers that hand them on)."""
    return [m for m in group.consumes if not m.is_buffer]


def along(values: Tensor, like: Tensor, dim: int) -> Tensor:
    """``values`` (n,) in the type and the shape in which they multiply ``like`` along ``dim``."""
    shape = [1] * like.dim()
    shape[dim] = -1
    return values.to(like).view(shape)
