"""Whole trainings of the slider: that PPO learns, how trainings fail, and how they go on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from rsl_rl.algorithms import PPO

from rewards.function import build_reward
from rl import checkpoint
from rl.evaluate import evaluate
from rl.record import read_metrics
from rl.train import Training, train
from tasks import registry
from tasks.errors import UserError
from tasks.sim_native import NativeSimulation
from tests.rl.conftest import HUMAN_REWARD

LEARNING = {
    "num_envs": 128,
    "steps_per_env": 20,
    "iterations": 25,
    "eval_episodes": 64,
    "ppo": {"hidden_dims": (32, 32), "num_learning_epochs": 4, "num_mini_batches": 4},
}
LEARNT = -0.3
"""Minus metres from the middle. A mass that is left alone scores -0.5, as it starts anywhere within 1 m; a
driven one reaches -0.15 to -0.22 (4 seeds); with the sign of the policy's loss changed, -1.5 to -1.6."""

HEADER = """import torch
from torch import Tensor


def compute_reward(mass_position: Tensor, mass_velocity: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
"""


def program(*lines: str) -> str:
    """A reward program with these lines as its body; the first is line 6."""
    return HEADER + "".join(f"    {line}\n" for line in lines)


def test_ppo_learns(make_request, slider, tmp_path):
    untrained = evaluate(slider, lambda o: torch.zeros(len(o), 1), episodes=64, seed=1001, num_threads=1)
    assert untrained.fitness < LEARNT - 0.1
    result = train(make_request(LEARNING), tmp_path)
    assert result["status"] == "ok"
    assert result["fitness"] > LEARNT
    (places,) = result["eval"].pop("behaviour")["mass_position"]
    (before,) = untrained.behaviour["mass_position"]
    assert before[3] - before[1] > 1.5 * (places[3] - places[1])
    assert result["eval"] == {"episodes": 64, "episode_length_s": 2.0, "terminations": {}, "truncations": 64,
                              "diverged": 0, "seed": 1001}  # fmt: skip
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["eval"].pop("behaviour") and written == result
    meta = json.loads((tmp_path / "model_000025.json").read_text())
    assert (meta["fitness"], meta["env_steps"]) == (result["fitness"], 128 * 20 * 25)


def test_ppo_does_not_learn_with_the_sign_of_its_policy_loss_changed(make_request, tmp_path, monkeypatch):
    """The test above can fail: the same training with negated advantages, which is a negated surrogate."""
    compute_returns = PPO.compute_returns

    def negated(self, obs):
        compute_returns(self, obs)
        self.storage.advantages = -self.storage.advantages

    monkeypatch.setattr(PPO, "compute_returns", negated)
    assert train(make_request(LEARNING), tmp_path)["fitness"] < LEARNT - 0.1


def test_metrics_of_every_iteration(make_request, tmp_path):
    seen = []
    result = train(make_request({"iterations": 6}), tmp_path, on_iteration=seen.append)
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert metrics == seen
    assert [m["iteration"] for m in metrics] == [1, 2, 3, 4, 5, 6]
    assert [m["env_steps"] for m in metrics] == [320 * i for i in range(1, 7)]  # 32 worlds x 10 steps
    assert result["env_steps"] == 1920
    last = metrics[-1]
    assert set(last) >= {"wall_s", "fitness", "episode_length_s", "reward_mean", "terminations",
                         "truncations", "diverged", "learning_rate", "noise_std", "value_loss",
                         "surrogate_loss", "steps_per_s"}  # fmt: skip
    assert set(last["components"]) == {"position_l2", "velocity_l2"}
    parts = sum(stats["mean"] for stats in last["components"].values())
    assert last["reward_mean"] == pytest.approx(parts, abs=1e-5)  # the program's total is their sum
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_reward_that_raises(make_request, tmp_path):
    text = program("bad = mass_position @ mass_velocity", 'return bad[:, 0], {"bad": bad[:, 0]}')
    result = train(make_request(reward=text), tmp_path)
    assert (result["status"], result["fitness"]) == ("reward_error", None)
    assert result["error"]["type"] == "RuntimeError"
    assert result["error"]["line"] == 6
    assert "mat1 and mat2 shapes" in result["error"]["message"]
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_a_reward_that_the_check_refuses(make_request, tmp_path):
    result = train(make_request(reward=HUMAN_REWARD.replace("mass_velocity", "mass_velocty")), tmp_path)
    assert (result["status"], result["fitness"]) == ("rejected", None)
    assert "mass_velocity" in result["error"]["message"]


