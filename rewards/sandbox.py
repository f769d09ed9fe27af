"""Runs trials in a child process: a program that hangs, crashes or eats memory costs one verdict, no more.

The child has its own session, a scrubbed environment (no keys, no proxies, no GPU), one torch thread and an
empty working directory, and confines itself before it runs a program (`rewards.confine`): no files but libraries, no
network, no processes, bounded memory. It gets programs and signals as files in a temporary folder and answers one
JSON line per program on its standard output. A program that has not answered in time is killed with its child; the
programs after it run in a new one.

Not covered: what a system lacks of the confinement (`confinement_here`), and what docs/security.md lists. Each
program also passes the allow-list of `rewards.check` before it comes here.
"""

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from rewards.check import check
from rewards.confine import REQUIRE_VARIABLE, Confinement, Profile
from rewards.expressions import Violation
from tasks.errors import UserError
from tasks.signals import Signals, SignalTable

START_TIMEOUT_S = 120.0
"""Longest time from starting a child to its first word: the import of torch, 1.5 s on an idle machine."""
_KEPT_VARIABLES = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "LD_LIBRARY_PATH", REQUIRE_VARIABLE,
)  # fmt: skip
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
_PROGRAM_LINE = re.compile(r'File "<reward>", line (\d+)')
_PATH_VARIABLE = "EUREKA_TRIAL_PATH"


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

    @property
    def ok(self) -> bool:
        """Whether the program passed."""
        return not self.problems


@dataclass
class _ChildRun:
    """What one child got done: verdicts by place in the list, and the program under which it ended, if
    any."""

    verdicts: dict[int, dict[str, Any]]
    culprit: int | None = None
    reason: str = ""  # "time", or how the process ended
    line: int = 0  # of the program, where it hung or crashed, as far as the child could say


def run_trial(text: str, table: SignalTable, samples: Sequence[Signals], timeout_s: float = 20.0) -> TrialReport:
    """The trial of one program; see `run_trials`."""
    return run_trials([text], table, samples, timeout_s)[0]


