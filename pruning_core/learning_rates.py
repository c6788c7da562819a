"""A learning-rate schedule with warm-up, milestones and cool-down, as SiPP and PFP train; a pure function of the step.

It stands beside ``optimizers.LearningRate`` and has the same ``factor``. Source: the official code of baykal2019sipp and
liebenwein2020pfp.
"""

from dataclasses import dataclass

from .errors import BadInput, BadType
from .optimizers import number_at_least_zero


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
