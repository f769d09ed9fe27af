"""The vectorised environment: episodes, their ends, resets, seeds and memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks import registry
from tasks.env import make_env, sample_signals
from tasks.errors import UserError
from tasks.signals import Signal, SignalTable
from tasks.subset import WorldSubset
from tests.tasks.toy_tasks import Slider


class Drifter(Slider):
    """Starts spread over the whole track, so that failures happen at different steps."""

    start_spread_m = 1.0


def hold(num_envs: int, action: float) -> Tensor:
    return torch.full((num_envs, 1), action)


REST = -0.5
"""The action that maps onto 0 N in the control range -2 .. 6 N."""


def test_sizes_follow_from_the_model_and_the_task():
    env = make_env(Slider(), 3)
    assert (env.num_envs, env.num_actions, env.num_observations) == (3, 1, 2)
    assert env.max_episode_steps == 20  # 0.4 s / 0.02 s
    assert env.sim.substeps == 2  # 0.02 s / 0.01 s
    assert env.observe().shape == (3, 2) and env.observe().dtype == torch.float32


def test_actions_map_linearly_onto_the_control_range_and_are_clipped():
    """1 kg: the velocity after one step of 0.02 s is 0.02 s times the force."""
    env = make_env(Slider(), 5)
    actions = torch.tensor([[-1.0], [0.0], [1.0], [7.0], [-9.0]])
    step = env.step(actions)
    force = torch.tensor([-2.0, 2.0, 6.0, 6.0, -2.0])
    torch.testing.assert_close(step.signals["velocity"][:, 0], 0.02 * force)
    assert step.signals["actions"][:, 0].tolist() == [-1.0, 0.0, 1.0, 1.0, -1.0]
    assert actions[3, 0] == 7.0  # the caller's tensor is left alone


def test_previous_actions_are_those_of_the_step_before_and_zero_after_a_reset():
    env = make_env(Slider(), 2)
    assert env.step(hold(2, REST)).signals["previous_actions"].tolist() == [[0.0], [0.0]]
    second = env.step(hold(2, -0.4))
    assert second.signals["previous_actions"].tolist() == [[REST], [REST]]
    assert second.signals["actions"][0].item() == pytest.approx(-0.4)
    for _ in range(18):
        last = env.step(hold(2, REST))
    assert last.truncated.all()
    assert last.signals["actions"].tolist() == [[REST], [REST]]
    assert env.step(hold(2, REST)).signals["previous_actions"].tolist() == [[0.0], [0.0]]


def test_the_time_limit_is_exact():
    env = make_env(Slider(), 4)
    for episode_step in range(1, 61):
        step = env.step(hold(4, REST))
        assert step.truncated.all().item() == (episode_step % 20 == 0)
        assert not step.terminated.any()
        assert env.episode_step.tolist() == [episode_step % 20] * 4


def test_a_failure_at_the_last_step_is_terminated_only():
    """World 1 is pushed over the edge at the very step of the time limit; world 0 merely runs out of time."""
    env = make_env(Slider(), 2)
    for _ in range(19):
        env.step(hold(2, REST))
    env.sim.set_state(torch.tensor([1]), torch.tensor([[1.5]]), torch.zeros(1, 1))
    step = env.step(hold(2, REST))
    assert step.terminated.tolist() == [False, True]
    assert step.truncated.tolist() == [True, False]
    assert step.done.tolist() == [True, True]
    assert step.reasons["lost"].tolist() == [False, True]


def test_ends_are_never_both_and_always_have_a_reason():
    env = make_env(Drifter(), 64, seed=3)
    terminated = truncated = 0
    for _ in range(60):
        step = env.step(torch.full((64, 1), 0.3))
        assert not (step.terminated & step.truncated).any()
        assert torch.equal(step.done, step.terminated | step.truncated)
        assert torch.equal(torch.stack(list(step.reasons.values())).any(dim=0), step.terminated)
        assert (env.episode_step[step.done] == 0).all() and (env.episode_step[~step.done] > 0).all()
        terminated += int(step.terminated.sum())
        truncated += int(step.truncated.sum())
    assert terminated > 10 and truncated > 10


def test_after_an_end_the_observation_is_new_and_the_signals_are_old():
    env = make_env(Slider(), 3)
    env.sim.set_state(torch.tensor([1]), torch.tensor([[1.5]]), torch.tensor([[2.0]]))
    step = env.step(hold(3, REST))
    # Old episode: 1.5 m + 0.02 s x 2 m/s, still in the signals. New episode: within the start's spread, at rest.
    assert step.signals["position"][1].item() == pytest.approx(1.54)
    assert step.signals["velocity"][1].item() == pytest.approx(2.0)
    assert abs(step.observation[1, 0].item()) <= 0.1 and step.observation[1, 1] == 0.0
    assert torch.equal(step.observation, env.observe())
    assert torch.equal(env.sim.qpos[1], step.observation[1, :1])
    # The other worlds went on.
    assert torch.equal(step.observation[[0, 2], 0], step.signals["position"][[0, 2], 0])
    assert env.episode_step.tolist() == [1, 0, 1]


def test_a_diverged_world_ends_with_that_reason():
    env = make_env(Slider(), 3)
    env.sim.set_state(torch.tensor([2]), torch.tensor([[torch.nan]]), torch.zeros(1, 1))
    step = env.step(hold(3, REST))
    assert step.reasons["diverged"].tolist() == [False, False, True]
    assert step.terminated.tolist() == [False, False, True]
    assert not step.truncated.any()
    assert torch.isfinite(step.observation).all()
    following = env.step(hold(3, REST))
    assert not following.reasons["diverged"].any() and not following.done.any()


def rollout(seed: int, num_envs: int = 16, steps: int = 50) -> Tensor:
    env = make_env(Drifter(), num_envs, seed=seed)
    rng = torch.Generator().manual_seed(0)
    observations = [env.observe()]
    for _ in range(steps):
        observations.append(env.step(torch.rand(num_envs, 1, generator=rng) * 2 - 1).observation)
    return torch.stack(observations)


def test_equal_seeds_give_equal_episodes_and_others_do_not():
    """Over several episodes, and whatever torch's global generator has done."""
    first = rollout(seed=5)
    torch.manual_seed(12345)
    assert torch.equal(first, rollout(seed=5))
    assert not torch.equal(first[0], rollout(seed=6)[0])


