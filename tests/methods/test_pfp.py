"""PFP against a grid of errors and against sensitivities written out."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import Unprunable
from pruning_core.masks.budgets import Budget
from pruning_core.methods.pfp import PFP, PFPRandom, draws_at, kept_at, last_errors, split
from pruning_core.methods.shared.sensitivities import sensitivity
from pruning_core.papers.sipp_pfp.low_rank import low_rank
from tests.methods.sampled_networks import (
    CHANNEL_METHODS,
    DOUBLE,
    inputs_by_hand,
    near,
    network,
    randomised,
    seeded,
    view_of,
)

# --- channels: PFP


def slow_kept(error_: float, scores: np.ndarray, a: float) -> int:
    """How many channels an error leaves, as the paper's sheet has it."""
    q = scores / scores.sum()
    m = max(math.ceil(3 * (6 + 2 * error_) * a / error_**2), 1)
    return min(math.ceil(float(np.sum(1 - (1 - q) ** min(m, 1e15))) - 1e-9), int((q > 0).sum()))


def slow_errors(scores: np.ndarray, a: float) -> np.ndarray:
    """For each channel the error at which it goes, by bisection of ``slow_kept``; infinite for the best one."""
    found = np.zeros(len(scores))
    for rank, channel in enumerate(np.argsort(-scores, kind="stable").tolist(), 1):
        if scores[channel] == 0:
            continue
        low, high = 1e-7, 1e12
        for _ in range(200):
            middle = math.sqrt(low * high)
            if slow_kept(middle, scores, a) >= rank:
                low = middle
            else:
                high = middle
        found[channel] = math.inf if rank == 1 else low
    return found


def random_scores(seed: int) -> tuple[np.ndarray, float]:
    rng = np.random.default_rng(seed)
    scores = 10 ** rng.uniform(-2, 0, rng.integers(2, 20))
    scores[rng.random(len(scores)) < 0.15] = 0
    scores[0] = max(scores[0], 0.3)
    return scores, float(10 ** rng.uniform(0, 3))


@pytest.mark.parametrize("seed", range(12))
def test_last_errors_against_a_grid_of_errors(seed):
    scores, a = random_scores(seed)
    last = last_errors(torch.from_numpy(scores), a).numpy()
    np.testing.assert_allclose(last, slow_errors(scores, a), rtol=1e-7)
    order = np.argsort(-scores, kind="stable")
    assert (np.diff(last[order][1:]) <= 0).all()
    assert (last[scores == 0] == 0).all()
    seen = set()
    for error_ in np.geomspace(1e-3, 1e5, 700):
        kept = slow_kept(error_, scores, a)
        assert kept == kept_at(error_, scores / scores.sum(), a)
        assert ((last >= error_) == np.isin(np.arange(len(scores)), order[:kept])).all()
        seen.add(kept)
    assert len(seen) > 1


def test_last_errors_of_equal_and_of_single_channels():
    last = last_errors(torch.tensor([0.5, 0.5, 0.5]), 10.0)
    assert last[0] == math.inf
    assert last[1] >= last[2] > 0
    assert last_errors(torch.tensor([0.0, 0.2, 0.0]), 10.0).tolist() == [0, math.inf, 0]
    assert last_errors(torch.zeros(3), 10.0).tolist() == [0, 0, 0]
    # Three times (6 + 2 e) a / e^2 rounded up: at e = 3 and a = 1 that is 4.
    assert draws_at(3.0, 1.0) == 4
    assert draws_at(1e9, 1.0) == 1


READERS = {
    # group -> the layers that read it, and which channel each of their inputs is (an offset, and inputs a channel)
    "chain": {"0": {"3": (0, 1)}, "3": {"5": (0, 1)}, "5": {"8": (0, 4)}, "8": {"10": (0, 1)}},
    "branches": {
        # The stem, conv2 and the depthwise filters are one group.
        "stem": {"conv1": (0, 1), "pointwise": (0, 1)}, "conv1": {"conv2": (0, 1)}, "join": {"fc1": (0, 4)},
        "pointwise": {"extra": (0, 1), "join": (0, 1)}, "extra": {"join": (7, 1)}, "fc1": {"fc2": (0, 1)},
    },
    "perceptron": {"0": {"2": (0, 1)}, "2": {"4": (0, 1)}},
}  # fmt: skip


