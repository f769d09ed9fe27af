"""The adapter against a hand-integrated mass, and our cheaper parts of rsl_rl against rsl_rl's own.

The slider moves by MuJoCo's semi-implicit Euler: twice per control step v += 4 a dt, then x += v dt, with
dt = 0.025 s.
"""

from __future__ import annotations

import threading

import pytest
import torch
from rsl_rl.modules import MLP
from rsl_rl.modules.distribution import GaussianDistribution
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict

from rl.config import PPOConfig
from rl.rsl_adapter import OUTLIER, ReturnDeviation, RslVecEnv, make_ppo, within
from rl.rsl_speed import MIN_ROWS, DiagonalGaussian, ShuffledStorage, split_rows
from tasks.env import make_env

GAMMA = 0.9


def position_reward(signals):
    """The place of the mass after the step."""
    place = signals["mass_position"][:, 0]
    return place.clone(), {"place": place.clone()}


@pytest.fixture
def env(slider):
    made = make_env(slider, 2, seed=3, num_threads=1)
    # World 0 stands still in the middle; world 1 is one step of full thrust away from the end of the rail.
    made.sim.set_state(torch.tensor([0, 1]), torch.tensor([[0.0], [1.9]]), torch.tensor([[0.0], [2.0]]))
    yield made
    made.close()


def integrate(x: float, v: float, action: float) -> tuple[float, float]:
    for _ in range(2):
        v += 4.0 * action * 0.025
        x += v * 0.025
    return x, v


def test_reward_is_that_of_the_state_before_the_reset(env):
    """World 1 leaves the rail: its reward is of the place where it left, its observation of the next
    episode."""
    vec = RslVecEnv(env, position_reward)
    observation, reward, done, extras = vec.step(torch.tensor([[0.5], [1.0]]))
    place_0, velocity_0 = integrate(0.0, 0.0, 0.5)
    place_1, _ = integrate(1.9, 2.0, 1.0)
    assert place_1 > 2.0
    assert reward.tolist() == pytest.approx([place_0, place_1], abs=1e-6)
    assert vec.last is not None
    assert vec.last.total.tolist() == pytest.approx([place_0, place_1], abs=1e-6)
    assert done.tolist() == [False, True]
    assert extras["time_outs"].tolist() == [False, False]  # failed, not timed out
    assert observation["policy"][0].tolist() == pytest.approx([place_0, velocity_0], abs=1e-6)
    assert abs(observation["policy"][1, 0].item()) <= 1.0  # episodes start within a metre of the middle, at rest
    assert observation["policy"][1, 1].item() == 0.0


