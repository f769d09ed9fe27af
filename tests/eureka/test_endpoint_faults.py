"""Every fault of an endpoint: its typed outcome, in bounded time, what came of it kept, and the search resumable.

A round of a search asks for two candidates. The first gets its program; the second meets the fault.
"""

from __future__ import annotations

import sqlite3
import time
import tracemalloc
from pathlib import Path

import pytest

from eureka.archive import Archive
from eureka.candidate import Status
from eureka.designers import transport
from eureka.designers.base import DesignerStopped
from eureka.listener import Listener
from tests.eureka.chat_server import KEY, Behaviour, ChatServer, reply
from tests.eureka.endpoint_faults import CODE, FAULTS, HARMLESS, Fault
from tests.eureka.endpoint_round import NAMES, contents, only_second, prompts, search_round

FAULTY = "g01_c01_r0"
ROOM_S = 15.0
"""What a fault may take beside its two tries, on a busy machine."""


def meet(folder: Path, fault: Fault) -> tuple[str, str, str, int]:
    """(how it ends, outcome, line for people, requests made for it) of a fault in a round."""
    with ChatServer(default=only_second(fault.behaviour)) as server:
        started = time.monotonic()
        try:
            search_round(folder, server, request_timeout_s=fault.limit_s)
        except DesignerStopped as stopped:
            found = "stops", str(stopped.outcome), str(stopped)
        else:
            archive = Archive(folder / "search.db", create=False)
            answer = archive.replies()[FAULTY]
            archive.close()
            found = "settles", str(answer.outcome), answer.error or ""
        needed_s = 2 * fault.limit_s if fault.limit_s < 1 else 0.0
        assert time.monotonic() - started < needed_s + ROOM_S
        return *found, prompts(server).count("write g01_c01")


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What is imported at the first request does not count as its time."""
    import openai  # noqa: F401


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_outcome_in_bounded_time_and_the_search_goes_on(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    ends, outcome, line, tries = meet(tmp_path, fault)
    assert (ends, outcome, tries) == (fault.ends, fault.outcome, fault.tries)
    assert fault.words in line
    assert "\n" not in line and len(line) < 600

    archive = Archive(tmp_path / "search.db", create=False)
    first, kept = archive.replies()["g01_c00_r0"], archive.exchanges(FAULTY)
    archive.close()
    assert (first.outcome, first.text) == ("ok", CODE), "the reply that had arrived was lost"
    assert len(kept) == tries, "an exchange was not stored"
    if fault.behaviour.play is None and fault.behaviour.drop is None and "gzip" not in name:
        assert kept[-1].body == fault.behaviour.body.replace(KEY.encode(), b"[key]")
    held = contents(tmp_path)
    assert KEY.encode() not in held
    assert len(held) < 3 * 2**20

    with ChatServer(default=reply(CODE)) as server:
        judged = search_round(tmp_path, server)
        # Nothing that arrived is asked for again; what did not is.
        assert prompts(server) == (["write g01_c01"] if fault.ends == "stops" else [])
    statuses = {name: str(c.status) for name, c in judged.items()}
    unsettled = {"truncated": Status.REFUSED}.get(fault.outcome, Status.NO_REPLY)
    second = Status.ACCEPTED if fault.ends == "stops" else unsettled
    assert statuses == {"g01_c00": str(Status.ACCEPTED), "g01_c01": str(second)}


def test_enough_faults_are_tried() -> None:
    assert len(FAULTS) >= 30


@pytest.mark.parametrize("name", HARMLESS)
def test_an_odd_answer_with_a_program_in_it_is_taken(name: str, tmp_path: Path) -> None:
    with ChatServer(default=only_second(HARMLESS[name])) as server:
        judged = search_round(tmp_path, server)
        assert len(server.requests) == 2
    assert [str(c.status) for c in judged.values()] == [str(Status.ACCEPTED)] * 2
    archive = Archive(tmp_path / "search.db", create=False)
    replies, used = archive.replies(), archive.tokens_used()
    archive.close()
    answer = replies[FAULTY]
    assert answer.outcome == "ok" and answer.text is not None and answer.text.startswith(CODE)
    assert len(answer.model or "") <= 200 and "\n" not in (answer.model or "")
    # 150 of the first; the second's own count, where it is one.
    assert 150 <= used <= 400


def test_a_huge_reply_fills_no_memory(tmp_path: Path) -> None:
    """50 MB, sent as they are and in 50 kB of gzip: neither is ever in memory as a whole."""
    for name in ("50 MB without a length", "gzip bomb"):
        folder = tmp_path / name
        folder.mkdir()
        behaviour = FAULTS[name].behaviour
        with ChatServer(default=only_second(behaviour)) as server:
            tracemalloc.start()
            search_round(folder, server, retries=0)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert name == "gzip bomb" or server.broken_pipes == 1, "all of it was read"
        assert peak < 16 * 2**20


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """Neither the request nor the key arrives anywhere else."""
    with ChatServer() as other:
        place = other.base_url + "/chat/completions"
        for status in (301, 302, 303, 307, 308):
            folder = tmp_path / str(status)
            folder.mkdir()
            away = Behaviour(status, b"", {"Location": place})
            with ChatServer(default=only_second(away)) as server, pytest.raises(DesignerStopped, match="OPENAI_BASE_"):
                search_round(folder, server)
        assert other.paths == []


def test_what_was_paid_for_is_stored_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search dies as it begins to read the replies. Resumed, it reads them from the archive."""

    def die(_: object) -> None:
        raise SystemExit("killed")

    with ChatServer(default=reply(CODE)) as server:
        with monkeypatch.context() as patched:
            patched.setattr("eureka.designers.chat.understand", die)
            with pytest.raises(SystemExit):
                search_round(tmp_path, server, parallel=1)
        assert prompts(server) == ["write g01_c00"]
        judged = search_round(tmp_path, server, parallel=1)
        assert prompts(server) == ["write g01_c00", "write g01_c01"]
    assert [str(c.status) for c in judged.values()] == [str(Status.ACCEPTED)] * 2
    archive = Archive(tmp_path / "search.db", create=False)
    assert archive.tokens_used() == 300, "the reply that was read from the archive was not counted"
    archive.close()