# Output positions of the reading layers that are convolutions.
POSITIONS = {
    "chain": {"3": 9, "5": 4},
    "branches": {"conv1": 64, "conv2": 64, "pointwise": 16, "extra": 16, "join": 4},
    "perceptron": {},
}


def by_hand(kind: str, model, batches, kernel: str = "max", constant: float = 3.0, delta: float = 1e-16):
    """Layer -> (sensitivities of the channels it reads, coefficient), for layers that read one or more groups."""
    layers = sorted({layer for readers in READERS[kind].values() for layer in readers})
    maps = inputs_by_hand(model, layers, batches)
    found = {}
    for name in layers:
        layer = model.get_submodule(name)
        scores = sensitivity(layer, [maps[name]], "max", "sum" if kernel == "sum" else "reduce").channel.numpy()
        each = max(readers[name][1] for readers in READERS[kind].values() if name in readers)
        scores = scores.reshape(-1, each).max(1)  # a channel behind a flatten: the largest of its positions
        window = (layer.weight[0, 0].numel() if layer.weight.dim() == 4 else 1) * each
        p = POSITIONS[kind].get(name, 1)
        found[name] = (scores, scores.sum() * 2 * constant * math.log(8 * (p + 1) * window / delta))
    return found


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("method", [PFP(), PFP(kernel="sum"), PFP(constant=10.0, delta=1e-3)])
def test_a_channel_goes_with_the_last_layer_that_reads_it(kind, method):
    model, batches = network(kind)
    view = view_of(model, batches, method)
    scores = method.score(view)
    layers = by_hand(kind, model, batches, method.kernel, method.constant, method.delta)
    errors = {name: slow_errors(*found) for name, found in layers.items()}
    groups = READERS[kind]
    assert set(scores) == set(groups)
    expected = {}
    for name, readers in groups.items():
        size = view.sites.groups[name].size
        expected[name] = np.max([errors[layer][start : start + size] for layer, (start, _) in readers.items()], axis=0)
    finite = max(part[np.isfinite(part)].max() for part in expected.values())
    for name, part in expected.items():
        best = ~np.isfinite(part)
        np.testing.assert_allclose(np.asarray(scores[name])[~best], part[~best], rtol=1e-6)
        assert (np.asarray(scores[name])[best] > finite).all()
        assert torch.isfinite(scores[name]).all()
    if (
        kind == "branches"
    ):  # both readers decide in some channel, and of one concatenation one part has the best channel
        ours = errors["conv1"] > errors["pointwise"]
        assert ours.any() and not ours.all()
        assert np.isinf(errors["join"]).sum() == 1


@pytest.mark.parametrize("kind", ["chain", "perceptron"])
@pytest.mark.parametrize("of", ["channels", "weights"])
def test_one_error_sets_the_widths_of_all_layers(kind, of):
    model, batches = network(kind)
    layers = by_hand(kind, model, batches)
    readers = {group: next(iter(names)) for group, names in READERS[kind].items()}
    different = 0
    for sparsity in (0.1, 0.2, 0.3, 0.45, 0.6, 0.75):
        result = pc.prune(model, "pfp", sparsity, of=of, batches=batches)
        counts = {name: int(group.alive(result.masks).sum()) for name, group in result.sites.groups.items()}
        low, high = 1e-7, 1e12  # the largest error that leaves as many
        for _ in range(300):
            middle = math.sqrt(low * high)
            if sum(slow_kept(middle, *layers[reader]) for reader in readers.values()) >= sum(counts.values()):
                low = middle
            else:
                high = middle
        away = [
            sum(abs(slow_kept(e, *layers[reader]) - counts[name]) for name, reader in readers.items())
            for e in (low, high)
        ]
        assert min(away) <= 1, sparsity
        different += len({counts[name] / result.sites.groups[name].size for name in counts}) > 1
        # In each layer the largest sensitivities stay.
        for name, reader in readers.items():
            scores, alive = layers[reader][0], result.sites.groups[name].alive(result.masks).numpy()
            np.testing.assert_array_equal(
                np.flatnonzero(alive), np.sort(np.argsort(-scores, kind="stable")[: counts[name]])
            )
    assert different > 3  # otherwise any method that takes the same from all layers would pass


