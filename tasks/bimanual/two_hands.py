"""What tasks share in which two Shadow hands do something together: the scene, servo targets, the hands' signals.

After Bi-DexHands (PKU-MARL/DexterousHands), whose twenty tasks the Eureka paper uses and measures: hands, places,
control at 60 Hz (dt 1/60 s, controlFrequencyInv 1), episodes of as many steps, starts with 1 cm of noise. Differs, in
every task:

- Targets lie around a rest pose (action 0) and are smoothed; there an action spans a joint's whole range.
- A moving base has servos on targets within a stated reach; there it is a free body that forces push about, without
  a limit.
- Objects are primitives with hinges and slides, built here.

It does not know which objects, goals or successes: a task's file says these.
Axes: N worlds, A actions (40, or 52 where the bases move), 24 joints a hand. World frame: z up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import mujoco
import torch
from torch import Tensor

from tasks.dexterous.in_hand import servo_positions
from tasks.dexterous.shadow_grasp import FINGER_ORDER, JOINT_ORDER, SERVO_ORDER
from tasks.math import uniform
from tasks.robots import shadow
from tasks.robots.edit import compile_spec
from tasks.robots.shadow_pair import SIDES, Place, Reach, pair_spec
from tasks.scene import furnish
from tasks.signals import Signal, Signals
from tasks.sim import Simulation, SimulationState
from tasks.task import Task

CONTROL_HZ = 60.0
"""Bi-DexHands."""
TARGET_SMOOTHING = 0.5
"""Share of the new target in what the servos get; the rest is what they had."""
FINGER_REACH_RAD = 1.0
"""From the rest pose to the target at action 1; ends of a servo's range cut it off."""
START_JOINT_NOISE_RAD = 0.05
"""Uniform on each joint. Bi-DexHands has a fifth of the joint's range, with which hands of ours drop what they hold."""
START_POSITION_NOISE_M = 0.01
"""Uniform on each axis that a task lets vary: Bi-DexHands."""
JOINTS, SERVOS, BASE = len(shadow.JOINTS), len(shadow.ACTUATORS), 6


def rest_pose(knuckle: float, curl: float, thumb: Sequence[float]) -> tuple[float, ...]:
    """Servo targets in rad: the wrist straight, all four fingers alike.

    Args:
        knuckle: Of each finger's knuckle.
        curl: The sum of each finger's last two joints.
        thumb: Turn, swing, twist, bend, tip.
    """
    finger = (0.0, knuckle, curl)
    return (0.0, 0.0, *thumb, *finger * 3, 0.0, *finger)


def action_doc(rest: str, reach: Reach | None) -> str:
    """What each action does.

    Args:
        rest: The rest pose, in words.
        reach: How far the bases move.
    """
    hand = (
        f"20 servo targets in the order {SERVO_ORDER}; 0 is the rest pose ({rest}), 1 is {FINGER_REACH_RAD:g} rad "
        "more, within the joint's limits"
    )
    if reach is None:
        return (
            "40 numbers, each in [-1, 1] (values outside are clipped): the right hand's 20, then the left one's. "
            f"Each: {hand}. The bases are fixed. Targets are smoothed over two steps."
        )
    return (
        "52 numbers, each in [-1, 1] (values outside are clipped): the right hand's 26, then the left one's. Each: "
        f"{hand}; then 6 of the hand's base: along the world's x, y, z, 1 is {reach.slide_m:g} m from its start, and "
        "turns about the hand's own axes: the palm's normal, across the palm (positive lowers the fingers of a palm "
        f"that is up), along the fingers, 1 is {reach.turn_rad:g} rad. Targets are smoothed over two steps; a base "
        "follows in about 0.3 s."
    )


