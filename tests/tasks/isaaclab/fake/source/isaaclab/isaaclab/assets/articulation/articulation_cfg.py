"""Stand-in for the configuration of an articulation."""

from isaaclab.utils import configclass


@configclass
class ArticulationCfg:
    prim_path: str = ""
