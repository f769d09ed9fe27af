"""A frozen transformers model as the encoder: two families with random weights, run offline."""

from __future__ import annotations

import sys

import pytest
import torch

from distill.vlm import TransformersEncoder, load_transformers
from tasks.errors import UserError
from tests.distill.conftest import draw

IMAGE = 90
"""Number of the token that stands for a piece of an image."""


class LetterProcessor:
    """Stands in for a processor, which needs a trained vocabulary: a token a letter, and the family's own image inputs."""

    image_token = "\x00"

    def __init__(self, pieces: int, pixels) -> None:
        self.pieces, self.pixels = pieces, pixels

    def __call__(self, text, images=None, return_tensors="pt"):
        ids = []
        for letter in text[0]:
            ids += [IMAGE] * self.pieces if letter == self.image_token else [ord(letter) % 80]
        inputs = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.int64)}
        return inputs | (self.pixels(images[0].float() / 255.0) if images else {})


def smolvlm(transformers):
    """Images of 32 pixels in patches of 16, shuffled into one token."""
    text = {"model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0}  # fmt: skip
    vision = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 16}  # fmt: skip
    config = transformers.SmolVLMConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE, scale_factor=2, pad_token_id=0
    )
    return transformers.SmolVLMModel(config), LetterProcessor(1, lambda image: {"pixel_values": image[None, None]})


def qwen3vl(transformers):
    """Images of 32 pixels in patches of 8, two by two and two frames in one token."""
    text = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "head_dim": 8,
            "num_attention_heads": 4, "num_key_value_heads": 2,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True}}  # fmt: skip
    vision = {"depth": 1, "hidden_size": 24, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
              "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}  # fmt: skip
    config = transformers.Qwen3VLConfig(
        text_config=text, vision_config=vision, image_token_id=IMAGE, video_token_id=91, vision_start_token_id=92,
        vision_end_token_id=93,
    )  # fmt: skip

    def pixels(image):
        patches = image.unfold(1, 8, 8).unfold(2, 8, 8)  # (3, 4, 4, 8, 8)
        blocks = patches.reshape(3, 2, 2, 2, 2, 8, 8).permute(1, 3, 2, 4, 0, 5, 6).reshape(16, 3, 1, 8, 8)
        return {
            "pixel_values": blocks.expand(16, 3, 2, 8, 8).reshape(16, -1),
            "image_grid_thw": torch.tensor([[1, 4, 4]]),
        }

    return transformers.Qwen3VLModel(config), LetterProcessor(4, pixels)


@pytest.fixture(scope="module", params=[smolvlm, qwen3vl])
def family(request):
    transformers = pytest.importorskip("transformers", reason="transformers (extra vlm) is not installed")
    torch.manual_seed(0)
    return request.param(transformers)


def test_tokens_are_those_of_the_chosen_layer(family):
    """Frozen, padded with zeros, masked, and the same as the model gives by itself."""
    model, processor = family
    encoder = TransformersEncoder(model, processor, layer=2)
    tokens, mask = encoder(["walk", "turn left"])
    assert encoder.width == 32
    assert tokens.shape == (2, 9, 32)
    assert mask.sum(dim=1).tolist() == [4, 9]
    assert not tokens[0, 4:].any()
    with torch.no_grad():
        states = model(**processor(["turn left"]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(tokens[1], states[2][0])
    assert not torch.allclose(tokens[1], states[3][0], atol=1e-3)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not tokens.requires_grad


def test_images_are_seen_and_tokens_kept(family):
    model, processor = family
    encoder = TransformersEncoder(model, processor, layer=-1, kept=3)
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=draw(0))
    tokens, mask = encoder(["push", "push"], images)
    assert mask.all()
    assert tokens.shape[1] == 4 + processor.pieces
    assert not torch.allclose(tokens[0, -1], tokens[1, -1], atol=1e-4), "the last letter looks at the image"
    assert encoder.computed == 2
    again, _ = encoder(["push", "push"], images.flip(0))
    assert torch.equal(again, tokens.flip(0))
    assert encoder.computed == 2
    encoder(["a", "b", "push"], None)
    assert encoder.computed == 5, "without an image it is another thing"
    encoder(["push"], images[1:])
    assert encoder.computed == 6, "only three are kept"


def test_a_layer_that_is_not_there(family):
    with pytest.raises(UserError, match="layer 4 of a model with 3 layers: expected -4 to 3"):
        TransformersEncoder(*family, layer=4)


def test_a_model_that_is_not_there(family, tmp_path):
    with pytest.raises(UserError, match="no vision-language model that transformers can load"):
        load_transformers(str(tmp_path))


def test_without_transformers_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'eureka-skills\[vlm\]'"):
        load_transformers("some/model")
