"""Two bodies at the posts of one tour: what a picture of both shows, and posts that they share.

Each body is simulated in a world of its own; the scene that is drawn holds both. They do not meet: one walks and the
other flies, or they pass through each other.

Axes: one world for each body, P posts.
"""

from __future__ import annotations

import mujoco
import torch
from torch import Tensor

from tasks.errors import UserError
from tasks.scene import look_at
from tasks.sim import Simulation, SimulationState
from tasks.tour import TourTask
from tasks.tour_scene import EYES, EYES_FOVY_DEG, add_posts

SECOND = "second_"
"""Before the names of the second body and its camera."""
SECOND_EYES = SECOND + EYES
HOVER_M = 2.0
"""Height above a post on the ground at which a flying second body visits it; posts are 1.5 m high."""


def pair_model(first: TourTask, second: TourTask) -> mujoco.MjModel:
    """A scene with both bodies and the first one's posts. qpos: the first body, the second, three numbers a post.

    Raises UserError where the tasks have other posts.
    """
    if first.tour_colours != second.tour_colours:
        raise UserError(f"'{first.name}' and '{second.name}' have posts of different colours; they cannot share them.")
    spec, other = first.visual_spec(), second.visual_spec()
    other.visual.map.zfar = spec.visual.map.zfar  # MuJoCo warns where the two scenes look differently far
    spec.worldbody.add_frame().attach_body(other.body(second.tour_body), SECOND, "")
    aloft = first.tour_heights_m is not None
    add_posts(spec, first.tour_colours, first.tour_body, first.tour_eyes_m, first.tour_far_m, aloft=aloft)
    spec.body(SECOND + second.tour_body).add_camera(
        name=SECOND_EYES,
        pos=list(second.tour_eyes_m),
        quat=list(look_at((0.0, 0.0, 0.0), (1.0, 0.0, 0.0))),
        fovy=EYES_FOVY_DEG,
    )
    return spec.compile()


def pair_qpos(first: SimulationState, second: SimulationState) -> Tensor:
    """Positions (1, nq) of that scene."""
    posts = first.memory["tour_posts"].flatten(1)
    return torch.cat([first.qpos, second.qpos, posts.to(first.qpos)], dim=-1)


def share_tour(first: Simulation, second: Simulation, second_task: TourTask) -> int:
    """Give both bodies one post to visit, the first of the first one's order, at one place. Returns the post's place.

    A flying second body visits it from above.
    """
    place = int(first.memory["tour_order"][0, 0])
    for sim in (first, second):
        order = torch.full_like(sim.memory["tour_order"], -1)
        order[0, 0] = place
        sim.memory["tour_order"] = order
    posts = first.memory["tour_posts"].clone()
    if second_task.tour_heights_m is not None:
        posts[:, :, 2] = HOVER_M
    second.memory["tour_posts"] = posts
    return place
