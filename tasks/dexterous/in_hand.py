"""What tasks share in which a hand turns an object to one goal orientation after another.

After IsaacGymEnvs' AllegroHand and ShadowHand, and Isaac Lab's in-hand manipulation: goals of random orientation, a
new one as soon as one is reached, servo targets as actions, an episode over when the object is dropped. Differs:
targets lie around a rest pose that holds the object (action 0), are smoothed, and move at 20 Hz as MuJoCo
Playground's LEAP hand does.

It does not know which hand, which object, or how close to a goal counts as reached: a task's file says these.
Axes: N worlds, A servos, J joints, F fingers. World frame: z up, the fingers point along +x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from tasks.math import (
    constant,
    quat_conjugate,
    quat_from_axis_angle,
    quat_multiply,
    quat_rotate,
    quat_to_rotation_vector,
    uniform,
)
from tasks.robots.edit import add_sensors, compile_spec, require_bodies
from tasks.scene import furnish
from tasks.signals import Signal, Signals, SignalTable
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

TARGET_SMOOTHING = 0.5
"""Share of the new target in what the servos get; the rest is what they had. Isaac Lab's Shadow hand, OpenAI variant:
0.3."""
START_JOINT_NOISE_RAD = 0.1
"""Uniform on each joint: MuJoCo Playground's LEAP hand has a normal one of this size."""
START_POSITION_NOISE_M = 0.01
"""Uniform on each axis: IsaacGymEnvs."""
GHOST_OFFSET_M = (0.10, 0.0, 0.17)
"""Where videos show the goal, from where the object is held."""


@dataclass(frozen=True)
class Grasp:
    """A hand and how it holds the object at the start of an episode."""

    training_spec: Callable[[], mujoco.MjSpec]
    """The hand's training model."""
    visual_spec: Callable[[], mujoco.MjSpec]
    """The hand as shipped."""
    root: str
    """The body it hangs on."""
    tips: tuple[str, ...]
    """Sites at the ends of its fingers."""
    joints: int
    """How many joints it has; they are the first of qpos."""
    servo_joints: tuple[tuple[int, ...], ...]
    """For each servo the joints whose sum it sets."""
    rest_rad: tuple[float, ...]
    """Servo targets that hold the object, one a servo."""
    reach_rad: float
    """How far from the rest pose an action of -1 or 1 sets a target; ends of a servo's range cut it off."""
    tilt_rad: float
    """How far the fingers point above the horizontal."""
    roll_rad: float
    """Turn of the hand about the direction of its fingers; positive lowers its -y side."""
    hold_position_m: tuple[float, float, float]
    """Where the object rests, world frame."""


HAND_HEIGHT_M = 0.5
"""Of the hand's root above the floor."""
MIN_HEIGHT_M = HAND_HEIGHT_M - 0.05
"""Below this the object's centre is under the palm: MuJoCo Playground's LEAP hand."""


def signal_table(grasp: Grasp, fingers: str, thing: str, position: str, axis_note: str = "") -> SignalTable:
    """The signals of an in-hand task.

    Args:
        grasp: The hand.
        fingers: The order of its fingers, in words.
        thing: What is turned, in words.
        position: The order of its joints, in words.
        axis_note: What to add about the rotation that is left.
    """
    joints, servos, tips = grasp.joints, len(grasp.servo_joints), 3 * len(grasp.tips)
    return SignalTable(
        [
            Signal("joint_pos", joints, "rad", "joint", "joint_pos", f"joints of the hand: {position}"),
            Signal(
                "joint_pos_fraction",
                joints,
                "1",
                "joint",
                "joint_pos",
                "joint_pos in its range: -1 lower, 1 upper limit",
            ),
            Signal("joint_vel", joints, "rad/s", "joint", "joint_vel", "joint velocities"),
            Signal(
                "servo_target_offset", servos, "rad", "joint", "joint_pos", "from where the servos are to their targets"
            ),
            Signal("fingertip_position_w", tips, "m", "world", "position", f"x, y, z of each fingertip: {fingers}"),
            Signal("fingertip_offset_w", tips, "m", "world", "position", f"the same from the {thing}'s centre"),
            Signal("object_position_w", 3, "m", "world", "position", f"centre of the {thing}"),
            Signal("object_orientation_w", 4, "1", "world", "orientation", f"of the {thing}, unit quaternion, w first"),
            Signal("object_linear_velocity_w", 3, "m/s", "world", "linear_velocity", f"of the {thing}"),
            Signal("object_angular_velocity_w", 3, "rad/s", "world", "angular_velocity", f"of the {thing}"),
            Signal(
                "hold_offset_w", 3, "m", "world", "position", f"from where the {thing} lies in the hand to its centre"
            ),
            Signal("hold_distance", 1, "m", "world", "distance", "the length of hold_offset_w"),
            Signal(
                "goal_orientation_w", 4, "1", "world", "command", "orientation to reach; a new one follows once it is"
            ),
            Signal(
                "rotation_to_goal_w", 3, "rad", "world", "position", f"axis times angle of the rotation left{axis_note}"
            ),
            Signal("rotation_distance", 1, "rad", "-", "distance", "the angle of that rotation, 0 to pi"),
            Signal("actions", servos, "1", "joint", "action", "actions of this step, clipped to [-1, 1]"),
            Signal("previous_actions", servos, "1", "joint", "action", "actions of the step before"),
        ]
    )


