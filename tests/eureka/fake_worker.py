"""Stands in for `python -m rl.worker` where a test is about processes: starts in 30 ms and behaves as its run id says.

`BEHAVIOUR[_more]` is the run id; FAKE_WORKER in the environment says it for all. Each start is a line in a file beside
the run folder, so that a test can count them. Standard library only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HOG_MB = 300
_SLEEP_S = 30.0


def main(folder: Path) -> int:
    """One start; returns the exit code."""
    request = json.loads((folder / "request.json").read_text())
    starts = starts_file(folder)
    with starts.open("a") as file:
        file.write(f"{os.getpid()} {request['attempt']}\n")
    behaviour = os.environ.get("FAKE_WORKER") or request["run_id"].partition("_")[0]
    return BEHAVIOURS[behaviour](folder, request, len(starts.read_text().split("\n")) - 1)


def starts_file(folder: Path) -> Path:
    """Where the starts of a run are counted; on the disk of temporary files, which a test does not fill."""
    return Path(os.environ["FAKE_STARTS"]) / f"{folder.name}.starts"


def finish(folder: Path, request: dict, status: str = "ok", **changes) -> int:
    """Write a result and exit as the worker does."""
    result = {
        "schema": 1,
        "run_id": request["run_id"],
        "candidate_id": request["candidate_id"],
        "attempt": request["attempt"],
        "status": status,
        "error": None,
        "fitness": 1.0 if status == "ok" else None,
        "fitness_std": 0.0 if status == "ok" else None,
    }
    (folder / "result.json").write_text(json.dumps(result | changes))
    return 0 if status == "ok" else 1


def failed(folder: Path, request: dict, kind: str, message: str, status: str = "error") -> int:
    return finish(folder, request, status, error={"type": kind, "message": message, "line": None})


def sleep() -> int:
    time.sleep(_SLEEP_S)
    return 1


def crash(folder: Path, request: dict, start: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 1


def crash_once(folder: Path, request: dict, start: int) -> int:
    return crash(folder, request, start) if start == 1 else finish(folder, request)


def device(folder: Path, request: dict, start: int) -> int:
    return failed(folder, request, "DeviceError", "AcceleratorError: CUDA error: an illegal memory access")


def device_once(folder: Path, request: dict, start: int) -> int:
    return device(folder, request, start) if start == 1 else finish(folder, request)


def reward(folder: Path, request: dict, start: int) -> int:
    return failed(folder, request, "ValueError", "the reward program failed", "reward_error")


def stale(folder: Path, request: dict, start: int) -> int:
    """What a worker of an earlier start, thought to be dead, might write."""
    return finish(folder, request, **({"attempt": "an earlier one", "fitness": -99.0} if start == 1 else {}))


def hang(folder: Path, request: dict, start: int) -> int:
    (folder / "progress").write_text("training 17")
    return sleep()


def stubborn(folder: Path, request: dict, start: int) -> int:
    """Takes no SIGTERM, and has a child in its group."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    (folder / "child.pid").write_text(str(child.pid))
    return sleep()


def stop(folder: Path, request: dict, start: int) -> int:
    """Stopped, as by a debugger, with the orderly end of the real worker."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(failed(folder, request, "Terminated", "terminated by SIGTERM")))
    if start == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
        sleep()
    return finish(folder, request)


def slow(folder: Path, request: dict, start: int) -> int:
    """Moves for four seconds."""
    for count in range(16):
        (folder / "progress").write_text(f"evaluation {count}")
        time.sleep(0.25)
    return finish(folder, request)


def hog(folder: Path, request: dict, start: int) -> int:
    """Takes memory in a child of its own."""
    code = f"import time; held = bytearray({HOG_MB} * 2**20); held[::4096] = bytes(len(held[::4096])); time.sleep(120)"
    subprocess.run([sys.executable, "-c", code], check=False)
    return 1


def sharing(folder: Path, request: dict, start: int) -> int:
    """Holds memory that three children share; twice the limit of `hog` is resident in all of them together."""
    held = bytearray(70 * 2**20)
    held[::4096] = bytes(len(held[::4096]))
    for _ in range(3):
        if not os.fork():
            time.sleep(_SLEEP_S)
            os._exit(0)
    time.sleep(1.5)
    return finish(folder, request)


def hog_itself(folder: Path, request: dict, start: int) -> int:
    """Takes memory until the kernel ends it."""
    held = bytearray(HOG_MB * 2**20)
    held[::4096] = bytes(len(held[::4096]))
    return sleep()


def fill(folder: Path, request: dict, start: int) -> int:
    """Writes half a megabyte."""
    try:
        with (folder / "model_000001.pt").open("wb") as file:
            file.write(bytes(500_000))
    except OSError:
        return 3
    return finish(folder, request)


BEHAVIOURS = {
    "ok": lambda folder, request, start: finish(folder, request),
    "crash": crash,
    "crashonce": crash_once,
    "device": device,
    "deviceonce": device_once,
    "reward": reward,
    "stale": stale,
    "hang": hang,
    "stubborn": stubborn,
    "stop": stop,
    "slow": slow,
    "hog": hog,
    "sharing": sharing,
    "hogitself": hog_itself,
    "fill": fill,
}

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
