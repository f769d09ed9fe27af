"""Layers of the action head: a diffusion transformer, and what each embodiment has for itself.

The transformer is GR00T N1's (arXiv 2503.14734): blocks alternate between attending to the context and among the states
and actions themselves; the flow time scales and shifts what an attention reads (adaLN of DiT, arXiv 2212.09748, without
gates). Unlike there, masks reach every attention, and a context has one learned token that is always valid, so that no
attention is without anything to attend to.

Where one flow time holds for all samples, as in sampling, its modulation has one row and is shared by the batch.

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


def sinusoidal_code(times: Tensor, width: int) -> Tensor:
    """Code of flow times: (n,) in [0, 1] -> (n, width): sines, then cosines, of falling frequency. `width` is even."""
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = TIME_STEPS * times[:, None] * torch.exp(index * (-math.log(MAX_PERIOD) / half))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Attention(nn.Module):
    """Multi-head attention; keys and values are made by themselves, so that those of a fixed context are made once."""

    def __init__(self, width: int, heads: int, source_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(source_width, 2 * width)
        self.output = nn.Linear(width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, source: Tensor) -> KeysValues:
        """Of source tokens (B, L, source_width)."""
        keys, values = self.key_value(source).chunk(2, dim=-1)
        return self._split(keys), self._split(values)

    def forward(self, x: Tensor, source: KeysValues, mask: Tensor | None) -> Tensor:
        """Attend from tokens (B, T, D). Keys and values may have one row for all samples, and so may the mask.

        mask: (B, 1, 1, L) bool, True where a token may be attended to; every row has one. None: all may.
        """
        keys, values = (part.expand(x.shape[0], -1, -1, -1) for part in source)
        attended = F.scaled_dot_product_attention(self._split(self.query(x)), keys, values, attn_mask=mask)
        return self.output(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and a feed-forward layer, each with a residual around it."""

    def __init__(self, width: int, heads: int, feedforward: int, context_width: int | None) -> None:
        """context_width: of the tokens that it attends to; None: it attends to its own."""
        super().__init__()
        self.cross = context_width is not None
        self.attention_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = Attention(width, heads, width if context_width is None else context_width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, feedforward * width), nn.GELU(approximate="tanh"), nn.Linear(feedforward * width, width)
        )

    def forward(self, x: Tensor, modulation: Tensor, source: KeysValues | None, mask: Tensor | None) -> Tensor:
        """(B, T, D) -> (B, T, D). modulation: (B or 1, 2, D). source: keys and values of the context, or None."""
        read = modulated(self.attention_norm(x), modulation)
        x = x + self.attention(read, self.attention.keys_values(read) if source is None else source, mask)
        return x + self.feedforward(self.feedforward_norm(x))


def modulated(x: Tensor, modulation: Tensor) -> Tensor:
    """Scaled and shifted tokens (B, T, D); modulation (B or 1, 2, D) is 1 less than the scale, and the shift."""
    return x * (1.0 + modulation[:, None, 0]) + modulation[:, None, 1]


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
        self.norm = nn.LayerNorm(width, elementwise_affine=False)

    def modulations(self, time_code: Tensor) -> Tensor:
        """Of time codes (n, D): (n, blocks + 1, 2, D)."""
        return self.modulation(self.time(time_code)).unflatten(-1, (self.depth + 1, 2, self.width))

    def read_context(self, context: Tensor, mask: Tensor) -> tuple[list[KeysValues], Tensor]:
        """What the blocks need of a context, made once a chunk: keys and values of each block that attends to it, and
        the mask of its attention. context: (B, L, C), finite also where masked. mask: (B, L)."""
        null = self.null_context.expand(context.shape[0], -1, -1)
        tokens = torch.cat([null, self.context_norm(context)], dim=1)
        sources = [block.attention.keys_values(tokens) for block in self.blocks if block.cross]
        always = mask.new_ones(mask.shape[0], 1)
        return sources, torch.cat([always, mask], dim=1)[:, None, None, :]

    def forward(
        self, x: Tensor, modulations: Tensor, context: tuple[list[KeysValues], Tensor], mask: Tensor | None
    ) -> Tensor:
        """State and action tokens (B, T, D) -> (B, T, D).

        modulations: (B or 1, blocks + 1, 2, D). mask: (B, T), which tokens are valid; every row has one. None: all.
        """
        sources, context_mask = context
        own_mask = None if mask is None else mask[:, None, None, :]
        remaining = iter(sources)
        for number, block in enumerate(self.blocks):
            if block.cross:
                x = block(x, modulations[:, number], next(remaining), context_mask)
            else:
                x = block(x, modulations[:, number], None, own_mask)
        return modulated(self.norm(x), modulations[:, self.depth])


class ActionEncoder(nn.Module):
    """Actions and their flow time as tokens, as in GR00T: a linear layer, the time's code beside it, swish, another."""

    def __init__(self, action_size: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Linear(action_size, width)
        self.mix = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, width)

    def forward(self, actions: Tensor, time_code: Tensor) -> Tensor:
        """(B, H, A) and time codes (B or 1, D) -> (B, H, D)."""
        times = time_code[:, None].expand(actions.shape[0], actions.shape[1], -1)
        return self.output(F.silu(self.mix(torch.cat([self.embed(actions), times], dim=-1))))


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
