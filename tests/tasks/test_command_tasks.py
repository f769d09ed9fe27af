"""ant-command and humanoid-command, and tasks with commands in general: who is told what, when, and what counts as done."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from rewards.function import build_reward
from rewards.gate import admit
from rewards.library.library import load
from tasks import registry
from tasks.commanded import CommandedTask
from tasks.commands import Command, CommandSet
from tasks.env import make_env, sample_signals
from tasks.errors import UserError
from tasks.signals import Signal, SignalTable
from tasks.task import check_task
from tests.tasks.toy_tasks import Slider

BODIES = {"ant-command": "ant-run", "humanoid-command": "humanoid-run"}
COMMAND_STEPS = 250
"""5 s at 50 Hz."""


@pytest.fixture(scope="module", params=sorted(BODIES))
def task(request):
    return registry.make(request.param)


@pytest.fixture(scope="module")
def samples(task):
    return sample_signals(task, 64, num_steps=60, seed=3, num_threads=1)


class ToldSlider(CommandedTask, Slider):
    """The slider, told where to be. Its episode is three commands and a half."""

    name = "told-slider"
    episode_length_s = 0.7
    command_time_s = 0.2
    commands = CommandSet(
        [
            Command(name, (place,), tuple(f"{name} {n}" for n in range(6)), (f"test {name} 0", f"test {name} 1"))
            for name, place in (("left", -0.5), ("middle", 0.0), ("right", 0.75))
        ]
    )
    fitness_scale = (0.25,)
    signal_table = SignalTable([*Slider.signal_table, Signal("target", 1, "m", "joint", "command", "where to be")])

    def signals(self, sim):
        """The slider's, and the command."""
        return super().signals(sim) | {"target": sim.memory["command"]}

    def command_numbers(self, signals):
        """Where to be."""
        return signals["target"]

    def fitness_achieved(self, signals):
        """Where it is."""
        return signals["position"]


class Restless(Slider):
    """Something of world 0 changes at every step."""

    def update(self, sim, signals, rng):
        """World 0 is stale."""
        return torch.arange(sim.num_envs) == 0


class RestlessSlider(ToldSlider, Restless):
    """The commands stand before the task that changes something itself."""


@pytest.fixture
def slider():
    env = make_env(ToldSlider(), 50, seed=1, num_threads=1)
    yield env
    env.close()


def still(env) -> torch.Tensor:
    """A force of zero: the actuator's range is -2 to 6 N."""
    return torch.full((env.num_envs, env.num_actions), -0.5)


def told(env) -> torch.Tensor:
    return env.sim.memory["command_index"].clone()


def test_commands_change_after_their_time_and_to_another_one(slider):
    """0.2 s are ten steps; 35 steps an episode, so the fourth command is cut short and the new episode's is whole."""
    values = ToldSlider.commands.values
    before, changes, first = told(slider), [], told(slider)
    assert set(first.tolist()) == {0, 1, 2}
    for step in range(1, 56):
        result = slider.step(still(slider))
        assert torch.equal(result.signals["target"], values[before]), "a step is judged by what was told before it"
        now = told(slider)
        assert torch.equal(slider.observe()[:, 2:], values[now]) and torch.equal(
            slider.sim.memory["command"], values[now]
        )
        if not torch.equal(now, before):
            changes.append(step)
            share = float((now != before).float().mean())
            assert share == 1.0 if step != 35 else 0.4 < share < 0.95, "an episode may begin with the old one"
        before = now
    assert changes == [10, 20, 30, 35, 45, 55]


