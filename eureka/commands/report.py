"""`eureka report`: the page of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eureka.report import write_report
from eureka.search_config import CONFIG_FILE, load_config
from tasks.errors import UserError


@dataclass(frozen=True)
class Report:
    """Write report.html of a search anew; a search that is running may be reported too."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SEARCH_FOLDER")]
    """Folder of a search."""

    def run(self) -> int:
        """Write the page and print its path."""
        if self.folder.is_file():
            raise UserError(f"{self.folder} is a file, expected the folder of a search, which holds {CONFIG_FILE}.")
        load_config(self.folder)  # says in one line what is wrong with the folder
        print(write_report(self.folder))
        return 0
