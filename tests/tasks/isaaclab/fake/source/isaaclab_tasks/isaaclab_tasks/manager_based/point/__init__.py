"""Registers the point as a manager-based task."""

import gymnasium as gym

gym.register(
    id="Isaac-Point-v0",
    entry_point="isaaclab.envs:ManagerBasedRLEnv",
    disable_env_checker=True,
    kwargs={"env_cfg_entry_point": f"{__name__}.point_env_cfg:PointEnvCfg"},
)
