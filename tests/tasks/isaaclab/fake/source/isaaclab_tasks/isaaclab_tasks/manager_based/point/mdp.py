"""Terms of the point."""

from isaaclab.envs.mdp import *  # noqa: F403


def gap(env, command_name):
    """The way to the commanded place."""
    return env.command_manager.get_command(command_name) - env.scene["robot"].data.joint_pos


def left_field(env, size):
    """Whether the point is outside."""
    return (env.scene["robot"].data.joint_pos.abs() > size).any(dim=1)


def closeness(env, command_name, width):
    """Close is good."""
    return (-gap(env, command_name).norm(dim=1) / width).exp()
