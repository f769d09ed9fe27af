"""A population trains each candidate as it would be trained alone, and no candidate changes another by one bit."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import rl.population
import rl.train
import rl.verdicts
from rewards.result import RewardError
from rl import checkpoint, population_learners
from rl.population import Member, train_population
from rl.population_ppo import StackedPPO
from rl.record import RESULT, read_metrics
from rl.rsl_speed import DiagonalGaussian
from rl.train import train
from tasks.errors import UserError
from tasks.sim_native import NativeSimulation
from tests.rl.conftest import HUMAN_REWARD
from tests.rl.test_train import program

CHASER = str(Path(__file__).with_name("chaser.py"))
REWARDS = (
    HUMAN_REWARD,
    program("near = torch.exp(-torch.abs(mass_position[:, 0]))", 'return near, {"near_exp": near}'),
    program(
        "place = 100.0 * torch.square(mass_position[:, 0])",
        "speed = torch.square(mass_velocity[:, 0])",
        'return -place - speed, {"place_l2": -place, "speed_l2": -speed, "both": -place - speed}',
    ),
)
OF_THE_CLOCK = ("wall_s", "steps_per_s")


@pytest.fixture
def members(make_request, tmp_path):
    """K trainings of different rewards and seeds; `overrides` are fields of the training, the rest of the request."""

    def make(count: int, overrides: dict[str, Any] | None = None, **fields: Any) -> list[Member]:
        told = []
        for k in range(count):
            values = {"run_id": f"c{k}", "reward": REWARDS[k % 3], "seed": 1 + k // 2, **fields}
            told.append(Member(make_request(overrides, **values), tmp_path / f"c{k}"))
        return told

    return make


def state(run_dir: Path) -> dict[str, Any]:
    """The newest checkpoint of a folder."""
    path = checkpoint.latest(run_dir)
    assert path is not None
    return checkpoint.load_state(path)


def flat(data: Any, name: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict of plain values and tensors."""
    if isinstance(data, dict | list):
        pairs = data.items() if isinstance(data, dict) else enumerate(data)
        return {k: v for key, value in pairs for k, v in flat(value, f"{name}/{key}").items()}
    return {name: data}


def assert_close(one: Any, other: Any, tolerance: float) -> None:
    """Equal names and kinds in equal order; numbers equal but for `tolerance`, relative to their own tensor."""
    one, other = flat(one), flat(other)
    assert list(one) == list(other)
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert (value.shape, value.dtype) == (other[name].shape, other[name].dtype), name
            scale = float(value.abs().max()) if value.numel() else 1.0
            torch.testing.assert_close(other[name], value, rtol=0.0, atol=tolerance * max(scale, 1e-2), msg=name)
        elif isinstance(value, float):
            assert other[name] == pytest.approx(value, rel=tolerance, abs=tolerance), name
        elif not name.endswith(OF_THE_CLOCK):
            assert other[name] == value, name


def timeless(data: Any) -> dict[str, Any]:
    """Without what a clock says."""
    return {name: value for name, value in flat(data).items() if not name.endswith(OF_THE_CLOCK)}


