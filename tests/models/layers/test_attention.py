"""Attention with heads that can be cut out: the same function as torch's, one group a layer, exact removal."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

import pruning_core as pc
from pruning_core.errors import BadInput, BadType, Unprunable
from pruning_core.masks.groups import expand
from pruning_core.masks.removal import remove
from pruning_core.masks.tracing import find_groups
from pruning_core.methods.gates import GateDecorators
from pruning_core.models.cost import output_positions
from pruning_core.models.layers.attention import PrunableAttention
from pruning_core.models.layers.gates import Gated


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """In double precision and evaluation mode; biases, which torch starts at 0, must matter too."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def assert_close(a: torch.Tensor, b: torch.Tensor) -> None:
    assert a.shape == b.shape
    assert a.abs().max() > 0.01
    assert (a - b).abs().max() < 1e-12


def torchvision_vit() -> nn.Module:
    return VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
    )


class Crossed(nn.Module):
    """Queries from the input, keys and values from a shorter and wider memory that is made of it."""

    def __init__(self, batch_first: bool = True):
        super().__init__()
        self.batch_first = batch_first
        self.read = nn.Linear(6, 16)
        self.memory = nn.Linear(6, 10)
        self.attention = nn.MultiheadAttention(16, 4, kdim=10, vdim=6, batch_first=batch_first)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.read(x), self.memory(x[:, :3]), x[:, 2:5]
        if not self.batch_first:
            query, key, value = (part.transpose(0, 1) for part in (query, key, value))
        mixed, weights = self.attention(query, key, value)
        assert weights.shape == (len(x), x.shape[1], 3)
        mixed = mixed if self.batch_first else mixed.transpose(0, 1)
        return self.head(self.norm(self.read(x) + mixed).mean(1))


NETWORKS = {
    "torchvision": (lambda: pc.prunable_attention(torchvision_vit()), (2, 3, 16, 16), "*.self_attention", 4),
    "vit_tiny": (lambda: pc.build_model("vit_tiny", ((1, 8, 8), 10), seed=0), (2, 1, 8, 8), "*.self_attention", 4),
    "encoder": (
        lambda: pc.prunable_attention(
            nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 24, batch_first=True), num_layers=2)
        ),
        (2, 5, 16), "*.self_attn", 2,
    ),
    "encoder, tokens first": (
        lambda: pc.prunable_attention(nn.Sequential(nn.TransformerEncoderLayer(16, 2, 24), nn.Linear(16, 3))),
        (5, 2, 16), "*.self_attn", 2,
    ),
    "crossed": (lambda: pc.prunable_attention(Crossed()), (2, 7, 6), "attention", 4),
    "crossed, tokens first": (lambda: pc.prunable_attention(Crossed(batch_first=False)), (2, 7, 6), "attention", 4),
}  # fmt: skip


def network(name: str) -> tuple[nn.Module, torch.Tensor, str, int]:
    make, shape, scope, heads = NETWORKS[name]
    return randomised(make()), noise(*shape, seed=1), scope, heads


def float_mask(boolean: torch.Tensor) -> torch.Tensor:
    return torch.zeros(boolean.shape, dtype=torch.float64).masked_fill(boolean, -torch.inf)


CAUSAL = torch.ones(5, 7, dtype=torch.bool).triu(1)
PADDING = torch.arange(7)[None] >= torch.tensor([7, 4, 2])[:, None]
PER_HEAD = torch.rand(3 * 4, 5, 7, generator=torch.Generator().manual_seed(0)) > 0.8
PER_HEAD[..., 0] = False  # a query that sees nothing has no weights in torch either
MASKS = {
    "no mask": {},
    "causal": {"attn_mask": CAUSAL},
    "causal, as a hint": {"attn_mask": CAUSAL, "is_causal": True},
    "float": {"attn_mask": noise(5, 7, seed=9)},
    "a matrix a head": {"attn_mask": PER_HEAD},
    "padding": {"key_padding_mask": PADDING},
    "float padding": {"key_padding_mask": float_mask(PADDING)},
    "both": {"attn_mask": CAUSAL, "key_padding_mask": PADDING},
    "both, a matrix a head": {"attn_mask": float_mask(PER_HEAD), "key_padding_mask": float_mask(PADDING)},
}


