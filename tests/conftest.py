"""What all tests share: those of a task whose robot is not on this machine are skipped, with the reason; and files that
take long are begun first."""

from __future__ import annotations

import functools
import gc

import pytest

from tasks import registry
from tasks.robots.menagerie import missing_reason

NAMES = frozenset(registry.names())  # asking for them reads the metadata of all that is installed
LONGEST = (
    "eureka/test_ray_cluster.py",
    "eureka/test_search_killed.py",
    "eureka/test_killed_children.py",
    "eureka/test_kill_sweep.py",
    "eureka/test_kill_random.py",
    "eureka/test_kill_halving.py",
    "eureka/test_executor_conformance.py",
    "eureka/test_supervision.py",
    "eureka/test_endpoint_faults.py",
    "eureka/test_cli_runs.py",
    "eureka/test_endpoint_key.py",
    "eureka/test_interrupt.py",
    "test_add_a_task.py",
    "tasks/test_two_hands.py",
    "rl/test_evaluator.py",
    "rl/test_worker_confined.py",
    "rl/test_failures.py",
    "rl/test_train.py",
    "rl/test_worker.py",
)
"""Files that are begun first, the longest first (`pytest --durations=0`). The others are short and follow in pytest's
order, so that processes that share the tests by file (`make test`) end together. xdist itself would begin with the
files of most tests, and end with the few long ones."""


gc.disable()  # until all is imported and collected: none of it is garbage


def pytest_collection_finish() -> None:
    """What is there now is never searched for garbage again."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of LONGEST first; within a file, and among the others, the order stays."""
    rank = {f"tests/{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


@functools.cache
def _robot_of(name: str) -> str | None:
    return registry.make(name).robot


@pytest.fixture(autouse=True)
def _robot_at_hand(request):
    """Skip a test that is run once a task where the task's robot would have to be downloaded."""
    callspec = getattr(request.node, "callspec", None)
    for value in callspec.params.values() if callspec else ():
        if isinstance(value, str) and value in NAMES:
            robot = _robot_of(value)
            reason = missing_reason(robot) if robot else None
            if reason:
                pytest.skip(reason)
