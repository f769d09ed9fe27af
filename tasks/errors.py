"""Errors that a user can cause and mend: one line each, shown without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input. The message is one line: what came, what was expected, the way out."""

    exit_code: int = 2


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """A hint for a misspelt word.

    Args:
        word: What came.
        options: What would have been right.

    Returns:
        ``" Did you mean 'x'?"`` with a leading blank, or ``""`` when nothing is near.
    """
    known = {option.lower(): option for option in options}
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f" Did you mean '{known[near[0]]}'?" if near else ""
