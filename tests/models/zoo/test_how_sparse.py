"""Networks of How Sparse Can We Prune: counts of the paper's analysis, what they compute, how they start."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models as torchvision_models

from pruning_core import prune
from pruning_core.errors import BadInput, UnknownName
from pruning_core.models import MODELS
from pruning_core.models.build import build_model

COLOUR = (3, 32, 32)
NEW = [
    "fc2", "fc5", "fc12", "fc13", "lenet_how_sparse", "cnet", "alexnet_how_sparse",
    "resnet18_how_sparse", "resnet50_how_sparse",
]  # fmt: skip


def on_meta(name, shape, classes, norm="batch"):
    """The network without memory: only the shapes are looked at."""
    with torch.device("meta"):
        return MODELS[name].build(shape, classes, 1.0, norm)


def layers_of(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize(("name", "shape", "classes", "parameters", "prunable", "analysed"), [
    ("fc5", COLOUR, 10, 3_885_010, 3_883_000, 3_885_010),
    ("fc5", (1, 28, 28), 10, 1_597_010, 1_595_000, 1_597_010),
    ("fc2", COLOUR, 10, 308_310, 308_200, 308_310),
    ("fc12", COLOUR, 10, 7_269_610, 7_263_000, 7_269_610),
    ("fc13", COLOUR, 10, 7_339_860, 7_333_000, 7_339_860),
    ("lenet_how_sparse", (1, 32, 32), 10, 120_382, 120_120, 120_382),
    ("cnet", (1, 32, 32), 10, 302_542, 301_800, 302_190),
    ("alexnet_how_sparse", COLOUR, 10, 46_787_978, 46_778_400, 46_787_978),
    ("vgg16_how_sparse", COLOUR, 10, 14_728_266, 14_715_584, 14_719_818),
    ("resnet18_how_sparse", COLOUR, 100, 11_220_132, 11_210_432, 11_210_532),
    ("resnet50_how_sparse", COLOUR, 100, 23_705_252, 23_652_032, 23_652_132),
])  # fmt: skip
def test_counts_of_the_analysis(name, shape, classes, parameters, prunable, analysed):
    """All parameters; weights of convolutions and linear layers; coordinates of the Hessian (all but batch norm)."""
    model = on_meta(name, shape, classes)
    total = sum(parameter.numel() for parameter in model.parameters())
    norms = [p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    assert total == parameters
    assert sum(layer.weight.numel() for layer in layers_of(model)) == prunable
    assert total - sum(norms) == analysed


CONVOLUTIONS = {  # of model.py, stage by stage
    "vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4),
}  # fmt: skip
BLOCKS = {
    "resnet18": (1, (2, 2, 2, 2)), "resnet34": (1, (3, 4, 6, 3)), "resnet50": (4, (3, 4, 6, 3)),
    "resnet101": (4, (3, 4, 23, 3)), "resnet152": (4, (3, 8, 36, 3)),
}  # fmt: skip
PUBLISHED = {"vgg11": 9_231_114, "vgg13": 9_416_010, "vgg16": 14_728_266, "vgg19": 20_040_522, "resnet34": 21_328_292}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_vgg_has_the_parameters_that_its_list_of_layers_has(name):
    widths = [w for w, n in zip((64, 128, 256, 512, 512), CONVOLUTIONS[name], strict=True) for _ in range(n)]
    pairs = zip([3, *widths], widths, strict=False)
    counted = sum(9 * i * o + o + 2 * o for i, o in pairs) + 512 * 10 + 10  # bias, and the two vectors of a norm
    model = on_meta(f"{name}_how_sparse", COLOUR, 10)
    assert sum(p.numel() for p in model.parameters()) == counted == PUBLISHED[name]
    assert MODELS[f"{name}_how_sparse"].parameters == counted
    assert [len(layer.weight) for layer in layers_of(model)] == [*widths, 10]


@pytest.mark.parametrize("name", BLOCKS)
def test_a_residual_network_has_the_parameters_that_its_blocks_have(name):
    expansion, stages = BLOCKS[name]
    inputs, counted = 64, 9 * 3 * 64 + 2 * 64
    for width, blocks in zip((64, 128, 256, 512), stages, strict=True):
        for block in range(blocks):
            outputs = expansion * width
            if expansion == 1:
                counted += 9 * inputs * width + 9 * width * width + 2 * (width + width)
            else:
                counted += inputs * width + 9 * width * width + width * outputs + 2 * (2 * width + outputs)
            if block == 0 and (width > 64 or inputs != outputs):
                counted += inputs * outputs + 2 * outputs
            inputs = outputs
    counted += 100 * inputs + 100
    model = on_meta(f"{name}_how_sparse", COLOUR, 100)
    assert sum(p.numel() for p in model.parameters()) == counted == PUBLISHED.get(name, counted)
    assert MODELS[f"{name}_how_sparse"].parameters == counted


def test_layers_of_the_perceptrons():
    twelve = [1000, 900, 800, 750, 700, 650, 600, 500, 400, 200, 100, 7]
    thirteen = [1000, 900, 800, 750, 700, 650, 600, 500, 400, 250, 200, 100, 7]
    wanted = {"fc2": [100, 7], "fc5": [1000, 600, 300, 100, 7], "fc12": twelve, "fc13": thirteen}
    for name, units in wanted.items():
        assert [layer.out_features for layer in layers_of(on_meta(name, COLOUR, 7))] == units
        half = build_model(name, ((1, 8, 8), 7), width=0.5, seed=0)
        assert [layer.out_features for layer in layers_of(half)] == [*(n // 2 for n in units[:-1]), 7]


@pytest.mark.parametrize("name", NEW)
def test_width_narrows_every_layer_but_the_classifier(name):
    full = [len(layer.weight) for layer in layers_of(on_meta(name, COLOUR, 7))]
    narrow = [len(layer.weight) for layer in layers_of(build_model(name, (COLOUR, 7), width=0.125, seed=0))]
    assert narrow == [*(max(1, round(n / 8)) for n in full[:-1]), 7]


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def restless(model):
    """Biases and norms as after some training, so that each of them has an effect."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2, generator=generator)
            elif tensor.is_floating_point() and tensor.dim() == 1:
                tensor.add_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype), alpha=0.3)
    return model.double().eval()


