"""Each paper's pipeline as a sentence of stages, by name: the whole field on one page.

Every recipe is a function of the sparsity (the fraction removed) and of the lengths that a profile sets.
"""

from __future__ import annotations

from collections.abc import Callable

from .budgets import Budget
from .errors import known_name
from .methods import Method, as_method
from .stages import Measure, Prune, Repeat, Rewind, Save, Shrink, Stage, Train

Timeline = list[Stage]


def dense(epochs: int) -> Timeline:
    """Training alone: the reference of every comparison."""
    return [Train(epochs)]


def prune_and_fine_tune(method: str | Method, sparsity: float, epochs: int, fine_tune: int) -> Timeline:
    """Train, prune once, measure, fine-tune, measure (Han et al. 2015 with one cut)."""
    return [
        Train(epochs),
        Prune(method, to(sparsity, method)),
        Measure("pruned"),
        Train(fine_tune),
        Measure("fine-tuned"),
    ]


def iterative(method: str | Method, sparsity: float, epochs: int, fine_tune: int, rounds: int) -> Timeline:
    """Train, then prune a little and fine-tune, again and again; every round removes the same share of what is left."""
    cut = Prune(method, to(sparsity, method), schedule="geometric")
    return [Train(epochs), Repeat(rounds, (cut, Train(fine_tune))), Measure("fine-tuned")]


def before_training(method: str | Method, sparsity: float, epochs: int) -> Timeline:
    """Prune the network as it was initialised, then train what is left."""
    return [Prune(method, to(sparsity, method)), Train(epochs)]


def lottery_ticket(sparsity: float, epochs: int, rounds: int, early: int = 0) -> Timeline:
    """Iterative magnitude pruning with rewinding to epoch ``early`` (Frankle and Carbin 2019; Frankle et al. 2020)."""
    cut = Prune("magnitude", to(sparsity, "magnitude"), schedule="geometric")
    rest = epochs - early
    return [Train(early), Save("early"), Repeat(rounds, (Train(rest), cut, Rewind("early"))), Train(rest)]


def prune_and_shrink(method: str | Method, sparsity: float, epochs: int, fine_tune: int) -> Timeline:
    """Train, remove channels, cut them out of the network, fine-tune the small one (Li et al. 2017)."""
    cut = Prune(method, to(sparsity, method))
    return [Train(epochs), cut, Shrink(), Measure("pruned"), Train(fine_tune), Measure("fine-tuned")]


def l0(strength: float, epochs: int, fine_tune: int) -> Timeline:
    """Train with gates, remove what the gates have shut, fine-tune (Louizos et al. 2018)."""
    cut = Prune("l0", Budget(below=0.0, of="channels"))
    return [Train(epochs, penalty=("l0", strength)), cut, Measure("pruned"), Train(fine_tune), Measure("fine-tuned")]


def to(sparsity: float, method: str | Method) -> Budget:
    """The budget that removes this fraction of what ``method`` prunes."""
    return Budget(sparsity, of="channels" if as_method(method).unit == "channel" else "weights")


RECIPES: dict[str, Callable[..., Timeline]] = {
    function.__name__: function
    for function in (
        dense,
        prune_and_fine_tune,
        iterative,
        before_training,
        lottery_ticket,
        prune_and_shrink,
        l0,
    )
}


def recipe(name: str, *arguments, **options) -> Timeline:
    """The timeline of that name; see RECIPES for the functions and what they take."""
    return RECIPES[known_name("recipe", name, RECIPES)](*arguments, **options)
