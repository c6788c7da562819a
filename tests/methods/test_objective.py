"""prune(loss=...): what methods that look at labels differentiate, and labels that are no classes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, BadType
from pruning_core.methods.base import METHODS, as_method
from pruning_core.methods.shared.objective import OfClasses, statistic

LABELLED = sorted(name for name, method in METHODS.items() if method.needs == "labels")
X = torch.randn((12, 5), generator=torch.Generator().manual_seed(1)).double()
Y = torch.randn((12, 1), generator=torch.Generator().manual_seed(2)).double()
BCE = nn.BCEWithLogitsLoss()


def network(outputs: int = 1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, outputs)).double()


def masks_of(method: str, labels: torch.Tensor, loss, outputs: int = 1):
    model = as_method(method).prepare(network(outputs), X[:1])
    return pc.prune(model, method, 0.5, batches=[(X[:6], labels[:6]), (X[6:], labels[6:])], loss=loss).masks


@pytest.mark.parametrize("method", [name for name in LABELLED if name not in ("rigl", "greedy")])
def test_masks_of_a_regression_follow_its_labels(method):
    assert masks_of(method, Y, nn.MSELoss()) == masks_of(method, Y, lambda z, y: (z - y).square().mean())
    assert masks_of(method, Y, nn.MSELoss()) != masks_of(method, 5 * Y.flip(0), nn.MSELoss())


@pytest.mark.parametrize("method", LABELLED)
def test_every_method_with_labels_calls_the_loss_given(method):
    calls = []

    def loss(outputs, labels):
        calls.append(labels)
        return F.mse_loss(outputs, labels)

    model = as_method(method).prepare(network(), X[:1])
    first = pc.prune(model, method, 0.5, batches=[(X, Y)], example_input=X[:1], loss=loss)
    if method == "rigl":  # its first cut is drawn, its second exchanges weights
        pc.prune(first.model, method, 0.5, batches=[(X, Y)], loss=loss)
    assert calls


def test_snip_of_a_squared_error_is_its_formula():
    model = network()
    F.mse_loss(model(X), Y).backward()
    scores = torch.cat([(layer.weight * layer.weight.grad).abs().flatten() for layer in (model[0], model[2], model[4])])
    found = pc.prune(network(), "snip", 0.5, batches=[(X, Y)], loss=nn.MSELoss()).masks
    alive = torch.cat([mask.flatten() for mask in found.values()])
    assert scores[alive].min() > scores[~alive].max()


def test_grasp_divides_logits_by_its_temperature_and_nothing_else():
    def cut(loss, labels, outputs, temperature):
        method = METHODS["grasp"](temperature=temperature)
        return pc.prune(network(outputs), method, 0.5, batches=[(X, labels)], loss=loss).masks

    classes = torch.arange(12) % 3
    assert cut(nn.MSELoss(), Y, 1, 200.0) == cut(nn.MSELoss(), Y, 1, 0.01)
    assert cut(None, classes, 3, 200.0) != cut(None, classes, 3, 0.01)
    assert cut(None, classes, 3, 0.01) == cut(nn.CrossEntropyLoss(), classes, 3, 0.01)


NO_CLASSES = {
    "one column": (1, torch.zeros(12, dtype=torch.long), "no two columns"),
    "floats": (3, Y[:, 0], "labels of torch.float64 are no classes"),
    "a column of floats": (1, Y, "no two columns"),
    "from one": (3, torch.arange(12) % 3 + 1, "labels run from 1 to 3, but the network has 3 outputs"),
    "negative": (3, torch.arange(12) % 3 - 1, "labels run from -1 to 1"),
    "a column": (3, torch.zeros(12, 1, dtype=torch.long), r"labels of shape \(12, 1\)"),
    "several labels": (4, (X[:, :4] > 0).double(), "no probabilities"),
    "several whole labels": (4, (X[:, :4] > 0).long(), r"labels of shape \(12, 4\)"),
    "negative probabilities": (2, torch.tensor([[2.0, -1.0]]).repeat(12, 1), "no probabilities"),
}


@pytest.mark.parametrize("kind", NO_CLASSES)
@pytest.mark.parametrize("method", ["snip", "grasp", "snap", "cnip"])
def test_labels_that_are_no_classes_get_one_sentence_that_names_the_remedy(method, kind):
    outputs, labels, problem = NO_CLASSES[kind]
    with pytest.raises(BadInput, match=f"{problem}.*loss=torch\\.nn\\.MSELoss"):
        pc.prune(network(outputs), method, 0.5, batches=[(X, labels)])


@pytest.mark.parametrize("kind", NO_CLASSES)
def test_training_refuses_the_same_labels_in_the_same_words(kind):
    outputs, labels, problem = NO_CLASSES[kind]
    for call in (pc.evaluate, lambda model, batches: pc.fit(model, batches, epochs=1, progress=False)):
        with pytest.raises(BadInput, match=f"{problem}.*loss=torch\\.nn\\.MSELoss"):
            call(network(outputs), [(X, labels)])


def test_the_loss_of_a_statistic_is_as_strict():
    with pytest.raises(BadInput, match=r"loss=torch\.nn\.MSELoss"):
        pc.prune(network(3), METHODS["snip"](loss="nll_logits"), 0.5, batches=[(X, Y[:, 0])])


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int16])
def test_whole_numbers_of_any_type_and_probabilities_are_classes(kind):
    labels = torch.arange(12) % 3
    wanted = masks_of("snip", labels, None, 3)
    assert masks_of("snip", labels.to(kind), None, 3) == wanted
    assert masks_of("snip", F.one_hot(labels, 3).float(), None, 3) == wanted


def test_pixels_and_labels_to_ignore_are_classes():
    outputs, labels = torch.randn(2, 3, 4, 4), torch.arange(32).view(2, 4, 4) % 3
    labels[0, 0] = -100
    assert OfClasses()(outputs, labels) == F.cross_entropy(outputs, labels)
    labels[0, 0] = 255
    assert statistic(nn.CrossEntropyLoss(ignore_index=255))(outputs, labels).isfinite()
    with pytest.raises(BadInput, match="labels run from 0 to 255"):
        OfClasses()(outputs, labels)


BAD_LOSSES = {
    "no function": ("mse", BadType, "loss must be a function of"),
    "a number a sample": (lambda outputs, labels: (outputs - labels).square(), BadInput, "must return one number"),
    "no tensor": (lambda outputs, labels: 1.0, BadInput, "must return one number.*not float"),
    "another shape": (BCE, BadInput, r"does not take outputs torch.float64 of shape \(12, 3\)"),
    "another call": (lambda outputs: outputs.sum(), BadInput, "does not take"),
}


@pytest.mark.parametrize("kind", BAD_LOSSES)
def test_a_loss_that_cannot_be_used_gets_one_sentence(kind):
    loss, error, match = BAD_LOSSES[kind]
    with pytest.raises(error, match=match):
        pc.prune(network(3), "snip", 0.5, batches=[(X, Y)], loss=loss)


class Named(nn.Module):
    """Outputs in a dict, as detectors have them."""

    def __init__(self):
        super().__init__()
        self.body = network(2)

    def forward(self, x):
        return {"place": self.body(x)}


@pytest.mark.parametrize("method", ["snip", "grasp", "snap", "cnip"])
def test_a_loss_may_take_outputs_in_a_dict(method):
    def loss(outputs, labels):
        return F.mse_loss(outputs["place"], labels.expand(-1, 2))

    assert pc.prune(Named(), method, 0.5, batches=[(X, Y)], loss=loss).report.reached == pytest.approx(0.5, abs=0.03)
    with pytest.raises(BadInput, match=r"are no classes; .*loss=torch\.nn\.MSELoss"):
        pc.prune(Named(), method, 0.5, batches=[(X, Y)])


@pytest.mark.parametrize("method", ["snip", "grasp", "snap", "cnip"])
def test_gradients_that_are_all_zero_are_told(method):
    model = network(3)
    batches = [(X, torch.arange(12) % 3)]
    assert "gradients are zero" not in pc.prune(model, method, 0.3, batches=batches).report.summary
    nn.init.zeros_(model[4].weight)
    assert "all gradients are zero in" in pc.prune(model, method, 0.3, batches=batches).report.summary
