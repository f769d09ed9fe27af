"""The whole search on the smallest task: ids, elitism, failures, finals, replay. Trainings run in this process;
`test_search_killed` has real workers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eureka.archive import Archive
from eureka.candidate import Status
from eureka.designers.base import DesignerConfig
from eureka.designers.create import create
from eureka.executors.local import LocalExecutor
from eureka.search import run_search
from eureka.search_config import load_config, start_folder
from eureka.training import Training, finished_result
from rl.record import read_metrics, read_request
from tasks.errors import UserError
from tests.eureka.in_process import InProcessExecutor
from tests.eureka.scripted import KillingListener, ScriptedDesigner, component_of, facts, slider_config


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, ScriptedDesigner]:
    """A finished search of two generations of three samples; c01 needs a repair, g02_c01 stays broken."""
    folder = start_folder(slider_config(samples=3), tmp_path_factory.mktemp("search") / "whole")
    designer = ScriptedDesigner(never_mended=("g02_c01",))
    run_search(folder, load_config(folder), designer, InProcessExecutor())
    return folder, designer


def test_every_result_belongs_to_its_reply(undisturbed):
    """With replies out of order and a broken one in the middle, each training is of its own candidate's program."""
    folder, _ = undisturbed
    archive = Archive(folder / "search.db", create=False)
    trained = [c for c in archive.candidates() if c.status is Status.TRAINED]
    assert [c.candidate_id for c in trained] == ["g01_c00", "g01_c01", "g01_c02", "g02_c00", "g02_c02"]
    for candidate in trained:
        name = component_of(candidate.candidate_id)
        assert candidate.source is not None and name in candidate.source
        run_dir = folder / "candidates" / candidate.candidate_id / "s0"
        assert name in read_metrics(run_dir / "metrics.jsonl")[-1]["components"]
        result = json.loads((run_dir / "result.json").read_text())
        assert result["candidate_id"] == candidate.candidate_id
        assert result["fitness"] == candidate.fitness
    archive.close()


def test_a_program_that_stays_broken_has_its_error_and_no_score(undisturbed):
    """The gate's words are kept, with the line and the hint; no number stands for the failure."""
    folder, designer = undisturbed
    archive = Archive(folder / "search.db", create=False)
    broken = next(c for c in archive.candidates() if c.candidate_id == "g02_c01")
    assert broken.status is Status.REFUSED
    assert broken.fitness is None
    assert broken.repairs == 1
    assert broken.error is not None and "mass_position" in broken.error
    repair = next(ask for ask in designer.asked if ask.ask_id == "g02_c01_r1")
    assert any("mass_position" in message.content for message in repair.messages[-1:])
    archive.close()


def test_the_next_generation_is_told_of_the_best_so_far(undisturbed):
    """The prompt of generation 2 carries the best program and its reflection, and names it as the parent."""
    folder, designer = undisturbed
    archive = Archive(folder / "search.db", create=False)
    first = [c for c in archive.candidates(1) if c.fitness is not None]
    parent = max(first, key=lambda c: c.fitness)
    ask = next(ask for ask in designer.asked if ask.ask_id == "g02_c00_r0")
    prompt = ask.messages[-1].content
    assert component_of(parent.candidate_id) in prompt
    assert parent.reflection is not None and parent.reflection.splitlines()[0] in prompt
    assert {c.parent_id for c in archive.candidates(2)} == {parent.candidate_id}
    archive.close()


def test_prompts_hold_neither_the_fitness_nor_the_baselines(undisturbed):
    """No line of the fitness code, of its description or of the human reward is in any prompt of the search."""
    _, designer = undisturbed
    prompts = "\n".join(message.content for ask in designer.asked for message in ask.messages)
    for hidden in (
        "Hidden from designers",
        "minus the mean distance",
        "def fitness",
        "position_l2",
        "quadratic",
    ):
        assert hidden not in prompts


