"""What goes into a head: observations and demonstrated chunks of ONE embodiment, and batches that mix embodiments.

The head computes one embodiment at a time, at that embodiment's sizes: no weight is gathered for each sample, and no
padded number is multiplied by anything. A mixed batch, as loaders make it, is padded to the largest sizes; `split`
takes it apart and `merge` puts results back in its order. Nothing given here is ever changed.

Masks are bool, True where valid. None: all valid. Padding may hold anything, also NaN.

Axes: B batch, T history (oldest first, the present last), S state, H action horizon, A action, L context tokens,
C context width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.embodiments import EmbodimentTable
from tasks.errors import UserError


@dataclass(frozen=True)
class Observation:
    """What a head is shown."""

    state: Tensor
    """(B, T, S) in the embodiment's units; the last of T is the present one and always valid."""
    context: Tensor
    """Context tokens (B, L, C); (1, L, C) where all samples share them."""
    context_mask: Tensor | None = None
    """(B, L) or (1, L): which tokens are valid."""
    state_mask: Tensor | None = None
    """(B, T): which states are valid; an episode's first steps have no past."""

    def rows(self, rows: Tensor) -> Observation:
        """The samples `rows` (int64) of it; a shared context stays shared."""
        shared = len(self.context) == 1 and len(self.state) != 1
        context_mask = self.context_mask
        return Observation(
            state=self.state[rows],
            context=self.context if shared else self.context[rows],
            context_mask=context_mask if context_mask is None or len(context_mask) == 1 else context_mask[rows],
            state_mask=None if self.state_mask is None else self.state_mask[rows],
        )


@dataclass(frozen=True)
class Demonstration:
    """What a head is shown, and what an expert does."""

    observation: Observation
    """What is seen."""
    actions: Tensor
    """(B, H, A) in the embodiment's units: the chunk that starts now."""
    action_mask: Tensor | None = None
    """(B, H): which steps are valid; an episode's last chunks are cut short."""

    def rows(self, rows: Tensor) -> Demonstration:
        """The samples `rows` (int64) of it."""
        mask = self.action_mask
        return Demonstration(self.observation.rows(rows), self.actions[rows], None if mask is None else mask[rows])


@dataclass(frozen=True)
class MixedBatch:
    """Samples of several embodiments, padded to common sizes."""

    places: Tensor
    """(B,) int64: each sample's embodiment, by its place in the table."""
    demonstration: Demonstration
    """The samples; what goes beyond an embodiment's own sizes is padding."""


def split(batch: MixedBatch, table: EmbodimentTable) -> dict[str, tuple[Tensor, Demonstration]]:
    """Embodiment -> its rows in the batch (int64) and its samples, in the table's order; only those that are there.

    Raises UserError for a place that the table does not have.
    """
    places = batch.places
    found = [int(place) for place in places.unique()]
    if places.dtype != torch.int64 or places.ndim != 1 or (found and not 0 <= found[0] <= found[-1] < len(table)):
        raise UserError(
            f"places of a mixed batch are {places.dtype} {tuple(places.shape)} with values {found[:8]}; expected int64 "
            f"(B,) from 0 to {len(table) - 1}, the embodiments {', '.join(table.names)}."
        )
    parts = {}
    for place in found:
        rows = (places == place).nonzero()[:, 0]
        parts[table.names[place]] = (rows, batch.demonstration.rows(rows))
    return parts


def merge(parts: Mapping[str, tuple[Tensor, Tensor]], size: int) -> tuple[Tensor, Tensor]:
    """Chunks of the embodiments of a mixed batch, in its order.

    Args:
        parts: Embodiment -> its rows in the batch and its chunks (b, h, a); not empty.
        size: Samples B of the batch.

    Returns:
        Chunks (B, H, A), with zeros where there is nothing, and a mask (B, H, A) of what there is.
    """
    chunks = [chunk for _, chunk in parts.values()]
    shape = (size, max(c.shape[1] for c in chunks), max(c.shape[2] for c in chunks))
    merged = chunks[0].new_zeros(shape)
    mask = torch.zeros(shape, dtype=torch.bool, device=merged.device)
    for rows, chunk in parts.values():
        merged[rows, : chunk.shape[1], : chunk.shape[2]] = chunk
        mask[rows, : chunk.shape[1], : chunk.shape[2]] = True
    return merged, mask
