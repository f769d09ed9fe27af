"""A puck that does at once what it is told, and its tour: the runtime's own behaviour, apart from how a body walks."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.commanded import CommandedTask
from tasks.locomotion.walking_words import walking_commands
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task
from tasks.tour import TOUR_SIGNALS, TourTask

XML = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast" gravity="0 0 0"/>
  <worldbody>
    <light pos="0 0 6"/>
    <geom type="plane" size="8 8 .1" rgba=".4 .5 .5 1" contype="0" conaffinity="0"/>
    <body name="torso" pos="0 0 .2">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="turn" type="hinge" axis="0 0 1"/>
      <geom type="box" size=".3 .2 .1" mass="1" rgba=".9 .5 .1 1"/>
    </body>
  </worldbody>
  <actuator>
    <velocity joint="x" kv="40"/><velocity joint="y" kv="40"/><velocity joint="turn" kv="2"/>
  </actuator>
</mujoco>
"""
MOST = (2.0, 2.0, 2.0)
"""m/s, m/s, rad/s at an action of 1."""


class _Puck(Task):
    name = "puck"
    instruction = "slide"
    action_doc = "velocity forward and to the left, rate of turning"
    xml = XML
    control_dt_s = 0.02
    episode_length_s = 60.0
    signal_table = SignalTable(
        [
            Signal("pose", 3, "m", "world", "position", "x, y, heading in rad"),
            Signal("velocity", 3, "m/s", "world", "linear_velocity", "of the pose"),
            Signal("numbers", 3, "1", "-", "command", "what is commanded"),
            Signal("actions", 3, "1", "-", "action", "of this step"),
            Signal("previous_actions", 3, "1", "-", "action", "of the step before"),
        ]
    )
    fitness_unit = "1"
    fitness_doc = "none"

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        n = len(env_ids)
        qpos = torch.zeros(n, 3)
        qpos[:, 2] = (torch.rand(n, generator=rng) * 2 - 1) * torch.pi
        sim.set_state(env_ids, qpos, torch.zeros(n, 3))

    def act(self, sim: Simulation, actions: Tensor) -> None:
        forward, left, turn = (actions * torch.tensor(MOST)).unbind(dim=1)
        cos, sin = torch.cos(sim.qpos[:, 2]), torch.sin(sim.qpos[:, 2])
        sim.set_ctrl(torch.stack([cos * forward - sin * left, sin * forward + cos * left, turn], dim=1))

    def signals(self, sim: SimulationState) -> Signals:
        memory = sim.memory
        return {
            "pose": sim.qpos,
            "velocity": sim.qvel,
            "numbers": memory["command"],
            "actions": memory["actions"],
            "previous_actions": memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        return torch.cat([signals["pose"], signals["velocity"]], dim=1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        return {"lost": signals["pose"][:, :2].abs().amax(dim=1) > 9.0}


class PuckCommand(CommandedTask, _Puck):
    """Told where to go."""

    name = "puck-command"
    commands = walking_commands(run_m_s=2.0, walk_m_s=0.7, back_m_s=1.0, turn_rad_s=1.0)
    fitness_scale = (0.5, 0.5, 0.5)

    def command_numbers(self, signals: Signals) -> Tensor:
        return signals["numbers"]

    def fitness_achieved(self, signals: Signals) -> Tensor:
        return signals["velocity"]


class PuckTour(TourTask, PuckCommand):
    """Posts for the puck."""

    name = "puck-tour"
    signal_table = SignalTable([*_Puck.signal_table, *TOUR_SIGNALS])

    def visual_spec(self):
        import mujoco

        return mujoco.MjSpec.from_string(self.xml)

    def tour_position(self, signals: Signals) -> Tensor:
        return torch.cat([signals["pose"][:, :2], torch.zeros(len(signals["pose"]), 1)], dim=1)

    def tour_heading(self, signals: Signals) -> Tensor:
        return signals["pose"][:, 2]

    def tour_motion(self, signals: Signals) -> tuple[Tensor, Tensor]:
        return torch.linalg.norm(signals["velocity"][:, :2], dim=1), signals["velocity"][:, 2].abs()


def policy(observation: Tensor) -> Tensor:
    """Actions (N, 3) that do what the numbers at the end of an observation (N, 9) say."""
    return observation[:, -3:] / torch.tensor(MOST)
