"""Trainings on Ray clusters: one of two nodes that loses one, the one that we start, and what a cluster cannot be given."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from eureka.executors import ray_cluster
from eureka.executors.ray_cluster import _OURS
from eureka.executors.ray_node import _SCRATCH
from eureka.executors.scratch import abandoned
from rl.record import METRICS, RESULT, read_json
from tasks.errors import UserError
from tests.eureka.command_line import assert_one_line
from tests.eureka.executor_cases import (
    NO_RAY,
    RAY_MISSING,
    ROOT,
    SLIDER,
    alive,
    endings,
    executor,
    job,
    started,
    starts,
    until,
)

needs_ray = pytest.mark.skipif(RAY_MISSING or sys.platform != "linux", reason=NO_RAY)
TOKEN = "5e" * 32
ENVIRONMENT = _OURS | {"RAY_AUTH_TOKEN": TOKEN, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}


def environment(**more: str) -> dict[str, str]:
    """Variables of a process that knows no cluster but the one named in `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OPENAI_"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


@pytest.fixture
def two_nodes() -> Iterator[dict]:
    """A cluster of two nodes with one CPU each. Ray gives a node a fixed 30 s to come up, which a busy machine may
    exceed: three tries."""
    command = [sys.executable, "-m", "tests.eureka.ray_nodes"]
    for _ in range(3):
        with subprocess.Popen(
            command, cwd=ROOT, env=environment(**ENVIRONMENT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as nodes:
            assert nodes.stdout is not None and nodes.stdin is not None
            told = nodes.stdout.readline()
            if told:
                yield json.loads(told)
            nodes.stdin.close()
            nodes.wait(180)
            if told:
                return
    pytest.fail("the nodes did not come up in three tries; what Ray said of it stands above")


def node_processes(raylet: int) -> list[int]:
    """A node's raylet and all that descends from it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        fields = _bytes(path).rpartition(b")")[2].split()
        if fields:
            parents[int(path.parts[2])] = int(fields[1])
    found = [raylet]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def trains(raylet: int) -> bool:
    """Whether a worker on the node has written its first metrics, into a folder of the node's."""
    if not any(Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*/run/{METRICS}")):
        return False  # asked many times: looking through all processes takes as long as a thousand of these
    for pid in node_processes(raylet):
        words = _bytes(Path(f"/proc/{pid}/cmdline")).split(b"\0")
        if b"rl.worker" in words and (Path(os.fsdecode(words[-2])) / METRICS).exists():
            return True
    return False


def kill_node(raylet: int) -> None:
    """End a node as a power cut does: its raylet and all that descends from it, at once. Of a raylet that dies alone the
    tasks live on for some seconds, and may finish."""
    doomed = node_processes(raylet)
    assert len(doomed) > 2  # the task's process and its worker at least
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)


@needs_ray
def test_a_search_finishes_after_one_of_two_nodes_is_killed(two_nodes, tmp_path):
    """Both nodes take trainings; one is killed in the middle of its own. That is tried once more, and everything gets its
    fitness."""
    folder, said = tmp_path / "search", tmp_path / "said"
    words = ["search", SLIDER, "--executor", "ray", "--designer", "evolution", "--samples", "2", "--generations", "2",
             "--iterations", "60", "--final-seeds", "0", "--no-video", "--out", folder]  # fmt: skip
    cluster = {**ENVIRONMENT, "RAY_ADDRESS": two_nodes["address"]}
    with open(said, "wb") as log:
        search = subprocess.Popen(
            [sys.executable, "-m", "eureka.cli", *map(str, words)],
            cwd=tmp_path,
            env=environment(**cluster),
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: search.poll() is not None or trains(two_nodes["second"]), 600.0)
        assert search.poll() is None, said.read_text()
        kill_node(two_nodes["second"])
        assert search.wait(900) == 0, said.read_text()
    finally:
        search.kill()
    text = said.read_text()
    assert "2 trainings at a time" in text
    assert re.search(r"g01_c0[01]_s0: node \S+ was lost: .*; it is tried once more", text), text
    with sqlite3.connect(folder / "search.db") as archive:
        runs = dict(archive.execute("SELECT run_id, fitness FROM runs"))
    assert sorted(runs) == ["g01_c00_s0", "g01_c01_s0", "g02_c00_s0", "g02_c01_s0"]
    assert all(fitness is not None for fitness in runs.values())
    results = [read_json(path) for path in folder.glob("candidates/*/s0/" + RESULT)]
    assert len(results) == 4 and {result["iterations"] for result in results} == {60}
    assert read_json(folder / "done")["best"] in {"g01_c00", "g01_c01", "g02_c00", "g02_c01"}


@pytest.fixture(scope="module")
def cluster() -> Iterator:
    """A cluster that lasts for the tests of this file; gives what started it."""
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            patched.delenv(name)
        owner = started(lambda: executor("ray"))
        yield owner
        owner.close()  # pyright: ignore[reportAttributeAccessIssue]


def listening() -> list[tuple[str, int]]:
    """(address, pid) of every TCP socket that waits for connections and whose process we may look at."""
    waiting = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                waiting[fields[9]] = fields[1].partition(":")[0]
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target.startswith("socket:[") and (inode := target[8:-1]) in waiting:
            found.append((waiting[inode], int(link.parts[2])))
    return found


@needs_ray
def test_the_cluster_that_we_start_is_closed_to_others(cluster, tmp_path):
    """It listens on loopback alone and takes nobody without its token, which is written nowhere."""
    folder = cluster._cluster._folder
    ours = {int(p.parts[2]) for p in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in _bytes(p)}
    assert len(ours) >= 2  # the global store and the raylet at least
    ours.add(os.getpid())
    # In the kernel's words, 127.0.0.1 and the same in an IPv6 address.
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}
    addresses = {address for address, pid in listening() if pid in ours}
    assert addresses and addresses <= loopback, addresses
    stranger = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR'); print('in', ray.nodes())"
    for token in ("", "0" * 64):
        quick = {"RAY_NUM_REDIS_GET_RETRIES": "2"}
        variables = environment(
            **(_OURS | quick | ({"RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}))
        )
        done = subprocess.run(
            [sys.executable, "-c", stranger, cluster.address],
            env=variables,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode != 0 and "in [" not in done.stdout
        assert re.search("[Aa]uth", done.stderr), done.stderr
    assert folder.stat().st_mode & 0o077 == 0
    written = b"".join(_bytes(path) for path in folder.rglob("*") if path.is_file())
    assert len(written) > 1000 and ray_cluster._TOKEN.encode() not in written
    assert not [name for name in os.environ if name.startswith("RAY_AUTH")]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@needs_ray
def test_a_node_that_says_nothing_is_given_up(cluster, tmp_path, monkeypatch):
    """Its Ray process is stopped, so that neither its limits nor its heartbeat work; its worker goes too."""
    from eureka.executors import ray as ray_executor

    monkeypatch.setattr(ray_executor, "_SILENT_S", 2.0)
    running = executor("ray", 1)
    running.submit(job(tmp_path / "run", "hang"))
    until(lambda: running.wait(0.05) or starts(tmp_path / "log"))
    start = starts(tmp_path / "log")[0]
    os.kill(start["parent"], signal.SIGSTOP)
    ended = endings(running)["run"]
    assert ended.ending == "no_progress" and "sent nothing" in ended.cause
    until(lambda: not alive(start["pid"]), 60.0)


@needs_ray
def test_a_killed_task_is_a_crash_and_its_folder_is_removed_by_the_next(cluster, tmp_path):
    """SIGKILL of Ray's process on the node: the worker dies with it, what is left is swept up."""
    running = executor("ray", 1)
    running.submit(job(tmp_path / "a", "hang"))
    until(lambda: running.wait(0.05) or starts(tmp_path / "log"))
    start = starts(tmp_path / "log")[0]
    os.kill(start["parent"], signal.SIGKILL)
    ended = endings(running)["a"]
    assert ended.ending == "crashed" and "was lost" in ended.cause
    until(lambda: not alive(start["pid"]), 60.0)
    assert Path(start["folder"]).is_dir()
    running.submit(job(tmp_path / "b", "train", seconds=0.0))
    assert endings(running)["b"].ending == "finished"
    assert not Path(start["folder"]).exists()


@needs_ray
def test_only_plain_files_of_a_bounded_size_come_back(cluster, tmp_path, monkeypatch):
    """A hostile worker leaves links, pipes, folders, the search's own names, or too much."""
    from eureka.executors import ray as ray_executor

    secret = tmp_path / "secret"
    secret.write_text("canary")
    running = executor("ray", 1)
    running.submit(job(tmp_path / "a", "links", secret=str(secret)))
    assert endings(running)["a"].ending == "finished"
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"request.json", RESULT, "worker.log"}
    monkeypatch.setattr(ray_executor, "MAX_RUN_BYTES", 6_000_000)
    running.submit(job(tmp_path / "b", "large", bytes=5_900_000))
    assert endings(running)["b"].ending == "finished"
    assert (tmp_path / "b" / "large.bin").read_bytes() == b"x" * 5_900_000
    running.submit(job(tmp_path / "c", "large", bytes=6_100_000))
    ended = endings(running)["c"]
    assert ended.ending == "crashed" and "more than 6000000 bytes" in ended.cause
    assert not (tmp_path / "c" / RESULT).exists()


@needs_ray
def test_a_full_disk_here_is_told_from_one_of_a_node(cluster, tmp_path, monkeypatch):
    """The search waits for room on its own; on a node's it can only try elsewhere, and takes no word of it."""
    running = executor("ray", 1)
    running.submit(job(tmp_path / "there", "full"))
    ended = endings(running)["there"]
    assert (ended.ending, ended.exit_code) == ("crashed", None)
    assert f"the disk of node {socket.gethostname()} is full" in ended.cause
    assert not (tmp_path / "there" / RESULT).exists()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    wanted = job(tmp_path / "here", "train", seconds=0.0)
    monkeypatch.setattr(os, "fsync", full)
    running.submit(wanted)
    ended = endings(running)["here"]
    assert ended.ending == "disk_full" and not (tmp_path / "here" / RESULT).exists()


@needs_ray
def test_a_node_with_other_code_is_refused(cluster, tmp_path, monkeypatch):
    """Its fitness could not be compared."""
    from eureka.executors import ray as ray_executor

    monkeypatch.setattr(ray_executor, "code_digest", lambda: "of another version")
    running = executor("ray", 1)
    running.submit(job(tmp_path / "run", "train", seconds=0.0))
    with pytest.raises(UserError, match=f"{socket.gethostname()} has another version"):
        running.wait(60.0)
    running.cancel_all()


@needs_ray
def test_a_killed_search_takes_its_cluster_with_it(tmp_path):
    """SIGKILL of a process that started a cluster: no raylet, no worker, nothing of it is left."""
    code = (
        "import sys; from pathlib import Path; from tests.eureka.executor_cases import *\n"
        "e = executor('ray'); e.submit(job(Path(sys.argv[1]), 'hang'))\n"
        "until(lambda: e.wait(0.05) or starts(Path(sys.argv[1]).parent / 'log'))\n"
        "print(e._cluster._folder, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as search:
        assert search.stdout is not None
        folder = search.stdout.readline().strip()
        assert folder.startswith("/tmp/eureka-ray-")
        search.kill()
    worker = starts(tmp_path / "log")[0]["pid"]
    until(lambda: not alive(worker), 60.0)

    def left() -> list[str]:
        return [p.parts[2] for p in Path("/proc").glob("[0-9]*/cmdline") if folder.encode() in _bytes(p)]

    until(lambda: not left(), 60.0)
    assert Path(folder) in abandoned("eureka-ray-", Path("/tmp"))  # the next cluster removes it
    shutil.rmtree(folder)


def test_without_ray_there_is_one_line(eureka, monkeypatch):
    """Before a folder is made."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else real(name, *more))
    code, _, err = eureka("search", SLIDER, "--executor", "ray", "--designer", "evolution")
    assert_one_line(code, err, "--executor ray needs Ray", "pip install 'eureka-skills[ray]'")
    assert not Path("runs").exists()


def test_a_node_that_does_not_keep_the_limit_is_stopped_here(tmp_path, monkeypatch):
    """What it may send is counted by the search as well. No Ray: a cluster that takes a task, and its messages."""
    from eureka.executors import ray as ray_executor

    cancelled: list[str] = []
    task = SimpleNamespace(options=lambda name: SimpleNamespace(remote=lambda *_: name))
    fake = SimpleNamespace(
        remote=lambda **_: lambda function: task,
        cancel=lambda messages, force: cancelled.append(messages),
        exceptions=SimpleNamespace(RayError=ZeroDivisionError),
    )
    cluster = SimpleNamespace(ray=fake, has_gpus=lambda: False, capacity=lambda threads, with_gpu: 1)
    monkeypatch.setattr(ray_executor, "Cluster", lambda *_: cluster)
    monkeypatch.setattr(ray_executor, "MAX_RUN_BYTES", 10)
    running = ray_executor.RayExecutor(1, 1)
    running.submit(job(tmp_path / "run", "train", seconds=0.0))
    piece = {"kind": "file", "name": "large.bin", "data": b"x" * 8, "last": False}
    assert running._take(running._jobs["run"], piece) is None
    ended = running._take(running._jobs["run"], piece)
    assert ended is not None and ended.ending == "crashed" and "more bytes than a run folder may hold" in ended.cause
    assert cancelled == ["run"] and running._jobs == {}
    assert not (tmp_path / "run" / "large.bin").exists()


class Stream:
    """What a task says, as Ray hands it over: next() gives the next message."""

    def __init__(self) -> None:
        self.said: list[dict] = []

    def __next__(self) -> dict:
        return self.said.pop(0)


def test_a_node_that_was_given_up_is_not_heard_again(tmp_path, monkeypatch):
    """It hung, its training was started elsewhere, and then it sends its result: that of the second start counts, once. No
    Ray: a cluster that hands out messages. Ray itself is not to try a task again: the search would not know of it."""
    from eureka.executors import ray as ray_executor

    first, second = Stream(), Stream()
    streams, cancelled, given = [first, second], [], {}
    task = SimpleNamespace(options=lambda name: SimpleNamespace(remote=lambda *_: streams.pop(0)))
    fake = SimpleNamespace(
        remote=lambda **options: given.update(options) or (lambda function: task),
        wait=lambda found, num_returns, timeout: ([s for s in found if s.said], [s for s in found if not s.said]),
        get=lambda message: message,
        cancel=lambda messages, force: cancelled.append(messages),
        exceptions=SimpleNamespace(RayError=ZeroDivisionError, TaskCancelledError=ZeroDivisionError),
    )
    cluster = SimpleNamespace(ray=fake, has_gpus=lambda: False, capacity=lambda threads, with_gpu: 1)
    monkeypatch.setattr(ray_executor, "Cluster", lambda *_: cluster)
    monkeypatch.setattr(ray_executor, "_SILENT_S", 0.0)
    running = ray_executor.RayExecutor(1, 1)
    assert given["max_retries"] == 0
    wanted = job(tmp_path / "run", "train")

    def result(number: int) -> list[dict]:
        text = json.dumps({"start": number}).encode()
        ended = {"kind": "ended", "ending": "finished", "exit_code": 0, "stderr_tail": "", "cause": ""}
        return [{"kind": "file", "name": RESULT, "data": text, "last": True}, ended]

    running.submit(dataclasses.replace(wanted, attempt="a1"))
    first.said.append({"kind": "started", "node": "slow"})
    (ended,) = until(lambda: running.wait(0.0))
    assert (ended.ending, ended.attempt) == ("no_progress", "a1") and cancelled == [first]
    monkeypatch.setattr(ray_executor, "_SILENT_S", 60.0)
    running.submit(dataclasses.replace(wanted, attempt="a2"))
    first.said += result(1)
    assert running.wait(0.0) == [] and not (tmp_path / "run" / RESULT).exists()
    second.said += [{"kind": "started", "node": "fast"}, *result(2)]
    (ended,) = until(lambda: running.wait(0.0))
    assert (ended.ending, ended.attempt) == ("finished", "a2")
    assert running.wait(0.0) == [] and running.running() == ()
    assert read_json(tmp_path / "run" / RESULT) == {"start": 2}


def test_our_cluster_is_started_without_secrets_and_with_a_token_of_its_own(monkeypatch):
    """What its processes inherit; afterwards the search has its variables back. For a cluster of others all stay."""
    monkeypatch.setenv("MY_SECRET", "canary-of-the-search")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    before = dict(os.environ)
    with ray_cluster._environment(None):
        inside = dict(os.environ)
    assert dict(os.environ) == before
    assert inside["RAY_AUTH_MODE"] == "token" and inside["RAY_AUTH_TOKEN"] == ray_cluster._TOKEN
    assert len(ray_cluster._TOKEN) == 64 and inside["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert not [text for pair in inside.items() for text in pair if "canary" in text or text == "MY_SECRET"]
    with ray_cluster._environment("10.0.0.1:6379"):
        assert dict(os.environ) == before


def test_a_cluster_that_does_not_come_up_is_one_line(monkeypatch):
    """Ray's own limit is 30 s, and what it raises then has no class of its own. Nothing is left of its folder."""
    folders: list[str] = []

    def init(**options) -> None:
        folders.append(options["_temp_dir"])
        raise Exception("The current node timed out during startup.\nThis could happen")

    fake = SimpleNamespace(
        is_initialized=lambda: False,
        init=init,
        shutdown=lambda: None,
        exceptions=SimpleNamespace(RayError=ZeroDivisionError),
    )
    monkeypatch.setattr(ray_cluster, "load_ray", lambda: fake)
    with pytest.raises(UserError, match="no Ray cluster could be started here: The current node timed out") as refused:
        ray_cluster.Cluster(None, 1, 0)
    assert "\n" not in str(refused.value)
    assert not Path(folders[0]).parent.exists()


@needs_ray
def test_no_cluster_at_the_address_is_one_line(tmp_path):
    """In a process of its own: Ray keeps what it has seen of an environment."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    words = ["search", str(SLIDER), "--executor", "ray", "--designer", "evolution", "--out", str(tmp_path / "s")]
    done = subprocess.run(
        [sys.executable, "-m", "eureka.cli", *words],
        cwd=tmp_path,
        env=environment(RAY_ADDRESS=address),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2, done.stderr
    assert f"no Ray cluster at {address}" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
