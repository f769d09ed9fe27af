"""Two masses on two rails: a body that is not the slider's, for tests of heads with several."""

import torch

from tasks.math import uniform
from tasks.signals import Signal, SignalTable
from tasks.task import Task


class Pair(Task):
    """Two masses of 1 kg slide without friction; a motor pushes each with up to 4 N."""

    name = "pair"
    instruction = "bring both masses to the middle"
    action_doc = "force on each mass, 1 means 4 N to the right"
    control_dt_s = 0.05
    episode_length_s = 2.0
    xml = """
    <mujoco>
      <option timestep="0.025" gravity="0 0 0"/>
      <worldbody>
        <light pos="0 0 3"/>
        <body>
          <joint name="near" type="slide" axis="1 0 0"/>
          <geom type="box" size=".1 .1 .1" mass="1"/>
        </body>
        <body pos="0 1 0">
          <joint name="far" type="slide" axis="1 0 0"/>
          <geom type="box" size=".1 .1 .1" mass="1"/>
        </body>
      </worldbody>
      <actuator>
        <motor joint="near" gear="4" ctrlrange="-1 1"/>
        <motor joint="far" gear="4" ctrlrange="-1 1"/>
      </actuator>
    </mujoco>
    """
    signal_table = SignalTable(
        [
            Signal("places", 2, "m", "joint", "joint_pos", "places of the masses"),
            Signal("speeds", 2, "m/s", "joint", "joint_vel", "velocities of the masses"),
            Signal("actions", 2, "1", "-", "action", "what the policy asked for"),
        ]
    )
    fitness_unit = "m"
    fitness_doc = "minus the mean distance from the middle"
    fitness_failed = -2.0

    def reset(self, sim, env_ids, rng):
        """Start anywhere within a metre, at rest."""
        start = uniform((len(env_ids), 2), -1.0, 1.0, rng)
        sim.set_state(env_ids, start, torch.zeros_like(start))

    def signals(self, sim):
        """Places and velocities."""
        return {"places": sim.qpos, "speeds": sim.qvel, "actions": sim.memory["actions"]}

    def observe(self, signals):
        """Places, then velocities."""
        return torch.cat([signals["places"], signals["speeds"]], dim=1)

    def terminate(self, signals):
        """The rails end after two metres."""
        return {"off_the_rail": (signals["places"].abs() > 2.0).any(dim=1)}

    def fitness(self, signals):
        """Hidden from designers."""
        return -signals["places"].abs().mean(dim=1)
