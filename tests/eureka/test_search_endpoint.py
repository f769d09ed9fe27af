"""A whole search over HTTP: the openai designer against a real loopback server that misbehaves on the way."""

from __future__ import annotations

import itertools
import threading

from eureka.archive import Archive
from eureka.candidate import Status
from eureka.designers.base import DesignerConfig
from eureka.designers.create import create
from eureka.executors.local import LocalExecutor
from eureka.search import run_search
from eureka.search_config import start_folder
from tests.eureka.chat_server import KEY, Behaviour, ChatServer, Request, completion, drop, error, reply
from tests.eureka.scripted import program, slider_config

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
        result = run_search(folder, config, designer, LocalExecutor(2, 1))

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