def test_only_a_time_out_is_bootstrapped(env):
    """World 0 reaches the time limit and world 1 fails in the same step: only world 0's return holds the
    value."""
    vec = RslVecEnv(env, position_reward)
    ppo = make_ppo(vec, PPOConfig(gamma=GAMMA, num_mini_batches=1, hidden_dims=(8,)), steps_per_env=1)
    vec.episode_length_buf = torch.tensor([env.max_episode_steps - 1, 0])
    with torch.inference_mode():
        start = vec.get_observations()
        ppo.act(start)
        values = ppo.critic(start)[:, 0]
        observation, reward, done, extras = vec.step(torch.tensor([[0.0], [1.0]]))
        ppo.process_env_step(observation, reward, done, extras)
        ppo.compute_returns(observation)
    assert extras["time_outs"].tolist() == [True, False]
    assert done.tolist() == [True, True]
    expected = [0.0 + GAMMA * values[0].item(), integrate(1.9, 2.0, 1.0)[0]]
    assert ppo.storage.returns[0, :, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_an_episode_that_goes_on_is_worth_the_next_value(env):
    vec = RslVecEnv(env, position_reward)
    ppo = make_ppo(vec, PPOConfig(gamma=GAMMA, num_mini_batches=1, hidden_dims=(8,)), steps_per_env=1)
    with torch.inference_mode():
        ppo.act(vec.get_observations())
        observation, reward, done, extras = vec.step(torch.tensor([[1.0], [1.0]]))
        ppo.process_env_step(observation, reward, done, extras)
        ppo.compute_returns(observation)
        next_value = ppo.critic(observation)[0, 0].item()
    assert ppo.storage.returns[0, 0, 0].item() == pytest.approx(integrate(0, 0, 1.0)[0] + GAMMA * next_value, abs=1e-5)


def test_a_diverged_world_has_no_reward_and_fails(env):
    """The state after MuJoCo's silent reset is worth nothing, even if the reward of it is a NaN."""

    def reward(signals):
        place = signals["mass_position"][:, 0]
        return torch.where(place > 1.5, torch.nan, 7.0), {"seven": torch.full_like(place, 7.0)}

    env.sim.step = lambda: setattr(env.sim, "_diverged", torch.tensor([False, True]))
    vec = RslVecEnv(env, reward)
    _, rewards, done, extras = vec.step(torch.zeros(2, 1))
    assert rewards.tolist() == [7.0, 0.0]
    assert done.tolist() == [False, True]
    assert extras["time_outs"].tolist() == [False, False]


def test_deviation_is_that_of_all_discounted_returns():
    """Against the returns kept whole; an episode's end starts the return anew."""
    generator = torch.Generator().manual_seed(0)
    deviation, seen = ReturnDeviation(7, GAMMA, "cpu"), []
    returns = torch.zeros(7)
    for step in range(30):
        reward = 5.0 + torch.randn(7, generator=generator) * (1 + step)
        done = torch.rand(7, generator=generator) < 0.2
        returns = GAMMA * returns + reward
        seen.append(returns)
        found = deviation.add(reward, done)
        assert found.item() == pytest.approx(torch.stack(seen).std(correction=0).item(), rel=1e-5)
        returns = returns * ~done


def test_deviation_of_equal_returns_is_one():
    deviation = ReturnDeviation(4, GAMMA, "cpu")
    assert deviation.add(torch.full((4,), 1e6), torch.tensor([False, True, False, True])).item() == 1.0


def test_one_world_in_the_air_does_not_set_the_scale_of_all():
    """A reward of a million in the first step, of 256 worlds, and another later: the deviation comes back to that of the
    others. By hand, n steps after one: sqrt(1 + 100^2 / 256 / n)."""
    generator = torch.Generator().manual_seed(0)
    calm, thrown = ReturnDeviation(256, GAMMA, "cpu"), ReturnDeviation(256, GAMMA, "cpu")
    done = torch.ones(256, dtype=torch.bool)
    ratios = []
    for step in range(400):
        reward = torch.randn(256, generator=generator)
        expected = calm.add(reward, done)
        if step in (0, 10):
            reward[7] = -1e6
        ratios.append((thrown.add(reward, done) / expected).item())
    assert max(ratios) < 8.0 and ratios[-1] < 1.25


def test_a_rare_bonus_beside_small_costs_counts_in_full():
    """One world in a thousand is paid 100, all others lose about 0.01: the deviation is that of these returns."""
    deviation, generator = ReturnDeviation(1000, GAMMA, "cpu"), torch.Generator().manual_seed(0)
    done = torch.ones(1000, dtype=torch.bool)
    for _ in range(300):
        reward = -0.01 * torch.rand(1000, generator=generator)
        reward[torch.randint(1000, (1,), generator=generator)] = 100.0
        found = deviation.add(reward, done)
    assert found.item() == pytest.approx(100.0 * (0.001 * 0.999) ** 0.5, rel=0.1)


def test_ppo_sees_no_reward_beyond_the_limit(env):
    """Nor is anything hidden that is not finite."""
    deviation = ReturnDeviation(2, GAMMA, "cpu")
    deviation.moments = torch.tensor([1e6, 0.0, 1e6], dtype=torch.float64)  # a million returns of deviation 1
    vec = RslVecEnv(env, lambda signals: (torch.tensor([1e9, 0.0]), {}), deviation)
    assert vec.step(torch.zeros(2, 1))[1].tolist() == [pytest.approx(OUTLIER), 0.0]
    assert within(torch.tensor([-1e6, 3.0, torch.inf])).tolist() == [-OUTLIER, 3.0, torch.inf]
    assert within(torch.tensor([torch.nan])).isnan().all()


def test_learning_does_not_depend_on_the_scale_of_the_reward(env):
    """Two worlds, the same actions: a reward in other units gives PPO the same rewards."""
    seen = []
    for unit in (1.0, 1000.0):
        env.reset()
        env.sim.set_state(torch.tensor([0, 1]), torch.tensor([[0.0], [0.5]]), torch.tensor([[0.0], [1.0]]))

        def reward(signals, unit=unit):
            return position_reward(signals)[0] * unit, {}

        vec = RslVecEnv(env, reward, ReturnDeviation(2, GAMMA, "cpu"))
        seen.append(torch.stack([vec.step(torch.tensor([[0.5], [-0.5]]))[1] for _ in range(5)]))
    assert seen[0].abs().max() > 0.5
    torch.testing.assert_close(seen[0], seen[1], rtol=1e-4, atol=1e-5)


def test_construction_is_silent(env, capfd):
    make_ppo(RslVecEnv(env, position_reward), PPOConfig(), steps_per_env=2)
    assert capfd.readouterr() == ("", "")


def test_storage_yields_the_minibatches_of_rsl_rl():
    storages = [
        kind("rl", 5, 4, TensorDict({"o": torch.zeros(5, 3)}, [5]), [2]) for kind in (RolloutStorage, ShuffledStorage)
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        step = RolloutStorage.Transition()
        step.observations = TensorDict({"o": torch.randn(5, 3, generator=generator)}, [5])
        step.actions, mean, std = (torch.randn(5, 2, generator=generator) for _ in range(3))
        step.rewards, step.dones, step.actions_log_prob = (torch.randn(5, generator=generator) for _ in range(3))
        step.values = torch.randn(5, 1, generator=generator)
        step.distribution_params = (mean, std)
        for storage in storages:
            storage.add_transition(step)
    for storage in storages:
        storage.returns.copy_(storage.values + 1)
        storage.advantages.copy_(storage.values - 1)
    lists = []
    for storage in storages:
        torch.manual_seed(4)
        lists.append(list(storage.mini_batch_generator(3, 2)))
    assert len(lists[0]) == len(lists[1]) == 6
    for theirs, ours in zip(*lists, strict=True):
        assert torch.equal(theirs.observations["o"], ours.observations["o"])
        for name in ("actions", "values", "advantages", "returns", "old_actions_log_prob"):
            assert torch.equal(getattr(theirs, name), getattr(ours, name)), name
        for a, b in zip(theirs.old_distribution_params, ours.old_distribution_params, strict=True):
            assert torch.equal(a, b)


def test_gaussian_is_that_of_rsl_rl():
    theirs, ours = GaussianDistribution(3, 0.7, std_type="log"), DiagonalGaussian(3, 0.7)
    for each in (theirs, ours):
        each.log_std_param.data.copy_(torch.tensor([-0.5, 0.1, 0.6]))
        each.update(torch.arange(12.0).view(4, 3))
    outputs = torch.randn(4, 3) + ours.mean
    old = (torch.randn(4, 3), torch.tensor([0.5, 1.0, 2.0]).expand(4, 3))
    torch.testing.assert_close(ours.log_prob(outputs), theirs.log_prob(outputs))
    torch.testing.assert_close(ours.entropy, theirs.entropy)
    torch.testing.assert_close(ours.kl_divergence(old, ours.params), theirs.kl_divergence(old, theirs.params))
    for a, b in zip(ours.params, theirs.params, strict=True):
        torch.testing.assert_close(a, b)
    torch.manual_seed(0)
    ours.update(torch.zeros(200_000, 3))
    sample = ours.sample()
    torch.testing.assert_close(sample.std(dim=0), ours.log_std_param.exp().detach(), rtol=0.02, atol=0.0)
    assert not sample.requires_grad


@pytest.fixture
def layers():
    # rsl_rl's own network: it holds one activation object under several names.
    return MLP(5, 3, (16, 16), "swish"), torch.randn(2 * MIN_ROWS + 1, 5)


def test_split_rows_give_the_same_values_and_gradients(layers):
    plain, rows = layers
    split = split_rows(plain, 2)
    assert list(split.state_dict()) == list(plain.state_dict())
    assert split[0].weight is plain[0].weight
    results = []
    for each in (plain, split):
        plain.zero_grad()
        output = each(rows)
        output.pow(3).mean().backward()
        results.append([output.detach(), *(p.grad.clone() for p in plain.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_rows_are_split_over_threads(layers):
    """And only where that pays: not for few rows, not without gradients."""
    plain, rows = layers
    seen = []
    plain[0].register_forward_hook(lambda *_: seen.append(threading.get_ident()))
    split = split_rows(plain, 2)
    split(rows)
    assert len(set(seen)) == 2 and threading.get_ident() in seen
    for few in (lambda: split(rows[: 2 * MIN_ROWS - 1]), lambda: torch.inference_mode()(split)(rows)):
        seen.clear()
        few()
        assert seen == [threading.get_ident()]


def test_an_error_in_another_thread_is_raised(layers):
    plain, rows = layers

    def fail(module, args):
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("in another thread")

    plain[0].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="in another thread"):
        split_rows(plain, 2)(rows)