def test_words_and_numbers_are_seeded_and_say_the_same():
    envs = [make_env(ToldSlider(), 200, seed=seed, num_threads=1) for seed in (4, 4, 5)]
    said = [env.task.instructions(env.sim) for env in envs]
    assert said[0] == said[1] != said[2]
    assert len(set(said[0])) == 18, "every phrase comes up"
    for env in envs:
        spoken, kept = env.task.instructions(env.sim), env.task.instructions(env.sim, held_out=True)
        assert [env.task.commands.understand(phrase) for phrase in spoken] == told(env).tolist()
        assert [env.task.commands.understand(phrase) for phrase in kept] == told(env).tolist()
        assert all(phrase.startswith("test ") for phrase in kept) and not set(kept) & set(spoken)
        env.close()


def test_a_command_from_outside_holds_until_the_next_one(slider):
    """Over the time of a drawn one, over the end of an episode, in its worlds alone; the observation says it at once."""
    worlds, free = torch.tensor([3, 40, 7]), [world for world in range(50) if world not in (3, 40, 7)]
    for _ in range(4):
        slider.step(still(slider))
    before, seen = told(slider), slider.observe().clone()
    other = (before[worlds] + 1) % 3
    slider.set_command(worlds, other)
    assert torch.equal(told(slider)[worlds], other) and torch.equal(told(slider)[free], before[free])
    assert torch.equal(slider.observe()[worlds, 2:], slider.task.commands.values[other])
    assert torch.equal(slider.observe()[:, :2], seen[:, :2]) and torch.equal(slider.observe()[free], seen[free])
    assert torch.equal(slider.observe(), slider.task.observe(slider.task.signals(slider.sim)))
    changed = torch.zeros(50, dtype=torch.bool)
    for _ in range(60):
        slider.step(still(slider))
        assert torch.equal(told(slider)[worlds], other)
        changed |= told(slider) != before
    assert changed[free].all()
    slider.set_command(worlds[:1], before[worlds[:1]])
    assert told(slider)[worlds].tolist() == [int(before[3]), *other[1:].tolist()]


@pytest.mark.parametrize("place", [-1, 3])
def test_a_command_that_is_not_there(slider, place):
    with pytest.raises(UserError, match=rf"3 commands, got place \[{place}\]; expected 0 to 2: left, middle, right\.$"):
        slider.set_command(torch.tensor([0]), torch.tensor([place]))


def test_a_task_of_one_skill():
    """It says its instruction to everyone, shows everyone the same, and refuses commands."""
    env = make_env(Slider(), 3, num_threads=1)
    env.step(still(env))
    assert (
        env.task.instructions(env.sim) == env.task.instructions(env.sim, held_out=True) == ["stay near the centre"] * 3
    )
    assert env.observe_told() is env.observe()
    with pytest.raises(UserError, match="'slider' takes no commands; it does one thing: stay near the centre"):
        env.set_command(torch.tensor([0]), torch.tensor([0]))
    env.close()


def test_what_the_task_before_changes_is_looked_at_again():
    env = make_env(RestlessSlider(), 4, num_threads=1)
    changed = [env.task.update(env.sim, {}, torch.Generator()).tolist() for _ in range(10)]
    assert changed == [[True, False, False, False]] * 9 + [[True] * 4]
    env.close()


def test_commands_that_nobody_measures_are_refused():
    class Unmeasured(Slider):
        commands = ToldSlider.commands

    class Unscaled(ToldSlider):
        fitness_scale = ()

    class Listed(ToldSlider):
        commands = list(ToldSlider.commands)

    for broken, line in (
        (Unmeasured, "does not define set_command"),
        (Unscaled, r"fitness_scale is \(\), expected numbers above 0, 1 of them"),
        (Listed, "commands is a list, expected a CommandSet"),
    ):
        with pytest.raises(UserError, match=line) as caught:
            check_task(broken())
        assert "\n" not in str(caught.value)


def test_score_and_deed_of_the_slider_by_hand(slider):
    signals = {"position": torch.tensor([[0.5], [-0.5], [0.3]]), "target": torch.tensor([[0.75], [-0.5], [0.75]])}
    signals["actions"] = torch.zeros(3, 1)
    assert torch.allclose(slider.task.fitness(signals), torch.tensor([math.exp(-1.0), 1.0, math.exp(-(1.8**2))]))
    assert slider.task.fitness_did(torch.tensor([[-0.26], [-0.24], [0.37], [0.38], [9.0]])).tolist() == [0, 1, 1, 2, 2]


