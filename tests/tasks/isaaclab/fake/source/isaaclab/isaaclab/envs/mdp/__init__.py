"""Stand-in for Isaac Lab's terms."""

from isaaclab.utils import configclass


@configclass
class JointEffortActionCfg:
    asset_name: str = ""
    scale: float = 1.0


@configclass
class UniformPoseCommandCfg:
    asset_name: str = ""


def joint_pos_rel(env):
    """Where the sliders are, from their start."""
    return env.scene["robot"].data.joint_pos - env.scene["robot"].data.default_joint_pos


def generated_commands(env, command_name):
    """The command of that name."""
    return env.command_manager.get_command(command_name)


def time_out(env):
    """Whether the time is up."""
    return env.episode_length_buf >= env.max_episode_length


def joint_vel_l2(env):
    """Penalise fast sliders."""
    return env.scene["robot"].data.joint_vel.square().sum(dim=1)
