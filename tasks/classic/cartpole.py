"""A pole hinged on a cart that runs on a straight rail: two tasks on one model.

Masses, lengths and forces and their sources stand in cartpole.xml. The pole's angle is 0 when it points up and grows
as its tip leans towards +x.

Does not model: motor dynamics, friction of the rail beyond a trace of damping, sensor noise.
Axes: N worlds, 1 action. World x runs along the rail, z is up.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from tasks.math import constant, uniform
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

HINGE_HEIGHT_M = 1.2
HINGE_SIDE_M = -0.13
"""y of the plane in which the pole swings, in front of the cart."""
POLE_LENGTH_M = 1.0

BALANCE_CART_M, BALANCE_CART_M_S = 1.0, 0.5
"""Cart's place and velocity at the start, uniform around 0; Isaac Lab's Cartpole."""
BALANCE_POLE = 0.05
"""Pole's angle and velocity at the start, rad and rad/s, uniform around upright; Gymnasium's CartPole-v1."""
MAX_POLE_ANGLE_RAD = math.radians(12.0)
"""The pole counts as fallen beyond this; Gymnasium's CartPole-v1."""
MAX_CART_POSITION_M = 2.4
"""The cart counts as off the track beyond this; Gymnasium's CartPole-v1."""

SWINGUP_CART_M, SWINGUP_CART_M_S = 0.1, 0.1
"""Cart's place and velocity at the start, uniform around 0."""
SWINGUP_POLE_RAD, SWINGUP_POLE_RAD_S = 0.1, 0.1
"""Pole's angle and velocity at the start, uniform around hanging straight down; dm_control's swing-up with wider noise,
so that no two worlds move alike."""

FITNESS_SECONDS = 10.0
"""A step without failure counts as the whole time limit; their mean over the limit is the time until failure."""
FITNESS_UPRIGHT_COS = 0.95
FITNESS_CENTRED_M = 0.5
"""Upright within 18 degrees and centred: the test of dm_control's sparse cartpole (0.995 and 0.25 m) with wider bounds,
which a policy meets as soon as it balances."""


