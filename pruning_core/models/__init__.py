"""Networks by name: ``build_model("resnet20", "cifar10", seed=0)``; the families stand in ``zoo``."""

from pruning_core.models.build import MODELS, build_model, rebuild
from pruning_core.models.zoo.base import ModelInfo

__all__ = ["MODELS", "ModelInfo", "build_model", "rebuild"]
