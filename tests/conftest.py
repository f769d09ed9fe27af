"""What all tests share: those of a task whose robot is not on this machine are skipped, with the reason."""

from __future__ import annotations

import pytest

from tasks import registry
from tasks.robots.menagerie import missing_reason


@pytest.fixture(autouse=True)
def _robot_at_hand(request):
    """Skip a test that is run once a task where the task's robot would have to be downloaded."""
    callspec = getattr(request.node, "callspec", None)
    for value in callspec.params.values() if callspec else ():
        if isinstance(value, str) and value in registry.names():
            robot = registry.make(value).robot
            reason = missing_reason(robot) if robot else None
            if reason:
                pytest.skip(reason)
