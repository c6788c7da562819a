"""The numbers that SNIP-it's code sends to TensorBoard, under its names (verdenius2020snipit, as implemented)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import Whole, check, checked
from pruning_core.experiments.observers import watched_weights
from pruning_core.masks.reports import dead_units
from pruning_core.methods.l0 import L0
from pruning_core.models.layers.gates import HardConcreteGate
from pruning_core.papers.snipit.counts import compressed_bits, harmonic_mean, reference_flops
from pruning_core.papers.snipit.pictures import official_histograms, official_pictures
from pruning_core.training.trainer import Trainer


@checked(example=None)
class OfficialTags:
    """What SNIP-it's code sends to TensorBoard: ``Watch(folder, tags=OfficialTags)``, or ``TensorBoard(also=...)`` of fit().

    acc/train, acc/test (here: of the validation split, where there is one), loss/train, loss/test, sparse/weight, sparse/node,
    sparse/hm, sparse/log_disk_size, time/batch_time, time/flops_per_sample, time/flops_log_cum, cuda/ram_footprint, norm/l0
    of a network with gates (how many weights are expected to be in use). time/gpu_time is batch_time here. FLOPs
    are those of ``counts.reference_flops``, forward passes only. A Watch with ``histograms`` or ``pictures`` adds those of
    the official code (papers/snipit/pictures.py) under its names, and its texts. ``example``: one input; ``model``: as it
    starts.

    >>> import pruning_core as pc
    >>> digits, network = pc.load_data("digits"), pc.build_model("lenet300", "digits", seed=0, width=0.1)
    >>> OfficialTags(network, torch.zeros(1, 1, 8, 8), samples=len(digits.train)).samples
    1152
    """

    def __init__(self, model: nn.Module, example: Tensor, samples: int):
        self.samples, self.cumulative = check("samples", samples, Whole(at_least=1)), 0.0
        reference_flops(model, example)  # refuses an example that cannot be counted now, not after an epoch
        self.example = example[:1]
        self._weights = sum(weight.numel() for weight in watched_weights(model).values())
        self._units = self._living_units(model, {})

    def go_on(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Count on from the rows of earlier epochs, as a Watch has written them."""
        counted = [row.get("time/flops_per_sample") for row in rows]
        self.cumulative = sum(flops for flops in counted if isinstance(flops, int | float)) * self.samples

    histograms = staticmethod(official_histograms)
    pictures = staticmethod(official_pictures)

    @staticmethod
    def texts(model: nn.Module, settings: str) -> dict[str, str]:
        """Tag -> what stands at the beginning of a log."""
        return {"args": settings, "architecture": str(model)}

    @staticmethod
    def _living_units(model: nn.Module, masks: Mapping[str, Tensor]) -> int:
        """Outputs of all layers but the last that have a living weight."""
        dead = dead_units(model, masks)
        return sum(len(weight) - dead[name] for name, weight in list(watched_weights(model).items())[:-1])

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        model, last = trainer.model, trainer.history[-1]
        flops = reference_flops(model, self.example)
        self.cumulative += flops * self.samples
        kept = sum(int(torch.count_nonzero(weight)) for weight in watched_weights(model).values())
        sparsity = (self._weights - kept) / self._weights
        accuracy = last.get("validation_accuracy", last["train_accuracy"])
        tags = {
            "acc/train": last["train_accuracy"] / 100,
            "loss/train": last["train_loss"],
            "sparse/weight": sparsity,
            "sparse/node": 1 - self._living_units(model, trainer.masks) / self._units if self._units else 0.0,
            "sparse/hm": harmonic_mean(sparsity, accuracy),
            "sparse/log_disk_size": math.log(compressed_bits(model)),
            "time/batch_time": last["seconds"] / -(-self.samples // trainer.batch_size),
            "time/flops_per_sample": float(flops),
            "time/flops_log_cum": math.log10(self.cumulative),
        }
        if "validation_accuracy" in last:
            tags |= {"acc/test": last["validation_accuracy"] / 100, "loss/test": last["validation_loss"]}
        if any(isinstance(module, HardConcreteGate) for module in model.modules()):
            tags["norm/l0"] = float(L0().penalty(model, trainer.masks).detach())
        if next(model.parameters()).is_cuda:
            tags["cuda/ram_footprint"] = float(torch.cuda.max_memory_allocated())
        return tags
