"""Processes that stand still, take too much, die, lie or find the disk full; what a search does about each."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eureka import disk
from eureka.executors import local, memory, processes
from eureka.executors.base import Ended
from eureka.executors.local import LocalExecutor
from eureka.executors.processes import MARK, NOTE, note_worker, process_stat
from eureka.listener import Listener
from eureka.training import ATTEMPTS, Training, finished_result, run_trainings
from rewards.library.library import ZERO
from rl.config import config_for
from rl.record import RESULT, TrainRequest, read_request, write_request
from tasks.registry import make
from tests.eureka.executor_cases import alive
from tests.eureka.scripted import SLIDER

ROOT = Path(__file__).parents[2]
FAKE = str(Path(__file__).with_name("fake_worker.py"))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")
MIB = 2**20


class Heard(Listener):
    """Keeps what it was told; `at_tick` is called at each tick with their number."""

    def __init__(self, at_tick=None) -> None:
        self.lines: list[str] = []
        self.ended: list[str] = []
        self.ticks = 0
        self.at_tick = at_tick

    def say(self, text: str) -> None:
        """A line for people."""
        self.lines.append(text)

    def run_ended(self, run_id: str, status: str, fitness: float | None) -> None:
        """A training has ended."""
        self.ended.append(run_id)

    def tick(self) -> None:
        """Trainings run."""
        self.ticks += 1
        if self.at_tick is not None:
            self.at_tick(self.ticks)


@pytest.fixture
def training(tmp_path, monkeypatch):
    """Makes a training of the fake worker; its run id says how that behaves."""
    (tmp_path / "starts").mkdir()
    monkeypatch.setenv("FAKE_STARTS", str(tmp_path / "starts"))
    monkeypatch.setattr(local, "WORKER", (sys.executable, FAKE))
    monkeypatch.setattr(local, "_GRACE_S", 1.0)
    monkeypatch.setattr(local, "_WATCH_S", 0.2)
    monkeypatch.setattr("eureka.training._GRACE_S", 0.0)
    config = config_for(make(str(SLIDER)), {"iterations": 1})

    def made(run_id: str, folder: Path | None = None) -> Training:
        # The limit is for a supervision that fails: no test waits for a stopped process for ever.
        request = TrainRequest(
            run_id=run_id, task=str(SLIDER), reward=ZERO, config=config, seed=0, eval_seed=1, time_limit_s=60.0
        )
        return Training(request, (folder or tmp_path / "runs") / run_id)

    return made


def starts(wanted: Training) -> list[str]:
    """The names of the starts that a training had."""
    path = Path(os.environ["FAKE_STARTS"]) / f"{wanted.run_id}.starts"
    return [line.split()[1] for line in path.read_text().splitlines()]


def run(*wanted: Training, executor: LocalExecutor | None = None, heard: Heard | None = None) -> dict[str, dict]:
    """The results by run id; each comes once."""
    results: dict[str, dict] = {}

    def on_result(done: Training, result: dict) -> None:
        assert done.run_id not in results
        results[done.run_id] = result

    run_trainings(wanted, executor or LocalExecutor(4, 1), heard or Heard(), on_result)
    return results


def test_what_the_infrastructure_broke_is_tried_once_more_and_a_reward_never(training):
    """A death by a signal and a failed device are; the cause is told, recorded and handed on. The second time stands."""
    wanted = {name: training(name) for name in ("ok", "crashonce", "deviceonce", "crash", "device", "reward")}
    heard = Heard()
    results = run(*wanted.values(), heard=heard)
    assert {name: len(starts(t)) for name, t in wanted.items()} == {
        "ok": 1, "crashonce": 2, "deviceonce": 2, "crash": 2, "device": 2, "reward": 1
    }  # fmt: skip
    statuses = {name: result["status"] for name, result in results.items()}
    assert statuses == {
        "ok": "ok", "crashonce": "ok", "deviceonce": "ok", "crash": "error", "device": "error", "reward": "reward_error"
    }  # fmt: skip
    assert "attempts" not in results["ok"] and "attempts" not in results["reward"]
    first = starts(wanted["crashonce"])[0]
    cause = "the worker crashed (exit code -9) without a result"
    recorded = [{"attempt": first, "ending": "crashed", "cause": cause}]
    assert results["crashonce"]["attempts"] == recorded
    assert json.loads((wanted["crashonce"].run_dir / ATTEMPTS).read_text()) == recorded
    assert finished_result(wanted["crashonce"]) == results["crashonce"]
    assert f"crashonce: {cause}; it is tried once more" in heard.lines
    assert any("deviceonce: AcceleratorError: CUDA error" in line for line in heard.lines)
    assert results["crash"]["error"]["type"] == "WorkerDied" and len(results["crash"]["attempts"]) == 2
    assert results["device"]["error"]["type"] == "DeviceError" and results["device"]["fitness"] is None
    assert len(heard.lines) == 4 and sorted(heard.ended) == sorted(wanted)


def test_a_result_of_another_start_is_not_taken(training):
    """It counts as none: the training is started again, and its own result is taken, once."""
    wanted = training("stale")
    results = run(wanted)
    assert results["stale"]["fitness"] == 1.0
    first, second = starts(wanted)
    assert first != second and read_request(wanted.run_dir).attempt == second
    result = json.loads((wanted.run_dir / RESULT).read_text())
    assert result["attempt"] == second and finished_result(wanted) is not None
    (wanted.run_dir / RESULT).write_text(json.dumps(result | {"attempt": first}))
    assert finished_result(wanted) is None


def test_an_end_told_twice_or_of_an_earlier_start_changes_nothing(training):
    """An executor over a network may say so; a training has one result."""

    class Repeating(LocalExecutor):
        def wait(self, timeout_s: float) -> list[Ended]:
            """Each end three times, once under another name, and one of nobody."""
            ended = super().wait(timeout_s)
            early = [Ended(run_id, "crashed", -9, "", attempt="an earlier one") for run_id in self.running()]
            return [*early, *ended, *ended, *(Ended("nobody", "finished", 0, "") for _ in ended)]

    wanted = [training("ok"), training("crashonce"), training("slow")]
    results = run(*wanted, executor=Repeating(2, 1))
    assert {result["status"] for result in results.values()} == {"ok"}
    assert [len(starts(each)) for each in wanted] == [1, 2, 1]


def test_a_job_that_stands_still_is_ended_and_tried_once_more(training):
    """One that sleeps both times, and one that was stopped the first time: time passes for it while it is."""
    results = run(training("hang"), executor=LocalExecutor(1, 1, no_progress_s=1.0))
    assert results["hang"]["error"]["type"] == "NoProgress"
    assert re.match(r"no progress for \d+ s \(last: (training 17|none at all)\)", results["hang"]["error"]["message"])
    assert [attempt["ending"] for attempt in results["hang"]["attempts"]] == ["no_progress"] * 2

    executor = LocalExecutor(1, 1, no_progress_s=25.0)

    def at_tick(number: int) -> None:
        for process in executor._processes.values():
            stat = process_stat(process.popen.pid)
            if stat is not None and stat.state == "T":
                executor._watched_s -= 9.0

    wanted, heard = training("stop"), Heard(at_tick)
    result = run(wanted, executor=executor, heard=heard)["stop"]
    assert result["status"] == "ok" and len(starts(wanted)) == 2
    assert [attempt["ending"] for attempt in result["attempts"]] == ["no_progress"]
    told = re.compile(r"stop: no progress for \d+ s \(last: none at all\); it is tried once more")
    assert any(map(told.fullmatch, heard.lines))


def test_a_job_that_moves_is_left_alone_until_it_does_not(training):
    """Three times as long as it may stand still, with another line at every look."""
    executor, wanted = LocalExecutor(1, 1, no_progress_s=60.0), training("hang")
    progress, ended = wanted.run_dir / "progress", []
    write_request(wanted.request, wanted.run_dir)
    executor.submit(local.Job(wanted.run_id, wanted.run_dir))
    try:
        _until(lambda: progress.is_file() and progress.read_text() == "training 17")
        for number in range(20):
            progress.write_text(f"evaluation {number}")
            executor._watched_s -= 9.0
            assert executor.wait(0.0) == []
        while not ended:
            executor._watched_s -= 9.0
            ended = executor.wait(0.1)
    finally:
        executor.cancel_all()
    assert ended[0].ending == "no_progress"
    assert re.fullmatch(r"no progress for (6|7)\d s \(last: evaluation 19\)", ended[0].cause)


def test_time_in_which_nobody_looked_is_not_held_against_a_job(training, monkeypatch):
    """A machine that was frozen for an hour ends no training for it, nor does a clock that jumps by days."""
    executor, real, jumps = LocalExecutor(1, 1, no_progress_s=60.0), time.time, itertools.cycle([0.0, 9e5, -9e5])
    wanted = training("hang")
    write_request(wanted.request, wanted.run_dir)
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    executor.submit(local.Job(wanted.run_id, wanted.run_dir, time_limit_s=600.0))
    try:
        executor.wait(1.0)
        executor._watched_s -= 3600.0
        assert executor.wait(0.5) == []
        executor._watched_s -= 3600.0
        assert executor.wait(0.5) == []
    finally:
        executor.cancel_all()


def test_a_job_that_takes_too_much_memory_is_ended_with_its_children(training, monkeypatch):
    """More than its fair share of the machine, its children's counted; one whose children share its pages is left."""
    shares: list[int] = []
    monkeypatch.setattr(local, "fair_share", lambda slots: shares.append(slots) or HOG_LIMIT)
    results = run(training("hog"), training("sharing"), executor=LocalExecutor(2, 1), heard=Heard())
    assert shares == [2]
    if processes.proportional_bytes(os.getpgrp()) is not None:
        assert results["sharing"]["status"] == "ok" and "attempts" not in results["sharing"]
    assert results["hog"]["error"]["type"] == "OutOfMemory"
    message = results["hog"]["error"]["message"]
    assert "GiB of memory, its limit is 0.15" in message
    assert {attempt["ending"] for attempt in results["hog"]["attempts"]} == {"out_of_memory"}
    # killed as a group: nobody sleeps on in its name
    assert not [p for p in processes.all_processes() if p.resident_bytes > HOG_LIMIT and p.group == _group_of("hog")]


