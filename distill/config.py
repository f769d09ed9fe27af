"""What an action head and its instruction encoder are told: frozen dataclasses, presets, and JSON both ways.

Sizes: `toy` for tests, `tiny` for a CPU, `base` for a workstation, `n1` with the sizes of GR00T N1 (16 layers x 1536 in
32 heads, 4 sampling steps; arXiv 2503.14734 and its public code). Every value that cannot work is refused here with one
line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rl.config import check_types, choice, complete_fields, need, refuse_unknown
from tasks.errors import UserError

OBJECTIVES = ("flow", "regression")


@dataclass(frozen=True)
class HeadConfig:
    """The action head: one transformer that all embodiments share."""

    objective: str = "flow"
    """"flow": flow matching, sampled in a few Euler steps; "regression": the chunk itself, by L1, in one step."""
    width: int = 128
    """Width D of the transformer."""
    layers: int = 4
    """Blocks: the 1st, 3rd, ... attend to the context, the 2nd, 4th, ... to states and actions."""
    heads: int = 4
    """Attention heads; they share the width."""
    feedforward: int = 4
    """Width of a block's hidden layer over D."""
    horizon: int = 16
    """Actions of the longest chunk of any embodiment."""
    history: int = 4
    """Observations of the longest history of any embodiment."""
    context_width: int = 128
    """Width of a context token."""
    context_tokens: int = 24
    """Most valid context tokens of a sample; shorter contexts are filled up with masked tokens."""
    state_hidden: int = 256
    """Hidden width of each embodiment's state encoder."""
    decoder_hidden: int = 128
    """Hidden width of each embodiment's action decoder."""
    sampling_steps: int = 4
    """Euler steps from noise to actions, where the caller says nothing else."""
    time_alpha: float = 1.5
    """Flow times in training are (1 - u) time_scale with u ~ Beta(time_alpha, 1): noisy times come oftener."""
    time_scale: float = 0.999
    """Largest flow time in training."""
    state_clip: float = 10.0
    """Normalised states are cut to this far from 0 on either side."""
    state_noise: float = 0.0
    """Standard deviation of the noise on normalised states, in training alone."""

    def __post_init__(self) -> None:
        check_types(self, "head.")
        choice("head.objective", self.objective, OBJECTIVES)
        need(self, "head.", "a whole number of at least 1", lambda v: v >= 1,
             "width", "heads", "feedforward", "horizon", "history", "context_width", "context_tokens", "state_hidden",
             "decoder_hidden", "sampling_steps")  # fmt: skip
        need(self, "head.", "a whole number of at least 2: one block for the context, one for the actions",
             lambda v: v >= 2, "layers")  # fmt: skip
        need(self, "head.", "a number above 0", lambda v: v > 0, "time_alpha", "state_clip")
        need(self, "head.", "a number above 0 and at most 1", lambda v: 0 < v <= 1, "time_scale")
        need(self, "head.", "a number of at least 0", lambda v: v >= 0, "state_noise")
        _heads_fit(self, "head.")


@dataclass(frozen=True)
class EncoderConfig:
    """The embedded encoder of instructions and images, trained with the head."""

    width: int = 128
    """Width of a token: the head's context_width."""
    layers: int = 1
    """Transformer blocks over words and patches; 0: each token by itself."""
    heads: int = 4
    """Attention heads of a block."""
    words: int = 24
    """Most words of an instruction."""
    buckets: int = 4096
    """Embeddings that word pieces share by their hash."""
    image_size: int = 0
    """Height and width of an image in pixels; 0: no images."""
    patch_size: int = 16
    """Height and width of a patch in pixels."""

    def __post_init__(self) -> None:
        check_types(self, "encoder.")
        need(self, "encoder.", "a whole number of at least 1", lambda v: v >= 1,
             "width", "heads", "words", "buckets", "patch_size")  # fmt: skip
        need(self, "encoder.", "a whole number of at least 0", lambda v: v >= 0, "layers", "image_size")
        _heads_fit(self, "encoder.")
        if self.image_size % self.patch_size:
            raise UserError(
                f"encoder.image_size is {self.image_size}, expected a multiple of patch_size, {self.patch_size}."
            )

    @property
    def tokens(self) -> int:
        """Most tokens of a sample: words and patches."""
        return self.words + (self.image_size // self.patch_size) ** 2


def _heads_fit(config: HeadConfig | EncoderConfig, prefix: str) -> None:
    if config.width % (2 * config.heads):
        raise UserError(
            f"{prefix}width is {config.width}, expected a multiple of twice its {config.heads} heads: change one."
        )


HEADS: dict[str, HeadConfig] = {
    "toy": HeadConfig(width=32, layers=2, heads=2, horizon=8, context_width=32, context_tokens=16, state_hidden=32,
                      decoder_hidden=32),
    "tiny": HeadConfig(),
    "base": HeadConfig(width=512, layers=8, heads=8, context_width=512, context_tokens=128, state_hidden=512,
                       decoder_hidden=512),
    "n1": HeadConfig(width=1536, layers=16, heads=32, context_width=1536, context_tokens=320, state_hidden=1024,
                     decoder_hidden=1024),
}  # fmt: skip
"""Preset -> head."""

ENCODERS: dict[str, EncoderConfig] = {
    "toy": EncoderConfig(width=32, heads=2, words=16, buckets=512),
    "tiny": EncoderConfig(),
    "base": EncoderConfig(width=512, layers=2, heads=8, buckets=16384, image_size=128),
    "n1": EncoderConfig(width=1536, layers=2, heads=32, buckets=32768, image_size=224, patch_size=14),
}
"""Preset -> the embedded encoder that goes with its head; n1's own is a vision-language model."""


def head_config(preset: str = "tiny", overrides: Mapping[str, Any] | None = None) -> HeadConfig:
    """A preset with some fields replaced. Raises UserError for unknown names and values that cannot work."""
    return _replaced(HEADS, preset, overrides, "head.")


def encoder_config(preset: str = "tiny", overrides: Mapping[str, Any] | None = None) -> EncoderConfig:
    """A preset of the embedded encoder with some fields replaced. Raises UserError like `head_config`."""
    return _replaced(ENCODERS, preset, overrides, "encoder.")


def config_to_json(config: HeadConfig | EncoderConfig) -> dict[str, Any]:
    """Plain data for `json.dumps`."""
    return dataclasses.asdict(config)


def head_from_json(data: Any) -> HeadConfig:
    """The inverse of `config_to_json`. Raises UserError for unknown, missing or impossible fields."""
    return HeadConfig(**complete_fields(data, HeadConfig, "head"))


def encoder_from_json(data: Any) -> EncoderConfig:
    """The inverse of `config_to_json`. Raises UserError for unknown, missing or impossible fields."""
    return EncoderConfig(**complete_fields(data, EncoderConfig, "encoder"))


def _replaced(presets: Mapping[str, Any], preset: str, overrides: Mapping[str, Any] | None, prefix: str) -> Any:
    choice("preset", preset, presets)
    refuse_unknown(overrides or {}, type(presets[preset]), prefix)
    return dataclasses.replace(presets[preset], **(overrides or {}))
