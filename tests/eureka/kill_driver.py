"""Searches that are killed at a named step, at a time, or by Ctrl-C; for `test_kill_sweep`.

`python -m tests.eureka.kill_driver` imports everything once and then forks one process for each order on its standard
input, so that a search costs a second and not the import of torch. Such a search has the real loop, archive, gate
and report; its designer is scripted and pays like an endpoint, its executor writes what a training writes (a request's
result is a function of the request), and the gate's verdicts, which are a function of the reply, are kept in a file
after the first search. What steps and missing guards need is patched in the forked process alone.

An order is one line of JSON: folder, log, verdicts, and as wanted step and crossing (SIGKILL there), after_s and signal
(sent by the parent, after the start or after the log holds the text `once`), without (a guard to leave out), plain (a
designer that stores no exchanges), workers (real ones), moment (SIGKILL at one of a `KillingListener`), clock_s (added to the system's clock, one after the other), fill (a folder whose disk
is filled at the step instead), hold (stand still at the step until a second search, with after_hold, has ended). The
answer is one line: status (of the process, negative: a signal), wall_s.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import itertools
import json
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import rl.record
from eureka import archive, best, database, disk, finals, proposing, report, search, search_config, training
from eureka.candidate import Status
from eureka.designers.base import Ask, Exchange, ExchangeStore, Reply
from eureka.executors.base import Ended, Job
from eureka.executors.local import LocalExecutor
from rl import checkpoint
from rl.record import make_result, read_request, write_json_atomic
from tests.eureka.scripted import KillingListener, ScriptedDesigner, slider_config

INTERRUPTED = 130
REFUSED = 7

# -- what takes part in a search


class PayingDesigner(ScriptedDesigner):
    """The scripted one behind an endpoint: each answer is paid for, stored as an exchange, then delivered."""

    def __init__(self, log: Path) -> None:
        super().__init__(never_mended=("g02_c01",))
        self.log_file = log
        self.store: ExchangeStore | None = None

    def store_in(self, store: ExchangeStore) -> None:
        """See `StoringDesigner`."""
        self.store = store

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """Read what was paid for, pay for the rest."""
        for ask in reversed(asks):
            kept = self.store.last_exchange(ask.ask_id) if self.store is not None else None
            if kept is None:
                note(self.log_file, "paid", ask.ask_id)
                written: list[Reply] = []
                super().answer([ask], written.append)
                kept = Exchange(ask.ask_id, 200, (written[0].text or "").encode(), True, None, 0.0)
                if self.store is not None:
                    self.store.add_exchange(kept)
            on_reply(Reply(ask.ask_id, kept.body.decode(), "ok", "script", 10, 5, latency_s=0.0))


class PlainDesigner(PayingDesigner):
    """The same without a store for exchanges, as a designer of a user may be."""

    store_in = None  # type: ignore[assignment]


class WrittenExecutor:
    """Writes what a training leaves. Fitness is a function of reward and seed."""

    slots, threads_per_slot = 2, 1

    def __init__(self, log: Path) -> None:
        self.log = log
        self._queue: list[Job] = []

    def submit(self, job: Job) -> None:
        """Queue a job."""
        note(self.log, "started", job.run_id)
        self._queue.append(job)

    def running(self) -> tuple[str, ...]:
        """None: they end while they are waited for."""
        return ()

    def cancel_all(self) -> None:
        """Forget the queue."""
        self._queue.clear()

    kill_all = cancel_all

    def wait(self, timeout_s: float) -> list[Ended]:
        """Do the last job of the queue: results do not come in the order of the requests."""
        job = self._queue.pop()
        request = read_request(job.run_dir)
        digest = hashlib.sha256(f"{request.reward} {request.seed}".encode()).digest()
        fitness = -int.from_bytes(digest[:4], "big") / 2**32
        iterations, metrics = request.config.iterations, job.run_dir / "metrics.jsonl"
        before = metrics.read_text() if request.start_iteration else ""
        if request.start_iteration:  # what it goes on from has to be there
            checkpoint.read_meta(job.run_dir / checkpoint.checkpoint_name(request.start_iteration))
            assert f'"iteration": {request.start_iteration},' in before
        line = {
            "iteration": iterations,
            "env_steps": 320,
            "wall_s": 0.1,
            "components": {},
            "terminations": {},
            "fitness": fitness,
        }
        metrics.write_text(before + json.dumps(line) + "\n")
        meta = {"schema": 1, "task": "slider", "task_ref": request.task, "num_observations": 2, "num_actions": 1,
                "hidden_dims": [16], "activation": "elu", "obs_normalization": True, "env_steps": 320,
                "reward_sha256": "0" * 64}  # fmt: skip
        saved = checkpoint.save(job.run_dir, iterations, {"actor_state_dict": {}}, meta)
        told = {"fitness": fitness, "fitness_std": 0.1, "fitness_unit": "m", "env_steps": 320, "iterations": iterations,
                "wall_s": 0.1, "steps_per_s": 3200.0, "checkpoint": saved.name}  # fmt: skip
        result = make_result(request, "ok", **told)
        attempt = getattr(request, "attempt", None)
        if attempt is not None:
            result["attempt"] = attempt
        write_json_atomic(job.run_dir / "result.json", result)
        ended = {"attempt": attempt} if "attempt" in Ended.__dataclass_fields__ and attempt is not None else {}
        return [Ended(job.run_id, "finished", 0, "", **ended)]


def note(log: Path, *words: str) -> None:
    """Append a line to the log; it survives a kill."""
    with log.open("a") as file:
        file.write(" ".join(words) + "\n")


# -- steps


def die() -> None:
    """SIGKILL for this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk(path: Path) -> None:
    """Write `path` until there is no room."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def hold(place: Path) -> None:
    """Say so by a file `held`, and stand still until there is a file `go`."""
    (place / "held").touch()
    wait_for(place / "go")


def wait_for(path: Path) -> None:
    """Until there is a file; a minute at most."""
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)


class Countdown:
    """Does something at the n-th call: ends this process, as a rule."""

    def __init__(self, crossing: int, act: Callable[[], None] = die) -> None:
        self.left, self.act = crossing, act

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


def before(owner: Any, name: str) -> Callable[[Countdown], None]:
    """The step just before `owner.name` is called."""

    def arm(count: Countdown) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            count()
            return real(*args, **kwargs)

        setattr(owner, name, wrapped)

    return arm


def after(owner: Any, name: str, wanted: Callable[..., bool] = lambda *_, **__: True) -> Callable[[Countdown], None]:
    """The step just after `owner.name` has returned, where its arguments are wanted ones."""

    def arm(count: Countdown) -> None:
        real = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            value = real(*args, **kwargs)
            if wanted(*args, **kwargs):
                count()
            return value

        setattr(owner, name, wrapped)

    return arm


def writing(part: str) -> Callable[[Countdown], None]:
    """In the middle of the writing of a file whose name holds `part`: half of its bytes are there."""

    def arm(count: Countdown) -> None:
        real = os.fsync

        def fsync(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle}")
            if part in os.path.basename(path) and os.path.isfile(path):
                if count.left == 1:
                    os.ftruncate(handle, os.fstat(handle).st_size // 2)
                count()
            real(handle)

        os.fsync = fsync

    return arm


def within_transaction(part: str) -> Callable[[Countdown], None]:
    """After a statement that holds `part`, before the next one of its transaction or the commit."""

    class Proxy:
        def __init__(self, db: Any, count: Countdown) -> None:
            self.db, self.count = db, count

        def execute(self, statement: str, *values: Any) -> Any:
            return self._after(statement, self.db.execute(statement, *values))

        def executemany(self, statement: str, *values: Any) -> Any:
            return self._after(statement, self.db.executemany(statement, *values))

        def _after(self, statement: str, value: Any) -> Any:
            if part in statement:
                self.count()
            return value

    def arm(count: Countdown) -> None:
        real = database.Database._transaction

        def transaction(self: Any, action: Callable[[Any], None]) -> None:
            real(self, lambda db: action(Proxy(db, count)))

        database.Database._transaction = transaction

    return arm


def _status(*wanted: Status) -> Callable[..., bool]:
    return lambda _, candidate, *rest, **more: candidate.status in wanted


Archive = archive.Archive
STEPS: dict[str, Callable[[Countdown], None]] = {
    "search.json half written": writing("search.json"),
    "before the database is made": before(database.Database, "_make_whole"),
    "database half written": writing("search.db"),
    "before the start is noted": before(Archive, "note"),
    "within the start's transaction": within_transaction("INTO meta"),
    "a generation's candidate opened": after(Archive, "put_candidate", _status(Status.PROPOSED)),
    "asks stored": after(Archive, "add_asks"),
    "paid, answer not stored": before(Archive, "add_exchange"),
    "answer stored, not read": after(Archive, "add_exchange"),
    "before a reply's insert": before(Archive, "add_reply"),
    "within a reply's insert": within_transaction("INTO replies"),
    "after a reply's insert": after(Archive, "add_reply"),
    "before the gate": before(proposing.Gate, "judge"),
    "between gate and files": before(proposing, "_write_files"),
    "program half written": writing("reward.py"),
    "graph half written": writing("reward_graph.json"),
    "between files and verdict": after(proposing, "_write_files"),
    "after a verdict": after(Archive, "put_candidate", _status(Status.ACCEPTED, Status.REFUSED)),
    "marked as training": after(Archive, "put_candidate", _status(Status.TRAINING)),
    "request half written": writing("request.json"),
    "request written, worker not started": before(WrittenExecutor, "submit"),
    "worker started": after(WrittenExecutor, "submit"),
    "checkpoint half written": writing("model_"),
    "between checkpoint and meta": before(checkpoint, "write_json_atomic"),
    "result half written": writing("result.json"),
    "between result and row": before(Archive, "put_run"),
    "between row and settling": after(Archive, "put_run"),
    "after settling": after(Archive, "put_candidate", _status(Status.TRAINED)),
    "report half written": writing("report.html"),
    "before a generation's end is noted": before(search._Search, "_confirm"),
    "within a generation's end": within_transaction("INTO meta"),
    "between generations": before(search._Search, "run_generation"),
    "before the finals": before(search._Search, "_compare"),
    "between a final's row and its copy": before(finals, "keep_in_cache"),
    "copy of a baseline half made": before(finals.shutil, "copytree"),
    "between finals": after(finals, "keep_in_cache"),
    "before best/": before(search, "keep_best"),
    "between best/'s model and its meta": after(best.shutil, "copyfile"),
    "best.json half written": writing("best.json"),
    "after best/": after(search, "keep_best"),
    "done half written": writing("done"),
    "after done": after(search, "write_json_atomic"),
}
"""Every named step of a search."""
RUNG_STEPS: dict[str, Callable[[Countdown], None]] = {
    "a start half copied": before(training.shutil, "copyfile"),
    "start copied, no request": after(training, "_copy_start", lambda wanted: wanted.start is not None),
    "between a rung's result and its row": before(Archive, "put_run"),
    "between a rung's row and its decision": before(Archive, "put_candidates"),
    "within a rung's decision": after(archive, "_put_candidate", lambda _, candidate, __: candidate.rung > 0),
    "after a rung's decision": after(Archive, "put_candidates"),
}
"""Those of a search that halves; the steps of every search are its too."""
CROSSINGS = {
    "between generations": 2,
    "within a generation's end": 2,
    "before a reply's insert": 2,
    "a generation's candidate opened": 2,
    "report half written": 4,
    "between row and settling": 2,
    "worker started": 2,
    "between finals": 2,
    "a start half copied": 2,
    "between a rung's result and its row": 3,
    "within a rung's decision": 2,
}
"""Which time a step kills, where it is not the first."""

# -- guards, left out


@contextlib.contextmanager
def _no_lock(folder: Path) -> Iterator[None]:
    yield


def _written_in_place(path: Path, data: bytes) -> None:
    with builtins.open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _without_transaction(self: Any, action: Callable[[Any], None]) -> None:
    action(self._db)  # each statement commits itself


def _late_inserts() -> None:
    """Replies are stored when their candidate is settled, after they were used."""
    real_put, real_add, late = Archive.put_candidate, Archive.add_reply, []
    Archive.add_reply = lambda self, reply: late.append(reply)

    def put(self: Any, candidate: Any, run_id: str | None = None) -> None:
        for reply in [late.pop(0) for _ in list(late)]:
            real_add(self, reply)
        real_put(self, candidate, run_id)

    Archive.put_candidate = put


def _leave_out(guard: str) -> None:
    if guard == "lock":
        search.locked = _no_lock
    elif guard == "insert before use":
        _late_inserts()
    elif guard == "answer stored before it is read":
        PayingDesigner.store_in = lambda self, store: None  # type: ignore[method-assign]
    elif guard == "result adoption":
        training.finished_result = finals.finished_result = lambda training: None
    elif guard == "files written whole":
        for module in list(sys.modules.values()):
            if getattr(module, "write_atomic", None) is rl.record.write_atomic and module is not rl.record:
                module.write_atomic = _written_in_place  # type: ignore[attr-defined]
        rl.record.write_atomic = _written_in_place
    elif guard == "transactions":
        database.Database._transaction = _without_transaction
    elif guard == "marker written last":
        real = search._Search.conclude

        def conclude(self: Any) -> Any:
            (self.folder / "done").write_text("{}")
            return real(self)

        search._Search.conclude = conclude
    else:
        raise ValueError(f"there is no guard '{guard}'")


# -- one search


def _remember_verdicts(path: Path) -> None:
    """Take verdicts and baselines' graphs from a file; what is not there is worked out and kept."""
    known: dict[Any, Any] = pickle.loads(path.read_bytes()) if path.exists() else {}
    real_many, real_graph, real_sample = proposing.admit_many, finals.reward_graph, search.sample_signals

    def keep() -> None:
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(pickle.dumps(known))
        part.replace(path)

    def admit_many(texts: list[str], *rest: Any, **options: Any) -> list[Any]:
        missing = [text for text in texts if text not in known]
        if missing:
            known.update(zip(missing, real_many(missing, *rest, **options), strict=True))
            keep()
        return [known[text] for text in texts]

    def reward_graph(text: str, *rest: Any) -> Any:
        if ("graph", text) not in known:
            known["graph", text] = real_graph(text, *rest)
            keep()
        return known["graph", text]

    def sample_signals(task: Any, worlds: int, seed: int) -> Any:
        if ("sample", worlds, seed) not in known:
            known["sample", worlds, seed] = real_sample(task, worlds, seed=seed)
            keep()
        return known["sample", worlds, seed]

    proposing.admit_many, finals.reward_graph, search.sample_signals = admit_many, reward_graph, sample_signals