@pytest.mark.parametrize("method", CHANNEL_METHODS)
@pytest.mark.parametrize("kind", ["perceptron", "chain"])
def test_channel_budgets_are_exact(method, kind):
    model, batches = network(kind)
    total = sum({"perceptron": (20, 15), "chain": (9, 14, 11, 16)}[kind])
    for sparsity in (0.0, 0.05, 0.2, 0.5, 0.77, 0.9):
        result = pc.prune(model, method, sparsity, batches=batches)
        left = sum(int(group.alive(result.masks).sum()) for group in result.sites.groups.values())
        assert abs(left - (1 - sparsity) * total) <= 0.5 + 1e-6
        assert all(group.alive(result.masks).any() for group in result.sites.groups.values())


@pytest.mark.parametrize("kind", ["chain", "branches"])
def test_variants_that_draw_have_the_widths_of_pfp(kind):
    model, batches = network(kind)
    for sparsity in (0.2, 0.5, 0.7):
        widths = []
        for method in ("pfp", "pfp_random", "pfp_top"):
            result = pc.prune(model, method, sparsity, batches=batches, seed=3)
            widths.append({name: int(group.alive(result.masks).sum()) for name, group in result.sites.groups.items()})
        assert widths[0] == widths[1] == widths[2]


def two_layers(seed: int = 0):
    """A hidden layer whose channels matter very differently, and the layer that reads them."""
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5)).double()
    randomised(model, seed)
    with torch.no_grad():
        model[0].weight.abs_()
        model[0].bias.abs_()
        model[2].weight.mul_(torch.logspace(0, -1.5, 12, dtype=DOUBLE))
    return model, [(torch.rand(20, 6, generator=seeded(seed + 1), dtype=DOUBLE), None)]


def test_pfp_top_keeps_certain_channels_as_they_are():
    model, batches = two_layers()
    scores = by_hand_scores(model, batches)
    q = scores / scores.sum()
    for sparsity in (0.25, 0.5, 0.75):
        count = 12 - math.floor(12 * sparsity + 0.5)
        certain, sampled = split(q, count)
        # The least number of draws that shows so many, by counting up.
        m = next(m for m in range(1, 10**6) if math.ceil(float(np.sum(1 - (1 - q) ** m)) - 1e-9) >= min(count, 11))
        assert (certain, sampled) == (min(int((q >= 1 / m).sum()), count), count - certain)
        order = np.argsort(-scores, kind="stable")
        others = set()
        for seed in range(12):
            result = pc.prune(model, "pfp_top", sparsity, batches=batches, seed=seed)
            left = result.model[2].weight.detach()
            kept = np.flatnonzero(left.abs().sum(0).numpy())
            assert len(kept) == count
            assert set(order[:certain].tolist()) <= set(kept.tolist())
            assert torch.equal(left[:, order[:certain]], model[2].weight.detach()[:, order[:certain]])
            rest = sorted(set(kept.tolist()) - set(order[:certain].tolist()))
            others |= set(rest)
            # Drawn channels are multiplied by c / (m q): with q these factors weigh 1 in all.
            factors_ = (left[:, rest] / model[2].weight.detach()[:, rest]).numpy()
            np.testing.assert_allclose(factors_, np.broadcast_to(factors_[0], factors_.shape), rtol=1e-9)
            if len(rest) and len(rest) < 12 - certain:
                remaining = np.delete(np.arange(12), order[:certain])
                share = scores[rest] / scores[remaining].sum()
                np.testing.assert_allclose((factors_[0] * share).sum(), 1, rtol=1e-9)
        assert 0 < certain < count or sampled == count
        assert not sampled or len(others) > sampled  # not always the same


def by_hand_scores(model, batches) -> np.ndarray:
    maps = inputs_by_hand(model, ["2"], batches)
    return sensitivity(model[2], [maps["2"]]).channel.numpy()


