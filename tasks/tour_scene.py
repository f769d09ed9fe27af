"""Coloured posts, and cameras to look for them: what a tour adds to a scene. On `MjSpec`s; knows no body. SI units."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco

from tasks.scene import look_at

COLOURS = {
    "red": (0.85, 0.10, 0.08, 1.0),
    "green": (0.10, 0.65, 0.15, 1.0),
    "blue": (0.10, 0.25, 0.90, 1.0),
    "yellow": (0.95, 0.80, 0.05, 1.0),
}
"""Colour -> RGBA of its post."""
POST_RADIUS_M = 0.15
POST_HEIGHT_M = 1.5
BALL_RADIUS_M = 0.2
EYES_FOVY_DEG = 75.0
"""Of the camera on the body: 91 degrees across at 4:3, as a wide phone camera has."""
EYES, ABOVE, OVERVIEW = "eyes", "above", "overview"
"""Cameras: out of the body; straight down, north up; from the side, all of the place."""


def add_posts(
    spec: mujoco.MjSpec,
    colours: Sequence[str],
    body: str,
    eyes_m: Sequence[float],
    far_m: float,
    *,
    aloft: bool,
) -> None:
    """Add posts that are moved by three slides each, the last 3 P numbers of qpos, and the cameras.

    Args:
        spec: The scene.
        colours: P names of `COLOURS`.
        body: Whose eyes to look out of.
        eyes_m: Where they are, in the body's frame; they look along its x axis.
        far_m: Distance from the origin within which posts stand.
        aloft: Whether posts end in a ball at their place, instead of standing there.
    """
    for colour in colours:
        add_post(spec, colour, aloft=aloft)
    carrier = spec.body(body)
    carrier.add_camera(
        name=EYES, pos=list(eyes_m), quat=list(look_at((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))), fovy=EYES_FOVY_DEG
    )
    reach = far_m + 1.0
    # Half of the field of view, 0.414 (22.5 degrees), holds `reach` at this height.
    spec.worldbody.add_camera(name=ABOVE, pos=[0.0, 0.0, 2.42 * reach], quat=[1.0, 0.0, 0.0, 0.0], fovy=45.0)
    stand = (0.0, -2.0 * reach, 1.3 * reach)
    spec.worldbody.add_camera(name=OVERVIEW, pos=list(stand), quat=list(look_at(stand, (0.0, -0.3, 0.3))), fovy=45.0)
    visual = spec.visual
    getattr(visual, "global").offwidth = max(640, getattr(visual, "global").offwidth)
    getattr(visual, "global").offheight = max(480, getattr(visual, "global").offheight)


def add_post(spec: mujoco.MjSpec, colour: str, *, aloft: bool) -> None:
    """Add one post at the origin, moved by slides along x, y and z."""
    post = spec.worldbody.add_body(name=f"post_{colour}")
    for axis, name in enumerate("xyz"):
        post.add_joint(
            name=f"post_{colour}_{name}",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[float(place == axis) for place in range(3)],
        )
    look = {"rgba": list(COLOURS[colour]), "contype": 0, "conaffinity": 0, "mass": 0.1}
    if aloft:
        post.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[BALL_RADIUS_M, 0.0, 0.0], **look)
        # Through the floor for the lowest ball; what is below it cannot be seen.
        post.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.03, 2.0, 0.0], pos=[0.0, 0.0, -2.0], **look)
    else:
        half = POST_HEIGHT_M / 2
        post.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[POST_RADIUS_M, half, 0.0], pos=[0.0, 0.0, half], **look
        )
