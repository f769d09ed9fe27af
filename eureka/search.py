"""The search: propose, check, try, train, score, reflect.

    for each generation
        the designer writes K programs, knowing the best so far and everything tried
        each passes the gate, or gets its errors back up to R times
        the survivors train, the worse half of them not to the end; their fitness is measured on held-out episodes
        the best of them train on further seeds, until those that lead have been confirmed
    the best reward, the human one and the sparse one train on fresh seeds

The best candidate is never worse than the best so far (elitism). Everything is in the archive as soon as it is known,
so a search may be killed at any moment and resumed: finished trainings and paid replies are used as they are.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from eureka import feedback, finals, halving, prompts
from eureka.archive import Archive, Run
from eureka.best import keep_best
from eureka.candidate import Candidate, Status, ask_id, candidate_id
from eureka.designers.base import Ask, DesignContext, Designer, Message
from eureka.disk import Patience, network_line
from eureka.executors.base import Executor
from eureka.listener import Listener
from eureka.named_reward import SAMPLE_WORLDS
from eureka.proposing import Gate, first_ask, propose, stored_graph
from eureka.report import write_report
from eureka.report_story import first_line
from eureka.score import Score, human_normalised, over_seeds
from eureka.search_config import CONFIG_FILE, DATABASE, DONE, SearchConfig, load_config, locked, start_folder
from eureka.settling import unconfirmed
from eureka.trainer import Trainer
from eureka.training import Training, run_trainings
from eureka.twins import Twins, as_twin, follows
from rl.config import to_json
from rl.record import write_json_atomic
from tasks.env import sample_signals
from tasks.errors import UserError
from tasks.registry import absolute_ref, make

__all__ = ["CONFIG_FILE", "Listener", "SearchConfig", "SearchResult", "load_config", "run_search", "start_folder"]

REPORT_PAUSE, GENERATION_PAUSE = 20.0, 4.0
"""Between two pages at least this many times as long as one takes to write; less where a generation has ended."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found."""

    best: Candidate | None
    """By held-out fitness; None where no candidate was scored."""
    fitness: dict[str, Score | None]
    """"final", "human" and "sparse": fitness over the fresh seeds."""
    normalised: Score | None
    """Human-normalised score of the best reward."""
    report: Path


def run_search(
    folder: Path,
    config: SearchConfig,
    designer: Designer,
    executor: Executor,
    listener: Listener | None = None,
    person: feedback.Person | None = None,
) -> SearchResult:
    """Run a search, or go on with one.

    Args:
        folder: Made by `start_folder`; may hold any part of this search already.
        config: As stored in the folder.
        designer: Who writes the rewards.
        executor: Where candidates train.
        listener: Told of everything that happens.
        person: Who is asked for feedback, where the config wants it; the terminal when not given.

    Raises:
        UserError: the designer cannot go on, trainings fail whatever their rewards are, there is nobody to ask for
            feedback, the given reward is refused, the folder is in use, or its database is damaged. What was finished
            is kept.
    """
    listener = listener or Listener()
    with locked(folder):
        warning = network_line(folder)
        if warning is not None:
            listener.say(warning)
        search = _Search(folder, config, designer, executor, listener)
        try:
            if config.init_reward is not None:
                search.run_given(config.init_reward)
            for generation in range(1, config.generations + 1):
                search.run_generation(generation)
                if config.feedback and generation < config.generations:
                    search.ask_person(generation, person or feedback.AtTerminal(say=listener.say))
            return search.conclude()
        except (UserError, KeyboardInterrupt) as stop:
            search.note_stop(str(stop) or "interrupted")
            raise
        finally:
            search.archive.close()


