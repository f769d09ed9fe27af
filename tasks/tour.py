"""What tasks share in which a body visits coloured posts in an order that is told in words: tasks that need a planner.

A tour goes to some of the posts, in order, and then stands. Whoever comes to a post before its turn, or to one that the
order does not name, has gone astray, and the tour has failed; a post may be passed again. Posts stand at random
places, and the shortest way may lead through one that is not due: the planner has to see it.

A policy observes what it does in the commanded task before this one in the order of base classes, and nothing of the
posts: `class AntTour(TourTask, AntCommand)` can be walked by whoever was trained on ant-command.

Does not model: contact with posts; they only show.
Axes: N worlds, P posts, K stops of the longest order, D dimensions of a place: 2 on the ground, 3 in the air.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import mujoco
import numpy as np
import torch
from torch import Tensor

from tasks.commanded import CommandedTask
from tasks.errors import UserError
from tasks.signals import Signal, Signals
from tasks.sim import Simulation
from tasks.tour_scene import COLOURS, add_posts

CANDIDATES = 64
"""Random places that are tried for a post; with the distances below, fewer than one in 10^10 finds no room."""
TOUR_SIGNALS = (
    Signal("tour_visited", 1, "1", "-", "other", "posts visited so far, in order"),
    Signal("tour_progress", 1, "1", "-", "other", "share of the tour that is done: its posts, and standing at the end"),
    Signal("tour_astray", 1, "1", "-", "other", "1 where the body is at a post that is not due, else 0"),
)
"""What such a task publishes beside the signals of its body."""


@dataclass(frozen=True)
class TourFacts:
    """Where one world's tour stands: what a picture shows, in numbers."""

    position: np.ndarray
    """(3,) of the body, world frame, m."""
    heading_rad: float
    """Where the body faces, from world +x to +y."""
    posts: np.ndarray
    """(P, 3) where a body has to be to visit each post, world frame, m; on the ground z is 0."""
    colours: tuple[str, ...]
    """P names."""
    order: tuple[int, ...]
    """Places of posts, in the order in which they are to be visited."""
    visited: int
    """How many of them were visited."""
    reach_m: float
    """How near a post is visited."""
    succeeded: bool
    """The tour is done."""
    body: str = "body"
    """Name of the body."""


