"""
A point on a plane that has to reach one goal after another.
"""

import gymnasium as gym

from . import agents

gym.register(
    id="Isaac-Point-Direct-v0",
    entry_point=f"{__name__}.point_env:PointEnv",
    disable_env_checker=True,
    kwargs={
        "env_cfg_entry_point": f"{__name__}.point_env:PointEnvCfg",
        "rsl_rl_cfg_entry_point": f"{agents.__name__}.rsl_rl_ppo_cfg:PointPPORunnerCfg",
    },
)
