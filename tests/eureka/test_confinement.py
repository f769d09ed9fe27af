"""What the commands say and demand of the sandbox."""

from __future__ import annotations

import os

import pytest

from eureka.commands import confinement
from rewards.confine import REQUIRE_VARIABLE, REWARD_CHILD, WORKER, Confinement
from tests.eureka.command_line import GOOD, SLIDER, assert_one_line

WHOLE = {"resource limits": "active", "landlock files": "active", "landlock network": "active", "seccomp": "active"}
OLD = WHOLE | {"landlock files": "no Landlock", "landlock network": "no Landlock"}
ELSEWHERE = {"resource limits": "active", **dict.fromkeys(("landlock files", "seccomp"), "needs Linux")}


hidden: list[bool] = []


@pytest.fixture
def system(monkeypatch):
    """Sets which layers this system seems to have."""
    monkeypatch.delenv(REQUIRE_VARIABLE, raising=False)

    def give(layers: dict[str, str], doubled: frozenset[str] = frozenset()) -> None:
        monkeypatch.setattr(confinement, "confinement_here", lambda profile: Confinement(profile.name, layers, doubled))

    monkeypatch.setattr(confinement, "hide", lambda: hidden.append(True))
    hidden.clear()
    yield give
    os.environ.pop(REQUIRE_VARIABLE, None)


def test_nothing_is_said_where_nothing_is_missing(system):
    said: list[str] = []
    system(WHOLE)
    confinement.announce(said.append, require=False)
    system(WHOLE | {"landlock network": "the kernel's Landlock is version 3"}, frozenset({"landlock network"}))
    confinement.announce(said.append, require=False)
    assert said == []
    assert not hidden
    assert REQUIRE_VARIABLE not in os.environ


def test_what_is_missing_is_said_once_with_the_reason(system):
    said: list[str] = []
    system(ELSEWHERE)
    confinement.announce(said.append, require=False)
    assert len(said) == 1
    assert hidden
    for profile in (REWARD_CHILD, WORKER):
        assert f"a {profile.name} runs here without: landlock files, seccomp (needs Linux)." in said[0]


def test_every_process_is_told_to_refuse_too(system):
    system(WHOLE)
    confinement.announce(print, require=True)
    assert os.environ[REQUIRE_VARIABLE] == "1"


def test_a_search_that_demands_the_sandbox_refuses_before_it_makes_a_folder(system, eureka, tmp_path):
    system(OLD)
    code, _, err = eureka("search", SLIDER, "--designer", "evolution", "--require-sandbox")
    assert_one_line(code, err, "--require-sandbox", "landlock files, landlock network (no Landlock)", "security.md")
    assert not (tmp_path / "runs").exists()


def test_a_check_that_demands_the_sandbox_refuses(system, eureka, tmp_path):
    (tmp_path / "reward.py").write_text(GOOD)
    system(OLD)
    code, _, err = eureka("check", "reward.py", "--task", SLIDER, "--require-sandbox")
    assert_one_line(code, err, "--require-sandbox", "no Landlock")


def test_doctor_names_the_layers(system, eureka):
    system(OLD)
    _, out, _ = eureka("doctor")
    lines = [line for line in out.splitlines() if " sandbox " in line]
    assert len(lines) == 2
    assert all(line.startswith("--  sandbox") and "resource limits, seccomp; " in line for line in lines)
    assert all("without: landlock files, landlock network (no Landlock)" in line for line in lines)
