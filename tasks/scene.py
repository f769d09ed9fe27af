"""What a scene of a robot needs besides the robot: light, ground and a camera for videos, boxes to build with.

On `MjSpec`s; knows no robot and no task. SI units.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

SUN_OFFSET_M = (1.5, -2.0, 6.0)
"""From what is looked at to the light; that of the classic tasks' scenes."""


def furnish(
    spec: mujoco.MjSpec,
    *,
    camera: str,
    position: Sequence[float],
    target: Sequence[float],
    floor_z: float = 0.0,
) -> None:
    """Add light, sky, a floor that only shows (nothing collides with it), and a camera.

    Args:
        camera: Its name.
        position, target: Where the camera stands and what it looks at, world frame, m.
        floor_z: Height of the floor.
    """
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.45, 0.62, 0.82],
        rgb2=[0.92, 0.95, 0.98],
        width=256,
        height=256,
    )
    checker = spec.add_texture(
        name="checker",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.30, 0.36, 0.42],
        rgb2=[0.38, 0.45, 0.52],
        width=256,
        height=256,
    )
    ground = spec.add_material(name="ground", texrepeat=[1.0, 1.0], texuniform=True, reflectance=0.05)
    ground.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = checker.name
    spec.worldbody.add_geom(
        name="ground",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0.0, 0.0, 0.5],
        pos=[0.0, 0.0, floor_z],
        material="ground",
        contype=0,
        conaffinity=0,
    )
    _add_sun(spec, target)
    visual = spec.visual
    visual.headlight.ambient, visual.headlight.diffuse = [0.45, 0.45, 0.45], [0.4, 0.4, 0.4]
    visual.headlight.specular = [0.1, 0.1, 0.1]
    getattr(visual, "global").offwidth, getattr(visual, "global").offheight = 640, 480
    spec.worldbody.add_camera(name=camera, pos=list(position), quat=list(look_at(position, target)), fovy=45.0)


def _add_sun(spec: mujoco.MjSpec, target: Sequence[float]) -> None:
    """A spot aimed at the scene. A directional light has shadows only within one extent of the model about its own
    axis, and in part of that square the floor shadows itself."""
    towards = -np.asarray(SUN_OFFSET_M)
    spec.worldbody.add_light(
        name="sun",
        type=mujoco.mjtLightType.mjLIGHT_SPOT,
        pos=list(np.asarray(target) - towards),
        dir=list(towards / np.linalg.norm(towards)),
        cutoff=60.0,
        exponent=1.0,
        diffuse=[0.7, 0.7, 0.7],
        castshadow=True,
    )


def look_at(position: Sequence[float], target: Sequence[float]) -> np.ndarray:
    """Orientation (4,) of a MuJoCo camera at `position` that looks at `target` with z up: it looks along its own -z."""
    back = np.asarray(position, dtype=float) - np.asarray(target, dtype=float)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.stack([right, np.cross(back, right), back], axis=1).ravel())
    return quat


def add_box(
    body: mujoco.MjsBody,
    name: str,
    position: Sequence[float],
    half_size: Sequence[float],
    rgba: Sequence[float],
    *,
    contype: int,
    conaffinity: int,
    mass: float = 0.0,
) -> mujoco.MjsGeom:
    """Add a box to a body, by its half sizes, in the body's frame."""
    return body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=list(position),
        size=list(half_size),
        rgba=list(rgba),
        contype=contype,
        conaffinity=conaffinity,
        mass=mass,
    )
