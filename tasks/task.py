"""The contract of a task: what a robot should learn, where, and how success is measured.

A task is a subclass of `Task` with its MJCF. It is written once and runs on every backend. Nothing in it is a
reward: rewards are programs over its signals.

Axes: N worlds, O observation, A action. SI units, radians, quaternions w-first. Suffix `_w` world frame, `_b`
body frame. All tensors are float32 on the simulation's device.

Order within one control step, as `tasks.env.TaskEnv` runs it:
`act` -> physics -> `signals` -> `terminate`, `fitness` -> `update` -> (where an episode ended) `reset` -> `signals` (of
the worlds where `update` or `reset` changed anything) -> `observe`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import mujoco
import torch
from torch import Tensor

from tasks.commands import CommandSet
from tasks.errors import UserError
from tasks.randomize import Randomize
from tasks.signals import Signals, SignalTable
from tasks.sim import Simulation, SimulationState

Reduce = Literal["mean", "sum", "max", "last"]


class Task:
    """Base class of every task.

    Subclasses set the class variables and override `reset`, `signals`, `observe`, `terminate` and `fitness`.
    Everything whose name starts with `fitness` or equals `training` is cut out of the source that a reward
    designer reads (`tasks.source_view.designer_source`); so are comments.
    """

    name: ClassVar[str]
    """Registry name, kebab-case."""
    instruction: ClassVar[str]
    """One sentence, in words, of what to achieve: all that a designer is told of the goal."""
    action_doc: ClassVar[str]
    """What each action dimension does, its range and unit."""
    xml: ClassVar[str | Path] = ""
    """The model: MJCF text, or the path of an .xml file. Empty where `build_model` makes the model otherwise."""
    robot: ClassVar[str | None] = None
    """Menagerie robot the model is made of; it is downloaded when a model is built (`tasks.robots.menagerie`)."""
    control_dt_s: ClassVar[float] = 0.02
    """Control period, a whole number of the model's timesteps."""
    episode_length_s: ClassVar[float] = 10.0
    """Time limit of an episode; reaching it is a truncation, not a failure."""
    signal_table: ClassVar[SignalTable]
    """What `signals` returns."""
    fitness_unit: ClassVar[str]
    """Unit of the fitness."""
    fitness_doc: ClassVar[str]
    """One line for people: what the fitness measures."""
    fitness_reduce: ClassVar[Reduce] = "mean"
    """How per-step values make an episode's fitness; "mean" is over the whole time limit."""
    fitness_failed: ClassVar[float] = 0.0
    """With "mean": what every step after a failure counts."""
    fitness_settle_s: ClassVar[float] = 1.0
    """With commands: how long after a new one what the body does is not counted as obeying or not; it changes over."""
    fitness_scale: ClassVar[tuple[float, ...]] = ()
    """With commands: errors of its V numbers, each in its own unit, that weigh as much as each other."""
    commands: ClassVar[CommandSet | None] = None
    """What the body can be told, in numbers and in words, where there is more than one thing (`tasks.commanded`).
    Such a task keeps the place of each world's command in `sim.memory["command_index"]`, (N,) int64, and which of its
    phrases says it in `sim.memory["command_wording"]`, (N,) int64."""
    training: ClassVar[Mapping[str, object]] = {}
    """Training settings that differ from the defaults; field names of `rl.config.TrainConfig`."""
    randomize: ClassVar[Randomize | None] = None
    """What may differ between worlds where that is asked for (`tasks.randomize`)."""
    camera: ClassVar[str | None] = None
    """Name of the MJCF camera that videos are taken with; None is the free camera."""

    def build_model(self) -> mujoco.MjModel:
        """Compile the MJCF.

        Raises:
            UserError: the file is missing or MuJoCo refuses it; the line names the file and MuJoCo's reason.
        """
        where = f"the XML of task '{self.name}'"
        try:
            if isinstance(self.xml, Path):
                where = str(self.xml)
                return mujoco.MjModel.from_xml_path(str(self.xml))
            return mujoco.MjModel.from_xml_string(self.xml)
        except ValueError as error:
            raise UserError(f"MuJoCo cannot compile {where}: {' '.join(str(error).split())}") from error

    def build_visual_model(self) -> mujoco.MjModel:
        """The model that videos are drawn with, where it is not the one that is simulated: a robot with its meshes.
        `visual_qpos` says how the states of one look in the other."""
        return self.build_model()

    def visual_qpos(self, qpos: Tensor, memory: Mapping[str, Tensor]) -> Tensor:
        """Positions of the visual model (N, nq of it) for states of the simulated one.

        Args:
            qpos: (N, nq) of the simulated model.
            memory: The task's own tensors, (N, ...) each, such as a goal that is drawn.
        """
        return qpos

    def substeps(self, model: mujoco.MjModel) -> int:
        """Physics steps per control step.

        Raises:
            UserError: `control_dt_s` is no whole multiple of the model's timestep.
        """
        timestep_s = float(model.opt.timestep)
        count = round(self.control_dt_s / timestep_s)
        if count < 1 or abs(count * timestep_s - self.control_dt_s) > 1e-9:
            raise UserError(
                f"task '{self.name}': control_dt_s={self.control_dt_s} is no whole multiple of the model's "
                f"timestep {timestep_s}; change one of them."
            )
        return count

    def setup(self, sim: Simulation) -> None:
        """Allocate per-world tensors in `sim.memory`, each (N, ...), and what all worlds share in `sim.constants`.
        `actions` and `previous_actions` exist already."""

    def reset(self, sim: Simulation, env_ids: Tensor, rng: torch.Generator) -> None:
        """Put worlds env_ids (n,) at the start of an episode by `sim.set_state`, drawing from rng only."""
        raise NotImplementedError

    def act(self, sim: Simulation, actions: Tensor) -> None:
        """Apply actions (N, A) in [-1, 1]. Here: mapped linearly onto each actuator's control range."""
        if "_ctrl_centre" not in sim.constants:
            low, high = self._ctrl_range(sim)
            sim.constants["_ctrl_centre"], sim.constants["_ctrl_half"] = 0.5 * (low + high), 0.5 * (high - low)
        sim.set_ctrl(torch.addcmul(sim.constants["_ctrl_centre"], actions, sim.constants["_ctrl_half"]))

    def signals(self, sim: SimulationState) -> Signals:
        """The tensors of `signal_table` for the present state. Reads only: `sim` may be some worlds of many."""
        raise NotImplementedError

    def update(self, sim: Simulation, signals: Signals, rng: torch.Generator) -> Tensor | None:
        """Change what a running episode is about, once the step has been rewarded: a goal that was reached, a command
        whose time is up. Replaces tensors in `sim.memory`, drawing from rng only.

        Args:
            sim: All worlds, also those whose episode has just ended; `reset` comes after this.
            signals: Of the step, as the reward sees them.

        Returns:
            (N,) bool: worlds whose signals are to be computed again for the next observation. None: no world's.
        """

    def observe(self, signals: Signals) -> Tensor:
        """What the policy sees, (N, O)."""
        raise NotImplementedError

    def observe_told(self, signals: Signals) -> Tensor:
        """What a policy sees that is told by words, (N, O'): with commands, all but the command's numbers."""
        return self.observe(signals)

    def instructions(self, sim: SimulationState, held_out: bool = False) -> list[str]:
        """What each of the N worlds is told at present, in words; `held_out`: in phrases that are never trained on,
        where the task has commands."""
        if self.commands is None:
            return [self.instruction] * sim.num_envs
        return self.commands.say(sim.memory["command_index"], sim.memory["command_wording"], held_out)

    def set_command(self, sim: Simulation, env_ids: Tensor, index: Tensor) -> None:
        """Tell worlds env_ids (n,) commands index (n,), places in `commands`; they hold until the next call, also when
        an episode ends meanwhile. `tasks.env.TaskEnv.set_command` brings the observation up to date as well.

        Raises:
            UserError: the task has no commands, or not so many.
        """
        raise UserError(f"task '{self.name}' takes no commands; it does one thing: {self.instruction}.")

    def terminate(self, signals: Signals) -> dict[str, Tensor]:
        """Failures that end an episode: reason -> (N,) bool. Time limits are not the task's business."""
        raise NotImplementedError

    def fitness(self, signals: Signals) -> Tensor:
        """What this step contributes to the fitness, (N,); higher is better. Hidden from designers."""
        raise NotImplementedError

    def fitness_achieved(self, signals: Signals) -> Tensor:
        """With commands: what the body does in this step, (N, V), in the quantities that commands' numbers are of."""
        raise NotImplementedError

    def fitness_did(self, achieved: Tensor) -> Tensor:
        """With commands: the place (N,) of the command that comes nearest to what was done.

        Args:
            achieved: (N, V), `fitness_achieved` averaged over the steps under one command, the first
                `fitness_settle_s` left out. Whoever fell meanwhile did nothing of the list.
        """
        raise NotImplementedError

    # What a task of another simulator says otherwise.

    def build_env(self, num_envs: int, *, seed: int, device: str) -> Any | None:
        """N worlds in another simulator, with the surface of `tasks.env.TaskEnv`; None: our backends run them."""
        return None

    def check_runnable(self) -> None:
        """Raises UserError where something that the task needs to run is not installed; starts nothing."""

    def check_searchable(self) -> None:
        """Raises UserError where `eureka search` cannot train the task, though `eureka train` can."""

    def default_device(self) -> str:
        """torch device of the worlds where none is asked for."""
        return "cpu"

    def describe_signals(self) -> str:
        """The signal table as a designer reads it."""
        return self.signal_table.describe()

    def num_actions(self) -> int | str:
        """A, or a word for it where only running worlds know."""
        return self.signal_table["actions"].dims

    def told_source(self) -> str | None:
        """The source as a designer reads it; None: what `tasks.source_view` makes of the task's class."""
        return None

    @staticmethod
    def _ctrl_range(sim: SimulationState) -> tuple[Tensor, Tensor]:
        """Actuators' control ranges, low (A,) and high (A,), kept among the simulation's constants."""
        if "_ctrl_low" not in sim.constants:
            limits = torch.tensor(sim.model.actuator_ctrlrange, dtype=torch.float32, device=sim.device)
            sim.constants["_ctrl_low"], sim.constants["_ctrl_high"] = limits[:, 0].clone(), limits[:, 1].clone()
        return sim.constants["_ctrl_low"], sim.constants["_ctrl_high"]