def test_finals_use_fresh_seeds_and_the_same_budget(undisturbed):
    """Best, human and sparse are trained on one seed no candidate had, with the candidates' configuration."""
    folder, _ = undisturbed
    archive = Archive(folder / "search.db", create=False)
    runs = {run.role: run for run in archive.runs() if run.role != "candidate"}
    assert set(runs) == {"final", "human", "sparse"}
    assert {run.seed for run in runs.values()} == {1000}
    candidate = json.loads((folder / "candidates/g01_c00/s0/request.json").read_text())
    for run in runs.values():
        request = json.loads((folder / run.folder / "request.json").read_text())
        assert request["config"] == candidate["config"]
        assert request["eval_seed"] != candidate["eval_seed"]
    assert (folder / "best" / "reward.py").read_text() == archive.best().source
    assert (folder / "report.html").stat().st_size > 5000
    archive.close()


def test_a_second_search_takes_the_baselines_from_the_first(undisturbed, tmp_path):
    """Human and sparse trainings of equal budget are not repeated: their results are the very same files."""
    folder, _ = undisturbed
    again = start_folder(slider_config(samples=1, generations=1), folder.parent / "again")
    run_search(again, load_config(again), ScriptedDesigner(), InProcessExecutor())
    for role in ("human", "sparse"):
        name = f"final/{role}_s1000/result.json"
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_evolution_searches_without_any_model(tmp_path):
    """The default designer without a key gets from prompts to a scored best."""
    config = slider_config(samples=2, generations=1, final_seeds=0)
    folder = start_folder(config, tmp_path / "evolved")
    designer = create(config.designer, search_dir=folder)
    result = run_search(folder, config, designer, InProcessExecutor())
    assert result.best is not None and result.best.fitness is not None
    assert result.normalised is None


def test_a_finished_search_can_be_replayed_without_its_designer(undisturbed, tmp_path):
    """Replies fed back from the archive give the same candidates and the same fitness."""
    folder, _ = undisturbed
    config = slider_config(samples=3, designer=DesignerConfig(designer="replay", replay_from=folder))
    again = start_folder(config, tmp_path / "replayed")
    designer = create(config.designer, search_dir=again, task_name=config.task)
    designer.check()
    run_search(again, config, designer, InProcessExecutor())
    assert facts(again)["candidates"] == facts(folder)["candidates"]


def test_a_worker_that_was_told_to_end_is_no_failure(undisturbed):
    """After Ctrl-C a training counts as not done, so a resume trains it; any other failure counts as done."""
    folder, _ = undisturbed
    run_dir = folder / "candidates" / "g01_c00" / "s0"
    training = Training(read_request(run_dir), run_dir)
    assert finished_result(training) is not None
    before = (run_dir / "result.json").read_text()
    try:
        for kind, done in (("Terminated", False), ("NonFiniteReward", True)):
            result = {**json.loads(before), "status": "error", "error": {"type": kind, "message": "", "line": None}}
            (run_dir / "result.json").write_text(json.dumps(result))
            assert (finished_result(training) is not None) is done
    finally:
        (run_dir / "result.json").write_text(before)


def test_a_damaged_database_is_left_alone(tmp_path):
    """One line says so; not a byte of the file changes."""
    config = slider_config()
    folder = start_folder(config, tmp_path / "damaged")
    (folder / "search.db").write_bytes(b"SQLite format 3\x00" + b"\x07" * 5000)
    before = (folder / "search.db").read_bytes()
    with pytest.raises(UserError, match=r"search\.db"):
        run_search(folder, config, ScriptedDesigner(), LocalExecutor(1, 1))
    assert (folder / "search.db").read_bytes() == before


def test_two_searches_on_one_folder_are_refused(tmp_path):
    """The second says that the first is running."""
    from eureka.search_config import locked

    config = slider_config()
    folder = start_folder(config, tmp_path / "shared")
    with locked(folder), pytest.raises(UserError, match="another search"):
        run_search(folder, config, ScriptedDesigner(), LocalExecutor(1, 1), KillingListener(None))
