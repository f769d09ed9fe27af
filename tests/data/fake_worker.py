"""A worker that trains nothing: `python fake_worker.py RUN_DIR`. It does what the request's reward says, a JSON text
{"do": ..., "log": FILE}, and leaves a line of facts about its start in FILE. Standard library only, so that it starts
in milliseconds.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

run_dir = Path(sys.argv[1])
request = json.loads((run_dir / "request.json").read_text())
told = json.loads(request["reward"])
log = Path(told["log"])
earlier = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
first = not any(start["run_id"] == request["run_id"] for start in earlier)
facts = {
    "run_id": request["run_id"],
    "pid": os.getpid(),
    "parent": os.getppid(),
    "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
    "threads": os.environ.get("OMP_NUM_THREADS"),
    "folder": str(run_dir),
    "time": time.time(),
}


def note(**more):
    with log.open("a") as file:
        file.write(json.dumps({**facts, **more}) + "\n")


def finish(fitness=1.0, **more):
    result = {"schema": 1, "run_id": request["run_id"], "candidate_id": request.get("candidate_id"), "status": "ok",
              "attempt": request.get("attempt", ""), "error": None, "fitness": fitness, "fitness_std": 0.0}  # fmt: skip
    (run_dir / "result.json").write_text(json.dumps({**result, **more}))


def end_politely(number, frame):
    finish(status="error", fitness=None, error={"type": "Terminated", "message": "asked to end", "line": None})
    sys.exit(1)


def train(seconds):
    with (run_dir / "metrics.jsonl").open("a") as metrics:
        for iteration in range(1, int(seconds / 0.1) + 1):
            metrics.write(json.dumps({"iteration": iteration, "fitness": 0.5}) + "\n")
            metrics.flush()
            (run_dir / "progress").write_text(f"training {iteration}".ljust(39) + "\n")
            time.sleep(0.1)


do = told["do"]
if do == "environ":
    note(environ=dict(os.environ))
    finish()
elif do == "family":
    child = subprocess.Popen(["sleep", "300"])
    note(child=child.pid)
    finish()
else:
    note()
if do == "exit":
    sys.exit("the task is not installed")
elif do == "full":
    finish(status="disk_full", fitness=None)
    sys.exit(3)
elif do == "train":
    train(told["seconds"] if first else 0.2)
    finish()
elif do == "die first":
    if first:
        finish(fitness=-1.0, attempt="of another start")  # one that must not be taken
        os.kill(os.getpid(), signal.SIGKILL)
    finish(fitness=2.0)
elif do == "hang":
    (run_dir / "metrics.jsonl").write_text('{"iteration": 1, "fitness": 0.5}\n')
    time.sleep(300)
elif do == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(300)
elif do == "polite":
    signal.signal(signal.SIGTERM, end_politely)
    time.sleep(300)
elif do == "memory":
    block = bytearray(os.urandom(1)) * 400_000_000
    time.sleep(300)
elif do == "links":
    (run_dir / "model_secret.pt").symlink_to(told["secret"])
    os.mkfifo(run_dir / "pipe")
    (run_dir / "folder").mkdir()
    (run_dir / "attempts.json").write_text("[1]")
    (run_dir / "odd name").write_text("x")
    finish()
elif do == "large":
    (run_dir / "large.bin").write_bytes(b"x" * told["bytes"])
    finish()