class InHandTask(Task):
    """Base class: a subclass names the hand, adds the object, and says what the policy sees."""

    grasp: ClassVar[Grasp]
    """The hand."""
    goal_tolerance_rad: ClassVar[float]
    """A new goal follows when `rotation_distance` is below this."""
    control_dt_s = 0.05
    episode_length_s = 20.0
    camera = "palm"
    fitness_reduce = "sum"

    def add_object(self, body: mujoco.MjsBody, *, ghost: bool, visual: bool) -> None:
        """Add the object's geoms to its body.

        Args:
            body: Has its free joint already.
            ghost: Whether it is the picture of the goal: touches nothing, weighs nothing, half transparent.
            visual: Whether the model is for videos.
        """
        raise NotImplementedError

    def start_orientation(self, n: int, rng: torch.Generator) -> Tensor:
        """Orientations of the object at the start of an episode (n, 4). Here: `random_rotation`."""
        return random_rotation(n, rng)

    def next_goal(self, previous: Tensor, rng: torch.Generator) -> Tensor:
        """The goals (n, 4) that follow `previous` (n, 4), a goal or the start. Here: as random as the start."""
        return random_rotation(len(previous), rng)

    def rotation_left(self, orientation: Tensor, goal: Tensor) -> Tensor:
        """Axis times angle, world frame, that turns orientation (n, 4) into goal (n, 4). (n, 3)."""
        return quat_to_rotation_vector(quat_multiply(goal, quat_conjugate(orientation)))

    def build_model(self) -> mujoco.MjModel:
        """The hand's training model with the object. Raises UserError where the robot cannot be had."""
        return compile_spec(self._scene(self.grasp.training_spec(), visual=False), self.name)

    def build_visual_model(self) -> mujoco.MjModel:
        """The hand as shipped, the object, and a picture of the goal beside them."""
        return compile_spec(self._scene(self.grasp.visual_spec(), visual=True), self.name)

    def visual_qpos(self, qpos: Tensor, memory: Mapping[str, Tensor]) -> Tensor:
        """The same positions, then the goal's place and orientation."""
        place = torch.tensor(self.grasp.hold_position_m) + torch.tensor(GHOST_OFFSET_M)
        return torch.cat([qpos, place.to(qpos).expand(len(qpos), 3), memory["goal_orientation_w"]], dim=-1)

    def setup(self, sim: Simulation) -> None:
        """Targets, goals, and the numbers that all worlds share."""
        grasp, joints = self.grasp, self.grasp.joints
        rest = torch.tensor(grasp.rest_rad, device=sim.device)
        sim.constants["rest_target"] = rest
        rest_pos = [0.0] * joints
        for angle, parts in zip(grasp.rest_rad, grasp.servo_joints, strict=True):
            for joint in parts:
                rest_pos[joint] = angle / len(parts)
        sim.constants["rest_joint_pos"] = torch.tensor(rest_pos, device=sim.device)
        limits = torch.tensor(sim.model.jnt_range[:joints], dtype=torch.float32, device=sim.device)
        sim.constants["joint_low"], sim.constants["joint_high"] = limits[:, 0].clone(), limits[:, 1].clone()
        sim.constants["hold_position"] = torch.tensor(grasp.hold_position_m, device=sim.device)
        sim.memory["servo_target"] = rest.repeat(sim.num_envs, 1)
        unit = torch.tensor([1.0, 0.0, 0.0, 0.0], device=sim.device)
        sim.memory["goal_orientation_w"] = unit.repeat(sim.num_envs, 1)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """The hand near its rest pose, the object just above where it is held, a first goal."""
        n, joints = len(env_ids), self.grasp.joints
        rest, low, high = (sim.constants[name] for name in ("rest_joint_pos", "joint_low", "joint_high"))
        noise = uniform((n, joints), -START_JOINT_NOISE_RAD, START_JOINT_NOISE_RAD, rng)
        hand = torch.clamp(rest + noise, low, high)
        shift = uniform((n, 3), -START_POSITION_NOISE_M, START_POSITION_NOISE_M, rng)
        shift[:, 2] += START_POSITION_NOISE_M
        orientation = self.start_orientation(n, rng)
        goal = self.next_goal(orientation, rng)
        memory = sim.memory
        target = sim.constants["rest_target"].expand(n, -1)
        memory["servo_target"] = memory["servo_target"].index_copy(0, env_ids, target)
        memory["goal_orientation_w"] = memory["goal_orientation_w"].index_copy(0, env_ids, goal)
        qpos = torch.cat([hand, sim.constants["hold_position"] + shift, orientation], dim=-1)
        sim.set_state(env_ids, qpos, torch.zeros(n, sim.model.nv))

    def act(self, sim: Simulation, actions: Tensor) -> None:
        """Smoothed servo targets around the rest pose."""
        low, high = self._ctrl_range(sim)
        wanted = torch.clamp(sim.constants["rest_target"] + self.grasp.reach_rad * actions, low, high)
        target = TARGET_SMOOTHING * wanted + (1.0 - TARGET_SMOOTHING) * sim.memory["servo_target"]
        sim.memory["servo_target"] = target
        sim.set_ctrl(target)

    def signals(self, sim: SimulationState) -> Signals:
        """Joints and object from qpos and qvel, fingertips from sensors."""
        grasp, joints = self.grasp, self.grasp.joints
        joint_pos, low, high = sim.qpos[:, :joints], sim.constants["joint_low"], sim.constants["joint_high"]
        position, orientation = sim.qpos[:, joints : joints + 3], sim.qpos[:, joints + 3 :]
        tips = torch.cat([sim.sensor(f"{tip}_position") for tip in grasp.tips], dim=-1)
        hold_offset = position - sim.constants["hold_position"]
        goal = sim.memory["goal_orientation_w"]
        left = self.rotation_left(orientation, goal)
        return {
            "joint_pos": joint_pos,
            "joint_pos_fraction": (2.0 * joint_pos - (low + high)) / (high - low),
            "joint_vel": sim.qvel[:, :joints],
            "servo_target_offset": sim.memory["servo_target"] - servo_positions(joint_pos, grasp.servo_joints),
            "fingertip_position_w": tips,
            "fingertip_offset_w": tips - position.repeat(1, len(grasp.tips)),
            "object_position_w": position,
            "object_orientation_w": orientation,
            "object_linear_velocity_w": sim.qvel[:, joints : joints + 3],
            # A free joint's angular velocity is in the body's frame.
            "object_angular_velocity_w": quat_rotate(orientation, sim.qvel[:, joints + 3 :]),
            "hold_offset_w": hold_offset,
            "hold_distance": torch.linalg.norm(hold_offset, dim=-1, keepdim=True),
            "goal_orientation_w": goal,
            "rotation_to_goal_w": left,
            "rotation_distance": torch.linalg.norm(left, dim=-1, keepdim=True),
            "actions": sim.memory["actions"],
            "previous_actions": sim.memory["previous_actions"],
        }

    def update(self, sim: Simulation, signals: Signals, rng: torch.Generator) -> Tensor:
        """A new goal where one was reached."""
        reached = signals["rotation_distance"][:, 0] < self.goal_tolerance_rad
        goals = sim.memory["goal_orientation_w"]
        sim.memory["goal_orientation_w"] = torch.where(reached[:, None], self.next_goal(goals, rng), goals)
        return reached

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """The object has fallen off the hand."""
        return {"dropped": signals["object_position_w"][:, 2] < MIN_HEIGHT_M}

    def fitness(self, signals: Signals) -> Tensor:
        """1 in a step that reaches the goal."""
        return (signals["rotation_distance"][:, 0] < self.goal_tolerance_rad).float()

    def _scene(self, spec: mujoco.MjSpec, *, visual: bool) -> mujoco.MjSpec:
        """Mount the hand, add the object, sensors, light and a camera."""
        grasp = self.grasp
        (root,) = require_bodies(spec, [grasp.root])
        mount(root, (0.0, 0.0, HAND_HEIGHT_M), grasp.tilt_rad, grasp.roll_rad)
        x, y, z = grasp.hold_position_m
        furnish(spec, camera="palm", position=(x + 0.28, y - 0.24, z + 0.30), target=(x + 0.03, y, z + 0.06))
        for name in ("object", "goal") if visual else ("object",):
            body = spec.worldbody.add_body(name=name, pos=[x, y, z])
            body.add_freejoint(name=name)
            self.add_object(body, ghost=name == "goal", visual=visual)
        tips = {f"{tip}_position": tip for tip in grasp.tips}
        add_sensors(spec, mujoco.mjtSensor.mjSENS_FRAMEPOS, mujoco.mjtObj.mjOBJ_SITE, tips)
        return spec


