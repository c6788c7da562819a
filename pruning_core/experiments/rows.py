"""What a run writes down about a network: one row a Measure, one row an epsilon of an Attack."""

from __future__ import annotations

import math
from typing import Any

import torch

from pruning_core.experiments.importances import importances, spread
from pruning_core.experiments.stages import Attack, Importances, Measure
from pruning_core.experiments.state import State
from pruning_core.masks.groups import any_alive
from pruning_core.masks.reports import make_report
from pruning_core.masks.sites import find_sites
from pruning_core.training.attacks import attack
from pruning_core.training.evaluation import evaluate


def measured(state: State, stage: Measure) -> dict[str, Any]:
    """Accuracy, sparsity, sizes and costs of the network as it is now.

    ``generalisation_gap``: accuracy on as many training images as there are test images, minus test accuracy, in points.
    ``dead_layers``: layers without a living weight; ``dead_units``: output rows without one, of the network as built.
    ``by_layer``: "layer:living weights/weights:living rows/rows", of the network as built, separated by spaces. An
    Importances stage adds what importances.spread says, and ``importance``, the method whose scores they are.
    """
    data, model = state.data, state.model
    sites = find_sites(model, channels=False, example_input=state.example)
    report = make_report("", None, "weights", state.masks, sites)
    alive = {of: report.removed[of][1] - report.removed[of][0] for of in ("weights", "macs")}
    whole = {of: sum(state.dense[of].values()) for of in ("weights", "macs")}
    test, validation = evaluate(model, data.test), evaluate(model, data.validation)
    fitted = evaluate(model, data.train.subset(min(len(data.train), len(data.test))))
    layers = _by_layer(state)
    spreads = {}
    if isinstance(stage, Importances):
        scores = importances(model, stage.method, state.example, traced=state.traced())
        spreads = {"importance": stage.method.name, **spread(torch.cat(list(scores.values())))}
    return {
        **_about(state, stage),
        "channels_removed": state.last.get("channels_removed", 0.0),
        "sparsity": 1 - alive["weights"] / whole["weights"],
        "macs_removed": 1 - alive["macs"] / whole["macs"],
        "parameters": sum(p.numel() for p in model.parameters()) - report.removed["weights"][0],
        "macs": alive["macs"],
        "training_macs": state.training_macs,
        "accuracy": test.accuracy,
        "loss": test.loss,
        "validation_accuracy": validation.accuracy,
        "validation_loss": validation.loss,
        "fitted_accuracy": fitted.accuracy,
        "generalisation_gap": fitted.accuracy - test.accuracy,
        "dead_layers": sum(weights == 0 for _, weights, _, _, _ in layers),
        "dead_units": sum(rows - living for _, _, _, living, rows in layers),
        "by_layer": " ".join(f"{name}:{alive}/{total}:{living}/{rows}" for name, alive, total, living, rows in layers),
        **spreads,
    }


def attacked(state: State, stage: Attack, seed: int) -> list[dict[str, Any]]:
    """One row an epsilon: ``attack_success`` is the share of images, in [0, 1], that the attack turns (or finds wrong)."""
    test = state.data.test
    inputs, labels = next(iter(test.batches(min(stage.samples, len(test)))))
    options = dict(stage.options)
    result = attack(state.model, inputs, labels, stage.name, epsilons=stage.epsilons, seed=seed, **options)
    about = _about(state, stage) | {"attack": stage.name, "training_macs": state.training_macs}
    return [about | row for row in result.rows()]


def _about(state: State, stage: Measure | Attack) -> dict[str, Any]:
    return {"label": stage.label, "epoch": state.epoch, "method": "dense", "asked": 0.0, "of": "weights", **state.last}


def _by_layer(state: State) -> list[tuple[str, int, int, int, int]]:
    """(layer, living weights, weights as built, living rows, rows as built); a row lives if one of its weights does."""
    found = []
    for name, total in state.dense["weights"].items():
        layer = name.rpartition(".")[0]
        shape = state.model.get_parameter(name).shape
        mask = state.masks.get(name)
        weights = math.prod(shape) if mask is None else int(torch.count_nonzero(mask))
        rows = shape[0] if mask is None else int(any_alive(mask, 0).sum())
        found.append((layer, weights, total, rows, state.dense["rows"][name]))
    return found
