"""Rewards written in any chat window: prompts out as files, replies in as files or pasted into the terminal.

For each ask `<search>/manual/<ask_id>.prompt.md` is written and `<ask_id>.reply.md` is awaited. A reply
counts once it is not empty and its size and time have not changed between two looks, so that a file being
saved is not read half. Reply files that are there already count, so a search can be stopped and resumed."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from eureka.designers.base import Ask, DesignerConfig, DesignerStopped, Reply
from eureka.prompts import as_markdown
from rl.record import write_atomic
from tasks.errors import UserError

END = "END"
HEADER = "<!-- Paste what follows into a chat window; save the whole answer as {reply} in this folder. -->\n\n"


class ManualDesigner:
    """Waits for a person.

    Args:
        config: poll interval, timeout, and whether replies are pasted.
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
        seen: dict[str, tuple[int, int]] = {}
        self._deliver(waiting, seen, on_reply, started, first=True)
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
            self._deliver(waiting, seen, on_reply, started)
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
        self,
        waiting: dict[str, Ask],
        seen: dict[str, tuple[int, int]],
        on_reply: Callable[[Reply], None],
        started: float,
        *,
        first: bool = False,
    ) -> None:
        """Delivers replies whose file is as it was at the last look.

        At the first look a file last changed more than two polls ago counts at once.
        """
        for ask_id in list(waiting):
            try:
                status = self.reply_path(ask_id).stat()
            except FileNotFoundError:
                continue  # not written yet
            mark = (status.st_size, status.st_mtime_ns)
            old = first and time.time() - status.st_mtime > 2 * self.config.manual_poll_s
            if status.st_size > 0 and (old or seen.get(ask_id) == mark):
                text = self.reply_path(ask_id).read_text(encoding="utf-8", errors="replace")
                if text.strip():
                    del waiting[ask_id]
                    on_reply(Reply(ask_id, text, "ok", model="manual", latency_s=time.monotonic() - started))
            seen[ask_id] = mark

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
        self._say(f"Took the reply to {open_asks[0]}." + (f" Next: {open_asks[1]}." if len(open_asks) > 1 else ""))


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
