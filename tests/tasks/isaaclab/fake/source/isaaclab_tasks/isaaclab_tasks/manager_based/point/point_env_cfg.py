"""The point as a manager-based task."""

from isaaclab.assets import ArticulationCfg
from isaaclab.envs import ManagerBasedRLEnvCfg
from isaaclab.managers import ObservationTermCfg as ObsTerm
from isaaclab.managers import RewardTermCfg as RewTerm
from isaaclab.managers import TerminationTermCfg as DoneTerm
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.utils import configclass

import isaaclab_tasks.manager_based.point.mdp as mdp


@configclass
class PointSceneCfg(InteractiveSceneCfg):
    robot: ArticulationCfg = ArticulationCfg(prim_path="{ENV_REGEX_NS}/Robot")


@configclass
class CommandsCfg:
    target = mdp.UniformPoseCommandCfg(asset_name="robot")


@configclass
class ActionsCfg:
    force = mdp.JointEffortActionCfg(asset_name="robot", scale=4.0)


@configclass
class ObservationsCfg:
    @configclass
    class PolicyCfg:
        position = ObsTerm(func=mdp.joint_pos_rel)
        way = ObsTerm(func=mdp.gap, params={"command_name": "target"})

    policy: PolicyCfg = PolicyCfg()


@configclass
class RewardsCfg:
    closeness_exp = RewTerm(func=mdp.closeness, weight=2.0, params={"command_name": "target", "width": 0.31})
    hurry_l2 = RewTerm(func=mdp.joint_vel_l2, weight=-0.125)


@configclass
class TerminationsCfg:
    time_out = DoneTerm(func=mdp.time_out, time_out=True)
    left_field = DoneTerm(func=mdp.left_field, params={"size": 2.0})


@configclass
class PointEnvCfg(ManagerBasedRLEnvCfg):
    """A point that is sent to places."""

    scene: PointSceneCfg = PointSceneCfg(num_envs=64, env_spacing=3.0)
    observations: ObservationsCfg = ObservationsCfg()
    actions: ActionsCfg = ActionsCfg()
    commands: CommandsCfg = CommandsCfg()
    rewards: RewardsCfg = RewardsCfg()
    terminations: TerminationsCfg = TerminationsCfg()

    def __post_init__(self):
        self.decimation = 2
        self.episode_length_s = 2.0
        self.sim.dt = 1 / 40
        self.rewards.hurry_l2.weight = -0.0625
