"""Networks that the code of RNI trained: its own class of batch norm, shortcuts that pad, all training images."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadType, Unprunable
from pruning_core.models.layers.norms import SigmoidBatchNorm2d
from pruning_core.papers.rni import from_official, pipeline


class SigBatchNorm2d(nn.BatchNorm2d):
    """A batch norm as the official one is: the sigmoid of its weight, no bias."""

    def __init__(self, channels: int, **options):
        super().__init__(channels, **options)
        self.bias = None
        nn.init.normal_(self.weight)

    def forward(self, x):
        momentum = 0.0 if self.momentum is None else self.momentum
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight.sigmoid(), None, self.training, momentum, self.eps
        )


class Padded(nn.Module):
    """Every second pixel, and zeros for the channels that are missing."""

    def forward(self, x):
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.skip = Padded() if stride == 2 else nn.Sequential()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), SigBatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), SigBatchNorm2d(outputs),
        )  # fmt: skip

    def forward(self, x):
        return F.relu(self.residual(x) + self.skip(x))


def official() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), SigBatchNorm2d(8, momentum=0.3))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))
    model = nn.Sequential(stem, Block(8, 8, 1), Block(8, 12, 2), head)
    model(torch.randn(16, 1, 8, 8))  # statistics of its own
    return model.eval()


def test_the_copy_has_the_same_outputs_and_the_original_its_norms():
    model, x = official().double(), torch.randn(5, 1, 8, 8, dtype=torch.float64)
    found = from_official(model)
    torch.testing.assert_close(found(x), model(x), rtol=1e-12, atol=1e-12)
    norms = [m for m in found.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 5
    assert all(type(m) is SigmoidBatchNorm2d for m in norms)
    assert norms[0].momentum == 0.3
    assert not any(isinstance(m, SigmoidBatchNorm2d) for m in model.modules())


@pytest.mark.parametrize("reference", [False, True])
def test_it_is_cut_and_tuned_like_one_of_ours(reference):
    options = {"prune_pc": 0.5, "epochs": 1, "limit": 600, "progress": False, "reference": reference}
    small, logs = pc.prune_finetune(official(), "digits", "rni", **options)
    assert 0.3 < logs["removed"] <= 0.6
    assert len(logs["test_acc"]) == 1
    assert [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)].count(12) == 1  # residual sums stay


def test_prune_says_how_to_take_them_over():
    with pytest.raises(Unprunable, match=r"from_official\(model\)"):
        pc.prune(official(), "rni", 0.5, example_input=torch.zeros(1, 1, 8, 8))
    assert pc.prune(from_official(official()), "rni", 0.5, example_input=torch.zeros(1, 1, 8, 8)).masks.removed
    with pytest.raises(BadType, match="SigBatchNorm2d of the code of RNI is needed"):
        SigmoidBatchNorm2d.from_official(nn.BatchNorm2d(3))


def test_reference_trains_on_all_training_images():
    ours, _ = pipeline._loaded("digits", "cpu", None, None, reference=False)
    theirs, _ = pipeline._loaded("digits", "cpu", None, None, reference=True)
    assert len(theirs.train) == len(ours.train) + len(ours.score) + len(ours.validation)
    assert torch.equal(theirs.train.inputs[: len(ours.train)], ours.train.inputs)
    assert len(theirs.test) == len(ours.test)
