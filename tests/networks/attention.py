"""Attention written by hand in its usual spellings, and what stands around it: masks, positions, mixers, latents."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.networks.case import Case, noise, whole


class FusedAttention(nn.Module):
    """timm's spelling: one projection for all three, a permute, unbind; the width of a head from the shape."""

    def __init__(self, dim: int = 12, heads: int = 3):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv, self.proj, self.drop = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), nn.Dropout(0.1)

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        weight = self.drop(((q * self.scale) @ k.transpose(-2, -1)).softmax(-1))
        return self.proj((weight @ v).transpose(1, 2).reshape(B, N, C))


class VisionTransformer(nn.Module):
    """A convolution cuts patches; a class token and positions; the MLP and the norms of pre-norm blocks."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 12)), nn.Parameter(torch.randn(1, 5, 12) * 0.02)
        self.blocks = nn.ModuleList()
        for _ in range(2):
            mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Dropout(0.1), nn.Linear(24, 12))
            norms = {"norm1": nn.LayerNorm(12), "norm2": nn.LayerNorm(12)}
            self.blocks.append(nn.ModuleDict({"attention": FusedAttention(), "mlp": mlp, **norms}))
        self.scale1, self.norm, self.head = nn.Parameter(torch.full((12,), 0.5)), nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), dim=1) + self.positions
        for block in self.blocks:
            x = x + self.scale1 * block["attention"](block["norm1"](x))
            x = x + block["mlp"](block["norm2"](x))
        return self.head(self.norm(x)[:, 0])


class SeparateHeads(nn.Module):
    """Queries, keys, values apart; heads by view with -1; scores by einsum; a mask of the future."""

    def __init__(self, dim: int = 12, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(5, dim)
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.o, self.up, self.head = nn.Linear(dim, dim), nn.Linear(dim, 20), nn.Linear(20, 3)
        self.register_buffer("future", torch.triu(torch.ones(7, 7), 1).bool(), persistent=False)

    def forward(self, x):
        x = self.embed(x)
        b, n, _ = x.shape
        q, k, v = (part(x).view(b, n, self.heads, -1) for part in (self.q, self.k, self.v))
        scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(q.shape[-1])
        weight = scores.masked_fill(self.future[:n, :n], float("-inf")).softmax(-1)
        y = torch.einsum("bhij,bjhd->bihd", weight, v).reshape(b, n, -1)
        return self.head(F.gelu(self.up(x + self.o(y)), approximate="tanh"))


def turned(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), -1) * sin


class RootMeanSquare(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Llama(nn.Module):
    """Rotary positions, fewer keys than queries, RMSNorm, a gated MLP, and the table of words as its head."""

    def __init__(self, fused: bool = False):
        super().__init__()
        self.heads, self.groups, self.size, self.fused = 4, 2, 6, fused
        self.table, self.norm1, self.norm2, self.last = (
            nn.Embedding(17, 16),
            RootMeanSquare(16),
            RootMeanSquare(16),
            RootMeanSquare(16),
        )
        self.q_proj, self.k_proj = nn.Linear(16, 24, bias=False), nn.Linear(16, 12, bias=False)
        self.v_proj, self.o_proj = nn.Linear(16, 12, bias=False), nn.Linear(24, 16, bias=False)
        if fused:
            self.gate_up = nn.Linear(16, 2 * 22, bias=False)
        else:
            self.gate_proj, self.up_proj = nn.Linear(16, 22, bias=False), nn.Linear(16, 22, bias=False)
        self.down_proj, self.lm_head = nn.Linear(22, 16, bias=False), nn.Linear(16, 17, bias=False)
        self.lm_head.weight = self.table.weight
        self.register_buffer("speeds", 1.0 / 100 ** (torch.arange(0, 6, 2) / 6), persistent=False)

    def forward(self, words):
        x = self.table(words)
        b, n, _ = x.shape
        angles = torch.outer(torch.arange(n, device=x.device, dtype=x.dtype), self.speeds)
        angles = torch.cat((angles, angles), -1)
        y = self.norm1(x)
        q = self.q_proj(y).view(b, n, self.heads, self.size).transpose(1, 2)
        k = self.k_proj(y).view(b, n, self.groups, self.size).transpose(1, 2)
        v = self.v_proj(y).view(b, n, self.groups, self.size).transpose(1, 2)
        q, k = turned(q, angles.cos(), angles.sin()), turned(k, angles.cos(), angles.sin())
        k, v = (t.repeat_interleave(self.heads // self.groups, dim=1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o_proj(y.transpose(1, 2).reshape(b, n, -1))
        y = self.norm2(x)
        if self.fused:
            gate, up = self.gate_up(y).chunk(2, -1)
        else:
            gate, up = self.gate_proj(y), self.up_proj(y)
        return self.lm_head(self.last(x + self.down_proj(F.silu(gate) * up)))


class Gpt(nn.Module):
    """nanoGPT: c_attn split by n_embd, GELU, tied head, a registered bias that masks."""

    def __init__(self, n_embd: int = 12, n_head: int = 3):
        super().__init__()
        self.n_head, self.n_embd = n_head, n_embd
        self.wte, self.wpe, self.drop = nn.Embedding(19, n_embd), nn.Embedding(8, n_embd), nn.Dropout(0.1)
        self.ln_1, self.ln_2, self.ln_f = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd, bias=False), nn.LayerNorm(n_embd)
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.c_fc, self.mlp_proj = nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)
        self.lm_head = nn.Linear(n_embd, 19, bias=False)
        self.wte.weight = self.lm_head.weight
        self.register_buffer("bias", torch.tril(torch.ones(8, 8)).view(1, 1, 8, 8))

    def forward(self, words):
        B, T = words.size()
        x = self.drop(self.wte(words) + self.wpe(torch.arange(T, device=words.device)))
        y = self.ln_1(x)
        q, k, v = self.c_attn(y).split(self.n_embd, dim=2)
        q, k, v = (t.view(B, T, self.n_head, self.n_embd // self.n_head).transpose(1, 2) for t in (q, k, v))
        weight = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        weight = F.softmax(weight.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf")), dim=-1)
        x = x + self.c_proj((weight @ v).transpose(1, 2).contiguous().view(B, T, self.n_embd))
        x = x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x))))
        return {"logits": self.lm_head(self.ln_f(x)), "loss": None}


class Translator(nn.Module):
    """torch's own encoder and decoder, one table for both languages and the head, sines as positions."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(15, 12, padding_idx=0)
        self.inner = nn.Transformer(12, 3, 1, 2, 20, 0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(12, 15)
        self.head.weight = self.table.weight
        place = torch.arange(10)[:, None] * torch.exp(torch.arange(0, 12, 2) * (-math.log(10000.0) / 12))
        self.register_buffer("sines", torch.stack([place.sin(), place.cos()], -1).flatten(1))

    def forward(self, source, target):
        a = self.table(source) * math.sqrt(12) + self.sines[: source.shape[1]]
        b = self.table(target) * math.sqrt(12) + self.sines[: target.shape[1]]
        future = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=a.dtype)
        return self.head(self.inner(a, b, tgt_mask=future, tgt_is_causal=True))