def hand_signals(*, moving: bool) -> list[Signal]:
    """The signals of both hands, right before left; `moving` where their bases move."""
    found = []
    for side in SIDES:
        found += [
            Signal(f"{side}_joint_pos", JOINTS, "rad", "joint", "joint_pos", f"{side} hand: {JOINT_ORDER}"),
            Signal(f"{side}_joint_vel", JOINTS, "rad/s", "joint", "joint_vel", "velocities of these joints"),
            Signal(
                f"{side}_servo_target_offset",
                SERVOS,
                "rad",
                "joint",
                "joint_pos",
                "from where the hand's servos are to their targets, in the order of the actions",
            ),
        ]
        if moving:
            turns = "about the palm's normal, across the palm, along the fingers"
            found += [
                Signal(
                    f"{side}_base_slide", 3, "m", "world", "joint_pos", "how far the base is from its start: x, y, z"
                ),
                Signal(f"{side}_base_turn", 3, "rad", "joint", "joint_pos", f"how far it is turned: {turns}"),
                Signal(f"{side}_base_slide_vel", 3, "m/s", "world", "linear_velocity", "of the base: x, y, z"),
                Signal(f"{side}_base_turn_vel", 3, "rad/s", "joint", "joint_vel", "of its turns, in the same order"),
            ]
        found += [
            Signal(f"{side}_palm_position_w", 3, "m", "world", "position", f"middle of the {side} palm's surface"),
            Signal(f"{side}_palm_normal_w", 3, "1", "world", "direction", "where the palm looks"),
            Signal(
                f"{side}_fingertip_position_w", 15, "m", "world", "position", f"x, y, z of each tip: {FINGER_ORDER}"
            ),
        ]
    actions = 2 * (SERVOS + BASE) if moving else 2 * SERVOS
    return [
        *found,
        Signal("actions", actions, "1", "joint", "action", "actions of this step, clipped to [-1, 1]"),
        Signal("previous_actions", actions, "1", "joint", "action", "actions of the step before"),
    ]


