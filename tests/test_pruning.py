"""prune(), its report, saving and loading, and everything that it refuses before work starts."""

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.errors import BadInput, BudgetError, CorruptFile, PruningError, UnknownName, Unprunable
from pruning_core.models import cost


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()


X = torch.randn((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
Y = torch.tensor([1, 2, 3, 4])


def test_the_result_says_what_was_asked_and_reached():
    model = network()
    result = pc.prune(model, "l1_norm", 0.5, example_input=X[:1])
    report = result.report
    assert (report.asked, report.of, report.reached) == (0.5, "channels", 0.5)
    assert report.removed["channels"] == (4, 8)
    weights = 8 * 9 + 288 * 10
    assert report.removed["weights"] == (weights // 2, weights)
    macs = 8 * 9 * 36 + 288 * 10
    assert report.removed["macs"] == (macs // 2, macs)
    assert "layers" not in vars(report)  # the table is made when it is asked for
    assert report.layers["removed"].sum() == weights // 2
    assert "outputs of the network" in report.not_prunable["channels of 4"]
    assert "asked 50.00% of channels, reached 50.00%" in str(report)
    assert "not prunable" in result._repr_html_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("small", [0, cost.QUICK])
def test_multiply_accumulates_are_counted_by_values_as_by_shapes(small, dtype, monkeypatch):
    monkeypatch.setattr(cost, "QUICK", small)
    removed = pc.prune(network().to(dtype), "magnitude", 0.5, of="macs", example_input=X[:1]).report.removed["macs"]
    assert removed[1] == 8 * 9 * 36 + 288 * 10
    assert abs(removed[0] - removed[1] / 2) <= 36


@pytest.mark.parametrize("method", ["hoyer_square", "group_hoyer_square", "slimming", "rni", "cnip"])
def test_a_threshold_that_takes_nothing_is_told_in_the_first_line(method):
    def cut(below):
        budget = pc.Budget(below=below, of="weights" if method in ("hoyer_square", "cnip") else "channels")
        return pc.prune(pc.build_model("vgg8", "digits", norm=norm, width=0.5), method, budget, batches=[(X, Y)]).report

    norm = "sigmoid" if method == "rni" else "batch"
    assert (cut(-1.0).asked, cut(-1.0).reached) == (None, 0.0)
    first, *rest = cut(-1.0).summary.splitlines()
    assert first.endswith(
        "; nothing at all was cut, for no score is at or below the threshold: train longer, or with a stronger penalty"
    )
    assert not any("nothing" in line for line in rest)
    assert "nothing" not in cut(10.0).summary


def test_a_budget_in_place_of_a_sparsity_says_all_about_it():
    twice = pc.prune(network(), "hoyer_square", pc.Budget(below=0.01), rounds=2)
    assert "nothing" not in twice.report.summary
    assert twice.masks == pc.prune(network(), "hoyer_square", pc.Budget(below=0.01)).masks
    with pytest.raises(BadInput, match="neither of= nor across="):
        pc.prune(network(), "magnitude", pc.Budget(0.5), across="layer")
    with pytest.raises(BadInput, match="round_to= beside it"):
        pc.prune(network(), "l1_norm", pc.Budget(0.5, of="channels"), round_to=8, example_input=X[:1])
    with pytest.raises(BadInput, match="'random' removes single weights"):
        pc.Prune("random", pc.Budget(0.5, round_to=8))


def test_the_network_given_is_left_as_it_was():
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    result = pc.prune(model, "magnitude", 0.9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert result.model is not model


def test_magnitude_removes_the_smallest_weights():
    result = pc.prune(network(), "magnitude", 0.9)
    values = torch.cat([p.detach().abs().flatten() for n, p in network().named_parameters() if p.dim() > 1])
    cut = values.sort().values[round(0.9 * len(values))]
    for name, parameter in network().named_parameters():
        if parameter.dim() > 1:
            assert torch.equal(result.masks[name], parameter.abs() >= cut) or result.masks[name].sum() == 1


def test_filter_norms_are_norms_of_filters():
    weight = network()[0].weight.detach().flatten(1)
    expected = {
        "l1_norm": weight.abs().sum(1),
        "l2_norm": weight.square().sum(1).sqrt(),
        "geometric_median": (weight[:, None] - weight[None]).square().sum(2).sqrt().sum(1),
    }
    for method, scores in expected.items():
        result = pc.prune(network(), method, 0.5, example_input=X[:1])
        alive = result.sites.groups["0"].alive(result.masks)
        assert set(alive.nonzero().flatten().tolist()) == set(scores.argsort(descending=True)[:4].tolist())


def test_rounds_end_at_the_sparsity_and_are_nested():
    one, three = (pc.prune(network(), "magnitude", 0.8, rounds=rounds) for rounds in (1, 3))
    assert one.masks == three.masks  # magnitudes of survivors do not change
    assert three.report.reached == pytest.approx(0.8, abs=1e-3)


def test_scope_narrows_and_refuses_what_fits_nothing():
    result = pc.prune(network(), "magnitude", 0.5, scope=["4"])
    assert set(result.masks) == {"4.weight"}
    assert result.report.not_prunable["0"] == "out of scope"
    assert set(pc.prune(network(), "magnitude", 0.5, scope=["!4"]).masks) == {"0.weight"}
    assert set(pc.prune(network(), "magnitude", 0.5, scope=lambda n, m: isinstance(m, nn.Linear)).masks) == {"4.weight"}
    with pytest.raises(BadInput, match=r"'features\.\*' fits no layer"):
        pc.prune(network(), "magnitude", 0.5, scope=["features.*"])
    with pytest.raises(Unprunable, match="in scope"):
        pc.prune(network(), "magnitude", 0.5, scope=lambda n, m: False)


def test_a_sparsity_for_each_site_must_agree_with_the_overall_one():
    result = pc.prune(network(), "magnitude", None, across={"4.weight": 0.25})
    assert result.report.layers["removed"].tolist() == [0, 720]
    with pytest.raises(BudgetError, match=r"not the 0\.9 asked for"):
        pc.prune(network(), "magnitude", 0.9, across={"4.weight": 0.25})


def test_batches_may_be_a_generator_a_loader_or_bare_inputs():
    dataset = torch.utils.data.TensorDataset(X, Y)
    torch.manual_seed(0)
    given = [((X, Y) for _ in range(2)), torch.utils.data.DataLoader(dataset, 2), [X]]
    masks = [pc.prune(network(), "sipp_random", 0.5, batches=batches).masks for batches in given]
    assert masks[0] == masks[1] == masks[2]


def test_parameters_that_are_shared_frozen_or_of_half_precision_can_lose_weights():
    shared = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    shared[1].weight = shared[0].weight
    result = pc.prune(shared, "magnitude", 0.5)
    assert result.report.removed["weights"] == (18, 36)
    assert result.model[1].weight is result.model[0].weight
    frozen = pc.prune(network().requires_grad_(False), "magnitude", 0.5).model
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    half = pc.prune(network().half(), "magnitude", 0.5)
    assert half.report.removed["weights"] == (1476, 2952)
    assert half.model[4].weight.dtype == torch.float16


def test_a_batch_of_one_goes_through_batch_norm():
    model = network().train()
    result = pc.prune(model, "l1_norm", 0.5, batches=[(X[:1], Y[:1])])
    assert torch.isfinite(result.shrink().eval()(X)).all()


def test_saved_networks_come_back(tmp_path):
    digits = pc.load_data("digits")
    model = pc.build_model("lenet300", digits, seed=0).eval()
    inputs = digits.test.inputs[:16]
    small = pc.prune(model, "l1_norm", 0.5)
    small.save(tmp_path / "small")
    assert torch.equal(pc.load_pruned(tmp_path / "small")(inputs), small.shrink().eval()(inputs))
    sparse = pc.prune(model, "magnitude", 0.9)
    sparse.save(tmp_path / "sparse")
    assert torch.equal(pc.load_pruned(tmp_path / "sparse")(inputs), sparse.model(inputs))
    assert pc.Masks.load(tmp_path / "sparse") == sparse.masks
    assert b"pickle" not in (tmp_path / "small").read_bytes()[:4096]


def test_damaged_and_foreign_files_are_refused(tmp_path):
    result = pc.prune(network(), "l1_norm", 0.5, example_input=X[:1])
    result.save(tmp_path / "good")
    content = (tmp_path / "good").read_bytes()
    flipped = bytearray(content)
    flipped[-20] ^= 4
    for name, damaged in {"short": content[:-7], "flipped": bytes(flipped), "foreign": b"hello", "empty": b""}.items():
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CorruptFile):
            pc.load_pruned(tmp_path / name, network())
    with pytest.raises(BadInput, match="pass an instance as model="):
        pc.load_pruned(tmp_path / "good")
    with pytest.raises(BadInput, match="does not fit Linear"):
        pc.load_pruned(tmp_path / "good", nn.Linear(3, 3))
    with pytest.raises(BadInput, match="no file"):
        pc.load_pruned(tmp_path / "nothing")
    pc.Masks({"a": torch.ones(2, dtype=torch.bool)}).save(tmp_path / "masks")
    with pytest.raises(CorruptFile, match="holds masks, not a network"):
        pc.load_pruned(tmp_path / "masks", network())


def test_nothing_half_written_stays_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadInput, match="cannot write"):
        pc.prune(network(), "magnitude", 0.5).save(tmp_path / "file" / "net")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_method_that_does_not_round_is_found_out():
    slimming = pc.METHODS["ucs"](reference=True)  # quantiles of the official code decide
    model = pc.build_model("vgg8", "digits", width=0.5)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(0))
    with pytest.raises(BudgetError, match="no multiple of round_to=8: it does not round"):
        pc.prune(model, slimming, 0.5, round_to=8, batches=[(X, Y)])


def test_the_smaller_network_can_be_made_ready_for_inference():
    result = pc.prune(network().double().train(), "l1_norm", 0.5, example_input=X[:1].double())
    plain, ready = result.shrink(), result.shrink(fold_batch_norm=True, channels_last=True)
    assert plain.training and not ready.training
    assert isinstance(plain[1], nn.BatchNorm2d) and isinstance(ready[1], nn.Identity)
    assert ready[0].weight.is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert (plain.eval()(X.double()) - ready(X.double())).abs().max() < 1e-12


def test_weights_leave_no_smaller_network():
    with pytest.raises(Unprunable, match="only whole channels do"):
        pc.prune(network(), "magnitude", 0.5).shrink()


def broken(value: float) -> nn.Module:
    model = network()
    with torch.no_grad():
        model[4].bias[0] = value
    return model


@pytest.mark.parametrize(
    ("arguments", "kind", "match"),
    [
        ((network(), "magnitud", 0.5), UnknownName, "did you mean 'magnitude'"),
        ((network(), 3, 0.5), PruningError, "name or an instance"),
        (("network", "magnitude", 0.5), PruningError, "must be a torch.nn.Module"),
        ((broken(float("nan")), "magnitude", 0.5), BadInput, r"'4\.bias' holds 1 NaN"),
        ((broken(float("inf")), "magnitude", 0.5), BadInput, r"'4\.bias' holds 1 NaN or infinite"),
        ((nn.Sequential(nn.ReLU()), "magnitude", 0.5), Unprunable, "no prunable layer"),
        ((network(), "l1_norm", 0.5), BadInput, "needs example_input"),
        ((nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "magnitude", 0.9), BudgetError, "would be emptied"),
    ],
)
def test_bad_arguments_get_one_clear_sentence(arguments, kind, match):
    with pytest.raises(kind, match=match) as caught:
        pc.prune(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"across": "globl"}, "did you mean 'global'"), ({"of": "flops"}, "Allowed: channels, macs, weights"),
        ({"of": "channels"}, "prunes single weights"), ({"of": "macs"}, "needs example_input"),
        ({"rounds": 0}, "rounds must be at least 1"), ({"across": {"4.weigh": 0.5}}, "did you mean '4.weight'"),
        ({"round_to": 8}, "round_to=8 rounds numbers of channels, and method 'magnitude'"), ({"round_to": 0}, "at least 1"),
        ({"batches": X}, "single batch into a list"), ({"batches": 3}, "iterable"),
    ],
)  # fmt: skip
def test_bad_options_get_one_clear_sentence(options, match):
    with pytest.raises(PruningError, match=match) as caught:
        pc.prune(network(), "magnitude", 0.5, **options)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers():
    assert pc.prune(network(), "magnitude", np.float32(0.5)).report.reached == 0.5


def test_a_method_of_ones_own_appears_by_itself():
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Largest(pc.Method):
        """The largest weights go first."""

        name = "test_largest"
        citation = "han2015learning"

        def score(self, view):
            return pc.Scores({name: -weight.abs() for name, weight in view.weights().items()})

    try:
        pc.register(Largest)
        assert "test_largest" in set(pc.methods_table()["name"])
        result = pc.prune(network(), "test_largest", 0.5)
        for name, mask in result.masks.items():
            weight = network().get_parameter(name).detach().abs()
            assert not mask.view(-1)[weight.argmax()]
            assert mask.view(-1)[weight.argmin()]
        with pytest.raises(BadInput, match="taken"):
            pc.register(type("Other", (Largest,), {"__qualname__": "Other"}))
    finally:
        pc.METHODS.pop("test_largest", None)