def linear_part(model, x):
    layers = [layer for layer in layers_of(model) if isinstance(layer, nn.Linear)]
    for layer in layers:
        x = x @ layer.weight.T + layer.bias
        x = x if layer is layers[-1] else x.clamp(min=0)
    return x


def convolved(model, i, x, **options):
    layer = [layer for layer in layers_of(model) if isinstance(layer, nn.Conv2d)][i]
    return F.conv2d(x, layer.weight, layer.bias, **options)


@pytest.mark.parametrize("name", ["fc2", "fc5", "fc12", "fc13"])
def test_what_the_perceptrons_compute(name):
    model, x = restless(build_model(name, ((3, 5, 4), 7), width=0.05, seed=0)), inputs(3, 3, 5, 4)
    torch.testing.assert_close(model(x), linear_part(model, x.reshape(3, 60)))


@pytest.mark.parametrize("side", [32, 28, 19])
def test_what_lenet_computes(side):
    model = restless(build_model("lenet_how_sparse", ((3, side, side), 7), width=0.3, seed=0))
    x = inputs(2, 3, side, side)
    hidden = x
    for i in range(2):
        hidden = F.max_pool2d(convolved(model, i, hidden).relu(), 2)
    torch.testing.assert_close(model(x), linear_part(model, hidden.reshape(2, -1)))


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("side", [32, 28, 19])
def test_what_cnet_computes(side, norm):
    model = restless(build_model("cnet", ((1, side, side), 7), width=0.1, norm=norm, seed=0))
    x = hidden = inputs(2, 1, side, side)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == (4 if norm == "batch" else 0)
    for i in range(4):
        hidden = convolved(model, i, hidden)
        if norms:
            n = norms[i]
            hidden = F.batch_norm(hidden, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps)
        hidden = hidden.relu()
    torch.testing.assert_close(model(x), linear_part(model, F.max_pool2d(hidden, 2).reshape(2, -1)))


@pytest.mark.parametrize(("side", "times"), [(32, 7), (28, 8), (8, 28), (224, 1)])
def test_what_alexnet_computes(side, times):
    model = restless(build_model("alexnet_how_sparse", ((3, side, side), 7), width=0.04, seed=0))
    x = inputs(2, 3, side, side)
    hidden = x.repeat_interleave(times, 2).repeat_interleave(times, 3)
    for i, (stride, padding, pool) in enumerate(
        [(4, 1, True), (1, 2, True), (1, 1, False), (1, 1, False), (1, 1, True)]
    ):
        hidden = convolved(model, i, hidden, stride=stride, padding=padding).relu()
        hidden = F.max_pool2d(hidden, 3, 2) if pool else hidden
    assert hidden.shape[2:] == (5, 5)
    torch.testing.assert_close(model(x), linear_part(model, hidden.reshape(2, -1)))


