"""Which states and captions a grid shows at which time, without drawing; what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rl import grid
from rl.grid import Cell, record_grid
from rl.video import rollout
from tasks.errors import UserError


class Pushing:
    """Looks at the worlds itself: pushes to the left from the tenth step on."""

    def act(self, env):
        return torch.where(env.episode_step[:, None] < 10, 1.0, -1.0)


def test_each_frame_shows_the_state_before_it_and_its_caption(slider):
    """Steps of 0.05 s at 25 frames a second: frame k is at 0.04 k s, in step floor(0.8 k)."""
    cell = Cell(slider, Pushing(), lambda env: f"step {int(env.episode_step[0])}")
    panel = grid._film(cell, 1.0, 3, 64, 48)
    states, _ = rollout(slider, Pushing(), seconds=1.0, seed=3)
    steps = [4 * k // 5 for k in range(25)]
    np.testing.assert_array_equal(panel.reel.qpos, states[steps])
    assert list(panel.captions) == [f"step {step}" for step in steps]
    assert panel.reel.fps == 25.0


def test_cells_of_other_rates_and_shorter_episodes_are_as_long(slider):
    """Of 3 s the slider's episode of 2 s is over, and the next one begins."""
    panel = grid._film(Cell(slider, Pushing(), lambda env: str(int(env.episode_step[0]))), 3.0, 0, 64, 48)
    assert len(panel.reel.qpos) == len(panel.captions) == 75
    assert panel.captions[-1] == "19" and "39" in panel.captions


def test_a_grid_needs_cells_and_columns(slider):
    for cells, columns in (([], None), ([Cell(slider, Pushing(), str)], 0)):
        with pytest.raises(UserError, match="expected at least one of each"):
            record_grid(cells, grid.Path("x.mp4"), columns=columns)
