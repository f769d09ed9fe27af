"""Programs that compute the same train once, and share what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eureka.archive import Archive
from eureka.candidate import Candidate
from eureka.designers.base import Ask, Reply
from eureka.search import run_search
from eureka.search_config import load_config, start_folder
from tests.eureka.scripted import slider_config
from tests.eureka.test_confirm import TableExecutor

NEAR = """import torch
# pulls to the middle
def compute_reward(mass_position):
    near = torch.exp(-torch.square(mass_position[:, 0]))
    return near, {"near": near}
"""
NEAR_IN_OTHER_WORDS = '''from torch import Tensor, exp
def kernel(x: Tensor) -> Tensor:
    """The same."""
    return exp(-x.square())
def compute_reward(mass_velocity: Tensor, mass_position: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    unused = mass_velocity * 3.0
    place = mass_position[:, 0]
    return kernel(place), {"near": kernel(place)}
'''
WIDER = NEAR.replace("torch.exp(-", "torch.exp(-0.5 * ")
PROGRAMS = {
    "g01_c00": NEAR,
    "g01_c01": WIDER,
    "g01_c02": NEAR_IN_OTHER_WORDS,
    "g02_c00": WIDER.replace("near", "close"),  # a component of another name: other statistics, so another graph
    "g02_c01": NEAR_IN_OTHER_WORDS,
    "g02_c02": WIDER.replace("near =", "n =").replace("return near", "return n").replace(": near", ": n"),
}


class Author:
    """Answers with the table's programs."""

    name = "author"

    def check(self) -> None:
        """Nothing to check."""

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """See the class."""
        for ask in asks:
            on_reply(Reply(ask.ask_id, f"```python\n{PROGRAMS[ask.candidate_id]}```", "ok", "author"))


def found(tmp_path, executor: TableExecutor, **changes) -> dict[str, Candidate]:
    """The candidates of a search with these programs."""
    folder = start_folder(slider_config(samples=3, final_seeds=0, **changes), tmp_path / "search")
    run_search(folder, load_config(folder), Author(), executor)
    archive = Archive(folder / "search.db", create=False)
    candidates = {c.candidate_id: c for c in archive.candidates()}
    archive.close()
    return candidates


def test_equal_graphs_train_once(tmp_path):
    """Other names, order, helpers and dead code make no other reward; another constant or component name does."""
    executor = TableExecutor()
    candidates = found(tmp_path, executor)
    assert sorted(executor.ran) == ["g01_c00_s0", "g01_c01_s0", "g02_c00_s0"]
    assert {name: c.equal_to for name, c in candidates.items()} == {
        "g01_c00": None,
        "g01_c01": None,
        "g01_c02": "g01_c00",
        "g02_c00": None,
        "g02_c01": "g01_c00",
        "g02_c02": "g01_c01",
    }
    for twin in ("g01_c02", "g02_c01"):
        assert candidates[twin].fitness == candidates["g01_c00"].fitness == 10.0
        assert candidates[twin].source == PROGRAMS[twin]


def test_a_twin_falls_with_the_one_that_is_confirmed(tmp_path):
    """Further seeds show that the leader was lucky; its twin does not lead in its place, and costs nothing."""
    executor = TableExecutor()
    candidates = found(tmp_path, executor, confirm=1, confirm_seeds=2)
    assert {candidates[name].fitness for name in ("g01_c00", "g01_c02", "g02_c01")} == {4.0}
    assert {candidates[name].seeds for name in ("g01_c00", "g01_c02", "g02_c01")} == {3}
    assert {c.parent_id for c in candidates.values() if c.generation == 2} == {"g01_c01"}
    assert not [name for name in executor.ran if name.startswith(("g01_c02", "g02_c01", "g02_c02"))]


def test_the_twin_of_a_reward_that_fails_fails_and_that_of_a_broken_worker_trains(tmp_path):
    """A reward that is not finite stays so in its twin; a worker that died says nothing about it."""

    class Failing(TableExecutor):
        def result_of(self, request):
            result = super().result_of(request)
            failures = {"g01_c00": "nonfinite_reward", "g01_c01": "error"}
            if request.candidate_id in failures:
                result |= {"status": failures[request.candidate_id], "fitness": None, "error": {"message": "broken"}}
            return result

    executor = Failing()
    candidates = found(tmp_path, executor)
    assert "g01_c02_s0" not in executor.ran
    assert candidates["g01_c02"].stage == "nonfinite_reward"
    assert "g02_c02_s0" in executor.ran
    assert candidates["g02_c02"].fitness == 1.0
