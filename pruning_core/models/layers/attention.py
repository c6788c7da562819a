"""Attention whose heads can be cut out: queries, keys, values and outputs have layers of their own.

torch keeps the three input projections of ``nn.MultiheadAttention`` in one matrix and the number of heads beside it, so
that no head can be removed. :func:`prunable_attention` converts such layers in a network.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.checks import Maybe, Whole, check, checked
from pruning_core.errors import BadInput, BadType


@checked
class PrunableAttention(nn.Module):
    """Multi-head attention, called like ``nn.MultiheadAttention``, with linear layers ``q``, ``k``, ``v`` and ``out``.

    With heads numbered from 0, head h owns the rows ``h * head_dim`` to ``(h + 1) * head_dim - 1`` of ``q``, ``k`` and
    ``v``, and the same columns of ``out``. How many heads there are follows from these layers, so that cutting rows and
    columns is all that it takes to remove a head.

    ``embed_dim`` is the size of a query and of the output, ``kdim`` and ``vdim`` those of a key and a value (default:
    the same). ``head_dim`` defaults to ``embed_dim / num_heads``. ``dropout`` acts on the attention weights, in training
    only. Raises BadInput for sizes below 1, and where ``head_dim`` is left open and ``num_heads`` does not divide
    ``embed_dim``.

    >>> attention = PrunableAttention(8, 2, batch_first=True)
    >>> x = torch.zeros(1, 5, 8)
    >>> attention(x, x, x)[0].shape
    torch.Size([1, 5, 8])
    """

    # What torch's encoder layers look at before they take a fused path, which needs all projections in one matrix.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    q: Any  # linear layers; methods with gates wrap them for a while
    k: Any
    v: Any
    out: Any

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        head_dim: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        sizes = {"embed_dim": embed_dim, "num_heads": num_heads, "kdim": kdim, "vdim": vdim, "head_dim": head_dim}
        for name, size in sizes.items():
            check(name, size, Maybe(Whole(at_least=1)))
        if head_dim is None and embed_dim % num_heads:
            raise BadInput(f"embed_dim {embed_dim} is not a multiple of {num_heads} heads; give head_dim.")
        self.head_dim = head_dim or embed_dim // num_heads
        self.dropout, self.batch_first = dropout, batch_first
        inner = num_heads * self.head_dim
        self.q = nn.Linear(embed_dim, inner, bias, device, dtype)
        self.k = nn.Linear(kdim or embed_dim, inner, bias, device, dtype)
        self.v = nn.Linear(vdim or embed_dim, inner, bias, device, dtype)
        self.out = nn.Linear(inner, embed_dim, bias, device, dtype)

    @classmethod
    def from_torch(cls, attention: nn.MultiheadAttention) -> PrunableAttention:
        """The same attention with copies of the weights; device, dtype, mode and ``requires_grad`` are kept.

        Raises BadType for anything but an ``nn.MultiheadAttention`` (a subclass may compute something else), BadInput
        for one with ``add_bias_kv`` or ``add_zero_attn``.
        """
        if type(attention) is not nn.MultiheadAttention:
            raise BadType(f"an nn.MultiheadAttention can be converted, not {type(attention).__name__}.")
        if attention.bias_k is not None or attention.bias_v is not None:
            raise BadInput("attention with add_bias_kv=True cannot be converted: its extra token belongs to no head.")
        if attention.add_zero_attn:
            raise BadInput("attention with add_zero_attn=True cannot be converted: its extra token belongs to no head.")
        converted = cls(
            attention.embed_dim, attention.num_heads, attention.dropout, kdim=attention.kdim, vdim=attention.vdim,
            batch_first=attention.batch_first, device="meta",
        )  # fmt: skip
        with torch.enable_grad():  # a part of what is trained is trained
            apart = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
            weights = apart if attention.in_proj_weight is None else attention.in_proj_weight.chunk(3)
            biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        layers, last = (converted.q, converted.k, converted.v, converted.out), attention.out_proj
        for layer, weight, bias in zip(layers, (*weights, last.weight), (*biases, last.bias), strict=True):
            layer.weight, layer.bias = _own(weight), None if bias is None else _own(bias)
        return converted.train(attention.training)

    @property
    def num_heads(self) -> int:
        """How many heads are left."""
        return getattr(self.q, "layer", self.q).out_features // self.head_dim

    @property
    def embed_dim(self) -> int:
        """Size of the output."""
        return getattr(self.out, "layer", self.out).out_features

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output, and the attention weights if they are wanted.

        Args:
            query: (N, L, E) if ``batch_first``, else (L, N, E); (L, E) without a batch.
            key, value: likewise, with S tokens in place of L, and their own last sizes.
            key_padding_mask: (N, S), or (S,) without a batch; True, or -inf, hides a key from every query.
            need_weights: whether to return the weights; without them a fused kernel does the work.
            attn_mask: (L, S), or (N * heads, L, S) with one matrix a head; True, or -inf, hides a key from a query.
            average_attn_weights: whether the weights are averaged over the heads.
            is_causal: a hint that ``attn_mask`` is causal, as in torch; the mask itself must be given, and it decides.

        Returns:
            The output, of the shape of ``query``, and the weights (N, L, S), or (N, heads, L, S) if they are not
            averaged, without N where there is no batch; None in place of the weights if they are not needed.

        Raises:
            BadInput: inputs that are not all two- or all three-dimensional, masks of other shapes or types, or
                ``is_causal`` without ``attn_mask``.
        """
        if query.dim() not in (2, 3) or not query.dim() == key.dim() == value.dim():
            raise BadInput(
                "query, key and value must all be of 2 or all of 3 dimensions, "
                f"not {query.dim()}, {key.dim()} and {value.dim()}."
            )
        if is_causal and attn_mask is None:
            raise BadInput("is_causal is a hint about attn_mask, which must be given too.")
        batched = query.dim() == 3
        if not batched:
            query, key, value = query[None], key[None], value[None]
            key_padding_mask = None if key_padding_mask is None else key_padding_mask[None]
        elif not self.batch_first:
            query, key, value = query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1)
        q, k, v = self._heads(self.q(query)), self._heads(self.k(key)), self._heads(self.v(value))
        mask = _additive_mask(attn_mask, key_padding_mask, q, k)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)
            weights = F.dropout((scores if mask is None else scores + mask).softmax(-1), dropout)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out(mixed.transpose(1, 2).flatten(2))
        if not batched:
            return output[0], None if weights is None else weights[0]
        return output if self.batch_first else output.transpose(0, 1), weights

    def _heads(self, projected: Tensor) -> Tensor:
        """(N, T, heads * head_dim) -> (N, heads, T, head_dim)."""
        return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def extra_repr(self) -> str:
        return f"{self.num_heads} heads of {self.head_dim}, batch_first={self.batch_first}, dropout={self.dropout}"


