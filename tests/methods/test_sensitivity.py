"""Sensitivities against the definition written out as loops: every filter, sign, position, entry and point alone."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, UnknownName, Unprunable
from pruning_core.masks.masks import Masks
from pruning_core.masks.sites import find_sites
from pruning_core.methods.base import View
from pruning_core.methods.shared.halves import layer_sensitivities
from pruning_core.methods.shared.sensitivities import SMALLEST_OUTPUT, RunningSensitivity, sample_size, sensitivity
from pruning_core.models.activations import layer_inputs

DOUBLE = torch.float64
PADDINGS = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


# --- the slow way


def padded(layer: nn.Conv2d, point: np.ndarray) -> np.ndarray:
    """One point (C, H, W) with the border that the layer puts around it."""
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        borders = [(total // 2, total - total // 2) for total in totals]
    elif layer.padding == "valid":
        borders = [(0, 0), (0, 0)]
    else:
        borders = [(p, p) for p in layer.padding]
    return np.pad(point, [(0, 0), *borders], mode=PADDINGS[layer.padding_mode])


def windows(layer: nn.Module, point: np.ndarray) -> list[np.ndarray]:
    """What every output position of one point sees: a list of (inputs of the layer, k1, k2)."""
    if isinstance(layer, nn.Linear):
        return [row.reshape(-1, 1, 1) for row in point.reshape(-1, point.shape[-1])]
    whole = padded(layer, point)
    found = []
    reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    for top in range(0, whole.shape[1] - reach[0], layer.stride[0]):
        for left in range(0, whole.shape[2] - reach[1], layer.stride[1]):
            rows = [top + layer.dilation[0] * u for u in range(layer.kernel_size[0])]
            columns = [left + layer.dilation[1] * v for v in range(layer.kernel_size[1])]
            found.append(whole[:, rows][:, :, columns])
    return found


def slow(layer: nn.Module, x: torch.Tensor, reduce: str = "max", kernel: str = "reduce"):
    """(weight sensitivities, channel sensitivities), straight from the definition, in float64."""
    weight = layer.weight.detach().double().numpy()
    four = weight.reshape(*weight.shape[:2], *weight.shape[2:], *[1] * (4 - weight.ndim))
    filters, fan_in, k1, k2 = four.shape
    groups = getattr(layer, "groups", 1)
    best, channel = np.zeros(four.shape), np.zeros(fan_in * groups)
    for sample in x.double().numpy():
        for point in (np.maximum(sample, 0), np.maximum(-sample, 0)):
            seen = windows(layer, point)
            for i in range(filters):
                first = (i // (filters // groups)) * fan_in  # the first input that this filter reads
                shares = np.zeros((len(seen), fan_in, k1, k2))
                whole = np.zeros((len(seen), fan_in))  # the share of a channel with all of its kernel positions
                for (p, patch), sign in itertools.product(enumerate(seen), (1, -1)):
                    z = 0.0
                    for c, u, v in np.ndindex(fan_in, k1, k2):
                        z += max(sign * four[i, c, u, v], 0) * patch[first + c, u, v]
                    if z <= 1.1920929e-07:
                        continue
                    for c in range(fan_in):
                        together = 0.0
                        for u, v in np.ndindex(k1, k2):
                            share = max(sign * four[i, c, u, v], 0) * patch[first + c, u, v] / z
                            shares[p, c, u, v] = max(shares[p, c, u, v], share)
                            together += share
                        whole[p, c] = max(whole[p, c], together)
                mine = shares.max(0) if reduce == "max" else shares.mean(0)
                best[i] = np.maximum(best[i], mine)
                for c in range(fan_in):
                    value = mine[c].max() if reduce == "max" else mine[c].mean()
                    value = whole[:, c].max() if kernel == "sum" else value
                    channel[first + c] = max(channel[first + c], value)
    return best.reshape(weight.shape), channel


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0, dtype=DOUBLE) -> torch.Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=DOUBLE).to(dtype)


def drawn(layer: nn.Module, seed: int = 1, dtype=DOUBLE) -> nn.Module:
    """The layer with weights of both signs, and about a quarter of them zero."""
    with torch.no_grad():
        weight = noise(*layer.weight.shape, seed=seed)
        zero = torch.rand(weight.shape, generator=seeded(seed + 1)) < 0.25
        layer.weight.copy_(weight.masked_fill(zero, 0))
        if layer.bias is not None:
            layer.bias.copy_(noise(*layer.bias.shape, seed=seed + 2) * 10)
    return layer.to(dtype)


LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (4, 6)),
    "tokens": (lambda: nn.Linear(6, 4), (3, 5, 6)),
    "tokens on a grid": (lambda: nn.Linear(4, 3), (2, 2, 3, 4)),
    "plain": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 5, 6)),
    "stride": (lambda: nn.Conv2d(3, 4, 3, stride=(2, 1)), (2, 3, 6, 5)),
    "padding": (lambda: nn.Conv2d(3, 4, (3, 2), padding=(1, 2)), (2, 3, 4, 3)),
    "dilation": (lambda: nn.Conv2d(2, 4, 3, padding=2, dilation=(2, 1)), (2, 2, 5, 4)),
    "1x1": (lambda: nn.Conv2d(4, 3, 1, stride=2), (3, 4, 5, 5)),
    "groups": (lambda: nn.Conv2d(6, 4, 3, padding=1, groups=2), (2, 6, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (2, 4, 4, 5)),
    "depthwise, two filters each": (lambda: nn.Conv2d(3, 6, 3, groups=3), (2, 3, 4, 4)),
    "reflect": (lambda: nn.Conv2d(2, 3, 3, padding=2, padding_mode="reflect"), (2, 2, 4, 5)),
    "replicate": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate", stride=2), (2, 2, 4, 5)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=(1, 0), padding_mode="circular"), (2, 2, 4, 5)),
    "same": (lambda: nn.Conv2d(2, 3, 3, padding="same", dilation=2), (2, 2, 5, 5)),
    # An even kernel: one side gets one row more than the other.
    "same, even": (lambda: nn.Conv2d(2, 3, (4, 2), padding="same"), (2, 2, 5, 4)),
    "same, reflect": (lambda: nn.Conv2d(2, 3, (4, 3), padding="same", padding_mode="reflect"), (2, 2, 5, 4)),
    "valid": (lambda: nn.Conv2d(2, 3, 3, padding="valid"), (2, 2, 4, 4)),
}  # fmt: skip


def case(kind: str, dtype=DOUBLE) -> tuple[nn.Module, torch.Tensor]:
    build, shape = LAYERS[kind]
    return drawn(build(), dtype=dtype), noise(*shape, seed=7, dtype=dtype)


REDUCTIONS = [("max", "reduce"), ("mean", "reduce"), ("max", "sum")]


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_against_loops(kind, dtype):
    layer, x = case(kind, dtype)
    close = {"rtol": 1e-10, "atol": 1e-12} if dtype == DOUBLE else {"rtol": 2e-5, "atol": 1e-6}
    assert (x < 0).any()
    # Where half of the inputs are off, many shares are all of an output; where all are on, none is.
    given = [(points, *how) for points in (x, x.abs() + 0.1) for how in REDUCTIONS]
    for points, reduce, kernel in given:
        found = sensitivity(layer, [points], reduce, kernel)
        weight, channel = slow(layer, points, reduce, kernel)
        np.testing.assert_allclose(found.weight, weight, **close, err_msg=f"{reduce} {kernel}")
        np.testing.assert_allclose(found.channel, channel, **close, err_msg=f"{reduce} {kernel}")
        assert found.weight.dtype == found.channel.dtype == dtype
        assert found.weight.shape == layer.weight.shape
        assert found.positions == len(windows(layer, x[0].double().numpy()))


def test_inputs_that_are_not_negative_are_one_point_each():
    for kind in ("linear", "plain", "groups"):
        layer, x = case(kind)
        weight, channel = slow(layer, x.abs(), "mean")
        found = sensitivity(layer, [x.abs()], "mean")
        np.testing.assert_allclose(found.weight, weight, rtol=1e-10)
        np.testing.assert_allclose(found.channel, channel, rtol=1e-10)


def test_a_negative_input_counts_as_a_point_of_its_own():
    layer = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0, 2.0]]))
    # max(a, 0) = (3, 0, 1) gives 3/5 and 2/5; max(-a, 0) = (0, 4, 0) gives all to the second.
    found = sensitivity(layer, [torch.tensor([[3.0, -4.0, 1.0]], dtype=DOUBLE)])
    np.testing.assert_allclose(found.weight, [[0.6, 1.0, 0.4]])


def test_the_two_signs_of_a_filter_do_not_mix():
    layer = nn.Linear(4, 1, bias=True).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 3.0, -2.0, -6.0]]))
    found = sensitivity(layer, [torch.ones(1, 4, dtype=DOUBLE)])
    np.testing.assert_allclose(found.weight, [[0.25, 0.75, 0.25, 0.75]])


@pytest.mark.parametrize("kind", ["linear", "tokens", "plain", "stride", "groups", "reflect", "1x1"])
@pytest.mark.parametrize(("reduce", "kernel"), REDUCTIONS)
def test_chunks_do_not_matter(kind, reduce, kernel):
    layer, _ = case(kind)
    shape = (11, *LAYERS[kind][1][1:])
    x = noise(*shape, seed=3)
    x[:9] = x[:9].abs() + 0.1  # chunks without anything negative beside chunks with
    whole = sensitivity(layer, [x], reduce, kernel)
    for sizes in ((1,) * 11, (4, 7), (3, 1, 5, 2)):
        cut = sensitivity(layer, x.split(sizes), reduce, kernel)
        torch.testing.assert_close(cut.weight, whole.weight, rtol=1e-12, atol=0)
        torch.testing.assert_close(cut.channel, whole.channel, rtol=1e-12, atol=0)
        assert cut.positions == whole.positions
    running = RunningSensitivity(layer, reduce, kernel)
    for part in reversed(x.split(4)):
        running.add(part)
    torch.testing.assert_close(running.result().weight, whole.weight, rtol=1e-12, atol=0)


def test_more_positions_than_fit_into_one_block():
    """Blocks of positions inside a chunk: 4 entries a patch make 32,768 positions a block, and here are 48,000."""
    layer = drawn(nn.Conv2d(4, 3, 1, bias=False))
    x = noise(3, 4, 100, 80).abs()
    x = torch.cat([x, x[:, :, :, :80]], 3)
    assert x[:, 0].numel() > 32768
    x[2, 1, 99, 159] = 1e6  # the very last position decides
    found = sensitivity(layer, [x])
    weight, flat = layer.weight.detach().flatten(1), x.transpose(0, 1).flatten(1)
    expected = torch.zeros_like(weight)
    for sign in (1, -1):
        half = (weight * sign).clamp(min=0)
        z = half @ flat
        shares = half[:, :, None] * flat / torch.where(z > 1.2e-7, z, torch.inf)[:, None]
        expected = torch.maximum(expected, shares.amax(2))
    torch.testing.assert_close(found.weight.flatten(1), expected)
    assert (found.weight[:, 1] > 0.999).any()


@pytest.mark.parametrize("kind", LAYERS)
def test_shares_lie_between_zero_and_one(kind):
    for dtype in (torch.float32, DOUBLE):
        layer, x = case(kind, dtype)
        most = {}
        for reduce, kernel in REDUCTIONS:
            found = sensitivity(layer, [x], reduce, kernel)
            rounding = 4 * torch.finfo(dtype).eps
            for values in found[:2]:
                assert values.min() >= 0
                assert values.max() <= 1 + rounding
            most[reduce, kernel] = found
            assert (found.weight[layer.weight == 0] == 0).all()
        assert (layer.weight == 0).any()
        # A mean is no more than the largest, and one entry no more than its whole window.
        assert (most["mean", "reduce"].weight <= most["max", "reduce"].weight + rounding).all()
        assert (most["max", "reduce"].channel <= most["max", "sum"].channel + rounding).all()


@pytest.mark.parametrize(("kind", "shape"), [("linear", (1, 6)), ("plain", (1, 3, 3, 3)), ("1x1", (1, 4, 1, 1))])
def test_shares_of_one_half_at_one_point_add_up_to_one(kind, shape):
    layer, _ = case(kind)
    x = noise(*shape, seed=5).abs()
    for reduce in ("max", "mean"):
        share = sensitivity(layer, [x], reduce).weight.flatten(1)
        for sign in (1, -1):
            half = layer.weight.detach().flatten(1) * sign > 0
            assert half.any(1).any()
            np.testing.assert_allclose((share * half).sum(1), half.any(1).double(), rtol=1e-12)


def test_shares_of_the_whole_window_add_up_to_one_over_channels():
    layer = drawn(nn.Conv2d(3, 1, 3, bias=False))
    with torch.no_grad():
        layer.weight.abs_()
    x = noise(1, 3, 3, 3).abs()
    np.testing.assert_allclose(sensitivity(layer, [x], "max", "sum").channel.sum(), 1, rtol=1e-12)
    assert sensitivity(layer, [x]).channel.sum() < 0.9


@pytest.mark.parametrize("kind", ["linear", "tokens", "padding", "groups", "reflect"])
@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_factors_change_nothing(kind, reduce):
    layer, x = case(kind)
    x[0] = x[0].abs()
    before = sensitivity(layer, [x], reduce)
    for factor in (1e-3, 300.0):
        after = sensitivity(layer, [x * factor], reduce)
        torch.testing.assert_close(after.weight, before.weight)
        torch.testing.assert_close(after.channel, before.channel)
    # Each half of each filter by a factor of its own.
    rows = layer.weight.detach()
    factors = torch.rand(2, len(rows), generator=seeded(4), dtype=DOUBLE) * 20 + 0.01
    up, down = (f.view(-1, *[1] * (rows.dim() - 1)) for f in factors)
    with torch.no_grad():
        layer.weight.copy_(torch.where(rows > 0, rows * up, rows * down))
    after = sensitivity(layer, [x], reduce)
    torch.testing.assert_close(after.weight, before.weight)
    # A factor for the weights of one input alone does change something.
    before = sensitivity(layer, [x.abs()], reduce)
    with torch.no_grad():
        layer.weight[:, 0] *= 5
    assert (sensitivity(layer, [x.abs()], reduce).weight - before.weight).abs().max() > 0.01


def test_more_points_never_lower_a_sensitivity():
    for kind in ("linear", "plain"):
        for reduce in ("max", "mean"):
            layer, _ = case(kind)
            x = noise(12, *LAYERS[kind][1][1:], seed=9)
            grown = [sensitivity(layer, [x[:n]], reduce) for n in (1, 3, 6, 12)]
            for few, many in itertools.pairwise(grown):
                assert (many.weight >= few.weight - 1e-14).all()
            assert (grown[-1].weight > grown[0].weight + 1e-3).any()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_outputs_below_the_smallest_are_switched_off(dtype):
    layer = nn.Linear(2, 1, bias=False, dtype=dtype)
    for sign in (1.0, -1.0):
        nn.init.constant_(layer.weight, sign)
        for size, on in ((1.5e-7, True), (2.0**-23, False), (1e-7, False), (0.0, False)):
            # The bound is that of float32 in float64 as well.
            found = sensitivity(layer, [torch.tensor([[0.75 * size, 0.25 * size]], dtype=dtype)])
            np.testing.assert_allclose(found.weight, [[0.75, 0.25] if on else [0, 0]], rtol=1e-6)
    # One half off, the other on: only the first is silent.
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1e-9, -1.0]]))
    np.testing.assert_allclose(sensitivity(layer, [torch.ones(1, 2, dtype=dtype)]).weight, [[0, 1]], rtol=1e-6)
    assert SMALLEST_OUTPUT == 1.1920929e-07


def test_points_that_switch_nothing_on_count_for_nothing():
    layer, x = case("plain")
    found, with_zeros = sensitivity(layer, [x]), sensitivity(layer, [torch.cat([torch.zeros_like(x), x])])
    assert torch.equal(found.weight, with_zeros.weight)
    silent = sensitivity(layer, [torch.zeros_like(x)])
    assert silent.weight.abs().max() == silent.channel.abs().max() == 0
    assert torch.isfinite(silent.weight).all()


def test_neither_layer_nor_inputs_are_touched():
    layer, x = case("plain")
    weight, inputs = layer.weight.detach().clone(), x.clone()
    found = sensitivity(layer, [x])
    assert torch.equal(layer.weight, weight)
    assert torch.equal(x, inputs)
    assert layer.weight.grad is None
    assert not found.weight.requires_grad


def test_all_layers_of_a_network_in_one_pass():
    """In evaluation mode, and each layer on the inputs that it is given there."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Conv2d(4, 3, 3, groups=1),
            nn.Flatten(), nn.Linear(12, 3),
        ).double()  # fmt: skip
    model[1].running_mean.fill_(0.3)
    x = noise(6, 2, 6, 6)
    view = View(
        model.train(), find_sites(model, channels=False), Masks(), [(x[:4], None), (x[4:], None)], None, seeded(0)
    )
    found = layer_sensitivities(view, ["0", "4", "6"], "mean")
    assert model.training
    model.eval()
    with torch.no_grad():
        maps = {"0": x, "4": model[:4](x), "6": model[:6](x)}
    for name, inputs in maps.items():
        weight, channel = slow(model.get_submodule(name), inputs, "mean")
        np.testing.assert_allclose(found[name].weight, weight, rtol=1e-9)
        np.testing.assert_allclose(found[name].channel, channel, rtol=1e-9)
    seen = next(layer_inputs(model, ["4"], [(x, None)]))
    assert torch.equal(seen["4"], maps["4"])


