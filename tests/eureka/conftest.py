"""Fixtures for the command line: `eureka(...)` runs a command in this process, in a folder of its own."""

from __future__ import annotations

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
