"""`eureka pipeline`: searches or trainings, distillation, tours, one after the other, out of one file."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from eureka.pipeline import PAGE, read_pipeline, run_pipeline


@dataclass(frozen=True)
class Pipeline:
    """Run the stages of a file; what is done is not run again, and what was interrupted goes on."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE.toml")]
    """[[stage]] tables with name, command (search, train, distill, act), args; {name} is a stage's folder."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of the stages; runs/pipeline/NAME-DATE when not given. Name the same one to go on."""

    def run(self) -> int:
        """Run what is to be done; the exit code is that of the stage that failed."""
        from eureka.cli import main

        stages = read_pipeline(self.file)
        date = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = self.out or Path("runs") / "pipeline" / f"{self.file.stem}-{date}"
        code = run_pipeline(stages, folder, main, Console(stderr=True, highlight=False, soft_wrap=True).print)
        print(folder / PAGE)
        return code
