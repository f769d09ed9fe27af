"""A whole search over HTTP: the openai designer against a real loopback server that misbehaves on the way."""

from __future__ import annotations

import itertools
import threading

from eureka.archive import Archive
from eureka.candidate import Status
from eureka.cli import main
from eureka.designers.base import DesignerConfig
from eureka.designers.create import create
from eureka.search import run_search
from eureka.search_config import start_folder
from tests.eureka.chat_server import KEY, Behaviour, ChatServer, Request, completion, drop, error, reply
from tests.eureka.in_process import InProcessExecutor, train_here
from tests.eureka.scripted import SLIDER, program, slider_config

FAULTS = [
    error(429, "rate_limit_exceeded", headers={"Retry-After": "1"}),
    error(500, message="the server is having a bad day"),
    drop("in the middle"),
    completion(choices=[]),
    reply("I would reward being near the middle, but here is no program."),
]


class Model:
    """Writes a new valid program on each call, numbered in order of arrival."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Behaviour:
        with self._lock:
            number = next(self._numbers)
        return reply(program(float(number), f"pull_{number}"))


def test_a_search_survives_a_misbehaving_endpoint(tmp_path, monkeypatch):
    """429 with Retry-After, 500, a dropped connection, an empty choice and a reply without code, in one search."""
    with ChatServer(FAULTS, default=Model()) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        config = slider_config(
            samples=3, generations=2, final_seeds=0, designer=DesignerConfig(designer="openai", model="loop-1")
        )
        folder = start_folder(config, tmp_path / "search")
        designer = create(config.designer, search_dir=folder)
        designer.check()
        result = run_search(folder, config, designer, InProcessExecutor())

        archive = Archive(folder / "search.db", create=False)
        candidates, replies = archive.candidates(), archive.replies()
        tokens = archive.tokens_used()
        archive.close()
        assert [str(c.status) for c in candidates] == [str(Status.TRAINED)] * 6
        assert result.best is not None and result.best.fitness is not None
        # Each candidate's program is the one in the reply of its own last ask.
        for candidate in candidates:
            assert candidate.source is not None
            last = replies[f"{candidate.candidate_id}_r{candidate.repairs}"]
            assert last.text is not None and candidate.source.strip() in last.text
        assert sum(c.repairs for c in candidates) >= 1, "the reply without code was never sent back for repair"
        assert tokens > 0
        assert not server.script, "a fault was never met"
        # Five faults were answered with further requests, beyond the six programs wanted.
        assert len(server.requests) >= 6 + len(FAULTS)
        assert all(KEY not in path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


def test_a_spent_quota_stops_with_one_line_and_resume_pays_for_the_rest_only(tmp_path, monkeypatch, capfd):
    """By the command line: the first program arrives, then the account is empty; after a payment it goes on."""
    folder = tmp_path / "search"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    train_here(monkeypatch)

    def empty_account(request: Request) -> Behaviour:
        spent = error(429, "insufficient_quota", "You exceeded your current quota")
        return reply(program(1.0, "pull_first")) if "g01_c00" in arrived(request) else spent

    seen: list[str] = []

    def arrived(request: Request) -> str:
        """The first prompt that comes is the first candidate's."""
        seen.append(request.prompt)
        return "g01_c00" if request.prompt == seen[0] else ""

    options = ["--designer", "openai", "--model", "loop-1", "--parallel", "1", "--base-url"]
    size = ["-k", "2", "-n", "1", "--repairs", "0", "--final-seeds", "0", "--iterations", "1", "--no-video"]
    with ChatServer(default=empty_account) as server:
        code = main(["search", str(SLIDER), *size, *options, server.base_url, "--out", str(folder)])
        assert len(server.requests) == 2
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert code == 2 and line.startswith("eureka: ")
    for words in ("insufficient_quota", "top up the account", f"eureka search --resume {folder}"):
        assert words in line
    archive = Archive(folder / "search.db", create=False)
    assert archive.meta("state") == "stopped"
    assert list(archive.replies()) == ["g01_c00_r0"]
    archive.close()

    with ChatServer(default=reply(program(2.0, "pull_second"))) as server:
        assert main(["search", "--resume", str(folder), "--base-url", server.base_url]) == 0
        assert len(server.requests) == 1 and server.requests[0].prompt == seen[1]
    archive = Archive(folder / "search.db", create=False)
    programs = [c.source or "" for c in archive.candidates()]
    assert [str(c.status) for c in archive.candidates()] == ["trained", "trained"]
    archive.close()
    assert "pull_first" in programs[0] and "pull_second" in programs[1]
