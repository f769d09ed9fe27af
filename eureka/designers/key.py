"""Where the endpoint's key comes from, and how it is kept out of the environment that children inherit.

Libraries start processes of their own and hand their whole environment down (glfw does when MuJoCo is imported), so the
command line takes the key out of it before anything else happens. It stays where the operating system shows the
environment that the search itself was started with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from eureka.designers.redaction import SECRET_LENGTH

VARIABLE = "OPENAI_API_KEY"
_withheld: dict[str, str] = {}


def api_key() -> str:
    """The key of OPENAI_API_KEY; empty where none is set."""
    return (os.environ.get(VARIABLE) or _withheld.get(VARIABLE, "")).strip()


@contextmanager
def withheld() -> Iterator[None]:
    """As long as it lasts no variable of `os.environ` holds the key; `api_key` still gives it."""
    key = api_key()
    holding = [
        name for name, value in os.environ.items() if name == VARIABLE or (len(key) >= SECRET_LENGTH and key in value)
    ]
    taken = {name: os.environ.pop(name) for name in holding}
    before = dict(_withheld)
    _withheld.update(taken)
    try:
        yield
    finally:
        for name, value in taken.items():
            os.environ.setdefault(name, value)
        _withheld.clear()
        _withheld.update(before)
