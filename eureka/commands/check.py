"""`eureka check`: the gate's verdict on a reward program, as a designer would get it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eureka.commands.confinement import announce
from eureka.commands.places import existing_file
from eureka.named_reward import judge
from tasks import registry
from tasks.errors import UserError

REFUSED = 3


@dataclass(frozen=True)
class Check:
    """Judge a reward program: is it one, does it keep the rules, does it run on real states. Exit code 0: accepted,
    3: refused."""

    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")]
    """A reward program, or the raw reply of a chat model; - reads the standard input."""
    task: str
    """The task whose signals it uses: a name, or a Python file."""
    json: bool = False
    """Print the verdict as JSON."""
    require_sandbox: bool = False
    """Refuse to run the program where its process cannot be confined in full."""

    def run(self) -> int:
        """Print the verdict."""
        if self.require_sandbox:
            announce(print, require=True)
        task = registry.make(self.task)
        verdict = judge(task, self._text(), origin=self.file)
        if self.json:
            print(json.dumps({"file": self.file, "task": task.name, **verdict.to_json()}, indent=1))
        else:
            print(verdict.explain())
        return 0 if verdict.accepted else REFUSED

    def _text(self) -> str:
        try:
            if self.file == "-":
                return sys.stdin.read()
            return existing_file(Path(self.file), "reward file").read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{self.file} is no UTF-8 text ({error.reason}); save it as UTF-8.") from None