# -- the two walking bodies


def test_velocities_along_the_heading_agree_with_mujoco(task):
    """Any orientation, everything moving: against the C engine's object velocities and rotation matrices."""
    env = make_env(task, 8, num_threads=1)
    model, rng = env.sim.model, torch.Generator().manual_seed(11)
    qpos, qvel = env.sim.qpos.clone(), torch.randn(8, env.sim.model.nv, generator=rng)
    qpos[:, 3:7] = torch.nn.functional.normalize(torch.randn(8, 4, generator=rng), dim=-1)
    env.sim.set_state(torch.arange(8), qpos, qvel)
    signals = task.signals(env.sim)
    task.signal_table.validate(signals, 8)
    torso = model.body("torso").id
    for world in range(8):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos[world].double().numpy(), qvel[world].double().numpy()
        mujoco.mj_forward(model, data)
        velocity = np.zeros(6)
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, torso, velocity, 0)
        facing = data.xmat[torso].reshape(3, 3)[:, 0]
        angle = math.atan2(facing[1], facing[0])
        turn_back = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        expected = [*(turn_back @ velocity[3:5]), velocity[2]]
        assert np.allclose(task.fitness_achieved(signals)[world].numpy(), expected, atol=5e-6)
    env.close()


def test_it_starts_facing_anywhere_and_as_its_body_does_otherwise(task):
    env, body = (make_env(registry.make(name), 300, seed=5, num_threads=1) for name in (task.name, BODIES[task.name]))
    qpos, qvel = env.sim.qpos, env.sim.qvel
    signals = task.signals(env.sim)
    heading = torch.atan2(signals["forward_axis_w"][:, 1], signals["forward_axis_w"][:, 0])
    assert (signals["up_axis_w"][:, 2] > 1 - 1e-6).all()
    assert torch.histc(heading, 4, -math.pi, math.pi).min() > 45, "all four quarters"
    rest = [0, 1, 2, *range(7, qpos.shape[1])]
    assert torch.equal(qpos[:, rest], body.sim.qpos[:, rest]) and torch.equal(qvel, body.sim.qvel), (
        "the first draws are its"
    )
    assert (env.max_episode_steps, env.sim.substeps) == (body.max_episode_steps, body.sim.substeps)
    assert env.observe_told().shape == body.observe().shape and env.observe().shape[1] == body.observe().shape[1] + 3
    for other in (env, body):
        other.close()


def test_who_is_told_by_words_sees_all_but_the_command(task):
    """Worlds that fell and worlds with a new command included."""
    env = make_env(task, 40, seed=2, num_threads=1)
    env.set_command(torch.tensor([5, 6]), torch.tensor([0, 3]))
    rng, ends, rethought = torch.Generator().manual_seed(0), 0, 0
    for step in range(COMMAND_STEPS + 5):
        before = told(env)
        action = torch.rand(40, env.num_actions, generator=rng) * 2 - 1 if step % 5 == 0 else action  # noqa: F821
        ends += int(env.step(action).done.sum())
        rethought += int((told(env) != before).sum())
        fresh = task.signals(env.sim)
        assert torch.equal(env.observe_told(), task.observe_told(fresh))
        numbers = torch.cat([fresh["command_velocity"], fresh["command_yaw_rate"]], dim=-1)
        assert torch.equal(env.observe(), torch.cat([env.observe_told(), numbers], dim=-1))
        assert torch.equal(numbers, task.commands.values[told(env)])
    assert ends > 0 and rethought > 0
    assert told(env)[[5, 6]].tolist() == [0, 3]
    env.close()


