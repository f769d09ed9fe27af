"""Stand-in for isaaclab.scene."""

import torch

from isaaclab.assets import Articulation, ArticulationCfg
from isaaclab.utils import configclass


@configclass
class InteractiveSceneCfg:
    num_envs: int = 1
    env_spacing: float = 1.0


class InteractiveScene:
    def __init__(self, cfg, device):
        self.cfg, self.num_envs = cfg, cfg.num_envs
        self.env_origins = torch.zeros(cfg.num_envs, 3, device=device)
        self.env_origins[:, 0] = cfg.env_spacing * torch.arange(cfg.num_envs, device=device)
        self.articulations, self.rigid_objects, self.sensors = {}, {}, {}
        for name, value in vars(cfg).items():
            if isinstance(value, ArticulationCfg):
                self.articulations[name] = Articulation(value)
        self.started = False

    def __getitem__(self, key):
        return self.articulations[key]

    def start(self):
        """What happens when the simulation is played for the first time: buffers are made."""
        for articulation in self.articulations.values():
            articulation.initialise(self.env_origins)

    def update(self, dt):
        for articulation in self.articulations.values():
            articulation.advance(dt)
