"""Models: the networks of the papers by name, the layers they are made of, and what they cost."""

from pruning_core.models.build import MODELS, build_model, rebuild
from pruning_core.models.zoo.base import ModelInfo

__all__ = ["MODELS", "ModelInfo", "build_model", "rebuild"]