HOG_LIMIT = 150 * MIB


def _group_of(run_id: str) -> int:
    path = Path(os.environ["FAKE_STARTS"]) / f"{run_id}.starts"
    return int(path.read_text().splitlines()[-1].split()[0])


def test_shared_memory_counts_once(tmp_path):
    """A worker's forks share its pages: what is resident in each is divided among them."""
    code = (
        "import os, time; held = bytearray(200 * 2**20); held[::4096] = bytes(len(held[::4096]))\n"
        "if os.fork() and os.fork(): print('ready', flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            resident = processes.resident_bytes([process.pid])[process.pid]
            shared = processes.proportional_bytes(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    assert resident > 590 * MIB
    assert shared is None or 190 * MIB < shared < 300 * MIB


def test_limits_of_control_groups_are_read(tmp_path, monkeypatch):
    """The least of the machine, the group and those above it; kills are counted where the group tells."""
    mount = tmp_path / "cgroup"
    inner = mount / "pods" / "one"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (mount / "pods" / "memory.max").write_text(f"{3 * 2**30}\n")
    (inner / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 2\noom_kill 2\noom_group_kill 0\n")
    (tmp_path / "self").write_text("0::/pods/one\n")
    monkeypatch.setattr(memory, "_MOUNT", mount)
    monkeypatch.setattr(memory, "_MEMBERSHIP", tmp_path / "self")
    assert memory.machine_bytes() == 3 * 2**30
    assert memory.kernel_kills() == 2
    assert memory.fair_share(1) == int(0.9 * 3 * 2**30)
    assert memory.fair_share(16) == memory.LEAST_BYTES
    first = mount / "memory" / "docker"
    first.mkdir(parents=True)
    (first / "memory.limit_in_bytes").write_text(f"{2**30}\n")
    (first / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n")
    (tmp_path / "self").write_text("9:name=systemd:/\n4:memory:/docker\n0::/\n")
    assert (memory.machine_bytes(), memory.kernel_kills()) == (2**30, 7)


def test_a_kill_by_the_kernel_for_want_of_memory_is_known(training, tmp_path):
    """A whole search process in a control group of its own, whose worker takes more than the group may."""
    group = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup")
    group = group / f"eureka-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if group.parent.name == "memory" else "memory.max"
    wanted = training("hogitself")
    write_request(wanted.request, wanted.run_dir)
    code = (
        "import os, sys; from pathlib import Path; from eureka.executors import local\n"
        "Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "local.WORKER = (sys.executable, sys.argv[2])\n"
        "e = local.LocalExecutor(1, 1, memory_bytes=2**40); e.submit(local.Job('hogitself', Path(sys.argv[3])))\n"
        "for _ in range(60):\n"
        "    for ended in e.wait(1.0):\n"
        "        print(ended.ending, ended.exit_code, ended.cause, sep='|', flush=True); sys.exit()"
    )
    try:
        try:
            group.mkdir()
            (group / limit).write_text(str(150 * MIB))
        except OSError as error:
            pytest.skip(f"no control group can be made here ({error.strerror})")
        words = [sys.executable, "-c", code, str(group), FAKE, str(wanted.run_dir)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    finally:
        deadline = time.monotonic() + 10
        while group.is_dir() and time.monotonic() < deadline:
            try:
                group.rmdir()
            except OSError:
                time.sleep(0.1)
    assert (done.stdout.strip(), done.stderr) == ("out_of_memory|-9|the kernel ended it for want of memory", "")


def test_a_kill_by_the_kernel_accounts_for_one_job(training, monkeypatch):
    """Two die by SIGKILL while the kernel has ended one process for want of memory: one of them, not both."""
    kills = iter([0, 0])  # as the two start; one more ever after
    monkeypatch.setattr(local, "kernel_kills", lambda: next(kills, 1))
    executor, ended = LocalExecutor(2, 1), []
    for wanted in (training("crash_a"), training("crash_b")):
        write_request(wanted.request, wanted.run_dir)
        executor.submit(local.Job(wanted.run_id, wanted.run_dir))
    while executor.running():
        ended += executor.wait(1.0)
    assert sorted(each.ending for each in ended) == ["crashed", "out_of_memory"]
    assert {each.exit_code for each in ended} == {-signal.SIGKILL}


def test_a_training_that_outlasts_its_time_is_ended_and_not_tried_again(training):
    """Where the worker does not keep its own limit; that it takes too long is a verdict."""
    wanted = training("hang")
    wanted = dataclasses.replace(wanted, request=dataclasses.replace(wanted.request, time_limit_s=0.5))
    result = run(wanted)["hang"]
    assert (result["status"], result["error"]["type"], result["fitness"]) == ("time_limit", "TimeLimit", None)
    assert "attempts" not in result and _count(wanted) <= 1  # it may not have come so far as to write that it started


def test_kill_all_and_cancel_all_reach_children_and_those_that_ignore_a_request(training, monkeypatch):
    """A worker that takes no SIGTERM is killed after its grace; kill_all gives none. Neither leaves its child."""
    for end, grace_s, least_s, most_s in (("cancel_all", 1.0, 1.0, 30.0), ("kill_all", 60.0, 0.0, 30.0)):
        monkeypatch.setattr(local, "_GRACE_S", grace_s)
        executor = LocalExecutor(1, 1)
        wanted = training(f"stubborn_{end}")
        write_request(wanted.request, wanted.run_dir)
        executor.submit(local.Job(wanted.run_id, wanted.run_dir))
        pidfile = wanted.run_dir / "child.pid"
        _until(lambda file=pidfile: file.is_file() and file.read_text() != "")
        pids = [executor._processes[wanted.run_id].popen.pid, int(pidfile.read_text())]
        assert all(map(alive, pids))
        began = time.monotonic()
        getattr(executor, end)()
        took = time.monotonic() - began
        _until(lambda pids=pids: not any(map(alive, pids)))
        assert least_s <= took < most_s
        executor.cancel_all()


def test_a_stopped_worker_ends_in_order_when_all_are_cancelled(training, monkeypatch):
    """SIGTERM alone would not reach it: it is let go on, and ends as it does."""
    monkeypatch.setattr(local, "_GRACE_S", 60.0)
    executor = LocalExecutor(1, 1)
    wanted = training("stop")
    write_request(wanted.request, wanted.run_dir)
    executor.submit(local.Job(wanted.run_id, wanted.run_dir))
    pid = executor._processes["stop"].popen.pid
    _until(lambda: (stat := process_stat(pid)) is not None and stat.state == "T")
    executor.cancel_all()
    assert json.loads((wanted.run_dir / RESULT).read_text())["error"]["type"] == "Terminated"
    assert not alive(pid) and not (wanted.run_dir / NOTE).exists()


def _until(holds, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def test_an_orphan_is_ended_before_its_folder_is_used_again(training):
    """A worker that still runs is ended, and said so; the training then starts afresh and has its result."""
    wanted = training("ok")
    words = [sys.executable, "-c", "import time; time.sleep(120)"]
    orphan = subprocess.Popen(words, env=os.environ | {MARK: "a-word"}, start_new_session=True)
    write_request(wanted.request, wanted.run_dir)
    note_worker(wanted.run_dir, orphan.pid, "a-word")
    note = json.loads((wanted.run_dir / NOTE).read_text())
    stat = process_stat(orphan.pid)
    assert stat is not None and (note["pid"], note["start_ticks"]) == (orphan.pid, stat.start_ticks)
    heard = Heard()
    assert run(wanted, heard=heard)["ok"]["status"] == "ok"
    assert orphan.wait(20.0) == -signal.SIGKILL
    assert [line for line in heard.lines if f"ended worker {orphan.pid}" in line]
    assert not (wanted.run_dir / NOTE).exists()


# A full disk: a real one, small.


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"nothing can be mounted here ({done.stderr.strip()})")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(place: Path, leave: int = 0) -> Path:
    """Fill a file system up to `leave` bytes; returns the file that does."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
        file.truncate(max(0, ballast.stat().st_size - leave))
    return ballast


@pytest.mark.parametrize("leave", [0, 200_000], ids=["the search cannot write", "the worker cannot write"])
def test_a_full_disk_is_waited_for(training, small_disk, monkeypatch, leave):
    """One line says so, nothing is started or tried in between, and the training then ends as if nothing had been."""
    monkeypatch.setattr(disk, "ROOM_BYTES", MIB)
    monkeypatch.setattr(disk, "_LOOK_S", 0.2)
    ballast = fill_up(small_disk, leave)
    seen: list[int] = []

    def at_tick(number: int) -> None:
        seen.append(_count(wanted))
        if number == 5:
            ballast.unlink()

    wanted, heard = training("fill", small_disk), Heard(at_tick)
    result = run(wanted, heard=heard)["fill"]
    tried = 1 if leave else 0
    assert (result["status"], _count(wanted)) == ("ok", tried + 1)
    assert set(seen[1:4]) == {tried}, "it was started again on a full disk"
    assert "attempts" not in result
    assert len(heard.lines) == 2
    assert heard.lines[0].startswith("fill cannot be written: the disk is full") and "Ctrl-C" in heard.lines[0]
    assert f"MB at {small_disk}" in heard.lines[0]
    assert heard.lines[1].startswith("there is room again")


def _count(wanted: Training) -> int:
    path = Path(os.environ["FAKE_STARTS"]) / f"{wanted.run_id}.starts"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_pause_ends_in_order_when_the_search_is_interrupted(training, small_disk):
    """Ctrl-C while it waits for room: no error of the disk, and nothing runs on."""
    fill_up(small_disk)

    def interrupt(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt

    heard, executor = Heard(interrupt), LocalExecutor(1, 1)
    with pytest.raises(KeyboardInterrupt):
        run(training("fill", small_disk), executor=executor, heard=heard)
    assert executor.running() == () and len(heard.lines) == 1


def test_a_quota_shows_only_when_something_is_written(tmp_path, monkeypatch):
    """Free space alone does not end a pause: a megabyte has really to go onto the disk."""
    real = os.fsync

    def fsync(handle: int) -> None:
        real(handle)
        raise OSError(122, "Disk quota exceeded")

    assert disk.has_room(tmp_path)
    monkeypatch.setattr(os, "fsync", fsync)
    assert not disk.has_room(tmp_path)
    assert not list(tmp_path.iterdir())
