"""One video of several tasks side by side, each with who acts in it, and below each what it is told at present.

Axes: F frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rl.acting import Player
from rl.render import Reel, no_renderer_line, probe_renderer
from rl.render_grid import Panel, encode_grid
from rl.video import binary, drawn, rollout
from tasks.env import TaskEnv
from tasks.errors import UserError
from tasks.task import Task

FPS = 25.0
"""Frames a second; each cell shows the control step that is nearest before a frame."""


@dataclass(frozen=True)
class Cell:
    """What one place of the grid shows."""

    task: Task
    """What is simulated."""
    player: Player
    """Who acts, for this rollout."""
    caption: Callable[[TaskEnv], str]
    """The one or two lines below it, asked for at each control step."""


def record_grid(
    cells: Sequence[Cell],
    out: Path,
    *,
    seconds: float = 10.0,
    seed: int = 0,
    width: int = 320,
    height: int = 240,
    columns: int | None = None,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Film the cells; the file appears whole or not at all. Where an episode ends earlier the next one begins.

    Args:
        cells: From left to right, then down.
        out: The .mp4 file; its folder is made.
        seconds: Simulated time.
        seed: Of the start states.
        width, height: Pixels of a cell, even numbers.
        columns: Cells of a row; None: as many as rows, or one more.
        say: Takes the one line where there is no video.

    Returns:
        `out`, or None where nothing here can draw or encode.

    Raises:
        UserError: a number that cannot work, or no cells.
    """
    columns = math.ceil(math.sqrt(len(cells))) if columns is None else columns
    if not cells or columns < 1:
        raise UserError(f"a grid of {len(cells)} videos in {columns} columns; expected at least one of each.")
    renderer = probe_renderer()
    if renderer is None:
        say(no_renderer_line())
        return None
    panels = [_film(cell, seconds, seed, width, height) for cell in cells]
    return drawn(lambda name, path: encode_grid(panels, columns, name, str(path)), renderer, Path(out), say)


def _film(cell: Cell, seconds: float, seed: int, width: int, height: int) -> Panel:
    captions: list[str] = []
    states, _ = rollout(
        cell.task, cell.player, seconds=seconds, seed=seed, on_state=lambda env: captions.append(cell.caption(env))
    )
    times = np.arange(max(1, round(seconds * FPS))) / FPS
    shown = np.minimum((times / cell.task.control_dt_s + 1e-6).astype(int), len(states) - 1)
    reel = Reel(binary(cell.task.build_visual_model()), states[shown], cell.task.camera, width, height, FPS)
    return Panel(reel, tuple(captions[step] for step in shown))