class TwoHandsTask(Task):
    """Base class: a subclass places the hands, adds objects, and says what the policy sees."""

    right: ClassVar[Place]
    """Where the right hand is."""
    left: ClassVar[Place]
    """Where the left hand is."""
    reach: ClassVar[Reach | None] = None
    """How far their bases move; None: they are fixed."""
    right_rest_rad: ClassVar[tuple[float, ...]]
    """Servo targets of the right hand at action 0, one a servo."""
    left_rest_rad: ClassVar[tuple[float, ...]]
    """Those of the left hand."""
    camera_position_m: ClassVar[tuple[float, float, float]]
    """Where videos are taken from."""
    camera_target_m: ClassVar[tuple[float, float, float]]
    """What they look at."""
    robot = shadow.ROBOT
    control_dt_s = 1.0 / CONTROL_HZ
    camera = "both"
    fitness_unit = "share of episodes"
    fitness_reduce = "max"

    def add_objects(self, spec: mujoco.MjSpec, *, visual: bool) -> None:
        """Add what the hands handle, with its joints and sensors. `visual`: for videos, with a picture of the goal."""
        raise NotImplementedError

    def start_objects(self, n: int, rng: torch.Generator) -> Tensor:
        """Positions of the objects' joints at the start of n episodes, (n, ...)."""
        raise NotImplementedError

    def build_model(self) -> mujoco.MjModel:
        """Both hands' training models and the objects. Raises UserError where the robot cannot be had."""
        return compile_spec(self._scene(visual=False), self.name)

    def build_visual_model(self) -> mujoco.MjModel:
        """The same with the hands as shipped."""
        return compile_spec(self._scene(visual=True), self.name)

    def setup(self, sim: Simulation) -> None:
        """Targets, and the numbers that all worlds share."""
        base = 0 if self.reach is None else BASE
        still = torch.zeros(base, device=sim.device)
        targets, positions = [], []
        for rest in (self.right_rest_rad, self.left_rest_rad):
            joints = [0.0] * JOINTS
            for angle, parts in zip(rest, shadow.SERVO_JOINTS, strict=True):
                for joint in parts:
                    joints[joint] = angle / len(parts)
            targets += [torch.tensor(rest, device=sim.device), still]
            positions += [still, torch.tensor(joints, device=sim.device)]
        reach = torch.full((SERVOS + base,), FINGER_REACH_RAD, device=sim.device)
        if self.reach is not None:
            reach[SERVOS:] = torch.tensor([self.reach.slide_m] * 3 + [self.reach.turn_rad] * 3, device=sim.device)
        sim.constants["rest_target"] = torch.cat(targets)
        sim.constants["rest_qpos"] = torch.cat(positions)
        sim.constants["action_reach"] = torch.cat([reach, reach])
        limits = torch.tensor(sim.model.jnt_range[: 2 * (base + JOINTS)], dtype=torch.float32, device=sim.device)
        sim.constants["joint_low"], sim.constants["joint_high"] = limits[:, 0].clone(), limits[:, 1].clone()
        sim.memory["servo_target"] = sim.constants["rest_target"].repeat(sim.num_envs, 1)

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """The hands near their rest pose, bases at their places, objects at their start, nothing moving."""
        n = len(env_ids)
        rest, low, high = (sim.constants[name] for name in ("rest_qpos", "joint_low", "joint_high"))
        noise = uniform((n, len(rest)), -START_JOINT_NOISE_RAD, START_JOINT_NOISE_RAD, rng)
        if self.reach is not None:
            noise[:, :BASE] = noise[:, BASE + JOINTS : 2 * BASE + JOINTS] = 0.0
        hands = torch.clamp(rest + noise, low, high)
        objects = self.start_objects(n, rng)
        target = sim.constants["rest_target"].expand(n, -1)
        sim.memory["servo_target"] = sim.memory["servo_target"].index_copy(0, env_ids, target)
        sim.set_state(env_ids, torch.cat([hands, objects], dim=-1), torch.zeros(n, sim.model.nv))

    def act(self, sim: Simulation, actions: Tensor) -> None:
        """Smoothed servo targets around the rest pose."""
        low, high = self._ctrl_range(sim)
        wanted = torch.clamp(sim.constants["rest_target"] + sim.constants["action_reach"] * actions, low, high)
        target = TARGET_SMOOTHING * wanted + (1.0 - TARGET_SMOOTHING) * sim.memory["servo_target"]
        sim.memory["servo_target"] = target
        sim.set_ctrl(target)

    def objects_qpos(self, sim: SimulationState) -> Tensor:
        """Positions of the objects' joints."""
        return sim.qpos[:, 2 * (JOINTS + (0 if self.reach is None else BASE)) :]

    def objects_qvel(self, sim: SimulationState) -> Tensor:
        """Velocities of the objects' joints."""
        return sim.qvel[:, 2 * (JOINTS + (0 if self.reach is None else BASE)) :]

    def hands_now(self, sim: SimulationState) -> Signals:
        """The signals of `hand_signals`: joints from qpos and qvel, points in space from sensors."""
        base = 0 if self.reach is None else BASE
        found: Signals = {}
        for place, side in enumerate(SIDES):
            first = place * (base + JOINTS)
            hand = slice(first + base, first + base + JOINTS)
            joint_pos = sim.qpos[:, hand]
            servo = place * (base + SERVOS)
            target = sim.memory["servo_target"][:, servo : servo + SERVOS]
            found[f"{side}_joint_pos"] = joint_pos
            found[f"{side}_joint_vel"] = sim.qvel[:, hand]
            found[f"{side}_servo_target_offset"] = target - servo_positions(joint_pos, shadow.SERVO_JOINTS)
            if base:
                found[f"{side}_base_slide"] = sim.qpos[:, first : first + 3]
                found[f"{side}_base_turn"] = sim.qpos[:, first + 3 : first + 6]
                found[f"{side}_base_slide_vel"] = sim.qvel[:, first : first + 3]
                found[f"{side}_base_turn_vel"] = sim.qvel[:, first + 3 : first + 6]
            found[f"{side}_palm_position_w"] = sim.sensor(f"{side}_palm_position")
            found[f"{side}_palm_normal_w"] = sim.sensor(f"{side}_palm_normal")
            tips = [sim.sensor(f"{side}_tip{number}_position") for number in range(len(shadow.FINGERS))]
            found[f"{side}_fingertip_position_w"] = torch.cat(tips, dim=-1)
        found["actions"], found["previous_actions"] = sim.memory["actions"], sim.memory["previous_actions"]
        return found

    def hand_parts(self, signals: Signals, side: str, centre: Tensor) -> list[Tensor]:
        """What the policy sees of a hand: joints, servos, base, and palm and fingertips from a point (N, 3)."""
        parts = [
            signals[f"{side}_joint_pos"],
            signals[f"{side}_joint_vel"],
            signals[f"{side}_servo_target_offset"],
            signals[f"{side}_palm_position_w"] - centre,
            signals[f"{side}_palm_normal_w"],
            signals[f"{side}_fingertip_position_w"] - centre.repeat(1, len(shadow.FINGERS)),
        ]
        if self.reach is not None:
            parts += [signals[f"{side}_base_{name}"] for name in ("slide", "turn", "slide_vel", "turn_vel")]
        return parts

    def _scene(self, *, visual: bool) -> mujoco.MjSpec:
        spec = pair_spec(self.right, self.left, self.reach, visual=visual)
        furnish(spec, camera="both", position=self.camera_position_m, target=self.camera_target_m)
        self.add_objects(spec, visual=visual)
        return spec
