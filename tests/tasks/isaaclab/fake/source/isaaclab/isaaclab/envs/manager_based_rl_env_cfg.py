"""Stand-in for the configuration of a manager-based environment."""

from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sim import SimulationCfg
from isaaclab.utils import configclass


@configclass
class ManagerBasedRLEnvCfg:
    sim: SimulationCfg = SimulationCfg()
    seed: int | None = None
    decimation: int = 1
    episode_length_s: float = 1.0
    scene: InteractiveSceneCfg = InteractiveSceneCfg()
    observations: object = None
    actions: object = None
    rewards: object = None
    terminations: object = None
    commands: object = None
