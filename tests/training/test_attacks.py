"""Attacks: closed forms on linear classifiers, what they leave alone, and what is refused."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import PruningError
from pruning_core.training.attacks import ATTACKS, attack

FEW = {"carlini_wagner": 20, "ddn": 20, "deepfool": 20, "pgd": 5, "salt_and_pepper": 50, "gaussian_noise": 10}


@pytest.fixture(scope="module")
def images():
    return next(iter(pc.load_data("digits").test.batches(40)))


@pytest.fixture(scope="module")
def trained(images):
    digits = pc.load_data("digits")
    model = pc.build_model("mlp5_snip", "digits", width=0.1, seed=0)
    pc.fit(model, digits, epochs=8, optimizer=pc.Optimizer("adam", 5e-3), batch_size=64, progress=False)
    return model.eval()


def linear(gap: float = 1.0) -> nn.Module:
    """Two classes, told apart by the mean of the first and of the second half of four numbers."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]) * gap)
    return model


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.full((6, 1, 2, 2), 0.5)
    margins = torch.tensor([0.05, 0.1, 0.2, 0.05, 0.1, 0.2])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    for i, (margin, label) in enumerate(zip(margins, labels, strict=True)):
        x[i].view(-1)[2 * int(label) : 2 * int(label) + 2] += margin
    return x, labels


def test_fgsm_needs_half_the_margin_of_a_linear_classifier():
    """Logits differ by 2 m; a step of e along the sign changes the difference by 4 e: it turns the image from m / 2 on."""
    x, y = halves()
    result = attack(linear(), x, y, "fgsm", epsilons=[0.02, 0.03, 0.06, 0.11], bounds=(0, 1))
    assert result.success == pytest.approx((0, 2 / 6, 4 / 6, 1))
    assert result.clean_accuracy == 1
    assert result.distance[0] == pytest.approx(0.04, rel=1e-4)  # two pixels up, two down, by 0.02 each


def test_deepfool_finds_the_distance_to_the_boundary():
    """The L2 distance of a point to the boundary is 2 m / ||w1 - w2|| = m."""
    x, y = halves()
    near, far = 0.97, 1.03
    sizes = sorted({m * f for m in (0.05, 0.1, 0.2) for f in (near, far)})
    result = attack(linear(), x, y, "deepfool", epsilons=sizes, bounds=(0, 1))
    assert result.success == pytest.approx((0, 2 / 6, 2 / 6, 4 / 6, 4 / 6, 1))


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_runs_repeats_itself_and_leaves_everything_alone(name, trained, images):
    model = trained.train()
    model[1].eval()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    torch.manual_seed(4)
    random.seed(4)
    np.random.seed(4)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    options = {"epsilons": [0.1, 1.0, 4.0], "steps": FEW.get(name), "seed": 3}
    first, again = (attack(model, *images, name, **options) for _ in range(2))
    assert first == again
    assert list(first.success) == sorted(first.success) or name in ("fgsm", "l1_fgm", "pgd")
    assert first.success[-1] > 1 - first.clean_accuracy - 1e-9
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(p.grad, torch.full_like(p, 0.5)) and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1] and (np.random.get_state()[1] == states[2]).all()
    model.eval()


def test_wrong_images_count_unless_they_are_left_out(trained, images):
    x, y = images
    wrong = y.clone()
    wrong[:10] = (wrong[:10] + 1) % 10
    all_of_them = attack(trained, x, wrong, "fgsm", epsilons=[0.0])
    assert all_of_them.success[0] == pytest.approx(1 - all_of_them.clean_accuracy)
    assert all_of_them.success[0] >= 0.2
    right = attack(trained, x, wrong, "fgsm", epsilons=[0.0], exclude_wrong=True)
    assert right.success[0] == 0 and right.n == round(40 * all_of_them.clean_accuracy)