def _search(order: dict[str, Any]) -> int:
    folder, log = Path(order["folder"]), Path(order["log"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _remember_verdicts(Path(order["verdicts"]))
    if order.get("clock_s"):
        jumps, real_time = itertools.cycle(order["clock_s"]), time.time
        time.time = lambda: real_time() + next(jumps)
    disk.POLL_S = search_config._LOCK_WAIT_S = 0.05
    search.REPORT_PAUSE = search.GENERATION_PAUSE = 0.0  # every page is written, so that steps can be counted
    if order.get("without"):
        _leave_out(order["without"])
    if order.get("step"):
        act: Callable[[], None] = die
        if order.get("fill"):
            act = partial(fill_disk, Path(order["fill"]) / "filler")
        elif order.get("hold"):
            act = partial(hold, log.parent)
        steps = STEPS | RUNG_STEPS
        steps[order["step"]](Countdown(order.get("crossing", CROSSINGS.get(order["step"], 1)), act))
    if order.get("after_hold"):
        wait_for(log.parent / "held")
    if not (folder / search_config.CONFIG_FILE).exists():
        config = slider_config(**order.get("config", {}))
        search_config.start_folder(config, folder)
    designer = (PlainDesigner if order.get("plain") else PayingDesigner)(log)
    try:
        executor = LocalExecutor(2, 1) if order.get("workers") else WrittenExecutor(log)
        listener = Teller(log, order.get("moment"))
        search.run_search(folder, search_config.load_config(folder), designer, executor, listener)
    except KeyboardInterrupt:
        return INTERRUPTED
    except rl.record.UserError as error:
        note(log, "refused", str(error))
        return REFUSED
    return 0


class Teller(KillingListener):
    """Keeps what is said."""

    def __init__(self, log: Path, moment: str | None) -> None:
        super().__init__(moment)
        self.log = log

    def say(self, text: str) -> None:
        """A line for people."""
        note(self.log, "said", text)


def _child(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        code = _search(order)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        from rewards.sandbox import close_child

        close_child()
        if order.get("after_hold"):
            (Path(order["log"]).parent / "go").touch()
        os._exit(code)


def _wait(pid: int, order: dict[str, Any]) -> int:
    if "after_s" in order:
        deadline = None if "once" in order else time.monotonic() + order["after_s"]
        while deadline is None or time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if deadline is None and order["once"] in Path(order["log"]).read_text():
                deadline = time.monotonic() + order["after_s"]
            time.sleep(0.002)
        os.kill(pid, order.get("signal", signal.SIGKILL))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Serve orders, or pairs of orders that run at the same time, until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in report.page_environment().list_templates():
        report.page_environment().get_template(name)  # compiled once for all
    for line in sys.stdin:
        orders = json.loads(line)
        began = time.monotonic()
        pids = [_child(order) for order in orders]
        answer = []
        for pid, order in zip(pids, orders, strict=True):
            answer.append({"status": _wait(pid, order), "wall_s": time.monotonic() - began})
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
