"""The folder `best/` of a search: the winning program, its policy, and a video of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from eureka.archive import Run
from eureka.candidate import Candidate
from rl.checkpoint import load_policy
from rl.record import read_json, write_atomic, write_json_atomic
from rl.video import record_video
from tasks.errors import UserError
from tasks.task import Task

VIDEO_SEED = 900_001  # an episode that neither training nor any evaluation has seen


def keep_best(
    folder: Path, task: Task, winner: Candidate, runs: list[Run], video: bool, say: Callable[[str], None]
) -> None:
    """Fill `best/`: reward.py, the checkpoint of the best of its runs with its meta file, and video.mp4.

    Args:
        folder: The search folder.
        task: Its task.
        winner: The candidate whose program it is.
        runs: Finished trainings of that program, best first; may be empty.
        video: Whether to film the policy. Without a renderer one line is said and nothing fails.
        say: Takes a line for people.
    """
    place = folder / "best"
    place.mkdir(exist_ok=True)
    write_atomic(place / "reward.py", (winner.source or "").encode())
    run = next((run for run in runs if run.result.get("checkpoint")), None)
    if run is None:
        return
    checkpoint = folder / run.folder / run.result["checkpoint"]
    chosen = {"candidate_id": winner.candidate_id, "run_id": run.run_id, "fitness": run.fitness, "filmed": False}
    if _kept(place) == {**chosen, "filmed": True}:
        return
    shutil.copyfile(checkpoint, place / "model.pt")
    shutil.copyfile(checkpoint.with_suffix(".json"), place / "model.json")
    if video:
        policy = load_policy(place / "model.pt", task)
        chosen["filmed"] = record_video(task, policy, place / "video.mp4", seed=VIDEO_SEED, say=say) is not None
    write_json_atomic(place / "best.json", chosen)


def _kept(place: Path) -> dict | None:
    try:
        return read_json(place / "best.json")
    except UserError:
        return None
