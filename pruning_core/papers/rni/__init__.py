"""Receding Neuron Importances (Suteu and Guo 2022): where its penalty lets importances settle."""

from pruning_core.papers.rni.settling import receding_force, receding_threshold, settled

__all__ = ["receding_force", "receding_threshold", "settled"]
