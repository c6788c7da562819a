"""Network files that can be read, but hold what no network holds: refused with their name, before anything is made of them."""

import threading
import time

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, CorruptFile, PruningError
from pruning_core.masks.sites import find_sites
from pruning_core.models.build import rebuild
from pruning_core.models.cost import size_on_disk, sparsity_of
from pruning_core.records.checkpoints import load_tensors, save_tensors
from pruning_core.records.files import file_sha256
from pruning_core.records.table import read_rows


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "network"
    pc.save_network(pc.build_model("resnet20", ((3, 8, 8), 4), width=0.25, seed=0), path)
    return path


@pytest.fixture
def crafted(good, tmp_path):
    """The good file with some tensors replaced, each by what a function makes of it, and with other words about them."""

    def write(changes=None, part=None, **about):
        tensors, info = load_tensors(good)
        for end, change in (changes or {}).items():
            for name in [name for name in tensors if name.endswith(end)]:
                tensors[name] = change(tensors[name].clone())
        info |= about
        info["recipe"] = info["recipe"] | (part or {})
        save_tensors(tmp_path / "crafted", tensors, info)
        return tmp_path / "crafted"

    return write


def refused(path, load=pc.load_pruned, **options):
    with pytest.raises(PruningError) as caught:
        load(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence


def widened(tensor):
    return torch.cat([tensor, tensor])


CONTRADICTIONS = {
    "wider than the recipe": ({"linear.weight": widened, "linear.bias": widened}, "fewer channels"),
    "no channels": ({".running_var": lambda t: t[:0], ".running_mean": lambda t: t[:0]}, "but some"),
    "another precision": ({"linear.weight": torch.Tensor.double}, "holds torch.float64, not torch.float32"),
    "half of one norm": ({"running_mean": torch.Tensor.half}, "holds torch.float16, not torch.float32"),
    "eight bits": ({"linear.weight": lambda t: t.to(torch.float8_e4m3fn)}, "float8_e4m3fn, a type in which no network"),
    "complex": ({"linear.weight": lambda t: t.to(torch.complex64)}, "complex64, a type in which no network"),
    "a narrow variance": ({"running_var": lambda t: t[:1]}, "different numbers of channels"),
    "a narrow mean": ({"running_mean": lambda t: t[:2]}, "different numbers of channels"),
    "a negative variance": ({"running_var": torch.Tensor.neg}, "negative running_var"),
    "no number as variance": ({"running_var": lambda t: t * float("nan")}, "NaN"),
    "a truth value as count": ({"num_batches_tracked": torch.Tensor.bool}, "holds torch.bool, not torch.int64"),
    "a fraction as count": ({"num_batches_tracked": torch.Tensor.float}, "holds torch.float32, not torch.int64"),
    "a negative count": ({"num_batches_tracked": lambda t: t - 1}, "negative num_batches_tracked"),
    "one bias for all": ({"linear.bias": lambda t: t[:1]}, "one bias for 4 outputs"),
    "an index from the end": ({".index": lambda t: t - 5}, "an index below -1"),
}


@pytest.mark.parametrize("kind", CONTRADICTIONS)
def test_tensors_that_contradict_each_other_or_the_recipe_are_refused(crafted, kind):
    changes, words = CONTRADICTIONS[kind]
    assert words in refused(crafted(changes))


def test_groups_of_channels_are_whole(tmp_path):
    network = nn.Conv2d(4, 6, 1, groups=2, bias=False)
    pc.save_network(network, tmp_path / "network")
    tensors, info = load_tensors(tmp_path / "network")
    save_tensors(tmp_path / "network", {"weight": tensors["weight"][:5]}, info)
    assert "5 outputs, which do not make whole groups" in refused(tmp_path / "network", model=network)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("norms", [True, False], ids=["all", "all but norms"])
def test_a_network_of_another_precision_comes_back(tmp_path, dtype, norms):
    network = pc.build_model("resnet20", ((3, 8, 8), 4), width=0.25, seed=0).to(dtype)
    for module in network.modules() if not norms else ():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    pc.save_network(network, tmp_path / "network")
    loaded = pc.load_pruned(tmp_path / "network").state_dict()
    assert all(torch.equal(loaded[n], t) and loaded[n].dtype == t.dtype for n, t in network.state_dict().items())


@pytest.mark.parametrize(
    "names",
    [
        ["layers.0.norm.weight", "layers.0.norm.running_mean"],
        ["layers.0.norm.running_mean", "layers.1.norm.running_mean"],
        ["layers.0.norm.num_batches_tracked", "layers.1.norm.num_batches_tracked"],
    ],
)
def test_buffers_are_tied_to_what_they_are_one_with_only(names, tmp_path):
    layer = lambda: nn.ModuleDict({"norm": nn.BatchNorm1d(3)})  # noqa: E731
    network = nn.ModuleDict({"layers": nn.ModuleList([layer(), layer()])})
    nn.init.zeros_(network["layers"][0]["norm"].weight)  # as its running mean
    pc.save_network(network, tmp_path / "network")
    tensors, info = load_tensors(tmp_path / "network")
    save_tensors(tmp_path / "network", tensors, info | {"tied": [names]})
    assert "are one tensor in the file, and cannot be one there" in refused(tmp_path / "network", model=network)


def test_a_layer_that_is_used_twice_comes_back(tmp_path):
    norm = nn.BatchNorm1d(3)
    network = nn.Sequential(norm, nn.ReLU(), norm)
    pc.save_network(network, tmp_path / "network")
    loaded = pc.load_pruned(tmp_path / "network", model=network)
    assert loaded[0] is loaded[2]
    assert loaded[0].running_mean is not norm.running_mean


@pytest.mark.parametrize(
    "part",
    [{"classes": 10**12}, {"classes": 0}, {"width": 1e6}, {"width": 1e17}, {"width": 0}, {"shape": [3, 10**12, 8]}],
    ids=str,
)
def test_a_recipe_beyond_its_file_is_not_built(crafted, monkeypatch, part):
    path = crafted(part=part)
    monkeypatch.setattr("pruning_core.models.build.rebuild", lambda recipe: pytest.fail("it was built"))
    assert next(iter(part)) in refused(path)


def test_a_wide_recipe_is_built_at_once():
    recipe = {"name": "resnet20", "shape": [3, 8, 8], "classes": 4, "width": 1e5, "norm": "batch"}
    began = time.process_time()
    with torch.device("meta"):
        rebuild(recipe)
    assert time.process_time() - began < 2  # it took a quarter of a minute


TERABYTES = 5 * 2**40


@pytest.mark.parametrize("kind", ["zeros", "network"])
@pytest.mark.parametrize("load", [pc.load_pruned, pc.Masks.load, read_rows, load_tensors], ids=lambda f: f.__qualname__)
def test_a_hole_of_terabytes_is_not_read(good, tmp_path, load, kind):
    path = tmp_path / "hole"
    path.write_bytes(good.read_bytes() if kind == "network" else b"")
    with open(path, "r+b") as file:
        file.truncate(TERABYTES)
    assert "5,497,558,138,880 bytes, and at most" in refused(path, load)


def test_a_hole_that_the_header_does_not_tell_of_is_not_read(good, tmp_path):
    path = tmp_path / "hole"
    path.write_bytes(good.read_bytes())
    with open(path, "r+b") as file:
        file.truncate(2**34)
    with pytest.raises(CorruptFile, match=r"hole is truncated or damaged: it has 17,179,869,184 bytes"):
        load_tensors(path)


def test_a_file_that_grew_is_not_hashed(tmp_path):
    (tmp_path / "file").write_bytes(b"123")
    assert len(file_sha256(tmp_path / "file", largest=3)) == 64
    with pytest.raises(BadInput, match="it has 3 bytes, and at most 2 are read"):
        file_sha256(tmp_path / "file", largest=2)


@pytest.mark.parametrize("name", ["n" * 230, "n" * 255, "é" * 127, "n" + "." * 254])
def test_a_name_as_long_as_the_file_system_takes(tmp_path, name):
    network = nn.Linear(2, 1)
    pc.save_network(network, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert torch.equal(pc.load_pruned(tmp_path / name, model=network).weight, network.weight)


def test_a_name_that_the_file_system_refuses(tmp_path):
    with pytest.raises(BadInput, match="a name in it has 256 bytes, and 255 is the most"):
        pc.save_network(nn.Linear(2, 1), tmp_path / ("n" * 256))


def test_masks_of_another_type_are_those_of_a_damaged_file(tmp_path):
    save_tensors(tmp_path / "masks", {"mask:weight": torch.ones(2)}, {"kind": "masks"})
    with pytest.raises(CorruptFile, match=r"masks is damaged: its mask of 'weight' holds torch.float32"):
        pc.Masks.load(tmp_path / "masks")


class Locked(nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
        self.lock = threading.Lock()


def test_a_network_that_cannot_be_copied_is_told_from_the_file(tmp_path):
    pc.save_network(Locked(), tmp_path / "network")
    with pytest.raises(BadInput, match=r"cannot be copied, for its attribute 'lock'"):
        pc.load_pruned(tmp_path / "network", model=Locked())


WITHOUT_VALUES = {
    "lazy": lambda: nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)),
    "lazy norm": lambda: nn.Sequential(nn.Linear(3, 2), nn.LazyBatchNorm1d()),
    "meta": lambda: nn.Sequential(nn.Linear(3, 2, device="meta")),
    "a buffer on meta": lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, affine=False, device="meta")),
}


