"""A running environment behind our surface, on stand-ins that step as Isaac Lab's do."""

from __future__ import annotations

import pytest
import torch

from rl.rsl_adapter import RslVecEnv
from tasks.env import make_env, sample_signals
from tasks.errors import UserError
from tasks.isaaclab.environment import FITNESS
from tasks.isaaclab.launch import Simulator

DIRECT, MANAGED = "isaaclab:Isaac-Point-Direct-v0", "isaaclab:Isaac-Point-v0"


def actions_of(step: int, worlds: int = 24) -> torch.Tensor:
    return torch.rand(worlds, 2, generator=torch.Generator().manual_seed(step)) * 2.0 - 1.0


def closeness(signals):
    """A reward as a program makes it."""
    total = -signals["robot_joint_pos"].norm(dim=1)
    return total, {"closeness": total}


@pytest.mark.parametrize("ref", [DIRECT, MANAGED])
def test_the_environment_steps_as_it_does_alone_and_keeps_its_own_reward(build, bare, ref):
    """Observations, ends and the sum of the original reward are those of the environment without us, bit for bit."""
    alone = bare(ref)
    observation = alone.reset()[0]["policy"]
    alone.episode_length_buf.zero_()
    told = [[observation], [], [], []]
    for step in range(45):
        values = alone.step(actions_of(step))
        for kept, value in zip(told, (values[0]["policy"], *values[1:4]), strict=True):
            kept.append(value.clone())
    alone.close()

    env = build(ref)
    assert torch.equal(env.observe(), told[0][0]) and torch.equal(env.observe_told(), told[0][0])
    env.replace_reward(closeness)
    for step in range(45):
        played = env.step(actions_of(step))
        assert torch.equal(played.observation, told[0][step + 1])
        assert torch.equal(played.signals[FITNESS][:, 0], told[1][step])
        assert torch.equal(played.terminated, told[2][step])
        assert torch.equal(played.truncated, told[3][step] & ~told[2][step])
        assert torch.equal(played.done, told[2][step] | told[3][step])
    assert torch.stack(told[2]).any() and torch.stack(told[3]).any()  # both ends were seen


def test_signals_are_of_the_state_that_the_step_reached_and_of_the_goal_it_was_for(build):
    env = build(DIRECT)
    changed = 0
    for step in range(45):
        goal = env.raw.goal.clone()
        signals = env.step(actions_of(step)).signals
        # The reward chooses the next goal, a reset another one and another place: neither is told yet.
        assert torch.equal(signals["goal"], goal)
        assert torch.equal(signals["to_goal"], goal - signals["robot_joint_pos"])
        changed += int((env.raw.goal != goal).any(dim=1).sum())
    assert changed > 0


def test_what_the_reward_refreshes_is_refreshed_once(build, bare):
    alone = bare(DIRECT)
    alone.reset()
    for step in range(10):
        alone.step(actions_of(step))
    count = alone.refreshes
    alone.close()
    env = build(DIRECT)
    for step in range(10):
        env.step(actions_of(step))
    assert env.raw.refreshes == count
    assert "_refresh" not in vars(env.raw)


def test_the_program_takes_the_rewards_place(build):
    env = build(DIRECT)
    vec = RslVecEnv(env, env.replace_reward(closeness))
    for step in range(5):
        _, reward, _, extras = vec.step(actions_of(step))
        signals = vec.last.env.signals
        assert torch.equal(reward, -signals["robot_joint_pos"].norm(dim=1))
        assert torch.equal(env.raw.reward_buf, reward)  # what the environment itself passes on
        assert not torch.equal(reward, signals[FITNESS][:, 0])
        assert torch.equal(extras["time_outs"], vec.last.env.truncated)
    assert torch.equal(vec.last.components["closeness"], vec.last.total)


def test_only_the_signals_that_a_program_reads_are_copied(build):
    class Program:
        inputs = ("goal",)

        def __call__(self, signals):
            return signals["goal"][:, 0], {}

    env = build(DIRECT)
    assert set(env.step(actions_of(0)).signals) == {*env.signal_table.names, FITNESS}
    env.replace_reward(Program())
    assert set(env.step(actions_of(1)).signals) == {"goal", FITNESS}


def test_the_original_reward_is_logged_apart(build):
    env = build(DIRECT)
    values = [env.step(actions_of(step)).signals[FITNESS] for step in range(4)]
    assert env.log_apart()["original_reward_mean"] == pytest.approx(float(torch.stack(values).mean()), rel=1e-5)
    assert env.log_apart() == {}


def test_the_table_is_of_the_running_environment_and_tells_nothing_of_the_reward(build):
    table = build(DIRECT).signal_table
    widths = {signal.name: signal.dims for signal in table}
    assert widths == {
        "actions": 2, "previous_actions": 2, "env_origins": 3, "goal": 2, "to_goal": 2, "forces": 2,
        "robot_default_joint_pos": 2, "robot_joint_pos": 2, "robot_joint_vel": 2, "robot_root_pos_w": 3,
        "robot_body_pos_w": 6,
    }  # fmt: skip
    assert (table["robot_joint_pos"].kind, table["robot_body_pos_w"].frame, table["goal"].unit) == (
        "joint_pos",
        "world",
        "?",
    )


