"""Tours: where posts stand, what counts as visited, what as astray, and that a policy sees nothing of it."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tasks.tour import TourTask
from tests.distill.puck import PuckTour

STILL = torch.zeros(1, 3)


def put(env, x: float, y: float, turn: float = 0.0) -> None:
    """Put the puck somewhere, at rest."""
    env.sim.set_state(torch.tensor([0]), torch.tensor([[x, y, turn]]), torch.zeros(1, 3))


def at_post(env, place: int):
    """One step at a post."""
    x, y = env.sim.memory["tour_posts"][0, place, :2].tolist()
    put(env, x + 0.3, y)
    return env.step(STILL)


def order_of(env) -> list[int]:
    return [place for place in env.sim.memory["tour_order"][0].tolist() if place >= 0]


def test_posts_stand_apart_and_orders_name_each_once():
    task = PuckTour()
    env = make_env(task, 300, seed=1, num_threads=1)
    posts, order = env.sim.memory["tour_posts"][:, :, :2], env.sim.memory["tour_order"]
    radius = torch.linalg.norm(posts, dim=-1)
    assert radius.min() >= task.tour_near_m and radius.max() <= task.tour_far_m
    apart = torch.cdist(posts, posts) + 1e3 * torch.eye(4)
    assert apart.min() >= task.tour_apart_m
    assert set((order >= 0).sum(dim=1).tolist()) == {2, 3}, "both lengths are drawn"
    for row in order.tolist():
        named = [place for place in row if place >= 0]
        assert len(set(named)) == len(named) and set(named) <= {0, 1, 2, 3}
        assert row[len(named) :] == [-1] * (3 - len(named))
    assert len({tuple(row) for row in order.tolist()}) == 36, "every order comes: 12 of two, 24 of three"


def test_the_goal_says_the_order():
    env = make_env(PuckTour(), 4, seed=1, num_threads=1)
    env.sim.memory["tour_order"] = torch.tensor([[0, 2, -1], [3, 1, 0], [1, 3, -1], [2, 0, 1]])
    assert env.task.tour_goals(env.sim)[:2] == [
        "visit the red post, then the blue one, then stop",
        "visit the yellow post, then the green one, then the red one, then stop",
    ]


@pytest.mark.parametrize("seed", [0, 3])
def test_a_tour_in_order_with_standing_at_its_end_is_done(seed):
    task = PuckTour()
    env = make_env(task, 1, seed=seed, num_threads=1)
    order = order_of(env)
    for number, place in enumerate(order, 1):
        step = at_post(env, place)
        assert float(step.signals["tour_visited"]) == number and not bool(step.done)
        assert float(task.fitness(step.signals)) == pytest.approx(number / (len(order) + 1))
        assert task.tour_facts(env.sim).visited == number
    at_post(env, order[0])  # one that was visited is passed again
    for count in range(200):
        assert not bool(step.done)
        if float(task.fitness(step.signals)) == 1.0:
            break
        step = env.step(torch.tensor([[0.5, 0.0, 0.0]]) if count == 40 else STILL)
    assert 40 + task.tour_stand_s / task.control_dt_s <= count < 190, "who moves has to begin anew"
    assert task.tour_facts(env.sim).succeeded


@pytest.mark.parametrize("wrong", ["a later post of the order", "a post that is not in the order"])
def test_a_post_before_its_turn_ends_the_tour(wrong):
    env = make_env(PuckTour(), 1, seed=3, num_threads=1)
    order = order_of(env)
    assert not bool(at_post(env, order[0]).done)
    others = [place for place in range(4) if place not in order]
    step = at_post(env, order[2] if len(order) > 2 and "later" in wrong else others[0])
    assert bool(step.terminated) and bool(step.reasons["wrong_post"]) and float(step.signals["tour_visited"]) == 1


def test_post_0_counts_although_orders_are_padded():
    """Padding of an order stands for no post; the first post must neither be allowed nor refused by it."""
    for order, place, good in (([0, 1, -1], 0, True), ([1, 2, -1], 0, False), ([1, 0, -1], 0, False)):
        env = make_env(PuckTour(), 1, seed=0, num_threads=1)
        env.sim.memory["tour_order"] = torch.tensor([order])
        assert bool(at_post(env, place).terminated) != good, (order, place)


@pytest.mark.parametrize("name", ["ant-tour", "humanoid-tour"])
def test_a_policy_sees_on_a_tour_what_it_sees_where_it_was_trained(name):
    tour = registry.make(name)
    assert isinstance(tour, TourTask)
    trained = registry.make(tour.trained_on())
    with pytest.raises(UserError, match=f"train on '{trained.name}'"):
        tour.check_searchable()
    first, second = (make_env(task, 3, seed=5, num_threads=1) for task in (tour, trained))
    worlds = torch.arange(3)
    second.sim.set_state(worlds, first.sim.qpos.clone(), first.sim.qvel.clone())
    for env in (first, second):
        env.set_command(worlds, torch.tensor([0, 2, 5]))
    rng = torch.Generator().manual_seed(0)
    for _ in range(5):
        actions = torch.rand(3, first.num_actions, generator=rng) * 2 - 1
        seen = [env.step(actions).observation for env in (first, second)]
        assert torch.equal(*seen)
        assert torch.equal(first.observe_told(), second.observe_told())


def test_the_picture_shows_the_posts_where_they_are():
    task = registry.make("ant-tour")
    env = make_env(task, 2, seed=2, num_threads=1)
    model = task.build_visual_model()
    data = mujoco.MjData(model)
    data.qpos[:] = task.visual_qpos(env.sim.qpos, env.sim.memory)[1].numpy()
    mujoco.mj_forward(model, data)
    places = [data.body(f"post_{colour}").xpos for colour in task.tour_colours]
    assert np.allclose(places, env.sim.memory["tour_posts"][1].numpy(), atol=1e-5)
    eyes = data.cam("eyes")
    facts = task.tour_facts(env.sim, 1)
    ahead = -eyes.xmat.reshape(3, 3)[:, 2]
    assert np.allclose(np.arctan2(ahead[1], ahead[0]), facts.heading_rad, atol=0.02), "it looks where the ant faces"
    assert np.allclose(data.body("torso").xpos, facts.position, atol=1e-5)
