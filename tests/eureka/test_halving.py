"""Successive halving: what a rung stops, what that costs, and that a fitness at a rung ranks nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from eureka import prompts
from eureka.archive import Archive
from eureka.candidate import Candidate, Status, ranked
from eureka.designers.replay import recorded_settings
from eureka.halving import Rung, announced, decide, flat, rungs, spent
from eureka.integrity import examine
from eureka.report import write_report
from eureka.search import run_search
from eureka.search_config import load_config, start_folder
from rl.record import make_result
from tasks.errors import UserError
from tests.eureka.scripted import ScriptedDesigner, slider_config
from tests.eureka.test_confirm import TableExecutor

ANT = Path(__file__).parents[2] / "examples" / "recorded" / "ant-run"
FIRST, WHOLE = Rung(1, 30, 0), 120


def test_the_parts_of_a_training():
    """A quarter, a half, the whole: rounded up, each once, each where the one before ended."""
    assert rungs(150, True) == (Rung(1, 38, 0), Rung(2, 75, 38), Rung(3, 150, 75))
    assert rungs(2, True) == (Rung(1, 1, 0), Rung(2, 2, 1))
    assert rungs(1, True) == (Rung(1, 1, 0),)
    assert rungs(150, False) == (Rung(1, 150, 0),)
    assert "after 38 and after 75 rollouts" in announced(rungs(150, True))
    assert announced(rungs(150, False)) == ""


@pytest.mark.parametrize("samples", [2, 5, 6, 7, 8, 16])
def test_halving_costs_at_most_half(samples, tmp_path):
    """By the rule itself: the better half, rounded down, goes on; 5 candidates cost 5/4 + 2/4 + 1/2 trainings."""
    going_on, cost, start = candidates_of(range(samples)), 0, 0
    for rung in rungs(WHOLE, True)[:-1]:
        cost += len(going_on) * (rung.iterations - start)
        start = rung.iterations
        results = {c.candidate_id: [result(tmp_path, c.candidate_id, float(c.index))] for c in going_on}
        going_on = [c for c in decide(going_on, results, rung, WHOLE) if c.status is Status.TRAINING]
    cost += len(going_on) * (WHOLE - start)
    assert [c.index for c in going_on][-1] == samples - 1, "the best went on"
    assert cost <= samples * WHOLE / 2 + (samples == 2) * WHOLE / 4
    if samples == 5:
        assert cost == (5 / 4 + 2 / 4 + 1 / 2) * WHOLE


def candidates_of(indices: Any) -> list[Candidate]:
    return [Candidate(f"g01_c{i:02d}", 1, i, status=Status.TRAINING, source="x") for i in indices]


def result(folder: Path, name: str, fitness: float | None, curve: list[float] | None = None, **more: Any) -> dict:
    """A result and, with a curve, the metrics of its training."""
    run_dir = folder / name
    run_dir.mkdir(exist_ok=True)
    lines = [{"iteration": i + 1, "fitness": value, "components": {}} for i, value in enumerate(curve or [])]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status = "ok" if fitness is not None else "nonfinite_reward"
    told = {"run_id": f"{name}_s0_rung1", "status": status, "fitness": fitness, "fitness_std": 0.1, "error": None}
    return {**told, "run_dir": run_dir, **more}


def test_a_rung_stops_the_worse_half_and_counts_failures_in_it(tmp_path):
    """Of five, one failed and one is no number; two go on, and nobody has a fitness that could be ranked."""
    fitness = {"g01_c00": 1.0, "g01_c01": 3.0, "g01_c02": None, "g01_c03": math.nan, "g01_c04": 2.0}
    results = {name: [result(tmp_path, name, value)] for name, value in fitness.items()}
    after = {c.candidate_id: c for c in decide(candidates_of(range(5)), results, FIRST, WHOLE)}
    assert [str(c.status) for c in after.values()] == ["eliminated", "training", "failed", "eliminated", "training"]
    assert ranked(after.values()) == []
    assert {c.rung for c in after.values()} == {1}
    stopped = after["g01_c00"]
    assert (stopped.fitness, stopped.rung_fitness, stopped.seeds) == (None, 1.0, 0)
    assert stopped.error == (
        "stopped after 30 of 120 iterations: held-out fitness 1 there was number 3 of 5, in the worse half; 2 went on"
    )
    assert "nan there is no number" in str(after["g01_c03"].error)
    assert after["g01_c02"].rung_fitness is None


def test_what_no_longer_rises_and_is_low_is_stopped_in_the_better_half(tmp_path):
    """Of eight, four are better; c05 is flat and below the middle of the range (0..10), c04 is as low and rises, c07 leads
    and is flat."""
    rising, level = [i / 30 for i in range(30)], [1.0 + 0.01 * (i % 2) for i in range(30)]
    told = {0: 0.0, 1: 0.1, 2: 0.2, 3: 0.3, 4: 4.1, 5: 4.2, 6: 9.0, 7: 10.0}
    curves = {4: rising, 5: level, 6: level, 7: level}
    results = {f"g01_c{i:02d}": [result(tmp_path, f"g01_c{i:02d}", f, curves.get(i))] for i, f in told.items()}
    after = decide(candidates_of(range(8)), results, FIRST, WHOLE)
    assert [c.index for c in after if c.status is Status.TRAINING] == [4, 6, 7]
    assert "low, and it no longer rose" in str(after[5].error)


def test_a_curve_is_flat_by_its_last_thirds(tmp_path):
    """It rose at first and stays: flat. It rises at the end: not. Too short to tell, or without episodes: not."""
    for name, curve, wanted in (
        ("stays", [float(min(i, 10)) + 0.1 * (i % 2) for i in range(30)], True),
        ("falls", [float(-i) for i in range(30)], True),
        ("rises", [0.0] * 20 + [float(i) for i in range(10)], False),
        ("short", [1.0] * 11, False),
        ("none", [], False),
    ):
        assert flat(result(tmp_path, name, 1.0, curve)["run_dir"]) is wanted, name


def test_steps_of_a_rung_are_part_of_those_of_the_next():
    assert spent([("a", 0, 100), ("a", 0, 400), ("a", 1, 100), ("b", 0, 100)]) == 400 + 100 + 100


class RungExecutor(TableExecutor):
    """Fitness is 100 at the first rung and falls from there; the higher the index, the better."""

    def result_of(self, request):
        index, iterations = int(str(request.candidate_id)[-2:]), request.config.iterations
        told = {"fitness": 100.0 / iterations + index, "fitness_std": 0.5, "fitness_unit": "m"}
        return make_result(request, "ok", env_steps=320 * iterations, iterations=iterations, **told)


def search(folder: Path, executor: RungExecutor, **changes: Any) -> tuple[list[Candidate], ScriptedDesigner]:
    if not (folder / "search.json").exists():
        start_folder(slider_config(**{"samples": 6, "final_seeds": 0, **changes}), folder)
    designer = ScriptedDesigner()
    run_search(folder, load_config(folder), designer, executor)
    archive = Archive(folder / "search.db", create=False)
    candidates = archive.candidates()
    archive.close()
    return candidates, designer


@pytest.fixture(scope="module")
def halved(tmp_path_factory):
    """A search of six samples, of which each generation trains one to the end."""
    folder, executor = tmp_path_factory.mktemp("halved") / "search", RungExecutor()
    return (folder, executor, *search(folder, executor))


def test_a_search_halves_above_four_samples(halved):
    """Six train for 1 of 4 iterations, three for 2, one for all; each goes on where it was."""
    folder, executor, candidates, _ = halved
    first = [name for name in executor.ran if name.startswith("g01")]
    assert sorted(n for n in first if n.endswith("rung1")) == [f"g01_c0{i}_s0_rung1" for i in range(6)]
    assert sorted(n for n in first if n.endswith("rung2")) == [f"g01_c0{i}_s0_rung2" for i in (3, 4, 5)]
    assert [n for n in first if "rung" not in n] == ["g01_c05_s0"]
    request = json.loads((folder / "candidates/g01_c05/s0/request.json").read_text())
    assert (request["start_iteration"], request["config"]["iterations"]) == (2, 4)
    by_status = [str(c.status) for c in candidates]
    assert by_status == (["eliminated"] * 5 + ["trained"]) * 2
    assert examine(folder) == []


def test_a_rungs_fitness_ranks_nothing(halved):
    """100 at a rung is more than any whole training reached, and neither leads nor fathers anything."""
    _, _, candidates, designer = halved
    assert max(c.rung_fitness or 0.0 for c in candidates) > 100 > max(c.fitness or 0.0 for c in candidates)
    assert {c.parent_id for c in candidates if c.generation == 2} == {"g01_c05"}
    prompt = next(ask for ask in designer.asked if ask.ask_id == "g02_c00_r0").messages[-1].content
    assert "best so far is g01_c05: held-out fitness 30" in prompt
    assert "g01_c04: not ranked (stopped after 2 of 4 iterations: held-out fitness 54 there was number 2 of 3" in prompt
    assert "The next best program" not in prompt
    assert "after 1 and after 2 rollouts the half" in prompt
    memory = prompts.memory([c for c in candidates if c.generation == 1]).splitlines()
    assert memory[0].startswith("g01_c05: fitness 30") and len(memory) == 6


def test_the_report_shows_where_candidates_were_stopped(halved):
    folder, *_ = halved
    page = write_report(folder).read_text()
    assert "5 were stopped early" in page
    assert "100 after iteration 1" in page and "54.0 after iteration 2" in page
    # By hand: 3 of 1, 2 of 2 and 1 of 4 iterations a generation, 320 steps each.
    assert f"10 candidates stopped early; {2 * 320 * (3 + 4 + 4):,} steps in all" in page


@pytest.mark.parametrize("stop_at", ["g01_c02_s0_rung1", "g01_c03_s0_rung2", "g02_c05_s0"])
def test_an_interrupted_rung_goes_on(halved, tmp_path, stop_at):
    """What had ended is not trained again, and the end is the same."""
    first, second = RungExecutor(stop_at), RungExecutor()
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "s", first)
    found, _ = search(tmp_path / "s", second)
    assert sorted(first.ran + second.ran) == sorted(halved[1].ran)
    assert [(c.candidate_id, c.status, c.fitness, c.rung, c.rung_fitness) for c in found] == [
        (c.candidate_id, c.status, c.fitness, c.rung, c.rung_fitness) for c in halved[2]
    ]


def test_when_it_is_on():
    """Above four samples, or as told; a recording from before it could be set goes on as it was."""
    assert [slider_config(samples=k).halves for k in (4, 5)] == [False, True]
    assert slider_config(samples=2, halving="on").halves and not slider_config(samples=16, halving="off").halves
    assert recorded_settings(ANT)["halving"] == "off"
    with pytest.raises(UserError, match="halving is 'yes'; expected one of auto, on, off"):
        slider_config(halving="yes")
