"""Adversarial attacks on a network, pruned or not: how often do they turn an image, at which size of the disturbance?

The attacks are those of the library foolbox (an extra: ``pip install 'pruning-core[attacks]'``), with its defaults, which are
the ones of SNIP-it's code (Verdenius et al. 2020, verdenius2020snipit). Disturbances are measured in the space that the
network sees: normalised images, not pixels.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.checks import Constraint, Flag, Maybe, Real, Several, Whole, check, check_finite, checked, one_form
from pruning_core.errors import BadInput, BadType, PruningError, known_name, said, shown
from pruning_core.models.calls import like_model, logits, tried
from pruning_core.models.modes import to_evaluation, undisturbed
from pruning_core.models.ready import check_numbers
from pruning_core.training.first_look import check_labels


class AttackInfo(NamedTuple):
    """``kind``: foolbox's class; ``norm``: in which epsilon is measured; ``steps``: its name for the number of steps."""

    kind: str
    norm: Literal["l1", "l2", "linf"]
    steps: str | None
    about: str


ATTACKS: dict[str, AttackInfo] = {
    "fgsm": AttackInfo("FGSM", "linf", None, "one step along the sign of the gradient"),
    "pgd": AttackInfo("LinfPGD", "linf", "steps", "40 projected steps from a random start"),
    "l1_fgm": AttackInfo("L1FastGradientAttack", "l1", None, "one step along the gradient, scaled to L1 length"),
    "deepfool": AttackInfo("L2DeepFoolAttack", "l2", "steps", "50 steps to the nearest linearised boundary"),
    "carlini_wagner": AttackInfo("L2CarliniWagnerAttack", "l2", "steps", "9 searches of up to 10,000 steps of Adam"),
    "ddn": AttackInfo("DDNAttack", "l2", "steps", "100 steps, direction and length apart"),
    "salt_and_pepper": AttackInfo("SaltAndPepperNoiseAttack", "l2", "steps", "1,000 draws of black and white pixels"),
    "gaussian_noise": AttackInfo("L2RepeatedAdditiveGaussianNoiseAttack", "l2", "repeats", "100 draws of noise"),
}
"""Name -> foolbox's attack. Gradient-free ones are random; a seed fixes them."""


@dataclass(frozen=True)
class AttackResult:
    """What an attack did to ``n`` images, for each of ``epsilons``; shares are in [0, 1].

    ``success``: images that the network gets wrong now, those that it got wrong before included (unless they were left
    out); ``agreement``: predictions that are still the clean ones; ``distance``: mean L2 length of the disturbance.
    """

    attack: str
    epsilons: tuple[float, ...]
    success: tuple[float, ...]
    agreement: tuple[float, ...]
    distance: tuple[float, ...]
    clean_accuracy: float
    n: int

    def rows(self) -> list[dict[str, Any]]:
        """One dict an epsilon: epsilon, attack_success, agreement, distance, accuracy (percent, of the clean images)."""
        clean = {"accuracy": 100 * self.clean_accuracy, "n": self.n}
        each = zip(self.epsilons, self.success, self.agreement, self.distance, strict=True)
        return [{"epsilon": e, "attack_success": s, "agreement": a, "distance": d} | clean for e, s, a, d in each]