def test_a_reward_that_becomes_nan(make_request, tmp_path):
    """log(1.05 - |x|) is finite where the mass starts and NaN once it has moved out; no NaN is trained on."""
    text = program(
        "place = torch.abs(mass_position[:, 0])",
        "centred = torch.log(1.05 - place)",
        'return centred + place, {"centred_log": centred, "place": place}',
    )
    result = train(make_request({"iterations": 50}, reward=text), tmp_path)
    assert (result["status"], result["fitness"]) == ("nonfinite_reward", None)
    iteration = result["iterations"] + 1
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == result["iterations"]
    message = result["error"]["message"]
    assert message.startswith(f"iteration {iteration}: ")
    assert "centred_log" in message
    assert "place" not in message  # it is finite


def test_a_policy_that_is_not_finite(make_request, tmp_path, monkeypatch):
    update = PPO.update

    def broken(self):
        losses = update(self)
        with torch.no_grad():
            self.critic.mlp[0].bias[0] = torch.inf
        return losses

    monkeypatch.setattr(PPO, "update", broken)
    result = train(make_request(), tmp_path)
    assert (result["status"], result["fitness"]) == ("nonfinite_policy", None)
    assert result["error"]["message"] == "iteration 1: not finite after the update: network weights"


def test_worlds_that_keep_diverging(make_request, tmp_path, monkeypatch):
    step = NativeSimulation.step

    def diverging(self):
        step(self)
        self._diverged = torch.arange(self.num_envs) % 2 == 0

    monkeypatch.setattr(NativeSimulation, "step", diverging)
    result = train(make_request(), tmp_path)
    assert (result["status"], result["fitness"]) == ("diverged", None)
    assert "iteration 1: the simulation diverged in 160 of the last " in result["error"]["message"]


def test_the_time_limit(make_request, tmp_path):
    result = train(make_request(time_limit_s=1e-6), tmp_path)
    assert (result["status"], result["fitness"], result["iterations"]) == ("time_limit", None, 1)
    assert result["checkpoint"] == "model_000001.pt"
    assert checkpoint.load_policy(tmp_path / result["checkpoint"]).meta["iteration"] == 1


def test_the_process_can_be_confined_when_the_reward_is_there(make_request, tmp_path):
    """Once, after the program was traced and before the first step; never for a reward that is refused."""
    seen = []
    train(make_request({"iterations": 1}), tmp_path / "a", on_reward=lambda: seen.append("reward"),
          on_iteration=lambda _: seen.append("iteration"))  # fmt: skip
    assert seen == ["reward", "iteration"]
    refused = train(make_request(reward="import os"), tmp_path / "b", on_reward=lambda: seen.append("refused"))
    assert refused["status"] == "rejected" and seen == ["reward", "iteration"]


def test_resume_goes_on_where_it_stopped(make_request, tmp_path):
    """Stopped in iteration 6 after a checkpoint at 4: 5 and 6 are trained again, and counted once."""

    class Killed(Exception):
        pass

    def kill(metrics):
        if metrics["iteration"] == 6:
            raise Killed

    request = make_request({"iterations": 8, "save_interval": 4})
    with pytest.raises(Killed):
        train(request, tmp_path, on_iteration=kill)
    before = read_metrics(tmp_path / "metrics.jsonl")
    assert [m["iteration"] for m in before] == [1, 2, 3, 4, 5, 6]
    seen = []
    result = train(request, tmp_path, on_iteration=seen.append, resume=True)
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert [m["iteration"] for m in seen] == [5, 6, 7, 8]
    assert metrics == before[:4] + seen
    assert [m["env_steps"] for m in metrics] == [320 * i for i in range(1, 9)]
    assert (result["status"], result["iterations"], result["checkpoint"]) == ("ok", 8, "model_000008.pt")
    assert metrics[4]["wall_s"] >= metrics[3]["wall_s"]
    again = train(request, tmp_path, on_iteration=seen.append, resume=True)
    assert len(seen) == 4  # finished: nothing is trained twice
    assert again["fitness"] == result["fitness"]


def test_resume_passes_over_a_damaged_checkpoint(make_request, tmp_path):
    """With the checkpoint at 4 damaged, training goes on from the one at 2, and says so."""

    class Killed(Exception):
        pass

    def kill(metrics):
        if metrics["iteration"] == 5:
            raise Killed

    request = make_request({"iterations": 6, "save_interval": 2})
    with pytest.raises(Killed):
        train(request, tmp_path, on_iteration=kill)
    assert sorted(p.name for p in tmp_path.glob("model_*.pt")) == ["model_000002.pt", "model_000004.pt"]
    damaged = tmp_path / "model_000004.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    (tmp_path / ".model_000006.pt.1.part").write_bytes(b"cut off")
    seen, said = [], []
    result = train(request, tmp_path, on_iteration=seen.append, on_damaged=said.append, resume=True)
    assert [m["iteration"] for m in seen] == [3, 4, 5, 6]
    assert len(said) == 1 and str(damaged) in said[0]
    assert (result["status"], result["checkpoint"]) == ("ok", "model_000006.pt")
    assert sorted(p.name for p in tmp_path.glob("model_*.pt")) == ["model_000004.pt", "model_000006.pt"]
    assert checkpoint.latest(tmp_path) == tmp_path / "model_000006.pt"
    assert not list(tmp_path.glob(".*.part"))


