"""Stand-in for an articulation: two sliders, pushed by forces on a mass of 1 kg."""

import torch

from isaaclab.assets.articulation.articulation_data import ArticulationData


class Articulation:
    def __init__(self, cfg):
        self.cfg = cfg
        self.data = None

    def initialise(self, origins):
        self.data = ArticulationData(origins)
        self._force = torch.zeros_like(self.data.joint_pos)

    def set_joint_effort_target(self, target, joint_ids=None, env_ids=None):
        self._force = target

    def write_joint_state_to_sim(self, position, velocity, joint_ids=None, env_ids=None):
        self.data._pos[env_ids] = position
        self.data._vel[env_ids] = velocity

    def advance(self, dt):
        self.data._vel += dt * self._force
        self.data._pos += dt * self.data._vel