@pytest.fixture
def no_chance(monkeypatch):
    """The adaptive rate asks whether a divergence is above 0; that of a policy which has not changed yet is 0 or a
    rounding error, by chance of a sum's order. Here it is 0 for both."""
    alone, stacked = DiagonalGaussian.kl_divergence, StackedPPO._divergence

    def without_rounding(kl, mean):
        return torch.where(mean > 1e-9, kl, torch.zeros_like(kl))

    def of_one(self, old_params, new_params):
        kl = alone(self, old_params, new_params)
        return without_rounding(kl, kl.mean())

    def of_many(self, *args):
        kl = stacked(self, *args)
        return without_rounding(kl, kl)

    monkeypatch.setattr(DiagonalGaussian, "kl_divergence", of_one)
    monkeypatch.setattr(StackedPPO, "_divergence", of_many)


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("stacked", ["one by one", "in one stack"])
def test_each_learns_what_it_would_learn_alone(members, tmp_path, monkeypatch, count, stacked):
    """Same first weights, worlds, draws and updates as rsl_rl's PPO: metrics and whole checkpoints agree but for the
    rounding of three iterations; so they do on a task whose update draws."""
    if stacked == "one by one":
        monkeypatch.setattr(population_learners, "CACHED", 1)
    for task in (None, CHASER):
        fields = {"task": task} if task else {}
        population = members(
            count, {"iterations": 3, "num_envs": 33, "ppo": {"entropy_coef": 0.01, "desired_kl": 0.001}}, **fields
        )
        results = train_population(population)
        for member in population:
            alone = tmp_path / f"alone_{member.run_dir.name}"
            result = train(member.request, alone)
            assert_close(timeless(result), timeless(results[member.request.run_id]), 1e-3)
            mine, other = (read_metrics(place / "metrics.jsonl") for place in (member.run_dir, alone))
            assert [list(line) for line in mine] == [list(line) for line in other] and len(mine) == 3
            assert_close([timeless(line) for line in other], [timeless(line) for line in mine], 1e-4)
            assert_close(state(alone), state(member.run_dir), 1e-4)
        last = [read_metrics(member.run_dir / "metrics.jsonl")[-1] for member in population]
        assert len({line["learning_rate"] for line in last}) == count, "rates of their own"


@pytest.mark.usefixtures("no_chance")
@pytest.mark.parametrize(
    "ppo",
    [
        {"schedule": "fixed", "use_clipped_value_loss": False, "reward_normalization": False},
        {"obs_normalization": False, "max_grad_norm": 0.05, "activation": "elu", "hidden_dims": (8, 12)},
    ],
    ids=["plain", "not normalised"],
)
def test_so_it_does_under_other_settings(members, tmp_path, ppo):
    (*_, member) = population = members(2, {"iterations": 2, "ppo": ppo})
    train_population(population)
    train(member.request, tmp_path / "alone")
    assert_close(state(tmp_path / "alone"), state(member.run_dir), 1e-4)


class Failing:
    """A reward that does something in one step of one iteration; a stand-in for programs that fail late."""

    def __init__(self, reward: Any, call: int, does: str) -> None:
        self.reward, self.call, self.does, self.calls = reward, call, does, 0
        self.inputs, self.components = reward.inputs, reward.components

    def __call__(self, signals):
        total, components = self.reward(signals)
        self.calls += 1
        if self.calls == self.call and self.does == "raises":
            raise RewardError("IndexError", "index 7 is out of bounds", 6)
        if self.calls == self.call:
            total = total.clone()
            total[3] = math.nan
        return total, components


@pytest.fixture
def failing(monkeypatch):
    """run id -> what its reward does in the 4th step of iteration 5, alone or in a population."""
    plan: dict[str, str] = {}
    make_reward = rl.verdicts.make_reward

    def make(request, task, run_dir):
        reward = make_reward(request, task, run_dir)
        call = 4 * request.config.steps_per_env + 4
        return Failing(reward, call, plan[request.run_id]) if request.run_id in plan else reward

    monkeypatch.setattr(rl.population, "make_reward", make)
    monkeypatch.setattr(rl.train, "make_reward", make)
    return plan


@pytest.mark.parametrize("cached", [1, 2**18], ids=["one by one", "in one stack"])
def test_two_that_fail_leave_the_other_six_untouched(members, failing, monkeypatch, cached):
    """In iteration 5 one raises and one gives a NaN; in the second run none does. Metrics and checkpoints of the other
    six are the same, bit for bit."""
    monkeypatch.setattr(population_learners, "CACHED", cached)
    overrides = {"iterations": 6, "save_interval": 2, "num_envs": 20}
    eight = members(8, overrides)
    failing |= {"c2": "raises", "c5": "a NaN"}
    results = train_population(eight)
    assert [results[f"c{k}"]["status"] for k in (2, 5)] == ["reward_error", "nonfinite_reward"]
    failing.clear()
    well = [dataclasses.replace(m, run_dir=m.run_dir.with_name(f"well{k}")) for k, m in enumerate(eight)]
    train_population(well)
    for k in set(range(8)) - {2, 5}:
        mine, other = ([timeless(line) for line in read_metrics(m[k].run_dir / "metrics.jsonl")] for m in (eight, well))
        assert mine == other and len(mine) == 6
        states = flat(state(eight[k].run_dir)), flat(state(well[k].run_dir))
        assert states[0]["/iteration"] == 6
        for name, value in states[0].items():
            same = torch.equal(value, states[1][name]) if isinstance(value, torch.Tensor) else value == states[1][name]
            assert same, (k, name)
        assert timeless(results[f"c{k}"]) == timeless(json.loads((well[k].run_dir / RESULT).read_text()))
    for k in (2, 5):  # until then they too were what they are without the failure
        lines = [[timeless(line) for line in read_metrics(m[k].run_dir / "metrics.jsonl")] for m in (eight, well)]
        assert lines[0] == lines[1][:4]
        assert checkpoint.latest(eight[k].run_dir).name == "model_000004.pt"