def test_a_checkpoint_beyond_the_one_resumed_from_does_not_outlive_it(make_request, tmp_path):
    """A damaged later checkpoint would otherwise count among the last two that are kept."""
    request = make_request({"iterations": 2, "save_interval": 1})
    train(request, tmp_path)
    (tmp_path / "model_000002.pt").write_bytes(b"damaged")
    reward = build_reward(request.reward, registry.make(request.task).signal_table)
    Training(request, registry.make(request.task), reward, tmp_path, resume=True).close()
    assert sorted(p.name for p in tmp_path.glob("model_*")) == ["model_000001.json", "model_000001.pt"]


def test_resume_restores_what_was_learnt(make_request, tmp_path):
    """The optimiser, its adapted learning rate and the normaliser come back, not only the weights."""
    request = make_request({"iterations": 3})
    train(request, tmp_path)
    task = registry.make(request.task)
    state = torch.load(tmp_path / "model_000003.pt", weights_only=True)
    training = Training(request, task, build_reward(request.reward, task.signal_table), tmp_path, resume=True)
    rate = read_metrics(tmp_path / "metrics.jsonl")[-1]["learning_rate"]
    try:
        assert training.ppo.learning_rate == rate != request.config.ppo.learning_rate
        for name, value in training.ppo.actor.state_dict().items():
            assert torch.equal(value, state["actor_state_dict"][name]), name
        assert training.ppo.actor.obs_normalizer.count == 3 * 320
        moments = training.ppo.optimizer.state_dict()["state"]
        assert torch.equal(moments[0]["exp_avg"], state["optimizer_state_dict"]["state"][0]["exp_avg"])
        assert moments[0]["exp_avg"].any()
        assert torch.equal(training.deviation.moments, state["return_moments"])
        assert training.deviation.moments[0] == 3 * 320
    finally:
        training.close()


def test_resume_refuses_another_reward(make_request, tmp_path):
    train(make_request({"iterations": 1}), tmp_path)
    with pytest.raises(UserError, match="cannot resume, its reward_sha256 is"):
        train(make_request(reward=HUMAN_REWARD.replace("0.1", "0.2")), tmp_path, resume=True)


def test_without_resume_nothing_earlier_is_left(make_request, tmp_path):
    train(make_request({"iterations": 3}), tmp_path)
    train(make_request({"iterations": 1}), tmp_path)
    assert [p.name for p in tmp_path.glob("model_*.pt")] == ["model_000001.pt"]
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 1


def test_the_same_request_gives_the_same_training(make_request, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    first, second = (train(make_request(), Path(folder)) for folder in folders)
    assert first["fitness"] == second["fitness"]
    losses = [[m["value_loss"] for m in read_metrics(folder / "metrics.jsonl")] for folder in folders]
    assert losses[0] == losses[1]


def test_a_training_goes_on_from_another_ones_checkpoint(make_request, tmp_path):
    """Steps and metrics count from the very start, and half a training plus the rest is no other than its own repeat;
    without the checkpoint nothing is trained."""
    small = {"iterations": 2, "num_envs": 8, "eval_episodes": 2}
    train(make_request(small, run_id="first"), tmp_path / "first")
    rest = make_request(small | {"iterations": 4}, run_id="rest", start_iteration=2)
    results = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for part in ("model_000002.pt", "model_000002.json", "metrics.jsonl"):
            shutil.copyfile(tmp_path / "first" / part, tmp_path / name / part)
        results.append(train(rest, tmp_path / name))
    assert results[0]["fitness"] == results[1]["fitness"]
    assert (results[0]["iterations"], results[0]["env_steps"]) == (4, 4 * 8 * 10)
    assert [row["iteration"] for row in read_metrics(tmp_path / "a" / "metrics.jsonl")] == [1, 2, 3, 4]
    with pytest.raises(UserError, match="no sound checkpoint of iteration 2"):
        train(rest, tmp_path / "without")
    with pytest.raises(UserError, match="start_iteration is 4, expected less than the 4"):
        make_request(small | {"iterations": 4}, start_iteration=4)
