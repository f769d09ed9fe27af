"""What the two stand-ins for environments share; Isaac Lab has no such class."""

import math

import torch

from isaaclab.scene import InteractiveScene
from isaaclab.sim import SimulationContext


class Base:
    def __init__(self, cfg, render_mode=None, **kwargs):
        self.cfg = cfg
        torch.manual_seed(cfg.seed or 0)
        self.sim = SimulationContext(cfg.sim)
        self.scene = InteractiveScene(cfg.scene, cfg.sim.device)
        self.extras = {}
        self.common_step_counter = 0
        self.episode_length_buf = torch.zeros(self.num_envs, device=self.device, dtype=torch.long)
        self.reset_terminated = torch.zeros(self.num_envs, device=self.device, dtype=torch.bool)
        self.reset_time_outs = torch.zeros_like(self.reset_terminated)
        self.reset_buf = torch.zeros_like(self.reset_terminated)
        self.closed = 0

    @property
    def num_envs(self):
        return self.scene.num_envs

    @property
    def device(self):
        return self.sim.device

    @property
    def physics_dt(self):
        return self.cfg.sim.dt

    @property
    def step_dt(self):
        return self.cfg.sim.dt * self.cfg.decimation

    @property
    def max_episode_length_s(self):
        return self.cfg.episode_length_s

    @property
    def max_episode_length(self):
        return math.ceil(self.max_episode_length_s / self.step_dt)

    def close(self):
        self.closed += 1
        SimulationContext.clear_instance()