def check_task(task: Task) -> None:
    """Check what a task declares, before anything is built from it.

    Raises:
        UserError: a class variable is missing or has a wrong value; the line names it.
    """
    kind = type(task).__name__
    foreign = type(task).build_env is not Task.build_env  # another simulator knows its model and its signals
    fields = ("name", "instruction", "action_doc", "fitness_unit", "fitness_doc")
    for field in fields if foreign else (*fields, "signal_table"):
        if not hasattr(task, field):
            raise UserError(f"task class {kind} does not set '{field}'; see the contract in tasks/task.py.")
    _check_numbers(task)
    if foreign:
        return
    if not task.xml and type(task).build_model is Task.build_model:
        raise UserError(f"task class {kind} does not set 'xml', nor does it define build_model(); see tasks/task.py.")
    commanded = ("set_command", "fitness_achieved", "fitness_did") if task.commands is not None else ()
    for method in ("reset", "signals", "observe", "terminate", "fitness", *commanded):
        if getattr(type(task), method) is getattr(Task, method):
            raise UserError(f"task class {kind} does not define {method}(); see the contract in tasks/task.py.")
    if task.commands is not None:
        _check_commands(task, task.commands)
    if not isinstance(task.signal_table, SignalTable):
        raise UserError(
            f"task '{task.name}': signal_table is a {type(task.signal_table).__name__}, expected a SignalTable."
        )


def _check_commands(task: Task, commands: CommandSet) -> None:
    if not isinstance(commands, CommandSet):
        raise UserError(f"task '{task.name}': commands is a {type(commands).__name__}, expected a CommandSet.")
    wanted, got = len(commands[0].values), len(task.fitness_scale)
    if got != wanted or not all(scale > 0 for scale in task.fitness_scale):
        raise UserError(
            f"task '{task.name}': fitness_scale is {task.fitness_scale}, expected numbers above 0, {wanted} of them, "
            "one for each number of a command."
        )


def _check_numbers(task: Task) -> None:
    if task.fitness_reduce not in ("mean", "sum", "max", "last"):
        raise UserError(
            f"task '{task.name}': fitness_reduce is '{task.fitness_reduce}'; expected mean, sum, max or last."
        )
    if not task.episode_length_s > 0 or not task.control_dt_s > 0:
        raise UserError(f"task '{task.name}': episode_length_s and control_dt_s must be positive.")
