"""Stand-ins for the managers: terms of a configuration, called in turn."""

import torch

from isaaclab.utils import configclass


@configclass
class Term:
    func: object = None
    params: dict = {}


@configclass
class ObservationTermCfg(Term):
    pass


@configclass
class RewardTermCfg(Term):
    weight: float = 0.0


@configclass
class TerminationTermCfg(Term):
    time_out: bool = False


class _Manager:
    def __init__(self, cfg, env):
        self.cfg, self._env = cfg, env
        self.terms = {name: value for name, value in vars(cfg).items() if value is not None} if cfg else {}

    @property
    def active_terms(self):
        return list(self.terms)


class ActionManager(_Manager):
    def __init__(self, cfg, env):
        super().__init__(cfg, env)
        self._action = torch.zeros(env.num_envs, self.total_action_dim, device=env.device)

    @property
    def total_action_dim(self):
        return 2

    @property
    def action(self):
        return self._action

    def process_action(self, action):
        self._action = action

    def apply_action(self):
        self._env.scene["robot"].set_joint_effort_target(4.0 * self._action)


class CommandManager(_Manager):
    def __init__(self, cfg, env):
        super().__init__(cfg, env)
        self._commands = {name: torch.zeros(env.num_envs, 2, device=env.device) for name in self.terms}

    def reset(self, env_ids=None):
        for command in self._commands.values():
            command[env_ids] = torch.rand(len(env_ids), 2, device=command.device)

    def compute(self, dt):
        for command in self._commands.values():
            command += 0.001

    def get_command(self, name):
        return self._commands[name]


class ObservationManager:
    def __init__(self, cfg, env):
        self.cfg, self._env = cfg, env

    def compute(self, update_history=False):
        terms = [term for term in vars(self.cfg.policy).values() if isinstance(term, ObservationTermCfg)]
        return {"policy": torch.cat([term.func(self._env, **term.params) for term in terms], dim=1)}


class TerminationManager(_Manager):
    def compute(self):
        values = {name: term.func(self._env, **term.params) for name, term in self.terms.items()}
        nothing = torch.zeros_like(self._env.reset_buf)
        self._values = values
        self._time_outs = sum((v for n, v in values.items() if self.terms[n].time_out), nothing) > 0
        self._terminated = sum((v for n, v in values.items() if not self.terms[n].time_out), nothing) > 0
        return self._time_outs | self._terminated

    @property
    def time_outs(self):
        return self._time_outs

    @property
    def terminated(self):
        return self._terminated

    def get_term(self, name):
        return self._values[name]

    def get_term_cfg(self, term_name):
        return self.terms[term_name]


class RewardManager(_Manager):
    def __init__(self, cfg, env):
        super().__init__(cfg, env)
        self._reward_buf = torch.zeros(env.num_envs, device=env.device)
        self._episode_sums = {name: torch.zeros(env.num_envs, device=env.device) for name in self.terms}

    def reset(self, env_ids=None):
        log = {}
        for name, sums in self._episode_sums.items():
            log[f"Episode_Reward/{name}"] = sums[env_ids].mean()
            sums[env_ids] = 0.0
        return log

    def compute(self, dt):
        self._reward_buf[:] = 0.0
        for name, term in self.terms.items():
            value = term.func(self._env, **term.params) * term.weight * dt
            self._reward_buf += value
            self._episode_sums[name] += value
        return self._reward_buf
