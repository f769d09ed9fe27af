"""Stand-in for a manager-based environment: its step calls the managers in Isaac Lab's order."""

import torch

from isaaclab.envs.base import Base
from isaaclab.managers import ActionManager, CommandManager, ObservationManager, RewardManager, TerminationManager


class ManagerBasedRLEnv(Base):
    def __init__(self, cfg, render_mode=None, **kwargs):
        super().__init__(cfg, render_mode, **kwargs)
        self.scene.start()
        self.command_manager = CommandManager(cfg.commands, self)
        self.action_manager = ActionManager(cfg.actions, self)
        self.observation_manager = ObservationManager(cfg.observations, self)
        self.termination_manager = TerminationManager(cfg.terminations, self)
        self.reward_manager = RewardManager(cfg.rewards, self)

    def reset(self, seed=None, env_ids=None, options=None):
        self._reset_idx(torch.arange(self.num_envs, device=self.device))
        return self.observation_manager.compute(), self.extras

    def step(self, action):
        self.action_manager.process_action(action.to(self.device))
        for _ in range(self.cfg.decimation):
            self.action_manager.apply_action()
            self.scene.update(dt=self.physics_dt)
        self.episode_length_buf += 1
        self.common_step_counter += 1
        self.reset_buf = self.termination_manager.compute()
        self.reset_terminated = self.termination_manager.terminated
        self.reset_time_outs = self.termination_manager.time_outs
        self.reward_buf = self.reward_manager.compute(dt=self.step_dt)
        ended = self.reset_buf.nonzero(as_tuple=False).squeeze(-1)
        if len(ended) > 0:
            self._reset_idx(ended)
        self.command_manager.compute(dt=self.step_dt)
        self.obs_buf = self.observation_manager.compute()
        return self.obs_buf, self.reward_buf, self.reset_terminated, self.reset_time_outs, self.extras

    def _reset_idx(self, env_ids):
        for robot in self.scene.articulations.values():
            start = torch.rand(len(env_ids), 2, device=self.device) - 0.5
            robot.write_joint_state_to_sim(start, torch.zeros_like(start), env_ids=env_ids)
        self.command_manager.reset(env_ids)
        self.extras["log"] = self.reward_manager.reset(env_ids)
        self.episode_length_buf[env_ids] = 0