def run_trials(
    texts: Sequence[str], table: SignalTable, samples: Sequence[Signals], timeout_s: float = 20.0
) -> list[TrialReport]:
    """Try programs in one child process; reports in the order of the texts.

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
    reports: dict[int, TrialReport] = {}
    for index, text in enumerate(texts):
        violations = check(text, table)
        if violations:
            reports[index] = TrialReport(tuple(violations), (), None, num_envs)
    pending = [index for index in range(len(texts)) if index not in reports]
    with tempfile.TemporaryDirectory(prefix="reward-trial-") as folder:
        if pending:
            _write_samples(Path(folder), table, batches)
        while pending:
            run = _run_child(Path(folder), {index: texts[index] for index in pending}, timeout_s)
            for index, verdict in run.verdicts.items():
                reports[index] = _report(verdict, num_envs)
            if run.culprit is not None:
                reports[run.culprit] = TrialReport((_ended(run, timeout_s),), (), None, num_envs)
            pending = [index for index in pending if index not in reports]
    return [reports[index] for index in range(len(texts))]


def confinement_here(profile: Profile) -> Confinement:
    """What confinement comes to on this system, found out by a child that confines itself and does nothing else.

    Raises TrialError where the child does not start.
    """
    environment = {name: value for name, value in _environment().items() if name != REQUIRE_VARIABLE}
    try:
        child = subprocess.run(
            [sys.executable, "-B", "-c", _PROBE, profile.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            start_new_session=True,
            timeout=START_TIMEOUT_S,
            check=True,
        )
        name, layers, doubled = json.loads(child.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise TrialError(f"the process that tries the confinement failed: {' '.join(str(error).split())}") from None
    return Confinement(name, layers, frozenset(doubled))


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


def _write_samples(folder: Path, table: SignalTable, batches: Sequence[Signals]) -> None:
    torch.save(list(batches), folder / "samples.pt")
    (folder / "table.json").write_text(json.dumps([asdict(item) for item in table]), encoding="utf-8")
    (folder / "cwd").mkdir()


def _run_child(folder: Path, texts: Mapping[int, str], timeout_s: float) -> _ChildRun:
    """One child for the given programs. It ends when all have answered, or with the first that does not."""
    (folder / "programs.json").write_text(json.dumps(list(texts.items())), encoding="utf-8")
    with (folder / "stderr.txt").open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-B", "-c", _BOOT, str(folder), str(0.8 * timeout_s)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_environment(),
            cwd=folder / "cwd",
            start_new_session=True,
        )
    assert child.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True)
    reader.start()
    try:
        run = _follow(lines, set(texts), timeout_s)
    finally:
        _kill(child)
        reader.join(timeout=5.0)
        child.stdout.close()
    if run.reason == "end":
        run.reason = _how_it_ended(child.returncode)
    said = (folder / "stderr.txt").read_text(errors="replace").strip()
    run.line = _line_of_trace(said) if run.culprit is not None else 0
    if run.culprit is None and set(run.verdicts) != set(texts) and not run.verdicts:
        last = f": {said.splitlines()[-1]}" if said else "."
        raise TrialError(f"the trial process did not start ({run.reason or 'no answer'}){last}")
    return run


def _follow(lines: "queue.Queue[bytes | None]", expected: set[int], timeout_s: float) -> _ChildRun:
    run = _ChildRun({})
    current: int | None = None
    deadline = time.monotonic() + START_TIMEOUT_S
    while expected - set(run.verdicts):
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            run.culprit, run.reason = current, "time"
            return run
        if line is None:
            run.culprit, run.reason = current, "end"
            return run
        try:
            message = json.loads(line)
        except ValueError:  # the child died in the middle of a line
            run.culprit, run.reason = current, "end"
            return run
        if message["kind"] == "start" and message["index"] in expected:
            current = message["index"]
            deadline = time.monotonic() + timeout_s
        elif message["kind"] == "verdict" and message["index"] == current:
            run.verdicts[message["index"]] = message["verdict"]
            current = None
            deadline = time.monotonic() + timeout_s
    return run


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


def _environment() -> dict[str, str]:
    """What the child needs to find its libraries and nothing else; above all no API key."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    root = str(Path(__file__).resolve().parent.parent)
    folders = [root, *(str(Path(entry).resolve()) for entry in sys.path if entry and Path(entry).is_dir())]
    path = os.pathsep.join(dict.fromkeys(folders))
    return {**kept, **_ONE_THREAD, _PATH_VARIABLE: path, "CUDA_VISIBLE_DEVICES": "", "PYTHONSAFEPATH": "1"}


_PATHS = f"""
import os, sys
sys.path[:] = list(dict.fromkeys([*os.environ.pop({_PATH_VARIABLE!r}).split(os.pathsep), *sys.path]))
"""
_BOOT = f"""{_PATHS}
from rewards.trial_child import main
main(sys.argv[1], float(sys.argv[2]))
"""
_PROBE = f"""{_PATHS}
import json
from rewards.confine import REWARD_CHILD, WORKER, confine
found = confine(next(profile for profile in (REWARD_CHILD, WORKER) if profile.name == sys.argv[1]))
print(json.dumps([found.profile, dict(found.layers), sorted(found.doubled)]))
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


def _ended(run: _ChildRun, timeout_s: float) -> Violation:
    if run.reason == "time":
        message = f"the program did not end within {timeout_s:g} s."
        return Violation(run.line, "T212", message, "compute with a few dozen tensor operations; no long loops")
    message = f"the program ended its process ({run.reason})."
    return Violation(run.line, "T213", message, "make smaller tensors and no deep recursion")


def _report(verdict: dict[str, Any], num_envs: int) -> TrialReport:
    problems = tuple(
        Violation(int(line), str(code), str(message), str(hint)) for line, code, message, hint in verdict["problems"]
    )
    return TrialReport(problems, tuple(map(str, verdict["components"])), verdict["time_per_call_s"], num_envs)
