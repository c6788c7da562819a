"""The learning-rate schedule of How Sparse's official code, which steps with every iteration, as a pure function of the step.

It stands beside ``optimizers.LearningRate`` and has the same ``factor``. Source: the official code of zhang2024howsparse.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pruning_core.checks import Constraints, OneOf, Real, Several, Whole, check_fields
from pruning_core.errors import BadInput


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

    constraints = Constraints(
        kind=OneOf("multistep", "cosine", kind="learning-rate schedule"),
        warmup=Whole(at_least=0),
        milestones=Several(Whole(at_least=1)),
        gamma=Real(at_least=0),
    )

    kind: Literal["multistep", "cosine"]
    warmup: int = 0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self)
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
