"""Runs trials in a child process: a program that hangs, crashes or eats memory costs one verdict, no more.

The child is a warm server (`rewards.trial_child`) that lives as long as this process needs it and runs each program
in a fork of its own. It has its own session, a scrubbed environment (no keys, no proxies, no GPU), one torch thread,
an empty working directory, and dies with its parent; the fork confines itself before the program runs
(`rewards.confine`): no files but libraries, no network, no processes, bounded memory. Programs and signals go to its
standard input, answers come as JSON lines on its standard output and are read as data of unknown origin.
After any fault (no answer in time, a crash, an answer that is none) the child and whatever it started is killed, and
the programs after it get a new one.

Not covered: what a system lacks of the confinement (`rewards.probe`), and what docs/security.md lists. Each
program also passes the allow-list of `rewards.check` before it comes here.
"""

import atexit
import base64
import contextlib
import dataclasses
import io
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from rewards.check import check
from rewards.confine import REQUIRE_VARIABLE
from rewards.expressions import Violation
from rewards.graph import GraphError, read_graph
from rewards.result import RewardError, refuse_unchecked
from tasks.errors import UserError
from tasks.signals import Signals, SignalTable

START_TIMEOUT_S = 120.0
"""Longest time from starting a child to its first word: the import of torch and a first trace, 4 s on an idle
machine."""
TRACE_TIMEOUT_S = 60.0
"""Longest trace of a program without a trial."""
_KEPT_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH", REQUIRE_VARIABLE,
)  # fmt: skip
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_PROGRAM_LINE = re.compile(r'File "<reward>", line (\d+)')
_PATH_VARIABLE = "EUREKA_TRIAL_PATH"
_KILLED = "signal SIGKILL"  # nothing in a program or in its limits ends a process so


class TrialError(UserError):
    """The child could not do its work for a reason that is no program's fault."""


@dataclass(frozen=True)
class TrialReport:
    """What the trial of one program found."""

    problems: tuple[Violation, ...]
    """Every broken promise; empty: accepted."""
    components: tuple[str, ...]
    """Names of the components returned, in order; empty if the program never returned properly."""
    time_per_call_s: float | None
    """Median of one call at the largest batch on one thread; None with problems."""
    num_envs: int
    """Number of worlds of the largest batch."""
    graph: dict[str, Any] | None = None
    """The reward graph as plain data, read once and found sound; None with problems."""

    @property
    def ok(self) -> bool:
        """Whether the program passed."""
        return not self.problems


@dataclass
class _Answer:
    """What came of one job: a verdict, or None and how it ended."""

    verdict: dict[str, Any] | None
    reason: str = ""  # "time", or how the process ended
    line: int = 0  # of the program, where it hung or crashed, as far as the child could say


def run_trial(text: str, table: SignalTable, samples: Sequence[Signals], timeout_s: float = 20.0) -> TrialReport:
    """The trial of one program; see `run_trials`."""
    return run_trials([text], table, samples, timeout_s)[0]


def run_trials(
    texts: Sequence[str], table: SignalTable, samples: Sequence[Signals], timeout_s: float = 20.0
) -> list[TrialReport]:
    """Try programs in the child process; reports in the order of the texts.

    Programs that the check refuses are reported with its violations and never run. Worlds of the samples with
    a non-finite signal are left out (a diverged world tells nothing about a reward). With samples of one size
    only, half of the largest is the second size.

    Args:
        samples: batches of signals as the table promises them, from real rollouts.
        timeout_s: seconds that each program has, from its start to its verdict.

    Raises:
        UserError: samples that do not fit the table or hold fewer than 4 finite worlds.
        TrialError: the child does not start.
    """
    batches = _batches(samples, table)
    num_envs = max(_worlds(batch) for batch in batches)
    samples_job = _samples_job(table, batches)
    reports: list[TrialReport] = []
    for text in texts:
        violations = check(text, table)
        if violations:
            reports.append(TrialReport(tuple(violations), (), None, num_envs))
            continue
        job = {"kind": "try", "text": text, "patience_s": 0.8 * timeout_s}
        answer = _ask([samples_job, json.dumps(job)], timeout_s)
        reports.append(_report(answer, num_envs, timeout_s))
    return reports


