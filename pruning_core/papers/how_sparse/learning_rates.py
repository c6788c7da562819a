"""Learning-rate schedules of official codes, as pure functions of the step: SiPP's and PFP's with warm-up, milestones and
cool-down, and How Sparse's, which steps with every iteration.

They stand beside ``optimizers.LearningRate`` and have the same ``factor``. Sources: the official codes of baykal2019sipp,
liebenwein2020pfp and zhang2024howsparse.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pruning_core.errors import BadInput
from pruning_core.errors import BadType
from pruning_core.errors import known_name
from pruning_core.optimizers import number_at_least_zero


@dataclass(frozen=True)
class WarmUpCoolDown:
    """The factor on the learning rate, and the momentum that may move against it.

    ``milestones`` (completed epochs) multiply the factor by ``gamma`` each. In the first ``warmup`` epochs the factor is at
    most a line from 0 to 1; in the ``cooldown`` epochs behind them it is at least a line from 1 to 0. With both above 0,
    the momentum falls from ``m + momentum_shift`` to ``m - momentum_shift`` in the warm-up, rises again in the cool-down
    and then stays at ``m + momentum_shift``; otherwise it does not move. Raises BadType or BadInput.
    """

    warmup: float = 0
    cooldown: float = 0
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    momentum_shift: float = 0.0

    def __post_init__(self) -> None:
        for field in ("warmup", "cooldown", "gamma", "momentum_shift"):
            number_at_least_zero(field, getattr(self, field))
        if isinstance(self.milestones, str) or not hasattr(self.milestones, "__iter__"):
            raise BadType(f"milestones are a tuple of epochs, not {self.milestones!r}.")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a list would not be hashable
        for milestone in self.milestones:
            number_at_least_zero("a milestone", milestone)

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor on the learning rate at ``step``, from 0, of a training of ``epochs`` epochs of ``steps_per_epoch`` steps.

        >>> schedule = WarmUpCoolDown(warmup=2, cooldown=4, milestones=(3,), gamma=0.5)
        >>> [schedule.factor(step, 1, 8) for step in range(8)]
        [0.0, 0.5, 1.0, 0.75, 0.5, 0.5, 0.5, 0.5]
        """
        scheduled = self.gamma ** sum(milestone <= step // steps_per_epoch for milestone in self.milestones)
        rising, falling = self.warmup * steps_per_epoch, self.cooldown * steps_per_epoch
        if step < rising:
            return min(step / rising, scheduled)
        if step < rising + falling:
            return max(1 - (step - rising) / falling, scheduled)
        return scheduled

    def momentum(self, nominal: float, step: int, steps_per_epoch: int, epochs: int) -> float:
        """The momentum at ``step`` for a nominal one. Raises BadInput when the shift takes it out of [0, 1).

        >>> schedule = WarmUpCoolDown(warmup=2, cooldown=2, momentum_shift=0.25)
        >>> [schedule.momentum(0.5, step, 1, 6) for step in range(6)]
        [0.75, 0.5, 0.25, 0.5, 0.75, 0.75]
        """
        shift = self.momentum_shift if self.warmup and self.cooldown else 0.0
        if not 0 <= nominal - shift <= nominal + shift < 1:
            raise BadInput(f"a momentum of {nominal} shifted by {shift} leaves [0, 1).")
        if not shift:
            return nominal
        rising, falling = self.warmup * steps_per_epoch, self.cooldown * steps_per_epoch
        if step < rising:
            return nominal + shift - 2 * shift * step / rising
        return nominal - shift + 2 * shift * min((step - rising) / falling, 1.0)


@dataclass(frozen=True)
class SteppedPerIteration:
    """A schedule meant in epochs that moves with every iteration: what the official code of zhang2024howsparse does.

    ``milestones`` and the length of the training are numbers of epochs, but are counted in iterations: "multistep" has
    passed its milestones within the first epochs, and "cosine" swings between 1 and 0 with a period of ``2 epochs``
    iterations. ``warmup`` epochs rise linearly from 0 at the first iteration to 1. As torch's schedulers derive a rate from
    the last one, which the warm-up sets anew every time, a milestone inside it counts for a single iteration, and the cosine
    multiplies the line by the ratio of its neighbouring values: up to 4, so that the factor may exceed 1 until the first zero
    behind the warm-up. Raises UnknownName, BadType or BadInput.
    """

    kind: Literal["multistep", "cosine"]
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        known_name("learning-rate schedule", self.kind, ("multistep", "cosine"))
        number_at_least_zero("gamma", self.gamma)
        if isinstance(self.milestones, str) or not hasattr(self.milestones, "__iter__"):
            raise BadType(f"milestones are a tuple of epochs, not {self.milestones!r}.")
        object.__setattr__(self, "milestones", tuple(self.milestones))  # a list would not be hashable
        for name, least, value in (("warmup", 0, self.warmup), *(("a milestone", 1, m) for m in self.milestones)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise BadType(f"{name} must be a whole number of epochs, not {value!r}.")
            if value < least:
                raise BadInput(f"{name} must be at least {least}, not {value}.")
        if self.milestones and self.kind != "multistep":
            raise BadInput(f"milestones belong to kind='multistep', not to {self.kind!r}.")

    def factor(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor on the learning rate at ``step``, from 0, of a training of ``epochs`` epochs of ``steps_per_epoch`` steps.

        >>> schedule = SteppedPerIteration("multistep", warmup=2, milestones=(3, 5), gamma=0.5)
        >>> [schedule.factor(step, 2, 9) for step in range(7)]
        [0.0, 0.25, 0.5, 0.375, 1.0, 0.5, 0.5]
        """
        rising = self.warmup * steps_per_epoch
        line = min(step / rising, 1.0) if rising else 1.0
        last_set = min(step, rising)  # the last iteration whose rate came from the warm-up
        if self.kind == "multistep":
            return line * self.gamma ** sum(last_set <= milestone <= step for milestone in self.milestones)
        return self._cosine(step, last_set, line, max(epochs, 1))

    @staticmethod
    def _cosine(step: int, last_set: int, line: float, half_period: int) -> float:
        def wave(t: int) -> float:
            return (1 + math.cos(math.pi * (t % (2 * half_period)) / half_period)) / 2

        if last_set == 0:
            return line * wave(step)
        first_zero = last_set + (half_period - last_set) % (2 * half_period)
        if first_zero < step:  # behind a zero the recursion starts anew, with the cosine itself
            return wave(step)
        if (last_set - 1 - half_period) % (2 * half_period) == 0:
            return (line + wave(last_set)) * wave(step) / wave(last_set)
        return line * wave(step) / wave(last_set - 1)
