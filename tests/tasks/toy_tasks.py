"""Small models and tasks that the tests of floor 1 share."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

CRAWLER_XML = """
<mujoco>
  <option timestep="0.005" solver="CG" iterations="3"/>
  <worldbody>
    <geom type="plane" size="5 5 0.1"/>
    <body pos="0 0 0.3">
      <freejoint/>
      <geom type="box" size="0.1 0.1 0.05" mass="1"/>
      <site name="imu"/>
      <body pos="0.1 0 0">
        <joint name="hip" axis="0 1 0" range="-60 60" damping="0.1"/>
        <geom type="capsule" fromto="0 0 0 0.15 0 -0.15" size="0.02" mass="0.2"/>
        <site name="foot" pos="0.15 0 -0.15" size="0.05"/>
      </body>
    </body>
  </worldbody>
  <actuator><motor joint="hip" gear="5" ctrlrange="-1 1"/></actuator>
  <sensor>
    <framepos name="foot_position" objtype="site" objname="foot"/>
    <velocimeter name="velocity" site="imu"/>
    <gyro name="gyro" site="imu"/>
    <touch name="touch" site="foot"/>
    <accelerometer name="acceleration" site="imu"/>
  </sensor>
</mujoco>
"""
"""A box with one leg on a floor: contacts, a limit, and sensors of all three stages. Three CG iterations leave the
solver short of convergence, so that a lost warm start changes the result."""

SLIDER_XML = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody><body><joint name="slide" type="slide" axis="1 0 0"/><geom size="0.1" mass="1"/></body></worldbody>
  <actuator><motor joint="slide" ctrlrange="-2 6"/></actuator>
</mujoco>
"""
"""One kilogram on a rail without friction: x'' = force / (1 kg)."""


class Slider(Task):
    """A mass on a rail; lost beyond 1 m. 20 steps an episode."""

    name = "slider"
    instruction = "stay near the centre"
    action_doc = "1 force"
    xml = SLIDER_XML
    control_dt_s = 0.02
    episode_length_s = 0.4
    signal_table = SignalTable(
        [
            Signal("position", 1, "m", "joint", "joint_pos", "of the mass"),
            Signal("velocity", 1, "m/s", "joint", "joint_vel", "of the mass"),
            Signal("actions", 1, "1", "-", "action", "of this step"),
            Signal("previous_actions", 1, "1", "-", "action", "of the step before"),
        ]
    )
    fitness_unit = "m"
    fitness_doc = "minus the distance"

    start_spread_m = 0.1

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Near the centre, at rest."""
        n = len(env_ids)
        spread = self.start_spread_m
        sim.set_state(env_ids, torch.rand(n, 1, generator=rng) * 2 * spread - spread, torch.zeros(n, 1))

    def signals(self, sim: SimulationState) -> Signals:
        """State and actions."""
        return {
            "position": sim.qpos,
            "velocity": sim.qvel,
            "actions": sim.memory["actions"],
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """Position and velocity (N, 2)."""
        return torch.cat([signals["position"], signals["velocity"]], dim=-1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Beyond one metre."""
        return {"lost": signals["position"][:, 0].abs() > 1.0}

    def fitness(self, signals: Signals) -> Tensor:
        """Minus the distance from the centre."""
        return -signals["position"][:, 0].abs()