def test_a_target_class_is_harder_than_any(trained, images):
    any_class = attack(trained, *images, "pgd", epsilons=[0.3], exclude_wrong=True)
    one = attack(trained, *images, "pgd", epsilons=[0.3], targeted=1)
    assert one.success[0] < any_class.success[0]


@pytest.mark.parametrize("name", ["fgsm", "deepfool", "carlini_wagner"])
def test_the_smaller_network_is_as_robust_as_the_masked_one(name, trained, images):
    digits = pc.load_data("digits")
    result = pc.prune(trained, "snap", 0.5, batches=list(digits.score.batches(64)))
    options = {"epsilons": [0.1, 0.3, 1.0], "steps": FEW.get(name)}
    masked, small = (attack(m, *images, name, **options) for m in (result.model, result.shrink()))
    assert masked.success == pytest.approx(small.success, abs=1 / 40 + 1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "hammer"}, "unknown attack"),
        ({"epsilons": []}, "epsilons must have a length of at least 1"),
        ({"epsilons": [0.2, 0.1]}, "epsilons must rise"),
        ({"epsilons": [-0.1]}, "at least 0"),
        ({"epsilons": 0.1}, "epsilons must be a list"),
        ({"bounds": (0.0, 0.5)}, "beyond the bounds"),
        ({"bounds": (2.0, -2.0)}, "lower bound"),
        ({"bounds": "pixels"}, "kind of bounds"),
        ({"steps": 0, "name": "pgd"}, "at least 1"),
        ({"steps": 5}, "takes one step"),
        ({"labels": torch.full((40,), 11)}, "labels run"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "as many labels"),
        ({"targeted": 10}, "targeted must be between 0 and 9"),
        ({"seed": -1}, "seed must be between 0"),
    ],
)
def test_bad_input_is_refused(change, words, trained, images):
    given = {"inputs": images[0], "labels": images[1], "name": "fgsm", "epsilons": [0.1]} | change
    inputs, labels, name = given.pop("inputs"), given.pop("labels"), given.pop("name")
    with pytest.raises(PruningError, match=words):
        attack(trained, inputs, labels, name, **given)


def test_a_broken_network_is_refused(trained, images):
    broken = nn.Sequential(trained, nn.Linear(10, 10))
    with torch.no_grad():
        broken[1].bias.fill_(float("nan"))
    with pytest.raises(PruningError, match="NaN"):
        attack(broken, *images, "fgsm", epsilons=[0.1])

    class Overflows(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = trained

        def forward(self, x):
            return self.net(x) / 0.0 * 0.0

    with pytest.raises(PruningError, match="puts out NaN"):
        attack(Overflows(), *images, "fgsm", epsilons=[0.1])


def test_an_attack_in_a_timeline_adds_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))
    timeline = [
        pc.Train(3),
        pc.Attack("fgsm", (0.1, 0.5), samples=64),
        pc.Prune("snap", 0.5),
        pc.Shrink(),
        pc.Attack("fgsm", (0.1,)),
    ]
    rows = pc.run(
        pc.Experiment("mlp5_snip", "digits", timeline, width=0.1, optimizer=pc.Optimizer("adam", 5e-3)), progress=False
    )
    assert [row["label"] for row in rows] == ["attack", "attack", "attack", "final"]
    assert rows[0]["attack_success"] <= rows[1]["attack_success"]
    assert (rows[0]["method"], rows[2]["method"], rows[0]["epsilon"]) == ("dense", "snap", 0.1)
    assert rows[0]["attack"] == "fgsm" and rows[0]["n"] == 64
    for bad, words in (
        ((), "length of at least 1"),
        ((0.5, 0.1), "rise, each once"),
        ((-1.0,), "finite and at least 0"),
    ):
        with pytest.raises(PruningError, match=f"epsilons must .*{words}"):
            pc.Attack("fgsm", bad)
    with pytest.raises(PruningError, match="unknown attack"):
        pc.Attack("hammer", (0.1,))
    with pytest.raises(PruningError, match="samples must be at least 1"):
        pc.Attack("fgsm", (0.1,), samples=0)
