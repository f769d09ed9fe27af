"""Takes an endpoint's key out of everything that comes back from it, before it is stored, shown or read.

Gateways repeat the key in their errors: whole, cut off, with stars in the middle, escaped as JSON or as a URL does it.
In an answer that holds a program only the whole key is taken out, so that no word of the program is.

Not recognised: the key encoded as a whole, such as base64."""

from __future__ import annotations

import re

SECRET_LENGTH = 8
"""A shorter key is a placeholder for an endpoint that needs none."""
MARK = "[key]"


class Redaction:
    """Knows what must not be seen.

    Args:
        secrets: the key as it is sent, and whatever else is secret; those that are too short are left out.
    """

    def __init__(self, *secrets: str) -> None:
        known = [secret for secret in secrets if len(secret) >= SECRET_LENGTH]
        written = "|".join("".join(_spellings(character) for character in secret) for secret in known)
        begun = "|".join(re.escape(secret[:SECRET_LENGTH]) for secret in known)
        self._whole = re.compile(written) if known else None
        self._whole_bytes = re.compile(written.encode()) if known else None
        self._partial = re.compile(rf"(?:{begun})[^\s'\"]*") if known else None

    def text(self, text: str) -> str:
        """A reply's text without the whole key."""
        return self._whole.sub(MARK, text) if self._whole else text

    def body(self, body: bytes, status: int) -> bytes:
        """The bytes of an answer. In a failure parts of the key are taken out as well."""
        if self._whole_bytes:
            body = self._whole_bytes.sub(MARK.encode(), body)
        if self._partial and status >= 300:
            body = self._partial.sub(MARK, body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        return body

    def line(self, text: str) -> str:
        """A line for people, without the key, parts of it, and whatever else looks like a key of OpenAI's."""
        if self._partial:
            text = self._partial.sub(MARK, self.text(text))
        return re.sub(r"\bsk-[\w*.-]{6,}", MARK, text)


def _spellings(character: str) -> str:
    """A pattern for one ASCII character as it is, behind a backslash, and as JSON and URLs escape it."""
    code = "".join(f"[{digit}{digit.upper()}]" for digit in f"{ord(character):02x}")
    return rf"(?:\\?{re.escape(character)}|\\u00{code}|%{code})"