@pytest.mark.parametrize("wanted", [{"need_weights": False}, {}, {"average_attn_weights": False}], ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"kdim": 10}, {"kdim": 10, "vdim": 6, "bias": False}, {"vdim": 6}], ids=str
)
def test_the_same_function_as_torch(options, batch_first, mask, wanted):
    theirs = randomised(nn.MultiheadAttention(16, 4, batch_first=batch_first, **options))
    ours = PrunableAttention.from_torch(theirs)
    query, key, value = noise(3, 5, 16), noise(3, 7, options.get("kdim", 16)), noise(3, 7, options.get("vdim", 16))
    if not batch_first:
        query, key, value = (part.transpose(0, 1) for part in (query, key, value))
    expected, expected_weights = theirs(query, key, value, **MASKS[mask], **wanted)
    output, weights = ours(query, key, value, **MASKS[mask], **wanted)
    assert_close(output, expected)
    if wanted == {"need_weights": False}:
        assert weights is None
    else:
        assert_close(weights, expected_weights)


@pytest.mark.parametrize("need_weights", [True, False])
def test_inputs_without_a_batch(need_weights):
    theirs = randomised(nn.MultiheadAttention(16, 4))
    ours = PrunableAttention.from_torch(theirs)
    options = {"attn_mask": CAUSAL, "key_padding_mask": PADDING[1], "need_weights": need_weights}
    expected, expected_weights = theirs(noise(5, 16), noise(7, 16, seed=1), noise(7, 16, seed=2), **options)
    output, weights = ours(noise(5, 16), noise(7, 16, seed=1), noise(7, 16, seed=2), **options)
    assert_close(output, expected)
    assert (weights is None) is not need_weights
    if need_weights:
        assert_close(weights, expected_weights)


def test_dropout_acts_in_training_only():
    theirs = randomised(nn.MultiheadAttention(16, 4, dropout=0.5, batch_first=True))
    ours, x = PrunableAttention.from_torch(theirs), noise(3, 5, 16)
    still = ours(x, x, x)[0]
    assert_close(ours(x, x, x, need_weights=False)[0], still)
    outputs = []
    for attention in (theirs.train(), ours.train()):
        torch.manual_seed(0)
        outputs.append(attention(x, x, x)[0])
    assert_close(*outputs)
    assert (outputs[1] - still).abs().max() > 1e-3
    assert (ours(x, x, x, need_weights=False)[0] - still).abs().max() > 1e-3


def test_conversion_keeps_dtype_mode_and_frozen_parts_and_draws_nothing():
    theirs = nn.MultiheadAttention(16, 4, kdim=10, dtype=torch.bfloat16).eval()
    theirs.k_proj_weight.requires_grad_(False)
    theirs.out_proj.bias.requires_grad_(False)
    state = torch.get_rng_state()
    ours = PrunableAttention.from_torch(theirs)
    assert torch.equal(state, torch.get_rng_state())
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.bfloat16}
    assert not any(module.training for module in ours.modules())
    assert {name for name, p in ours.named_parameters() if not p.requires_grad} == {"k.weight", "out.bias"}
    with torch.no_grad():
        ours.q.weight.zero_()
    assert theirs.q_proj_weight.any(), "the weights must be copies"
    assert PrunableAttention.from_torch(nn.MultiheadAttention(4, 2, device="meta")).v.bias.is_meta
    frozen = nn.MultiheadAttention(16, 4)
    frozen.in_proj_weight.requires_grad_(False)
    kept = {name for name, p in PrunableAttention.from_torch(frozen).named_parameters() if p.requires_grad}
    assert kept == {"q.bias", "k.bias", "v.bias", "out.weight", "out.bias"}


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layers_of_torch(batch_first, norm_first):
    theirs = randomised(nn.TransformerEncoderLayer(16, 4, 24, batch_first=batch_first, norm_first=norm_first))
    ours, x = pc.prunable_attention(copy.deepcopy(theirs)), noise(5, 5, 16)
    assert isinstance(ours.self_attn, PrunableAttention)
    with torch.no_grad():
        assert_close(ours(x), theirs(x))
        mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
        assert_close(ours(x, src_mask=mask, is_causal=True), theirs(x, src_mask=mask, is_causal=True))
    assert ours.train()(x).isfinite().all()


