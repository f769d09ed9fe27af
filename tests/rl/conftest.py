"""A tiny task that trains in a second, and requests for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewards.function import reward_graph
from rl.config import config_for
from rl.record import TrainRequest
from tasks import registry
from tasks.task import Task

DATA = Path(__file__).parent.parent / "data"
SLIDER = str(DATA / "slider.py")
HUMAN_REWARD = (DATA / "slider_human.py").read_text()

MakeRequest = Callable[..., TrainRequest]


@pytest.fixture
def slider() -> Task:
    return registry.make(SLIDER)


@pytest.fixture(scope="session")
def graph() -> dict[str, Any]:
    """The reward graph of HUMAN_REWARD, as the gate leaves it: a worker without one starts a child that traces the text."""
    return reward_graph(HUMAN_REWARD, registry.make(SLIDER).signal_table)


@pytest.fixture
def make_request(slider: Task) -> MakeRequest:
    """A request for the slider; `overrides` are fields of the training, the rest fields of the request."""

    def make(overrides: dict[str, Any] | None = None, **fields: Any) -> TrainRequest:
        values: dict[str, Any] = {
            "run_id": "run",
            "candidate_id": "g01_c00",
            "task": SLIDER,
            "reward": HUMAN_REWARD,
            "config": config_for(slider, overrides),
            "seed": 1,
            "eval_seed": 1001,
            "threads": 1,
        }
        return TrainRequest(**(values | fields))

    return make
