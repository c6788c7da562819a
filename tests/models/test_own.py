"""Networks of one's own: what a builder may take, what is refused, and that an experiment knows its code."""

from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, BadType
from pruning_core.experiments import workers


@pytest.fixture(autouse=True)
def _nothing_stays():
    with patch.dict(pc.MODELS), patch.dict(pc.DATASETS):
        yield


def two_layers(shape, classes, width=1.0):
    hidden = round(24 * width)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


def test_it_is_built_pruned_saved_and_run_by_name(tmp_path, empty_cache):
    assert pc.register_model("two_layers", "digits")(two_layers) is two_layers
    model = pc.build_model("two_layers", "digits", width=0.5, seed=3)
    again = pc.build_model("two_layers", "digits", width=0.5, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert pc.count_parameters(pc.build_model("two_layers", "digits")) == pc.MODELS["two_layers"].parameters == 1810
    result = pc.prune(model, "l1_norm", 0.5)
    result.save(tmp_path / "small.safetensors")
    assert pc.load_pruned(tmp_path / "small.safetensors")[1].out_features == 6
    experiment = pc.Experiment("two_layers", "digits", [pc.Train(1)], profile="smoke", limit=600)
    assert len(pc.run(experiment, progress=False)) == 1


def test_a_class_without_parameters_is_for_its_data_alone():
    class Net(nn.Module):
        """One layer."""

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def forward(self, x):
            return self.layer(x.flatten(1))

    pc.register_model("net", "digits", Net)
    assert pc.MODELS["net"].about == "One layer."
    assert isinstance(pc.build_model("net", "digits"), Net)
    for wrong in ({"data": "mnist5k"}, {"width": 2.0}):
        with pytest.raises(BadInput, match="has no parameter"):
            pc.build_model(**{"name": "net", "data": "digits"} | wrong)
    with pytest.raises(BadInput, match="norm='none'"):
        pc.build_model("net", "digits", norm="none")


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda shape, classes: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), BadInput, r"must give \(1, 10\)"),
        (lambda shape, classes: nn.Linear(5, 10), BadInput, r"does not take images of shape \(1, 8, 8\)"),
        (lambda shape, classes: "network", BadType, "must return a torch.nn.Module, not str"),
        (lambda depth: nn.Flatten(), BadInput, "parameter 'depth' without a default"),
        (lambda **options: nn.Flatten(), BadInput, "takes any keyword"),
        (lambda shape, /, classes=10: nn.Flatten(), BadInput, "take 'shape' by name"),
        ("lenet", BadType, "build must be a function"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_at_once(build, error, message):
    with pytest.raises(error, match=message):
        pc.register_model("mine", "digits", build)
    assert "mine" not in pc.MODELS


@pytest.mark.parametrize("name", ["lenet300", "torchvision/mine", ""])
def test_names_of_the_book_are_taken(name):
    with pytest.raises((BadInput, BadType)):
        pc.register_model(name, "digits", two_layers)


def test_it_may_be_registered_again_and_an_edit_is_another_experiment():
    def key(build) -> str:
        pc.register_model("mine", "digits", build)
        return pc.Experiment("mine", "digits", [pc.Train(1)]).key

    depth = {"of": 0}

    def one(shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

    def same(shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

    def other(shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.Identity())

    assert key(one) == key(same) != key(other)
    assert depth == {"of": 0}


def test_what_the_builder_calls_counts_as_well():
    names: dict = {"nn": nn, "__name__": "notebook"}
    body = "return nn.Sequential(nn.Flatten(), nn.Linear(64, WIDTH), Body(), nn.Linear(WIDTH, classes))"

    def key(width: int, layer: str) -> str:
        code = (
            f"WIDTH = {width}\nclass Body(nn.Sequential):\n    def __init__(self):\n        super().__init__({layer})\n"
        )
        exec(f"{code}\ndef build(classes):\n    {body}", names)
        pc.register_model("mine", "digits", names["build"])
        return pc.Experiment("mine", "digits", [pc.Train(1)]).key

    first = key(8, "nn.ReLU()")
    assert first == key(8, "nn.ReLU()")
    assert first not in (key(9, "nn.ReLU()"), key(8, "nn.Tanh()"))


def test_a_worker_takes_what_the_name_stands_for_now():
    seen, entries = [], []
    for wide in (3, 5):
        pc.register_model(
            "mine", "digits", lambda n=wide: nn.Sequential(nn.Flatten(), nn.Linear(64, n), nn.Linear(n, 10))
        )
        entries.append(pc.MODELS["mine"])
    task = SimpleNamespace(experiment=pc.Experiment("mine", "digits", [pc.Train(1)]))
    with patch.object(workers, "attempt", lambda task, *rest: seen.append(pc.build_model("mine", "digits"))):
        for entry in entries:  # as they reach a worker, which has the one before
            workers.work(task, [], None, (entry, pc.DATASETS["digits"]), None)
    assert [model[1].out_features for model in seen] == [3, 5]


def test_a_builder_that_fails_says_which_and_why():
    begun = []

    def sometimes(classes):
        if len(begun) >= 2:
            raise KeyError("layers")
        begun.append(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

    def never():
        return nn.Linear("many", 2)

    with pytest.raises(BadInput, match="the builder of network 'never' failed: ") as caught:
        pc.register_model("never", "digits", never)
    assert isinstance(caught.value.__cause__, TypeError)
    pc.register_model("sometimes", "digits", sometimes)
    with pytest.raises(BadInput, match="the builder of network 'sometimes' failed: 'layers'"):
        pc.build_model("sometimes", "digits")
