"""The process that measures fitness: forked before the request is read, it never holds a reward in any form.

It loads the task, is confined as the worker is (and writes nothing), waits, evaluates the checkpoints that it is told,
and answers with numbers. The worker and it speak JSON lines through two pipes; a line `{"beat": n}` says that the
evaluation goes on. It ends with the worker, or when the worker closes the pipe.

A fork, not a new process: a worker may start no programs, and the libraries are in memory already. It has to be made
while the worker has one thread; a fork after OpenMP has run would wait for threads that it does not have.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from rl import progress
from rl.checkpoint import load_policy
from rl.evaluate import Evaluation, evaluate
from tasks import registry
from tasks.errors import UserError


class EvaluatorDied(RuntimeError):
    """The evaluating process ended without an answer; that says nothing of the policy."""


def can_fork() -> bool:
    """Whether this process may be forked: it has no other threads, and the system has forks."""
    if not hasattr(os, "fork"):
        return False
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return True  # no /proc: macOS, where only the main thread runs after imports


class Evaluator:
    """The worker's end. Made before the request is read.

    Args:
        confine: Called in the new process with the task, before anything is evaluated; confines it.
    """

    def __init__(self, confine: Callable[[str], None]) -> None:
        from_worker, self._to_child = os.pipe()
        self._from_child, to_worker = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._to_child)
            os.close(self._from_child)
            _serve(from_worker, to_worker, confine)
        os.close(from_worker)
        os.close(to_worker)
        self._lines = os.fdopen(self._from_child, "rb")

    def prepare(self, task: str) -> None:
        """Have the task (a registry reference) loaded, beside what the worker does meanwhile."""
        self._send({"task": task})

    def evaluate(
        self, checkpoint: Path, *, episodes: int, seed: int, num_threads: int, matmul_precision: str
    ) -> Evaluation:
        """Evaluate a checkpoint as `rl.evaluate.evaluate` does.

        Raises:
            UserError: the checkpoint or the task cannot be used, or the fitness is not finite.
            EvaluatorDied: the process has ended.
        """
        self._send(
            {
                "checkpoint": str(checkpoint.resolve()),
                "episodes": episodes,
                "seed": seed,
                "num_threads": num_threads,
                "matmul_precision": matmul_precision,
            }
        )
        for line in self._lines:
            answer = json.loads(line)
            if "beat" in answer:
                progress.beat("evaluation")
            elif "error" in answer:
                raise (UserError if answer["user"] else RuntimeError)(answer["error"])
            else:
                return Evaluation(**answer | {"per_episode": torch.tensor(answer["per_episode"])})
        _, status = os.waitpid(self._pid, 0)
        raise EvaluatorDied(f"the evaluating process ended with {os.waitstatus_to_exitcode(status)}, without an answer")

    def close(self) -> None:
        """Let the process end. It is not waited for: at the latest it dies with this one."""
        os.close(self._to_child)
        self._lines.close()

    def _send(self, message: dict[str, Any]) -> None:
        try:
            os.write(self._to_child, (json.dumps(message) + "\n").encode())  # shorter than a pipe: in one piece
        except BrokenPipeError:
            return  # it has ended; whoever waits for its answer learns why


def _serve(reading: int, writing: int, confine: Callable[[str], None]) -> NoReturn:
    """The life of the new process."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        with os.fdopen(reading, "rb") as lines, os.fdopen(writing, "wb", buffering=0) as answers:
            code = _answer(lines.readline, answers.write, confine)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _answer(read: Callable[[], bytes], write: Callable[[bytes], object], confine: Callable[[str], None]) -> int:
    def say(message: dict[str, Any]) -> None:
        write((json.dumps(message) + "\n").encode())

    line = read()
    if not line:
        return 0  # the worker had no use for it
    try:
        reference = json.loads(line)["task"]
        task = registry.make(reference)
        confine(reference)
        torch.set_num_threads(1)  # as in a training: physics brings its own threads
        progress.relay(lambda count: say({"beat": count}))
        while line := read():
            wanted = json.loads(line)
            torch.set_float32_matmul_precision(wanted.pop("matmul_precision"))
            try:
                found = evaluate(task, load_policy(Path(wanted.pop("checkpoint")), task), **wanted)
            except UserError as error:  # of this policy
                say({"error": str(error), "user": True})
            else:
                say({**dataclasses.asdict(found), "per_episode": found.per_episode.tolist()})
    except UserError as error:
        say({"error": str(error), "user": True})
    except Exception as error:
        traceback.print_exc()
        say({"error": f"{type(error).__name__}: {error}", "user": False})
    return 0