@pytest.mark.parametrize("does", ["raises", "a NaN"])
def test_a_failure_has_the_result_of_a_lone_training(members, failing, tmp_path, does):
    population = members(2, {"iterations": 8, "save_interval": 4})
    failing["c1"] = does
    results = train_population(population)
    alone = train(population[1].request, tmp_path / "alone")
    assert timeless(results["c1"]) == timeless(alone)
    assert "iteration 5" in alone["error"]["message"] and alone["iterations"] == 4
    assert results["c0"]["status"] == "ok"


def test_a_frozen_candidate_keeps_its_weights(members, failing, monkeypatch):
    """And its worlds stand still: they start anew, and nothing pushes them."""
    failing["c1"] = "a NaN"
    population = members(2, {"iterations": 7, "save_interval": 4})
    seen = []
    run_iteration = rl.population.Population.run_iteration

    def watched(self):
        lines = run_iteration(self)
        stack, row = self.learners._places[1]
        seen.append((stack.parameters[row].detach().clone(), self.worlds.sim.qvel.view(2, -1).clone()))
        return lines

    monkeypatch.setattr(rl.population.Population, "run_iteration", watched)
    train_population(population)
    weights, speeds = [w for w, _ in seen], [v for _, v in seen]
    assert not torch.equal(weights[2], weights[3]) and weights[3].isfinite().all()
    assert all(torch.equal(weights[3], later) for later in weights[4:])
    assert speeds[3][1].any() and not speeds[5][1].any() and not speeds[6][1].any() and speeds[6][0].any()


def test_a_policy_that_is_not_finite(members, monkeypatch):
    update = StackedPPO.update

    def broken(self, alive):
        losses = update(self, alive)
        with torch.no_grad():
            self.parameters[1, -1] = torch.inf
        return losses

    monkeypatch.setattr(StackedPPO, "update", broken)
    results = train_population(members(3))
    assert [results[f"c{k}"]["status"] for k in range(3)] == ["ok", "nonfinite_policy", "ok"]
    assert results["c1"]["error"]["message"] == "iteration 1: not finite after the update: network weights"


def test_worlds_that_keep_diverging(members, monkeypatch):
    """Half of candidate 1's worlds in every step, as in the test of a lone training; the others' do not count."""
    step = NativeSimulation.step

    def diverging(self):
        step(self)
        mine = torch.arange(self.num_envs).view(-1, 32) % 2 == 0
        mine[::2] = False
        self._diverged = mine.flatten()

    monkeypatch.setattr(NativeSimulation, "step", diverging)
    monkeypatch.setattr(rl.population, "_evaluate", lambda candidate, *_: candidate.end("ok"))  # of 8 worlds
    results = train_population(members(2))
    assert (results["c0"]["status"], results["c1"]["status"]) == ("ok", "diverged")
    assert "iteration 1: the simulation diverged in 160 of the last " in results["c1"]["error"]["message"]


def test_the_time_limit_is_one_of_its_share(members, monkeypatch):
    """Of three, each may take as long as the clock says in three times its limit."""
    clock = iter(range(10_000))
    monkeypatch.setattr("rl.population.time.monotonic", lambda: float(next(clock)))
    population = members(3, {"iterations": 50}, time_limit_s=8.0)
    population[1] = dataclasses.replace(
        population[1], request=dataclasses.replace(population[1].request, time_limit_s=16.0)
    )
    results = train_population(population)
    assert [r["status"] for r in results.values()] == ["time_limit"] * 3
    assert results["c0"]["iterations"] == results["c2"]["iterations"] < results["c1"]["iterations"]
    for name, result in results.items():
        assert result["checkpoint"] == f"model_{result['iterations']:06d}.pt", name
        assert f"after {result['iterations']} iterations" in result["error"]["message"]
    assert 8.0 <= results["c0"]["wall_s"] < 9.5


