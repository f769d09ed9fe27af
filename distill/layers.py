"""Layers of the action head: a diffusion transformer, and what each embodiment has for itself.

The transformer is GR00T N1's (arXiv 2503.14734): blocks alternate between attending to the context and among the states
and actions themselves; the flow time scales and shifts what an attention reads (adaLN of DiT, arXiv 2212.09748, without
gates). Unlike there, masks reach every attention, and a context has one learned token that is always valid, so that no
attention is without anything to attend to.

Where one flow time holds for all samples, as in sampling, its scale and shift are the weight and bias of a norm. At
batch 1 much of a sampler's time goes into starting operations, so that there are few of them: see benchmarks/head.py.

Knows nothing of flows, losses, padding sizes or units.

Axes: B batch, T state and action tokens, L context tokens, H action horizon, D width, A action, C context width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_PERIOD = 10_000.0
"""Longest period of the sinusoidal codes, over 2 pi (arXiv 1706.03762)."""
TIME_STEPS = 1000.0
"""Flow time 1 is 1000 in the code's units, as diffusion models count their steps."""
KeysValues = tuple[Tensor, Tensor]
"""Keys and values (B, heads, L, D / heads)."""
Modulation = tuple[Tensor, Tensor]
"""Scale and shift of normalised tokens: (D,) for all samples, or (B, 1, D)."""


def sinusoidal_code(times: Tensor, width: int) -> Tensor:
    """Code of flow times: (n,) in [0, 1] -> (n, width): sines, then cosines, of falling frequency. `width` is even."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = TIME_STEPS * times[:, None] * torch.exp(index * (-math.log(MAX_PERIOD) / half))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention, to a source or to the tokens themselves. Of a source, keys and values are made by
    themselves, so that those of a fixed context are made once; of the tokens, all three in one product."""

    def __init__(self, width: int, heads: int, source_width: int | None) -> None:
        """source_width: of the source's tokens; None: it attends to its own."""
        super().__init__()
        self.heads = heads
        if source_width is None:
            self.query_key_value = nn.Linear(width, 3 * width)
        else:
            self.query = nn.Linear(width, width)
            self.key_value = nn.Linear(source_width, 2 * width)
        self.output = nn.Linear(width, width)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, T, parts x D) -> parts times (B, heads, T, D / heads)."""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def keys_values(self, source: Tensor) -> KeysValues:
        """Of source tokens (B, L, source_width)."""
        keys, values = self._split(self.key_value(source), 2)
        return keys, values

    def forward(self, x: Tensor, source: KeysValues | None, mask: Tensor | None) -> Tensor:
        """Attend from tokens (B, T, D). Keys and values may have one row for all samples, and so may the mask.

        source: keys and values; None: the tokens' own. mask: (B, 1, 1, L) bool, True where a token may be attended to,
        or what is added to the scores; every row has one. None: all may.
        """
        if source is None:
            queries, keys, values = self._split(self.query_key_value(x), 3)
        else:
            queries = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            keys, values = (part.expand(x.shape[0], -1, -1, -1) for part in source)
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.output(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a feed-forward layer, each with a residual around it."""

    def __init__(self, width: int, heads: int, feedforward: int, context_width: int | None) -> None:
        """context_width: of the tokens that it attends to; None: it attends to its own."""
        super().__init__()
        self.cross = context_width is not None
        self.attention = Attention(width, heads, context_width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward * width), nn.GELU(approximate="tanh"), nn.Linear(feedforward * width, width)
        )

    def forward(
        self, x: Tensor, modulation: Modulation | None, source: KeysValues | None, mask: Tensor | None
    ) -> Tensor:
        """(B, T, D) -> (B, T, D). source: keys and values of the context, or None."""
        x = x + self.attention(modulated_norm(x, modulation), source, mask)
        return x + self.feedforward(self.feedforward_norm(x))


def modulated_norm(x: Tensor, modulation: Modulation | None) -> Tensor:
    """Normalised tokens (B, T, D), scaled and shifted; None: only normalised."""
    size = x.shape[-1:]
    if modulation is None:
        return F.layer_norm(x, size)
    scale, shift = modulation
    if scale.ndim == 1:  # then it is what a norm's own weights are
        return F.layer_norm(x, size, scale.to(x.dtype), shift.to(x.dtype))  # autocast makes them of another one
    return torch.addcmul(shift, F.layer_norm(x, size), scale)


