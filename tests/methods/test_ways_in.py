"""Batches, inputs and outputs of every kind that users have, in the methods that look at data."""

from collections import OrderedDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pruning_core as pc
from pruning_core.errors import BadInput, BadType

DRAWN = torch.Generator().manual_seed(0)
IMAGES, SIZES = torch.randn(20, 2, 6, 6, generator=DRAWN), torch.randn(20, 3, generator=DRAWN)
CLASSES = torch.arange(20) % 4
CHANNELS, WEIGHTS = ("snap", "ispasp", "thinet", "pfp", "greedy"), ("snip", "grasp", "synflow", "sipp")


@dataclass
class Answer:
    logits: torch.Tensor
    hidden: object = None


SHAPES = {
    "tensor": lambda logits: logits,
    "dict": lambda logits: OrderedDict(hidden=None, logits=logits),
    "tuple": lambda logits: (logits, None),
    "dataclass": Answer,
}


class Both(nn.Module):
    """An image and a vector; the output in one of ``SHAPES``."""

    def __init__(self, shape="tensor"):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.wide = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 8, 3)
            self.sizes, self.hidden, self.head = nn.Linear(3, 5), nn.Linear(8 + 5, 7), nn.Linear(7, 4)
        self.shape = shape

    def forward(self, image, size):
        seen = self.wide(self.conv(image).relu()).relu().mean((2, 3))
        joined = torch.cat([seen, self.sizes(size).relu()], 1)
        return SHAPES[self.shape](self.head(self.hidden(joined).relu()))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.both = Both()

    def forward(self, pixels):
        return self.both(pixels, pixels.mean((2, 3)) @ torch.ones(2, 3, device=pixels.device, dtype=pixels.dtype))


class Stream(IterableDataset):
    def __iter__(self):
        return zip(IMAGES, CLASSES, strict=True)


def same_masks(one, other):
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def masks(model, method, batches, **more):
    result = pc.prune(model.eval(), method, 0.4, batches=batches, **more)
    if method in CHANNELS:
        small = result.shrink()
        assert pc.count_parameters(small) < pc.count_parameters(model)
    return result.masks


def in_batches(inputs, labels=CLASSES, size=8):
    def cut(value, i):
        if isinstance(value, tuple):
            return tuple(part[i : i + size] for part in value)
        return value[i : i + size]

    return [(cut(inputs, i), labels[i : i + size]) for i in range(0, 20, size)]


@pytest.mark.parametrize("method", [*CHANNELS, *WEIGHTS])
def test_batches_of_any_kind_give_the_same_masks(method):
    expected = masks(Plain(), method, in_batches(IMAGES))
    data = TensorDataset(IMAGES, CLASSES)
    for batches in (
        DataLoader(data, 8),
        DataLoader(Stream(), 8),
        iter(in_batches(IMAGES)),
        [{"pixels": x, "labels": y} for x, y in in_batches(IMAGES)],
        [{"any_name": x.double(), "target": y.int()} for x, y in in_batches(IMAGES)],
        [(x.numpy(), y.numpy(), "more") for x, y in in_batches(IMAGES)],
    ):
        assert same_masks(masks(Plain(), method, batches), expected)


@pytest.mark.parametrize("method", [*CHANNELS, *WEIGHTS])
def test_several_inputs_by_place_or_by_name(method):
    pairs = in_batches((IMAGES, SIZES))
    expected = masks(Both(), method, pairs)
    named = [{"labels": y, "size": size, "image": image} for (image, size), y in pairs]
    assert same_masks(masks(Both(), method, named), expected)
    assert same_masks(masks(Both(), method, pairs, example_input=(IMAGES[:1], SIZES[:1])), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", [*CHANNELS, *WEIGHTS])
def test_outputs_in_collections_give_the_same_masks(method, shape):
    pairs = in_batches((IMAGES, SIZES))
    assert same_masks(masks(Both(shape), method, pairs), masks(Both(), method, pairs))


def test_methods_without_data_take_several_inputs_as_example():
    for method in ("magnitude", "synflow", "l1_norm"):
        result = pc.prune(Both(), method, 0.5, example_input=(IMAGES[:1], SIZES[:1]))
        assert result.report.removed["macs"][1] == pc.count_macs(Both(), (IMAGES, SIZES))
    by_hand = 6 * 2 * 9 * 16 + 8 * 6 * 9 * 4 + 5 * 3 + 7 * 13 + 4 * 7
    assert pc.count_macs(Both(), (IMAGES, SIZES)) == by_hand


@pytest.mark.parametrize("shape", SHAPES)
def test_the_limit_of_a_network_of_several_inputs_and_outputs(shape):
    options = {"probes": 2, "steps": 6, "points": 5, "progress": False, "exact_below": 1}
    pairs = in_batches((IMAGES, SIZES), size=5)
    found = pc.predict_limit(Both(shape).double().eval(), pairs, **options)
    named = [{"image": image, "size": size, "y": y} for (image, size), y in pairs]
    assert pc.predict_limit(Both().double().eval(), named, **options).removed == pytest.approx(found.removed, abs=1e-12)
    assert found.measured.accuracy.notna().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", [*CHANNELS, *WEIGHTS, "magnitude", "l1_norm"])
def test_networks_in_half_precision(method, dtype):
    model = Plain().to(dtype)
    result = pc.prune(model, method, 0.4, batches=in_batches(IMAGES))
    assert {parameter.dtype for parameter in result.model.parameters()} == {dtype}
    assert 0.3 < result.report.removed[result.report.of][0] / result.report.removed[result.report.of][1] < 0.5


def test_filters_keep_their_layout():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Conv2d(8, 4, 1))
    inputs = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for layout in (torch.channels_last, torch.contiguous_format):
        model = model.to(memory_format=layout).eval()
        small = pc.prune(model, "l1_norm", 0.5, across="layer", example_input=inputs).shrink()
        assert all(small[i].weight.is_contiguous(memory_format=layout) for i in (0, 3))
    assert small[3].weight.shape == (4, 8, 3, 3)


@pytest.mark.parametrize(
    ("batches", "error", "words"),
    [
        (TensorDataset(IMAGES, CLASSES), BadType, r"single samples: give DataLoader\(TensorDataset"),
        ({"pixels": IMAGES, "labels": CLASSES}, BadType, "not dict; put a single batch into a list"),
        ([{"pixels": IMAGES}], BadInput, "needs labels"),
        (
            [{"left": IMAGES, "right": IMAGES, "labels": CLASSES}],
            BadInput,
            r"\['left', 'right'\].*forward takes pixels",
        ),
        ([(IMAGES[:, :1], CLASSES)], BadInput, r"cannot take inputs of shape \(1, 1, 6, 6\)"),
        ([(IMAGES.gt(0).byte(), CLASSES)], BadInput, "uint8.; images are given as floating-point numbers"),
    ],
)
def test_batches_that_cannot_be_used_are_one_sentence(batches, error, words):
    with pytest.raises(error, match=words) as caught:
        pc.prune(Plain(), "snip", 0.5, batches=batches)
    assert "\n" not in str(caught.value)