def test_rewards_that_are_refused_leave_the_others(members):
    population = members(3)
    bad = dataclasses.replace(population[1].request, reward="import os")
    population[1] = dataclasses.replace(population[1], request=bad)
    seen = []
    results = train_population(population, on_rewards=lambda: seen.append("rewards"),
                               on_iteration=lambda name, line: seen.append((name, line["iteration"])))  # fmt: skip
    assert [results[f"c{k}"]["status"] for k in range(3)] == ["ok", "rejected", "ok"]
    assert seen == ["rewards", *((f"c{k}", i) for i in range(1, 5) for k in (0, 2))]
    assert json.loads((population[1].run_dir / RESULT).read_text()) == results["c1"]


@pytest.mark.usefixtures("no_chance")
def test_going_on_from_a_checkpoint(members, tmp_path):
    """A rung after the first: with a lone training's checkpoint, and as a lone training goes on from it."""
    firsts = members(3, {"iterations": 2})
    for member in firsts:
        train(member.request, member.run_dir)
    train(firsts[0].request, tmp_path / "alone")
    whole = [dataclasses.replace(m.request.config, iterations=4) for m in firsts]
    seconds = [
        dataclasses.replace(m, request=dataclasses.replace(m.request, config=c, start_iteration=2))
        for m, c in zip(firsts, whole, strict=True)
    ]
    damaged = seconds[2].run_dir / "model_000002.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    said = []
    results = train_population(seconds, on_damaged=said.append)
    alone = train(seconds[0].request, tmp_path / "alone")
    assert_close(timeless(alone), timeless(results["c0"]), 1e-3)
    assert_close(state(tmp_path / "alone"), state(seconds[0].run_dir), 1e-4)
    lines = [read_metrics(place / "metrics.jsonl") for place in (tmp_path / "alone", seconds[0].run_dir)]
    assert [line["env_steps"] for line in lines[1]] == [320, 640, 960, 1280]
    assert [line["wall_s"] for line in lines[1]] == sorted(line["wall_s"] for line in lines[1])
    assert_close([timeless(line) for line in lines[0]], [timeless(line) for line in lines[1]], 1e-4)
    assert results["c2"]["status"] == "error" and "iteration 2" in results["c2"]["error"]["message"]
    assert len(said) == 1 and str(damaged) in said[0]


def test_a_policy_of_a_population_is_an_ordinary_one(members, slider):
    (member,) = members(1)
    result = train_population([member])["c0"]
    policy = checkpoint.load_policy(member.run_dir / result["checkpoint"], slider)
    evaluation = rl.verdicts.evaluate(slider, policy, episodes=8, seed=1001, num_threads=1)
    assert evaluation.fitness == result["fitness"] == policy.meta["fitness"]


@pytest.mark.parametrize(
    ("field", "value"), [("config", None), ("threads", 2), ("device", "cuda"), ("run_id", "c0"), ("task", CHASER)]
)
def test_trainings_that_cannot_share_are_refused(members, field, value):
    one, two = members(2)
    value = dataclasses.replace(two.request.config, num_envs=31) if field == "config" else value
    two = dataclasses.replace(two, request=dataclasses.replace(two.request, **{field: value}))
    with pytest.raises(UserError, match=field) as caught:
        train_population([one, two])
    assert "\n" not in str(caught.value)
    assert not one.run_dir.exists()


def test_a_fitness_that_is_not_finite_is_of_one_policy(members, monkeypatch):
    measure = rl.verdicts.measure

    def once(request, *rest):
        if request.run_id == "c0":
            raise UserError("the fitness of task 'slider' is not finite in 3 episodes.")
        return measure(request, *rest)

    monkeypatch.setattr(rl.population, "measure", once)
    results = train_population(members(2))
    assert (results["c0"]["status"], results["c0"]["error"]["type"]) == ("error", "UserError")
    assert results["c1"]["status"] == "ok"
