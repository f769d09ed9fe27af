"""Fixtures for the command line: `eureka(...)` runs a command in this process, in a folder of its own. And the process
that forks searches to be killed, with what an undisturbed one leaves."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from eureka import cli


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """A folder of its own, and no endpoint from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def eureka(alone, capsys):
    """Runs a command in this process: its exit code, what it printed, and its complaint."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def driver():
    """Forks searches; its folder is in memory where that is possible: they ask for thousands of fsyncs."""
    from tests.eureka.sweeping import Driver

    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as place:
        driver = Driver(Path(place))
        yield driver
        driver.close()


@pytest.fixture(scope="session")
def undisturbed_case(driver):
    """A search that nobody disturbed; its folder is not to be changed."""
    from tests.eureka.sweeping import Case

    case = Case(driver, "undisturbed")
    case.finish()
    return case


@pytest.fixture(scope="session")
def undisturbed(undisturbed_case):
    """What an undisturbed search leaves; see `tests.eureka.sweeping.whole`."""
    from tests.eureka.sweeping import whole

    return whole(undisturbed_case.folder)