def trace_in_child(text: str, table: SignalTable) -> dict[str, Any]:
    """The graph of one program as plain data, without a trial.

    Raises:
        UserError: the check refuses the program.
        RewardError: it fails while it is traced, or has no graph.
        TrialError: the child does not start.
    """
    refuse_unchecked(text, table)
    patience_s = 0.8 * TRACE_TIMEOUT_S
    job = {"kind": "trace", "text": text, "patience_s": patience_s, "table": [asdict(item) for item in table]}
    answer = _ask([json.dumps(job)], TRACE_TIMEOUT_S)
    try:
        if answer.verdict is None:
            found = dataclasses.replace(_ended(answer, TRACE_TIMEOUT_S), code="RuntimeError")
        elif answer.verdict["problems"]:
            line, code, message, hint = answer.verdict["problems"][0]
            found = Violation(int(line), str(code), str(message), str(hint))
        else:
            read_graph(answer.verdict["graph"])
            return answer.verdict["graph"]
    except (KeyError, TypeError, ValueError, GraphError) as error:
        found = Violation(0, "ValueError", f"the trace is no reward graph: {error}", "")
    hint = f" {found.hint}" if found.hint else ""
    raise RewardError(found.code, found.message + hint, found.line)


def _worlds(batch: Signals) -> int:
    return next(iter(batch.values())).shape[0]


def _batches(samples: Sequence[Signals], table: SignalTable) -> list[Signals]:
    batches: list[Signals] = []
    for sample in samples:
        table.validate(sample, _worlds(sample) if sample else 0)
        finite = torch.stack([torch.isfinite(tensor).all(dim=1) for tensor in sample.values()]).all(dim=0)
        batches.append({name: tensor[finite].detach().cpu().contiguous() for name, tensor in sample.items()})
    batches.sort(key=_worlds)
    if not batches or _worlds(batches[-1]) < 4:
        worlds = _worlds(batches[-1]) if batches else 0
        raise UserError(f"the trial has samples of {worlds} finite worlds; it needs at least 4: sample more worlds.")
    batches = [batch for batch in batches if _worlds(batch) >= 2]
    if len({_worlds(batch) for batch in batches}) == 1:
        half = _worlds(batches[-1]) // 2
        batches.insert(0, {name: tensor[:half].contiguous() for name, tensor in batches[-1].items()})
    return batches


def _samples_job(table: SignalTable, batches: Sequence[Signals]) -> str:
    data = io.BytesIO()
    torch.save(list(batches), data)
    encoded = base64.b64encode(data.getvalue()).decode()
    return json.dumps({"kind": "samples", "table": [asdict(item) for item in table], "samples": encoded})


