"""The words of a timeline: stages as values. ``play.py`` plays them; ``recipes`` makes sentences of them.

Epochs count from 1. ``Each`` and ``Repeat`` hold other stages and hand on (round, of), so that a schedule means the same
wherever a Prune stands.

>>> imp = [Train(6), Save("early"), Repeat(9, [Train(74), Prune("magnitude", 0.9), Rewind("early")]), Measure()]
>>> during = Train(80, during=Every(4, [Prune("snip", to(0.9, "snip")), Shrink()], after=4))
>>> blocks = [Load("V1"), Each("blocks", [Prune("ispasp", 0.3)]), RecalibrateBatchNorm(), Importances(), Attack("fgsm", (0.1,))]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal

from pruning_core.checks import A, Checked, Constraints, Maybe, OneOf, Real, Several, Text, Whole, check, checked
from pruning_core.errors import BadInput, BadType, known_name, shown
from pruning_core.experiments.fields import Becomes, Penalties, Penalty, patterns, penalties, scope_of
from pruning_core.experiments.importances import check_importance
from pruning_core.masks.budgets import Budget
from pruning_core.masks.schedules import SCHEDULES
from pruning_core.methods.base import Method, as_method, counted
from pruning_core.training.attacks import ATTACKS, attack_options
from pruning_core.training.evaluation import PRECISIONS
from pruning_core.training.optimizers import Optimizer, Schedule


@checked
def to(sparsity: float, method: str | Method) -> Budget:
    """The budget that removes this fraction of what ``method`` prunes."""
    return Budget(sparsity, of=counted(as_method(method)))


class _Target(Becomes[Budget | float, Budget]):
    """A budget, or the fraction removed of what the stage's method prunes."""

    def __init__(self):
        super().__init__(lambda budget: budget)

    def __set__(self, stage: Any, value: Budget | float) -> None:
        super().__set__(stage, value if isinstance(value, Budget) else to(value, stage.method))


def stages_of(given: Iterable[Stage]) -> tuple[Stage, ...]:
    return check("stages", given, Several(A(Stage, "a stage")))


@dataclass(frozen=True)
class Every(Checked):
    """Plays ``stages`` after epochs ``after + k``, ``after + 2 k``, ... of the Train stage it belongs to.

    ``after`` may be negative, as long as the first event follows an epoch. ``times`` limits how often; the rounds that a
    schedule sees are the events that really take place.
    """

    constraints = Constraints(k=Whole(at_least=1), after=Whole(), times=Maybe(Whole(at_least=1)))

    k: int
    stages: Becomes[Iterable[Stage], tuple[Stage, ...]] = Becomes(stages_of)
    after: int = 0
    times: int | None = None

    def __post_init__(self):
        super().__post_init__()
        check("after + k, the epoch of the first event,", self.after + self.k, Whole(at_least=1))

    @checked(total=Whole(at_least=0))
    def epochs(self, total: int) -> list[int]:
        """The epochs of a training of ``total`` after which the event fires."""
        return list(range(self.after + self.k, total + 1, self.k))[: self.times]


@dataclass(frozen=True)
class Train(Checked):
    """Trains for ``epochs``. What is None is taken from the experiment.

    ``penalty``: (method, strength), or several such pairs, added to the loss. ``only``: "gates" trains the gates alone,
    "weights" all but the gates; scores of weights count as gates. ``during``: events. ``keep="best_validation"`` ends with
    the weights of the best validation epoch. ``average`` in (0, 1), say 0.999: ends with an exponential moving average of
    the weights over this training's steps, bias corrected. ``precision="bfloat16"`` computes this training under autocast;
    an experiment can say so of all its trainings.
    """

    constraints = Constraints(
        epochs=Whole(at_least=0),
        only=Maybe(OneOf("gates", "weights", kind="part to train")),
        during=Maybe(A(Every)),
        keep=OneOf("last", "best_validation", kind="epoch to keep"),
        optimizer=Maybe(A(Optimizer)),
        learning_rate=Maybe(A(Schedule, "a schedule such as LearningRate('cosine')")),
        batch_size=Maybe(Whole(at_least=1)),
        label_smoothing=Real(at_least=0, below=1),
        precision=OneOf(*PRECISIONS),
        average=Maybe(Real(above=0, below=1)),
    )

    epochs: int
    penalty: Becomes[Penalty | Iterable[Penalty] | None, Penalties] = Becomes(penalties, default=None)
    only: Literal["gates", "weights"] | None = None
    during: Every | None = None
    keep: Literal["last", "best_validation"] = "last"
    optimizer: Optimizer | None = None
    learning_rate: Schedule | None = None
    batch_size: int | None = None
    label_smoothing: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    average: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.average is not None and self.keep != "last":
            raise BadInput("a training ends with its average or with its best epoch, not with both.")
        if self.during is not None and not self.during.epochs(self.epochs):
            raise BadInput(
                f"an event every {self.during.k} epochs after epoch {self.during.after} never takes place in {self.epochs}."
            )
        if self.during is not None and self.keep != "last":
            raise BadInput("a training that prunes on its way keeps its last weights: earlier ones are less sparse.")


