"""Stand-in for a direct environment: its step calls the task's methods in Isaac Lab's order."""

import torch

from isaaclab.envs.base import Base


class Box:
    def __init__(self, size):
        self.shape = (size,)


class DirectRLEnv(Base):
    def __init__(self, cfg, render_mode=None, **kwargs):
        super().__init__(cfg, render_mode, **kwargs)
        self._setup_scene()
        self.scene.start()
        self.single_action_space = Box(cfg.action_space)
        self.actions = torch.zeros(self.num_envs, cfg.action_space, device=self.device)

    def reset(self, seed=None, options=None):
        self._reset_idx(torch.arange(self.num_envs, device=self.device))
        return self._get_observations(), self.extras

    def step(self, action):
        self._pre_physics_step(action.to(self.device))
        for _ in range(self.cfg.decimation):
            self._apply_action()
            self.scene.update(dt=self.physics_dt)
        self.episode_length_buf += 1
        self.common_step_counter += 1
        self.reset_terminated[:], self.reset_time_outs[:] = self._get_dones()
        self.reset_buf = self.reset_terminated | self.reset_time_outs
        self.reward_buf = self._get_rewards()
        ended = self.reset_buf.nonzero(as_tuple=False).squeeze(-1)
        if len(ended) > 0:
            self._reset_idx(ended)
        self.obs_buf = self._get_observations()
        return self.obs_buf, self.reward_buf, self.reset_terminated, self.reset_time_outs, self.extras

    def _reset_idx(self, env_ids):
        self.episode_length_buf[env_ids] = 0

    def _setup_scene(self):
        pass

    def _pre_physics_step(self, actions):
        raise NotImplementedError

    def _apply_action(self):
        raise NotImplementedError

    def _get_observations(self):
        raise NotImplementedError

    def _get_rewards(self):
        raise NotImplementedError

    def _get_dones(self):
        raise NotImplementedError
