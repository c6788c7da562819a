"""Network files that somebody has made by hand, or by mistake: one sentence each, before memory is taken for them."""

import json
import resource
import struct

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, CorruptFile, PruningError
from pruning_core.models.storage import fit_tensors
from pruning_core.records.checkpoints import load_tensors, save_tensors


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "network"
    pc.save_network(pc.build_model("lenet300", "digits", width=0.1, seed=0), path)
    return path


@pytest.fixture
def changed(good, tmp_path):
    """Writes the good file with other tensors or other words about them, and with the checksum that then belongs to it."""

    def write(tensors=None, part=None, **about):
        held, info = load_tensors(good)
        info |= about
        if part is not None:
            info["recipe"] = info["recipe"] | part
        save_tensors(tmp_path / "crafted", held | (tensors or {}), info)
        return tmp_path / "crafted"

    return write


def refused(path, **options):
    with pytest.raises(PruningError) as caught:
        pc.load_pruned(path, **options)
    sentence = str(caught.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert len(sentence) - len(str(path)) < 1000  # a path may be as long as it likes
    return sentence


WRONG = [None, [], {}, "x", 0, -1, 1.5, True, 10**400, "\ud800", [[]], {"a": {}}]


@pytest.mark.parametrize("key", ["kind", "class", "recipe", "plain", "tied"])
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_what_a_file_says_of_itself_may_be_anything(changed, key, value):
    path = changed(**{key: value})
    try:
        assert isinstance(pc.load_pruned(path), nn.Module)  # some of these say nothing that matters
    except PruningError:
        refused(path)


@pytest.mark.parametrize("key", ["name", "shape", "classes", "width", "norm"])
@pytest.mark.parametrize("value", [*WRONG, [1, 8, 8, 8], [1, 0, 8], [10**9, 10**9, 10**9], 2**62, 1e308], ids=repr)
def test_a_recipe_may_be_anything(changed, key, value):
    if (key, value) != ("width", 1.5):  # what was cut out of something larger
        refused(changed(part={key: value}))


@pytest.mark.parametrize(
    "recipe", [{"width": 1e8}, {"classes": 10**12}, {"shape": [1, 10**6, 10**6]}, {"width": 1e300}]
)
def test_a_network_of_terabytes_takes_no_memory(changed, recipe):
    path = changed(part=recipe)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        small = pc.load_pruned(path)
    except PruningError:
        refused(path)
    else:  # what the file holds is small, whatever it was cut out of
        assert sum(p.numel() for p in small.parameters()) < 10_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


BROKEN = {
    "NaN": lambda w: w.fill_(float("nan")),
    "infinite": lambda w: w.fill_(float("inf")),
    "int64": lambda w: w.long(),
    "complex64": lambda w: w.to(torch.complex64),
    "dimensions": lambda w: w[None],
    "shape": lambda w: torch.zeros(3, 5),
    "bool": lambda w: w > 0,
}


@pytest.mark.parametrize("how", BROKEN)
def test_tensors_that_no_network_can_have_are_named(changed, good, how):
    held, _ = load_tensors(good)
    name = next(name for name in held if name.endswith("weight"))
    path = changed({name: BROKEN[how](held[name].clone())})
    if how == "shape":  # fewer channels fit one layer alone: the network of the file is no network
        assert "its layers do not fit each other" in refused(path)
    else:
        assert f"{name!r}" in refused(path)


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 2, dtype=torch.bool), torch.ones(30, 64), torch.ones((), dtype=torch.bool)]
)
def test_a_mask_must_fit_its_tensor(changed, good, mask):
    name = next(name for name in load_tensors(good)[0] if name.endswith("weight"))
    assert "mask" in refused(changed({f"mask:{name}": mask}))
    assert "mask" in refused(changed({"mask:nowhere": mask}))


def header_of(path, change):
    """The file with another header, as text or as bytes, and its length as it then is unless given."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    header = change(json.loads(content[8:end]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[end:]


HEADERS = {
    "offsets beyond the file": lambda h: {k: v | {"data_offsets": [0, 2**60]} if "dtype" in v else v for k, v in h.items()},
    "negative offsets": lambda h: {k: v | {"data_offsets": [-8, 0]} if "dtype" in v else v for k, v in h.items()},
    "huge shapes": lambda h: {k: v | {"shape": [2**40, 2**40]} if "dtype" in v else v for k, v in h.items()},
    "empty and huge": lambda h: {k: v | {"shape": [0, 2**62]} if "dtype" in v else v for k, v in h.items()},
    "unknown type": lambda h: {k: v | {"dtype": "F7"} if "dtype" in v else v for k, v in h.items()},
    "rare type": lambda h: {k: v | {"dtype": "F8_E4M3"} if "dtype" in v else v for k, v in h.items()},
    "no metadata": lambda h: {k: v for k, v in h.items() if k != "__metadata__"},
    "metadata of numbers": lambda h: h | {"__metadata__": {"format": 1, "info": 2, "sha256": 3}},
    "metadata that is a list": lambda h: h | {"__metadata__": [1]},
    "info that is a number": lambda h: h | {"__metadata__": h["__metadata__"] | {"info": "7"}},
    "no tensors": lambda h: {"__metadata__": h["__metadata__"]},
    "a list": lambda h: [h],
    "deep": lambda h: b"[" * 200_000,
    "no UTF-8": lambda h: b'{"\xff": 1}',
    "nothing": lambda h: b"",
}  # fmt: skip


@pytest.mark.parametrize("how", HEADERS)
def test_headers_made_by_hand_are_refused(good, tmp_path, how):
    path = tmp_path / "header"
    path.write_bytes(header_of(good, HEADERS[how]))
    for load in (load_tensors, pc.load_pruned, pc.Masks.load):
        with pytest.raises(CorruptFile) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_as_long_as_it_likes(good, tmp_path, length):
    path = tmp_path / "length"
    path.write_bytes(struct.pack("<Q", length) + good.read_bytes()[8:])
    with pytest.raises(CorruptFile, match="header is truncated or damaged"):
        load_tensors(path)


@pytest.mark.parametrize("text", ["7", "[]", "null", '"x"', "{", "[" * 100_000])
def test_words_about_tensors_are_a_json_object(tmp_path, text):
    import safetensors.torch

    from pruning_core.records import checkpoints

    about = {"format": checkpoints.FORMAT, "info": text, "sha256": checkpoints._digest({}, text)}
    (tmp_path / "words").write_bytes(safetensors.torch.save({}, about))
    with pytest.raises(CorruptFile, match="no JSON object"):
        load_tensors(tmp_path / "words")


def test_every_network_of_the_book_comes_back_without_being_drawn(tmp_path):
    for name in ("lenet5", "vit_tiny", "resnet20", "torchvision/mobilenet_v3_small"):
        data = ((3, 32, 32), 10) if name != "lenet5" else ((1, 28, 28), 10)
        network = pc.build_model(name, data, seed=0).eval()
        pc.save_network(network, tmp_path / "network")
        state = torch.get_rng_state()
        loaded = pc.load_pruned(tmp_path / "network")
        assert torch.equal(torch.get_rng_state(), state)
        assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
        inputs = torch.ones(2, *data[0])
        assert torch.equal(loaded(inputs), network(inputs))


def test_a_checkpoint_does_not_fit_another_kind_of_tensor():
    network = nn.Linear(2, 2)
    with pytest.raises(BadInput, match=r"'weight' holds torch\.int64, not torch\.float32"):
        fit_tensors(network, {"weight": torch.ones(2, 2).long(), "bias": torch.ones(2)}, "here")
