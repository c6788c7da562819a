"""Statistics and observers of chapter 4: closed forms, and that looking changes nothing."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import PruningError
from pruning_core.masks.masks import Masks
from pruning_core.masks.reports import dead_layers, dead_units, layer_density
from pruning_core.papers.snipit import Elasticities, OfficialTags, SignFlips, WeightStatistics
from pruning_core.papers.snipit.counts import (
    compressed_bits,
    harmonic_mean,
    reference_flops,
    saliency_maps,
    saliency_picture,
)
from pruning_core.plots import snipit as figures
from pruning_core.plots.style import alt_text
from pruning_core.training.evaluation import confusion_matrix
from pruning_core.training.tensorboard import TensorBoard


@pytest.fixture(scope="module")
def digits():
    return pc.load_data("digits")


@pytest.fixture(scope="module")
def model():
    return pc.build_model("mlp5_snip", "digits", width=0.05, seed=0)


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    )


def test_official_flops_by_hand():
    conv, norm, relu, pool, linear = 2 * (9 + 1) * 64, 2 * 128, 128, 4 * 32, 32 * 3 + 3
    assert reference_flops(small(), torch.zeros(5, 1, 8, 8)) == conv + norm + relu + pool + linear
    eight = reference_flops(small(), torch.zeros(1, 1, 8, 8), reference=True)
    assert eight == conv + 8 * (norm + relu) + pool + linear


def test_official_flops_of_other_layers():
    up = nn.ConvTranspose2d(3, 5, 2, stride=2)  # 16 positions, each sends 2x2 values to 5 channels from 3
    assert reference_flops(up, torch.zeros(1, 3, 4, 4)) == 16 * 3 * 4 * 5 + 5 * 64
    pool = nn.Sequential(nn.Conv2d(4, 2, 3, groups=2, bias=False), nn.MaxPool2d(2, return_indices=True))
    assert reference_flops(pool, torch.zeros(1, 4, 6, 6)) == 2 * 2 * 9 * 16 + 4 * 2 * 4
    line = nn.Sequential(nn.Conv1d(1, 2, 3), nn.MaxPool1d(2), nn.AvgPool1d(2))
    assert reference_flops(line, torch.zeros(1, 1, 10)) == 2 * 4 * 8 + 2 * 8 + 2 * 4


def test_compressed_bits_by_hand():
    model = small()
    with torch.no_grad():
        model[5].weight[:, :30] = 0
    nonzero = 18 + 2 + 6
    assert compressed_bits(model) == 34 * nonzero + 2 * (2 + 1) + 2 * (1 + 1) + 2 * (3 + 1)


@pytest.mark.parametrize(
    ("sparsity", "accuracy", "mean"), [(0.5, 50, 0.5), (0.98, 90, 2 * 0.98 * 0.9 / 1.88), (0, 0, 0), (1, 0, 0)]
)
def test_harmonic_mean(sparsity, accuracy, mean):
    assert harmonic_mean(sparsity, accuracy) == pytest.approx(mean)


def test_dead_layers_and_units_are_found():
    model = small()
    masks = Masks(
        {"0.weight": torch.zeros(2, 1, 3, 3, dtype=torch.bool), "5.weight": torch.ones(3, 32, dtype=torch.bool)}
    )
    masks["5.weight"][1] = False
    assert dead_layers(model, masks) == ["0.weight"]
    assert dead_units(model, masks) == {"0.weight": 2, "5.weight": 1}
    assert layer_density(model, masks) == {"0.weight": 0.0, "5.weight": pytest.approx(2 / 3)}
    assert layer_density(model, Masks()) == {"0.weight": 1.0, "5.weight": 1.0}


def test_a_run_writes_down_what_died(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))
    timeline = [
        pc.Prune("snap", 0.5),
        pc.Shrink(),
        pc.Measure("cut"),
        pc.Prune("magnitude", pc.Budget(0.97, keep_at_least=0)),
    ]
    first, last = pc.run(pc.Experiment("mlp5_snip", "digits", timeline, width=0.1), progress=False)
    layers = figures.parse_layers(__import__("pandas").DataFrame([first, last]))
    cut = layers[layers["label"] == "cut"]
    assert int((cut["units"] - cut["units_kept"]).sum()) == first["dead_units"] == 102
    assert (cut["weights_kept"] / cut["weights"]).tolist() == pytest.approx(cut["density"].tolist())
    assert last["dead_layers"] == int((layers[layers["label"] == "final"]["weights_kept"] == 0).sum())
    assert last["generalisation_gap"] == pytest.approx(last["fitted_accuracy"] - last["accuracy"])


def test_confusion_matrix_counts_every_image(model, digits):
    matrix = confusion_matrix(model, digits.test)
    assert int(matrix.sum()) == len(digits.test)
    assert matrix.sum(1).tolist() == torch.bincount(digits.test.labels, minlength=10).tolist()
    accuracy = 100 * int(matrix.diag().sum()) / len(digits.test)
    assert accuracy == pytest.approx(pc.evaluate(model, digits.test).accuracy)


def test_saliency_of_a_linear_network_is_its_weight():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([100.0, 0]))  # the first output is always the largest
    maps = saliency_maps(model, torch.randn(3, 1, 4, 4))
    weight = model[1].weight[0].detach()
    expected = ((weight - weight.mean()) / weight.std() * 0.1 + 0.5).clamp(0, 1).view(1, 4, 4)
    for each in maps:
        torch.testing.assert_close(each, expected)
    assert model[1].weight.grad is None
    assert (saliency_maps(nn.Sequential(nn.Flatten(), nn.Linear(1, 2)), torch.ones(2, 1, 1, 1)) == 0.5).all()
    for wrong in (torch.randn(3, 16), torch.ones(3, 1, 4, 4, dtype=torch.uint8), torch.randn(0, 1, 4, 4)):
        with pytest.raises(PruningError, match="N, C, H, W"):
            saliency_maps(model, wrong)


def test_observers_watch_and_change_nothing(model, digits):
    batches = list(digits.score.subset(64).batches(32))
    start = {name: value.clone() for name, value in model.state_dict().items()}

    def trained(observers):
        network = pc.build_model("mlp5_snip", "digits", width=0.05, seed=0)
        masks = pc.prune(network, "magnitude", 0.5).masks
        trainer = pc.Trainer(network, pc.Optimizer("adam", 2e-3), epochs=4, masks=masks, observers=observers, seed=1)
        for _ in range(4):
            trainer.train_epoch(digits.train, digits.validation)
        return trainer

    seen, drift = Elasticities(batches, every=2, points=50), WeightStatistics()
    watched, plain = trained([seen, drift, SignFlips(model)]), trained([])
    pairs = zip(watched.model.parameters(), plain.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [curve["epoch"] for curve in seen.curves] == [2, 4]
    for curve in seen.curves:
        assert len(curve["quantiles"]) == 50 and curve["quantiles"] == sorted(curve["quantiles"], reverse=True)
    assert "median_elasticity" in watched.history[1] and "median_elasticity" not in watched.history[0]
    assert drift.count == 4
    last = watched.model.get_parameter("fc1.weight").detach()
    assert (drift.mean["fc1.weight"] - last).abs().max() < 0.2
    assert all((v >= 0).all() for v in drift.variance.values())
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_welford_is_the_variance():
    layer = nn.Linear(3, 2, bias=False)
    values = [torch.randn(2, 3) for _ in range(5)]
    watch = WeightStatistics()

    class Now:
        model = layer
        masks = Masks({"weight": torch.tensor([[True, False, False], [False, True, True]])})

    row: dict = {}
    for value in values:
        with torch.no_grad():
            layer.weight.copy_(value)
        watch(Now, row)
    stacked = torch.stack(values)
    torch.testing.assert_close(watch.mean["weight"], stacked.mean(0))
    torch.testing.assert_close(watch.variance["weight"], stacked.var(0))
    living = stacked.var(0)[Now.masks["weight"]]
    assert row["weight_deviation"] == pytest.approx(float(living.mean().sqrt()))
    with pytest.raises(PruningError, match="no parameter"):
        SignFlips(nn.BatchNorm1d(3))


def test_observers_of_a_network_whose_weights_all_died(digits):
    class Dead:
        model = pc.build_model("mlp5_snip", "digits", width=0.05, seed=0)
        masks = Masks({n: torch.zeros(p.shape, dtype=torch.bool) for n, p in model.named_parameters() if p.dim() > 1})
        loss = staticmethod(nn.functional.cross_entropy)

    seen, row = Elasticities(list(digits.score.subset(64).batches(32))), {"epoch": 1}
    seen(Dead, row)
    assert seen.curves == [] and "median_elasticity" not in row
    WeightStatistics()(Dead, row)
    assert row["weight_deviation"] is None


def test_the_official_tags(model, digits, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    network = pc.build_model("mlp5_snip", "digits", width=0.05, seed=0)
    masks = pc.prune(network, "magnitude", 0.5).masks
    tags = OfficialTags(network, digits.train.inputs, len(digits.train))
    board = TensorBoard(tmp_path, also=tags)
    trainer = pc.Trainer(network, pc.Optimizer("adam", 2e-3), epochs=2, masks=masks, observers=[board], seed=1)
    for _ in range(2):
        trainer.train_epoch(digits.train, digits.validation)
    board.add_picture("network/confusion", figures.confusion({"dense": confusion_matrix(network, digits.test)}), 2)
    board.close()
    written = EventAccumulator(str(tmp_path)).Reload()
    names = set(written.Tags()["scalars"])
    wanted = {
        "acc/train",
        "acc/test",
        "loss/train",
        "sparse/weight",
        "sparse/node",
        "sparse/hm",
        "sparse/log_disk_size",
    }
    assert wanted | {"time/flops_per_sample", "time/flops_log_cum", "time/batch_time"} <= names
    assert written.Tags()["images"] == ["network/confusion"]
    last = {name: written.Scalars(name)[-1].value for name in names}
    assert last["sparse/weight"] == pytest.approx(0.5, abs=1e-3)
    flops = reference_flops(network, digits.train.inputs[:1])
    assert last["time/flops_log_cum"] == pytest.approx(math.log10(2 * len(digits.train) * flops), rel=1e-5)


def test_the_figures_say_what_they_show(model, digits):
    import pandas as pd

    batches = list(digits.score.subset(64).batches(32))
    result = pc.prune(model, "snip", 0.9, batches=batches)
    masks = {name.rpartition(".")[0]: mask for name, mask in result.masks.items() if mask.dim() > 1}
    slider = figures.mask_slider({"50 %": masks, "90 %": masks}, control="weights removed", title="Masks", cells=8)
    assert "fc1" in slider.to_html() and len(slider.data) == 2 * len(masks)
    assert np.asarray(slider.data[0]["z"]).max() <= 1
    curve = figures.curve_of({"a": torch.rand(500)}).assign(name="snip", seed=0, profile="smoke")
    assert curve["value"].is_monotonic_decreasing and curve["rank"].iloc[-1] == 1
    maps = saliency_maps(model, digits.test.inputs[:4])
    drawn = [
        figures.confusion({"dense": confusion_matrix(model, digits.test)}, title="Confusion"),
        figures.saliency_grid(digits.test.inputs[:4], {"dense": maps}, title="Saliency"),
    ]
    for fig in drawn:
        assert len(alt_text(fig)) > 40
    with pytest.raises(PruningError, match="by_layer"):
        figures.parse_layers(pd.DataFrame({"method": ["a"]}))
    with pytest.raises(PruningError, match="at least one position"):
        figures.mask_slider({}, control="x")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: harmonic_mean(1.2, 50), "lies in"),
        (lambda: harmonic_mean(0.5, 101), "lies in"),
        (lambda: Elasticities([]), "at least one batch"),
        (lambda: Elasticities([(torch.zeros(1), torch.zeros(1))], every=0), "at least 1"),
        (lambda: reference_flops(small(), torch.zeros(0, 1, 8, 8)), "batch dimension"),
        (lambda: OfficialTags(small(), 3, 10), "batch dimension"),
        (lambda: layer_density(small(), {}, ["5.weigth"]), "did you mean '5.weight'"),
        (lambda: dead_units(small(), {"5.weight": torch.ones(3, 2, dtype=torch.bool)}), "shape"),
        (lambda: pc.load_data("digits", random_labels=-1), "seed of the shuffle"),
        (lambda: pc.load_data("digits", random_labels=True), "seed of the shuffle"),
    ],
)
def test_bad_input_is_refused(make, words):
    with pytest.raises(PruningError, match=words):
        make()


def test_random_labels_shuffle_the_training_split_only(digits):
    shuffled = pc.load_data("digits", random_labels=3)
    assert torch.equal(shuffled.train.inputs, digits.train.inputs)
    assert not torch.equal(shuffled.train.labels, digits.train.labels)
    assert shuffled.train.labels.bincount().tolist() == digits.train.labels.bincount().tolist()
    for split in ("score", "validation", "test"):
        assert torch.equal(getattr(shuffled, split).labels, getattr(digits, split).labels)
    assert torch.equal(pc.load_data("digits", random_labels=3).train.labels, shuffled.train.labels)
    assert not torch.equal(pc.load_data("digits", random_labels=4).train.labels, shuffled.train.labels)


def test_a_moving_average_is_the_mean_of_the_steps(digits):
    """With two steps and factor b: (b (1-b) w1 + (1-b) w2) / (1 - b^2)."""
    seen = []

    class Peek(pc.Trainer):
        def _step(self, trained, projecting):
            super()._step(trained, projecting)
            seen.append({n: p.detach().clone() for n, p in self.model.named_parameters()})

    network = pc.build_model("lenet300", "digits", width=0.1, seed=0)
    trainer = Peek(network, pc.Optimizer(lr=0.1), epochs=1, batch_size=64, average=0.9, seed=1)
    trainer.train_epoch(digits.train.subset(128))
    assert len(seen) == 2
    state = trainer.state_dict()
    trainer.take_average()
    for name, parameter in network.named_parameters():
        expected = (0.9 * 0.1 * seen[0][name] + 0.1 * seen[1][name]) / (1 - 0.81)
        torch.testing.assert_close(parameter.detach(), expected)
    again = pc.Trainer(network, pc.Optimizer(lr=0.1), epochs=1, batch_size=64, average=0.9, seed=1)
    again.load_state_dict(state)
    again.take_average()
    torch.testing.assert_close(
        network.get_parameter("fc1.weight").detach(),
        (0.09 * seen[0]["fc1.weight"] + 0.1 * seen[1]["fc1.weight"]) / 0.19,
    )


def test_the_official_picture_is_normalised_over_all_images_and_stands_in_two_pairs():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 3 * 5, 4)).double()
    images = torch.randn(3, 2, 3, 5, dtype=torch.float64)
    maps = saliency_maps(model, images, reference=True)
    one = saliency_maps(model, images)
    slopes = torch.stack([model[1].weight[k].view(2, 3, 5) for k in model(images).argmax(1)]).detach()
    torch.testing.assert_close(maps, ((slopes - slopes.mean()) / slopes.std() * 0.1 + 0.5).clamp(0, 1))
    assert not torch.allclose(maps, one)
    picture = saliency_picture(model, images)
    assert picture.shape == (2 * 3, 2 * 2 * 5)  # an odd number of images leaves a place empty
    shown = ((images - images.mean()) / images.std() * 0.1 + 0.5).clamp(0, 1)
    torch.testing.assert_close(picture[:3, :5], maps[0].mean(0))
    torch.testing.assert_close(picture[3:, 5:10], shown[1].mean(0))
    torch.testing.assert_close(picture[:3, 10:15], maps[2].mean(0))
    assert not picture[3:, 10:].any()
