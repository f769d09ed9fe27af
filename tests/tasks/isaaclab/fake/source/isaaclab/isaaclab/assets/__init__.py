"""Stand-in for isaaclab.assets."""

from isaaclab.assets.articulation.articulation import Articulation
from isaaclab.assets.articulation.articulation_cfg import ArticulationCfg

__all__ = ["Articulation", "ArticulationCfg"]