class Trunk(nn.Module):
    """The transformer that all embodiments share."""

    def __init__(self, width: int, layers: int, heads: int, feedforward: int, context_width: int) -> None:
        super().__init__()
        self.width, self.depth = width, layers
        self.null_context = nn.Parameter(0.02 * torch.randn(1, 1, context_width))
        self.context_norm = nn.LayerNorm(context_width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        # One matrix for the modulation of all blocks and of the last norm: one product for all steps of a sampler.
        self.modulation = nn.Linear(width, (layers + 1) * 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.blocks = nn.ModuleList(
            Block(width, heads, feedforward, context_width if number % 2 == 0 else None) for number in range(layers)
        )

    def modulations(self, time_codes: Tensor, shared: bool) -> list[list[Modulation]]:
        """How all blocks, and behind them the last norm, are modulated at each of some times.

        time_codes: (n, D). shared: n times that each hold for all samples, n lists, parts of (D,). Else the n samples'
        own times, one list, parts of (n, 1, D).
        """
        found = self.modulation(self.time(time_codes)).unflatten(-1, (self.depth + 1, 2, self.width))
        scales, shifts = 1.0 + found[:, :, 0], found[:, :, 1]
        if not shared:
            return [list(zip(scales[:, :, None].unbind(1), shifts[:, :, None].unbind(1), strict=True))]
        each = zip(scales.unbind(0), shifts.unbind(0), strict=True)
        return [list(zip(scale.unbind(0), shift.unbind(0), strict=True)) for scale, shift in each]

    def read_context(self, context: Tensor, mask: Tensor) -> tuple[list[KeysValues], Tensor]:
        """What the blocks need of a context, made once a chunk: keys and values of each block that attends to it, and
        the mask of its attention. context: (B, L, C), finite also where masked. mask: (B, L)."""
        null = self.null_context.expand(context.shape[0], -1, -1)
        tokens = torch.cat([null, self.context_norm(context)], dim=1)
        sources = [block.attention.keys_values(tokens) for block in self.blocks if block.cross]
        always = mask.new_ones(mask.shape[0], 1)
        return sources, _scores(torch.cat([always, mask], dim=1), tokens.dtype)

    def forward(
        self,
        x: Tensor,
        modulations: list[Modulation],
        context: tuple[list[KeysValues], Tensor],
        mask: Tensor | None,
    ) -> Tensor:
        """State and action tokens (B, T, D) -> (B, T, D).

        mask: (B, T), which tokens are valid; every row has one. None: all.
        """
        sources, context_mask = context
        own_mask = None if mask is None else _scores(mask, x.dtype)
        remaining = iter(sources)
        for block, modulation in zip(self.blocks, modulations, strict=False):
            if block.cross:
                x = block(x, modulation, next(remaining), context_mask)
            else:
                x = block(x, modulation, None, own_mask)
        return modulated_norm(x, modulations[self.depth])


def _scores(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores (B, 1, 1, L): nothing where the mask (B, L) is True, else minus infinity."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -math.inf)[:, None, None, :]


class ActionEncoder(nn.Module):
    """Actions and their flow time as tokens, as in GR00T: a linear layer, the time's code beside it, swish, another.

    Nothing stands between the first two products, so that they are carried out as one, and the time's part of the
    second once for each time, not for each action.
    """

    def __init__(self, action_size: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(action_size, width)
        self.mix = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, width)

    def folded(self, time_codes: Tensor) -> tuple[Tensor, Tensor]:
        """The first two products as one: its weight (D, A), and its bias (n, D) at times of codes (n, D)."""
        actions, times = self.mix.weight.chunk(2, dim=1)
        bias = self.mix.bias + actions @ self.embed.bias
        return actions @ self.embed.weight, F.linear(time_codes, times, bias)

    def forward(self, actions: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, H, A) -> (B, H, D). bias: (D,), or each sample's own (B, 1, D)."""
        hidden = F.linear(actions, weight, bias) if bias.ndim == 1 else F.linear(actions, weight) + bias
        return self.output(F.silu(hidden))


class Adapter(nn.Module):
    """All weights that one embodiment has for itself, at its own sizes."""

    def __init__(self, state_size: int, action_size: int, width: int, state_hidden: int, decoder_hidden: int) -> None:
        super().__init__()
        self.state_encoder = nn.Sequential(
            nn.Linear(state_size, state_hidden), nn.ReLU(), nn.Linear(state_hidden, width)
        )
        self.action_encoder = ActionEncoder(action_size, width)
        self.action_decoder = nn.Sequential(
            nn.Linear(width, decoder_hidden), nn.ReLU(), nn.Linear(decoder_hidden, action_size)
        )
