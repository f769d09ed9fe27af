"""The quadcopter told where to fly: a pilot in closed form obeys every command, and flies tours under the oracle."""

from __future__ import annotations

import torch

from distill.planner import Vocabulary
from distill.planner_oracle import OraclePlanner
from distill.runtime import Body, RuntimeConfig, run
from distill.runtime_driver import ExpertDriver
from distill.runtime_journal import Journal
from tasks import registry
from tasks.env import make_env
from tests.tasks.pilot import pilot


def test_the_pilot_obeys_each_command_and_the_task_sees_which():
    task = registry.make("quadcopter-command")
    count = len(task.commands)
    env = make_env(task, count, seed=0, num_threads=1)
    env.sim.set_state(
        torch.arange(count),
        torch.tensor([0.0, 0.0, 2.5, 1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        torch.zeros(count, 6),
    )
    env.set_command(torch.arange(count), torch.arange(count))
    achieved, fitness = [], []
    for step in range(150):
        result = env.step(pilot(env.observe()))
        assert not bool(result.done.any()), result.reasons
        if step >= 75:
            achieved.append(task.fitness_achieved(result.signals))
            fitness.append(task.fitness(result.signals))
    mean = torch.stack(achieved).mean(dim=0)
    assert torch.allclose(mean, task.commands.values, atol=0.12), mean
    assert task.fitness_did(mean).tolist() == list(range(count))
    assert float(torch.stack(fitness).mean()) > 0.9


def test_flights_end_near_the_floor_too_high_and_overturned():
    task = registry.make("quadcopter-command")
    env = make_env(task, 4, seed=0, num_threads=1)
    states = torch.tensor([[0.0, 0.0, height, *tilt] for height, tilt in (
        (2.0, (1.0, 0.0, 0.0, 0.0)), (0.05, (1.0, 0.0, 0.0, 0.0)), (5.2, (1.0, 0.0, 0.0, 0.0)), (2.0, (0.3, 0.95, 0.0, 0.0)),
    )])  # fmt: skip
    env.sim.set_state(torch.arange(4), states, torch.zeros(4, 6))
    reasons = env.step(torch.zeros(4, 4)).reasons
    found = [
        [name for name in ("too_low", "too_high", "overturned") if bool(reasons[name][world])] for world in range(4)
    ]
    assert found == [[], ["too_low"], ["too_high"], ["overturned"]]


def test_the_pilot_flies_a_tour_in_the_air():
    done = 0
    for seed in (0, 1):
        task = registry.make("quadcopter-tour")
        env = make_env(task, 1, seed=seed, num_threads=1)
        box: list[Body] = []
        oracle = OraclePlanner(lambda task=task, box=box: task.tour_facts(box[0].view), task.commands)
        config, vocabulary = RuntimeConfig(speed=0.0), Vocabulary(task.commands)
        assert vocabulary.still == "hover"
        driver, goal = ExpertDriver(pilot, task), task.tour_goals(env.sim)[0]
        box.append(Body("drone", env, driver, oracle, goal, config, Journal(None), vocabulary=vocabulary))
        (result,), _ = run(box, config)
        done += bool(result.success)
        env.close()
    assert done == 2