@dataclass(frozen=True)
class Prune(Checked):
    """Prunes to ``budget`` (a Budget, or the fraction removed of what the method prunes), in ``rounds`` rounds.

    With one round inside a Repeat or Every the schedule follows their rounds. ``scope`` as in prune().
    ``batches``: the split that methods look at, ``samples`` of it at random.
    """

    constraints = Constraints(
        rounds=Whole(at_least=1),
        batches=OneOf("train", "score", kind="split for scoring"),
        samples=Whole(at_least=1),
        batch_size=Whole(at_least=1),
    )

    method: Becomes[str | Method, Method] = Becomes(as_method)
    budget: Becomes[Budget | float, Budget] = _Target()
    rounds: int = 1
    schedule: str | Callable[..., float] = "one_shot"
    scope: Becomes[str | Iterable[str] | None, tuple[str, ...] | None] = Becomes(scope_of, default=None)
    batches: Literal["train", "score"] = "train"
    samples: int = 640
    batch_size: int = 128

    def __post_init__(self):
        if not callable(self.schedule):
            known_name("schedule", self.schedule, SCHEDULES)
        elif not is_dataclass(self.schedule) or isinstance(self.schedule, type):
            raise BadType(
                "a schedule of your own is an object of a frozen dataclass that can be called, or the name of a function in "
                f"masks.SCHEDULES, not {shown(self.schedule)}."
            )
        super().__post_init__()
        self.method.check_budget(self.budget)


@dataclass(frozen=True)
class Save(Checked):
    """Keeps the weights of now under ``label``. "init" is always there."""

    constraints = Constraints(label=Text())

    label: str

    def __post_init__(self):
        super().__post_init__()
        if self.label == "new":
            raise BadInput(
                "'new' stands for fresh random weights, which a Rewind would put back; save under another label."
            )


@dataclass(frozen=True)
class Load(Checked):
    """Takes over weights that torchvision publishes for one of its networks, by their name there: "IMAGENET1K_V1".

    They are downloaded once and checked against their published hash; nothing but tensors is read from the file.
    ``classes``: for a network with fewer outputs, which of the published classes they are (data.IMAGENETTE_CLASSES).
    """

    constraints = Constraints(weights=Text(), classes=Maybe(Several(Whole(at_least=0), at_least=1)))

    weights: str
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Rewind(Checked):
    """Puts back weights: those saved as ``to``, or fresh random ones ("new"). What is pruned stays pruned.

    ``what="weights"`` touches the prunable weights only, "all" also biases, norms and buffers.
    """

    constraints = Constraints(to=Text(), what=OneOf("weights", "all", kind="part to rewind"))

    to: str = "init"
    what: Literal["weights", "all"] = "all"


@dataclass(frozen=True)
class Shrink(Checked):
    """Cuts dead channels out. Inside ``during`` the optimizer state is cut along, unless ``fresh_optimizer``."""

    fresh_optimizer: bool = False


@dataclass(frozen=True)
class RecalibrateBatchNorm(Checked):
    """Measures the running statistics of batch norm anew, on ``samples`` of the training split."""

    constraints = Constraints(samples=Whole(at_least=1))

    samples: int = 1024


@dataclass(frozen=True)
class Measure(Checked):
    """Adds a row to the record: accuracy, sparsity, sizes, costs so far."""

    constraints = Constraints(label=Text())

    label: str = "final"


@dataclass(frozen=True)
class Importances(Measure):
    """A Measure that also says how the channels' importances by ``method`` are spread (importances.spread).

    The method must score channels by their weights alone, as those do that rank by batch-norm scales.
    """

    method: Becomes[str | Method, Method] = Becomes(check_importance, default="ucs")


@dataclass(frozen=True)
class Attack(Checked):
    """Adds a row an epsilon: how often an adversarial attack turns ``samples`` test images (see attacks.attack).

    Attacks decide nothing: the network goes on as it was. ``options`` are those of attacks.attack, as pairs.
    """

    constraints = Constraints(
        name=OneOf(*ATTACKS, kind="attack"),
        epsilons=Several(Real(at_least=0), at_least=1, rising=True),
        samples=Whole(at_least=1),
        label=Text(),
    )

    name: str
    epsilons: tuple[float, ...]
    samples: int = 512
    options: tuple[tuple[str, Any], ...] = ()
    label: str = "attack"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "options", attack_options(self.name, self.options))


@dataclass(frozen=True)
class Each:
    """Plays ``stages`` once for each part of the network, from front to back, their scope narrowed to that part.

    ``parts``: "blocks" (residual blocks: this book's, torchvision's, and every module with ``is_block = True``), "groups"
    (channel groups), or patterns on layer names. Blocks and groups that a Prune among the stages could not prune are passed
    over.
    """

    parts: Becomes[str | Iterable[str], str | tuple[str, ...]] = Becomes(patterns)
    stages: Becomes[Iterable[Stage], tuple[Stage, ...]] = Becomes(stages_of)

    def __post_init__(self):
        if isinstance(self.parts, str):
            known_name("parts of a network", self.parts, ("blocks", "groups"))


@dataclass(frozen=True)
class Repeat(Checked):
    """Plays ``stages`` ``n`` times."""

    constraints = Constraints(n=Whole(at_least=1))

    n: int
    stages: Becomes[Iterable[Stage], tuple[Stage, ...]] = Becomes(stages_of)


Stage = Train | Prune | Save | Load | Rewind | Shrink | RecalibrateBatchNorm | Measure | Attack | Each | Repeat
