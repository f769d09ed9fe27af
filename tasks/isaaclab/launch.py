"""Starts Isaac Sim and builds an environment: the only place that imports Isaac Lab.

A process has one simulator and one environment at a time; building another one closes the one before (Isaac Lab's
simulation context is a singleton). It knows nothing of signals or rewards. None of this has run on a machine without
Isaac Sim but with stand-ins for it; docs/isaaclab.md says so.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from tasks.errors import UserError
from tasks.isaaclab.names import Registration
from tasks.isaaclab.package import INSTALL

_NEEDED = ("isaaclab", "isaacsim")


class Simulator:
    """What this process has started."""

    app: Any = None
    env: Any = None


def missing() -> list[str]:
    """Names of the packages that are not installed here and without which no environment can run."""
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def check() -> None:
    """Check that environments can run here, as far as that shows without starting the simulator.

    Raises:
        UserError: a package is missing; the line says how to install it.
    """
    gone = missing()
    if gone:
        raise UserError(
            f"Isaac Lab's tasks run only where Isaac Sim is installed; {' and '.join(gone)} cannot be found here. "
            f"{INSTALL}, on Linux or Windows with an NVIDIA RTX GPU. eureka show works without."
        )


def build(registration: Registration, *, num_envs: int, seed: int, device: str) -> Any:
    """A running environment of N worlds.

    Raises:
        UserError: Isaac Sim is missing, or refuses.
    """
    check()
    close()
    if Simulator.app is None:
        Simulator.app = importlib.import_module("isaaclab.app").AppLauncher(headless=True, device=device).app
    else:
        importlib.import_module("isaaclab.sim.utils").create_new_stage()
    try:
        cfg = getattr(importlib.import_module(registration.cfg[0]), registration.cfg[1])()
        env_class = getattr(importlib.import_module(registration.env[0]), registration.env[1])
    except (ImportError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"Isaac Lab's task {registration.name} cannot be imported: {reason}") from error
    cfg.scene.num_envs, cfg.sim.device, cfg.seed = num_envs, device, seed
    Simulator.env = env_class(cfg=cfg)
    return Simulator.env


def close() -> None:
    """Close the environment that runs, if there is one; the simulator stays."""
    env, Simulator.env = Simulator.env, None
    if env is not None:
        env.close()


def release(env: Any) -> None:
    """Close an environment, unless another one has taken its place and closed it."""
    if env is Simulator.env:
        close()
