"""A Panda that opens the drawer of a cabinet by its handle.

After IsaacGymEnvs' FrankaCabinet and Isaac Lab's Isaac-Franka-Cabinet-Direct: a drawer that comes out 0.40 m, joint
targets moved by the actions, 8 s. Differs: the cabinet is built here of boxes, its handle 0.72 m ahead of the robot's
base and 0.55 m up; the arm starts with the gripper towards it, 0.35 m away; the gripper is one action instead of two;
the episode goes on when the drawer is open.

Does not model: what is in the drawer, friction that varies, sensor noise.
Axes: N worlds, 8 actions. The robot stands at the origin and faces +x; y is left, z up.
"""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import torch
from torch import Tensor

from tasks.math import constant, uniform
from tasks.robots import panda
from tasks.robots.edit import add_sensors, compile_spec
from tasks.scene import add_box, furnish
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

DRAWER_RANGE_M = 0.40
"""The stop of IsaacGymEnvs' cabinet."""
HANDLE_POSITION_M = (0.72, 0.0, 0.55)
HANDLE_RADIUS_M, HANDLE_HALF_LENGTH_M, HANDLE_STANDOFF_M = 0.01, 0.09, 0.05
DRAWER_MASS_KG, DRAWER_DAMPING_N_S_M, DRAWER_FRICTION_N = 2.0, 4.0, 1.0
"""Chosen here, as a light kitchen drawer."""

START_JOINT_POS_RAD = (0.0, -0.8, 0.0, -2.4, 0.0, 3.1, -0.785)
"""Gripper forward, one finger above the other."""
START_NOISE_RAD = 0.125
"""Uniform on each joint: Isaac Lab."""
START_FINGER_M = 0.035
"""Isaac Lab."""
TARGET_LEASH_RAD = 0.2
"""Targets stay this close to where the joints are, so that a blocked arm does not wind up."""

FITNESS_OPEN_M = 0.39