def test_worlds_and_episodes_start_differently():
    env = make_env(Slider(), 8)
    first = env.observe().clone()
    assert len(set(first[:, 0].tolist())) == 8
    assert not torch.equal(first, env.reset())


def test_reset_restarts_every_world():
    env = make_env(Slider(), 4)
    for _ in range(7):
        env.step(hold(4, 1.0))
    observation = env.reset()
    assert env.episode_step.tolist() == [0] * 4
    assert (observation[:, 0].abs() <= 0.1).all() and (observation[:, 1] == 0).all()
    assert torch.equal(observation, env.observe())


def test_signals_handed_out_do_not_change_later():
    env = make_env(Drifter(), 32)
    held = env.step(hold(32, 1.0))
    copies = {name: tensor.clone() for name, tensor in held.signals.items()}
    observation = held.observation.clone()
    for _ in range(25):
        env.step(hold(32, -1.0))
    assert all(torch.equal(held.signals[name], copies[name]) for name in copies)
    assert torch.equal(held.observation, observation)


def test_gradients_of_a_policy_stay_outside():
    actions = torch.zeros(2, 1, requires_grad=True)
    step = make_env(Slider(), 2).step(actions)
    assert not step.observation.requires_grad and not step.signals["actions"].requires_grad


def test_sampled_signals_are_deterministic_and_differ_between_worlds():
    task = Drifter()
    sample, again = (sample_signals(task, 64, num_steps=30, seed=4) for _ in range(2))
    other = sample_signals(task, 64, num_steps=30, seed=5)
    task.signal_table.validate(sample, 64)
    assert all(torch.equal(sample[name], again[name]) for name in sample)
    assert not torch.equal(sample["velocity"], other["velocity"])
    assert sample["actions"].abs().max() <= 1.0 and len(sample["actions"].unique()) > 30
    assert len(sample["position"].unique()) == 64


def test_sampled_signals_hold_failures():
    """States beyond the limit are seen only if the sample is taken before the reset."""
    position = sample_signals(Drifter(), 1024, num_steps=30)["position"].abs()
    assert (position > 1.0).any() and (position < 0.5).any()


def test_bad_input_is_one_line():
    with pytest.raises(UserError, match=r"unknown backend 'nativ'.*Did you mean 'native'\?"):
        make_env(Slider(), 1, backend="nativ")
    with pytest.raises(UserError, match="use device 'cpu'"):
        make_env(Slider(), 1, device="cuda")
    with pytest.raises(UserError, match="num_envs=0"):
        make_env(Slider(), 0)


def test_a_wrong_control_period_is_named():
    class OffBeat(Slider):
        control_dt_s = 0.025

    with pytest.raises(UserError, match=r"control_dt_s=0\.025 is no whole multiple of the model's timestep 0\.01"):
        make_env(OffBeat(), 1)


def test_wrong_signals_and_observations_are_named():
    class Thin(Slider):
        def signals(self, sim):
            return {**super().signals(sim), "position": sim.qpos[:, 0]}

    class Flat(Slider):
        def observe(self, signals):
            return signals["position"][:, 0]

    with pytest.raises(UserError, match=r"signal 'position' has shape \(2,\); the table says \(2, 1\)"):
        make_env(Thin(), 2)
    with pytest.raises(UserError, match=r"observe\(\) gave shape \(2,\), expected \(2, O\)"):
        make_env(Flat(), 2)


