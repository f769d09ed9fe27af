"""Configurations: layers, typing errors, JSON both ways."""

from __future__ import annotations

import json

import pytest

from rl.config import PRESETS, PPOConfig, TrainConfig, config_for, from_json, to_json
from tasks import registry
from tasks.errors import UserError


def test_layers_override_each_other(slider):
    """The slider's own settings stand over the defaults, the caller's over both."""
    config = config_for(slider, {"iterations": 7, "ppo": {"gamma": 0.9}})
    assert (config.num_envs, config.iterations) == (32, 7)  # the task's, the caller's
    assert (config.ppo.hidden_dims, config.ppo.gamma) == ((16,), 0.9)
    assert config.ppo.lam == PPOConfig().lam


def test_every_built_in_task_has_a_preset():
    built_in = ["cartpole-balance", "cartpole-swingup", "ball-balance", "quadcopter-hover", "ant-run"]
    built_in += [
        "humanoid-run",
        "ant-command",
        "humanoid-command",
        "anymal-velocity",
        "g1-velocity",
        "x2-hover",
        "franka-cabinet",
        "quadcopter-command",
    ]
    built_in += ["allegro-reorient", "shadow-reorient", "shadow-pen-spin", "shadow-over", "shadow-catch-underarm"]
    built_in += ["shadow-door-open-outward", "shadow-scissors", "shadow-bottle-cap", "shadow-block-stack"]
    assert set(PRESETS) == set(built_in) <= set(registry.names())


def test_json_round_trip():
    config = TrainConfig(num_envs=3, ppo=PPOConfig(hidden_dims=(7, 8), gamma=0.5))
    assert from_json(json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"num_env": 5}, "unknown field 'num_env'. Did you mean 'num_envs'?"),
        ({"ppo": {"gama": 0.9}}, "unknown field 'ppo.gama'. Did you mean 'gamma'?"),
        ({"num_envs": -1}, "num_envs is -1, expected a whole number of at least 1."),
        ({"iterations": 0}, "iterations is 0, expected a whole number of at least 1."),
        ({"iterations": 2.5}, "iterations is 2.5, expected a whole number."),
        ({"iterations": True}, "iterations is True, expected a whole number."),
        ({"ppo": {"gamma": 1.5}}, "ppo.gamma is 1.5, expected a number from 0 to 1."),
        ({"ppo": {"learning_rate": float("nan")}}, "ppo.learning_rate is nan, expected a finite number."),
        ({"ppo": {"hidden_dims": []}}, "ppo.hidden_dims is (), expected one or more whole numbers"),
        ({"ppo": {"activation": "swich"}}, "Did you mean 'swish'?"),
        ({"ppo": 3}, "ppo: expected a mapping of PPO fields, got 3."),
        ({"num_envs": 1, "steps_per_env": 1}, "too few for 2 minibatches"),
    ],
)
def test_bad_overrides_give_one_line(slider, overrides, line):
    with pytest.raises(UserError) as caught:
        config_for(slider, overrides)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_json_must_be_whole():
    data = to_json(TrainConfig())
    del data["iterations"], data["num_envs"]
    with pytest.raises(UserError, match="missing num_envs, iterations"):
        from_json(data)
    data = to_json(TrainConfig())
    del data["ppo"]["lam"]
    with pytest.raises(UserError, match=r"config\.ppo: missing lam"):
        from_json(data)
    with pytest.raises(UserError, match=r"unknown field 'config\.itterations'\. Did you mean 'iterations'"):
        from_json(to_json(TrainConfig()) | {"itterations": 3})
    with pytest.raises(UserError, match="expected an object"):
        from_json([1, 2])