class FrankaCabinet(Task):
    """Pull the drawer open."""

    name = "franka-cabinet"
    instruction = "make the Franka arm open the drawer of the cabinet by its handle, as far as it goes"
    action_doc = (
        "8 numbers in [-1, 1] (values outside are clipped). The first 7 move the position targets of the arm's joints, "
        "base to wrist: 1 is 2.175 rad/s, 0 leaves the target where it is; servos follow the targets. The last is the "
        "gripper: -1 closed, 1 open (0.08 m between the fingers)."
    )
    robot = panda.ROBOT
    control_dt_s = 0.04
    episode_length_s = 8.0
    camera = "side"
    signal_table = SignalTable(
        [
            Signal("joint_pos", 7, "rad", "joint", "joint_pos", "arm joints, base to wrist"),
            Signal(
                "joint_pos_fraction", 7, "1", "joint", "joint_pos", "joint_pos in its range: -1 lower, 1 upper limit"
            ),
            Signal("joint_vel", 7, "rad/s", "joint", "joint_vel", "of the arm's joints"),
            Signal("joint_target_offset", 7, "rad", "joint", "joint_pos", "from joint_pos to the servos' targets"),
            Signal("finger_pos", 2, "m", "joint", "joint_pos", "left, right finger: 0 closed, 0.04 open"),
            Signal("grip_position_w", 3, "m", "world", "position", "point between the fingertips"),
            Signal("grip_velocity_w", 3, "m/s", "world", "linear_velocity", "velocity of that point"),
            Signal("grip_forward_axis_w", 3, "1", "world", "direction", "where the gripper points"),
            Signal("grip_up_axis_w", 3, "1", "world", "direction", "from the right finger to the left finger"),
            Signal("left_fingertip_position_w", 3, "m", "world", "position", "of the left finger's pad"),
            Signal("right_fingertip_position_w", 3, "m", "world", "position", "of the right finger's pad"),
            Signal(
                "handle_position_w", 3, "m", "world", "position", "middle of the handle, a bar along y; it pulls to -x"
            ),
            Signal("handle_offset_w", 3, "m", "world", "position", "from grip_position_w to the handle"),
            Signal("handle_distance", 1, "m", "world", "distance", "the length of handle_offset_w"),
            Signal("drawer_pos", 1, "m", "joint", "joint_pos", "how far the drawer is out: 0 closed, 0.40 at its stop"),
            Signal("drawer_vel", 1, "m/s", "joint", "joint_vel", "positive while it opens"),
            Signal("actions", 8, "1", "joint", "action", "actions of this step, clipped to [-1, 1]"),
            Signal("previous_actions", 8, "1", "joint", "action", "actions of the step before"),
        ]
    )
    fitness_unit = "share of episodes"
    fitness_doc = "share of episodes in which the drawer comes out past 0.39 m (its stop is at 0.40 m)"
    fitness_reduce = "max"

    def build_model(self) -> mujoco.MjModel:
        """The Panda's training model and the cabinet. Raises UserError where the robot cannot be had."""
        return compile_spec(_scene(panda.training_spec()), self.name)

    def build_visual_model(self) -> mujoco.MjModel:
        """The same with the Panda as shipped."""
        return compile_spec(_scene(panda.visual_spec()), self.name)

    def setup(self, sim: Simulation) -> None:
        """Where the servos' targets are."""
        sim.memory["joint_target"] = torch.tensor(START_JOINT_POS_RAD, device=sim.device).repeat(sim.num_envs, 1)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Near the start pose, gripper open, drawer closed, nothing moving."""
        n = len(env_ids)
        arm = constant(START_JOINT_POS_RAD, sim.device) + uniform((n, 7), -START_NOISE_RAD, START_NOISE_RAD, rng)
        qpos = torch.cat([arm, torch.full((n, 2), START_FINGER_M), torch.zeros(n, 1)], dim=-1)
        sim.memory["joint_target"] = sim.memory["joint_target"].index_copy(0, env_ids, arm)
        sim.set_state(env_ids, qpos, torch.zeros(n, sim.model.nv))

    def act(self, sim: Simulation, actions: Tensor) -> None:
        """Move the arm's targets; set the gripper's."""
        low, high = self._ctrl_range(sim)
        joint_pos = sim.qpos[:, :7]
        target = sim.memory["joint_target"] + panda.MAX_JOINT_SPEED_RAD_S * self.control_dt_s * actions[:, :7]
        target = torch.clamp(target, joint_pos - TARGET_LEASH_RAD, joint_pos + TARGET_LEASH_RAD)
        target = torch.clamp(target, low[:7], high[:7])
        sim.memory["joint_target"] = target
        gripper = low[7:] + 0.5 * (actions[:, 7:] + 1.0) * (high[7:] - low[7:])
        sim.set_ctrl(torch.cat([target, gripper], dim=-1))

    def signals(self, sim: SimulationState) -> Signals:
        """Joints from qpos and qvel, points in space from sensors."""
        joint_pos = sim.qpos[:, :7]
        low, high = self._ctrl_range(sim)
        grip, handle = sim.sensor("grip_position"), sim.sensor("handle_position")
        offset = handle - grip
        return {
            "joint_pos": joint_pos,
            "joint_pos_fraction": (2.0 * joint_pos - (low[:7] + high[:7])) / (high[:7] - low[:7]),
            "joint_vel": sim.qvel[:, :7],
            "joint_target_offset": sim.memory["joint_target"] - joint_pos,
            "finger_pos": sim.qpos[:, 7:9],
            "grip_position_w": grip,
            "grip_velocity_w": sim.sensor("grip_velocity"),
            "grip_forward_axis_w": sim.sensor("grip_forward"),
            "grip_up_axis_w": sim.sensor("grip_up"),
            "left_fingertip_position_w": sim.sensor("left_tip_position"),
            "right_fingertip_position_w": sim.sensor("right_tip_position"),
            "handle_position_w": handle,
            "handle_offset_w": offset,
            "handle_distance": torch.linalg.norm(offset, dim=-1, keepdim=True),
            "drawer_pos": sim.qpos[:, 9:],
            "drawer_vel": sim.qvel[:, 9:],
            "actions": sim.memory["actions"],
            "previous_actions": sim.memory["previous_actions"],
        }

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees (N, 36): joints, servos, gripper, the way to the handle, the drawer."""
        parts = (
            "joint_pos_fraction",
            "joint_vel",
            "joint_target_offset",
            "finger_pos",
            "grip_forward_axis_w",
            "grip_up_axis_w",
            "handle_offset_w",
            "drawer_pos",
            "drawer_vel",
        )
        return torch.cat([signals[name] for name in parts], dim=-1)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Nothing ends an episode but its time."""
        return {}

    def fitness(self, signals: Signals) -> Tensor:
        """1 while the drawer is open, else 0; the episode keeps the largest."""
        return (signals["drawer_pos"][:, 0] > FITNESS_OPEN_M).float()

    def visual_qpos(self, qpos: Tensor, memory: Mapping[str, Tensor]) -> Tensor:
        """The robot as shipped has the same joints."""
        return qpos


def _scene(spec: mujoco.MjSpec) -> mujoco.MjSpec:
    """Add the cabinet, what is measured, light and a camera to a Panda."""
    furnish(spec, camera="side", position=(0.55, -1.75, 1.15), target=(0.45, 0.0, 0.5))
    _add_cabinet(spec)
    for kind, names in (
        (
            mujoco.mjtSensor.mjSENS_FRAMEPOS,
            {f"{site}_position": site for site in ("grip", "left_tip", "right_tip", "handle")},
        ),
        (mujoco.mjtSensor.mjSENS_FRAMELINVEL, {"grip_velocity": "grip"}),
        (mujoco.mjtSensor.mjSENS_FRAMEZAXIS, {"grip_forward": "grip"}),
        (mujoco.mjtSensor.mjSENS_FRAMEYAXIS, {"grip_up": "grip"}),
    ):
        add_sensors(spec, kind, mujoco.mjtObj.mjOBJ_SITE, names)
    return spec


def _add_cabinet(spec: mujoco.MjSpec) -> None:
    """A cabinet with one drawer; the gripper can touch the handle, the drawer's front and the frame around it."""
    touched = {"contype": panda.OBJECT_CONTYPE, "conaffinity": panda.OBJECT_CONAFFINITY}
    wood, pale, steel = (0.50, 0.36, 0.24, 1.0), (0.72, 0.58, 0.42, 1.0), (0.75, 0.77, 0.80, 1.0)
    handle_x, _, height = HANDLE_POSITION_M
    front_x = handle_x + HANDLE_STANDOFF_M
    cabinet = spec.worldbody.add_body(name="cabinet", pos=[front_x, 0.0, 0.0])
    above, below = height + 0.11, height - 0.11
    add_box(cabinet, "frame_top", (0.21, 0.0, above + 0.08), (0.20, 0.25, 0.08), wood, **touched)
    add_box(cabinet, "frame_bottom", (0.21, 0.0, below / 2), (0.20, 0.25, below / 2), wood, **touched)
    for side, y in (("left", 0.24), ("right", -0.24)):
        add_box(cabinet, f"frame_{side}", (0.21, y, height), (0.20, 0.01, 0.11), wood, contype=0, conaffinity=0)
    drawer = cabinet.add_body(name="drawer", pos=[0.0, 0.0, height])
    drawer.add_joint(
        name="drawer",
        type=mujoco.mjtJoint.mjJNT_SLIDE,
        axis=[-1.0, 0.0, 0.0],
        range=[0.0, DRAWER_RANGE_M],
        damping=[DRAWER_DAMPING_N_S_M, 0.0, 0.0],
        frictionloss=DRAWER_FRICTION_N,
    )
    drawer.mass, drawer.ipos, drawer.inertia = DRAWER_MASS_KG, [0.2, 0.0, 0.0], [0.03, 0.03, 0.04]
    drawer.explicitinertial = True
    add_box(drawer, "drawer_front", (0.01, 0.0, 0.0), (0.01, 0.22, 0.10), pale, **touched)
    add_box(drawer, "drawer_floor", (0.20, 0.0, -0.09), (0.19, 0.21, 0.005), pale, contype=0, conaffinity=0)
    for side, y in (("left", 0.21), ("right", -0.21)):
        add_box(drawer, f"drawer_{side}", (0.20, y, -0.03), (0.19, 0.005, 0.06), pale, contype=0, conaffinity=0)
    for side, y in (("left", HANDLE_HALF_LENGTH_M), ("right", -HANDLE_HALF_LENGTH_M)):
        size = (HANDLE_STANDOFF_M / 2, 0.006, 0.006)
        add_box(drawer, f"post_{side}", (-HANDLE_STANDOFF_M / 2, y, 0.0), size, steel, contype=0, conaffinity=0)
    drawer.add_geom(
        name="handle",
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[-HANDLE_STANDOFF_M, -HANDLE_HALF_LENGTH_M, 0.0, -HANDLE_STANDOFF_M, HANDLE_HALF_LENGTH_M, 0.0],
        size=[HANDLE_RADIUS_M, 0.0, 0.0],
        rgba=list(steel),
        **touched,
    )
    drawer.add_site(name="handle", pos=[-HANDLE_STANDOFF_M, 0.0, 0.0], size=[0.001, 0.0, 0.0], group=5)