def test_an_interrupt_keeps_what_had_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while one reply is being delivered and another lies in the queue: neither is paid for again."""

    def interrupt(*_: object) -> None:
        time.sleep(0.3)
        raise KeyboardInterrupt

    with ChatServer(default=reply(CODE)) as server:
        with monkeypatch.context() as patched:
            patched.setattr(Listener, "reply_arrived", interrupt)
            with pytest.raises(KeyboardInterrupt):
                search_round(tmp_path, server)
        search_round(tmp_path, server)
        assert prompts(server) == ["write g01_c00", "write g01_c01"]


def test_raw_answers_do_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit for the whole search only the first bytes of an answer are kept, and it is no longer whole."""
    monkeypatch.setattr("eureka.archive.EXCHANGES_LIMIT", 200)
    monkeypatch.setattr("eureka.archive.EXCHANGE_HEAD", 10)
    with ChatServer(default=reply(CODE)) as server:
        search_round(tmp_path, server)
    archive = Archive(tmp_path / "search.db", create=False)
    kept = [exchange for name in NAMES for exchange in archive.exchanges(f"{name}_r0")]
    archive.close()
    assert [(len(exchange.body), exchange.complete) for exchange in kept] == [(10, False)] * 2


def test_an_archive_without_exchanges_gets_them(tmp_path: Path) -> None:
    """A search begun by an earlier version goes on."""
    archive = Archive(tmp_path / "search.db")
    archive.close()
    with sqlite3.connect(tmp_path / "search.db") as database:
        for newer in ("exchanges", "feedback"):
            database.execute(f"DROP TABLE {newer}")
        for newer in ("rung", "rung_fitness"):
            database.execute(f"ALTER TABLE candidates DROP COLUMN {newer}")
        database.execute("UPDATE meta SET value='1' WHERE key='schema_version'")
    database.close()
    with ChatServer(default=reply(CODE)) as server:
        judged = search_round(tmp_path, server)
    assert [str(c.status) for c in judged.values()] == [str(Status.ACCEPTED)] * 2


def test_a_read_of_the_client_that_takes_the_whole_time_is_a_timeout_before_our_timer_wakes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(transport._Timer, "__enter__", lambda timer: timer)  # its thread is not scheduled in time
    ends, outcome, line, _ = meet(tmp_path, FAULTS["hung in the body"])
    assert (ends, outcome) == ("settles", "timeout")
    assert "no complete answer within" in line
