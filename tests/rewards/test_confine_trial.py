"""The trial's own child with the checker switched off on both sides: the sandbox alone must hold.

A "program" is an attack here, run by `exec` where the child would have tried a reward; the answers go the way of
verdicts.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from rewards import sandbox
from rewards.confine import REWARD_CHILD
from rewards.probe import confinement_here
from rewards.sandbox import run_trials
from tests.rewards.attacks import ATTACKS, PRELUDE
from tests.rewards.programs import TABLE, program, signals

MISSING = confinement_here(REWARD_CHILD).missing if sys.platform == "linux" else {"all": "needs Linux"}
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not on this system: {MISSING}")
CANARY = "canary-7c1f"

UNCHECKED = """
import rewards.trial_child as child
examine_on = child.examine_on
def unchecked(text, table, inputs, **options):
    verdict = examine_on({harmless!r}, table, inputs, **options)
    scope = {{"FACTS": {facts!r}}}
    exec({prelude!r}, scope)
    return dict(verdict, problems=[[0, "T000", scope["tried"](text), "-"]])
child.examine_on = unchecked
"""


def test_nothing_gets_out_of_the_trials_child_without_the_checker(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text(f"{CANARY} in a file")
    (tmp_path / "victim").write_text("whole")
    secret = ctypes.create_string_buffer(f"{CANARY} in memory".encode())
    monkeypatch.setenv("OPENAI_API_KEY", f"{CANARY} in a variable")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        facts = {
            "parent": os.getpid(),
            "address": ctypes.addressof(secret),
            "size": len(secret.value),
            "port": server.getsockname()[1],
            "secret_file": str(tmp_path / "secret"),
            "victim": str(tmp_path / "victim"),
        }
        patch = UNCHECKED.format(harmless=program("pass"), facts=facts, prelude=PRELUDE)
        first, last = sandbox._BOOT.strip().rsplit("\n", 1)
        monkeypatch.setattr(sandbox, "_BOOT", f"{first}\n{patch}\n{last}\n")
        monkeypatch.setattr(sandbox, "check", lambda *_: [])
        own = "return sorted(os.environ), open('/proc/self/environ').read()"
        reports = run_trials([own, *ATTACKS.values()], TABLE, [signals(32)])
        with pytest.raises(BlockingIOError):
            server.accept()
    outcomes = [report.problems[0].message for report in reports]
    said = dict(zip(ATTACKS, outcomes[1:], strict=True))
    assert all(outcome.startswith("shut: ") for outcome in said.values()), said
    assert outcomes[0].startswith("open: ")
    assert not re.search(CANARY, json.dumps(outcomes))
    assert "OPENAI_API_KEY" not in outcomes[0]
    assert (tmp_path / "victim").read_text() == "whole"
    assert {path.name for path in Path(tmp_path).iterdir()} == {"secret", "victim"}
