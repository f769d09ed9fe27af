"""The slider with a goal that moves: a task with random starts, an update that draws, and a memory of its own."""

import torch

from tasks.math import uniform
from tasks.signals import Signal, SignalTable
from tests.data.slider import Slider


class Chaser(Slider):
    """A mass has to be where the goal is, which goes elsewhere once it was reached."""

    name = "chaser"
    signal_table = SignalTable([*Slider.signal_table, Signal("goal", 1, "m", "world", "position", "where to be")])

    def setup(self, sim):
        """A goal a world."""
        sim.memory["goal"] = torch.zeros(sim.num_envs, 1)

    def reset(self, sim, env_ids, rng):
        """A new goal beside the new start."""
        super().reset(sim, env_ids, rng)
        goal = 0.5 * sim.qpos[env_ids] + uniform((len(env_ids), 1), -0.5, 0.5, rng)
        sim.memory["goal"] = sim.memory["goal"].index_copy(0, env_ids, goal)

    def signals(self, sim):
        """The slider's, and the goal."""
        return {**super().signals(sim), "goal": sim.memory["goal"]}

    def observe(self, signals):
        """Where the goal is from here; the arcus tangent is rounded by its place in a tensor."""
        away = torch.atan2(signals["goal"] - signals["mass_position"], 1.0 + signals["mass_velocity"].square())
        return torch.cat([away, signals["mass_velocity"]], dim=1)

    def update(self, sim, signals, rng):
        """A new goal where the mass is near the old one."""
        near = (signals["goal"] - signals["mass_position"]).abs() < 0.2
        if sim.asynchronous:  # on a device draws are for all worlds
            goals = uniform((sim.num_envs, 1), -1.0, 1.0, rng)
            sim.memory["goal"] = torch.where(near, goals, sim.memory["goal"])
        elif near.any():
            ids = near.nonzero()[:, 0]
            sim.memory["goal"] = sim.memory["goal"].index_copy(0, ids, uniform((len(ids), 1), -1.0, 1.0, rng))
        return near[:, 0]
