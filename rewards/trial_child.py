"""The trial's child process: a warm server that forks one confined process for each program; see `rewards.sandbox`.

The server runs no program. It imports everything, traces a program of ours once so that torch has made what it makes
on first use, and then waits for jobs, one JSON line each, on its standard input. Each job runs in a fork, which
confines itself (`rewards.confine`), answers through a pipe of its own and ends: no program sees what another one left
behind, and only the server writes to the standard output that the parent reads. Where a process cannot be forked
(Windows) the server runs the job itself, and its parent replaces it afterwards.
"""

import base64
import ctypes
import faulthandler
import gc
import io
import json
import os
import signal
import sys
import traceback
from typing import IO, Any

import torch
import torch._dynamo  # torch imports it on first use, makes a folder for its cache then, and is refused

from rewards.confine import REWARD_CHILD, confine, prepare
from rewards.trial import examine, trace
from tasks.signals import Signal, Signals, SignalTable

ANSWER_LIMIT_BYTES = 4 * 2**20
"""Longest answer of a fork."""
_PR_SET_PDEATHSIG = 1
_FORKS = hasattr(os, "fork")

_WARM_UP = """
def compute_reward(a, b):
    x = torch.zeros_like(a[:, 0])
    x[b[:, 0] > 0] = 1.0
    y = torch.exp(-torch.norm(a, dim=-1) / 0.5) + torch.where(b[:, 0] > 0, torch.tanh(a[:, 1]), 0.0).clamp(-1, 1)
    total = x + y.square() + (a * torch.tensor([1.0, 2.0, 0.5])).sum(dim=-1) + b.mean(dim=-1)
    return total, {"y": y, "z": torch.zeros(a.shape[0])}
"""


def main() -> None:
    """Serve jobs until the standard input ends.

    A job that runs for its `patience_s` has its present line written to standard error, as a crash has.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else writes to standard output cannot pass for a verdict
    _die_with_parent()
    faulthandler.enable()
    torch.set_num_threads(1)
    _warm_up()
    _say(answers, {"kind": "ready"})
    table, batches = SignalTable(_WARM_TABLE), []
    for line in sys.stdin.buffer:
        job = json.loads(line)
        if job["kind"] == "samples":
            table = SignalTable([Signal(**item) for item in job["table"]])
            batches = torch.load(io.BytesIO(base64.b64decode(job["samples"])), weights_only=True)
        elif _FORKS:
            _say(answers, _in_a_fork(job, table, batches, answers))
        else:
            confine(REWARD_CHILD)
            _say(answers, {"kind": "verdict", "verdict": _work(job, table, batches)})


def _work(job: dict[str, Any], table: SignalTable, batches: list[Signals]) -> dict[str, Any]:
    faulthandler.dump_traceback_later(job["patience_s"])
    if job["kind"] == "trace":
        return trace(job["text"], SignalTable([Signal(**item) for item in job["table"]]))
    return examine(job["text"], table, batches)


def _in_a_fork(job: dict[str, Any], table: SignalTable, batches: list[Signals], answers: IO[str]) -> dict[str, Any]:
    """The answer to a job that runs in a process of its own: its verdict, or how the process ended."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            os.close(answers.fileno())
            os.close(0)
            confine(REWARD_CHILD)
            data = json.dumps(_work(job, table, batches)).encode()
            while data:
                data = data[os.write(writing, data) :]
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read(ANSWER_LIMIT_BYTES)
    _, status = os.waitpid(pid, 0)
    if status:
        return {"kind": "ended", "status": os.waitstatus_to_exitcode(status)}
    return {"kind": "verdict", "verdict": json.loads(data)}


def _warm_up() -> None:
    """Trace and try a program of ours: what torch imports and builds on first use is shared by all forks."""
    table = SignalTable(_WARM_TABLE)
    batches = [{item.name: torch.rand(worlds, item.dims) for item in table} for worlds in (8, 24)]
    verdict = examine(_WARM_UP, table, batches)
    if verdict["graph"] is None:
        raise RuntimeError(f"the tracer refuses a program of its own: {verdict['problems']}")
    prepare()
    gc.collect()
    gc.freeze()  # a fork copies a page only when it writes to it; counting references to old objects need not


_WARM_TABLE = [Signal(name, 3, "1", "-", "position", "") for name in ("a", "b")]


def _say(answers: IO[str], message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