class TourTask(CommandedTask):
    """Base class: stands before a commanded task. A subclass names the body to look out of, and says where it is."""

    tour_body: ClassVar[str] = "torso"
    """Body of the model that carries the camera `eyes`."""
    tour_eyes_m: ClassVar[tuple[float, float, float]] = (0.3, 0.0, 0.15)
    """Where that camera sits in the body's frame; it looks along the body's x axis."""
    tour_colours: ClassVar[tuple[str, ...]] = tuple(COLOURS)
    tour_stops: ClassVar[tuple[int, int]] = (2, 3)
    """Fewest and most posts of an order."""
    tour_near_m: ClassVar[float] = 2.0
    tour_far_m: ClassVar[float] = 5.0
    """Posts stand between these distances of the start."""
    tour_heights_m: ClassVar[tuple[float, float] | None] = None
    """Lowest and highest place of a post's ball in the air; None: posts are visited on the ground."""
    tour_apart_m: ClassVar[float] = 2.4
    """Least distance between two posts."""
    tour_reach_m: ClassVar[float] = 0.8
    """A post is visited by whoever comes so near."""
    tour_stand_s: ClassVar[float] = 2.0
    """The tour ends with standing so long, at less than the two speeds below."""
    tour_still_m_s: ClassVar[float] = 0.25
    tour_still_rad_s: ClassVar[float] = 0.4
    episode_length_s = 60.0
    fitness_unit = "fraction"
    fitness_doc = "share of the tour that was done: its posts in order, and standing at the end; 1 is a success"
    fitness_reduce = "max"
    fitness_failed = 0.0

    # What a subclass says of its body.

    def tour_position(self, signals: Signals) -> Tensor:
        """Where the body is (N, 3), world frame."""
        raise NotImplementedError

    def tour_heading(self, signals: Signals) -> Tensor:
        """Where it faces (N,), rad from world +x to +y."""
        raise NotImplementedError

    def tour_motion(self, signals: Signals) -> tuple[Tensor, Tensor]:
        """Its speed (N,), m/s, and rate of turning (N,), rad/s, both without sign."""
        raise NotImplementedError

    # The task.

    def setup(self, sim: Simulation) -> None:
        """The posts, the order, what was visited, and for how many steps the body has stood."""
        super().setup(sim)
        n, device = sim.num_envs, sim.device
        sim.memory["tour_posts"] = torch.zeros(n, len(self.tour_colours), 3, device=device)
        sim.memory["tour_order"] = torch.full((n, self.tour_stops[1]), -1, dtype=torch.int64, device=device)
        whole = torch.zeros(n, dtype=torch.int64, device=device)
        sim.memory["tour_visited"] = sim.memory["tour_still_steps"] = whole

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """As the task before this one; posts at other places, another order."""
        super().reset(sim, env_ids, rng)
        n, memory = len(env_ids), sim.memory
        fresh = {
            "tour_posts": self._places(n, rng),
            "tour_order": self._orders(n, rng),
            "tour_visited": torch.zeros(n, dtype=torch.int64),
            "tour_still_steps": torch.zeros(n, dtype=torch.int64),
        }
        for name, rows in fresh.items():
            memory[name] = memory[name].index_copy(0, env_ids, rows.to(sim.device))

    def signals(self, sim: Simulation) -> Signals:  # type: ignore[override]
        """The body's own, and how the tour stands in this state."""
        signals = super().signals(sim)
        visited, still, astray = self._advanced(sim.memory, signals)
        stops = self._stops(sim.memory)
        done = (still >= self._stand_steps()).long()
        return signals | {
            "tour_visited": visited[:, None].float(),
            "tour_progress": ((visited + done) / (stops + 1))[:, None],
            "tour_astray": astray[:, None].float(),
        }

    def update(self, sim: Simulation, signals: Signals, rng: torch.Generator) -> Tensor:
        """As the task before this one; keeps what was visited."""
        visited, still, _ = self._advanced(sim.memory, signals)
        sim.memory["tour_visited"], sim.memory["tour_still_steps"] = visited, still
        return super().update(sim, signals, rng)

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """As the task before this one, and the wrong post."""
        return super().terminate(signals) | {"wrong_post": signals["tour_astray"][:, 0] > 0.5}

    def fitness(self, signals: Signals) -> Tensor:
        """Share of the tour (N,)."""
        return signals["tour_progress"][:, 0]

    def check_searchable(self) -> None:
        """A tour is planned over a policy that exists."""
        raise UserError(
            f"'{self.name}' is no task to learn but one to plan: train on '{self.trained_on()}', then run "
            f"eureka act --task {self.name}."
        )

    def trained_on(self) -> str:
        """Name of the task whose experts can walk this tour."""
        for base in type(self).__mro__[1:]:
            name = base.__dict__.get("name")
            if name is not None:
                return name
        raise UserError(f"task class {type(self).__name__} stands before no task with a name; see tasks/tour.py.")

    # What a planner is told and shown.

    def tour_goals(self, sim: Simulation) -> list[str]:
        """The order of each of the N worlds, in words."""
        return [self._goal(order) for order in sim.memory["tour_order"].tolist()]

    def tour_facts(self, sim: Simulation, world: int = 0) -> TourFacts:
        """Where the tour of one world stands."""
        signals, memory = self.signals(sim), sim.memory
        order = tuple(place for place in memory["tour_order"][world].tolist() if place >= 0)
        return TourFacts(
            position=self.tour_position(signals)[world].double().cpu().numpy(),
            heading_rad=float(self.tour_heading(signals)[world]),
            posts=memory["tour_posts"][world].double().cpu().numpy(),
            colours=self.tour_colours,
            order=order,
            visited=int(memory["tour_visited"][world]),
            reach_m=self.tour_reach_m,
            succeeded=bool(memory["tour_still_steps"][world] >= self._stand_steps()),
            body=self.tour_body,
        )

    def build_visual_model(self) -> mujoco.MjModel:
        """The body's, with the posts, a camera `eyes` on the body, and two that see the whole place."""
        spec = self.visual_spec()
        aloft = self.tour_heights_m is not None
        add_posts(spec, self.tour_colours, self.tour_body, self.tour_eyes_m, self.tour_far_m, aloft=aloft)
        return spec.compile()

    def visual_spec(self) -> mujoco.MjSpec:
        """The scene without posts."""
        return mujoco.MjSpec.from_file(str(self.xml))

    def visual_qpos(self, qpos: Tensor, memory: Mapping[str, Tensor]) -> Tensor:
        """As the task before this one, then the places of the posts."""
        shown = super().visual_qpos(qpos, memory)
        return torch.cat([shown, memory["tour_posts"].flatten(1).to(shown)], dim=-1)

    # How a tour goes on.

    def _advanced(self, memory: Mapping[str, Tensor], signals: Signals) -> tuple[Tensor, Tensor, Tensor]:
        """Posts visited (N,), steps stood still since (N,), and whether the body went astray (N,) bool, after this
        state."""
        order, visited, posts = memory["tour_order"], memory["tour_visited"], memory["tour_posts"]
        dims = 2 if self.tour_heights_m is None else 3
        offset = posts[:, :, :dims] - self.tour_position(signals)[:, None, :dims]
        there = torch.linalg.norm(offset, dim=-1) < self.tour_reach_m  # (N, P)
        stops = self._stops(memory)
        touring = visited < stops
        due = order.gather(1, visited.clamp(max=order.shape[1] - 1)[:, None])[:, 0].clamp(min=0)  # (N,)
        arrived = there.gather(1, due[:, None])[:, 0] & touring
        past = torch.arange(order.shape[1], device=order.device) < (visited + 1)[:, None]  # due or visited
        allowed = torch.zeros_like(there).scatter(1, order.clamp(min=0), past & (order >= 0))
        # Padding of an order points at post 0 above; a post that is really there is set again.
        first = (order == 0) & past
        allowed[:, 0] = first.any(dim=1)
        astray = (there & ~allowed).any(dim=1) & touring
        speed, rate = self.tour_motion(signals)
        still = (speed < self.tour_still_m_s) & (rate < self.tour_still_rad_s) & ~touring
        steps = torch.where(still, memory["tour_still_steps"] + 1, 0)
        # Who has stood long enough has done it, whatever comes.
        steps = torch.where(memory["tour_still_steps"] >= self._stand_steps(), memory["tour_still_steps"], steps)
        return visited + arrived.long(), steps, astray

    def _stops(self, memory: Mapping[str, Tensor]) -> Tensor:
        """How many posts each order has (N,)."""
        return (memory["tour_order"] >= 0).sum(dim=1)

    def _stand_steps(self) -> int:
        return max(1, round(self.tour_stand_s / self.control_dt_s))

    def _places(self, n: int, rng: torch.Generator) -> Tensor:
        """Posts of n worlds (n, P, 3): anywhere between the two distances of the start, none near another one."""
        posts = torch.zeros(n, len(self.tour_colours), 3)
        for place in range(len(self.tour_colours)):
            angle = (torch.rand(n, CANDIDATES, generator=rng) * 2.0 - 1.0) * math.pi
            radius = self.tour_near_m + (self.tour_far_m - self.tour_near_m) * torch.rand(n, CANDIDATES, generator=rng)
            drawn = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)  # (n, candidates, 2)
            room = torch.zeros(n, CANDIDATES)
            if place:
                # One with room enough is as good as another; without any, the one that is farthest from others.
                room = torch.cdist(drawn, posts[:, :place, :2]).amin(dim=-1).clamp(max=self.tour_apart_m)
            posts[:, place, :2] = drawn[torch.arange(n), room.argmax(dim=1)]
            low, high = self.tour_heights_m or (0.0, 0.0)
            posts[:, place, 2] = low + (high - low) * torch.rand(n, generator=rng)
        return posts

    def _orders(self, n: int, rng: torch.Generator) -> Tensor:
        """Orders of n worlds (n, K): different posts, -1 behind the last."""
        fewest, most = self.tour_stops
        order = torch.rand(n, len(self.tour_colours), generator=rng).argsort(dim=1)[:, :most]
        length = torch.randint(fewest, most + 1, (n, 1), generator=rng)
        return torch.where(torch.arange(most) < length, order, -1)

    def _goal(self, order: list[int]) -> str:
        names = [self.tour_colours[place] for place in order if place >= 0]
        rest = "".join(f", then the {name} one" for name in names[1:])
        return f"visit the {names[0]} post{rest}, then stop"
