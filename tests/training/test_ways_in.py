"""What users bring: loaders and lists of batches, losses and metrics of many kinds, several inputs, structured outputs."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pruning_core.data.splits import Split
from pruning_core.errors import BadInput, BadType
from pruning_core.training.evaluation import confusion_matrix, evaluate
from pruning_core.training.fit import fit
from pruning_core.training.optimizers import LearningRate, Optimizer
from pruning_core.training.trainer import Trainer
from tests.training.small_networks import network, same

QUIET = {"progress": False, "optimizer": Optimizer("sgd", lr=0.05)}


class Stream(IterableDataset):
    """Samples without a length."""

    def __init__(self, *tensors):
        self.tensors = tensors

    def __iter__(self):
        return zip(*self.tensors, strict=True)


def parts(split, size=32):
    return list(split.batches(size))


@pytest.fixture(scope="module")
def few(digits):
    return digits.train.subset(97)  # a last batch of one sample


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", ["list", "loader", "stream", "generator", "lists"])
def test_batches_of_any_kind_train_like_a_split_in_order(few, digits, kind, norm):
    def source():
        data = TensorDataset(few.inputs, few.labels)
        return {
            "list": lambda: parts(few),
            "loader": lambda: DataLoader(data, 32),
            "stream": lambda: DataLoader(Stream(few.inputs, few.labels), 32),
            "generator": lambda: iter(parts(few)),
            "lists": lambda: [list(batch) for batch in parts(few)],
        }[kind]()

    ours, theirs = network(norm=norm), network(norm=norm)
    options = {**QUIET, "epochs": 2, "batch_size": 32, "shuffle": False}
    expected = fit(ours, few, validation=digits.test, **options)
    found = fit(theirs, source(), validation=parts(digits.test, 512), **options)
    assert same(ours, theirs)
    for one, other in zip(expected, found, strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    assert evaluate(theirs, source()) == evaluate(ours, few, batch_size=32)


def test_the_order_of_a_loader_follows_from_the_seed_and_leaves_the_callers_numbers_alone(few):
    def run(seed):
        model = network()
        fit(model, DataLoader(TensorDataset(few.inputs, few.labels), 16, shuffle=True), epochs=2, seed=seed, **QUIET)
        return model

    state = torch.get_rng_state()
    one, again, other = run(1), run(1), run(2)
    assert torch.equal(state, torch.get_rng_state())
    assert same(one, again)
    assert not same(one, other)


def test_an_interrupted_training_on_a_loader_goes_on_bit_for_bit(few, tmp_path):
    loader = DataLoader(TensorDataset(few.inputs, few.labels), 16, shuffle=True)
    options = {**QUIET, "epochs": 3, "checkpoint": tmp_path / "run.safetensors"}
    whole, cut = network(), network()
    fit(whole, loader, epochs=3, **QUIET)

    def stop(trainer, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(cut, loader, observers=[stop], **options)
    resumed = network()
    fit(resumed, loader, **options)
    assert same(whole, resumed)


def test_a_schedule_that_counts_steps_asks_for_their_number(few):
    stream = DataLoader(Stream(few.inputs, few.labels), 16)
    warm = LearningRate(warmup=1)
    with pytest.raises(BadInput, match="give steps_per_epoch="):
        fit(network(), stream, epochs=1, learning_rate=warm, **QUIET)
    sized, unsized = network(), network()
    fit(sized, few, epochs=2, batch_size=16, shuffle=False, learning_rate=warm, **QUIET)
    fit(unsized, stream, epochs=2, steps_per_epoch=7, learning_rate=warm, **QUIET)
    assert same(sized, unsized)
    cosine = LearningRate("cosine")
    rates = [row["learning_rate"] for row in fit(network(), stream, epochs=2, learning_rate=cosine, **QUIET)]
    assert rates == [row["learning_rate"] for row in fit(network(), few, epochs=2, learning_rate=cosine, **QUIET)]


def test_steps_per_epoch_ends_an_epoch_over_endless_batches(few):
    def endless():
        while True:
            yield from parts(few)

    class Endless:
        __iter__ = staticmethod(endless)

    short, long = network(), network()
    fit(short, Endless(), epochs=2, steps_per_epoch=2, **QUIET)
    fit(long, parts(few)[:2], epochs=2, **QUIET)
    assert same(short, long)


def test_batches_that_run_out_are_named(few):
    trainer, once = Trainer(network(), epochs=2), iter(parts(few))
    trainer.train_epoch(once)
    with pytest.raises(BadInput, match="empty"):
        trainer.train_epoch(once)


def line(seed=0, inputs=5, outputs=1):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs))


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class SumOfErrors:
    """As metrics of torchmetrics are called."""

    def reset(self):
        self.errors, self.count = 0.0, 0

    def update(self, outputs, labels):
        self.errors, self.count = self.errors + (outputs - labels).abs().sum(), self.count + len(labels)

    def compute(self):
        return self.errors / self.count


def test_regression_has_no_accuracy_but_a_metric(few):
    x, y = numbers(40, 5), numbers(40, 1, seed=1)
    batches = [(x[:24], y[:24]), (x[24:], y[24:])]
    model = line()
    with torch.no_grad():
        squared, absolute = float(F.mse_loss(model(x), y)), float((model(x) - y).abs().mean())
    for metric in (F.l1_loss, SumOfErrors()):
        found = evaluate(model, batches, loss=nn.MSELoss(), metric=metric)
        assert found.loss == pytest.approx(squared, rel=1e-6)
        assert found.metric == pytest.approx(absolute, rel=1e-6)
        assert found.accuracy != found.accuracy
    rows = fit(model, batches, validation=batches, epochs=20, loss=nn.MSELoss(), metric=SumOfErrors(), **QUIET)
    assert rows[-1]["validation_loss"] < squared
    assert rows[-1]["validation_metric"] == pytest.approx(
        evaluate(model, batches, loss=nn.MSELoss(), metric=F.l1_loss).metric
    )
    assert "train_accuracy" not in rows[-1]
    best = fit(line(), batches, validation=batches, epochs=3, loss=nn.MSELoss(), keep="best_validation", **QUIET)
    losses = [row["validation_loss"] for row in best]
    assert best.best_epoch == 1 + losses.index(min(losses))


def test_several_labels_a_sample():
    x, y = numbers(32, 5), (numbers(32, 3, seed=1) > 0).double()
    rows = fit(line(outputs=3), [(x, y)], epochs=30, loss=nn.BCEWithLogitsLoss(), **QUIET)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_pixels_have_labels_of_which_some_are_ignored():
    x, y = numbers(6, 2, 4, 4), torch.randint(3, (6, 4, 4), generator=torch.Generator().manual_seed(0))
    y[:, :2] = 255
    model, loss = nn.Conv2d(2, 3, 1), nn.CrossEntropyLoss(ignore_index=255)
    found = evaluate(model, [(x, y)], loss=loss)
    right = (model(x).argmax(1) == y)[:, 2:].double().mean()
    assert found.accuracy == pytest.approx(100 * float(right))
    assert found.n == 6
    assert fit(model, [(x, y)], epochs=1, loss=loss, **QUIET)[0]["train_accuracy"] == found.accuracy
    with pytest.raises(BadInput, match="labels run from 0 to 255, but the network has 3 outputs"):
        fit(model, [(x, y)], epochs=1, **QUIET)


def test_class_weights_and_class_probabilities(few):
    weights = torch.linspace(1, 2, 10)
    assert (
        evaluate(network(), few, loss=nn.CrossEntropyLoss(weight=weights)).accuracy == evaluate(network(), few).accuracy
    )
    soft = [(few.inputs, F.one_hot(few.labels, 10).float())]
    assert evaluate(network(), soft).loss == pytest.approx(evaluate(network(), few).loss, rel=1e-6)


class Pair(nn.Module):
    """Two inputs; the outputs as the tests want them."""

    def __init__(self, shape=lambda logits: logits):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.left, self.right, self.head = nn.Linear(6, 7), nn.Linear(4, 7), nn.Linear(7, 3)
        self.shape = shape

    def forward(self, left, right, scale=None):
        hidden = torch.tanh(self.left(left) + self.right(right))
        return self.shape(self.head(hidden if scale is None else hidden * scale))


@dataclass
class Outputs:
    hidden: object
    logits: torch.Tensor


LEFT, RIGHT, CLASSES = numbers(20, 6), numbers(20, 4, seed=1), torch.arange(20) % 3


@pytest.mark.parametrize(
    "batch",
    [
        ((LEFT, RIGHT), CLASSES),
        ([LEFT, RIGHT], CLASSES.int()),
        {"right": RIGHT, "labels": CLASSES, "left": LEFT},
        {"scale": torch.ones(1), "target": CLASSES, "right": RIGHT, "left": LEFT},
        {"left": LEFT.numpy(), "right": RIGHT.double(), "y": CLASSES.numpy().astype("uint8")},
    ],
)
def test_several_inputs_and_dicts(batch):
    plain = Pair()
    with torch.no_grad():
        loss = float(F.cross_entropy(plain(LEFT, RIGHT), CLASSES))
    assert evaluate(plain, [batch]).loss == pytest.approx(loss, rel=1e-6)
    model, expected = Pair(), Pair()
    fit(model, [batch], epochs=3, **QUIET)
    fit(expected, [((LEFT, RIGHT), CLASSES)], epochs=3, **QUIET)
    assert same(model, expected)


SHAPES = {
    "dict": lambda logits: {"hidden": None, "logits": logits, "more": logits * 2},
    "out": lambda logits: {"out": logits, "aux": logits * 2},
    "tuple": lambda logits: (logits, logits * 2),
    "only": lambda logits: {"scores": logits, "maps": [logits]},
    "dataclass": lambda logits: Outputs(None, logits),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_outputs_in_collections(shape):
    batches = [((LEFT, RIGHT), CLASSES)]
    plain, model = Pair(), Pair(shape)
    assert evaluate(model, batches) == evaluate(plain, batches)
    assert torch.equal(confusion_matrix(model, batches), confusion_matrix(plain, batches))
    fit(plain, batches, epochs=2, **QUIET)
    fit(model, batches, epochs=2, loss=nn.CrossEntropyLoss(), **QUIET)
    assert same(plain, model)


def test_a_loss_of_ones_own_gets_the_outputs_as_they_are():
    model = Pair(lambda logits: {"boxes": logits[:, :1], "scores": logits[:, 1:]})
    boxes = [((LEFT, RIGHT), {"boxes": LEFT[:, :1], "classes": CLASSES.clamp(max=1)})]

    def loss(outputs, targets):
        return F.l1_loss(outputs["boxes"], targets["boxes"]) + F.cross_entropy(outputs["scores"], targets["classes"])

    rows = fit(model, boxes, validation=boxes, epochs=20, loss=loss, **QUIET)
    assert rows[-1]["validation_loss"] < rows[0]["train_loss"]
    with pytest.raises(BadInput, match="puts out a dict with 'boxes', 'scores', and this loss takes one tensor"):
        evaluate(model, [((LEFT, RIGHT), CLASSES)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_networks_and_inputs_of_other_precision(few, dtype):
    model = network().to(dtype)
    found, exact = evaluate(model, few), evaluate(network(), few)
    assert found.loss == pytest.approx(exact.loss, rel=0.02)
    assert fit(model, parts(few), epochs=1, **QUIET)[0]["train_loss"] == pytest.approx(exact.loss, rel=0.1)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    doubles = [(x.double(), y.int()) for x, y in parts(few)]
    assert evaluate(network(), doubles).loss == pytest.approx(exact.loss, rel=1e-6)


X, Y = numbers(8, 5), torch.arange(8) % 2


@pytest.mark.parametrize(
    ("batches", "loss", "error", "words"),
    [
        ([], None, BadInput, "empty"),
        (TensorDataset(X, Y), None, BadType, r"single samples: give DataLoader\(TensorDataset"),
        (Stream(X, Y), None, BadType, "give DataLoader"),
        (X, None, BadType, "single batch into a list"),
        ("batches", None, BadType, "not str"),
        ([X], None, BadInput, "without labels"),
        ([(X, Y[:5])], None, BadInput, r"8 inputs, but labels of shape \(5,\)"),
        ([(X[:0], Y[:0])], None, BadInput, "no sample"),
        ([(X, Y + 1)], None, BadInput, "labels run from 1 to 2, but the network has 2 outputs"),
        ([(X, Y.float())], None, BadInput, r"unless another is given, as loss="),
        ([(X[:, :3], Y)], None, BadInput, r"cannot take inputs of shape \(8, 3\)"),
        ([((X, X), Y)], None, BadInput, r"cannot take inputs of shape \(8, 5\) and \(8, 5\)"),
        ([(X.gt(0).byte(), Y)], None, BadInput, r"\(uint8\)"),
        ([(X, Y.float())], nn.MSELoss(), BadInput, r"the loss does not take outputs torch.float32 of shape \(8, 2\)"),
        ([(X, Y)], nn.CrossEntropyLoss(reduction="none"), BadInput, "one number, the mean over the samples of a batch"),
        ([{"a": X, "b": X, "labels": Y}], None, BadInput, r"inputs \['a', 'b'\].*forward takes input"),
    ],
)
def test_what_does_not_go_together_is_one_sentence_before_any_work(batches, loss, error, words):
    model, before = line(outputs=2), line(outputs=2)
    for call in (
        lambda: fit(model, batches, epochs=1, loss=loss, **QUIET),
        lambda: evaluate(model, batches, loss=loss),
    ):
        with pytest.raises(error, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert same(model, before)


def test_what_is_no_metric_is_refused(few):
    with pytest.raises(BadType, match="metric is 'accuracy', a function"):
        evaluate(network(), few, metric=3)
    with pytest.raises(ValueError, match="acuracy"):
        fit(network(), few, epochs=1, metric="acuracy", **QUIET)
    with pytest.raises(BadType, match="steps_per_epoch"):
        Trainer(network(), epochs=1, steps_per_epoch=1.5)


def test_a_split_ends_after_steps_per_epoch_too(few):
    short, long = network(), network()
    fit(short, few, epochs=1, batch_size=16, steps_per_epoch=2, shuffle=False, **QUIET)
    fit(long, Split(few.inputs[:32], few.labels[:32]), epochs=1, batch_size=16, shuffle=False, **QUIET)
    assert same(short, long)
