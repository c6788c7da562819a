"""Loss and accuracy of a split: right, without a trace in the network, and never on data that it cannot take."""

import copy

import pytest
import torch
from torch.nn import functional

from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType
from pruning_core.training.evaluation import evaluate, evaluate_each
from pruning_core.training.fit import fit
from pruning_core.training.losses import CrossEntropy
from tests.training.small_networks import network


def test_label_smoothing_is_its_formula():
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    target = 0.9 * functional.one_hot(labels, 4) + 0.1 / 4
    by_hand = -(target * logits.log_softmax(1)).sum(1).mean()
    assert torch.allclose(CrossEntropy(0.1)(logits, labels), by_hand)


def test_evaluating_changes_nothing(digits):
    model = network(norm=True, dropout=0.5).train()
    before = copy.deepcopy(model.state_dict())
    assert evaluate(model, digits.test) == evaluate(model, digits.test)
    assert evaluate(model, digits.test, batch_size=7).accuracy == evaluate(model, digits.test).accuracy
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_several_splits_are_evaluated_as_each_of_them(digits):
    model, splits = network(norm=True), (digits.test, digits.validation, digits.train.subset(100))
    assert evaluate_each(model, splits, batch_size=64) == [evaluate(model, split, batch_size=64) for split in splits]
    with pytest.raises(BadInput, match="labels run from 0 to 10"):
        evaluate_each(model, [digits.test, labelled([0, 10])])


def labelled(labels, inputs=None):
    labels = torch.as_tensor(labels)
    return Split(torch.randn(len(labels), 1, 8, 8) if inputs is None else inputs, labels)


@pytest.mark.parametrize(
    ("split", "error", "words"),
    [
        (labelled(torch.zeros(0, dtype=torch.long)), BadInput, "empty"),
        (labelled([0, 1, 10]), BadInput, "labels run from 0 to 10, but the network has 10 outputs"),
        (labelled([0, -1]), BadInput, "labels run from -1"),
        (labelled([0.0, 1.0]), BadInput, "labels of torch.float32 are no classes; .*loss="),
        (labelled([0, 1], torch.randn(2, 1, 5, 5)), BadInput, r"cannot take inputs of shape \(2, 1, 5, 5\)"),
        ([1, 2], BadType, "pairs .* not int"),
        (5, BadType, "iterable of .* not int"),
    ],
)
def test_bad_data_is_refused_in_one_sentence(split, error, words):
    for call in (lambda: fit(network(), split, epochs=1, progress=False), lambda: evaluate(network(), split)):
        with pytest.raises(error, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
