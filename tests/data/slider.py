"""A mass on a rail that should come to the middle: the smallest task that can be learnt, for tests of the whole."""

import torch

from tasks.math import uniform
from tasks.signals import Signal, SignalTable
from tasks.task import Task


class Slider(Task):
    """A 1 kg mass slides without friction; a motor pushes it with up to 4 N."""

    name = "slider"
    instruction = "bring the mass to the middle of the rail and keep it there"
    action_doc = "force on the mass, 1 means 4 N to the right"
    control_dt_s = 0.05
    episode_length_s = 2.0
    xml = """
    <mujoco>
      <option timestep="0.025" gravity="0 0 0"/>
      <worldbody>
        <light pos="0 0 3"/>
        <body>
          <joint name="rail" type="slide" axis="1 0 0"/>
          <geom type="box" size=".1 .1 .1" mass="1"/>
        </body>
      </worldbody>
      <actuator><motor joint="rail" gear="4" ctrlrange="-1 1"/></actuator>
    </mujoco>
    """
    signal_table = SignalTable(
        [
            Signal("mass_position", 1, "m", "world", "position", "place of the mass on the rail, 0 is the middle"),
            Signal("mass_velocity", 1, "m/s", "world", "linear_velocity", "velocity of the mass along the rail"),
            Signal("actions", 1, "1", "-", "action", "what the policy asked for"),
        ]
    )
    fitness_unit = "m"
    fitness_doc = "minus the mean distance from the middle"
    fitness_failed = -2.0
    training = {
        "num_envs": 32,
        "steps_per_env": 10,
        "iterations": 4,
        "eval_episodes": 8,
        "ppo": {"hidden_dims": (16,), "num_learning_epochs": 2, "num_mini_batches": 2},
    }

    def reset(self, sim, env_ids, rng):
        """Start anywhere within a metre, at rest."""
        start = uniform((len(env_ids), 1), -1.0, 1.0, rng)
        sim.set_state(env_ids, start, torch.zeros_like(start))

    def signals(self, sim):
        """Position and velocity of the mass."""
        return {"mass_position": sim.qpos, "mass_velocity": sim.qvel, "actions": sim.memory["actions"]}

    def observe(self, signals):
        """Position and velocity."""
        return torch.cat([signals["mass_position"], signals["mass_velocity"]], dim=1)

    def terminate(self, signals):
        """The rail ends after two metres."""
        return {"off_the_rail": signals["mass_position"][:, 0].abs() > 2.0}

    def fitness(self, signals):
        """Hidden from designers."""
        return -signals["mass_position"][:, 0].abs()