@checked
def prunable_attention(model: nn.Module) -> nn.Module:
    """Replace every ``nn.MultiheadAttention`` in ``model`` by a :class:`PrunableAttention`, in place; returns the network.

    The outputs stay the same; weights are copied, and device, dtype, mode and ``requires_grad`` are kept. An optimizer
    made before must be made anew, and hooks on the replaced layers are lost. A network that is itself an
    ``nn.MultiheadAttention`` is returned converted. ``nn.TransformerEncoder`` no longer packs padded inputs, so its
    outputs at padded tokens are what they are in training mode, in place of zeros.

    Raises BadType for anything but a network, and BadInput, with the network left as it was, if it holds no
    such layer, or one that cannot be converted.

    >>> layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16)
    >>> prunable_attention(layer).self_attn.num_heads
    2
    """
    if not isinstance(model, nn.Module):
        raise BadType(f"the network must be a torch.nn.Module, not {type(model).__name__}.")
    if isinstance(model, nn.MultiheadAttention):
        return PrunableAttention.from_torch(model)
    converted: dict[nn.Module, PrunableAttention] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            try:
                converted[module] = PrunableAttention.from_torch(module)
            except (BadInput, BadType) as error:
                raise BadInput(f"{name!r}: {error}") from None
    if not converted:
        raise BadInput(f"{type(model).__name__} holds no nn.MultiheadAttention that could be converted.")
    for module in list(model.modules()):
        # Not named_children(), which leaves out the second name of a layer that is used twice.
        for name, child in list(module._modules.items()):
            if child in converted:
                setattr(module, name, converted[child])
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return model


def _own(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone(memory_format=torch.contiguous_format), tensor.requires_grad)


def _additive_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """One mask to be added to the scores of queries (N, heads, L, D) and keys (N, heads, S, D); None without masks."""
    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    mask = None
    if attn_mask is not None:
        one, each = (queries, keys), (batch * heads, queries, keys)
        if attn_mask.shape not in (one, each):
            raise BadInput(f"attn_mask must have shape {one} or {each}, not {tuple(attn_mask.shape)}.")
        mask = _additive(attn_mask, "attn_mask", q.dtype)
        mask = mask.view(batch, heads, queries, keys) if mask.dim() == 3 else mask
    if key_padding_mask is not None:
        if key_padding_mask.shape != (batch, keys):
            raise BadInput(f"key_padding_mask must have shape {(batch, keys)}, not {tuple(key_padding_mask.shape)}.")
        padding = _additive(key_padding_mask, "key_padding_mask", q.dtype)[:, None, None]
        mask = padding if mask is None else mask + padding
    return mask


def _additive(mask: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
    if not mask.is_floating_point():
        raise BadInput(f"{name} must hold bools or floating-point numbers, not {mask.dtype}.")
    return mask.to(dtype)