def random_rotation(n: int, rng: torch.Generator) -> Tensor:
    """Turned about y, then about x, by uniform angles: (n, 4). IsaacGymEnvs' distribution of starts and goals."""
    x, y = (constant(axis, rng.device).expand(n, 3) for axis in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)))
    about_x, about_y = (uniform((n,), -math.pi, math.pi, rng) for _ in range(2))
    return quat_multiply(quat_from_axis_angle(x, about_x), quat_from_axis_angle(y, about_y))


def servo_positions(joint_pos: Tensor, servo_joints: Sequence[Sequence[int]]) -> Tensor:
    """What each servo holds: the angle of its joint, or the sum of those it pulls together. (N, J) -> (N, A)."""
    device = joint_pos.device
    firsts, lasts = (
        constant(tuple(parts[end] for parts in servo_joints), device, torch.int64) for end in (0, -1)
    )  # joints
    first = joint_pos[:, firsts]
    if all(len(parts) == 1 for parts in servo_joints):
        return first
    coupled = constant(tuple(float(len(parts) > 1) for parts in servo_joints), device)
    return first + coupled * joint_pos[:, lasts]


def mount(root: mujoco.MjsBody, position: Sequence[float], tilt_rad: float, roll_rad: float) -> None:
    """Put a hand, which as shipped lies palm up with its fingers along +x, at a place, rolled about x, then tilted
    up."""
    turn, roll, quat = torch.zeros(4), torch.zeros(4), torch.tensor(root.quat, dtype=torch.float32)
    turn[[0, 2]] = torch.tensor([math.cos(-tilt_rad / 2), math.sin(-tilt_rad / 2)])
    roll[[0, 1]] = torch.tensor([math.cos(roll_rad / 2), math.sin(roll_rad / 2)])
    root.pos = list(position)
    root.quat = quat_multiply(turn, quat_multiply(roll, quat / quat.norm())).tolist()


