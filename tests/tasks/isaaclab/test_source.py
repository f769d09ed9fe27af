"""What a designer reads of a foreign task: everything but its reward."""

from __future__ import annotations

import ast
import re

import pytest

from tasks import registry
from tasks.errors import UserError
from tasks.isaaclab.hidden import says_reward
from tasks.isaaclab.names import lookup, registrations
from tasks.isaaclab.source import base_kind, leading_calls, task_source

WORDS = re.compile(r"(?i)reward|(?<![a-z])rew(?![a-z])|penalt|penali[sz]|bonus|(?<![a-z])costs?(?![a-z])")
"""Another rule than that of the code: on the text, not on the pieces of names."""

SECRETS = {
    "Isaac-Cartpole-Direct-v0": "rew_scale_alive rew_scale_terminated -0.005 compute_rewards",
    "Isaac-Ant-Direct-v0": "heading_weight up_weight energy_cost_scale actions_cost_scale alive_reward_scale death_cost "
    "electricity dof_at_limit progress_ motor_effort_ratio 0.93 contact_force_scale",
    "Isaac-Humanoid-Direct-v0": "heading_weight up_weight energy_cost_scale actions_cost_scale alive_reward_scale "
    "death_cost electricity dof_at_limit progress_ motor_effort_ratio 0.93",
    "Isaac-Quadcopter-Direct-v0": "lin_vel_reward_scale distance_to_goal _episode_sums tanh final_distance 15.0",
    "Isaac-Franka-Cabinet-Direct-v0": "dist_reward_scale rot_reward open_reward finger_dist finger_reward action_penalty "
    "gripper_forward_axis drawer_inward_axis gripper_up_axis drawer_up_axis left_finger_link_idx 0.35",
    "Isaac-Repose-Cube-Allegro-Direct-v0": "dist_reward rot_reward rot_eps action_penalty reach_goal fall_penalty "
    "av_factor consecutive_successes reset_goal_buf",
    "Isaac-Repose-Cube-Shadow-Direct-v0": "dist_reward rot_reward rot_eps action_penalty reach_goal fall_penalty "
    "av_factor consecutive_successes reset_goal_buf",
    "Isaac-Velocity-Flat-Anymal-C-Direct-v0": "lin_vel_reward_scale yaw_rate_reward track_lin_vel lin_vel_z_l2 "
    "feet_air_time undesired_contact flat_orientation _episode_sums _feet_ids -2.5e-05 _previous_actions",
    "Isaac-Velocity-Flat-Anymal-C-v0": "RewTerm track_lin_vel_xy_exp lin_vel_z_l2 dof_torques_l2 feet_air_time "
    "undesired_contacts flat_orientation_l2 weight THIGH",
    "Isaac-Velocity-Rough-Anymal-C-v0": "RewTerm track_lin_vel_xy_exp lin_vel_z_l2 dof_torques_l2 feet_air_time "
    "undesired_contacts flat_orientation_l2 weight THIGH",
    "Isaac-Cartpole-v0": "RewTerm cart_vel is_alive joint_pos_target_l2 weight",
    "Isaac-Open-Drawer-Franka-v0": "RewTerm approach_ee_handle align_grasp multi_stage grasp_handle weight",
}
"""Names and numbers that only the rewards of these tasks have, read in Isaac Lab 2.3.2 by hand."""

KEPT = {
    "Isaac-Cartpole-Direct-v0": "action_scale max_cart_pos initial_pole_angle_range _get_observations",
    "Isaac-Ant-Direct-v0": "termination_height joint_gears dof_vel_scale compute_intermediate_values _apply_action",
    "Isaac-Humanoid-Direct-v0": "termination_height joint_gears angular_velocity_scale",
    "Isaac-Quadcopter-Direct-v0": "thrust_to_weight moment_scale _desired_pos_w subtract_frame_transforms",
    "Isaac-Franka-Cabinet-Direct-v0": "dof_velocity_scale drawer_grasp_pos _compute_grasp_transforms 0.39",
    "Isaac-Repose-Cube-Allegro-Direct-v0": "fall_dist goal_rot success_tolerance fingertip_body_names rotation_distance",
    "Isaac-Repose-Cube-Shadow-Direct-v0": "fall_dist goal_rot success_tolerance vel_obs_scale act_moving_average",
    "Isaac-Velocity-Flat-Anymal-C-Direct-v0": "_commands _contact_sensor net_forces_w_history action_scale",
    "Isaac-Velocity-Flat-Anymal-C-v0": "base_velocity illegal_contact height_scan push_robot terrain_levels",
    "Isaac-Velocity-Rough-Anymal-C-v0": "base_velocity illegal_contact height_scan push_robot",
    "Isaac-Cartpole-v0": "slider_to_cart joint_pos_out_of_manual_limit joint_effort reset_pole_position",
    "Isaac-Open-Drawer-Franka-v0": "drawer_top_joint rel_ee_drawer_distance FrankaCabinetEnvCfg",
}
"""What has to stay: how the task acts, observes, starts and ends."""


@pytest.mark.parametrize("name", SECRETS)
def test_no_word_of_a_real_reward_is_told(real_source, name):
    text = task_source(real_source, lookup(real_source, name)).text()
    ast.parse(text)
    assert not [line for line in text.splitlines() if WORDS.search(line)]
    assert not [word for word in SECRETS[name].split() if word in text]
    assert not [word for word in KEPT[name].split() if word not in text]


