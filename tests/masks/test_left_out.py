"""What a report leaves out stands in its first line; layers whose zeros or costs would not be true are named."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

import pruning_core as pc
from pruning_core.errors import BadInput, Unprunable
from pruning_core.models.effective import remakes_weight


class Standardised(nn.Conv2d):
    """Filters of mean zero and deviation one, whatever the parameter holds."""

    def forward(self, x):
        mean, deviation = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


class Equalised(nn.Linear):
    """The parameter times a constant: its zeros are zeros of the weight in use."""

    def forward(self, x):
        return F.linear(x, self.weight * 0.3, self.bias)


class Padded(nn.Conv1d):
    """A convolution that looks back only."""

    def forward(self, x):
        return super().forward(F.pad(x, (self.kernel_size[0] - 1, 0)))


class Softmaxed(nn.Module):
    """A parametrisation without zeros."""

    def forward(self, x):
        return x.softmax(1)


def first_line(model: nn.Module, method="magnitude", **options) -> str:
    return pc.prune(model, method, 0.5, **options).report.summary.splitlines()[0]


def test_nothing_is_said_where_nothing_is_left_out():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    assert first_line(model) == "magnitude: asked 50.00% of weights, reached 50.00%"
    example = torch.zeros(1, 1, 4, 4)
    assert first_line(model, "l1_norm", example_input=example) == "l1_norm: asked 50.00% of channels, reached 50.00%"


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (
            nn.Sequential(nn.Embedding(90, 10), nn.Linear(10, 10)),
            {},
            r"90.0% of .*\(a weight of Embedding, .*scope names",
        ),
        (nn.Sequential(nn.Linear(10, 30), nn.Linear(30, 10)), {"scope": ["1"]}, r"50.0% of .*\(out of scope\)"),
        (
            nn.Sequential(parametrizations.orthogonal(nn.Linear(10, 30)), nn.Linear(30, 10)),
            {},
            r"50.0% of .*\(part of a parametrised weight; .*remove_parametrizations",
        ),
        (
            nn.Sequential(Standardised(2, 4, 5), nn.Conv2d(4, 2, 5)),
            {},
            r"50.0% of .*\(Standardised computes with another",
        ),
        (
            nn.Sequential(nn.Embedding(60, 10), nn.Linear(10, 10), nn.Linear(10, 30)),
            {"scope": ["1"]},
            r"90.0% of .*\(mostly a weight of Embedding",
        ),
        (
            nn.Sequential(nn.Linear(10, 10), nn.LayerNorm(10), nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5)),
            {"method": "l1_norm", "example_input": torch.zeros(1, 10)},
            r"25.0% of .*\(they go through LayerNorm '1'",
        ),
    ],
)
def test_the_first_line_says_what_share_is_left_out_and_why(model, options, words):
    line = first_line(model, **options)
    assert re.search(f"; left out: {words}", line), line


def test_layers_that_remake_their_weight_are_found_and_others_are_not():
    assert remakes_weight(Standardised(2, 4, 3)) and remakes_weight(Standardised(4, 4, 3, groups=2, dilation=2))
    others = Equalised(3, 4), Padded(2, 3, 5), nn.Conv2d(2, 4, 3), nn.LSTM(2, 3), nn.ReLU()
    assert not any(remakes_weight(layer) for layer in others)


def test_a_remade_weight_is_pruned_only_when_scope_names_it_and_then_the_report_warns():
    model = nn.Sequential(Standardised(2, 4, 5), nn.Conv2d(4, 2, 5))
    assert pc.prune(model, "magnitude", 0.5).sites.weights == ("1.weight",)
    named = pc.prune(model, "magnitude", 0.5, scope=["0.weight"])
    assert named.sites.weights == ("0.weight",)
    assert "zeros of 0.weight are none of the weights in use" in named.report.summary
    with pytest.raises(Unprunable, match="Standardised computes with another weight"):
        pc.prune(model[:1], "magnitude", 0.5)


@pytest.mark.parametrize(("kind", "warns"), [(Softmaxed, True), (nn.Tanh, False)])
def test_zeros_that_a_parametrisation_does_not_keep_are_told(kind, warns):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    parametrize.register_parametrization(model[0], "weight", kind())
    name = "0.parametrizations.weight.original"
    report = pc.prune(model, "magnitude", 0.5, scope=[name]).report
    assert (f"zeros of {name} are none" in report.summary) == warns


def quantised() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Conv1d(1, 2, 3)).eval()
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_are_named():
    model = quantised()
    with pytest.raises(BadInput, match="layers 0 are quantised"):
        pc.count_macs(model, torch.zeros(1, 6))
    with pytest.raises(Unprunable, match=r"layer '0' is quantised .*prune the network before it is quantised"):
        pc.prune(model, "magnitude", 0.5)


class Pairing(nn.Module):
    """A bilinear product of two hidden layers, applied to every token."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.both = nn.Linear(3, 5), nn.Linear(3, 4), nn.Bilinear(5, 4, 7)

    def forward(self, x):
        return self.both(self.left(x), self.right(x))


@pytest.mark.parametrize("tokens", [(), (6,)])
def test_a_bilinear_layer_is_counted(tokens):
    model, example = Pairing(), torch.randn(2, *tokens, 3)
    times = 6 if tokens else 1
    assert pc.count_macs(model, example) == times * (3 * 5 + 3 * 4 + (5 + 1) * 4 * 7)
    removed = pc.prune(model, "magnitude", 0.5, of="macs", example_input=example).report.removed["macs"]
    assert removed[1] == times * (3 * 5 + 3 * 4 + 5 * 4 * 7) and abs(removed[0] - removed[1] / 2) <= times


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("both", [False, True])
def test_a_recurrent_layer_counts_its_steps(kind, both):
    model = kind(3, 4, batch_first=True, bidirectional=both)
    example = torch.randn(1, 9, 3)
    whole = sum(weight.numel() for name, weight in model.named_parameters() if "weight" in name) * 9
    assert pc.prune(model, "magnitude", 0.5, example_input=example).report.removed["macs"][1] == whole
    assert pc.count_macs(model, example) == whole
