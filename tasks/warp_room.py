"""How much memory for contacts and constraints a task's worlds need in MuJoCo Warp: measured, with head room.

Warp's arrays have fixed sizes. The pool of contacts is shared by all worlds and holds pairs of shapes that are near as
well; rows of constraints are a limit for each world. Too small, and contacts are left out, which
`tasks.sim.Simulation.collect_overflows` tells; too large, and memory is short at tens of thousands of worlds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

PROBE_WORLDS, PROBE_STEPS = 64, 50
"""Worlds and control steps that are looked at, on a GPU;"""
CPU_PROBE_WORLDS, CPU_PROBE_STEPS = 8, 10
"""and on Warp's CPU device, which is for tests."""
CONTACT_HEAD_ROOM, CONSTRAINT_HEAD_ROOM = 2.0, 1.5
"""Random actions are no trained policy: room for so many times the most that was seen. Contacts are an average over
the worlds, constraints the most that any world had."""


@dataclass(frozen=True)
class Room:
    """How many contacts and constraints there is memory for."""

    contacts: int = 256
    """A world, pooled over the worlds; pairs of shapes that are near take a place too."""
    constraints: int = 512
    """Rows a world; no world can have more."""


def measure_room(play: Callable[[int, Room], Any], device: str) -> Room:
    """The room that a task needs.

    Args:
        play: Makes N worlds with a certain room: a `tasks.env.TaskEnv` on a `tasks.sim_warp.WarpSimulation`.
        device: torch device of the worlds.
    """
    on_cpu = torch.device(device).type == "cpu"
    worlds, steps = (CPU_PROBE_WORLDS, CPU_PROBE_STEPS) if on_cpu else (PROBE_WORLDS, PROBE_STEPS)
    env = play(worlds, Room())
    rng = torch.Generator().manual_seed(0)
    contacts, constraints = env.sim.most_used()
    for step in range(steps):
        if step % 5 == 0:  # held for a while: a robot gets further than under white noise
            actions = (torch.rand(worlds, env.num_actions, generator=rng) * 2.0 - 1.0).to(device)
        env.step(actions)
        seen = env.sim.most_used()
        contacts, constraints = max(contacts, seen[0]), max(constraints, seen[1])
        env.sim.collect_overflows()  # makes more room where even this did not do
    env.close()
    return with_head_room(contacts / worlds, constraints)


def with_head_room(contacts: float, constraints: int) -> Room:
    """Room for what was seen, contacts a world and rows of the fullest world, and more; in steps of 8."""
    return Room(
        contacts=8 * (1 + math.ceil(CONTACT_HEAD_ROOM * contacts / 8)),
        constraints=8 * (1 + math.ceil(CONSTRAINT_HEAD_ROOM * constraints / 8)),
    )
