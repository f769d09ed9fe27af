"""From the trainings of a candidate to its fitness, and which candidates have to prove theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from eureka import reflection
from eureka.candidate import Candidate, Status, ranked
from eureka.score import over_seeds
from rl.record import read_metrics


def settle(candidate: Candidate, results: list[dict[str, Any]]) -> Candidate:
    """A candidate after its trainings: the mean fitness over seeds, or failed if any seed failed.

    Args:
        candidate: As accepted.
        results: One per seed, each the content of `result.json` with the run's folder under "run_dir".
    """
    failed = next((result for result in results if result["status"] != "ok"), None)
    shown = failed or results[0]
    metrics = read_metrics(shown["run_dir"] / "metrics.jsonl")
    by_seed = [] if failed is not None else [result["fitness"] for result in results]
    told = reflection.reflect(metrics, shown, by_seed)
    stored = {key: value for key, value in shown.items() if key != "run_dir"}
    stored["fitness_by_seed"] = [result["fitness"] for result in results]  # null where one failed
    if metrics:
        stored["components"] = metrics[-1].get("components")
    if failed is not None:
        error = failed.get("error") or {}
        message = f"{failed['status']}: {error.get('message', 'the training failed')}"
        return dataclasses.replace(
            candidate,
            status=Status.FAILED,
            stage=failed["status"],
            error=message,
            fitness=None,  # a leader whose further seed fails had one
            fitness_std=None,
            result=stored,
            reflection=told,
        )
    over = over_seeds(by_seed)
    assert over is not None
    spread = over.std if over.std is not None else shown["fitness_std"]
    return dataclasses.replace(
        candidate,
        status=Status.TRAINED,
        stage="ok",
        fitness=over.mean,
        fitness_std=spread,
        result=stored,
        reflection=told,
    )


def unconfirmed(candidates: Iterable[Candidate], leaders: int, seeds: int) -> list[Candidate]:
    """Those among the `leaders` best that were trained on fewer than `seeds` seeds, best first; equals count once."""
    own = [c for c in ranked(candidates) if c.equal_to is None]
    return [c for c in own[:leaders] if c.seeds < seeds]
