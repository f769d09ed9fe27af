"""A direct task whose reward does what rewards of Isaac Lab do besides: refresh, count, choose goals, log."""

from __future__ import annotations

import torch
from isaaclab.assets import Articulation, ArticulationCfg
from isaaclab.envs import DirectRLEnv, DirectRLEnvCfg
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sim import SimulationCfg
from isaaclab.utils import configclass


@configclass
class PointEnvCfg(DirectRLEnvCfg):
    decimation = 2
    episode_length_s = 2.0
    action_scale = 4.0
    action_space = 2
    observation_space = 4
    sim: SimulationCfg = SimulationCfg(dt=1 / 40)
    scene: InteractiveSceneCfg = InteractiveSceneCfg(num_envs=64, env_spacing=3.0)
    robot: ArticulationCfg = ArticulationCfg(prim_path="/World/envs/env_.*/Robot")
    field_size = 2.0
    # what the reward is made of
    closeness_weight = 1.5
    arrival_bonus = 10.0
    hurry_scale = 0.25
    tolerance = 0.2
    debug_vis = True


class PointEnv(DirectRLEnv):
    cfg: PointEnvCfg

    def __init__(self, cfg: PointEnvCfg, render_mode: str | None = None, **kwargs):
        super().__init__(cfg, render_mode, **kwargs)
        self.goal = torch.zeros(self.num_envs, 2, device=self.device)
        self.to_goal = torch.zeros((self.num_envs, 2), device=self.device)
        self.arrivals = torch.zeros(self.num_envs, device=self.device)
        self.gears = torch.ones(2, device=self.device)
        self.last_distance = torch.zeros(self.num_envs, device=self.device)
        self._book = {key: torch.zeros(self.num_envs, device=self.device) for key in ["closeness_exp", "hurrying_l2"]}
        self.refreshes = 0

    def _setup_scene(self):
        self.robot = Articulation(self.cfg.robot)
        self.scene.articulations["robot"] = self.robot

    def _pre_physics_step(self, actions: torch.Tensor):
        self._forces = self.cfg.action_scale * self.gears * actions

    def _apply_action(self):
        self.robot.set_joint_effort_target(self._forces)

    def _get_observations(self) -> dict:
        return {"policy": torch.cat([self.to_goal, self.robot.data.joint_vel], dim=1)}

    def _get_rewards(self) -> torch.Tensor:
        """The closer the better, and a bonus for each goal."""
        self._refresh()
        distance = self.to_goal.norm(dim=1)
        arrived = distance < self.cfg.tolerance
        terms = {
            "closeness_exp": self.cfg.closeness_weight * torch.exp(-distance),
            "hurrying_l2": self.cfg.hurry_scale * (self.last_distance - distance),
        }
        self.last_distance = distance
        for key, value in terms.items():
            self._book[key] += value
        self.arrivals += arrived
        self.extras["log"] = {"closeness": terms["closeness_exp"].mean(), "arrivals": self.arrivals.mean()}
        total = sum(terms.values()) + self.cfg.arrival_bonus * arrived
        self._choose_goals(arrived.nonzero()[:, 0])
        return total

    def _get_dones(self) -> tuple[torch.Tensor, torch.Tensor]:
        time_out = self.episode_length_buf >= self.max_episode_length - 1
        return (self.robot.data.joint_pos.abs() > self.cfg.field_size).any(dim=1), time_out

    def _reset_idx(self, env_ids):
        super()._reset_idx(env_ids)
        start = 2.0 * torch.rand(len(env_ids), 2, device=self.device) - 1.0
        self.robot.write_joint_state_to_sim(start, torch.zeros_like(start), env_ids=env_ids)
        self._choose_goals(env_ids)
        for key in self._book:
            self.extras[f"Episode_Reward/{key}"] = self._book[key][env_ids].mean()
            self._book[key][env_ids] = 0.0
        self.arrivals[env_ids] = 0.0
        self.last_distance[env_ids] = 0.0
        self._refresh()

    def _choose_goals(self, env_ids):
        self.goal[env_ids] = 2.0 * torch.rand(len(env_ids), 2, device=self.device) - 1.0

    def _refresh(self):
        """What observations and the reward read."""
        self.refreshes += 1
        self.to_goal = self.goal - self.robot.data.joint_pos