class _Search:
    """The state of a running search: its archive, and what all steps share."""

    def __init__(
        self, folder: Path, config: SearchConfig, designer: Designer, executor: Executor, listener: Listener
    ) -> None:
        self.folder = folder
        self.config = config
        self.designer = designer
        self.executor = executor
        self.listener = listener
        self.task = make(config.task)
        self.task_ref = absolute_ref(config.task)
        self.train_config = config.training()
        self.patience = Patience(folder, listener.say)
        self.archive = Archive(folder / DATABASE, patience=self.patience)
        self.trainer = Trainer(folder, config, self.archive, executor, listener, self._report)
        self.view = prompts.TaskView.of(self.task, self.train_config, halving.announced(self.trainer.rungs))
        states = [sample_signals(self.task, worlds, seed=config.seed + worlds) for worlds in SAMPLE_WORLDS]
        self.gate = Gate(self.task.signal_table, tuple(states), self.train_config.num_envs)
        self.twins = Twins(folder)
        self.scales = {name: tensor.std(dim=0).tolist() for name, tensor in states[-1].items()}
        self._report_ended = self._report_took = 0.0
        self._note_start()

    def _note_start(self) -> None:
        kind = "resumed" if self.archive.meta("started") else "started"
        facts = {
            "started": True,
            "state": "running",
            "designer": self.designer.name,
            "task_name": self.task.name,
            "instruction": self.task.instruction,
            "fitness_unit": self.task.fitness_unit,
            "training": to_json(self.train_config),
        }
        self.archive.note(facts, kind, f"designer {self.designer.name}")
        self._write_report()

    def note_stop(self, why: str) -> None:
        """The search ends before its end, but in order: say so in the archive and on the page, if the disk lets us."""
        self.patience.over = True
        try:
            self.archive.note({"state": "stopped"}, "stopped", why)
            self._write_report()
        except (UserError, OSError) as error:
            self.patience.say(f"the archive or the report could not be told that the search stopped ({error})")

    def _write_report(self) -> Path:
        return self.patience.until_done("report.html", lambda: write_report(self.folder))

    def _report(self, generation_ended: bool = False) -> None:
        """Bring the page up to date, if that is not most of what the search does: it is written whole, and grows."""
        pause = GENERATION_PAUSE if generation_ended else REPORT_PAUSE
        began = time.monotonic()
        if began >= self._report_ended + pause * self._report_took:
            self._write_report()
            self._report_ended = time.monotonic()
            self._report_took = self._report_ended - began

    def run_generation(self, generation: int) -> None:
        """One generation, from prompts to fitness."""
        self.listener.generation_started(generation, self.config.generations)
        parent = self.archive.best(before=generation)
        candidates = self._open_candidates(generation, parent, self.config.samples)
        asks = self._first_asks(generation, candidates, parent)
        judged = self._propose(candidates, asks, self.designer, self.config.repairs)
        self._train_generation([c for c in judged if c.status in (Status.ACCEPTED, Status.TRAINING)], generation)
        self._confirm(generation)

        now_best = self.archive.best(before=generation + 1)
        improved = now_best is not None and now_best.generation == generation
        if self.archive.meta(f"generation_{generation}_done") is None:
            verb = "improved the best fitness" if improved else "did not improve the best fitness"
            done = {f"generation_{generation}_done": True}
            self.archive.note(done, "generation", f"generation {generation} {verb}")
        self.listener.generation_ended(generation, now_best, improved)
        self._report(generation_ended=True)

    def _propose(
        self, candidates: list[Candidate], asks: dict[str, Ask], designer: Designer, repairs: int
    ) -> list[Candidate]:
        judged = propose(
            candidates,
            asks,
            designer=designer,
            gate=self.gate,
            archive=self.archive,
            repairs=repairs,
            folder=self.folder,
            listener=self.listener,
            patience=self.patience,
        )
        self._report()
        return judged

    def run_given(self, program: str) -> None:
        """Generation 0: the program a person starts from, through the gate and trained like any other."""
        candidate = self._open_candidates(0, None, 1)[0]
        messages = (Message("user", "The reward program that a person starts this search from."),)
        ask = Ask(ask_id(feedback.GIVEN, 0), feedback.GIVEN, 0, messages, self._context(0, 0, None, (), 1))
        judged = self._propose([candidate], {feedback.GIVEN: ask}, feedback.Giver(program), repairs=0)[0]
        if judged.status is Status.REFUSED:
            raise UserError(f"the given reward is refused: {first_line(judged)}; mend it and start a new search.")
        self._train_generation([judged] if judged.status in (Status.ACCEPTED, Status.TRAINING) else [], 0)
        self._report(generation_ended=True)

    def ask_person(self, generation: int, person: feedback.Person) -> None:
        """What a person says of the best so far: asked once, stored before it is used."""
        leader = self.archive.best(before=generation + 1)
        if leader is None or self.archive.feedback(generation) is not None:
            return
        say, video = self.listener.say, self.config.video
        runs = self._good_runs(self.archive.runs("candidate", leader.trained_as))
        shown = feedback.show(self.folder, self.task, leader, runs, video, generation, say)
        said = feedback.clean(person.ask(generation, shown, feedback.place(self.folder, generation)))
        self.archive.add_feedback(generation, leader.candidate_id, said)
        self._report()

    def _first_asks(self, generation: int, candidates: list[Candidate], parent: Candidate | None) -> dict[str, Ask]:
        """The first request of each candidate that waits for one."""
        waiting = [c for c in candidates if c.status is Status.PROPOSED]
        if not waiting:
            return {}
        history = self.archive.history(before=generation)
        with closing(self.archive.ranked(before=generation)) as order:
            rival = None if parent is None else prompts.runner_up(parent, order)
        remembered = prompts.Remembered(prompts.memory(history.candidates, further=history.further), rival)
        told, samples = history.candidates, self.config.samples
        contexts = {c.candidate_id: self._context(generation, c.index, parent, told, samples) for c in waiting}
        return {name: first_ask(context, self.view, remembered) for name, context in contexts.items()}

    def _open_candidates(self, generation: int, parent: Candidate | None, samples: int) -> list[Candidate]:
        """This generation's candidates: those in the archive, and new ones for the missing places."""
        known = {c.candidate_id: c for c in self.archive.candidates(generation)}
        opened = []
        for index in range(samples):
            name = candidate_id(generation, index)
            if name not in known:
                known[name] = Candidate(name, generation, index, parent_id=parent.candidate_id if parent else None)
                self.archive.put_candidate(known[name])
            opened.append(known[name])
        return opened

    def _context(
        self, generation: int, index: int, parent: Candidate | None, history: tuple[Candidate, ...], samples: int
    ) -> DesignContext:
        components = None if parent is None else (parent.result or {}).get("components")
        return DesignContext(
            task_name=self.task.name,
            instruction=self.task.instruction,
            signal_table=self.task.signal_table,
            signal_scales=self.scales,
            history=history,
            best=parent,
            best_components=components,
            generation=generation,
            index=index,
            samples=samples,
            seed=self.config.seed,
            feedback=self.archive.feedback(generation - 1) or None,
        )

    def _train_generation(self, survivors: list[Candidate], generation: int) -> None:
        """Train what the gate took; of candidates whose rewards compute the same, the first one for all."""
        firsts = self.twins.firsts(self.archive.candidates(generation))
        self.trainer.train([c for c in survivors if c.candidate_id not in firsts])
        for candidate in survivors:
            if candidate.candidate_id not in firsts:
                continue
            first = self.archive.candidate(firsts[candidate.candidate_id])
            assert first is not None
            if follows(first):
                self.listener.say(f"{candidate.candidate_id} computes the same as {first.candidate_id}: trained once")
                self.archive.put_candidate(as_twin(candidate, first))
            else:
                self.trainer.train([candidate])

    def _confirm(self, generation: int) -> None:
        """Train the leaders on further seeds until all who lead have been: the best of many by few seeds is a lucky
        one (the winner's curse), and would be every later program's parent."""
        seeds = self.config.seeds_per_candidate + self.config.confirm_seeds
        while True:
            self._update_twins(generation)
            with closing(self.archive.ranked(before=generation + 1)) as order:
                leaders = list(islice((c for c in order if c.equal_to is None), self.config.confirm))
            waiting = unconfirmed(leaders, self.config.confirm, seeds)
            if not waiting:
                return
            names = ", ".join(c.candidate_id for c in waiting)
            self.listener.say(f"generation {generation}: {names} on {self.config.confirm_seeds} further seeds")
            self.trainer.train_whole(waiting, seeds)
            for earlier in sorted({c.generation for c in waiting} - {generation}):
                self._update_twins(earlier)

    def _update_twins(self, generation: int) -> None:
        """What further seeds said of a candidate holds for those that compute the same."""
        for candidate in self.archive.candidates(generation):
            first = None if candidate.equal_to is None else self.archive.candidate(candidate.equal_to)
            if first is not None and as_twin(candidate, first) != candidate:
                self.archive.put_candidate(as_twin(candidate, first))

    def conclude(self) -> SearchResult:
        """Compare the best reward with the human and the sparse one, film it, and write the marker."""
        winner = self.archive.best()
        if winner is not None and self.config.final_seeds > 0:
            self._compare(winner)
        if winner is not None:
            runs = self._runs_of(winner)
            self.patience.until_done(
                "best/",
                lambda: keep_best(self.folder, self.task, winner, runs, self.config.video, self.listener.say),
            )
        self.archive.set_meta("state", "finished")
        report = self._write_report()
        fitness = {role: finals.fitness_per_seed(self.archive, role) for role in ("final", "human", "sparse")}
        normalised = human_normalised(fitness["final"], fitness["human"], fitness["sparse"])
        scores = {role: over_seeds(values) for role, values in fitness.items()}
        marker = {"best": winner.candidate_id if winner else None, "fitness": winner.fitness if winner else None}
        self.patience.until_done(DONE, lambda: write_json_atomic(self.folder / DONE, marker))
        return SearchResult(winner, scores, normalised, report)

    def _compare(self, winner: Candidate) -> None:
        runs = self.folder.resolve().parent
        fresh = finals.Fresh(
            self.task,
            self.task_ref,
            self.train_config,
            self.folder / "final",
            seed=self.config.seed,
            seeds=self.config.final_seeds,
            threads=self.config.threads,
            time_limit_s=self.config.time_limit_s,
            simulated=self.config.simulated,
        )
        trainings = fresh.final(winner, stored_graph(self.folder, winner.candidate_id))
        trainings += fresh.baseline("human") + fresh.baseline("sparse")
        roles = {finals.role_of(training) for training in trainings}
        for role in ("human", "sparse"):
            if role not in roles:
                self.listener.say(f"task '{self.task.name}' has no {role} reward; the comparison goes without it")
        for training in trainings:
            self.patience.until_done("final/", partial(finals.fetch_cached, training, self.task, runs))

        def on_result(training: Training, result: dict[str, Any]) -> None:
            self.archive.put_run(finals.final_run(training, result, self.folder))
            if result["status"] == "ok":
                self.patience.until_done("baselines/", partial(finals.keep_in_cache, training, self.task, runs))

        run_trainings(trainings, self.executor, self.listener, on_result, self.trainer.probe())

    def _runs_of(self, winner: Candidate) -> list[Run]:
        """Runs of the winning reward that left a policy, best first: the finals, else the candidate's own."""
        return self._good_runs(self.archive.runs("final") or self.archive.runs("candidate", winner.candidate_id))

    def _good_runs(self, runs: list[Run]) -> list[Run]:
        good = [run for run in runs if run.status == "ok" and run.fitness is not None]
        return sorted(good, key=lambda run: -(run.fitness or 0.0))
