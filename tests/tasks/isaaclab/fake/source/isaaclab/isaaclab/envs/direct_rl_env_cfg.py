"""Stand-in for the configuration of a direct environment."""

from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sim import SimulationCfg
from isaaclab.utils import configclass


@configclass
class DirectRLEnvCfg:
    sim: SimulationCfg = SimulationCfg()
    seed: int | None = None
    decimation: int = 1
    episode_length_s: float = 1.0
    scene: InteractiveSceneCfg = InteractiveSceneCfg()
    observation_space: int = 0
    state_space: int = 0
    action_space: int = 0
