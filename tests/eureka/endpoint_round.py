"""One round of a search over HTTP: two candidates, a real designer and archive, a gate that takes any whole function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eureka.archive import Archive
from eureka.candidate import Candidate
from eureka.designers.base import Ask, DesignContext, DesignerConfig, Message, Reply
from eureka.designers.openai import OpenAIDesigner
from eureka.designers.retrying import BackOff
from eureka.listener import Listener
from eureka.proposing import propose
from tasks.signals import Signal, SignalTable
from tests.eureka.chat_server import KEY, Behaviour, ChatServer, Request, reply
from tests.eureka.endpoint_faults import CODE

TABLE = SignalTable([Signal("mass_position", 1, "m", "world", "position", "where it is")])
NAMES = ("g01_c00", "g01_c01")


@dataclass(frozen=True)
class Judgement:
    """As `rewards.gate.Verdict`, as far as a round needs it."""

    accepted: bool
    source: None = None
    stage: str = "extract"
    graph: None = None

    def explain(self) -> str:
        return "no program"


class LenientGate:
    """Takes any text that holds a whole function: these tests are about what comes before the gate."""

    def judge(self, replies: dict[str, Reply]) -> dict[str, Judgement]:
        return {name: Judgement("return pull" in (reply.text or "")) for name, reply in replies.items()}


def search_round(folder: Path, server: ChatServer, **settings) -> dict[str, Candidate]:
    """Proposes both candidates in `folder`, or goes on with it, as a search's generation does."""
    given = {"request_timeout_s": 10.0, "ask_deadline_s": 20.0, "retries": 1, "parallel": 2, **settings}
    config = DesignerConfig(designer="openai", model="loop-1", base_url=server.base_url, **given)
    archive = Archive(folder / "search.db")
    designer = OpenAIDesigner(config, back_off=BackOff(0.01, 1.5, 0.05), api_key=KEY, tokens_used=archive.tokens_used())
    known = {c.candidate_id: c for c in archive.candidates()}
    candidates = [known.get(name) or Candidate(name, 1, i) for i, name in enumerate(NAMES)]
    context = DesignContext("slider", "move", TABLE)
    asks = {name: Ask(f"{name}_r0", name, 0, (Message("user", f"write {name}"),), context) for name in NAMES}
    try:
        judged = propose(
            candidates,
            asks,
            designer=designer,
            gate=LenientGate(),  # type: ignore[arg-type]
            archive=archive,
            repairs=0,
            folder=folder,
            listener=Listener(),
        )
    finally:
        archive.close()
    return {c.candidate_id: c for c in judged}


def only_second(behaviour: Behaviour) -> Callable[[Request], Behaviour]:
    """The fault for the second candidate, a program for the first."""

    def answer(request: Request) -> Behaviour:
        return behaviour if request.prompt.endswith("c01") else reply(CODE)

    return answer


def prompts(server: ChatServer) -> list[str]:
    return sorted(request.prompt for request in server.requests)


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