def test_an_encoder_made_of_a_converted_layer():
    layer = randomised(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True))
    theirs = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False).eval()
    ours = nn.TransformerEncoder(pc.prunable_attention(layer), num_layers=2).eval()
    x = noise(3, 7, 16)
    assert_close(ours(x, src_key_padding_mask=PADDING), theirs(x, src_key_padding_mask=PADDING))


def test_padded_inputs_of_an_encoder_converted_after_it_was_made():
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
    theirs = randomised(nn.TransformerEncoder(layer, num_layers=2))
    assert theirs.use_nested_tensor, "otherwise this test shows nothing"
    ours, x = pc.prunable_attention(copy.deepcopy(theirs)), noise(3, 7, 16)
    with torch.no_grad():
        expected, output = (net(x, src_key_padding_mask=PADDING) for net in (theirs, ours))
    assert_close(output[~PADDING], expected[~PADDING])


def test_a_whole_transformer_of_torch():
    theirs = randomised(nn.Transformer(16, 4, 2, 2, 24, batch_first=True))
    ours = pc.prunable_attention(copy.deepcopy(theirs))
    source, target = noise(2, 7, 16), noise(2, 5, 16, seed=1)
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    assert sum(isinstance(module, PrunableAttention) for module in ours.modules()) == 6
    assert_close(ours(source, target, tgt_mask=mask), theirs(source, target, tgt_mask=mask))


def test_torchvision_vit_gives_the_same_outputs_and_trains():
    theirs = randomised(torchvision_vit())
    ours, x = pc.prunable_attention(copy.deepcopy(theirs)), noise(2, 3, 16, 16)
    assert not any(isinstance(module, nn.MultiheadAttention) for module in ours.modules())
    assert_close(ours(x), theirs(x))
    assert pc.count_parameters(ours) == pc.count_parameters(theirs)
    assert_close(ours.train()(x), theirs.train()(x))


def test_a_layer_that_is_used_twice_stays_one():
    layer = nn.MultiheadAttention(8, 2)
    model = pc.prunable_attention(
        nn.ModuleDict({"first": layer, "second": layer, "third": nn.MultiheadAttention(8, 2)})
    )
    assert isinstance(model["first"], PrunableAttention)
    assert model["first"] is model["second"]
    assert model["first"] is not model["third"]


