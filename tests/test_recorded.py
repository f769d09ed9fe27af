"""Recorded searches: every kept reply still passes the gate as it did, and `replay` feeds them to a real search."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from eureka.archive import Archive
from eureka.designers.base import DesignerConfig
from eureka.designers.create import create
from eureka.designers.replay import read_replies
from eureka.named_reward import find_reward
from eureka.search import run_search
from eureka.search_config import SearchConfig, start_folder
from rewards.gate import admit_many
from tasks.env import sample_signals
from tasks.errors import UserError
from tasks.registry import make
from tests.eureka.in_process import InProcessExecutor

RECORDED = Path(__file__).parents[1] / "examples" / "recorded"
NAMES = ("ant-run", "quadcopter-hover")


@pytest.mark.parametrize("name", NAMES)
def test_recorded_replies_pass_the_gate(name):
    """The last reply of each candidate is accepted, and was written for at least 3 generations of at least 4 samples."""
    task = make(name)
    replies = read_replies(RECORDED / name)
    last = {ask_id.rpartition("_r")[0]: reply for ask_id, reply in sorted(replies.items())}
    assert len(last) >= 12
    assert {candidate[:3] for candidate in last} >= {"g01", "g02", "g03"}
    samples = [sample_signals(task, worlds, seed=worlds) for worlds in (16, 32)]
    verdicts = admit_many([reply.text or "" for reply in last.values()], task.signal_table, samples)
    results = json.loads((RECORDED / name / "results.json").read_text())
    refused = {c["candidate_id"] for c in results["candidates"] if c["status"] == "refused"}
    assert {c for c, verdict in zip(last, verdicts, strict=True) if not verdict.accepted} == refused


def test_a_recording_is_replayed(tmp_path):
    """A short search fed by the recording trains the recorded programs, each under its own id."""
    name = "quadcopter-hover"
    config = SearchConfig(
        task=name,
        samples=2,
        generations=1,
        final_seeds=0,
        video=False,
        train={"iterations": 1, "num_envs": 16, "eval_episodes": 4},
        designer=DesignerConfig(designer="replay", replay_from=RECORDED / name),
    )
    folder = start_folder(config, tmp_path / "replayed")
    designer = create(config.designer, search_dir=folder, task_name=name)
    designer.check()
    run_search(folder, config, designer, InProcessExecutor())
    archive = Archive(folder / "search.db", create=False)
    recorded = read_replies(RECORDED / name)
    for candidate in archive.candidates():
        reply = recorded[f"{candidate.candidate_id}_r{candidate.repairs}"]
        assert candidate.source is not None and reply.text is not None
        assert candidate.source.strip() in reply.text
        assert str(candidate.status) == "trained"
    archive.close()


def test_the_best_of_a_recording_is_a_reward_by_name(tmp_path):
    """The program of the candidate with the highest fitness, taken out of its reply; nothing is searched."""
    name = "quadcopter-hover"
    results = json.loads((RECORDED / name / "results.json").read_text())
    best = max((c for c in results["candidates"] if c["fitness"] is not None), key=lambda c: c["fitness"])
    found = find_reward(str(RECORDED / name), make(name), name)
    assert found.sha256 == best["sha256"]
    assert found.origin.endswith(f"{name}:{best['candidate_id']}")
    with pytest.raises(UserError, match=f"is of task '{name}', not of 'ant-run'"):
        find_reward(str(RECORDED / name), make("ant-run"), "ant-run")
    copy = shutil.copytree(RECORDED / name, tmp_path / "copy")
    (copy / "replies" / f"{best['candidate_id']}_r{best['repairs']}.md").unlink()
    with pytest.raises(UserError, match="lacks the reply"):
        find_reward(str(copy), make(name), name)
    (copy / "results.json").unlink()
    with pytest.raises(UserError, match="names no scored reward"):
        find_reward(str(copy), make(name), name)
