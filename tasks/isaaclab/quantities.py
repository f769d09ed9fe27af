"""What a foreign quantity is, by its name: kind, unit and frame for the signal table, and which ones are worth telling.

Isaac Lab's names carry their frame (`_w` world, `_b` body) and are documented with shapes; units are SI throughout.
It is a guess for a task's own attributes, and says so by the unit "?".
"""

from __future__ import annotations

import re

from tasks.signals import Signal

_RULES = (
    (r"quat|_rot$|rotation|orientation", "orientation", "1"),
    (r"command", "command", "?"),
    (r"(^|_)actions?$", "action", "1"),
    (r"(joint|dof)_(vel|velocities)|(joint|dof)_vel_target", "joint_vel", "rad/s or m/s"),
    (r"joint_acc", "joint_vel", "rad/s^2 or m/s^2"),
    (r"(joint|dof)_(pos|position|positions)|joint_pos_target", "joint_pos", "rad or m"),
    (r"ang_?vel|angular_velocity", "angular_velocity", "rad/s"),
    (r"lin_?vel|velocity|velocities", "linear_velocity", "m/s"),
    (r"lin_acc", "linear_velocity", "m/s^2"),
    (r"ang_acc", "angular_velocity", "rad/s^2"),
    (r"torque|effort", "force", "N m or N"),
    (r"force|wrench", "force", "N"),
    (r"(air|contact)_time", "contact", "s"),
    (r"gravity|axis|_vec", "direction", "1"),
    (r"heading_w$", "orientation", "rad"),
    (r"pos(ition)?(_|$)|ray_hits", "position", "m"),
)
_ASSET_FIELDS = re.compile(
    r"joint_(pos|vel|acc|pos_target|vel_target|effort_target)|applied_torque|default_joint_pos|soft_joint_pos_limits"
    r"|root_(pos|quat|lin_vel|ang_vel)_w|root_(lin|ang)_vel_b|projected_gravity_b|heading_w"
    r"|body_(pos|quat|lin_vel|ang_vel)_w"
)
_SENSOR_FIELDS = re.compile(
    r"net_forces_w|(current|last)_(air|contact)_time|ray_hits_w|pos_w|quat_w|target_(pos|quat)_(w|source)"
    r"|(lin|ang)_vel_b|(lin|ang)_acc_b|projected_gravity_b"
)
ASSETS = ("Articulation", "RigidObject")
DATA_CLASSES = {
    "Articulation": ("isaaclab.assets.articulation.articulation_data", "ArticulationData"),
    "RigidObject": ("isaaclab.assets.rigid_object.rigid_object_data", "RigidObjectData"),
    "ContactSensor": ("isaaclab.sensors.contact_sensor.contact_sensor_data", "ContactSensorData"),
    "RayCaster": ("isaaclab.sensors.ray_caster.ray_caster_data", "RayCasterData"),
    "FrameTransformer": ("isaaclab.sensors.frame_transformer.frame_transformer_data", "FrameTransformerData"),
    "Imu": ("isaaclab.sensors.imu.imu_data", "ImuData"),
}
"""Class of a thing in the scene -> where its `data` is documented (isaaclab 2.3)."""
MAX_DIMS = 512
"""Wider quantities are images or fields, which no reward program is made of."""


def told(thing: str, name: str) -> bool:
    """Whether a field of the data of a thing of this class is told.

    Not told: what others are made of (`root_state_w` of `root_pos_w` and so on), the same under another name
    (`root_link_pos_w`), and constants of the model.
    """
    if thing == "ContactSensor" and name in ("pos_w", "quat_w"):
        return False  # None unless asked for; the bodies' own positions are told anyway
    return bool((_ASSET_FIELDS if thing in ASSETS else _SENSOR_FIELDS).fullmatch(name))


def signal_name(*parts: str) -> str:
    """An identifier made of names: ("_robot", "joint_pos") -> "robot_joint_pos"."""
    return re.sub(r"\W", "_", "_".join(part.strip("_") for part in parts if part.strip("_")))


def make_signal(name: str, dims: int, doc: str, documented: str = "") -> Signal:
    """A signal of the table; kind, unit and frame by its name.

    Args:
        documented: The name under which Isaac Lab documents it, such as "root_pos_w"; without one, unit and frame are
            unknown, and the kind is a guess.
    """
    word = documented or name
    kind, unit = next(((kind, unit) for rule, kind, unit in _RULES if re.search(rule, word)), ("other", "?"))
    frame = "world" if word.endswith("_w") else "body" if word.endswith("_b") else "-"
    if kind.startswith("joint"):
        frame = "joint"
    return Signal(name, dims, unit, frame, kind, doc) if documented else Signal(name, dims, "?", "-", kind, doc)
