"""`eureka report` and `eureka record`: what a search or a distillation leaves to be shown, and to be run again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from distill.generalist import is_generalist
from eureka.designers.replay import export_recording
from eureka.generalist_page import write_page
from eureka.report import write_report
from eureka.search_config import CONFIG_FILE, load_config
from tasks.errors import UserError


@dataclass(frozen=True)
class Report:
    """Write report.html of a search or of a generalist anew; a search that is running may be reported too."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder of a search or of a generalist."""

    def run(self) -> int:
        """Write the page and print its path."""
        if is_generalist(self.folder):
            print(write_page(self.folder))
            return 0
        _require_search(self.folder)
        print(write_report(self.folder))
        return 0


@dataclass(frozen=True)
class Record:
    """Keep a search's replies and settings as text files. `eureka search --designer replay --replay-from OUT` runs it
    again without a model."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SEARCH_FOLDER")]
    """Folder of a search; it is only read."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """Folder to write; replies of an earlier recording in it are replaced."""

    def run(self) -> int:
        """Write the folder and print where it is."""
        _require_search(self.folder)
        try:
            print(export_recording(self.folder, self.out).parent)
        except OSError as error:
            raise UserError(f"cannot write {self.out}: {error.strerror}; choose another folder.") from None
        return 0


def _require_search(folder: Path) -> None:
    if folder.is_file():
        raise UserError(f"{folder} is a file, expected the folder of a search, which holds {CONFIG_FILE}.")
    load_config(folder)  # says in one line what is wrong with the folder
