"""Two bodies, two planners, one place: the ant goes to a post; when it is there, the quadcopter hovers above it.

Both bodies are told to visit one post; the second one waits until the first one is there. A generalist may drive both,
each under its own skill. The bodies are simulated each for itself, and drawn in one scene.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from distill.planner import Vocabulary
from distill.planner_oracle import OraclePlanner
from distill.planner_waiting import WaitingPlanner
from distill.runtime import Body, run
from distill.runtime_driver import Driver
from distill.runtime_journal import Journal
from distill.runtime_video import Shot, film
from eureka.act_session import VIDEO, Tour, Wishes, load_system_1
from rl.video import binary
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tasks.tour import TourTask
from tasks.tour_pair import SECOND_EYES, pair_model, pair_qpos, share_tour
from tasks.tour_scene import EYES, OVERVIEW


def tour_of_two(wishes: Wishes, second_ref: str, second_policy: Path, number: int, say: Callable[[str], None]) -> Tour:
    """One run of two bodies under two oracles, from the worlds to its video.

    Raises:
        UserError: the planner is no oracle, a task is no tour, or a policy does not fit its task.
    """
    if wishes.planner != "oracle":
        raise UserError(f"--second runs under --planner oracle; '{wishes.planner}' plans for one body.")
    first_task, second_task = _tour_task(wishes.task), _tour_task(second_ref)
    second_wishes = dataclasses.replace(wishes, task=second_ref, policy=second_policy)
    seed, name = wishes.seed + number, f"tour_{number:03d}"
    journal = Journal(wishes.out / name)
    envs = [make_env(task, 1, seed=seed, num_threads=1) for task in (first_task, second_task)]
    step_s = first_task.control_dt_s / wishes.runtime.speed if wishes.runtime.speed else None
    try:
        colour = first_task.tour_colours[share_tour(envs[0].sim, envs[1].sim, second_task)]
        drivers = [
            load_system_1(one, task).make(task, step_s, seed)
            for one, task in ((wishes, first_task), (second_wishes, second_task))
        ]
        bodies = _bodies(wishes, (first_task, second_task), envs, drivers, colour, journal)
        frames: list[np.ndarray] = []
        results, rates = run(bodies, wishes.runtime, on_frame=lambda: frames.append(_shown(bodies)))
        video = _filmed(wishes, name, (first_task, second_task), bodies, frames, say) if wishes.video else None
    finally:
        for env in envs:
            env.close()
    tour = Tour(name, seed, tuple(results), rates, None if video is None else f"{name}/{VIDEO}")
    journal.close(dataclasses.asdict(tour))
    return tour


def _tour_task(ref: str) -> TourTask:
    task = registry.make(ref)
    if not isinstance(task, TourTask):
        raise UserError(f"'{task.name}' is no tour; two bodies need two of them, such as ant-tour and quadcopter-tour.")
    return task


def _bodies(wishes: Wishes, tasks: tuple[TourTask, TourTask], envs: list, drivers: list[Driver], colour: str,
            journal: Journal) -> list[Body]:  # fmt: skip
    """Both bodies, the second one's planner waiting for the first one."""
    bodies: list[Body] = []
    oracles = [
        OraclePlanner(lambda task=task, n=n: task.tour_facts(bodies[n].view), task.commands, timed=wishes.timed)  # type: ignore[arg-type]
        for n, task in enumerate(tasks)
    ]
    words = [Vocabulary(task.commands) for task in tasks]  # type: ignore[arg-type]
    first, second = (task.tour_body for task in tasks)
    there = f"the {first} is at the {colour} post"
    waiting = WaitingPlanner(oracles[1], lambda: bodies[0].progress > 0.0, words[1].still, there)
    goals = (f"go to the {colour} post, then stop", f"when {there}, go there as well, then stop")
    for n, planner in enumerate((oracles[0], waiting)):
        name = (first, second)[n] if first != second else f"{first} {n + 1}"
        bodies.append(Body(name, envs[n], drivers[n], planner, goals[n], wishes.runtime, journal, vocabulary=words[n]))
    return bodies


def _shown(bodies: list[Body]) -> np.ndarray:
    return pair_qpos(bodies[0].view, bodies[1].view)[0].double().numpy()


def _filmed(wishes: Wishes, name: str, tasks: tuple[TourTask, TourTask], bodies: list[Body], frames: list[np.ndarray],
            say: Callable[[str], None]) -> Path | None:  # fmt: skip
    """From outside, and out of both bodies' eyes, each with what it was told."""
    model, states = binary(pair_model(*tasks)), np.stack(frames)
    captions = [[*body.captions, *body.captions[-1:] * (len(frames) - len(body.captions))] for body in bodies]
    goals = [f"{body.name}: {body.goal}" for body in bodies]
    shots = [
        Shot(model, states, OVERVIEW, [" | ".join(both) for both in zip(*captions, strict=True)]),
        Shot(model, states, EYES, [goals[0]] * len(frames)),
        Shot(model, states, SECOND_EYES, [goals[1]] * len(frames)),
    ]
    return film(shots, wishes.out / name / VIDEO, frame_s=bodies[0].frame_s, say=say)