def test_real_tasks_can_be_told_unless_they_have_several_agents(real_source):
    known = registrations(real_source)
    for name in list(known)[::12]:  # all 175 take a minute
        text = task_source(real_source, known[name]).text()
        assert not [line for line in text.splitlines() if WORDS.search(line)], name
    for name in ("Isaac-Cart-Double-Pendulum-Direct-v0", "Isaac-Shadow-Hand-Over-Direct-v0"):
        with pytest.raises(UserError, match="several agents"):
            task_source(real_source, known[name])


@pytest.mark.parametrize("name", ["Isaac-Point-Direct-v0", "Isaac-Point-v0"])
def test_no_word_of_a_reward_is_told(fake_source, name):
    task = registry.make(f"isaaclab:{name}")
    told = task.told_source() + task.describe_signals()
    secrets = "closeness arrival hurry tolerance _book last_distance weight 0.31 0.125 0.0625 log debug_vis"
    assert not WORDS.search(told)
    assert not [word for word in secrets.split() if word in told]


def test_what_the_simulation_needs_is_told(fake_source):
    direct = registry.make("isaaclab:Isaac-Point-Direct-v0").told_source()
    for part in (
        "field_size = 2.0",
        "self.to_goal = self.goal - self.robot.data.joint_pos",
        "def _choose_goals",
        "action_scale",
    ):
        assert part in direct
    managed = registry.make("isaaclab:Isaac-Point-v0").told_source()
    for part in (
        "def gap(env, command_name)",
        "DoneTerm(func=mdp.left_field",
        "# mdp.joint_pos_rel: Where the sliders are",
    ):
        assert part in managed


def test_the_reward_is_asked_what_it_refreshes(fake_source):
    source = fake_source
    entry = lookup(source, "Isaac-Point-Direct-v0")
    env = source.resolve(source.module(entry.env[0]), entry.env[1])
    assert base_kind(source, env) == "DirectRLEnv"
    assert leading_calls(source, env) == ["_refresh"]


def test_what_is_left_of_a_reward_stops_the_prompt(fake_source, monkeypatch):
    monkeypatch.setattr("tasks.isaaclab.source.without_reward", lambda node, secrets: node)
    with pytest.raises(UserError, match="speaks of its reward after all that could be cut"):
        registry.make("isaaclab:Isaac-Point-Direct-v0").told_source()


@pytest.mark.parametrize("name", ["rew_scale_alive", "RewardsCfg", "_get_rewards", "reachGoalBonus", "fall_penalty",
                                  "actions_cost_scale", "Penalize fast joints", "computeRewards", "REW_BUF"])  # fmt: skip
def test_names_of_rewards_are_known(name):
    assert says_reward(name)


@pytest.mark.parametrize(
    "name", ["screw_pos", "rewind", "costume", "forward", "crew", "joint_pos", "brewing", "reworked"]
)
def test_other_names_are_not(name):
    assert not says_reward(name)


def test_signals_are_found_in_the_source(fake_source):
    found = {signal.name: signal for signal in registry.make("isaaclab:Isaac-Point-Direct-v0").found}
    assert found["goal"].shape == found["to_goal"].shape == "(N, 2)"
    assert found["robot_joint_pos"].doc == "Positions of the sliders."
    assert found["robot_root_pos_w"].shape == "(N, 3)"
    assert not {"gears", "arrivals", "last_distance", "book"} & set(found)
    managed = {signal.name: signal for signal in registry.make("isaaclab:Isaac-Point-v0").found}
    assert managed["command_target"].path == ("target",)


def test_signals_of_real_tasks_are_found(real_source):
    from tasks.isaaclab.found import find_signals
    from tasks.isaaclab.settings import config_values

    wanted = {
        "Isaac-Ant-Direct-v0": {"torso_position": "(N, 3)", "up_vec": "(N, 3)", "robot_joint_vel": "(N, num_joints)"},
        "Isaac-Franka-Cabinet-Direct-v0": {"drawer_grasp_pos": "(N, 3)", "cabinet_joint_pos": "(N, num_joints)"},
        "Isaac-Repose-Cube-Allegro-Direct-v0": {"goal_rot": "(N, 4)", "object_linvel": "(N, 3)", "actions": "(N, 16)"},
        "Isaac-Velocity-Flat-Anymal-C-v0": {
            "command_base_velocity": "(N, ?)",
            "contact_forces_net_forces_w": "(N, B*3)",
        },
    }
    for name, shapes in wanted.items():
        entry = lookup(real_source, name)
        found = find_signals(real_source, task_source(real_source, entry), config_values(real_source, entry.cfg))
        assert {signal.name: signal.shape for signal in found}.items() >= shapes.items(), name
        assert not [signal for signal in found if WORDS.search(f"{signal.name} {signal.doc}")]
        assert "successes" not in {signal.name for signal in found}  # Allegro's reward counts them, its ends read them
    flat = find_signals(real_source, task_source(real_source, entry), config_values(real_source, entry.cfg))
    assert not [signal for signal in flat if signal.name.startswith("height_scanner")]  # the flat task takes it out
