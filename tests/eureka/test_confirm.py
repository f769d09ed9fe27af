"""Leaders are trained on further seeds before one of them is called best: a lucky one does not stay ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eureka.archive import Archive
from eureka.candidate import Candidate, Status
from eureka.executors.base import Ended, Job
from eureka.search import run_search
from eureka.search_config import load_config, start_folder
from eureka.settling import settle, unconfirmed
from rl.record import TrainRequest, make_result, read_request, write_json_atomic
from tasks.errors import UserError
from tests.eureka.scripted import ScriptedDesigner, slider_config

# Fitness by candidate and seed, as a training would measure it.
LUCKY = {
    "g01_c00": (10.0, 1.0, 1.0),
    "g01_c01": (5.0, 6.0, 4.0),
    "g01_c02": (4.0, 9.0, 9.0),
    "g02_c00": (4.9, 0.0, 0.0),
    "g02_c01": (7.0, 7.0, 7.0),
    "g02_c02": (1.0, 1.0, 1.0),
}


class TableExecutor:
    """Writes the result that a table says for a request; interrupts the search at the job `stop_at`."""

    slots, threads_per_slot = 1, 1

    def __init__(self, stop_at: str | None = None) -> None:
        self.stop_at = stop_at
        self.ran: list[str] = []
        self._jobs: list[Job] = []

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def running(self) -> tuple[str, ...]:
        return ()

    def cancel_all(self) -> None:
        self._jobs.clear()

    def wait(self, timeout_s: float) -> list[Ended]:
        job = self._jobs.pop(0)
        if job.run_id == self.stop_at:
            raise KeyboardInterrupt
        write_json_atomic(job.run_dir / "result.json", self.result_of(read_request(job.run_dir)))
        self.ran.append(job.run_id)
        return [Ended(job.run_id, "finished", 0, "")]

    def result_of(self, request: TrainRequest) -> dict[str, Any]:
        """What the table says, as a worker writes it."""
        fitness = LUCKY[str(request.candidate_id)][request.seed]
        return make_result(request, "ok", fitness=fitness, fitness_std=0.5, fitness_unit="m")


def search(folder: Path, executor: TableExecutor, **changes) -> tuple[Candidate, list[Candidate], ScriptedDesigner]:
    """Run or resume a search over the table; its best, all candidates and the designer with what it was asked."""
    if not (folder / "search.json").exists():
        start_folder(slider_config(samples=3, final_seeds=0, **changes), folder)
    designer = ScriptedDesigner()
    result = run_search(folder, load_config(folder), designer, executor)
    archive = Archive(folder / "search.db", create=False)
    candidates = archive.candidates()
    archive.close()
    assert result.best is not None
    return result.best, candidates, designer


def test_without_confirmation_the_lucky_one_wins(tmp_path):
    """One training each, and the first figure is believed."""
    executor = TableExecutor()
    best, candidates, _ = search(tmp_path / "s", executor)
    assert best.candidate_id == "g01_c00"
    assert len(executor.ran) == 6
    assert [c.seeds for c in candidates] == [1] * 6


def test_a_lucky_leader_is_found_out_and_the_next_one_is_confirmed_too(tmp_path):
    """c00 falls from 10 to 4, so c01 leads and is confirmed at 5; generation 2 descends from it. Only leaders cost."""
    executor = TableExecutor()
    best, candidates, designer = search(tmp_path / "s", executor, confirm=1, confirm_seeds=2)
    by_id = {c.candidate_id: c for c in candidates}
    assert (by_id["g01_c00"].fitness, by_id["g01_c00"].seeds) == (4.0, 3)
    assert (by_id["g01_c01"].fitness, by_id["g01_c01"].seeds) == (5.0, 3)
    assert by_id["g01_c01"].fitness_std == pytest.approx(1.0)
    assert {c.parent_id for c in candidates if c.generation == 2} == {"g01_c01"}
    assert (best.candidate_id, best.fitness, best.seeds) == ("g02_c01", 7.0, 3)
    further = [name for name in executor.ran if not name.endswith("_s0")]
    assert sorted(further) == sorted(f"{c}_s{s}" for c in ("g01_c00", "g01_c01", "g02_c01") for s in (1, 2))
    assert len(set(executor.ran)) == len(executor.ran), "no training is run twice"
    prompt = next(ask for ask in designer.asked if ask.ask_id == "g02_c00_r0").messages[-1].content
    assert "Trained 3 times with other random seeds: 5, 6, 4; mean 5 m, standard deviation 1" in prompt
    assert "g01_c00: fitness 4 +- 5.2 over 3 trainings" in prompt


def test_an_interrupted_confirmation_goes_on_where_it_was(tmp_path):
    """After an interrupt between two further seeds, the resumed search runs what is missing and ends equal."""
    whole = TableExecutor()
    _, wanted, _ = search(tmp_path / "whole", whole, confirm=2, confirm_seeds=2)
    for stop_at in ("g01_c00_s2", "g01_c01_s1", "g02_c01_s1"):
        folder = tmp_path / stop_at
        first, second = TableExecutor(stop_at), TableExecutor()
        with pytest.raises(KeyboardInterrupt):
            search(folder, first, confirm=2, confirm_seeds=2)
        _, found, _ = search(folder, second)
        assert sorted(first.ran + second.ran) == sorted(whole.ran)
        assert [(c.candidate_id, c.fitness, c.seeds, c.parent_id) for c in found] == [
            (c.candidate_id, c.fitness, c.seeds, c.parent_id) for c in wanted
        ]


def test_a_leader_whose_further_training_fails_has_no_fitness(tmp_path):
    """One of three seeds is not finite: the candidate is a failure, as it would be with three seeds at once."""
    ok = {"status": "ok", "fitness": 3.0, "fitness_std": 0.1, "run_dir": tmp_path}
    bad = {"status": "nonfinite_reward", "fitness": None, "error": {"message": "nan"}, "run_dir": tmp_path}
    failed = settle(Candidate("g01_c00", 1, 0, status=Status.TRAINED, fitness=3.0), [ok, bad, ok])
    assert failed.status is Status.FAILED
    assert not failed.scored
    assert unconfirmed([failed], 1, 3) == []


@pytest.mark.parametrize("bad", [{"confirm": -1}, {"confirm_seeds": 0}, {"confirm": True}])
def test_bad_numbers_are_refused(bad):
    """One line that names the setting."""
    with pytest.raises(UserError, match="confirm"):
        slider_config(**bad)