def test_commands_of_a_body_are_apart(task):
    """Half way between two commands, in the scale that tells them apart, is at least half a unit from each."""
    scaled = task.commands.values / torch.tensor(task.fitness_scale)
    distance = torch.cdist(scaled, scaled) + 9.0 * torch.eye(len(scaled))
    assert distance.min() >= 1.0
    assert task.fitness_did(task.commands.values).tolist() == list(range(6))
    drift = torch.tensor([[0.2, -0.2, 0.2]])
    assert task.fitness_did(task.commands.values + drift).tolist() == list(range(6))


def test_score_of_a_step_by_hand(task):
    signals = {s.name: torch.zeros(3, s.dims) for s in task.signal_table}
    signals["command_velocity"][:, 0], signals["command_yaw_rate"][:, 0] = 1.0, 0.4
    signals["heading_velocity"][1:] = torch.tensor([[1.0, 0.5], [1.0, 0.0]])
    signals["yaw_rate"][1:, 0] = torch.tensor([0.4, 0.4])
    # of 0.5 m/s and 0.5 rad/s each: errors 2, 0, 0.8; one to the left; none
    expected = torch.tensor([math.exp(-(4 + 0.64)), math.exp(-1.0), 1.0])
    assert torch.allclose(task.fitness(signals), expected)


def test_the_sparse_reward_is_the_fitness(task, samples):
    total, _ = build_reward(load(task.name, "sparse").text, task.signal_table)(samples)
    assert total.max() > 0.1
    assert torch.allclose(total, task.fitness(samples), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", ["human", "sparse"])
def test_library_rewards_pass_the_gate(task, samples, kind):
    verdict = admit(load(task.name, kind).text, task.signal_table, [samples, {n: t[:8] for n, t in samples.items()}])
    assert verdict.accepted, verdict.explain()


def test_the_human_reward_of_states_by_hand(task):
    """Told to run with a slip to the side, to run and beyond it, to turn right while turning left, to stand still."""
    signals = {s.name: torch.zeros(4, s.dims) for s in task.signal_table}
    signals["command_velocity"][:2, 0] = 2.0
    signals["command_yaw_rate"][2, 0] = -1.0
    signals["heading_velocity"][:2] = torch.tensor([[1.5, 0.5], [2.5, 0.0]])
    signals["yaw_rate"][:3, 0] = torch.tensor([-0.5, 0.0, 0.5])
    signals["up_axis_w"][:, 2] = 1.0
    signals["actions"][:, 3], signals["joint_vel"][:, 3], signals["joint_pos_fraction"][:, 3] = -1.0, 10.0, 1.0
    total, parts = build_reward(load(task.name, "human").text, task.signal_table)(signals)
    if task.name == "ant-command":  # joint 3: energy 0.05 x 0.2 x 10, limit 0.1
        rest = 0.1 + 0.5 - 0.005 - 0.05 - 0.1 - 0.1
    else:  # joint 3 is a hip of a third of the strongest motor: energy 0.05 x 0.1 x 10 / 3, limit 0.25 / 3
        rest = 0.1 + 2.0 - 0.01 - 0.01 - 0.05 / 3 - 0.25 / 3
    expected = [1.5 + math.exp(-2.0) + math.exp(-1.0), 2.0 + math.exp(-1.0) + 1.0]
    expected += [-0.5 + 1.0 + math.exp(-9.0), 2.0]
    assert torch.allclose(total, torch.tensor(expected) + rest, atol=1e-3)
    assert torch.allclose(total, torch.stack(list(parts.values())).sum(dim=0), atol=1e-5)


def test_a_designer_reads_of_commands_and_not_of_the_other_task(task):
    """The body's own task has another instruction, which would mislead; phrases are no business of a reward's."""
    from tasks.source_view import designer_source

    view = designer_source(task)
    assert "run_m_s=" in view and "command_velocity" in view and "as fast as possible" not in view
    assert view.count("instruction =") == view.count("    name =") == 1
    assert "sprint" not in view and "def set_command" not in view
