"""What each task of ours trains with. Values only; `rl.config` says what the fields mean and checks them.

A preset is a mapping of `TrainConfig` fields that differ from the defaults; PPO's own fields stand under
"ppo".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Two hands, a beginning: the Eureka paper trains 2048 worlds for 6000 iterations of 8 steps (98 M steps), gamma 0.96,
# nets of [512, 256, 128], 5 passes; here a tenth of the steps and smaller nets. Nothing was trained with these yet.
_TWO_HANDS: Mapping[str, Any] = {
    "num_envs": 512,
    "steps_per_env": 16,
    "iterations": 1200,
    "save_interval": 100,
    "ppo": {
        "num_learning_epochs": 3,
        "hidden_dims": (256, 128),
        "gamma": 0.96,
        "init_noise_std": 0.5,
        "desired_kl": 0.016,
    },
}

PRESETS: dict[str, Mapping[str, Any]] = {
    "cartpole-balance": {
        "num_envs": 256,
        "steps_per_env": 16,
        "iterations": 60,
        "ppo": {"hidden_dims": (32, 32), "gamma": 0.98},
    },
    "cartpole-swingup": {
        "num_envs": 512,
        "steps_per_env": 16,
        "iterations": 90,
        "ppo": {"hidden_dims": (64, 64), "gamma": 0.99},
    },
    "ball-balance": {
        "num_envs": 512,
        "steps_per_env": 16,
        "iterations": 80,
        "ppo": {"hidden_dims": (64, 64), "gamma": 0.99},
    },
    # Long rollouts and a high lambda: hovering near the target or on it differs by less than the critic's error.
    "quadcopter-hover": {
        "num_envs": 256,
        "steps_per_env": 32,
        "iterations": 120,
        "ppo": {"hidden_dims": (64, 64), "gamma": 0.99, "lam": 0.99},
    },
    # As quadcopter-hover, with more worlds: seven commands instead of one place.
    "quadcopter-command": {
        "num_envs": 512,
        "steps_per_env": 32,
        "iterations": 150,
        "save_interval": 50,
        "ppo": {"hidden_dims": (64, 64), "gamma": 0.98, "lam": 0.95},
    },
    "ant-run": {
        "num_envs": 1024,
        "steps_per_env": 16,
        "iterations": 150,
        "save_interval": 50,
        # Falls are rare and cost half an episode: of 64 episodes their number alone moves the mean by 0.1 m/s.
        "eval_episodes": 256,
        "ppo": {
            "num_learning_epochs": 2,
            "hidden_dims": (128, 64),
            "gamma": 0.99,
            "init_noise_std": 0.6,
            "desired_kl": 0.016,
        },
    },
    "humanoid-run": {
        "num_envs": 1024,
        "steps_per_env": 16,
        "iterations": 400,
        "save_interval": 50,
        "ppo": {
            "num_learning_epochs": 2,
            "hidden_dims": (256, 128),
            "gamma": 0.99,
            "init_noise_std": 0.6,
            "desired_kl": 0.016,
        },
    },
    # As ant-run, more of it: six skills, and changes from each to each.
    "ant-command": {
        "num_envs": 1024,
        "steps_per_env": 16,
        "iterations": 250,
        "save_interval": 50,
        "eval_episodes": 256,
        "ppo": {
            "num_learning_epochs": 2,
            "hidden_dims": (128, 64),
            "gamma": 0.99,
            "init_noise_std": 0.4,
            "desired_kl": 0.016,
        },
    },
    "humanoid-command": {
        "num_envs": 1024,
        "steps_per_env": 16,
        "iterations": 500,
        "save_interval": 50,
        "eval_episodes": 128,
        "ppo": {
            "num_learning_epochs": 2,
            "hidden_dims": (256, 128),
            "gamma": 0.99,
            "init_noise_std": 0.6,
            "desired_kl": 0.016,
        },
    },
    # A clipped action of 1 is twice legged_gym's, so that noise of 0.5 explores as its 1.0 does. 24 steps as there:
    # 0.5 s, or about one stride. The physics takes most of the time, so that samples are used four times.
    "anymal-velocity": {
        "num_envs": 512,
        "steps_per_env": 24,
        "iterations": 800,
        "save_interval": 50,
        "ppo": {
            "num_learning_epochs": 4,
            "hidden_dims": (128, 64),
            "gamma": 0.99,
            "init_noise_std": 0.5,
            "entropy_coef": 0.002,
        },
    },
    # As above; mjlab's G1 takes 3000 iterations of 98,304 steps, so that these are a beginning.
    "g1-velocity": {
        "num_envs": 512,
        "steps_per_env": 24,
        "iterations": 1500,
        "save_interval": 50,
        "ppo": {
            "num_learning_epochs": 4,
            "hidden_dims": (256, 128),
            "gamma": 0.99,
            "init_noise_std": 0.5,
            "entropy_coef": 0.002,
        },
    },
    "franka-cabinet": {
        "num_envs": 512,
        "steps_per_env": 16,
        "iterations": 1000,
        "save_interval": 100,
        "ppo": {
            "num_learning_epochs": 2,
            "hidden_dims": (128, 64),
            "gamma": 0.99,
            "init_noise_std": 0.6,
            "desired_kl": 0.016,
        },
    },
    # The quadcopter's, see there.
    "x2-hover": {
        "num_envs": 256,
        "steps_per_env": 32,
        "iterations": 120,
        "ppo": {"hidden_dims": (64, 64), "gamma": 0.99, "lam": 0.99},
    },
    # KL as IsaacGymEnvs' hands; more worlds than elsewhere, since starts and goals are random orientations.
    "allegro-reorient": {
        "num_envs": 1024,
        "steps_per_env": 32,
        "iterations": 900,
        "save_interval": 100,
        "ppo": {
            "num_learning_epochs": 3,
            "hidden_dims": (256, 128),
            "gamma": 0.99,
            "init_noise_std": 0.5,
            "desired_kl": 0.016,
        },
    },
    "shadow-reorient": {
        "num_envs": 1024,
        "steps_per_env": 32,
        "iterations": 900,
        "save_interval": 100,
        "ppo": {
            "num_learning_epochs": 3,
            "hidden_dims": (256, 128),
            "gamma": 0.99,
            "init_noise_std": 0.5,
            "desired_kl": 0.016,
        },
    },
    "shadow-pen-spin": {
        "num_envs": 1024,
        "steps_per_env": 32,
        "iterations": 600,
        "save_interval": 100,
        "ppo": {
            "num_learning_epochs": 3,
            "hidden_dims": (256, 128),
            "gamma": 0.99,
            "init_noise_std": 0.5,
            "desired_kl": 0.016,
        },
    },
    "shadow-over": _TWO_HANDS,
    "shadow-catch-underarm": _TWO_HANDS,
    "shadow-door-open-outward": _TWO_HANDS,
    "shadow-scissors": _TWO_HANDS,
    "shadow-bottle-cap": _TWO_HANDS,
    "shadow-block-stack": _TWO_HANDS,
}