# --- what is refused


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(2, 3, 3), nn.Conv3d(2, 3, 3), nn.ConvTranspose2d(2, 3, 3), nn.BatchNorm2d(2)]
)
def test_other_layers_are_refused(layer):
    with pytest.raises(Unprunable, match=f"linear and 2-d convolutional layers, not {type(layer).__name__}"):
        sensitivity(layer, [torch.rand(2, 2, 4, 4)])


def test_reductions_that_do_not_go_together():
    layer, x = case("plain")
    with pytest.raises(BadInput, match="kernel='sum' needs reduce='max'"):
        sensitivity(layer, [x], "mean", "sum")
    with pytest.raises(UnknownName, match="unknown reduction 'largest'"):
        sensitivity(layer, [x], "largest")
    with pytest.raises(UnknownName, match="unknown reduction over the kernel 'mean'"):
        sensitivity(layer, [x], "max", "mean")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_inputs_that_are_not_finite_are_refused(bad):
    for kind in ("linear", "plain"):
        layer, x = case(kind)
        broken = x.clone()
        broken.view(-1)[3] = bad
        with pytest.raises(BadInput, match="NaN or infinite"):
            sensitivity(layer, [x, broken])


@pytest.mark.parametrize("delta", [0.0, 1.0, -0.1, 2.0, math.nan, math.inf])
def test_delta_is_a_probability(delta):
    with pytest.raises(BadInput, match=r"delta must lie in \(0, 1\)"):
        sample_size(410, 300, delta)
    for name in ("sipp_random", "sipp_hybrid", "pfp", "pfp_random", "pfp_top"):
        with pytest.raises(BadInput, match=r"delta must lie in \(0, 1\)"):
            pc.METHODS[name](delta=delta)


