"""The trial's child process: a warm server that forks one confined process for each program; see `rewards.sandbox`.

The server runs no program. It imports everything, traces a program of ours once so that torch has made what it makes
on first use, and then waits for jobs, one JSON line each, on its standard input. Each job runs in a fork, which was
made ahead, has confined itself (`rewards.confine`), answers through a pipe of its own and ends: no program sees what
another one left behind, and only the server writes to the standard output that the parent reads. Where a process cannot
be forked (Windows) the server runs the job itself, and its parent replaces it afterwards.
"""

import base64
import contextlib
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
from rewards.symbolic import make_ready
from rewards.trial import Inputs, examine, examine_on, trace
from tasks.signals import Signal, SignalTable

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
    table, inputs = SignalTable(_WARM_TABLE), Inputs((), (), ())
    fork: _Fork | None = None
    for line in sys.stdin.buffer:
        job = json.loads(line)
        if job["kind"] == "samples":
            if fork is not None:
                fork.end()
                fork = None
            table = SignalTable([Signal(**item) for item in job["table"]])
            samples = torch.load(io.BytesIO(base64.b64decode(job["samples"])), weights_only=True)
            inputs = Inputs.of(table, samples)
            make_ready(item.dims for item in table)
        elif _FORKS:
            fork = fork or _Fork(table, inputs, answers)
            _say(answers, fork.ask(line))
            fork = _Fork(table, inputs, answers)  # while the answer is read, and the next program is checked
        else:
            confine(REWARD_CHILD)
            _say(answers, {"kind": "verdict", "verdict": _work(job, table, inputs)})


def _work(job: dict[str, Any], table: SignalTable, inputs: Inputs) -> dict[str, Any]:
    """The verdict on a program, which whoever sent it has checked."""
    faulthandler.dump_traceback_later(job["patience_s"])
    if job["kind"] == "trace":
        return trace(job["text"], SignalTable([Signal(**item) for item in job["table"]]), checked=True)
    return examine_on(job["text"], table, inputs, checked=True)


class _Fork:
    """A process for one job, which confines itself and then waits for it."""

    def __init__(self, table: SignalTable, inputs: Inputs, answers: IO[str]) -> None:
        theirs, self._jobs = os.pipe()
        self._answers, mine = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            code = 1
            try:
                for handle in (self._jobs, self._answers, answers.fileno(), 0):
                    os.close(handle)
                confine(REWARD_CHILD)
                code = _serve_one(theirs, mine, table, inputs)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(theirs)
        os.close(mine)

    def ask(self, line: bytes) -> dict[str, Any]:
        """The answer to a job: its verdict, or how the process ended."""
        with contextlib.suppress(BrokenPipeError):  # it was ended, which its status tells
            while line:
                line = line[os.write(self._jobs, line) :]
        os.close(self._jobs)
        with os.fdopen(self._answers, "rb") as pipe:
            data = pipe.read(ANSWER_LIMIT_BYTES)
        _, status = os.waitpid(self._pid, 0)
        if status:
            return {"kind": "ended", "status": os.waitstatus_to_exitcode(status)}
        return {"kind": "verdict", "verdict": json.loads(data)}

    def end(self) -> None:
        """End it without a job."""
        os.close(self._jobs)
        os.close(self._answers)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _serve_one(reading: int, writing: int, table: SignalTable, inputs: Inputs) -> int:
    """Do the one job, if it comes; the exit code."""
    pieces = []
    while piece := os.read(reading, 65_536):
        pieces.append(piece)
    if not pieces:
        return 0  # the server has ended
    data = json.dumps(_work(json.loads(b"".join(pieces)), table, inputs)).encode()
    while data:
        data = data[os.write(writing, data) :]
    return 0


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
    gc.enable()


_WARM_TABLE = [Signal(name, 3, "1", "-", "position", "") for name in ("a", "b")]


def _say(answers: IO[str], message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