@pytest.mark.parametrize(("depth", "side"), [(18, 16), (18, 9), (50, 8)])
def test_resnets_are_those_of_torchvision_with_a_small_stem(depth, side):
    model = restless(build_model(f"resnet{depth}_how_sparse", ((3, side, side), 100), seed=0))
    with torch.device("meta"):
        other = torchvision_models.get_model(f"resnet{depth}", num_classes=100)
        other.conv1, other.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    own = list(model.state_dict().values())
    other.load_state_dict(dict(zip(other.state_dict(), own, strict=True)), assign=True)
    x = inputs(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other.eval()(x))


@pytest.mark.parametrize("name", [*NEW, "vgg16_how_sparse"])
def test_the_official_initialisation(name):
    width = 0.25 if "net" in name else 0.1
    model = build_model(name, (COLOUR, 10), width=width, seed=0)
    large = 0
    for layer in layers_of(model):
        fan_in, values = layer.weight[0].numel(), layer.weight.detach().double().flatten()
        count = len(values)
        ratio = float(values.square().mean()) * fan_in / 2
        assert abs(ratio - 1) < 6 * math.sqrt(2 / count)
        if count > 5_000:
            large += 1
            assert float(values.abs().max()) > 3 * math.sqrt(2 / fan_in)  # a uniform one would end at 1.73
    assert large
    for key, value in model.state_dict().items():
        if key.endswith("bias"):
            assert not value.any(), key
        elif value.dim() == 1 and key.endswith("weight"):
            assert (value == 1).all(), key


@pytest.mark.parametrize("name", ["fc12", "lenet_how_sparse", "vgg11_how_sparse"])
def test_the_official_uniform_initialisation(name):
    """Of the same variance, so that its end is at sqrt(6 / fan_in); the same seed, another network."""
    model = build_model(name, (COLOUR, 10), width=0.25, start="he_uniform", seed=0)
    for layer in layers_of(model):
        fan_in, values = layer.weight[0].numel(), layer.weight.detach().double().flatten()
        end = math.sqrt(6 / fan_in)
        assert float(values.abs().max()) <= end
        assert abs(float(values.square().mean()) * fan_in / 2 - 1) < 6 * math.sqrt(0.8 / len(values))
        assert not layer.bias.any()
    assert not torch.equal(
        next(model.parameters()), next(build_model(name, (COLOUR, 10), width=0.25, seed=0).parameters())
    )


def test_a_start_that_is_none_is_refused():
    with pytest.raises(UnknownName, match="did you mean 'he_uniform'"):
        build_model("fc5", (COLOUR, 10), start="he_unifrm")
    with pytest.raises(BadInput, match="starts as torchvision starts it"):
        build_model("torchvision/resnet18", (COLOUR, 10), start="he_uniform")


@pytest.mark.parametrize("name", ["lenet_how_sparse", "cnet", "alexnet_how_sparse", "resnet18_how_sparse", "fc5"])
def test_channels_can_be_removed(name):
    model = restless(build_model(name, ((1, 19, 19), 10), width=0.06, seed=0))
    x = inputs(2, 1, 19, 19)
    result = prune(model, "random_channels", 0.4, example_input=x[:1])
    small = result.shrink()
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(small.eval()(x), result.model.eval()(x), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(small(x), model(x))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(("name", "smallest"), [("lenet_how_sparse", 16), ("cnet", 18)])
def test_images_that_are_too_small_are_refused(name, smallest):
    fits = build_model(name, ((1, smallest, smallest + 3), 10), width=0.1, seed=0)
    assert fits.eval()(torch.zeros(2, 1, smallest, smallest + 3)).shape == (2, 10)
    with pytest.raises(BadInput, match=f"{name} needs images of at least {smallest}x{smallest}"):
        build_model(name, ((1, smallest + 3, smallest - 1), 10), seed=0)
    with pytest.raises((RuntimeError, ValueError, ZeroDivisionError)):  # without the limit there would be nothing left
        MODELS[name].build((1, smallest - 1, smallest - 1), 10, 1.0, "batch")(
            torch.zeros(2, 1, smallest - 1, smallest - 1)
        )