@pytest.mark.parametrize("name", NETWORKS)
def test_one_group_a_layer_with_a_channel_a_head(name):
    model, x, _, heads = network(name)
    groups = {group.name: group for group in find_groups(model, x) if group.reason_fixed is None}
    layers = {n for n, module in model.named_modules() if isinstance(module, PrunableAttention)}
    assert {n.removesuffix(".q") for n in groups if n.endswith(".q")} == layers
    for layer in layers:
        group, head_dim = groups[f"{layer}.q"], model.get_submodule(layer).head_dim
        assert group.size == heads
        assert {m.parameter for m in group.produces} == {f"{layer}.{p}.{w}" for p in "qkv" for w in ("weight", "bias")}
        assert [(m.parameter, m.dim) for m in group.consumes] == [(f"{layer}.out.weight", 1)]
        for member in group.members:
            assert torch.equal(member.channels, member.indices // head_dim)
            assert sorted(member.indices.tolist()) == list(range(heads * head_dim))


def test_the_other_groups_of_a_transformer():
    model, x, _, _ = network("vit_tiny")
    groups = {group.name: group for group in find_groups(model, x)}
    free = {name: group.size for name, group in groups.items() if group.reason_fixed is None}
    assert free == {
        "blocks.0.self_attention.q": 4, "blocks.0.fc1": 64, "blocks.1.self_attention.q": 4, "blocks.1.fc1": 64,
    }  # fmt: skip
    assert "LayerNorm" in groups["patches"].reason_fixed
    assert groups["linear"].reason_fixed == "they are outputs of the network"


@pytest.mark.parametrize("name", NETWORKS)
def test_masked_heads_equal_removed_heads(name):
    model, x, scope, heads = network(name)
    result = pc.prune(model, "random_channels", 0.5, example_input=x, scope=[f"{scope}.*"])
    small = result.shrink().eval()
    with torch.no_grad():
        whole, masked, cut = model(x), result.model.eval()(x), small(x)
    assert (whole - masked).abs().max() > 1e-3
    assert (masked - cut).abs().max() < 1e-12 * max(1.0, float(masked.abs().max()))
    left = [module.num_heads for module in small.modules() if isinstance(module, PrunableAttention)]
    assert sum(left) == heads * len(left) // 2
    attention = next(module for module in model.modules() if isinstance(module, PrunableAttention))
    each = sum(p.numel() for n, p in attention.named_parameters() if n != "out.bias") // heads
    assert pc.count_parameters(model) - pc.count_parameters(small) == each * (heads * len(left) - sum(left))


def test_a_head_is_the_one_that_was_chosen():
    model, x, _, _ = network("vit_tiny")
    groups = {group.name: group for group in find_groups(model, x)}
    keep = {"blocks.0.self_attention.q": torch.tensor([False, True, False, True])}
    masks = expand(keep, groups, {name: parameter.shape for name, parameter in model.named_parameters()})
    small = copy.deepcopy(model)
    remove(small, masks, groups.values())
    before, after = model.blocks[0].self_attention, small.blocks[0].self_attention
    rows = [*range(8, 16), *range(24, 32)]
    assert after.num_heads == 2
    for part in ("q", "k", "v"):
        assert torch.equal(getattr(after, part).weight, getattr(before, part).weight[rows])
    assert torch.equal(after.out.weight, before.out.weight[:, rows])
    tokens = noise(2, 16, 32)
    _, weights = before(tokens, tokens, tokens, average_attn_weights=False)
    _, fewer = after(tokens, tokens, tokens, average_attn_weights=False)
    assert_close(fewer, weights[:, [1, 3]])


def test_heads_and_hidden_units_in_rounds():
    model, x, _, _ = network("torchvision")
    result = pc.prune(model, "l2_norm", 0.5, example_input=x, rounds=2, across="layer")
    small = result.shrink().eval()
    assert [m.num_heads for m in small.modules() if isinstance(m, PrunableAttention)] == [2, 2]
    assert (small(x) - result.model.eval()(x)).abs().max() < 1e-12
    assert small.encoder.layers[0].mlp[0].out_features == 32


def test_a_gate_behind_each_projection():
    model, x, _, _ = network("vit_tiny")
    gated = GateDecorators().prepare(model, x)
    assert gated.blocks[0].self_attention.num_heads == 4
    result = pc.prune(gated, "gates", 0.5, example_input=x, batches=[(x, torch.tensor([1, 2]))], across="layer")
    assert sorted(name.split(".q")[0] for name in result.sites.groups if ".q" in name) == [
        "blocks.0.self_attention", "blocks.1.self_attention",
    ]  # fmt: skip
    small = result.shrink().eval()
    assert small.blocks[0].self_attention.num_heads == 2
    assert (small(x) - result.model.eval()(x)).abs().max() < 1e-12


def test_a_gate_behind_every_layer_where_no_layer_norm_fixes_the_channels():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.attention = nn.Linear(6, 16), PrunableAttention(16, 4, batch_first=True)
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            x = self.read(x)
            return self.head((x + self.attention(x, x, x)[0]).mean(1))

    model, x = randomised(Plain()), noise(2, 5, 6)
    gated = GateDecorators().prepare(model, x)
    assert all(isinstance(part, Gated) for part in gated.attention.children())
    result = pc.prune(gated, "gates", 0.5, example_input=x, batches=[(x, torch.tensor([1, 2]))], across="layer")
    small = result.shrink().eval()
    assert (small.attention.num_heads, small.attention.embed_dim, small.read.out_features) == (2, 8, 8)
    assert (small(x) - result.model.eval()(x)).abs().max() < 1e-12


def test_a_single_head_stays():
    model = pc.build_model("vit_tiny", ((1, 8, 8), 10), width=0.25, seed=0)
    reasons = {group.name: group.reason_fixed for group in find_groups(model, torch.zeros(1, 1, 8, 8))}
    assert "scaled_dot_product_attention in PrunableAttention" in reasons["blocks.0.self_attention.q"]


@pytest.mark.parametrize("average", [True, False])
def test_a_network_that_returns_its_attention_weights_keeps_its_heads(average):
    class Telling(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = PrunableAttention(16, 4, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, average_attn_weights=average)

    with pytest.raises(Unprunable, match="go through mean in PrunableAttention" if average else "q: they are outputs"):
        pc.prune(randomised(Telling()), "random_channels", 0.5, example_input=noise(2, 5, 16))


@pytest.mark.parametrize("need_weights", [True, False])
def test_multiply_accumulates_of_all_four_projections(need_weights):
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, kdim=10, vdim=6, batch_first=True)

        def forward(self, x):
            return self.attention(x, x[:, :3, :10], x[:, 2:5, :6], need_weights=need_weights)[0]

    model, x = pc.prunable_attention(Reader()), torch.zeros(2, 7, 16)
    positions = {"attention.q": 7, "attention.k": 3, "attention.v": 3, "attention.out": 7}
    macs = 7 * 16 * 16 + 3 * 10 * 16 + 3 * 6 * 16 + 7 * 16 * 16
    assert output_positions(model, x) == positions
    assert pc.count_macs(model, x) == macs
    result = pc.prune(model, "random_channels", 0.5, of="macs", example_input=x)
    assert result.report.removed["macs"] == (macs // 2, macs)
    assert pc.count_macs(result.shrink(), x) == macs // 2


def test_the_network_without_heads_can_be_trained():
    model = pc.build_model("vit_tiny", ((1, 8, 8), 10), seed=0)
    x, y = noise(16, 1, 8, 8).float(), torch.arange(16) % 10
    small = pc.prune(model, "random_channels", 0.5, example_input=x, scope=["*self_attention*"]).shrink().train()
    before = {name: parameter.detach().clone() for name, parameter in small.named_parameters()}
    optimizer, losses = torch.optim.Adam(small.parameters(), 1e-2), []
    for _ in range(5):
        loss = F.cross_entropy(small(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    for name, parameter in small.named_parameters():
        assert parameter.grad.isfinite().all()
        if not name.endswith(".k.bias"):  # the softmax does not see what is added to all keys alike
            assert parameter.grad.abs().max() > 0, name
            assert not torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("name", NETWORKS)
def test_saved_and_loaded(name, tmp_path):
    model, x, scope, _ = network(name)
    result = pc.prune(model, "random_channels", 0.5, example_input=x, scope=[f"{scope}.*"])
    result.save(tmp_path / "small")
    loaded = pc.load_pruned(tmp_path / "small", model=None if name == "vit_tiny" else model)
    assert pc.count_parameters(loaded) < pc.count_parameters(model)
    assert torch.equal(loaded(x), result.shrink().eval()(x))


def test_vit_tiny_has_heads_of_one_size_in_every_width():
    for width, heads in ((0.25, 1), (1, 4), (1.5, 6)):
        attention = pc.build_model("vit_tiny", ((3, 32, 32), 10), width=width, seed=0).blocks[1].self_attention
        assert (attention.num_heads, attention.head_dim, attention.embed_dim) == (heads, 8, round(32 * width))


def test_vit_tiny_starts_with_positions_that_its_seed_fixes():
    first, again, other = (pc.build_model("vit_tiny", ((3, 32, 32), 10), seed=seed) for seed in (1, 1, 2))
    assert first.position.std().item() == pytest.approx(0.02, rel=0.2)
    assert torch.equal(first.position, again.position)
    assert not torch.equal(first.position, other.position)
    assert not first.blocks[0].fc1.bias.any()


def test_vit_tiny_knows_where_a_patch_lies():
    model, x, _, _ = network("vit_tiny")
    swapped = torch.cat([x[..., 2:4], x[..., :2], x[..., 4:]], -1)
    assert (model(x) - model(swapped)).abs().max() > 1e-3
    with torch.no_grad():
        model.position.zero_()
    assert_close(model(x), model(swapped))


@pytest.mark.parametrize("shape", [(1, 9, 9), (3, 32, 28)])
def test_images_that_leave_a_rest_are_refused(shape):
    with pytest.raises(BadInput, match=rf"patches of .* {shape[1]}x{shape[2]} is no multiple"):
        pc.build_model("vit_tiny", (shape, 10))


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_attention_with_a_token_of_its_own_is_refused(options):
    attention = nn.MultiheadAttention(8, 2, **options)
    with pytest.raises(BadInput, match=rf"{next(iter(options))}=True cannot be converted"):
        PrunableAttention.from_torch(attention)
    model = nn.ModuleDict({"good": nn.MultiheadAttention(8, 2), "odd": attention})
    with pytest.raises(BadInput, match=r"^'odd': attention with"):
        pc.prunable_attention(model)
    assert type(model["good"]) is nn.MultiheadAttention, "a refused network stays as it was"


def test_what_cannot_be_converted_is_refused():
    class Own(nn.MultiheadAttention):
        pass

    with pytest.raises(BadType, match="not Own"):
        PrunableAttention.from_torch(Own(8, 2))
    with pytest.raises(BadInput, match=r"'0': an nn\.MultiheadAttention can be converted, not Own"):
        pc.prunable_attention(nn.Sequential(Own(8, 2)))
    with pytest.raises(BadInput, match=r"Linear holds no nn\.MultiheadAttention"):
        pc.prunable_attention(nn.Linear(2, 2))
    with pytest.raises(BadType, match=r"must be a torch\.nn\.Module, not 'vit_tiny'"):
        pc.prunable_attention("vit_tiny")
    converted = pc.prunable_attention(nn.MultiheadAttention(8, 2))
    assert isinstance(converted, PrunableAttention)
    with pytest.raises(BadInput, match="holds no"):
        pc.prunable_attention(converted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 6, "num_heads": 4}, "6 is not a multiple of 4 heads"),
        ({"embed_dim": 8, "num_heads": 0}, "num_heads must be at least 1, not 0"),
        ({"embed_dim": 8, "num_heads": 2, "head_dim": -1}, "head_dim must be at least 1"),
    ],
)
def test_sizes_that_do_not_exist_are_refused(arguments, message):
    with pytest.raises(BadInput, match=message):
        PrunableAttention(**arguments)


def test_inputs_and_masks_that_do_not_fit_are_refused():
    attention, x = PrunableAttention(8, 2, batch_first=True), torch.zeros(3, 5, 8)
    with pytest.raises(BadInput, match="not 3, 2 and 3"):
        attention(x, x[0], x)
    with pytest.raises(BadInput, match="not 4, 4 and 4"):
        attention(x[None], x[None], x[None])
    with pytest.raises(BadInput, match="must be given too"):
        attention(x, x, x, is_causal=True)
    with pytest.raises(BadInput, match=r"attn_mask must have shape \(5, 5\) or \(6, 5, 5\), not \(3, 5, 5\)"):
        attention(x, x, x, attn_mask=torch.zeros(3, 5, 5))
    with pytest.raises(BadInput, match=r"key_padding_mask must have shape \(3, 5\), not \(5, 3\)"):
        attention(x, x, x, key_padding_mask=torch.zeros(5, 3))
    with pytest.raises(BadInput, match=r"bools or floating-point numbers, not torch\.int64"):
        attention(x, x, x, attn_mask=torch.zeros(5, 5, dtype=torch.long))
