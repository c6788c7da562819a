"""Networks that leave the house: what a file of torch.export or ONNX puts out is what the network puts out, or one sentence."""

import importlib.util
import warnings
from pathlib import Path

import onnxruntime
import pytest
import torch
import torchvision
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, PruningError
from pruning_core.models.calls import mapped, tensors_of

X = torch.randn((4, 2, 8, 8), generator=torch.Generator().manual_seed(0))


def run(path: Path, *inputs) -> list[torch.Tensor]:
    """What the file puts out, by the runtime that users have."""
    if path.suffix == ".pt2":
        return tensors_of(torch.export.load(path).module()(*inputs))
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    named = {entry.name: tensor.numpy() for entry, tensor in zip(session.get_inputs(), tensors_of(inputs), strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, named)]


def leaves(model: nn.Module, path: Path, *inputs, sizes=(1, 5)) -> None:
    """Export, and compare with the network on batches of other sizes, drawn anew."""
    assert pc.export_network(model, path, inputs) is None
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        batch = mapped(lambda t: torch.randn((size, *t.shape[1:]), generator=generator, dtype=t.dtype), inputs)  # noqa: B023
        with torch.no_grad():
            wanted = tensors_of(model.eval()(*batch))
        for ours, theirs in zip(wanted, run(path, *batch), strict=True):
            assert ours.shape == theirs.shape and float(ours.abs().max()) > 0
            assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()


ZOO = {"lenet300": "digits", "lenet5": "mnist5k", "resnet20": "digits", "vgg8": "digits", "vit_tiny": "digits"}
SLOW_ZOO = ("resnet20", "vgg8", "vit_tiny")


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW_ZOO)) for n in ZOO])
def test_shrunk_networks_of_the_zoo_leave(name, suffix, tmp_path):
    model = pc.build_model(name, ZOO[name], seed=0)
    result = pc.prune(model, "l1_norm", 0.5)
    leaves(result.shrink(), tmp_path / f"small.{suffix}", result.example_input)


TORCHVISION = [
    "resnet18",
    "mobilenet_v2",
    "densenet121",
    "googlenet",
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "convnext_tiny",
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The default weight initialization")
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
@pytest.mark.parametrize("name", TORCHVISION)
def test_pruned_networks_of_torchvision_leave(name, suffix, tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=10).eval()
    x = torch.randn(1, 3, 64, 64)
    try:
        pruned = pc.prune(model, "l1_norm", 0.3, example_input=x).shrink()
    except PruningError:
        pruned = pc.prune(model, "magnitude", 0.5).model
    leaves(pruned, tmp_path / f"small.{suffix}", x, sizes=(2,))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_shrunk_networks_compile(name):
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=10).eval()
    x = torch.randn(2, 3, 64, 64)
    small = pc.prune(model, "l1_norm", 0.3, example_input=x).shrink()
    with torch.no_grad():
        wanted, found = small(x), torch.compile(small, fullgraph=True)(x)
    assert (wanted - found).abs().max() <= 1e-4 * wanted.abs().max()


class TwoInTwoOut(nn.Module):
    """Two inputs, of which one is a dict, and outputs by name."""

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.other = nn.Conv2d(2, 6, 3), nn.Linear(6, 3), nn.Linear(4, 3)

    def forward(self, image, table):
        pooled = self.conv(image).relu().mean((2, 3))
        return {"logits": self.head(pooled) + self.other(table["row"]), "features": (pooled,)}


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_several_inputs_and_outputs_by_name_leave(suffix, tmp_path):
    leaves(TwoInTwoOut(), tmp_path / f"two.{suffix}", X[:1], {"row": torch.randn(1, 4)})


def test_a_network_with_zeros_leaves_with_them(tmp_path):
    masked = pc.prune(nn.Sequential(nn.Flatten(), nn.Linear(128, 5)), "magnitude", 0.9).model
    leaves(masked, tmp_path / "masked.pt2", X[:1])
    (weight,) = [t for n, t in torch.export.load(tmp_path / "masked.pt2").state_dict.items() if n.endswith("weight")]
    assert int((weight == 0).sum()) == round(0.9 * 128 * 5)


class Fixed(nn.Module):
    """Reads its batch as one sample of several parts."""

    def __init__(self, parts: int):
        super().__init__()
        self.parts, self.mix = parts, nn.Linear(128 * parts, 3)

    def forward(self, x):
        return self.mix(x.reshape(1, 128 * self.parts))


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_the_one_batch_size_of_a_network_is_told(suffix, tmp_path):
    path = tmp_path / f"fixed.{suffix}"
    assert pc.export_network(model := Fixed(4).eval(), path, X) == 4
    assert torch.allclose(run(path, X)[0], model(X), atol=1e-5)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, x):
        return self.layer(x) if float(x.sum()) > 0 else self.layer(-x)


class Counting(Branching):
    """Puts out something else at each call: no program can be equal to it."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * self.calls


class Sorted(Branching):
    """An operator for which the ONNX exporter has no translation."""

    def forward(self, x):
        return torch.linalg.svdvals(self.layer(x).mT @ self.layer(x))


REFUSED = {
    "branch": (Branching, "x.pt2", r"torch.export cannot take Branching: .*save_network"),
    "state": (Counting, "x.pt2", r"differs by .* where outputs reach .*nothing was written"),
    "operator": (Sorted, "x.onnx", "the ONNX exporter cannot take this network: .*try .pt2"),
    "half": (lambda: nn.Linear(8, 3).bfloat16(), "x.onnx", "onnxruntime cannot .*float32, or .pt2"),
    "suffix": (Branching, "x.pth", "ends in .pt2 or .onnx, not '.*x.pth'"),
    "meta": (lambda: nn.Linear(8, 3).to("meta"), "x.pt2", "'weight' lies on the meta device"),
    "shape": (lambda: nn.Linear(9, 3), "x.onnx", "the network cannot take inputs of shape"),
    "folder": (lambda: nn.Linear(8, 3), "missing/x/y.pt2", "cannot write"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_leave_gets_one_sentence_and_leaves_nothing_behind(case, tmp_path):
    build, name, words = REFUSED[case]
    (tmp_path / "missing").write_text("a file where a folder should be")
    model = build()
    x = torch.randn(2, 8).to(next(model.parameters()).dtype)
    with pytest.raises(BadInput, match=words) as caught:
        pc.export_network(model, tmp_path / name, x)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["missing"]


def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name))
    with pytest.raises(BadInput, match=r"writing .onnx needs onnxscript: pip install onnxscript\."):
        pc.export_network(nn.Linear(8, 3), tmp_path / "x.onnx", torch.zeros(1, 8))


def test_what_no_onnx_file_can_hold_is_refused_before_work(monkeypatch, tmp_path):
    monkeypatch.setattr("pruning_core.models.export.LARGEST", 100)
    with pytest.raises(BadInput, match="at most 2 GiB"):
        pc.export_network(nn.Linear(8, 3), tmp_path / "x.onnx", torch.zeros(1, 8))


def test_the_network_the_random_state_and_warnings_are_left_as_they_were(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pc.export_network(model, tmp_path / "x.pt2", X)
    assert all(module.training for module in model.modules()) and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.allclose(run(tmp_path / "x.pt2", X)[0], model.eval()(X), atol=1e-6)
