"""Stand-in for isaaclab.envs."""

from .direct_rl_env import DirectRLEnv
from .direct_rl_env_cfg import DirectRLEnvCfg
from .manager_based_rl_env import ManagerBasedRLEnv
from .manager_based_rl_env_cfg import ManagerBasedRLEnvCfg

__all__ = ["DirectRLEnv", "DirectRLEnvCfg", "ManagerBasedRLEnv", "ManagerBasedRLEnvCfg"]
