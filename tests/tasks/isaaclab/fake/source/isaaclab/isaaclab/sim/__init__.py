"""Stand-in for isaaclab.sim."""

from isaaclab.utils import configclass


@configclass
class SimulationCfg:
    dt: float = 1.0 / 60.0
    render_interval: int = 1
    device: str = "cuda:0"


class SimulationContext:
    """One a process, as in Isaac Lab."""

    _instance = None

    def __init__(self, cfg):
        if SimulationContext._instance is not None:
            raise RuntimeError("Simulation context already exists. Cannot create a new one.")
        SimulationContext._instance = self
        self.cfg, self.device = cfg, cfg.device

    @classmethod
    def clear_instance(cls):
        cls._instance = None
