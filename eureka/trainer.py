"""How a search trains candidates: on their seeds, in the rungs of successive halving, one result after the other into
the archive. What becomes of them is decided by `eureka.settling` and `eureka.halving`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eureka import finals, halving
from eureka.archive import Archive, Run
from eureka.candidate import Candidate, Status
from eureka.executors.base import Executor
from eureka.listener import Listener
from eureka.proposing import stored_graph
from eureka.search_config import SearchConfig
from eureka.settling import settle
from eureka.training import Training, run_trainings
from rl.record import TrainRequest
from tasks.registry import absolute_ref

_OnCandidate = Callable[[str, list[dict[str, Any]], str], None]


class Trainer:
    """The trainings of a search's candidates.

    Args:
        folder: The search folder.
        config: The search.
        archive: Where runs and candidates go.
        executor: Where trainings run.
        listener: Told of trainings and of what a rung decided.
        on_settled: Called after the archive was told of a candidate or of a rung.
    """

    def __init__(
        self,
        folder: Path,
        config: SearchConfig,
        archive: Archive,
        executor: Executor,
        listener: Listener,
        on_settled: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.config = config
        self.archive = archive
        self.executor = executor
        self.listener = listener
        self._on_settled = on_settled
        self._task_ref = absolute_ref(config.task)
        self._train_config = config.training()
        self.rungs = halving.rungs(self._train_config.iterations, config.halves)
        """The parts of every training; the last one ends the whole."""

    def train(self, candidates: list[Candidate]) -> None:
        """Train candidates that the gate took, as far as each is allowed to go."""
        going_on = [dataclasses.replace(candidate, status=Status.TRAINING) for candidate in candidates]
        for candidate in going_on:
            self.archive.put_candidate(candidate)
        for rung in self.rungs[:-1]:
            going_on = self._climb(going_on, rung)
        self.train_whole(going_on, self.config.seeds_per_candidate)

    def _climb(self, candidates: list[Candidate], rung: halving.Rung) -> list[Candidate]:
        """Train candidates to the end of a rung; those that go on. What a rung decides is one transaction, so all of
        them have passed it or none."""
        if all(candidate.rung >= rung.number for candidate in candidates):
            return candidates
        results: dict[str, list[dict[str, Any]]] = {}
        self._run_all(candidates, self.config.seeds_per_candidate, rung, lambda c, r, _: results.update({c: r}))
        whole = self.rungs[-1].iterations
        after = halving.decide(candidates, results, rung, whole)
        text = f"generation {candidates[0].generation}, {halving.outcome(after, rung, whole)}"
        self.archive.put_candidates(after, "rung", text)
        self.listener.say(text)
        self._on_settled()
        return [candidate for candidate in after if candidate.status is Status.TRAINING]

    def train_whole(self, candidates: list[Candidate], seeds: int) -> None:
        """Train candidates to the end on their first `seeds` seeds, those that have trained already excepted; each is
        settled as soon as its last seed has ended."""
        by_id = {c.candidate_id: c for c in candidates}

        def on_candidate(name: str, results: list[dict[str, Any]], run_id: str) -> None:
            self.archive.put_candidate(settle(by_id[name], results), run_id=run_id)
            self._on_settled()

        self._run_all(candidates, seeds, self.rungs[-1], on_candidate)

    def _run_all(self, candidates: list[Candidate], seeds: int, rung: halving.Rung, on_candidate: _OnCandidate) -> None:
        """Run a rung of candidates on their first `seeds` seeds; hands over each with its results in the order of the
        seeds, and the run that ended last."""
        results: dict[str, dict[int, dict[str, Any]]] = {c.candidate_id: {} for c in candidates}

        def on_result(training: Training, result: dict[str, Any]) -> None:
            name = training.request.candidate_id
            assert name is not None
            self.archive.put_run(self._run(training, result, rung))
            results[name][training.request.seed] = {**result, "run_dir": training.run_dir}
            if len(results[name]) == seeds:
                on_candidate(name, [results[name][seed] for seed in sorted(results[name])], training.run_id)

        trainings = [self._training(c, number, rung) for c in candidates for number in range(seeds)]
        run_trainings(trainings, self.executor, self.listener, on_result, self.probe())

    def probe(self) -> Training:
        """Whether the machine trains at all."""
        return finals.probe(
            self.folder,
            self._task_ref,
            self._train_config,
            seed=self.config.seed,
            threads=self.config.threads,
            time_limit_s=self.config.time_limit_s,
            simulated=self.config.simulated,
        )

    def _training(self, candidate: Candidate, number: int, rung: halving.Rung) -> Training:
        assert candidate.source is not None
        seed = self.config.seed + number
        place = self.folder / "candidates" / candidate.candidate_id
        # Seeds that confirm a leader have no rungs: nothing is to be stopped.
        before = self.rungs[rung.number - 2] if rung.number > 1 and number < self.config.seeds_per_candidate else None
        name = f"s{seed}" if rung is self.rungs[-1] else f"s{seed}_{rung.name}"
        request = TrainRequest(
            run_id=f"{candidate.candidate_id}_{name}",
            candidate_id=candidate.candidate_id,
            task=self._task_ref,
            reward=candidate.source,
            reward_graph=stored_graph(self.folder, candidate.candidate_id),
            reward_origin=candidate.candidate_id,
            config=dataclasses.replace(self._train_config, iterations=rung.iterations),
            start_iteration=before.iterations if before else 0,
            seed=seed,
            eval_seed=finals.EVAL_SEED,
            threads=self.config.threads,
            time_limit_s=self.config.time_limit_s,
            **self.config.simulated,
        )
        return Training(request, place / name, place / f"s{seed}_{before.name}" if before else None)

    def _run(self, training: Training, result: dict[str, Any], rung: halving.Rung) -> Run:
        row = finals.final_run(training, result, self.folder)
        return dataclasses.replace(row, role="candidate" if rung is self.rungs[-1] else "rung")