@checked(bounds=None)
def attack(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    name: str,
    *,
    epsilons: Sequence[float],
    bounds: Literal["batch"] | tuple[float, float] = "batch",
    steps: int | None = None,
    targeted: int | None = None,
    exclude_wrong: bool = False,
    seed: int = 0,
) -> AttackResult:
    """Attack ``model`` (evaluation mode) on ``inputs`` (N, ...) with ``labels`` (N,); works on any classifier.

    Args:
        name: one of ``ATTACKS``.
        epsilons: sizes of the disturbance, rising from 0 or more, in the attack's norm.
        bounds: between which values an attacked image must lie; "batch": the least and the largest of ``inputs``.
        steps: how many the attack takes; None for its own (Carlini and Wagner's 10,000 take minutes, 300 do for a look).
        targeted: the class that images shall be taken for; None: any wrong one. ``success`` then counts that class.
        exclude_wrong: leave out images that the network gets wrong without any attack.
        seed: of the random starts and the noise.

    The network, its gradients and all random states are left as they were. Raises UnknownName, BadType or BadInput
    before any work: for bounds that do not hold the images, a network that puts out NaN, a step count of an attack that
    takes none, a missing foolbox.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    >>> found = attack(network, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), "fgsm", epsilons=[0.0, 0.1])
    >>> type(found).__name__
    'AttackResult'
    """
    info = ATTACKS[known_name("attack", name, ATTACKS)]
    sizes = tuple(map(float, check("epsilons", epsilons, Several(Real(at_least=0), at_least=1, rising=True))))
    seed = check("seed", seed, Whole(at_least=0))
    options = _options(name, info, steps)
    if not isinstance(inputs, Tensor) or len(inputs) == 0 or len(inputs) != len(labels):
        raise BadInput("an attack needs images and as many labels, at least one.")
    foolbox = _foolbox()
    made = getattr(foolbox.attacks, info.kind)(**options)
    check_numbers(model)
    check_finite(model)
    inputs, labels = like_model(model, inputs, labels)
    limits = _checked_bounds(bounds, inputs)
    with undisturbed(model), _other_random_states(seed):
        to_evaluation(model)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        predicted = _predicted(model, inputs, labels, targeted)
        right = predicted == labels
        if exclude_wrong:
            if not bool(right.any()):
                raise BadInput("the network gets every image wrong; with exclude_wrong there is nothing to attack.")
            inputs, labels, predicted = inputs[right], labels[right], predicted[right]
        wrapped = foolbox.PyTorchModel(model, bounds=limits, device=inputs.device)
        goal: Any = foolbox.criteria.Misclassification(labels)
        if targeted is not None:
            goal = foolbox.criteria.TargetedMisclassification(torch.full_like(labels, targeted))
        try:
            _, attacked, turned = made(wrapped, inputs, goal, epsilons=list(sizes))
        except (PruningError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of foolbox, or of the network: a tensor that has no gradient
            raise BadInput(f"attack {name!r} cannot be made here: {said(error)}") from error
        with torch.no_grad():
            agreement = tuple(_share(tried(model, x).argmax(1) == predicted) for x in attacked)
        distance = tuple(float((x - inputs).flatten(1).norm(dim=1).mean()) for x in attacked)
    return AttackResult(name, sizes, tuple(map(_share, turned)), agreement, distance, _share(right), len(inputs))


def _share(true: Tensor) -> float:
    return float(true.double().mean())


def _options(name: str, info: AttackInfo, steps: int | None) -> dict[str, int]:
    """foolbox's word for the number of steps, where one is given."""
    if steps is None:
        return {}
    steps = check("steps", steps, Whole(at_least=1))
    if info.steps is None:
        raise BadInput(f"attack {name!r} takes one step; steps={steps} has no meaning for it.")
    return {info.steps: steps}


_OPTIONS: dict[str, Constraint] = {
    "steps": Maybe(Whole(at_least=1)),
    "targeted": Maybe(Whole(at_least=0)),
    "exclude_wrong": Flag(),
}


def attack_options(name: str, options: Any) -> tuple[tuple[str, Any], ...]:
    """Options of :func:`attack`, given as pairs or as a mapping, checked and in the one order and form that is kept.

    >>> attack_options("pgd", {"steps": 20, "bounds": [0, 1]})
    (('bounds', (0.0, 1.0)), ('steps', 20))
    """
    try:
        given = dict(options)
    except (TypeError, ValueError):
        raise BadType(f"options of an attack are pairs (name, value), and not {shown(options)}.") from None
    kept: dict[str, Any] = {}
    for option, value in given.items():
        known_name("option of an attack", option, [*_OPTIONS, "bounds"])
        if option != "bounds":
            kept[option] = check(option, value, _OPTIONS[option])
        elif isinstance(value, str):
            kept[option] = known_name("kind of bounds", value, ["batch"])
        else:
            pair = Several(Real(), at_least=2, at_most=2)
            kept[option] = one_form(check("bounds", value, pair), pair)
    _options(name, ATTACKS[name], kept.get("steps"))
    return tuple(sorted(kept.items()))


def _checked_bounds(bounds, inputs: Tensor) -> tuple[float, float]:
    least, most = float(inputs.min()), float(inputs.max())
    if not np.isfinite([least, most]).all():
        raise BadInput("the images hold NaN or infinite values.")
    if isinstance(bounds, str):
        known_name("kind of bounds", bounds, ["batch"])
        bounds = least, most
    low, high = map(float, bounds)
    if not low < high:
        raise BadInput(f"the lower bound must lie below the upper one, not {low} and {high}.")
    if least < low or most > high:
        raise BadInput(f"the images run from {least:.4g} to {most:.4g}, beyond the bounds {low:.4g} and {high:.4g}.")
    return low, high


def _predicted(model: nn.Module, inputs: Tensor, labels: Tensor, targeted: int | None) -> Tensor:
    """The classes that the network takes the images for, (N,)."""
    with torch.no_grad():
        outputs = logits(tried(model, inputs))
    check_labels(outputs, labels)
    if not torch.isfinite(outputs).all():
        raise BadInput("the network puts out NaN or infinite values; it cannot be attacked.")
    check("targeted", targeted, Maybe(Whole(at_least=0, at_most=outputs.shape[1] - 1)))
    return outputs.argmax(1)


def _foolbox():
    try:
        import foolbox
    except ImportError as error:
        raise BadInput("attacks need the library foolbox: pip install 'pruning-core[attacks]' brings it.") from error
    return foolbox


@contextmanager
def _other_random_states(seed: int) -> Iterator[None]:
    """Attacks draw from torch, and may draw from numpy and random; torch's state is restored by ``undisturbed``."""
    state, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numbers)  # noqa: NPY002
