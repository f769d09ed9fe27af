"""Stand-in for the data of an articulation: few quantities, documented in the same way."""

import torch


class ArticulationData:
    default_joint_pos: torch.Tensor = None
    """Joint positions at the start. Shape is (num_instances, num_joints)."""

    joint_pos_target: torch.Tensor = None
    """Joint position targets commanded by the user. Shape is (num_instances, num_joints)."""

    def __init__(self, origins):
        worlds = origins.shape[0]
        self._origins = origins
        self._pos = torch.zeros(worlds, 2, device=origins.device)
        self._vel = torch.zeros(worlds, 2, device=origins.device)
        self.default_joint_pos = torch.zeros(worlds, 2, device=origins.device)

    @property
    def joint_pos(self):
        """Positions of the sliders. Shape is (num_instances, num_joints)."""
        return self._pos

    @property
    def joint_vel(self):
        """Velocities of the sliders. Shape is (num_instances, num_joints)."""
        return self._vel

    @property
    def root_link_pos_w(self):
        """Root link position in simulation world frame. Shape is (num_instances, 3)."""
        return self._origins

    @property
    def root_pos_w(self):
        """Same as :attr:`root_link_pos_w`."""
        return self.root_link_pos_w

    @property
    def body_pos_w(self):
        """Positions of all bodies. Shape is (num_instances, num_bodies, 3)."""
        zeros = torch.zeros_like(self._pos[:, :1])
        point = torch.cat([self._pos, zeros], dim=1) + self._origins
        return torch.stack([self._origins, point], dim=1)
