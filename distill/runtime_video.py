"""A run on video: the place from outside, what the planner sees, and the words in force, in one picture.

Drawn after the run, in a child process, from the states that were kept. Axes: F frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.runtime import Body
from rl.render import Reel, no_renderer_line, probe_renderer
from rl.render_grid import Panel, encode_grid
from rl.video import binary, drawn
from tasks.errors import UserError
from tasks.tour import TourTask
from tasks.tour_scene import EYES, OVERVIEW


@dataclass(frozen=True)
class Shot:
    """One panel of the video."""

    model: bytes
    """The scene, in MuJoCo's binary format."""
    states: np.ndarray
    """(F, nq) positions."""
    camera: str | None
    """Camera of the scene."""
    words: Sequence[str]
    """F lines, one below each frame."""


def film_run(
    bodies: Sequence[Body],
    out: Path,
    *,
    frame_s: float,
    width: int = 320,
    height: int = 240,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Write the video of a run, two panels a body; None, and a line to `say`, where nothing here draws.

    Args:
        bodies: As they ended; a body that ended first stays as it was.
        out: The .mp4 file; its folder is made.
        frame_s: Simulated time between two kept frames; the video runs in real time.
        width, height: Pixels of a panel, even numbers.

    Raises:
        UserError: nothing was kept, or a size that cannot be encoded.
    """
    frames = max((len(body.frames) for body in bodies), default=0)
    if not frames:
        raise UserError("nothing of the run was kept to film.")
    shots = [shot for body in bodies for shot in _shots(body, frames)]
    return film(shots, out, frame_s=frame_s, width=width, height=height, say=say)


def film(
    shots: Sequence[Shot],
    out: Path,
    *,
    frame_s: float,
    width: int = 320,
    height: int = 240,
    say: Callable[[str], None] = print,
) -> Path | None:
    """Write shots of equal length as one video, two in a row; each line begins with the time. As `film_run`."""
    if width % 2 or height % 2 or min(width, height) < 16:
        raise UserError(f"the video's panels are {width} x {height}; expected even numbers of at least 16.")
    renderer = probe_renderer()
    if renderer is None:
        say(no_renderer_line())
        return None
    panels = [
        Panel(
            Reel(shot.model, shot.states, shot.camera, width, height, 1.0 / frame_s),
            tuple(f"{number * frame_s:5.1f} s   {text}" for number, text in enumerate(shot.words)),
        )
        for shot in shots
    ]
    return drawn(lambda name, path: encode_grid(panels, 2, name, str(path)), renderer, Path(out), say)


def _shots(body: Body, frames: int) -> list[Shot]:
    """From outside with the words in force; out of the body's eyes with the goal."""
    task = body.env.task
    missing = frames - len(body.frames)
    states = np.stack([*body.frames, *body.frames[-1:] * missing])
    words = [*body.captions, *body.captions[-1:] * missing]
    model = binary(task.build_visual_model())
    outside, inside = (OVERVIEW, EYES) if isinstance(task, TourTask) else (task.camera, task.camera)
    goal = f"{body.name}: {body.goal}"
    return [Shot(model, states, outside, words), Shot(model, states, inside, [goal] * frames)]
