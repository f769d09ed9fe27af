"""The trial's child process: confines itself, then tries one program after another; see `rewards.sandbox`.

Reads programs.json, table.json and samples.pt in the folder that it is given; writes to its standard output,
for each program, one JSON line when it starts and one with its verdict.
"""

import faulthandler
import json
import os
from pathlib import Path
from typing import IO

import torch
import torch._dynamo  # torch imports it on first use, makes a folder for its cache then, and is refused

from rewards.confine import REWARD_CHILD, confine
from rewards.trial import examine
from tasks.signals import Signal, SignalTable


def main(folder: str, patience_s: float) -> None:
    """Try every program of a folder; returns when all have their verdict.

    A program that runs for `patience_s` has its present line written to standard error, as a crash has.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else writes to standard output cannot pass for a verdict
    faulthandler.enable()
    torch.set_num_threads(1)
    root = Path(folder)
    table = SignalTable([Signal(**item) for item in json.loads((root / "table.json").read_text(encoding="utf-8"))])
    batches = torch.load(root / "samples.pt", weights_only=True)
    programs = json.loads((root / "programs.json").read_text(encoding="utf-8"))
    confine(REWARD_CHILD)
    for index, text in programs:
        _say(answers, {"kind": "start", "index": index})
        faulthandler.dump_traceback_later(patience_s)
        _say(answers, {"kind": "verdict", "index": index, "verdict": examine(text, table, batches)})


def _say(answers: IO[str], message: dict[str, object]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()