class _Server:
    """The warm child. Used by the thread that started it: on Linux it dies with that thread."""

    def __init__(self) -> None:
        """Start it and wait until it is warm. Raises TrialError if it does not get so far."""
        self.boot, self.owner = _BOOT, (os.getpid(), threading.get_ident())
        self.samples = ""
        self._folder = tempfile.TemporaryDirectory(prefix="reward-trial-")
        self._said = Path(self._folder.name) / "stderr.txt"
        scratch = Path(self._folder.name) / "cwd"
        scratch.mkdir()
        with self._said.open("ab") as stderr:
            self._child = subprocess.Popen(
                [sys.executable, "-B", "-c", _BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=child_environment(),
                cwd=scratch,
                start_new_session=True,
            )
        assert self._child.stdout is not None
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._reader = threading.Thread(target=_read_lines, args=(self._child.stdout, self._lines), daemon=True)
        self._reader.start()
        first = self._next(START_TIMEOUT_S)
        if not isinstance(first, dict) or first.get("kind") != "ready":
            self.close()
            said = self._said_so_far
            last = f": {said.splitlines()[-1]}" if said else "."
            reason = first if first == "time" else _how_it_ended(self._child.returncode)
            raise TrialError(f"the trial process did not start ({reason}){last}")

    @property
    def usable(self) -> bool:
        """Whether this thread can send it a job."""
        mine = self.owner == (os.getpid(), threading.get_ident())
        return mine and self.boot == _BOOT and self._child.poll() is None

    def ask(self, jobs: Sequence[str], timeout_s: float) -> _Answer:
        """Send jobs, of which the last is answered. After a fault the server is closed."""
        os.truncate(self._said, 0)
        # A child that does not read (stopped, or stuck) would hold up whoever writes more than a pipe takes.
        sender = threading.Thread(target=self._send, args=(jobs,), daemon=True)
        sender.start()
        answer = self._next(timeout_s)
        if isinstance(answer, dict):
            sender.join(timeout_s)
            self.samples = jobs[0] if len(jobs) > 1 else self.samples
        if isinstance(answer, dict) and answer.get("kind") == "verdict" and isinstance(answer.get("verdict"), dict):
            if not hasattr(os, "fork"):
                self.close()  # it has run the program itself
            return _Answer(answer["verdict"])
        self.close()
        if isinstance(answer, dict) and answer.get("kind") == "ended":
            reason = _how_it_ended(answer.get("status"))
        else:
            reason = "time" if answer == "time" else _how_it_ended(self._child.returncode)
        return _Answer(None, reason, _line_of_trace(self._said_so_far))

    def _send(self, jobs: Sequence[str]) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended or was ended, which the answer tells
            for job in jobs:
                if job != self.samples:
                    self._child.stdin.write(job.encode() + b"\n")
            self._child.stdin.flush()

    def _next(self, timeout_s: float) -> Any:
        """The next message, or "time", or "end" for an end of the child or a line that is no message."""
        try:
            line = self._lines.get(timeout=timeout_s)
            return "end" if line is None else json.loads(line)
        except queue.Empty:
            return "time"
        except ValueError:
            return "end"

    def close(self) -> None:
        """End the child with everything it started."""
        if self.owner[0] != os.getpid():
            return  # a fork of the process that owns it
        _kill(self._child)  # first: closing its input writes what is left, for which it would have to read
        if self._child.stdin is not None:
            with contextlib.suppress(OSError):
                self._child.stdin.close()
        self._reader.join(timeout=5.0)
        if self._child.stdout is not None:
            self._child.stdout.close()
        self._said_so_far = self._said.read_text(errors="replace").strip() if self._said.exists() else ""
        self._folder.cleanup()


_server: _Server | None = None
_lock = threading.Lock()


def _ask(jobs: Sequence[str], timeout_s: float) -> _Answer:
    """One job for the warm child, which is started where there is none that can be used. A child that somebody killed
    is no program's fault: the job is given to another one, once."""
    global _server
    with _lock:
        answer = _Answer(None)
        for _ in range(2):
            if _server is None or not _server.usable:
                close_child()
                _server = _Server()
            answer = _server.ask(jobs, timeout_s)
            if answer.verdict is not None or answer.reason != _KILLED:
                break
        return answer


def close_child() -> None:
    """End the warm child; the next trial starts another."""
    global _server
    if _server is not None:
        _server.close()
        _server = None


atexit.register(close_child)


def _read_lines(stream: IO[bytes], lines: "queue.Queue[bytes | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _kill(child: "subprocess.Popen[bytes]") -> None:
    """End the child and whatever it started, and collect it. An ended child keeps its own exit status."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=0.05)  # a child that closed its output is about to end by itself
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(child.pid, signal.SIGKILL)
            else:
                child.kill()
    child.wait()


def child_environment() -> dict[str, str]:
    """What the child needs to find its libraries and nothing else; above all no API key."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    root = str(Path(__file__).resolve().parent.parent)
    folders = [root, *(str(Path(entry).resolve()) for entry in sys.path if entry and Path(entry).is_dir())]
    path = os.pathsep.join(dict.fromkeys(folders))
    return {**kept, **_ONE_THREAD, _PATH_VARIABLE: path, "CUDA_VISIBLE_DEVICES": "", "PYTHONSAFEPATH": "1"}


SEARCH_PATH = f"""
import os, sys
sys.path[:] = list(dict.fromkeys([*os.environ.pop({_PATH_VARIABLE!r}).split(os.pathsep), *sys.path]))
"""
_BOOT = f"""{SEARCH_PATH}
import gc
gc.disable()  # until all that is imported is there; see rewards.trial_child
from rewards.trial_child import main
main()
"""


def _line_of_trace(stderr: str) -> int:
    """The program's innermost line in the last stack that the child's fault handler wrote; 0 without one."""
    last = re.split(r"^(?:Timeout|Fatal Python error)", stderr, flags=re.MULTILINE)[-1]
    match = _PROGRAM_LINE.search(last)  # the handler writes the most recent call first
    return int(match[1]) if match else 0


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "no exit status"
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit status {code}"


def _ended(answer: _Answer, timeout_s: float) -> Violation:
    if answer.reason == "time":
        message = f"the program did not end within {timeout_s:g} s."
        return Violation(answer.line, "T212", message, "compute with a few dozen tensor operations; no long loops")
    message = f"the program ended its process ({answer.reason})."
    return Violation(answer.line, "T213", message, "make smaller tensors and no deep recursion")


def _report(answer: _Answer, num_envs: int, timeout_s: float) -> TrialReport:
    if answer.verdict is None:
        return TrialReport((_ended(answer, timeout_s),), (), None, num_envs)
    try:
        problems = tuple(
            Violation(int(line), str(code), str(message), str(hint))
            for line, code, message, hint in answer.verdict["problems"]
        )
        components, clock = tuple(map(str, answer.verdict["components"])), answer.verdict["time_per_call_s"]
        graph = None if problems else answer.verdict["graph"]
        if graph is not None and tuple(name for name, _ in read_graph(graph).components) != components:
            raise GraphError("reward graph: it has other components than the program.")
        if not problems and (graph is None or not isinstance(clock, float)):
            raise GraphError("reward graph: there is none.")
    except (KeyError, TypeError, ValueError, GraphError) as error:
        problem = Violation(0, "T215", f"the trial gave no sound graph: {error}", "compute with torch functions only")
        return TrialReport((problem,), (), None, num_envs)
    return TrialReport(problems, components, clock, num_envs, graph)
