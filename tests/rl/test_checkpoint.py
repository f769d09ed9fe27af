"""Checkpoints: what was saved acts the same when loaded; what cannot be loaded says why in one line."""

from __future__ import annotations

import errno
import json
import os
import pickle
from importlib.metadata import version

import pytest
import torch
from tensordict import TensorDict

from rl import checkpoint
from rl.config import PPOConfig
from rl.rsl_adapter import OBSERVATION_GROUP, RslVecEnv, make_ppo
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError

PPO = PPOConfig(hidden_dims=(6, 5), activation="tanh", num_mini_batches=1)


@pytest.fixture
def saved(slider, tmp_path):
    """A policy with a normaliser that has seen data, saved; its deterministic actions; its path."""
    env = make_env(slider, 4, num_threads=1)
    ppo = make_ppo(RslVecEnv(env, lambda signals: None), PPO, 2)  # type: ignore[arg-type, return-value]
    ppo.actor.obs_normalizer.update(torch.randn(64, 2) * 5 + 3)
    observation = torch.randn(7, 2) * 4
    with torch.no_grad():
        actions = ppo.actor(TensorDict({OBSERVATION_GROUP: observation}, [7]))
    meta = checkpoint.make_meta(slider, "slider.py", env.num_observations, env.num_actions, PPO)
    meta |= {"env_steps": 800, "reward_sha256": "abc"}
    path = checkpoint.save(tmp_path, 100, ppo.save(), meta)
    env.close()
    return path, observation, actions


def test_round_trip(saved, slider):
    path, observation, actions = saved
    assert path.name == "model_000100.pt"
    policy = checkpoint.load_policy(path, slider)
    torch.testing.assert_close(policy(observation), actions)
    assert not policy(observation).requires_grad
    meta = json.loads(path.with_suffix(".json").read_text())
    assert policy.meta == meta
    assert (meta["task"], meta["iteration"], meta["env_steps"], meta["hidden_dims"]) == (
        "slider",
        100,
        800,
        [6, 5],
    )
    assert meta["libraries"]["torch"] == version("torch")


def test_latest_is_the_newest_complete_one(saved, tmp_path):
    path, _, _ = saved
    assert checkpoint.latest(tmp_path) == path
    (tmp_path / "model_000200.pt").write_bytes(b"its meta was never written")
    assert checkpoint.latest(tmp_path) == path
    assert checkpoint.latest(tmp_path / "nowhere") is None


def edit_meta(path, **changes):
    meta_path = path.with_suffix(".json")
    meta_path.write_text(json.dumps(json.loads(meta_path.read_text()) | changes))


def without_hash(path, data: bytes | None = None):
    """Make it a checkpoint of an earlier version, perhaps with other data; returns its path."""
    meta = json.loads(path.with_suffix(".json").read_text())
    del meta["sha256"], meta["size"]
    path.with_suffix(".json").write_text(json.dumps(meta))
    if data is not None:
        path.write_bytes(data)
    return path


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_checkpoint_of_an_earlier_version_is_read(saved, slider, tmp_path):
    path, observation, actions = saved
    assert checkpoint.latest(tmp_path) == without_hash(path)
    torch.testing.assert_close(checkpoint.load_policy(path, slider)(observation), actions)


def test_the_last_two_are_kept_and_a_damaged_one_is_passed_over(saved, tmp_path):
    """The newest, then the one before it when the newest is damaged, then none; each damage is told."""
    path, _, _ = saved
    meta = {k: v for k, v in checkpoint.read_meta(path).items() if k not in ("iteration", "sha256", "size")}
    state = checkpoint.load_state(path)
    newer = [checkpoint.save(tmp_path, iteration, state, meta) for iteration in (200, 300)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model_000200.json", "model_000200.pt", "model_000300.json", "model_000300.pt"
    ]  # fmt: skip
    said: list[str] = []
    assert checkpoint.latest(tmp_path, said.append) == newer[1] and not said
    flip_a_bit(newer[1])
    assert checkpoint.latest(tmp_path, said.append) == newer[0]
    assert len(said) == 1 and said[0].startswith(f"{newer[1]}: damaged") and "\n" not in said[0]
    newer[0].with_suffix(".json").write_text("{")
    assert checkpoint.latest(tmp_path) is None


def test_a_write_that_fails_leaves_the_earlier_checkpoint(saved, tmp_path, monkeypatch):
    """Whichever of the two files finds no room: the one before stays whole and is the newest."""
    path, _, _ = saved
    meta = {k: v for k, v in checkpoint.read_meta(path).items() if k not in ("iteration", "sha256", "size")}
    state = checkpoint.load_state(path)
    real = os.fsync
    for failing in (1, 3):  # of a file and its folder, twice
        calls = []

        def fsync(handle, failing=failing, calls=calls):
            calls.append(handle)
            if len(calls) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space"):
            checkpoint.save(tmp_path, 200, state, meta)
        assert checkpoint.latest(tmp_path) == path
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such checkpoint"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:500]),
            "damaged, its sha256 is not the one in model_000100.json",
        ),
        (lambda path: path.write_bytes(b""), "damaged, its sha256"),
        (lambda path: flip_a_bit(path), "(same size); use an earlier checkpoint"),
        (lambda path: without_hash(path, path.read_bytes()[:500]), "damaged, or no checkpoint of ours"),
        (lambda path: path.with_suffix(".json").unlink(), "no such file"),
        (lambda path: path.with_suffix(".json").write_text("{"), "not valid JSON"),
        (lambda path: edit_meta(path, schema=9), "schema 9 is not the supported 1"),
        (lambda path: edit_meta(path, num_actions="2"), "field 'num_actions' is '2'"),
        (lambda path: edit_meta(path, num_observations=3), "weights and meta disagree"),
        (lambda path: edit_meta(path, hidden_dims=[6, 6]), "weights and meta disagree"),
        (lambda path: torch.save({"a": 1}, without_hash(path)), "holds no policy"),
    ],
)
def test_damage_is_named(saved, damage, message):
    path, _, _ = saved
    damage(path)
    with pytest.raises(UserError) as caught:
        checkpoint.load_policy(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Payload:
    """Pickles to a call of open()."""

    def __init__(self, victim: str) -> None:
        self.victim = victim

    def __reduce__(self):
        return open, (self.victim, "w")


def test_a_checkpoint_runs_no_code(saved, tmp_path):
    path, _, _ = saved
    victim = tmp_path / "victim"
    torch.save({"actor_state_dict": Payload(str(victim))}, without_hash(path))
    with pytest.raises(UserError, match="damaged, or no checkpoint of ours"):
        checkpoint.load_policy(path)
    path.write_bytes(pickle.dumps(Payload(str(victim)), protocol=2))
    with pytest.raises(UserError, match="damaged, or no checkpoint of ours"):
        checkpoint.load_policy(path)
    assert not victim.exists()


def test_a_policy_of_another_task(saved):
    path, _, _ = saved
    with pytest.raises(UserError, match="a policy of task 'slider', not of 'cartpole-balance'"):
        checkpoint.load_policy(path, registry.make("cartpole-balance"))
