"""The process that measures fitness: equal numbers, no reward in it, confined, and what happens when it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rl import train
from rl.checkpoint import load_policy
from rl.evaluate import evaluate
from rl.evaluator import Evaluator, EvaluatorDied, can_fork
from rl.record import RESULT, write_request
from tasks import registry
from tests.rl.conftest import SLIDER

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")

# A task whose fitness looks for what it should not find. It is computed in the training too, for the curves.
LOOKING = """

import gc
import os
from pathlib import Path


class Looking(Slider):
    name = "looking"
    fitness_failed = 0.0

    def fitness(self, signals):
        if os.getpid() not in SEEN:
            kinds = {type(thing).__name__ for thing in gc.get_objects()} & {"RewardFunction", "TrainRequest"}
            own = tried(lambda: Path(os.environ["OWN"]).write_text(" ".join(sorted(kinds))))
            outside = tried(lambda: Path(os.environ["OUTSIDE"]).read_text())
            SEEN[os.getpid()] = len(kinds) + 10 * outside + 100 * own
        return super().fitness(signals) * 0 - SEEN[os.getpid()]


SEEN = {}


def tried(attack):
    try:
        attack()
    except OSError:
        return False
    return True
"""


def test_the_fitness_is_measured_where_there_is_no_reward(make_request, tmp_path):
    """A whole worker, that traces its reward: the training holds it and writes its folder; the evaluating process does
    neither."""
    (tmp_path / "outside").write_text("canary")
    task, run_dir = tmp_path / "task" / "looking.py", tmp_path / "run"
    task.parent.mkdir()
    task.write_text(Path(SLIDER).read_text() + LOOKING)
    request = make_request({"iterations": 3, "eval_episodes": 4, "num_envs": 128}, task=f"{task}:Looking")
    write_request(request, run_dir)
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    environment |= {"OUTSIDE": str(tmp_path / "outside"), "OWN": str(run_dir / "own")}
    words = [sys.executable, "-m", "rl.worker", str(run_dir)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads((run_dir / RESULT).read_text())
    assert (run_dir / "own").read_text() == "RewardFunction TrainRequest", "the training holds both, and may write"
    assert result["fitness"] == 0.0
    assert result["eval"]["episodes"] == 4


def test_its_numbers_are_those_of_an_evaluation_here(make_request, graph, tmp_path):
    """Bit for bit, through JSON. A whole worker that has nothing to say, since this process has threads."""
    request = make_request({"iterations": 2}, reward_graph=graph)
    here = train.train(request, tmp_path / "here")
    write_request(request, tmp_path / "there")
    words = [sys.executable, "-m", "rl.worker", str(tmp_path / "there")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    there = json.loads((tmp_path / "there" / RESULT).read_text())
    assert (there["status"], there["run_id"], there["candidate_id"]) == ("ok", "run", "g01_c00")
    for name in ("fitness", "fitness_std", "eval", "checkpoint"):
        assert there[name] == here[name]
    policy = load_policy(tmp_path / "there" / there["checkpoint"])
    again = evaluate(registry.make(request.task), policy, episodes=8, seed=1001, num_threads=1)
    assert again.fitness == there["fitness"]


# In a process of its own, before anything has started threads: how the evaluating process may fail, one after the other.
FAILING = """
import os, signal
from pathlib import Path
from rl.evaluator import Evaluator, EvaluatorDied
from tasks.errors import UserError

def confine(how, task):
    if how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raises":
        raise ZeroDivisionError("in the middle")
    if how == "refuses":
        raise UserError("a layer is missing")

for how in ("dies", "raises", "refuses", "works"):
    evaluator = Evaluator(lambda task: confine(how, task))
    evaluator.prepare("cartpole-balance")
    try:
        evaluator.evaluate(Path("nowhere.pt"), episodes=1, seed=0, num_threads=1, matmul_precision="high")
    except (UserError, RuntimeError) as error:
        print(f"{how}: {type(error).__name__}: {error}", flush=True)
    evaluator.close()
"""


def test_its_failures_arrive():
    words = [sys.executable, "-c", FAILING]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "dies: EvaluatorDied: the evaluating process ended with -9, without an answer",
        "raises: RuntimeError: ZeroDivisionError: in the middle",
        "refuses: UserError: a layer is missing",
        f"works: UserError: {ROOT / 'nowhere.pt'}: no such checkpoint.",
    ]


def test_a_process_with_threads_is_not_forked():
    """Its threads would not be there in the fork, with all the locks that they hold."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        assert not can_fork()
    finally:
        over.set()
        thread.join()


def test_a_training_asks_the_process_for_the_last_checkpoint(make_request, tmp_path):
    """The training hands over the path and its settings, nothing else; an evaluator that died fails the training."""
    asked = []

    class Dead(Evaluator):
        def __init__(self) -> None:
            pass

        def evaluate(self, checkpoint, **settings):
            asked.append((checkpoint.name, settings))
            raise EvaluatorDied("killed")

    request = make_request({"iterations": 2})
    with pytest.raises(EvaluatorDied):
        train.train(request, tmp_path, evaluator=Dead())
    precision = request.config.matmul_precision
    settings = {"episodes": 8, "seed": 1001, "num_threads": 1, "matmul_precision": precision}
    assert asked == [("model_000002.pt", settings)]
