"""Stand-ins for Isaac Lab (`fake/`), and the real one's source where it is installed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tasks import registry
from tasks.errors import UserError
from tasks.isaaclab.environment import IsaacLabEnv
from tasks.isaaclab.launch import Simulator
from tasks.isaaclab.names import registrations
from tasks.isaaclab.package import PATH_VARIABLE, find_source

FAKE = Path(__file__).parent / "fake"
PACKAGES = ("isaaclab", "isaaclab_tasks", "isaacsim", "gymnasium")


@pytest.fixture
def fake_source(monkeypatch):
    """The stand-in's source is found; nothing of it can be imported."""
    monkeypatch.setenv(PATH_VARIABLE, str(FAKE))
    return find_source()


@pytest.fixture
def fake_isaac(fake_source, monkeypatch):
    """The stand-in can be imported and run."""

    def forget():
        Simulator.app = Simulator.env = None
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]

    for folder in (FAKE / "site", FAKE / "source" / "isaaclab", FAKE / "source" / "isaaclab_tasks"):
        monkeypatch.syspath_prepend(str(folder))
    forget()
    yield fake_source
    forget()


@pytest.fixture
def build(fake_isaac):
    """Builds an environment of a stand-in task on the CPU."""

    def make(ref: str, num_envs: int = 24, seed: int = 3) -> IsaacLabEnv:
        return registry.make(ref).build_env(num_envs, seed=seed, device="cpu")

    return make


@pytest.fixture
def bare(fake_isaac):
    """Builds a stand-in environment as Isaac Lab has it, with nothing of ours around it."""

    def make(ref: str, num_envs: int = 24, seed: int = 3):
        entry = registrations(fake_isaac)[ref.removeprefix("isaaclab:")]
        cfg = getattr(importlib.import_module(entry.cfg[0]), entry.cfg[1])()
        cfg.scene.num_envs, cfg.sim.device, cfg.seed = num_envs, "cpu", seed
        return getattr(importlib.import_module(entry.env[0]), entry.env[1])(cfg=cfg)

    return make


@pytest.fixture(scope="session")
def real_source():
    """The real source; tests of it are skipped where it is not installed."""
    try:
        source = find_source()
    except UserError as error:
        pytest.skip(str(error))
    if not str(source.roots["isaaclab_tasks"]).startswith(str(FAKE)):
        return source
    pytest.skip(f"{PATH_VARIABLE} names the stand-in")
