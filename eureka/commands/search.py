"""`eureka search`: builds what a search needs from its options, checks it before anything trains, and runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from eureka.archive import Archive
from eureka.commands.confinement import announce
from eureka.commands.places import existing_file, parse_settings, with_settings
from eureka.commands.progress import LiveListener, ProgressListener
from eureka.designers.base import Designer, DesignerConfig, DesignerStopped
from eureka.designers.create import create, resolve
from eureka.designers.replay import recorded_feedback, recorded_settings
from eureka.disk import check_writable
from eureka.executors.base import NO_PROGRESS_S
from eureka.executors.create import Kind, Wanted
from eureka.executors.local import visible_devices
from eureka.executors.population import FOLDER, PopulationExecutor
from eureka.feedback import AtTerminal, Person, Recorded
from eureka.interrupt import interruptible
from eureka.named_reward import find_reward
from eureka.score import Score
from eureka.search import SearchResult, run_search
from eureka.search_config import CONFIG_FILE, DATABASE, Halving, SearchConfig, load_config, start_folder
from eureka.training import MachineAtFault
from tasks import registry
from tasks.env import require_backend
from tasks.errors import UserError

_OF_THE_MACHINE = ("executor", "slots", "no_progress_s", "memory_gb")
"""Options that say where a search runs, not what it is; a resumed one may have others."""


@dataclass(frozen=True)
class Search:
    """Let a designer write reward programs, train a policy under each, and hand back what happened, for some
    generations; then compare the best reward with the human-written and the sparse one."""

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")] = ""
    """A task's name, or a Python file. Not with --resume; without it --designer replay repeats the recorded search."""
    samples: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 16
    """K: reward programs proposed in each generation."""
    generations: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 5
    """N: generations."""
    repairs: int = 2
    """How often a broken program may be repaired."""
    iterations: int | None = None
    """Iterations of each training; the task's own number when not given."""
    num_envs: int | None = None
    """Worlds of each training; the task's own number when not given."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Any other training setting, as in --set ppo.gamma=0.98."""
    seed: int = 0
    """Seed of the trainings, and of the evolution designer."""
    seeds_per_candidate: int = 1
    """Trainings of each candidate; its fitness is their mean."""
    confirm: int = 0
    """Leaders after each generation that train on further seeds before one is called best."""
    confirm_seeds: int = 2
    """Further trainings of each leader."""
    halving: Halving = "auto"
    """Stop the worse half of a generation after a quarter of the training, and again after half of it; auto: above 4
    samples."""
    init_reward: Path | None = None
    """A reward file to start from: it passes the gate, trains as candidate g00_c00, and is the first parent."""
    feedback: bool = False
    """After each generation but the last ask for a sentence on the best policy, which goes into the next prompts."""
    final_seeds: int = 3
    """Fresh seeds of the final comparison; 0 leaves it out."""
    executor: Kind = "local"
    """Where trainings run: processes here, or a Ray cluster, that of RAY_ADDRESS or one started here."""
    slots: int | None = None
    """Trainings at the same time; as many as fit the cores when not given."""
    threads: int = 1
    """CPU threads of each training."""
    backend: str = "native"
    """What simulates the worlds: native (MuJoCo on the CPU) or warp (MuJoCo Warp on a GPU)."""
    device: str | None = None
    """torch device of the trainings; each has the GPU of its slot when not given."""
    population: bool = False
    """Train candidates that start together in one simulation and one process, on each GPU or slot, instead of in a
    process each."""
    time_limit_s: float | None = 3600.0
    """Seconds one training may take."""
    no_progress_s: float | None = NO_PROGRESS_S
    """Seconds without any progress after which a training is ended, and tried once more."""
    memory_gb: float | None = None
    """Memory that one training may take, in GiB; a fair share of the machine, at least 2, when not given."""
    video: bool = True
    """Film the best policy at the end."""
    out: Path | None = None
    """The search's folder; runs/TASK/TIME when not given."""
    resume: Path | None = None
    """Go on with the search in this folder; nothing finished is repeated, no reply is paid for twice."""
    require_sandbox: bool = False
    """Refuse to search where the processes that run rewards cannot be confined in full."""
    designer: tyro.conf.OmitArgPrefixes[DesignerConfig] = field(default_factory=DesignerConfig)
    """Who writes the rewards, and how it is reached."""

    def run(self) -> int:
        """Search, and print what was found."""
        memory = None if self.memory_gb is None else round(self.memory_gb * 2**30)
        # Limits that cannot work are refused before a folder is made for the search.
        wanted = Wanted(self.executor, self.slots, self.no_progress_s, memory)
        say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print
        if self.require_sandbox:
            announce(say, require=True)
        if self.resume is None:
            folder, config, designer = self._begin(say)
        else:
            folder, config, designer = self._go_on(self.resume, say)
        task = registry.make(config.task)
        config.training()  # a setting that cannot work is refused before anything is asked for
        terminal = Console(stderr=True).is_terminal
        listener = (LiveListener if terminal else ProgressListener)(config, task.fitness_unit)
        try:
            with wanted.started(config.threads, config.task) as executor, interruptible(executor.kill_all, folder):
                try:
                    if config.population:
                        devices = len(visible_devices())
                        executor = PopulationExecutor(executor, folder / FOLDER, devices, listener.say)
                    trainings = f"{executor.slots} {'populations' if config.population else 'trainings'} at a time"
                    listener.say(f"{task.name}: designer {designer.name}, {trainings} -> {folder}")
                    if not self.require_sandbox:
                        announce(listener.say, require=False)
                    result = run_search(folder, config, designer, executor, listener, _person(config, listener.say))
                finally:
                    listener.close()
                    executor.cancel_all()
        except DesignerStopped as stopped:
            line = f"{stopped} The search is kept: eureka search --resume {folder}"
            raise DesignerStopped(line, stopped.outcome) from None
        except MachineAtFault as fault:
            raise MachineAtFault(f"{fault} When it is well again: eureka search --resume {folder}") from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; go on with eureka search --resume {folder}") from None
        _print(result, task.fitness_unit)
        return 0 if result.best is not None else 1

    def _check_place(self, config: SearchConfig) -> None:
        """Refuse what cannot train here, before anything is asked for. Other machines have other devices."""
        if self.executor == "local":
            require_backend(**config.simulated)
        elif config.population:
            raise UserError(f"--population trains in processes of this machine, not with --executor {self.executor}.")

    def _begin(self, say: Callable[[str], None]) -> tuple[Path, SearchConfig, Designer]:
        """A new search: everything that can be wrong is found before its folder is made."""
        if not self.task and resolve(self.designer.designer) == "replay" and self.designer.replay_from is not None:
            return self._as_recorded(self.designer.replay_from, say)
        if not self.task:
            raise UserError(f"eureka search needs a task; known: {', '.join(registry.names())}, or a Python file.")
        registry.make(self.task).check_searchable()
        settings = with_settings(parse_settings(self.set), iterations=self.iterations, num_envs=self.num_envs)
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(SearchConfig) if f.name != "train"}
        # What "auto" means is settled now: a resumed search shall not change its designer with the environment.
        shared["designer"] = dataclasses.replace(self.designer, designer=resolve(self.designer.designer))
        shared["init_reward"] = None if self.init_reward is None else self._given(self.init_reward)
        config = SearchConfig(**shared, train=settings)
        return self._start(config, say)

    def _given(self, path: Path) -> str:
        """The program to start from. Raises UserError where the gate refuses it."""
        file = existing_file(path, "reward file")
        return find_reward(str(file), registry.make(self.task), self.task).text

    def _as_recorded(self, recording: Path, say: Callable[[str], None]) -> tuple[Path, SearchConfig, Designer]:
        """A recorded search again, with its own task and settings."""
        free = (
            "task",
            "set",
            *_OF_THE_MACHINE,
            "out",
            "resume",
            "designer",
            "video",
            "time_limit_s",
            "require_sandbox",
        )
        changed = [
            f"--{f.name.replace('_', '-')}"
            for f in dataclasses.fields(self)
            if f.name not in free and getattr(self, f.name) != f.default
        ]
        if changed or self.set:
            raise UserError(
                f"{', '.join(changed) or '--set'} would change the recorded search: leave it away, or name the TASK "
                "to search with settings of your own."
            )
        settings = recorded_settings(recording)
        known = {f.name for f in dataclasses.fields(SearchConfig)}
        if not settings.get("task") or not set(settings) <= known:
            raise UserError(
                f"the recording {recording} is of another version; name the TASK and its settings yourself."
            )
        config = SearchConfig(**settings, designer=self.designer, video=self.video, time_limit_s=self.time_limit_s)
        return self._start(config, say)

    def _start(self, config: SearchConfig, say: Callable[[str], None]) -> tuple[Path, SearchConfig, Designer]:
        config.training()
        self._check_place(config)
        task_name = registry.make(config.task).name
        designer = create(self.designer, search_dir=self.out or Path("runs"), say=say, task_name=task_name)
        if designer.name != "manual":  # whose check makes its folder
            designer.check()
        folder = start_folder(config, self.out)
        config = load_config(folder)
        designer = create(config.designer, search_dir=folder, say=say, task_name=task_name)
        if designer.name == "manual":
            designer.check()
        return folder, config, designer

    def _go_on(self, folder: Path, say: Callable[[str], None]) -> tuple[Path, SearchConfig, Designer]:
        """A search that was stopped. Its settings stand; the way to the designer (key, endpoint, budget) may be new."""
        config = load_config(folder)
        self._check_place(config)
        check_writable(folder)  # before the designer is tried
        free = (*_OF_THE_MACHINE, "resume", "designer", "require_sandbox")
        fixed = {f.name: f.default for f in dataclasses.fields(self) if f.name not in free}
        changed = [name for name, default in fixed.items() if getattr(self, name) != default]
        if changed:
            names = ", ".join("TASK" if name == "task" else f"--{name.replace('_', '-')}" for name in changed)
            raise UserError(
                f"{names} cannot change in a resumed search; leave it away, {folder / CONFIG_FILE} says it."
            )
        given = {
            f.name: getattr(self.designer, f.name)
            for f in dataclasses.fields(DesignerConfig)
            if getattr(self.designer, f.name) != f.default
        }
        config = dataclasses.replace(config, designer=dataclasses.replace(config.designer, **given))
        tokens = 0
        if (folder / DATABASE).exists():
            archive = Archive(folder / DATABASE, create=False, read_only=True)
            tokens = archive.tokens_used()
            archive.close()
        name = registry.make(config.task).name
        designer = create(config.designer, search_dir=folder, tokens_used=tokens, say=say, task_name=name)
        designer.check()
        return folder, config, designer


def _person(config: SearchConfig, say: Callable[[str], None]) -> Person:
    """Who gives feedback: in a replay the one who gave it in the recording."""
    replayed = config.designer.replay_from
    if config.feedback and config.designer.designer == "replay" and replayed is not None:
        return Recorded(recorded_feedback(replayed))
    return AtTerminal(say=say)


def _print(result: SearchResult, unit: str) -> None:
    if result.best is None:
        print("no reward was scored; the report says why each one failed")
    else:
        print(f"best reward: {result.best.candidate_id}, fitness {result.best.fitness:.4g} {unit} in the search")
        words = {"final": "best, fresh seeds", "human": "human", "sparse": "sparse"}
        for role, score in result.fitness.items():
            if score is not None:
                print(f"  {words[role]:<18} {_with_spread(score)} {unit}")
        if result.normalised is not None:
            print(f"  human-normalised   {_with_spread(result.normalised)} (0 is the sparse reward, 1 the human one)")
    print(f"report: {result.report}")


def _with_spread(score: Score) -> str:
    if score.std is None:
        return f"{score.mean:.4g}"
    return f"{score.mean:.4g} +- {score.std:.2g} over {score.seeds} seeds"