def test_signals_are_what_they_are_called(build):
    env = build(MANAGED)
    assert env.signal_table["command_target"].dims == 2
    before = env.raw.command_manager.get_command("target").clone()
    signals = env.step(actions_of(0)).signals
    assert torch.equal(signals["command_target"], before)  # the command moves on after the reward
    body = signals["robot_body_pos_w"].reshape(-1, 2, 3)
    assert torch.allclose(body[:, 1, :2] - body[:, 0, :2], signals["robot_joint_pos"], atol=1e-4)
    assert all(tensor.dtype == torch.float32 for tensor in signals.values())


def test_actions_and_those_before_are_told_and_forgotten_at_the_end_of_an_episode(build):
    env = build(DIRECT)
    last = torch.zeros(24, 2)
    for step in range(60):
        actions = 3.0 * actions_of(step)
        played = env.step(actions)
        assert torch.equal(played.signals["actions"], actions)  # not clipped
        assert torch.equal(played.signals["previous_actions"], last)
        last = torch.where(played.done[:, None], 0.0, actions)
    assert played.done.any() or (env.episode_step < 60).any()


def test_reasons_of_a_managed_task_are_its_terms(build):
    env = build(MANAGED)
    seen = torch.zeros((), dtype=torch.int64)
    for _ in range(30):
        played = env.step(torch.ones(24, 2))
        assert set(played.reasons) == {"left_field", "diverged"}
        assert torch.equal(played.reasons["left_field"], played.terminated)
        seen += played.terminated.sum()
    assert seen > 0


@pytest.mark.parametrize("ref", [DIRECT, MANAGED])
def test_a_world_that_blows_up_ends_and_starts_again(build, ref):
    env = build(ref)
    vec = RslVecEnv(env, env.replace_reward(closeness))
    vec.step(actions_of(0))
    env.raw.scene.articulations["robot"].data._vel[5, 0] = float("nan")
    _, reward, done, _ = vec.step(actions_of(1))
    step = vec.last.env
    assert step.reasons["diverged"].nonzero().tolist() == [[5]]
    assert step.terminated[5] and done[5] and not step.truncated[5]
    assert reward[5] == 0.0 and torch.isfinite(reward).all() and torch.isfinite(env.raw.reward_buf).all()
    assert torch.isfinite(env.raw.scene.articulations["robot"].data.joint_pos).all()
    assert env.episode_step[5] == 0


def test_a_process_has_one_environment_at_a_time(build):
    first = build(DIRECT, num_envs=8)
    second = build(DIRECT, num_envs=16)
    assert first.raw.closed == 1 and Simulator.env is second.raw
    first.close()  # closed already: the one that runs stays
    assert second.raw.closed == 0
    second.close()
    second.close()
    assert second.raw.closed == 1 and Simulator.env is None
    from isaaclab.app import AppLauncher
    from isaaclab.sim.utils import STAGES

    assert AppLauncher.started == 1 and len(STAGES) == 1  # one simulator, a fresh stage for the second


def test_held_out_episodes_are_whole(build):
    env = build(DIRECT)
    reset = env.raw._reset_idx

    def spread(env_ids):  # as tasks do whose worlds shall not all end at once
        reset(env_ids)
        env.raw.episode_length_buf[env_ids] = 17

    env.raw._reset_idx = spread
    env.reset()
    assert not env.episode_step.any()


def test_samples_for_the_gate_are_real_states(fake_isaac, monkeypatch):
    from tasks import registry

    task = registry.make(MANAGED)
    monkeypatch.setattr(type(task), "default_device", lambda self: "cpu")
    samples = sample_signals(task, 16, num_steps=8)
    assert set(samples) == set(task.signal_table.names)
    assert samples["robot_joint_pos"].shape == (16, 2) and samples["robot_joint_vel"].abs().sum() > 0


def test_a_fitness_may_be_an_entry_that_the_user_names(fake_isaac):
    from tasks import registry

    for entry in ("arrivals", "closeness"):  # an attribute with a number a world, and an entry of the log for all
        task = registry.make(f"{DIRECT}@{entry}")
        env = make_env(task, 24, seed=3, device="cpu")
        step = env.step(actions_of(0))
        wanted = env.raw.extras["log"][entry].expand(24) if entry == "closeness" else env.raw.arrivals
        alive = ~step.done
        assert torch.equal(task.fitness(step.signals)[alive], wanted[alive].float())
    task = registry.make(f"{DIRECT}@arivals")
    with pytest.raises(UserError, match="Did you mean 'arrivals'"):
        make_env(task, 24, device="cpu").step(actions_of(0))


def test_images_are_refused_in_one_line(build, monkeypatch):
    env = build(DIRECT)
    monkeypatch.setattr(env.raw, "_get_observations", lambda: {"policy": torch.zeros(24, 4, 4, 3)})
    with pytest.raises(UserError, match="one vector a world"):
        env.step(actions_of(0))
