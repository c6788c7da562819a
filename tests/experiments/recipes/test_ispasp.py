"""i-SpaSP's recipe, stages that go through a network part by part, published weights, times of a choice."""

import copy

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.data.sets import IMAGENETTE_CLASSES
from pruning_core.errors import BadInput, BadType, PruningError, UnknownName
from pruning_core.experiments.experiment import Experiment
from pruning_core.experiments.importances import seconds_of_choice
from pruning_core.experiments.network_stages import some_batches
from pruning_core.experiments.recipes.chapters import ispasp
from pruning_core.experiments.runs import final_state, run
from pruning_core.experiments.stages import Each, Load, Measure, Prune, Shrink, Train
from pruning_core.experiments.state import blocks, flatten
from pruning_core.masks.tracing import find_groups
from pruning_core.models import published
from pruning_core.papers.ispasp.configurations import kept_width


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNING_CACHE", str(tmp_path))


def widths(model):
    return [block.conv1.out_channels for block in model.blocks]


def basic(timeline, **options):
    return Experiment("basic4", "digits", timeline, width=0.25, **options)


def steps_of(stages, model, example):
    return list(flatten(stages, model, lambda: find_groups(model, example)))


def test_the_recipe_cuts_every_block_and_trains_in_between():
    experiment = basic(ispasp(0.5, epochs=1, fine_tune=1, between=1))
    rows = run(experiment, progress=False)
    assert [row["label"] for row in rows] == ["pruned", "fine-tuned"]
    # One dense epoch, one behind each of four cuts, one at the end.
    assert [row["epoch"] for row in rows] == [5, 6]
    assert [row["channels_removed"] for row in rows] == [0.5, 0.5]
    assert widths(final_state(experiment).model) == [4] * 4
    (before, after) = run(basic(ispasp(0.5, epochs=1, fine_tune=1, between=0)), progress=False)
    assert (before["epoch"], after["epoch"]) == (1, 2)


def test_each_layer_is_chosen_on_what_the_pruned_ones_before_pass_on():
    """The same by hand: one group after the other, each on the network that the last cut left."""
    cut = Prune("ispasp", 0.5, samples=200)
    state = final_state(basic([Train(1), Each("groups", (cut, Shrink()))]))
    model = final_state(basic([Train(1)])).model
    data = pc.load_data("digits")
    timeline = [Train(1), Each("groups", (cut, Shrink()))]
    steps = steps_of(timeline, model, data.train.inputs[:1])
    positions = [k for k, step in enumerate(steps) if isinstance(step.stage, Prune)]
    assert len(positions) == 4
    for k, position in enumerate(positions):
        seed = int(pc.records.content_hash([0, position]), 16) % 2**31
        batches = some_batches(data.train, 200, 128, torch.Generator().manual_seed(seed))
        fraction = {f"blocks.{k}.conv1": 0.5}
        model = pc.prune(model, "ispasp", None, across=fraction, batches=batches).shrink()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state.model.state_dict()[name]), name


def test_a_ratio_for_each_group_cuts_these_alone():
    removed = {"blocks.1.conv1": 1 - kept_width(8, 0.4) / 8, "blocks.2.conv1": 0.5}
    experiment = basic(ispasp(removed, epochs=0, fine_tune=0, between=0))
    run(experiment, progress=False)
    assert widths(final_state(experiment).model) == [8, 3, 4, 8]


def test_each_passes_over_what_its_methods_refuse():
    example = torch.zeros(1, 1, 8, 8)
    for name in ("basic4", "inverted4", "vit_tiny"):
        model = pc.build_model(name, "digits", seed=0)
        found = {
            parts: [step.part for step in steps_of([Each(parts, (Prune(method, 0.5),))], model, example)]
            for parts in ("groups", "blocks")
            for method in ["ispasp"]
        }
        refused = pc.prune(model, "ispasp", 0.5, batches=[(torch.randn(4, 1, 8, 8), None)]).sites
        assert len(found["groups"]) == len(refused.groups)
        assert len(found["blocks"]) == (2 if name == "vit_tiny" else 4)
    everything = steps_of([Each("groups", (Prune("l1_norm", 0.5),))], model, example)
    assert len(everything) >= len(found["groups"])


class Detour(nn.Module):
    """Somebody else's block, under a name that says nothing."""

    def __init__(self, size):
        super().__init__()
        self.inner, self.outer = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x):
        return x + self.outer(torch.relu(self.inner(x)))


