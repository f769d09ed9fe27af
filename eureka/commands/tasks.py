"""`eureka tasks` and `eureka show`: what there is to learn, and what a designer is told of it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tasks.robots.menagerie import missing_reason


@dataclass(frozen=True)
class Tasks:
    """List the tasks: name, what is to be achieved, size of observation and action, unit of the fitness."""

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Print the list; a task that cannot be built is listed with the reason. Robots that are not here are not
        downloaded for it."""
        rows = [_describe(name) for name in registry.names()]
        if self.json:
            print(json.dumps(rows, indent=1))
            return 0
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        for title in ("task", "instruction", "O", "A", "fitness"):
            table.add_column(title, justify="right" if title in "OA" else "left")
        for row in rows:
            if "error" in row:
                table.add_row(row["name"], f"(cannot be loaded: {row['error']})")
            else:
                sizes = (str(row["num_observations"]), str(row["num_actions"]))
                table.add_row(row["name"], row["instruction"], *sizes, row["fitness_unit"])
        Console().print(table)
        print("\nA Python file that holds a task works wherever a task's name does: eureka show my_task.py")
        return 0


@dataclass(frozen=True)
class Show:
    """Print what a reward designer reads about a task: the messages of the first request."""

    task: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")]
    """A task's name, a Python file, or a task of Isaac Lab: isaaclab:Isaac-Ant-Direct-v0."""
    instruction: str | None = None
    """What to achieve, in place of the task's own sentence."""
    json: bool = False
    """Print the messages as JSON."""

    def run(self) -> int:
        """Print the prompt."""
        from eureka import prompts

        task = registry.make(self.task)
        view = prompts.TaskView.of(task)
        if self.instruction is not None:
            view = dataclasses.replace(view, instruction=" ".join(self.instruction.split()))
        messages = prompts.initial_messages(view)
        if self.json:
            print(json.dumps([dataclasses.asdict(message) for message in messages], indent=1))
        else:
            print(prompts.as_markdown(messages), end="")
        return 0


def _describe(name: str) -> dict[str, Any]:
    try:
        task = registry.make(name)
        reason = missing_reason(task.robot) if task.robot else None
        if reason:
            return {"name": name, "error": reason}
        env = make_env(task, 1, num_threads=1)
    except UserError as error:
        return {"name": name, "error": str(error)}
    try:
        return {
            "name": name,
            "instruction": task.instruction,
            "num_observations": env.num_observations,
            "num_actions": env.num_actions,
            "control_rate_hz": round(1.0 / task.control_dt_s, 6),
            "episode_length_s": task.episode_length_s,
            "fitness_unit": task.fitness_unit,
            "fitness": task.fitness_doc,
        }
    finally:
        env.close()
