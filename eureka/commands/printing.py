"""Where commands print tables."""

from __future__ import annotations

from rich.console import Console

WIDE = 200
"""Columns of a table that no terminal shows: rich would take 80 and cut the cells."""


def table_console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for any table where it is a pipe or a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)
