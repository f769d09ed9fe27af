"""Several reels side by side in one video, each with two lines of text below it, drawn like `rl.render`'s.

All run in the same time. Like that file this one imports neither torch nor mujoco at the top: a child starts fast.
Axes: F frames.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rl.render import FRAME_TIMEOUT_S, PROBE_TIMEOUT_S, Reel, in_child, open_encoder, pictures

CAPTION_PX = 34
"""Height of the two lines below each cell, an even number."""
INK, PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True)
class Panel:
    """One cell of the grid."""

    reel: Reel
    """What is shown; all of a grid have the same size, frame rate and number of frames."""
    captions: tuple[str, ...]
    """F texts of one or two lines, one a frame."""


def encode_grid(panels: Sequence[Panel], columns: int, renderer: str, path: str) -> None:
    """Draw the panels and write them to `path` as H.264, row by row. Raises rl.render.RenderError."""
    frames = sum(len(panel.reel.qpos) for panel in panels)
    in_child(_encode_grid, (tuple(panels), columns, renderer, path), PROBE_TIMEOUT_S + FRAME_TIMEOUT_S * frames)


def _encode_grid(panels: tuple[Panel, ...], columns: int, renderer: str, path: str) -> None:
    first = panels[0].reel
    rows, height = -(-len(panels) // columns), first.height + CAPTION_PX
    canvas = np.full((rows * height, columns * first.width, 3), PAPER, np.uint8)
    drawn = [pictures(panel.reel, renderer) for panel in panels]
    lines: dict[str, Any] = {}
    with contextlib.closing(open_encoder(path, (canvas.shape[1], canvas.shape[0]), first.fps)) as encoder:
        for number in range(len(first.qpos)):
            for place, (panel, frames) in enumerate(zip(panels, drawn, strict=True)):
                x, y = place % columns * first.width, place // columns * height
                canvas[y : y + first.height, x : x + first.width] = next(frames)
                text = panel.captions[number]
                if text not in lines:
                    lines[text] = _lines(text, first.width)
                canvas[y + first.height : y + height, x : x + first.width] = lines[text]
            encoder.send(canvas)


def _lines(text: str, width: int) -> np.ndarray:
    """A text of one or two lines as a picture (CAPTION_PX, width, 3); what does not fit is cut."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, CAPTION_PX), PAPER)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(text.split("\n")):
        shown = line
        while shown and draw.textlength(shown) > width - 8:
            shown = shown[:-4] + "..." if shown.endswith("...") else shown[:-1] + "..."
        draw.text((4, 2 + 15 * number), shown, fill=INK)
    return np.asarray(image)