def test_numbers_of_outputs_and_the_constant_are_positive():
    for outputs, largest, constant in ((0, 1, 3.0), (10, 0, 3.0), (10, 5, 0.0), (10, 5, -1.0)):
        with pytest.raises(BadInput, match="are positive"):
            sample_size(outputs, largest, constant=constant)


# --- how many points


def outputs_of(name: str, data: str) -> tuple[int, int]:
    """Output scalars of all convolutions and linear layers for one input, and those of the largest layer."""
    model = pc.build_model(name, data, seed=0).to("meta").eval()
    counts: list[int] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: counts.append(output[0].numel()))
    with torch.no_grad():
        model(torch.empty(1, *model.recipe["shape"], device="meta"))
    return sum(counts), max(counts)


def test_sample_sizes_of_lenet300():
    """The authors' sweep over delta, without its first two, 10 and 1: they are no probabilities, and are refused."""
    assert outputs_of("lenet300", "mnist5k") == (410, 300)
    deltas = [0.1, 0.01, *(10.0**-power for power in (4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32))]
    found = [sample_size(410, 300, delta) for delta in deltas]
    assert found == [49, 56, 70, 83, 97, 111, 125, 139, 152, 180, 208, 235, 263]
    # One factor of ten is one factor of ten, whether in delta or in the numbers of outputs.
    assert [sample_size(41, 300, 0.1), sample_size(41, 30, 0.1)] == [42, 35]
    assert sample_size(410, 300, 1e-16, constant=10) == 507


PUBLISHED = {
    "resnet20_b": (183, 609), "vgg16": (188, 626), "resnet56_bottleneck": (194, 644), "resnet110_bottleneck": (196, 651),
    "densenet22": (188, 624), "wrn16_8": (195, 647),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_sample_sizes_of_networks(name):
    outputs, largest = outputs_of(name, "cifar10")
    found = tuple(sample_size(outputs, largest, 1e-16, constant) for constant in (3.0, 10.0))
    assert found == PUBLISHED[name]


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_channels_can_be_left_out(reduce):
    layer, x = nn.Conv2d(3, 4, 3).double(), torch.rand(5, 3, 6, 6, dtype=torch.float64)
    whole, part = (RunningSensitivity(layer, reduce, channels=channels) for channels in (True, False))
    for running in (whole, part):
        running.add(x)
    torch.testing.assert_close(part.result().weight, whole.result().weight, rtol=1e-12, atol=0)
    assert part.result().channel.shape == (0,) and whole.result().channel.shape == (3,)
