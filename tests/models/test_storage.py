"""Networks on disk: what was tied stays tied, masks come back, and what does not fit is refused with a remedy."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput
from pruning_core.masks.masks import Masks

TOKENS = torch.randint(0, 15, (6, 4), generator=torch.Generator().manual_seed(0))
X = torch.randn((2, 3, 9, 9), generator=torch.Generator().manual_seed(0))


class Tied(nn.Module):
    """A table that is read at the start and at the end, or two tables of that shape."""

    def __init__(self, tied: bool = True):
        super().__init__()
        self.table, self.hidden, self.out = nn.Embedding(15, 7), nn.Linear(7, 7), nn.Linear(7, 15, bias=False)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, tokens):
        return self.out(self.hidden(self.table(tokens)).tanh()).mean(1)


def conv(kernel=3, width: int = 8, groups: int = 1) -> nn.Sequential:
    second = nn.Conv2d(width, 6, 1, groups=groups)
    return nn.Sequential(nn.Conv2d(3, width, kernel, padding="same"), nn.BatchNorm2d(width), nn.ReLU(), second)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_tied_after_loading_whatever_the_skeleton_ties(tied, tmp_path):
    result = pc.prune(Tied(), "magnitude", 0.5)
    result.save(tmp_path / "tied")
    loaded = pc.load_pruned(tmp_path / "tied", model=Tied(tied))
    assert loaded.out.weight is loaded.table.weight
    assert pc.count_parameters(loaded) == pc.count_parameters(result.model)
    for network in (loaded, result.model):
        network.train()
        nn.functional.cross_entropy(network(TOKENS), torch.arange(6)).backward()
        torch.optim.SGD(network.parameters(), 0.5).step()
    assert torch.equal(loaded(TOKENS), result.model(TOKENS))


def test_two_tables_do_not_fit_where_one_is_tied(tmp_path):
    pc.prune(Tied(False), "magnitude", 0.5).save(tmp_path / "two")
    with pytest.raises(BadInput, match=r"'out.weight' and 'table.weight' are one tensor there, but two in the file"):
        pc.load_pruned(tmp_path / "two", model=Tied())
    assert pc.load_pruned(tmp_path / "two", model=Tied(False)).eval()


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_masks_come_back_and_are_counted_by_the_next_cut(method, tmp_path):
    first = pc.prune(conv(), method, 0.4)
    first.save(tmp_path / "sparse")
    loaded = pc.load_pruned(tmp_path / "sparse", model=conv())
    assert Masks.carried(loaded) == first.masks == Masks.load(tmp_path / "sparse")
    second = pc.prune(loaded, method, 0.7, seed=1)
    assert second.masks <= first.masks
    dead = sum(int((second.model.get_parameter(name) == 0).sum()) for name in second.sites.weights)
    assert dead / second.masks.total == pytest.approx(0.7, abs=1e-2)
    pc.save_network(second.model, tmp_path / "again")
    assert Masks.carried(pc.load_pruned(tmp_path / "again", model=conv())) == second.masks


def test_a_shrunk_network_carries_what_is_dead_among_its_weights(tmp_path):
    network = conv().eval()
    sparse = pc.prune(network, "magnitude", 0.5)
    result = pc.prune(sparse.model, "l1_norm", 0.5, example_input=X)
    small = result.shrink()
    zeros = sum(int((small.get_parameter(f"{name}.weight") == 0).sum()) for name in "03")
    assert zeros and Masks.carried(small).removed == zeros
    result.save(tmp_path / "small")
    assert Masks.carried(pc.load_pruned(tmp_path / "small", model=network)) == Masks.carried(small)


@pytest.mark.parametrize("kernel", [1, 5, (3, 1)])
def test_another_kernel_is_refused(kernel, tmp_path):
    pc.prune(conv(), "l1_norm", 0.5, example_input=X).save(tmp_path / "small")
    with pytest.raises(BadInput, match=r"'0.weight' has shape \(4, 3, 3, 3\), not .* numbers of channels only"):
        pc.load_pruned(tmp_path / "small", model=conv(kernel))


class Scaled(nn.Module):
    """A parameter of its own, a table and a norm, which lose no channels."""

    def __init__(self, size: int, rows: int, norm: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))
        self.table, self.norm, self.out = nn.Embedding(rows, 4), nn.LayerNorm(norm), nn.Linear(4, 3)


@pytest.mark.parametrize(
    ("sizes", "name"), [((3, 8, 4), "scale"), ((2, 9, 4), "table.weight"), ((2, 8, 5), "norm.weight")]
)
def test_sizes_that_no_pruning_changes_must_be_those_of_the_skeleton(sizes, name, tmp_path):
    pc.save_network(Scaled(2, 8, 4), tmp_path / "whole")
    with pytest.raises(BadInput, match=f"'{name}' has shape"):
        pc.load_pruned(tmp_path / "whole", model=Scaled(*sizes))


def test_names_of_a_wrapper_are_told_with_the_remedy(tmp_path):
    pc.save_network(nn.DataParallel(conv()), tmp_path / "wrapped")
    pc.save_network(conv(), tmp_path / "plain")
    with pytest.raises(BadInput, match=r"begin with 'module.'.*torch.nn.DataParallel\(network\)"):
        pc.load_pruned(tmp_path / "wrapped", model=conv())
    with pytest.raises(BadInput, match=r"begin with 'module.', for it is wrapped"):
        pc.load_pruned(tmp_path / "plain", model=nn.DataParallel(conv()))
    assert pc.load_pruned(tmp_path / "wrapped", model=nn.DataParallel(conv()))
