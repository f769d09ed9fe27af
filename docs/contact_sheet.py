"""One picture of all tasks: `python docs/contact_sheet.py`, writes docs/images/tasks.png.

Each tile is the state after a second of zero actions, drawn with the task's visual model. Tasks whose robot is not on
this machine are left out, with a line. Needs a renderer (`eureka doctor`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from rl.video import record_frames
from tasks import registry
from tasks.env import make_env
from tasks.robots.menagerie import missing_reason

WIDTH, HEIGHT, COLUMNS, CAPTION = 320, 240, 4, 18  # pixels, tiles, pixels


def picture(name: str, folder: Path) -> Image.Image | None:
    """The last frame of one second of a task under zero actions; None where it cannot be built or drawn."""
    task = registry.make(name)
    reason = missing_reason(task.robot) if task.robot else None
    if reason:
        print(f"{name}: {reason}", file=sys.stderr)
        return None
    env = make_env(task, 1, num_threads=1)
    still = torch.zeros(1, env.num_actions)
    env.close()
    frames = record_frames(task, lambda _: still, folder / name, count=2, seconds=1.0, width=WIDTH, height=HEIGHT)
    return Image.open(frames[-1]).convert("RGB") if frames else None


def main() -> int:
    """Draw all tasks, tile them, write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images" / "tasks.png")
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        drawn = {name: picture(name, Path(folder)) for name in registry.names()}
    tiles = {name: image for name, image in drawn.items() if image is not None}
    if not tiles:
        return 1
    rows = -(-len(tiles) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * WIDTH, rows * (HEIGHT + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, image) in enumerate(tiles.items()):
        x, y = place % COLUMNS * WIDTH, place // COLUMNS * (HEIGHT + CAPTION)
        sheet.paste(image, (x, y))
        draw.text((x + 6, y + HEIGHT + 3), name, fill="black")
    sheet.save(out, optimize=True)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
