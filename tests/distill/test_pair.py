"""Two bodies at one post: the second waits for the first; both are seen in one scene."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from distill.planner import Vocabulary
from distill.planner_oracle import OraclePlanner
from distill.planner_waiting import WaitingPlanner
from distill.runtime import Body, RuntimeConfig, run
from distill.runtime_driver import ExpertDriver
from distill.runtime_journal import Journal
from tasks import registry
from tasks.env import make_env
from tasks.tour_pair import HOVER_M, pair_model, pair_qpos, share_tour
from tests.distill.puck import PuckTour, policy
from tests.tasks.pilot import pilot


def test_a_scene_of_two_shows_both_bodies_and_the_posts_where_they_are():
    first, second = registry.make("ant-tour"), registry.make("quadcopter-tour")
    envs = [make_env(task, 1, seed=3, num_threads=1) for task in (first, second)]
    model = pair_model(first, second)
    data = mujoco.MjData(model)
    data.qpos[:] = pair_qpos(envs[0].sim, envs[1].sim)[0].numpy()
    mujoco.mj_forward(model, data)
    assert np.allclose(data.body("torso").xpos, envs[0].sim.qpos[0, :3], atol=1e-5)
    assert np.allclose(data.body("second_quadcopter").xpos, envs[1].sim.qpos[0, :3], atol=1e-5)
    posts = [data.body(f"post_{colour}").xpos for colour in first.tour_colours]
    assert np.allclose(posts, envs[0].sim.memory["tour_posts"][0], atol=1e-5)
    for camera in ("eyes", "second_eyes", "overview"):
        assert mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera) >= 0


@pytest.mark.parametrize("seed", [1])
def test_the_second_body_goes_when_the_first_one_is_there(seed):
    """The puck goes to a post; then the quadcopter, flown in closed form, hovers above it."""
    tasks = (PuckTour(), registry.make("quadcopter-tour"))
    envs = [make_env(task, 1, seed=seed, num_threads=1) for task in tasks]
    place = share_tour(envs[0].sim, envs[1].sim, tasks[1])
    bodies: list[Body] = []
    words = [Vocabulary(task.commands) for task in tasks]
    first = OraclePlanner(lambda: tasks[0].tour_facts(bodies[0].view), tasks[0].commands)
    second = OraclePlanner(lambda: tasks[1].tour_facts(bodies[1].view), tasks[1].commands)
    waiting = WaitingPlanner(second, lambda: bodies[0].progress > 0.0, words[1].still, "the puck is there")
    config, journal, frames = RuntimeConfig(speed=0.0), Journal(None), []
    for name, env, drive, planner, known in zip(
        ("puck", "drone"), envs, (policy, pilot), (first, waiting), words, strict=True
    ):
        driver = ExpertDriver(drive, env.task)
        bodies.append(Body(name, env, driver, planner, "go", config, journal, vocabulary=known))
    results, _ = run(bodies, config, on_frame=lambda: frames.append(pair_qpos(bodies[0].view, bodies[1].view)))
    assert [result.end for result in results] == ["success", "success"]
    arrived = min(e["time_s"] for e in journal.events if e["body"] == "drone" and e["instruction"] != "hover")
    assert arrived > 0.5 and results[1].time_s > results[0].time_s
    assert results[1].planner["asked_while_waiting"] == pytest.approx(arrived / 0.1, abs=2)
    post = envs[1].sim.memory["tour_posts"][0, place]
    assert float(post[2]) == HOVER_M
    assert float(torch.linalg.norm(bodies[1].view.qpos[0, :3] - post)) < 1.5, "it stays near where it stopped"
    assert len(frames) == pytest.approx(results[1].time_s / bodies[0].frame_s, abs=1.5)
