"""Instructions as hashed word pieces: no vocabulary to train, to save or to fall out of.

A word is the set of itself and its character n-grams, after fastText (arXiv 1607.04606), so that "walking" shares
most of "walk" and a word that was never trained still says something. A piece's number is a hash that is the same on
every machine and in every process. Case, accents' encoding and punctuation make no difference; the order of words is
kept.

Knows nothing of embeddings.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib

from tasks.errors import UserError

NGRAMS = (3, 4, 5)
"""Lengths of the character n-grams, with marks for a word's beginning and end; fastText's are 3 to 6."""


def split_words(instruction: str, most: int) -> list[str]:
    """The words of an instruction, in small letters. Raises UserError if there are more than `most`."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", instruction).casefold())
    if len(words) > most:
        raise UserError(
            f"instruction '{instruction[:40]}...' has {len(words)} words, the encoder was made for at most {most}: "
            "shorten it, or make an encoder with more words."
        )
    return words


@functools.lru_cache(maxsize=65536)
def word_pieces(word: str, buckets: int) -> tuple[int, ...]:
    """Numbers from 0 to buckets - 1 of a word's pieces: the word itself first, then its n-grams as they come."""
    marked = f"<{word}>"
    ngrams = [marked[i : i + n] for n in NGRAMS for i in range(len(marked) - n + 1)]
    # The whole word is no n-gram of itself: it is hashed under a mark of its own.
    return tuple(zlib.crc32(piece.encode()) % buckets for piece in (f"={word}", *ngrams))
