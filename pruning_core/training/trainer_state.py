"""What a training must keep in order to go on: masks, optimizer state, best epoch, and how they are saved, restored and cut."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import A, Constraints, Maybe, Real, Whole, check, checked
from pruning_core.data.feeds import Feed
from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType, shown
from pruning_core.masks.masks import Masks
from pruning_core.models.calls import tensors_of
from pruning_core.models.modes import own_random_numbers
from pruning_core.records.checkpoints import describe, describe_whole, join_parts, split_parts
from pruning_core.records.rows import Rows
from pruning_core.training.averaging import WeightAverage
from pruning_core.training.optimizers import Optimizer, load_optimizer_state, optimizer_state, trained_by

FORMAT = "training 1"
STORED = Constraints(
    epoch=Whole(0, 2**53), history=Rows(), best=Maybe(A(dict, "a mapping")), steps_averaged=Whole(0, 2**53)
)
"""What the state of a training holds beside its tensors."""
BEST = Constraints(epoch=Whole(at_least=1), validation_accuracy=Real(infinite=True))


def lay_out(model: nn.Module, channels_last: bool) -> None:
    """With ``channels_last``, lay the weights of convolutions out with the channels innermost, in place."""
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class TrainerState:
    """The part of a Trainer that outlives an epoch; :class:`.trainer.Trainer` fills it and makes the steps."""

    model: nn.Module
    settings: Optimizer
    only: Callable[[str], bool] | None
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    epoch: int = 0  # completed ones
    history: list[dict[str, Any]]
    keep: str
    metric: Any
    steps: int | None
    channels_last: bool
    best: dict[str, Any] | None = None  # {"epoch", "validation_accuracy", "state"}
    average: WeightAverage | None
    _checked: tuple[Any, ...] = ()  # what was looked at, and whether its labels are classes

    @property
    def masks(self) -> Masks:
        """What is alive; setting it zeroes the dead weights, and their momentum and moments, at once."""
        return self._masks

    @masks.setter
    def masks(self, masks: Mapping[str, Tensor]) -> None:
        masks = masks if isinstance(masks, Masks) else Masks(masks)
        masks.apply_(self.model)
        self._masks = masks
        trained = set(map(id, trained_by(self.optimizer)))
        self._pruned: list[tuple[nn.Parameter, Tensor]] = []
        for name, parameter in self.model.named_parameters():
            if name in masks and id(parameter) in trained and not bool(masks[name].all()):
                # A factor laid out like the parameter: the fast path of _foreach_mul_ needs equal strides.
                alive = torch.empty_like(parameter, requires_grad=False).copy_(masks[name])
                self._pruned.append((parameter, alive))
                for entry in self.optimizer.state.get(parameter, {}).values():
                    if isinstance(entry, Tensor) and entry.shape == alive.shape:
                        entry.mul_(alive)

    def restore_best(self) -> int | None:
        """Put back the weights of the best validation epoch and return it (from 1); None when none was remembered."""
        if self.best is None:
            return None
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(self.best["state"][name])
        return self.best["epoch"]

    def take_average(self) -> None:
        """Put the moving average of the weights into the network, bias corrected and masked; nothing without one."""
        if self.average is not None:
            self.average.put_into(self.model)
            self._masks.apply_(self.model)

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that going on needs: (tensors, JSON-able information), ready for ``checkpoints.save_tensors(path, *state)``."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "model": self.model.state_dict(),
            "mask": self._masks,
            "optimizer": optimizer_state(self.model, self.optimizer),
            "best": self.best["state"] if self.best else {},
            "average": self.average.sums if self.average else {},
        }
        tensors = join_parts(parts)
        tensors["generator"] = self.generator.get_state()
        best = self.best and {key: self.best[key] for key in ("epoch", "validation_accuracy")}
        info = {"kind": FORMAT, "epoch": self.epoch, "history": self.history, "best": best}
        return tensors, info | {"steps_averaged": self.average.steps if self.average is not None else 0}

    def load_state_dict(self, state: tuple[Mapping[str, Tensor], Mapping[str, Any]]) -> None:
        """Go back to a state of ``state_dict()``; what follows is then the same bit for bit (on the CPU).

        Raises BadInput, before anything is changed, when the state is of another kind or does not fit the network.
        """
        tensors, info = _state(state)
        parts = split_parts(tensors)
        own = self.model.state_dict()
        _check_fit("", own, parts.get("model", {}))
        if info["best"] is not None:
            _check_fit("best ", own, parts.get("best", {}))
        sums = parts.get("average", {})  # of some parameters only, where others joined the network later
        _check_fit("average ", {name: p for name, p in self.model.named_parameters() if name in sums}, sums)
        masks = Masks(parts.get("mask", {})).check(self.model)
        generator = _generator(tensors["generator"])
        weights = parts.get("model", {})
        load_optimizer_state(self.model, self.optimizer, parts.get("optimizer", {}))
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(weights[name])
        self.masks = masks
        self.generator.set_state(generator)
        self.epoch = info["epoch"]
        self.history = [dict(row) for row in info["history"]]
        self.best = info["best"] and {**info["best"], "state": parts.get("best", {})}
        if self.average is not None:
            device = next(self.model.parameters()).device
            self.average.load(sums, info["steps_averaged"], device)

    @checked
    def slice_state(self, kept: Any, model: nn.Module) -> None:
        """Go on with ``model``, the smaller network that a removal of channels left: masks and optimizer state are cut alike.

        ``kept.slice(name, tensor)`` cuts a tensor of the old parameter ``name``. A remembered best epoch is forgotten: its
        weights belong to the larger network. Parameters that the old network did not have start with fresh state.
        """
        if not callable(getattr(kept, "slice", None)):
            raise BadType(f"kept must be what a removal of channels returns, not {shown(kept)}.")
        old = {name: parameter.shape for name, parameter in self.model.named_parameters()}
        names = {name for name, _ in model.named_parameters() if name in old}
        stepped = {}
        for key, entry in optimizer_state(self.model, self.optimizer).items():
            name = key.partition(":")[2]
            if name in names:
                stepped[key] = kept.slice(name, entry) if entry.shape == old[name] else entry
        masks = {name: kept.slice(name, mask) for name, mask in self._masks.items() if name in names}
        if self.average is not None:
            self.average.slice(kept, names)
        self.model, self.best, self._checked = model, None, ()
        lay_out(model, self.channels_last)
        self.optimizer = self.settings.build(model, self.only)
        load_optimizer_state(model, self.optimizer, stepped)
        self.masks = Masks(masks)

    def description(self, split: Split | Feed) -> dict[str, Any]:
        """Settings, weights and data of this run as JSON: what tells its checkpoint from another's. Of batches that a loader
        makes, only number and shapes are known, since it may draw others each time."""
        if isinstance(split, Feed):
            with own_random_numbers(self.model):
                shapes = [list(tensor.shape[1:]) for tensor in tensors_of(split.first())]
            data = [split.steps(), shapes]
        else:
            inputs, labels = next(iter(split.batches(min(16, len(split)))))
            augmentation = describe(getattr(split, "augmentation", None))
            data = [len(split), describe(inputs), describe(getattr(split, "labels", labels)), augmentation]
        names = "settings learning_rate epochs batch_size loss penalty only precision channels_last seed keep shuffle"
        settings = {name: describe(getattr(self, name)) for name in names.split()}
        settings |= {name: describe_whole(getattr(self, name)) for name in ("loss", "penalty")}
        if self.metric != "accuracy" or self.steps is not None:
            settings |= {"metric": describe(self.metric), "steps": self.steps}
        settings["average"] = self.average and self.average.factor
        masks = describe({name: self._masks[name] for name in sorted(self._masks)})
        return settings | {"masks": masks, "initial weights": describe(self.model.state_dict()), "data": data}

    def _remember_best(self, accuracy: float) -> None:
        if self.keep == "best_validation" and (self.best is None or accuracy > self.best["validation_accuracy"]):
            state = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
            self.best = {"epoch": self.epoch, "validation_accuracy": accuracy, "state": state}


def _state(given: Any) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """What ``state_dict`` gave; BadInput for anything else."""
    match given:
        case (Mapping() as tensors, Mapping() as info) if info.get("kind") == FORMAT:
            whole = STORED.keys() <= info.keys() and "generator" in tensors
            if whole and all(isinstance(name, str) and isinstance(t, Tensor) for name, t in tensors.items()):
                found = {name: check(f"the {name} of a saved training", info[name], STORED[name]) for name in STORED}
                for name, constraint in BEST.items() if found["best"] is not None else ():
                    check(f"the {name} of the best epoch of a saved training", found["best"].get(name), constraint)
                return tensors, found
    raise BadInput("this is not the state of a training, as state_dict() gives it.")


def _check_fit(what: str, own: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """BadInput unless the saved tensors have the names, shapes and kinds of numbers of the network's own, and are finite."""
    for name in sorted(own.keys() | saved.keys()):
        fits = name in own and name in saved and own[name].shape == saved[name].shape
        if not fits or own[name].dtype != saved[name].dtype:
            raise BadInput(f"the saved {what}training is one of another network: {name} does not fit.")
        if saved[name].is_floating_point() and not bool(saved[name].isfinite().all()):
            raise BadInput(f"the saved {what}training holds NaN or infinite values in {name}.")


def _generator(state: Tensor) -> Tensor:
    """The state of a generator of random numbers, if it is one that torch takes."""
    try:
        torch.Generator().set_state(state)
    except (RuntimeError, TypeError) as error:
        raise BadInput("the generator of a saved training is none of torch.") from error
    return state
