"""An Isaac Lab task as one of ours: `isaaclab:Isaac-Ant-Direct-v0`, or a class in a file of the user's.

Names, prompt and settings come from the source, without Isaac Sim; the widths of signals, and worlds, from the running
environment. The fitness is the task's own reward summed over an episode, or an entry that the user names
(`isaaclab:NAME@ENTRY`): its value at the end of an episode.
"""

from __future__ import annotations

import ast
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from tasks.errors import UserError
from tasks.isaaclab import launch
from tasks.isaaclab.environment import FITNESS, IsaacLabEnv
from tasks.isaaclab.found import FoundSignal, find_signals
from tasks.isaaclab.hidden import says_reward
from tasks.isaaclab.names import PREFIX, Registration, lookup
from tasks.isaaclab.package import Source, find_source
from tasks.isaaclab.quantities import make_signal
from tasks.isaaclab.settings import config_values, control_dt_s, training
from tasks.isaaclab.source import task_source
from tasks.signals import Signals, SignalTable, aligned
from tasks.task import Task

MEASURED_WORLDS = 37
"""Worlds of the environment that signals are looked for on: a number that no robot's joints or bodies have."""


class IsaacLabTask(Task):
    """A registered task of Isaac Lab.

    A user's own file may hold a subclass that sets `isaac_name`, and whatever it wants to say otherwise: `instruction`,
    `fitness_entry`, `fitness_unit`, `training`.
    """

    isaac_name: ClassVar[str] = ""
    """As registered: "Isaac-Ant-Direct-v0"."""
    fitness_entry: str = ""
    """Attribute or log entry of the environment that is the fitness; "": its own reward."""

    def __init__(self, isaac_name: str = "", fitness_entry: str = "") -> None:
        """Read the task's source.

        Raises:
            UserError: Isaac Lab's source is not installed, or has no such task, or it is one of several agents.
        """
        source = find_source()
        self.registration = lookup(source, isaac_name or self.isaac_name)
        self.fitness_entry = fitness_entry or self.fitness_entry
        values = config_values(source, self.registration.cfg)
        self._source = task_source(source, self.registration)
        self.found: list[FoundSignal] = find_signals(source, self._source, values)
        self._say(source, values)
        self._table: SignalTable | None = None

    def _say(self, source: Source, values: dict[str, Any]) -> None:
        """Set what a subclass has not said."""
        said = {name for cls in type(self).__mro__ if issubclass(cls, IsaacLabTask) and cls is not IsaacLabTask
                for name in vars(cls)}  # fmt: skip
        entry = self.fitness_entry
        defaults = {
            "name": self.registration.name,
            "instruction": instruction_of(self.registration, self._source.env_classes, self._source.cfg_classes),
            "action_doc": "raw actions of the policy, not clipped; the source says what becomes of them",
            "control_dt_s": control_dt_s(values) or Task.control_dt_s,
            "episode_length_s": float(values.get("episode_length_s") or Task.episode_length_s),
            "training": training(source, self.registration, values),
            "fitness_unit": entry or "1",
            "fitness_doc": f"{entry} at an episode's end"
            if entry
            else "Isaac Lab's own reward, summed over an episode",
            "fitness_reduce": "last" if entry else "sum",
        }
        for name, value in defaults.items():
            if name not in said:
                setattr(self, name, value)

    @property
    def signal_table(self) -> SignalTable:  # type: ignore[override]
        """The signals of the running environment; starts Isaac Sim where that has not happened yet.

        Raises:
            UserError: Isaac Sim is not installed.
        """
        if self._table is None:
            env = self.build_env(MEASURED_WORLDS, seed=0, device=self.default_device())
            self._table = env.signal_table
            env.close()
        return self._table

    def describe_signals(self) -> str:
        """The table as text: measured where the environment has run, else as far as the source tells."""
        if self._table is not None:
            return self._table.describe()
        rows = [("name", "shape", "unit", "frame", "kind", "meaning")]
        for found in self.found:
            signal = make_signal(found.name, 1, found.doc, found.documented)
            rows.append((signal.name, found.shape, signal.unit, signal.frame, signal.kind, signal.doc))
        return aligned(rows)

    def num_actions(self) -> int | str:
        """A, or a word for it where only the running environment knows."""
        if self._table is not None:
            return self._table["actions"].dims
        width = self.found[0].shape[4:-1]
        return int(width) if width.isdigit() else width

    def told_source(self) -> str:
        """The source for a designer."""
        return self._source.text()

    def default_device(self) -> str:
        """A GPU where torch has one: Isaac Lab's tasks are made for it."""
        return "cuda:0" if torch.cuda.is_available() else "cpu"

    def check_runnable(self) -> None:
        """Raises UserError where Isaac Sim is not installed."""
        launch.check()

    def check_searchable(self) -> None:
        """Raises UserError: a search's workers are confined, and Isaac Sim starts in no such process."""
        raise UserError(
            f"eureka search does not train {PREFIX}{self.registration.name}: its workers are confined, and Isaac Sim "
            f"starts in no such process. Ask with eureka show {PREFIX}{self.registration.name}, try the answer with "
            "eureka check, and train it with eureka train --reward FILE."
        )

    def build_env(self, num_envs: int, *, seed: int, device: str) -> IsaacLabEnv:
        """N worlds. A process has one Isaac Lab environment at a time: the one before is closed."""
        raw = launch.build(self.registration, num_envs=num_envs, seed=seed, device=device)
        refreshed, entry = self._source.refreshed, self.fitness_entry
        env = IsaacLabEnv(self, raw, self.found, refreshed=refreshed, entry=entry, release=launch.release)
        self.control_dt_s = float(raw.step_dt)  # type: ignore[misc]
        self.episode_length_s = float(raw.max_episode_length_s)  # type: ignore[misc]
        return env

    def fitness(self, signals: Signals) -> Tensor:
        """The task's own reward of this step, or the entry's value, (N,)."""
        return signals[FITNESS][:, 0]

    def build_model(self) -> NoReturn:
        """Isaac Lab's tasks have no MuJoCo model."""
        raise UserError(f"{PREFIX}{self.registration.name} has no MuJoCo model; it cannot be filmed or played here.")


def from_reference(ref: str) -> IsaacLabTask:
    """The task of `isaaclab:NAME` or `isaaclab:NAME@ENTRY`.

    Raises:
        UserError: see `IsaacLabTask`.
    """
    name, _, entry = ref.removeprefix(PREFIX).partition("@")
    return IsaacLabTask(name, entry)


def instruction_of(registration: Registration, env_classes: list[ast.ClassDef], cfg_classes: list[ast.ClassDef]) -> str:
    """One sentence of what to achieve: a docstring of its own, else the task's name."""
    of_env, of_cfg = ([ast.get_docstring(cls) or "" for cls in classes] for classes in (env_classes, cfg_classes))
    # A manager-based task has no class of its own but its configuration.
    for doc in [*of_env, registration.doc, *of_cfg] if of_env else [*of_cfg, registration.doc]:
        sentence = " ".join(doc.split("\n\n")[0].split())
        if sentence and not says_reward(sentence):
            return f"{registration.name}: {sentence}"
    words = [word for word in registration.name.split("-") if word not in ("Isaac", "v0", "Direct")]
    return f"{registration.name}: {' '.join(words).lower()}."