def solid(
    body: mujoco.MjsBody, *, ghost: bool, mass_kg: float, friction: tuple[float, float, float]
) -> dict[str, object]:
    """Arguments of an object's geom: touched by the hand and nothing else, or a picture of it without mass."""
    if ghost:
        return {"contype": 0, "conaffinity": 0, "mass": 0.001}
    # contype 0, conaffinity 1: see OBJECT_CONTYPE in the hands' files. Its friction counts, not the hand's (priority).
    return {"contype": 0, "conaffinity": 1, "mass": mass_kg, "friction": list(friction), "priority": 1, "condim": 4}


def add_cube(body: mujoco.MjsBody, half_m: float, *, ghost: bool, visual: bool, material: dict[str, object]) -> None:
    """A cube with a colour on each face: +x red, -x cyan, +y green, -y magenta, +z blue, -z yellow."""
    prefix = "goal" if ghost else "object"
    alpha = 0.55 if ghost else 1.0
    body.add_geom(
        name=prefix, type=mujoco.mjtGeom.mjGEOM_BOX, size=[half_m] * 3, rgba=[0.9, 0.9, 0.9, alpha], **material
    )
    if not visual:
        return
    colours = ((0.8, 0.2, 0.2), (0.2, 0.7, 0.8), (0.2, 0.7, 0.2), (0.8, 0.2, 0.7), (0.2, 0.3, 0.8), (0.9, 0.8, 0.2))
    for face, colour in enumerate(colours):
        axis, side = face // 2, 1.0 - 2.0 * (face % 2)
        position, size = [0.0] * 3, [0.85 * half_m] * 3
        position[axis], size[axis] = side * half_m, 0.0004
        body.add_geom(
            name=f"{prefix}_face{face}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=position,
            size=size,
            rgba=[*colour, alpha],
            contype=0,
            conaffinity=0,
            mass=0.0,
        )