def test_a_model_that_does_not_compile_is_one_line(tmp_path):
    class Broken(Slider):
        xml = "<mujoco><worldbody><bdy/></worldbody></mujoco>"

    class Missing(Slider):
        xml = tmp_path / "nowhere.xml"

    for task, word in ((Broken(), "bdy"), (Missing(), "nowhere.xml")):
        with pytest.raises(UserError, match=word) as caught:
            make_env(task, 1)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", registry.names())
def test_signals_of_some_worlds_are_those_of_all(name: str):
    """Only worlds that start anew are computed again; nothing else may come out than if all had been. Bit for bit, but
    for torch.atan2, whose last bit depends on the place of a number in its tensor."""
    rounded = {"pole_angle"}
    task = registry.make(name)
    env = make_env(task, 37, seed=3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(60):
        step = env.step(torch.rand(37, env.num_actions, generator=rng) * 2 - 1)
        whole = task.signals(env.sim)
        assert torch.equal(step.observation, task.observe(whole))
    for ids in ([0], [36], [1, 4, 5, 6, 20], list(range(0, 37, 2)), list(range(37))):
        some = task.signals(WorldSubset(env.sim, torch.tensor(ids)))
        assert list(some) == list(whole)
        for key, tensor in some.items():
            close = torch.allclose(tensor, whole[key][ids], rtol=0.0, atol=5e-7)
            assert close if key in rounded else torch.equal(tensor, whole[key][ids]), key
        assert torch.equal(task.observe(some), task.observe(whole)[ids])


def test_a_subset_has_rows_of_sensors_memory_and_state_and_cannot_be_set():
    env = make_env(Slider(), 4)
    env.step(torch.tensor([[-1.0], [0.0], [0.5], [1.0]]))
    some = WorldSubset(env.sim, torch.tensor([1, 3]))
    assert some.num_envs == 2 and some.substeps == 2 and len(some.memory) == 2
    assert some.memory["actions"].tolist() == [[0.0], [1.0]] and list(some.memory) == list(env.sim.memory)
    assert torch.equal(some.qvel, env.sim.qvel[[1, 3]])
    assert not hasattr(some, "set_state") and not hasattr(some, "step")
    with pytest.raises(TypeError):
        some.memory["actions"] = torch.zeros(2, 1)  # type: ignore[index]


class Chaser(Slider):
    """Asked for a place that moves by 1 m as soon as the mass is right of the centre."""

    signal_table = SignalTable([*Slider.signal_table, Signal("goal", 1, "m", "world", "command", "where to be")])

    def setup(self, sim):
        sim.memory["goal"] = torch.zeros(sim.num_envs, 1)
        self.calls: list[list[float]] = []

    def reset(self, sim, env_ids, rng):
        super().reset(sim, env_ids, rng)
        sim.memory["goal"] = sim.memory["goal"].index_fill(0, env_ids, -5.0)

    def signals(self, sim):
        return {**super().signals(sim), "goal": sim.memory["goal"]}

    def update(self, sim, signals, rng):
        reached = signals["position"][:, 0] > 0
        self.calls.append(signals["goal"][:, 0].tolist())
        sim.memory["goal"] = sim.memory["goal"] + reached[:, None].float()
        return reached

    def observe(self, signals):
        return torch.cat([signals["position"], signals["goal"]], dim=-1)


def test_a_task_changes_its_goal_after_the_step_was_rewarded_and_before_the_policy_looks():
    env = make_env(Chaser(), 6, seed=1)
    env.episode_step[:] = torch.tensor([0, 0, 0, 19, 19, 19])
    before = env.observe()[:, 1].clone()
    assert before.tolist() == [-5.0] * 6
    step = env.step(hold(6, REST))
    assert step.signals["goal"][:, 0].tolist() == [-5.0] * 6  # what the reward sees: the goal as it was
    right = (step.signals["position"][:, 0] > 0).tolist()
    assert any(right[:3]) and not all(right[:3])
    expected = [-4.0 if moved else -5.0 for moved in right[:3]] + [-5.0] * 3  # an episode that ended starts anew
    assert step.observation[:, 1].tolist() == expected
    assert env.task.calls == [[-5.0] * 6]


def test_memory_that_is_not_one_row_a_world_is_refused():
    class Wrong(Slider):
        def setup(self, sim):
            sim.memory["limits"] = torch.zeros(2, 1)

    with pytest.raises(UserError, match=r"memory\['limits'\] has shape \(2, 1\), expected \(3, ...\).*constants"):
        make_env(Wrong(), 3)
