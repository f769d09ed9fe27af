"""Rewards written in any chat window: prompts out as files, replies in as files or pasted into the terminal.

For each ask `<search>/manual/<ask_id>.prompt.md` is written and `<ask_id>.reply.md` is awaited. A reply counts once its
file has stood still for `manual_settle_s`, or ten times that where it does not read as whole (no program yet, or a
code fence that is still open): what is being saved, pasted or copied is not read half. Reply files that are there
already count, so a search can be stopped and resumed."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from eureka.designers.base import Ask, DesignerConfig, DesignerStopped, Reply
from eureka.prompts import as_markdown
from rewards.source import reads_as_whole
from rl.record import write_atomic
from tasks.errors import UserError

END = "END"
UNFINISHED = 10.0
"""A reply that does not read as whole has to stand still so many times longer."""
HEADER = "<!-- Paste what follows into a chat window; save the whole answer as {reply} in this folder. -->\n\n"


@dataclass
class _Seen:
    """A reply's file at the last look."""

    mark: tuple[int, int, int]
    """Size, time and number: of a file that is saved anew by another name, the number changes."""
    still_s: float
    """For how long it has been so."""
    told: bool = False
    """Whether the person knows that it is waited for."""


class ManualDesigner:
    """Waits for a person.

    Args:
        config: poll interval, how long a file has to stand still, timeout, and whether replies are pasted.
        search_dir: the search's folder.
        say: takes one line for the person at the terminal.
        terminal: where pasted replies come from; the standard input when not given.
    """

    name = "manual"

    def __init__(
        self,
        config: DesignerConfig,
        *,
        search_dir: Path,
        say: Callable[[str], None] = print,
        terminal: TextIO | None = None,
    ) -> None:
        self.config = config
        self.folder = Path(search_dir) / "manual"
        self._say = say
        self._terminal = terminal if terminal is not None else sys.stdin
        self._seen: dict[str, _Seen] = {}
        self._taken: set[str] = set()  # pasted replies: whole, whatever they hold
        self._looked_s = 0.0

    def check(self) -> None:
        """Makes the folder.

        Raises:
            UserError: it cannot be written, or pasting was asked for without a terminal.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"the manual designer cannot make {self.folder}: {error.strerror}.") from error
        if self.config.manual_paste and not self._terminal.isatty():
            raise UserError("--manual-paste needs a terminal to paste into; leave it away and save replies as files.")

    def answer(self, asks: Sequence[Ask], on_reply: Callable[[Reply], None]) -> None:
        """Writes the prompts and delivers each reply as its file settles.

        Raises:
            DesignerStopped: `manual_timeout_s` passed, or the terminal was closed while replies were pasted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        waiting = {ask.ask_id: ask for ask in asks}
        for ask in asks:
            self._write_prompt(ask)
        self._seen.clear()
        self._looked_s = started
        self._deliver(waiting, on_reply, started, first=True)
        if not waiting:
            return
        pasted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        if self.config.manual_paste:
            threading.Thread(target=_paste, args=(self._terminal, pasted), daemon=True).start()
        self._announce(waiting)
        while waiting:
            limit_s = self.config.manual_timeout_s
            if limit_s is not None and time.monotonic() - started > limit_s:
                raise DesignerStopped(
                    f"no reply for {', '.join(waiting)} within {limit_s:g} s: save replies in {self.folder} "
                    "and go on with --resume, or raise --manual-timeout-s."
                )
            self._take_pasted(pasted, waiting)
            self._deliver(waiting, on_reply, started)
            if waiting:
                time.sleep(self.config.manual_poll_s)

    def reply_path(self, ask_id: str) -> Path:
        """Where the reply to an ask is awaited."""
        return self.folder / f"{ask_id}.reply.md"

    def _write_prompt(self, ask: Ask) -> None:
        path = self.folder / f"{ask.ask_id}.prompt.md"
        text = HEADER.format(reply=self.reply_path(ask.ask_id).name) + as_markdown(ask.messages)
        write_atomic(path, text.encode())

    def _announce(self, waiting: dict[str, Ask]) -> None:
        files = ", ".join(self.reply_path(name).name for name in waiting)
        line = f"Waiting for {len(waiting)} replies in {self.folder}: {files} (the prompts lie beside them)."
        if self.config.manual_paste:
            line += f" Or paste the reply to {next(iter(waiting))} here and end it with a line {END}."
        self._say(line)

    def _deliver(
        self, waiting: dict[str, Ask], on_reply: Callable[[Reply], None], started: float, *, first: bool = False
    ) -> None:
        """Delivers the replies whose files are finished."""
        now = time.monotonic()
        # More than two polls count as two: a machine that was frozen may have frozen who writes, too.
        since_s, self._looked_s = min(now - self._looked_s, 2 * self.config.manual_poll_s), now
        for ask_id in list(waiting):
            text = self._finished(ask_id, since_s, first)
            if text is not None:
                del waiting[ask_id]
                on_reply(Reply(ask_id, text, "ok", model="manual", latency_s=time.monotonic() - started))

    def _finished(self, ask_id: str, since_s: float, first: bool) -> str | None:
        """The text of a reply whose file nobody writes any more; None where there is none yet.

        At the first look the time since a file was last changed counts as time that it has stood still.
        """
        path = self.reply_path(ask_id)
        mark = _mark(path)
        if mark is None:
            self._seen.pop(ask_id, None)
            return None
        seen = self._seen.get(ask_id)
        if seen is None or seen.mark != mark:
            seen = self._seen[ask_id] = _Seen(mark, time.time() - mark[1] / 1e9 if first else 0.0)
        else:
            seen.still_s += since_s
        pasted, settle_s = ask_id in self._taken, self.config.manual_settle_s
        if seen.still_s < settle_s and not pasted:
            return None
        text = path.read_text(encoding="utf-8", errors="replace")
        if not text.strip() or _mark(path) != mark:
            return None
        if pasted or seen.still_s >= UNFINISHED * settle_s or reads_as_whole(text):
            return text
        if not seen.told:
            seen.told = True
            self._say(
                f"{path.name} holds no whole program: it is taken as it is once it has not changed for "
                f"{UNFINISHED * settle_s:g} s."
            )
        return None

    def _take_pasted(self, pasted: queue.SimpleQueue[str | None], waiting: dict[str, Ask]) -> None:
        """Stores a pasted reply as the file of the first open ask; from there it goes as all files go.

        Raises:
            DesignerStopped: the terminal was closed while replies were still missing.
        """
        open_asks = [name for name in waiting if not self.reply_path(name).exists()]
        if not open_asks:
            return
        try:
            text = pasted.get_nowait()
        except queue.Empty:
            return
        if text is None:
            raise DesignerStopped(f"the terminal was closed: save replies in {self.folder}, then --resume.")
        if not text.strip():
            return
        write_atomic(self.reply_path(open_asks[0]), text.encode())
        self._taken.add(open_asks[0])
        self._say(f"Took the reply to {open_asks[0]}." + (f" Next: {open_asks[1]}." if len(open_asks) > 1 else ""))


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Size, time and number of a file; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _paste(terminal: TextIO, pasted: queue.SimpleQueue[str | None]) -> None:
    """Reads replies, each ended by a line END; None at the end of the input."""
    lines: list[str] = []
    for line in terminal:
        if line.strip() == END:
            pasted.put("".join(lines))
            lines = []
        else:
            lines.append(line)
    pasted.put(None)