class Windows(nn.Module):
    """Swin: rolled, cut into windows, with a table of relative positions, and back."""

    def __init__(self, dim: int = 8, heads: int = 2, side: int = 4):
        super().__init__()
        self.heads, self.side = heads, side
        self.patch, self.norm1, self.qkv, self.proj = (
            nn.Conv2d(3, dim, 1),
            nn.LayerNorm(dim),
            nn.Linear(dim, 3 * dim),
            nn.Linear(dim, dim),
        )
        self.table = nn.Parameter(torch.randn((2 * side - 1) ** 2, heads) * 0.1)
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        places = torch.stack([y, x]).flatten(1)
        gap = (places[:, :, None] - places[:, None, :] + side - 1).permute(1, 2, 0)
        self.register_buffer("index", gap[..., 0] * (2 * side - 1) + gap[..., 1])
        self.norm2, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 18), nn.Linear(18, dim)
        self.merge, self.head = nn.Linear(4 * dim, 2 * dim, bias=False), nn.Linear(2 * dim, 3)

    def forward(self, image):
        x = self.patch(image).permute(0, 2, 3, 1)
        B, H, W, C = x.shape
        s = self.side
        y = torch.roll(self.norm1(x), (-2, -2), (1, 2))
        y = y.view(B, H // s, s, W // s, s, C).permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, s * s, C)
        q, k, v = self.qkv(y).reshape(-1, s * s, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(s * s, s * s, -1).permute(2, 0, 1)
        y = (
            (((q @ k.transpose(-2, -1)) / math.sqrt(q.size(-1)) + bias).softmax(-1) @ v)
            .transpose(1, 2)
            .reshape(-1, s * s, C)
        )
        y = self.proj(y).view(B, H // s, W // s, s, s, C).permute(0, 1, 3, 2, 4, 5).reshape(B, H, W, C)
        x = x + torch.roll(y, (2, 2), (1, 2))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.merge(x).mean((1, 2)))


class Linearised(nn.Module):
    """Linear attention: elu plus one, keys with values first."""

    def __init__(self):
        super().__init__()
        self.embed, self.q, self.k, self.v = nn.Linear(5, 10), nn.Linear(10, 12), nn.Linear(10, 12), nn.Linear(10, 14)
        self.o, self.head = nn.Linear(14, 10), nn.Linear(10, 3)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        both = torch.einsum("bnd,bne->bde", k, v)
        y = torch.einsum("bnd,bde->bne", q, both) / torch.einsum("bnd,bd->bn", q, k.sum(1))[..., None]
        return self.head((x + self.o(y)).mean(1))


class Latents(nn.Module):
    """Perceiver: learnt vectors ask the inputs, whose width is another, through torch's own attention with a mask."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(4, 12))
        self.enter = nn.Linear(5, 10)
        self.ask = nn.MultiheadAttention(12, 3, kdim=10, vdim=10, batch_first=True)
        self.self_attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.norm, self.up, self.down, self.head = (
            nn.LayerNorm(12),
            nn.Linear(12, 20),
            nn.Linear(20, 12),
            nn.Linear(12, 3),
        )

    def forward(self, x, length):
        x = self.enter(x).relu()
        z = self.latents.expand(len(x), -1, -1)
        hidden = torch.arange(x.shape[1])[None] >= (length.view(-1, 1) + 1)
        z = z + self.ask(z, x, x, key_padding_mask=hidden, need_weights=False)[0]
        z = z + self.self_attention(z, z, z)[0]
        return self.head((z + self.down(F.gelu(self.up(self.norm(z))))).mean(dim=1))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 10, 4, 4)
        self.norm1, self.norm2, self.norm = nn.LayerNorm(10), nn.LayerNorm(10), nn.LayerNorm(10)
        self.tokens = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.channels = nn.Sequential(nn.Linear(10, 20), nn.GELU(), nn.Linear(20, 10))
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.norm2(x))
        return self.head(self.norm(x).mean(1))


class Gmlp(nn.Module):
    """A spatial gate: one half is normalised and mixed over places, and multiplies the other."""

    def __init__(self):
        super().__init__()
        self.embed, self.up, self.norm = nn.Linear(5, 8), nn.Linear(8, 16), nn.LayerNorm(8)
        self.places, self.down, self.head = nn.Conv1d(6, 6, 1), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x)
        u, v = F.gelu(self.up(x)).chunk(2, dim=-1)
        return self.head((x + self.down(u * self.places(self.norm(v)))).mean(1))


class Masked(nn.Module):
    """A masked autoencoder: some patches are left out, come back as one learnt token in their places, and are made."""

    def __init__(self):
        super().__init__()
        self.embed, self.places = nn.Linear(6, 10), nn.Parameter(torch.randn(1, 8, 10))
        self.inside = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 10))
        self.to_decoder, self.token = nn.Linear(10, 7), nn.Parameter(torch.randn(1, 1, 7))
        self.decoder, self.predict = nn.Sequential(nn.Linear(7, 14), nn.GELU()), nn.Linear(14, 6)
        self.register_buffer("order", torch.tensor([3, 0, 6, 1, 7, 2, 5, 4]), persistent=False)

    def forward(self, x):
        x = self.embed(x) + self.places
        b, n, d = x.shape
        kept = x.gather(1, self.order[:4].view(1, 4, 1).expand(b, 4, d))
        kept = self.to_decoder(kept + self.inside(kept))
        every = torch.cat([kept, self.token.repeat(b, n - 4, 1)], 1)
        back = self.order.argsort()
        every = torch.gather(every, 1, back.view(1, -1, 1).repeat(b, 1, every.shape[2]))
        return self.predict(self.decoder(every)), every.mean()


class GroupedQueries(nn.Module):
    """Queries of a group share keys by one more dimension; heads are an einsum's letters, weights bare parameters."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(5, 12)
        self.wq, self.wk = nn.Parameter(torch.randn(12, 2, 2, 4) / 3), nn.Parameter(torch.randn(12, 2, 4) / 3)
        self.wv, self.wo = nn.Parameter(torch.randn(12, 2, 4) / 3), nn.Parameter(torch.randn(2, 2, 4, 12) / 3)
        self.up, self.head = nn.Linear(12, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.embed(x).tanh()
        q, k, v = (
            torch.einsum("bnc,cgrd->bngrd", x, self.wq),
            torch.einsum("bnc,cgd->bngd", x, self.wk),
            torch.einsum("bnc,cgd->bngd", x, self.wv),
        )
        weight = torch.einsum("bigrd,bjgd->bgrij", q, k).softmax(-1)
        y = torch.einsum("bgrij,bjgd->bigrd", weight, v)
        return self.head(self.up(x + torch.einsum("bngrd,grdc->bnc", y, self.wo)).relu())


ROW = (noise(7, 5),)
WRITTEN = {"channels of blocks.0.attention.qkv": "number or order", "channels of patch": "LayerNorm"}
LINEAR1 = "inner.encoder.layers.0.linear1 inner.decoder.layers.0.linear1 inner.decoder.layers.1.linear1"
TURNED = {"channels of q_proj": "whose size is fixed", "channels of v_proj": "number or order"}
CASES = {
    "vision transformer": Case(VisionTransformer, (noise(3, 8, 8),), "blocks.0.mlp.0 blocks.1.mlp.0", WRITTEN),
    "separate heads": Case(SeparateHeads, ROW, "embed o up"),
    "llama": Case(Llama, (whole(17, 6),), "gate_proj up_proj", TURNED),
    "llama, fused gate": Case(lambda: Llama(True), (whole(17, 6),), "gate_up", TURNED),
    "gpt": Case(Gpt, (whole(19, 6),), "c_fc", {"channels of c_attn": "number or order"}),
    "translator": Case(Translator, (whole(15, 6), whole(15, 5)), LINEAR1),
    "windows": Case(Windows, (noise(3, 8, 8),), "up merge", {"channels of patch": "LayerNorm"}),
    "linear attention": Case(Linearised, ROW, "embed v o", {"channels of q": "bmm", "channels of k": "bmm"}),
    "latents": Case(Latents, (noise(7, 5), whole(6)), "up"),
    "mixer": Case(Mixer, (noise(3, 8, 8),), "tokens.0 channels.0", {"channels of tokens.2": "fixed"}),
    "spatial gate": Case(Gmlp, (noise(6, 5),), "embed down", {"channels of up": "LayerNorm"}),
    "masked autoencoder": Case(Masked, (noise(8, 6),), "inside.0 decoder.0", {"channels of to_decoder": "mean"}),
    "grouped queries": Case(GroupedQueries, ROW, "up"),
}
