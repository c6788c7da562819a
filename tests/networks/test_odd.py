"""Networks that are odd but legal: their own code fails, or their weights are of a kind that nothing computes with, or nothing
can look into them; one sentence each, wherever they arrive."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.errors import BadInput, BadType, PruningError, Unprunable
from pruning_core.experiments import importances
from pruning_core.experiments.observers import SignFlips
from pruning_core.methods import sensitivity, two_layer
from pruning_core.methods.shared.elasticities import loss_gradients, weight_elasticities
from pruning_core.models import layer_inputs, output_positions, sparsity_of
from pruning_core.papers.how_sparse import magnitude_curve, reference_limit
from pruning_core.papers.rni import from_official
from pruning_core.papers.sipp_pfp import guarantee_table
from pruning_core.papers.snipit import compressed_bits, reference_flops, saliency_maps
from pruning_core.training import attack, confusion_matrix
from tests.networks.test_refusals import QUIET, X, Y, network


class Failing(nn.Module):
    """A network whose own code fails, as one that is given other inputs than it was written for."""

    def __init__(self, error: Exception):
        super().__init__()
        self.body, self.error = network(), error

    def forward(self, x):
        self.body(x)
        raise self.error


X4, Y4 = X[:12].view(12, 1, 2, 2), Y[:12]
ASKED = {
    "count_macs": lambda model, folder: pc.count_macs(model, X[:1]),
    "evaluate": lambda model, folder: pc.evaluate(model, [(X, Y)]),
    "evaluate in bfloat16": lambda model, folder: pc.evaluate(model, [(X, Y)], precision="bfloat16"),
    "latency": lambda model, folder: pc.latency(model, X[:1]),
    "fold": lambda model, folder: pc.models.fold_batch_norm(model, X[:1]),
    "export": lambda model, folder: pc.export_network(model, folder / "x.pt2", X[:1]),
    "fit": lambda model, folder: pc.fit(model, [(X, Y)], **QUIET),
    "snip": lambda model, folder: pc.prune(model, "snip", 0.5, batches=[(X, Y)]),
    "synflow": lambda model, folder: pc.prune(model, "synflow", 0.5, example_input=X[:1]),
    "confusion": lambda model, folder: confusion_matrix(model, [(X, Y)]),
    "attack": lambda model, folder: attack(model, X, Y, "fgsm", epsilons=[0.1]),
    "saliency": lambda model, folder: saliency_maps(model, X4),
    "elasticities": lambda model, folder: loss_gradients(model, ["body.0.weight"], [(X, Y)], F.cross_entropy),
}
FAILURES = [
    KeyError("pixels"),
    AssertionError("wrong size"),
    AttributeError("no such"),
    ZeroDivisionError("0"),
    StopIteration(),
]


@pytest.mark.parametrize("way", ASKED)
@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_whatever_a_network_of_ones_own_raises_is_one_sentence(error, way, tmp_path):
    with pytest.raises(BadInput, match="cannot take inputs of shape"):
        ASKED[way](Failing(error), tmp_path)
    assert not list(tmp_path.iterdir())


def failing_batches():
    yield X, Y
    raise KeyError("label_7")


class Metric:
    def reset(self):
        pass

    def update(self, outputs, labels):
        raise KeyError("score")

    def compute(self):
        return 1.0


OWN_CODE = {
    "batches": lambda: pc.evaluate(network(), failing_batches()),
    "scope": lambda: pc.prune(network(), "magnitude", 0.5, scope=lambda name, module: {}[name]),
    "metric": lambda: pc.evaluate(network(), [(X, Y)], metric=lambda outputs, labels: {}["score"]),
    "no number": lambda: pc.evaluate(network(), [(X, Y)], metric=lambda outputs, labels: "much"),
    "metric object": lambda: pc.evaluate(network(), [(X, Y)], metric=Metric()),
}


@pytest.mark.parametrize("kind", OWN_CODE)
def test_what_other_code_of_the_users_raises_is_one_sentence_that_names_it(kind):
    with pytest.raises(BadInput, match=r"(source of the batches|function of scope.*|metric) failed: "):
        OWN_CODE[kind]()


def uncopied():
    model = network()
    model.drawn = (number for number in range(3))
    return model


COPIES = {
    "export": lambda model, folder: pc.export_network(model, folder / "x.pt2", X[:1]),
    "fold": lambda model, folder: pc.models.fold_batch_norm(model, X[:1]),
    "latency": lambda model, folder: pc.latency(model, X4, channels_last=True),
    "guarantee": lambda model, folder: guarantee_table(model, X, X, 2),
    "curve": lambda model, folder: magnitude_curve(model, [(X, Y)], ["0.weight"], 3, progress=False),
    "reference": lambda model, folder: reference_limit(model, [(X, Y)], null_rows=False, steps=3, points=5),
    "from_official": lambda model, folder: from_official(model),
}


@pytest.mark.parametrize("way", COPIES)
def test_a_network_that_cannot_be_copied_is_refused_by_the_name_of_the_attribute(way, tmp_path):
    with pytest.raises(BadInput, match="cannot be copied, for its attribute 'drawn'"):
        COPIES[way](uncopied(), tmp_path)


def of(weight):
    model = network()
    model[0].weight = nn.Parameter(weight, requires_grad=False)
    return model


WEIGHTS = torch.randn((8, 4), generator=torch.Generator().manual_seed(0))
STRANGE = {
    "meta": lambda: network().to("meta"),
    "sparse": lambda: of(WEIGHTS.to_sparse()),
    "complex": lambda: of(WEIGHTS + 0j),
    "eight bits": lambda: of(WEIGHTS.to(torch.float8_e4m3fn)),
}
NUMBERS = {
    "sparsity_of": sparsity_of,
    "compressed_bits": compressed_bits,
    "importances": lambda model: importances(model, "l1_norm", X[:1]),
    "sensitivity": lambda model: sensitivity(model[0], [X]),
    "two_layer": lambda model: two_layer(X.abs(), model[0], 2),
    "SignFlips": SignFlips,
    "curve": lambda model: magnitude_curve(model, [(X, Y)], ["0.weight"], 3, progress=False),
    "reference": lambda model: reference_limit(model, [(X, Y)], null_rows=False, steps=3, points=5),
    "attack": lambda model: attack(model, X, Y, "fgsm", epsilons=[0.1]),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize("way", NUMBERS)
def test_weights_that_nothing_can_be_computed_with_are_refused_by_name(way, kind):
    with pytest.raises(PruningError, match=r"0.weight|the weight of the layer|'weight'|no values"):
        NUMBERS[way](STRANGE[kind]())


@pytest.mark.parametrize("kind", ["sparse", "eight bits"])
def test_weights_that_torch_cannot_mask_are_refused(kind):
    model = STRANGE[kind]()
    with pytest.raises(BadType, match=r"'0.weight' holds torch.float"):
        pc.Masks({"0.weight": torch.zeros(8, 4, dtype=torch.bool)}).apply_(model)
    with pytest.raises(PruningError, match=r"eight bits|cannot be copied|no layer computes"):
        pc.prune(model, "magnitude", 0.5)


CLOSED = {
    "script": lambda: torch.jit.script(network()),
    "part": lambda: nn.Sequential(torch.jit.script(nn.Linear(4, 8)), nn.Linear(8, 3)),
    "trace": lambda: torch.jit.trace(network(), X),
}
INSIDE = {
    "positions": lambda model, folder: output_positions(model, X[:1]),
    "flops": lambda model, folder: reference_flops(model, X[:1]),
    "inputs": lambda model, folder: list(layer_inputs(model, ["0"], [(X, Y)])),
    "groups": lambda model, folder: pc.find_groups(model, X[:1]),
    "importances": lambda model, folder: importances(model, "l1_norm", X[:1]),
    "curve": lambda model, folder: magnitude_curve(model, [(X, Y)], ["0.weight"], 3, progress=False),
    "save": lambda model, folder: pc.save_network(model, folder / "x.safetensors"),
    "load": lambda model, folder: pc.load_pruned(saved(folder), model),
}


def saved(folder):
    pc.save_network(network(), folder / "saved.safetensors")
    return folder / "saved.safetensors"


@pytest.mark.parametrize("kind", CLOSED)
@pytest.mark.parametrize("way", INSIDE)
def test_torchscript_is_refused_by_what_looks_into_a_network(way, kind, tmp_path):
    with pytest.raises(BadInput, match=r"TorchScript.*give the module that it was made of"):
        INSIDE[way](CLOSED[kind](), tmp_path)


def test_torchscript_is_counted_where_the_count_is_right_and_evaluated():
    with pytest.raises(BadInput, match="TorchScript"):
        pc.count_macs(CLOSED["script"](), X[:1])
    assert pc.count_macs(CLOSED["trace"](), X[:1]) == pc.count_macs(network(), X[:1])
    assert pc.evaluate(CLOSED["script"](), [(X, Y)]) == pc.evaluate(network(), [(X, Y)])


@pytest.mark.parametrize("way", ["count_macs", "evaluate", "latency", "fit", "attack"])
def test_a_program_of_torch_export_has_no_evaluation_mode(way, tmp_path):
    with pytest.raises(BadInput, match=r"has no evaluation mode.*was made of"):
        ASKED[way](torch.export.export(network(), (X,)).module(), tmp_path)


def without_units():
    return nn.Sequential(
        of(WEIGHTS)[0], nn.ReLU(), nn.utils.skip_init(nn.Linear, 8, 0), nn.utils.skip_init(nn.Linear, 0, 3)
    )


@pytest.mark.parametrize("method", ["magnitude", "l1_norm", "snip", "synflow"])
def test_a_layer_without_a_number_is_refused_by_the_methods_and_costs_nothing(method):
    with pytest.raises(Unprunable, match=r"the weight of layer '2' has shape \(0, 8\)"):
        pc.prune(without_units(), method, 0.5, batches=[(X, Y)])
    assert output_positions(without_units(), X[:1])["2"] == 0
    assert compressed_bits(without_units()) > 0


def test_names_of_no_layer_and_no_names_are_refused():
    with pytest.raises(BadInput, match="unknown layer 'first'"):
        next(layer_inputs(network(), ["first"], [(X, Y)]))
    with pytest.raises(BadInput, match="unknown parameter 'first'"):
        magnitude_curve(network(), [(X, Y)], ["first"])
    with pytest.raises(BadInput, match="unknown parameter 'first'"):
        weight_elasticities(network(), {"first": torch.ones(1)}, 1.0)
    with pytest.raises(BadInput, match="names is empty"):
        magnitude_curve(network(), [(X, Y)], [])
    with pytest.raises(BadInput, match="names is empty"):
        loss_gradients(network(), [], [(X, Y)], F.cross_entropy)
    assert pc.evaluate(nn.Sequential(), [(torch.ones(2, 3), Y[:2])], precision="bfloat16").n == 2


ARRAYS = {
    "backwards": X.numpy()[::-1],
    "the bytes of another machine": X.numpy().astype(">f4"),
    "a long double": X.numpy().astype(np.longdouble),
    "read only": np.broadcast_to(X.numpy(), X.shape),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_arrays_are_batches_however_their_numbers_lie(kind):
    found = pc.evaluate(network(), [(ARRAYS[kind], Y.numpy().astype(">i8"))])
    wanted = X.flip(0) if kind == "backwards" else X
    assert found.loss == pytest.approx(pc.evaluate(network(), [(wanted, Y)]).loss)


NO_BATCHES = {
    "texts": ((X, np.array(["a"] * 24)), "must hold numbers, not an array of <U1"),
    "dates": ((X.numpy().astype("datetime64[s]"), Y), "must hold numbers, not an array of datetime64"),
    "sparse labels": ((X, Y.to_sparse()), "labels of a batch must be a dense tensor"),
    "nested": ((torch.nested.nested_tensor(list(X)), Y), "a batch holds a nested tensor"),
}


@pytest.mark.parametrize("way", ["prune", "fit", "evaluate"])
@pytest.mark.parametrize("kind", NO_BATCHES)
def test_what_is_no_batch_of_numbers_is_one_sentence(kind, way):
    batch, words = NO_BATCHES[kind]
    ways = {"prune": lambda model, batches: pc.prune(model, "snip", 0.5, batches=batches)} | {
        "fit": lambda model, batches: pc.fit(model, batches, **QUIET),
        "evaluate": pc.evaluate,
    }
    with pytest.raises(BadType, match=words):
        ways[way](network(), [batch])


def test_sparse_inputs_are_not_cut_into_samples():
    with pytest.raises(BadInput, match="cannot be cut into its samples"):
        pc.prune(network(), "snip", 0.5, batches=[(X.to_sparse(), Y)])


def test_masks_of_other_shapes_are_refused_before_anything_is_cut():
    model = network()
    groups = pc.find_groups(model, X[:1])
    for mask in (torch.ones(0, dtype=torch.bool), torch.ones(8, 1, dtype=torch.bool), torch.ones(8, 4)):
        with pytest.raises(BadInput, match=r"the mask of '0.weight' must be a bool tensor of shape \(8, 4\)"):
            pc.remove(model, {"0.weight": mask}, groups)
    assert model[0].weight.shape == (8, 4)
    for mask in (torch.ones(2, dtype=torch.bool).to_sparse(), torch.ones(2, dtype=torch.bool, device="meta")):
        with pytest.raises(BadType, match="the mask of 'a' must be a dense tensor"):
            pc.Masks({"a": mask})
