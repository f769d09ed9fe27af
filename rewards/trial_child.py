"""The trial's child process: limits itself, then tries one program after another; see `rewards.sandbox`.

Reads programs.json, table.json and samples.pt in the folder that it is given; writes to its standard output,
for each program, one JSON line when it starts and one with its verdict.
"""

import ctypes
import faulthandler
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import IO

import torch

from rewards.trial import examine
from tasks.signals import Signal, SignalTable

MEMORY_LIMIT_BYTES = 8 * 2**30
"""Address space; with less, torch itself can fail to load libraries and start threads."""
FILE_LIMIT_BYTES = 2**20
"""Largest file the child may write: its error messages fit, no data do."""
OPEN_FILES_LIMIT = 128
_PR_SET_PDEATHSIG = 1


def main(folder: str, patience_s: float) -> None:
    """Try every program of a folder; returns when all have their verdict.

    A program that runs for `patience_s` has its present line written to standard error, as a crash has.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else writes to standard output cannot pass for a verdict
    _die_with_parent()
    faulthandler.enable()
    torch.set_num_threads(1)
    root = Path(folder)
    table = SignalTable([Signal(**item) for item in json.loads((root / "table.json").read_text(encoding="utf-8"))])
    batches = torch.load(root / "samples.pt", weights_only=True)
    programs = json.loads((root / "programs.json").read_text(encoding="utf-8"))
    limit_resources()
    for index, text in programs:
        _say(answers, {"kind": "start", "index": index})
        faulthandler.dump_traceback_later(patience_s)
        _say(answers, {"kind": "verdict", "index": index, "verdict": examine(text, table, batches)})


def _say(answers: IO[str], message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def limit_resources() -> None:
    """Bound memory, file size and open files of this process where the system can (not on Windows)."""
    if importlib.util.find_spec("resource") is None:
        return
    import resource

    limits = {
        "RLIMIT_AS": MEMORY_LIMIT_BYTES,
        "RLIMIT_FSIZE": FILE_LIMIT_BYTES,
        "RLIMIT_NOFILE": OPEN_FILES_LIMIT,
        "RLIMIT_CORE": 0,
    }
    for name, wanted in limits.items():
        kind = getattr(resource, name, None)
        if kind is None or (name == "RLIMIT_AS" and sys.platform != "linux"):
            continue  # macOS counts shared caches into the address space and refuses the limit
        _, hard = resource.getrlimit(kind)
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))