def test_blocks_of_another_name_are_found_by_their_attribute(monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Detour(8), nn.ReLU(), Detour(8), nn.Linear(8, 10))
    each = Each("blocks", (Prune("l1_norm", 0.5),))
    with pytest.raises(BadInput, match="set is_block = True"):
        steps_of([each], model, torch.zeros(1, 1, 8, 8))
    monkeypatch.setattr(Detour, "is_block", True, raising=False)
    assert [step.part for step in steps_of([each], model, torch.zeros(1, 1, 8, 8))] == [("2.*",), ("4.*",)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", 8),
        ("resnet50", 16),
        ("mobilenet_v2", 17),
        ("efficientnet_b0", 16),
        ("convnext_tiny", 18),
        ("vgg11", 0),
    ],
)
def test_blocks_of_torchvision_are_known(name, expected):
    from torchvision import models

    with torch.device("meta"):
        assert len(blocks(models.get_model(name, weights=None))) == expected


def test_parts_that_do_not_exist_are_refused():
    example = torch.zeros(1, 1, 8, 8)
    plain = pc.build_model("lenet300", "digits", seed=0)
    with pytest.raises(BadInput, match="no residual blocks"):
        (steps_of([Each("blocks", (Prune("ispasp", 0.5),))], plain, example))
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(BadInput, match="no group of channels"):
        (steps_of([Each("groups", (Prune("ispasp", 0.5),))], single, example))


def test_groups_are_searched_for_once_until_the_network_changes(monkeypatch):
    calls = []
    from pruning_core.experiments import state

    original = state.groups_and_positions
    monkeypatch.setattr(state, "groups_and_positions", lambda *arguments: calls.append(1) or original(*arguments))
    run(
        basic([Prune("l1_norm", 0.3), Prune("l1_norm", 0.5), Shrink(), Prune("l1_norm", 0.6), Measure()]),
        progress=False,
    )
    assert len(calls) == 2


class Published:
    """Stands in for an entry of torchvision's weights, which would be downloaded."""

    def __init__(self, values):
        self.values, self.options = values, None

    def get_state_dict(self, **options):
        self.options = options
        return self.values


def test_published_weights_are_taken_over(monkeypatch):
    from torchvision import models

    source = models.resnet18(weights=None)
    entry = Published(copy.deepcopy(source.state_dict()))
    monkeypatch.setattr(models, "get_model_weights", lambda name: _Entries(entry))
    model = pc.build_model("torchvision/resnet18", "imagenet", seed=0)
    published.load_published(model, "torchvision/resnet18", "IMAGENET1K_V1")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), entry.values.values(), strict=True))
    assert entry.options["weights_only"] and entry.options["check_hash"]  # nothing is unpickled, hashes are checked
    other = pc.build_model("torchvision/resnet18", ((3, 32, 32), 10), seed=0)
    with pytest.raises(BadInput, match="1,000 classes"):
        published.load_published(other, "torchvision/resnet18", "IMAGENET1K_V1")


def test_published_weights_for_some_of_the_classes(monkeypatch):
    from torchvision import models

    source = models.resnet18(weights=None)
    monkeypatch.setattr(models, "get_model_weights", lambda name: _Entries(Published(source.state_dict())))
    model = pc.build_model("torchvision/resnet18", ((3, 32, 32), 10), seed=0).eval()
    published.load_published(model, "torchvision/resnet18", "IMAGENET1K_V1", IMAGENETTE_CLASSES)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(model(x), source.eval()(x)[:, list(IMAGENETTE_CLASSES)], atol=1e-6)
    with pytest.raises(BadInput, match="classes 0 to 999"):
        published.load_published(model, "torchvision/resnet18", "IMAGENET1K_V1", [1000])


class _Entries:
    def __init__(self, entry):
        self.entry, self.__members__ = entry, {"IMAGENET1K_V1": entry}

    def __getitem__(self, name):
        return self.__members__[name]


def test_wrong_names_of_weights_are_refused_before_any_work():
    with pytest.raises(BadInput, match="torchvision's networks"):
        basic([Load("IMAGENET1K_V1")])
    with pytest.raises(UnknownName, match="IMAGENET1K_V1"):
        Experiment("torchvision/resnet18", "imagenet", [Load("IMAGENET1K_V9")])
    with pytest.raises(BadType):
        Load("")


def test_seconds_of_a_choice_leave_the_network_alone():
    model = pc.build_model("basic4", "digits", width=0.25, seed=0)
    before = copy.deepcopy(model.state_dict())
    batches = list(pc.load_data("digits").score.subset(64).batches(32))
    for method in ("ispasp", "greedy", "random_channels"):
        assert 0 < seconds_of_choice(model, method, 0.5, batches, repeats=2) < 60
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(PruningError):
        seconds_of_choice(model, "ispasp", 0.5, [])
