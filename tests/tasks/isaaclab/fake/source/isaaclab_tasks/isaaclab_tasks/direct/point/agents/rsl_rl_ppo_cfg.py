"""How rsl_rl trains the point."""

from isaaclab.utils import configclass


@configclass
class RslRlPpoActorCriticCfg:
    pass


@configclass
class PointPPORunnerCfg:
    num_steps_per_env = 8
    max_iterations = 2 * 3
    policy = RslRlPpoActorCriticCfg(init_noise_std=0.5, actor_hidden_dims=[16, 8], activation="elu")
