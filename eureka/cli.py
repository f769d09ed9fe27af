"""The command line: `eureka COMMAND ...`. Finds the command, reads its options, and turns every error into one line.

Only the chosen command's file is imported, so that help and typing errors cost no start of torch.

Exit codes: 0 done; 1 something failed that is no fault of the input; 2 bad input, one line on stderr; 3 a reward
program was refused, or a search's folder is not sound; 130 interrupted.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import tyro

from eureka.designers.key import withheld
from tasks.errors import UserError, did_you_mean
from tasks.graphics import check_mujoco_gl


@dataclass(frozen=True)
class Entry:
    """Where a command is, and what it does in a few words."""

    target: str
    """ "module:Class"."""
    summary: str


COMMANDS: dict[str, Entry] = {
    "tasks": Entry("eureka.commands.tasks:Tasks", "list the tasks"),
    "show": Entry("eureka.commands.tasks:Show", "what a reward designer reads about a task"),
    "check": Entry("eureka.commands.check:Check", "the gate's verdict on a reward file or a raw reply"),
    "search": Entry("eureka.commands.search:Search", "let a designer write rewards, train under each, improve them"),
    "train": Entry("eureka.commands.train:Train", "train one policy under one reward"),
    "distill": Entry("eureka.commands.distill:Distill", "experts of many bodies into one policy that is told by words"),
    "evaluate": Entry("eureka.commands.policies:Evaluate", "measure a trained policy on held-out episodes"),
    "play": Entry("eureka.commands.policies:Play", "film a trained policy, or watch it in a window"),
    "export": Entry("eureka.commands.policies:Export", "write a trained policy as ONNX"),
    "report": Entry("eureka.commands.report:Report", "write the page of a search anew"),
    "record": Entry("eureka.commands.report:Record", "keep a search's replies in a folder that can be replayed"),
    "bench": Entry("eureka.commands.bench:Bench", "methods x tasks x seeds as one table"),
    "dataset": Entry("eureka.commands.dataset:Dataset", "what is in a dataset of demonstrations; export it for GR00T"),
    "act": Entry("eureka.commands.act:Act", "carry out a goal: a planner on top of a policy, in the simulator"),
    "pipeline": Entry("eureka.commands.pipeline:Pipeline", "searches, distillation and tours out of one file"),
    "doctor": Entry("eureka.commands.doctor:Doctor", "what works on this machine, and how to mend what does not"),
}

INTERRUPTED = 130

# Before the interpreter takes everything apart: it then searches none of it for garbage, which is most of an exit that
# has torch in it.
atexit.register(gc.freeze)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: Words after `eureka`; those of the process when not given.
    """
    # Before torch is imported: its threads would otherwise spin for work while the physics threads need the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with withheld():
            return _run(words)
    except UserError as error:
        return _fail(_one_line(str(error)), error.exit_code, debug)
    except KeyboardInterrupt as error:
        return _fail(str(error) or "interrupted.", INTERRUPTED, debug)
    except BrokenPipeError:
        # The reader of our output has gone (`eureka show ant-run | head`). Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        text = _one_line(f"{type(error).__name__}: {error}")
        return _fail(f"unexpected {text}; run again with --debug to see where.", 1, debug)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(_version())
        return 0
    name = words[0]
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        raise UserError(f"there is no {kind} '{name}'; `eureka` lists the commands.{did_you_mean(name, COMMANDS)}")
    check_mujoco_gl()
    module, _, class_name = COMMANDS[name].target.partition(":")
    gc.disable()  # what is imported lasts: no garbage
    try:
        command_class = getattr(importlib.import_module(module), class_name)
    finally:
        gc.enable()
    command = _parse(command_class, name, words[1:])
    return 0 if command is None else command.run()


def _parse(command_class: type, name: str, words: list[str]):
    """The command with its options; None where its help was printed.

    Raises:
        UserError: an option is unknown, lacks its value, or has one that cannot be read.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            command, unknown = tyro.cli(command_class, args=words, prog=f"eureka {name}", return_unknown_args=True)
    except SystemExit as end:
        if not end.code:
            return None
        raise UserError(f"{_complaint(complaint.getvalue())} See eureka {name} --help.") from None
    if unknown:
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            raise UserError(f"'{word}' is one argument too many. See eureka {name} --help.")
        hint = did_you_mean(word, _flags(command_class, name))
        raise UserError(f"there is no option '{word}'.{hint} See eureka {name} --help.")
    return command


def _flags(command_class: type, name: str) -> list[str]:
    """The option names of a command, read from its help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(command_class, args=["--help"], prog=f"eureka {name}")
    return sorted(set(re.findall(r"--[a-z][a-z0-9-]*", text.getvalue())))


def _complaint(box: str) -> str:
    """What the option parser complains of, as one sentence: the text of its frame above the first rule."""
    lines: list[str] = []
    for line in box.splitlines()[1:]:  # below the title; the frame is of blanks where the output knows no Unicode
        inner = line[1:].rstrip("│ ")
        if line.startswith("╰") or set(inner.strip()) <= {"─", "-"}:
            if lines:
                break
            continue
        lines.append(inner)
    if lines and lines[0].strip().startswith("Missing from"):
        # Below its headline the names are indented once, their explanations twice.
        names = [line.strip() for line in lines[1:] if re.match(r" {5}\S", line)]
        if names:
            return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing."
    text = " ".join(" ".join(lines).split()) or "the options cannot be read."
    return text if text.endswith((".", "!", "?")) else text + "."


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {entry.summary}" for name, entry in COMMANDS.items())
    return (
        "usage: eureka COMMAND [OPTIONS]\n\n"
        "A designer writes reward functions, policies train under each, and what happened goes back.\n\n"
        f"commands:\n{rows}\n\n"
        "eureka COMMAND --help explains one. --debug anywhere shows the traceback of an error.\n"
        "First steps: eureka doctor; eureka search ball-balance -k 4 -n 2"
    )


def _version() -> str:
    try:
        return f"eureka-skills {version('eureka-skills')}"
    except PackageNotFoundError:
        return "eureka-skills (not installed, run from its sources)"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _fail(text: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"eureka: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
