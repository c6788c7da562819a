"""What users give and nobody can use is refused in one sentence, wherever it arrives; what can be used is."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import pruning_core as pc
from pruning_core.errors import BadInput, BadType, Unprunable
from pruning_core.training.losses import CrossEntropy

X, Y = torch.randn((24, 4), generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
QUIET = {"epochs": 1, "progress": False}


def network(outputs: int = 3) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs))


WAYS = {
    "snip": lambda model, batches, loss: pc.prune(model, "snip", 0.5, batches=batches, loss=loss),
    "grasp": lambda model, batches, loss: pc.prune(model, "grasp", 0.5, batches=batches, loss=loss),
    "fit": lambda model, batches, loss: pc.fit(model, batches, loss=loss, **QUIET),
    "evaluate": lambda model, batches, loss: pc.evaluate(model, batches, loss=loss),
}
MULTIPLE = torch.ones(24, 3, dtype=torch.long)
REFUSED = {
    "a batch without a sample": ([(X, Y), (X[:0], Y[:0])], None, BadInput, "batch 2 holds no sample"),
    "a pair": ((X, Y), None, BadType, r"give \[\(inputs, labels\)\]"),
    "a list that is a pair": ([X.numpy(), Y.numpy()], None, BadType, r"give \[\(inputs, labels\)\]"),
    "a wider batch": ([(X, Y), (torch.ones(8, 5), Y[:8])], None, BadInput, r"cannot take inputs of shape \(8, 5\)"),
    "a class": ([(X, Y)], nn.CrossEntropyLoss, BadType, r"give an instance of it, CrossEntropyLoss\(\)"),
    "whole numbers": ([(X, MULTIPLE)], nn.BCEWithLogitsLoss(), BadInput, r"given as labels.float\(\)"),
    "one number for all": ([(X, torch.ones(24))], nn.L1Loss(), BadInput, "Using a target size"),
    "too few weights": ([(X, Y)], nn.CrossEntropyLoss(torch.ones(2)), BadInput, "weight tensor should be defined"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", REFUSED)
def test_what_does_not_fit_is_one_sentence_on_every_way(kind, way):
    batches, loss, error, words = REFUSED[kind]
    with pytest.raises(error, match=words):
        WAYS[way](network(1 if kind == "one number for all" else 3), batches, loss)


@pytest.mark.parametrize("way", ["snip", "fit"])
def test_a_loss_without_a_gradient_says_so(way):
    with pytest.raises(BadInput, match="the loss has no gradient"):
        WAYS[way](network(), [(X, Y)], lambda outputs, labels: F.cross_entropy(outputs.detach(), labels))


def test_labels_that_cross_entropy_leaves_out_count_nowhere():
    labels = torch.where(Y == 0, -100, Y)
    some, model = Y != 0, network()
    for loss in (None, CrossEntropy(), F.cross_entropy, nn.CrossEntropyLoss()):
        found = pc.evaluate(model, [(X, labels)], loss=loss)
        wanted = pc.evaluate(model, [(X[some], Y[some])])
        assert (found.loss, found.accuracy) == pytest.approx((wanted.loss, wanted.accuracy))
    row = pc.fit(network(), [(X, labels)], **QUIET)[-1]
    assert row["train_accuracy"] == pytest.approx(wanted.accuracy)


def test_a_loader_whose_last_batch_is_shorter_is_no_other_shape():
    loader = DataLoader(TensorDataset(X, Y), 7)
    assert [WAYS[way](network(), loader, None) is not None for way in WAYS] == [True] * len(WAYS)


@dataclass
class Found:
    scores: torch.Tensor


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        return Found(self.body(x))


def test_a_dataclass_is_exported_once_torch_knows_it(tmp_path):
    model = Named().eval()
    with pytest.raises(BadInput, match=r"torch.export.register_dataclass\(Found, "):
        pc.export_network(model, tmp_path / "x.pt2", X[:1])
    torch.export.register_dataclass(Found, serialized_type_name="Found")
    pc.export_network(model, tmp_path / "x.pt2", X[:1])
    assert torch.allclose(torch.export.load(tmp_path / "x.pt2").module()(X).scores, model(X).scores)


class Without(nn.Module):
    """A loss that has become a number of Python."""

    def __init__(self):
        super().__init__()
        self.body = network()

    def forward(self, x):
        return float(self.body(x).sum())


@pytest.mark.parametrize("method", ["l1_norm", "synflow"])
def test_a_network_that_puts_out_no_tensor_is_refused(method, tmp_path):
    with pytest.raises(BadInput, match="puts out no tensor"):
        pc.prune(Without(), method, 0.5, example_input=X[:1])
    with pytest.raises(BadInput, match="puts out no tensor"):
        pc.export_network(Without(), tmp_path / "x.onnx", X[:1])


@pytest.mark.parametrize("make", [torch.jit.script, lambda model: nn.Sequential(torch.jit.trace(model, X))])
def test_torchscript_is_refused_with_the_remedy(make):
    with pytest.raises(Unprunable, match="was made of"):
        pc.prune(make(network()), "magnitude", 0.5)


@pytest.mark.parametrize("example", [X[:0], [X], {"x": X}, X.numpy(), (1, 4), torch.ones(1, 4, dtype=torch.long)])
def test_an_example_that_cannot_be_followed_is_refused_before_the_search(example):
    with pytest.raises((BadInput, BadType), match="example"):
        pc.prune(network(), "l1_norm", 0.5, example_input=example)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_the_gradient_mode_around_a_call_changes_nothing(around):
    wanted = pc.prune(network(), "snip", 0.5, batches=[(X, Y)]).masks
    plain = pc.fit(network(), [(X, Y)], **QUIET)[-1]["train_loss"]
    with around():
        found = pc.prune(network(), "snip", 0.5, batches=[(X, Y)]).masks
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    model = network()  # made outside: what is made in inference mode never learns
    with around():
        assert pc.fit(model, [(X, Y)], **QUIET)[-1]["train_loss"] == plain
