"""Instructions and images as tokens: the hash, the words, and independence of what else is in the batch."""

from __future__ import annotations

import pytest
import torch

from distill.config import encoder_config
from distill.encoder import ScratchEncoder
from distill.words import split_words, word_pieces
from tasks.errors import UserError
from tests.distill.conftest import draw

IMAGES = encoder_config("toy", {"image_size": 16, "patch_size": 8})


def test_pieces_are_the_same_everywhere():
    """CRC-32 of the word and of its n-grams, as gzip writes it behind a text; trained embeddings would mean other words
    if it moved."""
    assert word_pieces("go", 1000) == (584, 623, 52, 883)  # "=go", "<go", "go>", "<go>"
    shared = set(word_pieces("walk", 2**31)) & set(word_pieces("walking", 2**31))
    assert len(shared) == 6  # <wa, wal, alk, <wal, walk, <walk


def test_words():
    """Case, form of letters and punctuation make no difference, order does."""
    assert split_words("Turn LEFT, slowly!", 9) == ["turn", "left", "slowly"]
    assert split_words("ｗalk", 9) == ["walk"]
    assert split_words("geh rückwärts", 9) == ["geh", "rückwärts"]
    with pytest.raises(UserError, match=r"has 4 words, the encoder was made for at most 3: shorten"):
        split_words("one two three four", 3)


def test_a_word_is_the_mean_of_its_pieces():
    encoder = ScratchEncoder(encoder_config("toy", {"layers": 0}))
    tokens, mask = encoder(["run back"])
    table = encoder.pieces.weight
    wanted = torch.stack([table[torch.tensor(word_pieces(w, 512))].mean(dim=0) for w in ("run", "back")])
    torch.testing.assert_close(tokens[0, :2], wanted + encoder.word_position[0, :2])
    assert mask.sum() == 2
    assert not tokens[0, 2:].any()


def test_an_instruction_s_tokens_do_not_depend_on_the_others():
    """Bit for bit, for one that comes twice, and for one without words."""
    encoder = ScratchEncoder(encoder_config("toy"))
    told = ["walk forward", "turn left now please", "", "walk forward", "forward walk"]
    tokens, mask = encoder(told)
    assert mask.sum(dim=1).tolist() == [2, 4, 0, 2, 2]
    assert torch.isfinite(tokens).all()
    assert torch.equal(tokens[0], tokens[3])
    assert not torch.equal(tokens[0], tokens[4]), "the order of words counts"
    other, _ = encoder(["stand", "turn left now please", "run", "go back", "Walk forward!"])
    assert torch.equal(other[1], tokens[1])
    assert torch.equal(other[4], tokens[0])


def test_places_without_a_word_are_not_looked_at():
    """An encoder with the same weights and room for fewer words says the same."""
    roomy, small = (ScratchEncoder(encoder_config("toy", {"words": words})) for words in (16, 4))
    state = roomy.state_dict()
    small.load_state_dict(state | {"word_position": state["word_position"][:, :4]})
    told = ["turn left now please", "stop"]
    torch.testing.assert_close(roomy(told)[0][:, :4], small(told)[0], atol=1e-5, rtol=1e-5)


def test_images_are_patches_that_words_are_mixed_with():
    encoder = ScratchEncoder(IMAGES)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=draw(0))
    before = images.clone()
    tokens, mask = encoder(["push the red box", "wait"], images)
    assert tokens.shape == (2, 16 + 4, 32)
    assert mask.sum(dim=1).tolist() == [4 + 4, 1 + 4]
    as_float, _ = encoder(["push the red box", "wait"], images / 255.0)
    torch.testing.assert_close(as_float, tokens)
    images[0, 0, 3, 3] += 100
    moved, _ = encoder(["push the red box", "wait"], images)
    assert not torch.equal(moved[0, 0], tokens[0, 0]), "a word looks at the patches"
    assert torch.equal(moved[1], tokens[1])
    images[0, 0, 3, 3] -= 100
    assert torch.equal(images, before)


def test_one_patch_by_hand():
    """A patch is the scaled pixels times the kernel: row by row, patch by patch."""
    encoder = ScratchEncoder(encoder_config("toy", {"image_size": 16, "patch_size": 8, "layers": 0}))
    image = torch.rand(1, 3, 16, 16, generator=draw(1))
    tokens, _ = encoder([""], image)
    assert encoder.patches is not None
    patch = 2.0 * image[0, :, 0:8, 8:16] - 1.0  # the second of the first row
    wanted = torch.einsum("chw,dchw->d", patch, encoder.patches.weight) + encoder.patches.bias
    torch.testing.assert_close(tokens[0, 16 + 1], wanted + encoder.patch_position[0, 1], atol=1e-5, rtol=1e-5)


def test_every_weight_is_trained():
    """And the first ones depend on the seed alone."""
    encoder = ScratchEncoder(IMAGES, seed=3)
    tokens, mask = encoder(["push"], torch.rand(1, 3, 16, 16, generator=draw(0)))
    (tokens[mask] * torch.randn(5, 32, generator=draw(1))).sum().backward()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert torch.equal(ScratchEncoder(IMAGES, seed=3).pieces.weight, encoder.pieces.weight)
    assert not torch.equal(ScratchEncoder(IMAGES, seed=4).pieces.weight, encoder.pieces.weight)


def test_images_that_do_not_fit_give_one_line():
    with pytest.raises(UserError, match=r"images have shape \(1, 3, 8, 8\), expected \(1, 3, 16, 16\)"):
        ScratchEncoder(IMAGES)(["go"], torch.zeros(1, 3, 8, 8))
    with pytest.raises(UserError, match="the encoder was made without images"):
        ScratchEncoder(encoder_config("toy"))(["go"], torch.zeros(1, 3, 8, 8))
