"""A vision-language model from Hugging Face transformers (extra `vlm`) as the encoder of instructions and images.

The model is frozen: its tokens at a chosen layer are the context, as in GR00T N1 (layer 12 of its model), and the head
learns to read them. So the tokens of an instruction and an image are computed once and kept. Each is computed by
itself, without padding: what is kept does not depend on what it was asked together with. Layers above the chosen one
are computed too, and dropped.

Knows nothing of the head. Weights of the model are not saved with it; its name or folder and the layer are.

Axes: B batch, L context tokens, C width.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.errors import UserError

KEPT = 4096
"""Instructions, with their images, whose tokens are kept; the one that was not asked for the longest goes first."""


class TransformersEncoder:
    """A frozen transformers model as a `ContextEncoder`."""

    def __init__(self, model: Any, processor: Any, layer: int, kept: int = KEPT) -> None:
        """
        Args:
            model: A vision-language model without its language head, as `AutoModel` makes it.
            processor: Its processor: text and images to the model's inputs.
            layer: Layer whose output are the tokens; 0 is before the first one, -1 the last.
            kept: Most entries of the cache.

        Raises:
            UserError: the model does not have that layer.
        """
        text_config = model.config.get_text_config()
        depth = text_config.num_hidden_layers
        if not -depth - 1 <= layer <= depth:
            raise UserError(f"layer {layer} of a model with {depth} layers: expected {-depth - 1} to {depth}.")
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.layer = layer
        self.width: int = text_config.hidden_size
        self.computed = 0
        """Instructions, with their images, that the model was run for."""
        self._kept = kept
        self._cache: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    def __call__(self, instructions: Sequence[str], images: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C), float32, zeros behind an instruction's last, and mask (B, L); L is the longest one's.

        Raises UserError if there are not as many images as instructions.
        """
        if images is not None and len(images) != len(instructions):
            raise UserError(f"{len(images)} images for {len(instructions)} instructions, expected as many.")
        rows = [
            self._tokens(instruction, None if images is None else images[row])
            for row, instruction in enumerate(instructions)
        ]
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return tokens, torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]

    def _tokens(self, instruction: str, image: Tensor | None) -> Tensor:
        """Tokens (l, C) of one instruction, kept or computed."""
        digest = ""
        if image is not None:
            pixels = image.detach().cpu().contiguous()
            kind = f"{pixels.dtype}{tuple(pixels.shape)}".encode()
            digest = hashlib.sha256(kind + pixels.numpy().tobytes()).hexdigest()
        key = (instruction, digest)
        if key not in self._cache:
            self._cache[key] = self._compute(instruction, image)
            if len(self._cache) > self._kept:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]

    @torch.no_grad()
    def _compute(self, instruction: str, image: Tensor | None) -> Tensor:
        self.computed += 1
        given = {} if image is None else {"images": [_as_uint8(image)]}
        inputs = self.processor(text=[self._prompt(instruction, image is not None)], return_tensors="pt", **given)
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        out = self.model(**inputs, output_hidden_states=True, use_cache=False)
        mask = inputs["attention_mask"][0].bool()
        return out.hidden_states[self.layer][0, mask].float()

    def _prompt(self, instruction: str, with_image: bool) -> str:
        """The instruction as the model's user would put it; without a chat template, the image's mark and the words."""
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}] * with_image + [{"type": "text", "text": instruction}]
            return self.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        return (self.processor.image_token if with_image else "") + instruction


def _as_uint8(image: Tensor) -> Tensor:
    return image if image.dtype == torch.uint8 else (255.0 * image).round().to(torch.uint8)


def load_transformers(source: str, layer: int = -1, device: str | torch.device = "cpu", dtype: str = "auto") -> Any:
    """The encoder of a local folder or a name on the Hugging Face hub.

    dtype: of the model's weights: "auto" (as they are saved), or one of torch's names.

    Raises UserError where transformers is missing, or has no such model.
    """
    try:
        from transformers import AutoModel, AutoProcessor
    except ImportError:
        raise UserError(
            "a vision-language model needs transformers, which is not installed: pip install 'eureka-skills[vlm]'."
        ) from None
    try:
        model = AutoModel.from_pretrained(source, dtype=dtype)
        processor = AutoProcessor.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"'{source}': no vision-language model that transformers can load ({reason}).") from None
    return TransformersEncoder(model.to(device), processor, layer)
