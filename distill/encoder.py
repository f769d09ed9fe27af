"""Instructions and images as context tokens: the protocol, and the embedded encoder that is trained with the head.

The embedded encoder gives one token a word (the mean of its pieces' embeddings, `distill.words`) and one a patch of the
image, and lets a small transformer go over both. It sees what an instruction says word by word: sentence embeddings
separate commands badly. A vision-language model behind the same protocol is in `distill.vlm`.

Knows nothing of embodiments or of the head, which attends to the tokens.

Axes: B batch, L context tokens, W words, P patches, C width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from distill.config import EncoderConfig
from distill.layers import Block
from distill.words import split_words, word_pieces
from tasks.errors import UserError


class ContextEncoder(Protocol):
    """What turns instructions and images into context tokens."""

    width: int
    """Width C of a token: the head's context_width."""

    def __call__(self, instructions: Sequence[str], images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) and a bool mask (B, L) of the valid ones.

        images: (B, 3, height, width), uint8, or float from 0 to 1; None: there are none. Raises UserError for what it
        cannot take.
        """
        ...


class ScratchEncoder(nn.Module):
    """Word pieces and patches: the embedded `ContextEncoder`."""

    def __init__(self, config: EncoderConfig, seed: int = 0) -> None:
        """Initial weights depend on config and seed alone."""
        super().__init__()
        self.config = config
        self.width = config.width
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.pieces = nn.EmbeddingBag(config.buckets, config.width, mode="mean")
            self.word_position = nn.Parameter(0.02 * torch.randn(1, config.words, config.width))
            self.patches = None
            if config.image_size:
                patches = (config.image_size // config.patch_size) ** 2
                self.patches = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
                self.patch_position = nn.Parameter(0.02 * torch.randn(1, patches, config.width))
            self.blocks = nn.ModuleList(Block(config.width, config.heads, 4, None) for _ in range(config.layers))

    def forward(self, instructions: Sequence[str], images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) and mask (B, L); L is `words`, and the number of patches more where there are images.

        An instruction's tokens do not depend on the others in the batch. Raises UserError for an instruction with too
        many words, and for images of another shape, or where the encoder was made without images.
        """
        if images is not None:
            words, mask = self._words(instructions)
            patches = self._patches(images, len(instructions))
            valid = mask.new_ones(patches.shape[:2])
            return self._mix(torch.cat([words, patches], dim=1), torch.cat([mask, valid], dim=1))
        # Few instructions are told to many worlds: each is read once.
        distinct = list(dict.fromkeys(instructions))
        number = {instruction: row for row, instruction in enumerate(distinct)}
        tokens, mask = self._mix(*self._words(distinct))
        rows = torch.tensor([number[instruction] for instruction in instructions], device=tokens.device)
        return tokens[rows], mask[rows]

    def _words(self, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Word tokens (B, W, C), zeros where there is no word, and their mask (B, W)."""
        config, device = self.config, self.word_position.device
        pieces: list[int] = []
        begins: list[int] = []
        mask = torch.zeros(len(instructions), config.words, dtype=torch.bool)
        for row, instruction in enumerate(instructions):
            words = split_words(instruction, config.words)
            mask[row, : len(words)] = True
            for word in words:
                begins.append(len(pieces))
                pieces.extend(word_pieces(word, config.buckets))
        mask = mask.to(device)
        tokens = self.word_position.new_zeros(len(instructions), config.words, config.width)
        if pieces:
            words = self.pieces(torch.tensor(pieces, device=device), torch.tensor(begins, device=device))
            tokens = tokens.masked_scatter(mask[:, :, None], words)
        return torch.where(mask[:, :, None], tokens + self.word_position, tokens), mask

    def _patches(self, images: Tensor, size: int) -> Tensor:
        """Patch tokens (B, P, C)."""
        edge = self.config.image_size
        if self.patches is None:
            raise UserError("the encoder was made without images: set encoder.image_size, or give none.")
        if tuple(images.shape) != (size, 3, edge, edge):
            raise UserError(f"images have shape {tuple(images.shape)}, expected ({size}, 3, {edge}, {edge}).")
        pixels = images / 255.0 if images.dtype == torch.uint8 else images
        return self.patches(2.0 * pixels - 1.0).flatten(2).transpose(1, 2) + self.patch_position

    def _mix(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        # An instruction without a word has nothing to attend to; its tokens are masked whatever they become.
        attended = mask | ~mask.any(dim=1, keepdim=True)
        for block in self.blocks:
            tokens = block(tokens, None, None, attended[:, None, None, :])
        return tokens, mask