class _Cartpole(Task):
    """What both tasks share: model, signals and the action."""

    action_doc = (
        "1 horizontal force on the cart as a fraction of the motor limit, in [-1, 1] (values outside are clipped): "
        "1 pushes with 10 N towards +x."
    )
    xml = Path(__file__).with_name("cartpole.xml")
    control_dt_s = 0.02
    episode_length_s = 10.0
    camera = "side"
    signal_table = SignalTable(
        [
            Signal("cart_position", 1, "m", "joint", "joint_pos", "0 at the rail's centre, ends at +-2.5"),
            Signal("cart_velocity", 1, "m/s", "joint", "joint_vel", "cart along the rail"),
            Signal("cart_distance", 1, "m", "world", "distance", "cart from the centre, never negative"),
            Signal("pole_angle", 1, "rad", "joint", "joint_pos", "0 upright, grows towards +x, +-pi hanging"),
            Signal("pole_angular_velocity", 1, "rad/s", "joint", "joint_vel", "rate of pole_angle"),
            Signal(
                "pole_direction_w", 3, "1", "world", "direction", "hinge to tip; (0, 0, 1) upright, z is its cosine"
            ),
            Signal("pole_tip_position_w", 3, "m", "world", "position", "(0, -0.13, 2.2) when upright at the centre"),
            Signal("pole_tip_velocity_w", 3, "m/s", "world", "linear_velocity", "velocity of the pole's tip"),
            Signal("actions", 1, "1", "joint", "action", "action of this step, clipped to [-1, 1]"),
            Signal("previous_actions", 1, "1", "joint", "action", "action of the step before"),
        ]
    )

    def signals(self, sim: SimulationState) -> Signals:
        """Everything from qpos and qvel in closed form."""
        x, theta = sim.qpos[:, :1], sim.qpos[:, 1:]
        x_dot, theta_dot = sim.qvel[:, :1], sim.qvel[:, 1:]
        sin, cos, zero = torch.sin(theta), torch.cos(theta), torch.zeros_like(x)
        hinge = torch.cat([x, zero + HINGE_SIDE_M, zero + HINGE_HEIGHT_M], dim=-1)
        direction = torch.cat([sin, zero, cos], dim=-1)
        swing = POLE_LENGTH_M * theta_dot
        tip_velocity = torch.cat([x_dot + cos * swing, zero, -sin * swing], dim=-1)
        return {
            "cart_position": x,
            "cart_velocity": x_dot,
            "cart_distance": torch.abs(x),
            "pole_angle": torch.atan2(sin, cos),
            "pole_angular_velocity": theta_dot,
            "pole_direction_w": direction,
            "pole_tip_position_w": hinge + POLE_LENGTH_M * direction,
            "pole_tip_velocity_w": tip_velocity,
            "actions": sim.memory["actions"],
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """Position, sine and cosine of the angle, velocities (N, 5)."""
        direction = signals["pole_direction_w"]
        return torch.cat(
            [
                signals["cart_position"],
                direction[:, :1],
                direction[:, 2:],
                signals["cart_velocity"],
                signals["pole_angular_velocity"],
            ],
            dim=-1,
        )


class CartpoleBalance(_Cartpole):
    """The pole starts upright and must not fall; the cart must not leave the track."""

    name = "cartpole-balance"
    instruction = "balance a pole on a cart so that the pole stays upright"
    fitness_unit = "s"
    fitness_doc = "mean time until the pole leans by 12 degrees or the cart is 2.4 m from the centre, of 10 s"
    fitness_reduce = "mean"
    fitness_failed = 0.0

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Upright, the cart up to 1 m from the centre and moving."""
        n = len(env_ids)
        qpos = uniform((n, 2), -1.0, 1.0, rng) * constant((BALANCE_CART_M, BALANCE_POLE), sim.device)
        qvel = uniform((n, 2), -1.0, 1.0, rng) * constant((BALANCE_CART_M_S, BALANCE_POLE), sim.device)
        sim.set_state(env_ids, qpos, qvel)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """The pole has fallen, or the cart has left the track."""
        return {
            "pole_fell": torch.abs(signals["pole_angle"][:, 0]) > MAX_POLE_ANGLE_RAD,
            "cart_off_track": signals["cart_distance"][:, 0] > MAX_CART_POSITION_M,
        }

    def fitness(self, signals: Signals) -> Tensor:
        """10 s for each step without failure."""
        return torch.full_like(signals["cart_position"][:, 0], FITNESS_SECONDS)


class CartpoleSwingup(_Cartpole):
    """The pole starts hanging; nothing ends an episode but its time limit."""

    name = "cartpole-swingup"
    instruction = "swing the pole up and keep it upright near the centre of the track"
    control_dt_s = 0.04
    fitness_unit = "fraction"
    fitness_doc = "fraction of the 10 s with the pole within 18 degrees of upright and the cart within 0.5 m of centre"
    fitness_reduce = "mean"

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """The pole hanging, nearly at rest, the cart near the centre."""
        n = len(env_ids)
        hanging = constant((0.0, math.pi), sim.device)
        spread = constant((SWINGUP_CART_M, SWINGUP_POLE_RAD), sim.device)
        qpos = hanging + uniform((n, 2), -1.0, 1.0, rng) * spread
        qvel = uniform((n, 2), -1.0, 1.0, rng) * constant((SWINGUP_CART_M_S, SWINGUP_POLE_RAD_S), sim.device)
        sim.set_state(env_ids, qpos, qvel)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Nothing: bumpers hold the cart on the rail."""
        return {}

    def fitness(self, signals: Signals) -> Tensor:
        """1 where upright and centred, else 0."""
        upright = signals["pole_direction_w"][:, 2] > FITNESS_UPRIGHT_COS
        return (upright & (signals["cart_distance"][:, 0] < FITNESS_CENTRED_M)).float()