@pytest.mark.parametrize("kind", WITHOUT_VALUES)
@pytest.mark.parametrize("use", ["save_network", "like", "size_on_disk", "sparsity_of", "find_sites", "load_pruned"])
def test_weights_without_values_are_refused(kind, use, tmp_path):
    network, whole = WITHOUT_VALUES[kind](), nn.Sequential(nn.Linear(3, 2))
    pc.save_network(whole, tmp_path / "network")
    uses = {
        "save_network": lambda: pc.save_network(network, tmp_path / "another"),
        "like": lambda: pc.save_network(whole, tmp_path / "another", like=network),
        "size_on_disk": lambda: size_on_disk(network),
        "sparsity_of": lambda: sparsity_of(network),
        "find_sites": lambda: find_sites(network, channels=False),
        "load_pruned": lambda: pc.load_pruned(tmp_path / "network", model=network),
    }
    if use in ("like", "find_sites", "load_pruned") and "meta" in kind:  # shapes are enough there
        if kind == "meta":
            uses[use]()
        return
    with pytest.raises(BadInput, match=r"has no (weights yet|values)") as caught:
        uses[use]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.complex64, torch.quint8])
def test_what_cannot_be_loaded_is_not_saved(dtype, tmp_path):
    network = nn.Linear(2, 2)
    if dtype == torch.quint8:
        network.register_buffer("table", torch.quantize_per_tensor(torch.ones(2), 0.1, 0, dtype))
    else:
        network.weight = nn.Parameter(torch.ones(2, 2).to(dtype), requires_grad=False)
    with pytest.raises(BadInput, match=rf"holds {dtype}; such a network cannot be saved"):
        pc.save_network(network, tmp_path / "network")
    assert list(tmp_path.iterdir()) == []


class Counting(nn.Linear):
    """A layer whose state holds more than tensors, as that of a quantised layer does."""

    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass


@pytest.mark.parametrize(
    "use", [lambda network, path: pc.save_network(network, path), lambda network, _: size_on_disk(network)]
)
def test_a_state_of_other_things_than_tensors_is_refused(tmp_path, use):
    with pytest.raises(BadInput, match=r"'_extra_state' in the state of the network is no tensor but a dict"):
        use(Counting(2, 2), tmp_path / "network")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_load_pruned_would_refuse_is_not_written(value, tmp_path):
    network = nn.Linear(2, 1)
    nn.init.constant_(network.bias, value)
    with pytest.raises(BadInput, match="'bias' holds 1 NaN or infinite values"):
        pc.save_network(network, tmp_path / "network")
    assert list(tmp_path.iterdir()) == []
