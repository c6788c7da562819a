"""The numbers that the code of SiPP and PFP sends to TensorBoard, under its names (liebenwein2020pfp, as implemented)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pruning_core.checks import A, checked
from pruning_core.training.trainer import Trainer

STEPS = 10_000
"""What an axis of retained fractions is multiplied by there: steps of TensorBoard are whole numbers."""


@checked(example=A(Tensor))
class SippTags:
    """What the code of SiPP and PFP sends to TensorBoard: ``Watch(folder, tags=SippTags)``.

    After each epoch of the first training TrainingLoss, TrainingAcc1, TrainingTestLoss, TrainingTestAcc1 and
    TrainingTestAcc5 (accuracies as fractions; Test: here of the validation split), as Retraining... once something is
    pruned. At each Measure "Test Error param", "Top 5 Test Error param" and "Test Loss param" (errors in percent), with
    10,000 times the fraction of weights that is left as the step, and the same as "... flops" of multiply-accumulates; the
    histogram "Percentage of Sample Budget Per Layer" says how the weights that are left lie in the layers, with the same step.
    The settings are a text, "parameters".

    >>> row = {"accuracy": 92.5, "loss": 0.3, "sparsity": 0.8, "macs_removed": 0.6}
    >>> SippTags.measured(row)["Test Error param"]
    (7.5, 2000)
    """

    def __init__(self, model: nn.Module, example: Tensor, samples: int):
        self._size = sum(parameter.numel() for parameter in model.parameters())

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        row = trainer.history[-1]
        smaller = sum(parameter.numel() for parameter in trainer.model.parameters()) < self._size
        kind = "Retraining" if smaller or trainer.masks.sparsity > 0 else "Training"
        shares = {"Acc1": "train_accuracy", "TestAcc1": "validation_accuracy", "TestAcc5": "validation_accuracy5"}
        tags = {name: row[column] / 100 for name, column in shares.items() if column in row}
        losses = {"Loss": "train_loss", "TestLoss": "validation_loss"}
        tags |= {name: row[column] for name, column in losses.items() if column in row}
        return {f"{kind}{name}": value for name, value in tags.items()}

    @staticmethod
    def texts(model: nn.Module, settings: str) -> dict[str, str]:
        """Tag -> what stands at the beginning of a log."""
        return {"parameters": settings}

    @staticmethod
    def budgets(row: Mapping[str, Any]) -> dict[str, tuple[Tensor, int]]:
        """Tag -> (percentages of the weights that are left, a layer each, step), of the row of a Measure.

        >>> SippTags.budgets({"by_layer": "fc1:30/100:2/2 fc2:10/20:2/2", "sparsity": 2 / 3})
        {'Percentage of Sample Budget Per Layer': (tensor([75., 25.]), 3333)}
        """
        left = [int(layer.split(":")[-2].partition("/")[0]) for layer in str(row["by_layer"]).split()]
        shares = 100 * torch.tensor(left, dtype=torch.float32) / max(sum(left), 1)
        return {"Percentage of Sample Budget Per Layer": (shares, round(STEPS * (1 - row["sparsity"])))}

    @staticmethod
    def measured(row: Mapping[str, Any]) -> dict[str, tuple[float, int]]:
        """Tag -> (value, step), of the row of a Measure."""
        values = {"Test Error": 100 - row["accuracy"], "Test Loss": row["loss"]}
        if "accuracy5" in row:
            values["Top 5 Test Error"] = 100 - row["accuracy5"]
        left = {"param": 1 - row["sparsity"], "flops": 1 - row["macs_removed"]}
        return {f"{n} {axis}": (v, round(STEPS * kept)) for n, v in values.items() for axis, kept in left.items()}
