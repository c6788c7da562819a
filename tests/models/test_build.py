"""Models: the sizes of the papers' tables, every input that the mathematics allows, rebuilding by recipe."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from pruning_core import prune
from pruning_core.errors import BadInput, BadType, UnknownName
from pruning_core.models import MODELS
from pruning_core.models.build import build_model, rebuild, recipe_for
from pruning_core.models.layers.index import ChannelIndex
from pruning_core.models.layers.norms import SigmoidBatchNorm2d
from pruning_core.models.zoo.base import NETWORKS

SMALL = [name for name, info in MODELS.items() if info.parameters < 1_000_000]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(name, shape, classes, width=1.0, norm="batch"):
    """The network without memory, for what only its shapes tell."""
    with torch.device("meta"):
        return build_model(name, (shape, classes), width=width, norm=norm)


def test_every_entry_of_the_table_is_a_network():
    assert set(NETWORKS) == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_paper(name):
    info = MODELS[name]
    assert count(on_meta(name, info.shape, info.classes)) == info.parameters


@pytest.mark.parametrize(
    ("name", "data", "norm", "parameters"),
    [
        ("lenet5", ((3, 32, 32), 10), "batch", 81_302),
        ("lenet300", ((1, 8, 8), 10), "batch", 64 * 300 + 300 + 30_100 + 1_010),
        ("vgg16", ((3, 32, 32), 100), "batch", 14_774_436),
        ("vgg16_rni", ((3, 32, 32), 10), "sigmoid", 14_724_042),
        ("resnet56_rni", ((3, 32, 32), 100), "batch", 858_868),
        ("resnet56_rni", ((3, 32, 32), 10), "sigmoid", 850_986),
    ],
)
def test_parameters_of_other_rows_of_the_tables(name, data, norm, parameters):
    assert count(on_meta(name, *data, norm=norm)) == parameters


@pytest.mark.parametrize(("name", "layers"), [
    ("vgg16", 14), ("resnet20_b", 22), ("resnet56_bottleneck", 86), ("resnet110_bottleneck", 167),
    ("lenet5", 5), ("lenet300", 3), ("lenet500", 4), ("fc_nettrim", 4), ("densenet22", 22), ("wrn16_8", 17),
    ("wrn28_2", 29), ("cnn5", 5), ("cnn60k", 4),
])  # fmt: skip
def test_layers_with_weights(name, layers):
    modules = on_meta(name, MODELS[name].shape, 10, width=0.25).modules()
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in modules) == layers


@pytest.mark.parametrize(("name", "parameters"), [
    ("resnet18", 11_689_512), ("resnet50", 25_557_032), ("resnet101", 44_549_160), ("wide_resnet50_2", 68_883_240),
    ("vgg11_bn", 132_868_840), ("vgg16_bn", 138_365_992),
])  # fmt: skip
def test_parameters_of_the_networks_for_imagenet(name, parameters):
    assert count(on_meta(f"torchvision/{name}", (3, 224, 224), 1000)) == parameters


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_drawn_where_weights_are_not_used(name, monkeypatch):
    def refuse(model):
        pytest.fail("the paper's weights were drawn")

    info = MODELS[name]
    monkeypatch.setitem(MODELS, name, replace(info, initialise=refuse))
    shapes = [parameter.shape for parameter in on_meta(name, info.shape, 10, width=0.1).parameters()]
    again = rebuild(recipe_for(name, info.shape, 10, width=0.1))
    assert [parameter.shape for parameter in again.parameters()] == shapes
    assert torch.isfinite(torch.cat([parameter.flatten() for parameter in again.parameters()])).all()
    with pytest.raises(pytest.fail.Exception):
        build_model(name, (info.shape, 10), width=0.1, seed=0)


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_those_that_the_initialiser_draws_after_the_seed(name):
    info = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        expected = info.build(info.shape, 10, 0.25, "batch")
        torch.manual_seed(3)
        info.initialise(expected)
    built = build_model(name, (info.shape, 10), width=0.25, seed=3)
    for one, other in zip(expected.state_dict().values(), built.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["densenet22", "wrn16_8", "wrn28_2", "cnn5", "cnn60k", "lenet500"])
def test_channels_of_the_networks_of_sipp_can_be_removed(name):
    side = max(MODELS[name].smallest, 8)
    model = build_model(name, ((1, side, side), 10), width=0.25, seed=0).double().eval()
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # not the identity, so that a channel of zeros still has an effect
            module.running_mean.normal_(std=0.3, generator=generator)
            module.bias.data.normal_(std=0.3, generator=generator)
    x = torch.randn(4, 1, side, side, generator=generator, dtype=torch.float64)
    result = prune(model, "random_channels", 0.5, example_input=x[:1])
    small = result.shrink()
    assert count(small) < 0.6 * count(model)
    outputs = result.model.eval()(x)
    torch.testing.assert_close(small.eval()(x), outputs, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(outputs, model(x))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_forward_on_the_images_of_the_book(name, shape):
    smallest = MODELS[name].smallest
    if shape[1] < smallest:
        with pytest.raises(BadInput, match=f"{name} needs images of at least {smallest}x{smallest}"):
            build_model(name, (shape, 7), seed=0)
        return
    model = build_model(name, (shape, 7), width=0.25, seed=0)
    outputs = model(torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)))
    assert outputs.shape == (3, 7)
    assert outputs.isfinite().all()
    assert not torch.allclose(outputs[0], outputs[1], rtol=1e-3, atol=0)


def test_the_smallest_image_is_the_smallest():
    for name, info in MODELS.items():
        shape = (1, info.smallest, info.smallest)
        assert build_model(name, (shape, 10), width=0.1, seed=0).eval()(torch.randn(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("width", [0.01, 0.3, 1.5])
def test_width_scales_every_layer(name, width):
    info = MODELS[name]
    model = build_model(name, (info.shape, 10), width=width, seed=0)
    wide, full = (
        [m.weight.shape[0] for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for net in (model, on_meta(name, info.shape, 10))
    )
    assert len(wide) == len(full)
    assert wide[-1] == full[-1] == 10
    assert min(wide) >= 1
    if len(full) > 1:  # logistic regression has its classes only
        assert wide[0] == max(1, round(width * full[0]))
    assert model.eval()(torch.randn(2, *info.shape)).shape == (2, 10)


@pytest.mark.parametrize("name", SMALL)
def test_seed_fixes_the_weights_and_leaves_the_global_state(name):
    data = (MODELS[name].shape, 10)
    torch.manual_seed(5)
    first, state = build_model(name, data, seed=1).state_dict(), torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())
    torch.randn(3)
    second, other = build_model(name, data, seed=1).state_dict(), build_model(name, data, seed=2).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_without_a_seed_the_global_state_decides():
    torch.manual_seed(3)
    first, second = build_model("lenet300", "digits"), build_model("lenet300", "digits")
    torch.manual_seed(3)
    again = build_model("lenet300", "digits")
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, second[1].weight)


@pytest.mark.parametrize("name", ["vgg16_rni", "resnet20", "resnet20_b", "lenet5_snip"])
def test_one_seed_gives_the_same_weights_whatever_the_norm(name):
    data, nets = (MODELS[name].shape, 10), {}
    for norm in ("batch", "sigmoid", "none"):
        model = build_model(name, data, norm=norm, width=0.5, seed=4)
        nets[norm] = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert (len(norms) > 0) == (norm != "none")
        assert all(isinstance(m, SigmoidBatchNorm2d) == (norm == "sigmoid") for m in norms)
        assert model.eval()(torch.randn(2, *data[0])).shape == (2, 10)
    for norm in ("sigmoid", "none"):
        assert all(torch.equal(a, b) for a, b in zip(nets["batch"], nets[norm], strict=True))


def test_initial_values():
    rni = build_model("vgg16_rni", "cifar10", seed=0)
    scales = torch.cat([m.weight for m in rni.modules() if isinstance(m, nn.BatchNorm2d)])
    assert len(scales) == 4_224
    assert (scales == 0.5).all()
    assert rni.linear.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not rni.linear.bias.any()
    conv = rni.features.conv5_3
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)
    assert not conv.bias.any()
    snip = build_model("lenet300_snip", "mnist", seed=0)
    gram = snip.fc2.weight @ snip.fc2.weight.T
    assert torch.allclose(gram, 2 / (1 + 0.05**2) * torch.eye(100), atol=1e-4)
    assert torch.allclose(snip.fc3.weight @ snip.fc3.weight.T, torch.eye(10), atol=1e-4)
    he = build_model("resnet20", "cifar10", seed=0)
    assert he.layer3[1].conv1.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)
    assert all((m.weight == 1).all() for m in he.modules() if isinstance(m, nn.BatchNorm2d))


def test_option_a_is_a_slice_with_padding():
    model = build_model("resnet20", "cifar10", seed=0)
    shortcut = model.layer2[0].shortcut
    assert isinstance(shortcut, ChannelIndex)
    x = torch.randn(2, 16, 8, 8)
    expected = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8))
    assert torch.equal(shortcut(x), expected)
    keys = {key.rpartition(".")[0] for key in model.state_dict() if "shortcut" not in key}
    assert keys == {
        "conv1", "bn1", "linear",
        *(f"layer{s}.{i}.{p}" for s in (1, 2, 3) for i in range(3) for p in ("conv1", "bn1", "conv2", "bn2")),
    }  # fmt: skip


def test_resnet56_of_rni_has_no_relu_behind_the_stem():
    for name, negative in (("resnet56", False), ("resnet56_rni", True)):
        model, seen = build_model(name, "cifar10", width=0.25, seed=0).eval(), []
        model.layer1.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        model(torch.randn(1, 3, 32, 32))
        assert (seen[0] < 0).any().item() is negative


@pytest.mark.parametrize("name", [*SMALL, "torchvision/mobilenet_v3_small"])
def test_rebuild_from_json(name):
    shape = MODELS[name].shape if name in MODELS else (3, 32, 32)
    width = 0.5 if name in MODELS else 1
    model = build_model(name, (shape, 5), width=width)
    again = rebuild(json.loads(json.dumps(model.recipe)))
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, *shape)
    assert again.recipe == model.recipe
    assert torch.equal(model.eval()(x), again.eval()(x))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_torchvision_by_name(name):
    model = build_model(f"torchvision/{name}", "cifar10", seed=0)
    assert model.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert count(model) > 1_000_000


@pytest.mark.slow
def test_every_torchvision_network_can_be_built():
    from torchvision import models

    for name in models.list_models(module=models):
        if not name.startswith(("vit_", "regnet_y_128gf")):  # hundreds of millions of parameters
            model = build_model(f"torchvision/{name}", ((3, 96, 96), 10), seed=0)
            assert model.recipe["name"] == f"torchvision/{name}"
        if name in ("googlenet", "inception_v3"):  # no auxiliary outputs while training
            assert model(torch.randn(2, 3, 96, 96)).shape == (2, 10)


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(UnknownName, match=r"did you mean 'resnet20'.*torchvision/<name>"):
        build_model("resnet_20", "cifar10")
    with pytest.raises(UnknownName, match="torchvision/resnet18"):
        build_model("torchvision/resnet_18", "cifar10")
    with pytest.raises(UnknownName, match="did you mean 'cifar10'"):
        build_model("resnet20", "cifar-10")
    with pytest.raises(UnknownName, match="unknown norm 'layer'"):
        build_model("resnet20", "cifar10", norm="layer")
    with pytest.raises(BadInput, match="lenet300 cannot have norm='sigmoid'"):
        build_model("lenet300", "mnist", norm="sigmoid")
    for width in (0, -1, float("nan"), float("inf")):
        with pytest.raises(BadInput, match="width"):
            build_model("resnet20", "cifar10", width=width)
    for width in ("wide", True, None):
        with pytest.raises(BadType, match="width"):
            build_model("resnet20", "cifar10", width=width)
    for data in (((3, 32), 10), 10, None, (3, 32, 32)):
        with pytest.raises(BadType, match="data must be"):
            build_model("resnet20", data)
    for data in (((3, 0, 32), 10), ((3, 32, 32), 0)):
        with pytest.raises(BadInput, match=r"classes.* must be at least 1"):
            build_model("resnet20", data)
    with pytest.raises(BadType, match=r"classes.* must be a whole number, not 2\.5"):
        build_model("resnet20", ((3, 32, 32), 2.5))
    with pytest.raises(BadInput, match="width must be 1"):
        build_model("torchvision/resnet18", "cifar10", width=0.5)
    with pytest.raises(BadInput, match="entries"):
        rebuild({"name": "resnet20"})


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "vgg11_bn", "densenet121", "googlenet", "convnext_tiny", "vit_b_16"]
)
def test_networks_of_torchvision_read_images_of_any_number_of_channels(name):
    for channels in (1, 5):
        with torch.device("meta"):
            model = build_model(f"torchvision/{name}", ((channels, 224, 224), 7)).eval()
            assert model(torch.zeros(2, channels, 224, 224)).shape == (2, 7)
            coloured = build_model(f"torchvision/{name}", ((3, 224, 224), 7))
        shapes = {n: p.shape for n, p in coloured.named_parameters()}
        changed = {n: p.shape for n, p in model.named_parameters() if p.shape != shapes[n]}
        assert [(shape[1], shape[2:]) for shape in changed.values()] == [(channels, shapes[n][2:]) for n in changed]
        assert len(changed) == 1


def test_a_first_convolution_for_grey_images_starts_as_wide_as_torchvisions():
    grey, coloured = (build_model("torchvision/resnet18", ((n, 8, 8), 4), seed=3).conv1.weight for n in (1, 3))
    assert float((grey.std() / coloured.std()).detach()) == pytest.approx(1, abs=0.1)
    again = build_model("torchvision/resnet18", ((1, 8, 8), 4), seed=3)
    assert torch.equal(again.conv1.weight, grey)
    assert rebuild(again.recipe).conv1.weight.shape == (64, 1, 7, 7)