def test_drawn_channels_leave_the_mean_of_the_next_outputs():
    """Columns that matter the same are drawn with equal probability: nothing is favoured by the exact number either."""
    model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4)).double()
    randomised(model, 3)
    with torch.no_grad():  # all hidden channels are equal, only the weights of their readers have a sign of their own
        model[0].weight.copy_(torch.rand(1, 6, generator=seeded(5), dtype=DOUBLE).expand(10, 6))
        model[0].bias.fill_(0.1)
        model[2].weight.copy_(model[2].weight.sign() * torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=DOUBLE)[:, None])
        model[2].weight[0].abs_()  # this filter alone decides over no channel more than another
        model[2].weight[1:] = model[2].weight[:1] * torch.tensor([2.0, -3.0, 4.0], dtype=DOUBLE)[:, None]
    x = torch.rand(15, 6, generator=seeded(6), dtype=DOUBLE)
    batches = [(x, None)]
    np.testing.assert_allclose(by_hand_scores(model, batches), np.full(10, 0.1))
    method, samples = PFPRandom(), 400
    view = view_of(model, batches, method, 4)
    hidden = torch.relu(model[0](x)).detach()
    outputs = []
    for _ in range(samples):
        choice = method.choose(view, Budget(0.5, of="channels"))
        assert (choice.masks["2.weight"].any(0)).sum() == 5
        outputs.append(hidden @ (choice.values["2.weight"] * choice.masks["2.weight"]).T)
    found = torch.stack(outputs)
    near(found.mean(0), hidden @ model[2].weight.detach().T, found.std(0), samples, 5)
    # With filters that agree in every channel, even a single draw gives the exact output: q times the factor is c / m.
    assert found.std(0).max() < 1e-9
    # Single columns do vary, and are right on average.
    columns = torch.stack([method.choose(view, Budget(0.5, of="channels")).values["2.weight"] for _ in range(samples)])
    near(columns.mean(0), model[2].weight.detach(), columns.std(0), samples, 5)
    assert columns.std(0).min() > 0.3


def test_bias_of_drawn_channels_is_small():
    """Sensitivities that differ: the exact number of channels costs some bias, next to nothing beside the noise."""
    model, batches = two_layers()
    hidden = torch.relu(model[0](batches[0][0])).detach()
    method, samples = PFPRandom(), 400
    view = view_of(model, batches, method, 2)
    outputs = []
    for _ in range(samples):
        choice = method.choose(view, Budget(0.5, of="channels"))
        outputs.append(hidden @ (choice.values["2.weight"] * choice.masks["2.weight"]).T)
    found, dense = torch.stack(outputs), hidden @ model[2].weight.detach().T
    kept = hidden @ (model[2].weight.detach() * (view_scores(model, batches) >= view_scores(model, batches).median())).T
    bias = (found.mean(0) - dense).abs().mean()
    assert bias < 0.2 * found.std(0).mean()
    assert bias < 0.1 * dense.abs().mean()
    # Without any factors the outputs would shrink by more than that.
    assert kept.abs().mean() < dense.abs().mean()


def view_scores(model, batches) -> torch.Tensor:
    return torch.from_numpy(by_hand_scores(model, batches))


def test_channels_without_any_sensitivity_go_first_and_come_back_last():
    model, batches = two_layers()
    with torch.no_grad():
        model[0].weight[3], model[0].bias[3] = 0, -1.0  # never on
        model[2].weight[:, 7] = 0  # never read
    for method in ("pfp", "pfp_random", "pfp_top"):
        masks = pc.prune(model, method, 2 / 12, batches=batches).masks
        assert np.flatnonzero(~masks["2.weight"].any(0).numpy()).tolist() == [3, 7]
        if method != "pfp":  # all that have one are kept, so nothing is re-weighted
            kept = pc.prune(model, method, 1 / 12, batches=batches)
            left = kept.masks["2.weight"].any(0)
            assert int(left.sum()) == 11 and left[3] != left[7]
            assert torch.equal(kept.model[2].weight[:, left], model[2].weight[:, left])


# --- what is refused


@pytest.mark.parametrize("method", ["pfp", "pfp_random", "pfp_top"])
def test_channels_without_sensitivities_are_refused(method):
    model = nn.Sequential(nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Conv1d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    batches = [(torch.rand(5, 2, 8), None)]
    result = pc.prune(model, method, 0.5, batches=batches)
    assert set(result.sites.groups) == {"2"}
    assert "read by Conv1d, for which sensitivities are not defined" in result.sites.excluded["channels of 0"]
    with pytest.raises(Unprunable, match="read by Conv1d, for which sensitivities are not defined"):
        pc.prune(nn.Sequential(*model[:3]), method, 0.5, batches=batches)


def test_attention_keeps_its_output_layer():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 16)

        def forward(self, x):
            return self.head(self.attention(x, x, x)[0])

    smaller, ranks = low_rank(Attending(), 0.5)
    assert list(ranks) == ["head"]
    assert smaller(torch.rand(2, 3, 16)).shape == (2, 3, 16)


def test_mean_channels_do_not_depend_on_chunks():
    layer = nn.Conv2d(2, 2, 3).double()
    x = torch.rand(6, 2, 3, 3, dtype=torch.float64)
    assert torch.allclose(sensitivity(layer, [x], "mean").channel, sensitivity(layer, x.split(1), "mean").channel)
