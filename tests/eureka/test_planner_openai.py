"""The planner behind a vision endpoint, against a real HTTP server on loopback: what it sends, what it takes for an
answer, every fault, and whole tours whose answers come from the oracle."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable

import pytest

from distill.planner import Picture, PlannerError, Subtask, Turn, Vocabulary
from distill.planner_oracle import OraclePlanner
from distill.runtime import Body, BodyResult, RuntimeConfig, run
from distill.runtime_driver import ExpertDriver
from distill.runtime_journal import Journal
from distill.runtime_system2 import Rhythm
from eureka.planner_openai import OpenAIPlanner, PlannerConfig, read_subtask, subtask_schema
from tasks.env import make_env
from tasks.errors import UserError
from tests.distill.puck import PuckTour, policy
from tests.eureka.chat_server import Behaviour, ChatServer, Request, drop, error, raw, reply
from tests.eureka.endpoint_faults import hang

VOCABULARY = Vocabulary(PuckTour.commands)
PICTURES = (Picture("eyes", b"\xff\xd8eyes\xff\xd9", 320, 240), Picture("above", b"\xff\xd8above\xff\xd9", 320, 240))
GOOD = {"note": "it is ahead", "instruction": "run forward", "until": 1.5}


def said(data: object = GOOD, **options) -> Behaviour:
    return reply(json.dumps(data), **options)


def planner(server: ChatServer, **changes) -> OpenAIPlanner:
    settings = {"model": "loop-1", "base_url": server.base_url, "request_timeout_s": 5.0, "deadline_s": 8.0}
    vocabulary = changes.pop("vocabulary", VOCABULARY)
    return OpenAIPlanner(PlannerConfig(**(settings | changes)), vocabulary, api_key=server.key)


def test_what_is_sent():
    with ChatServer(default=said()) as server:
        asked = planner(server, image_detail="low", max_reply_tokens=200)
        history = [Turn(0.5, Subtask("turn left", 1.0, "it is to the left"), 1.0)]
        assert asked.plan(PICTURES, "visit the red post", history) == Subtask("run forward", 1.5, "it is ahead")
        body = server.requests[0].body
    system, user = body["messages"]
    assert all(f"- {name}\n" in system["content"] for name in VOCABULARY.names)
    assert "nothing else:" in system["content"]
    texts = [part["text"] for part in user["content"] if part["type"] == "text"]
    assert "Goal: visit the red post" in texts[0] and "at 0.5 s: turn left, held 1.0 s (it is to the left)" in texts[0]
    assert texts[1:] == ["camera eyes:", "camera above:"]
    images = [part["image_url"] for part in user["content"] if part["type"] == "image_url"]
    assert all(image["detail"] == "low" for image in images)
    kinds, data = zip(*(image["url"].split(",") for image in images), strict=True)
    assert set(kinds) == {"data:image/jpeg;base64"}
    assert [base64.b64decode(one) for one in data] == [picture.jpeg for picture in PICTURES]
    assert body["response_format"]["json_schema"]["schema"] == subtask_schema(VOCABULARY.names, free=False)
    assert body["response_format"]["json_schema"]["schema"]["properties"]["instruction"]["enum"] == list(
        VOCABULARY.names
    )
    assert body["max_completion_tokens"] == 200 and "temperature" not in body
    assert asked.facts()["tokens_in"] == 100 and asked.facts()["tokens_out"] == 50


def test_free_language_is_asked_for_and_let_through():
    free = Vocabulary(PuckTour.commands, free=True)
    with ChatServer(default=said({**GOOD, "instruction": "tiptoe to the red one"})) as server:
        found = planner(server, vocabulary=free).plan((), "go", ())
        body = server.requests[0].body
    assert found.instruction == "tiptoe to the red one"
    assert body["response_format"]["json_schema"]["schema"]["properties"]["instruction"] == {"type": "string"}
    assert "It was trained on:" in body["messages"][0]["content"]


def test_an_endpoint_without_structured_outputs_is_asked_without():
    refusal = error(400, "invalid_request_error", "response_format is not supported")
    with ChatServer([refusal], default=said()) as server:
        asked = planner(server)
        for _ in range(2):
            assert asked.plan((), "go", ()).instruction == "run forward"
        sent = ["response_format" in request.body for request in server.requests]
    assert sent == [True, False, False] and asked.facts()["structured_outputs"] is False


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("I would run.", "no JSON object"),
        ('{"instruction": "run forward"', "no JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"instruction": 3, "until": 1}', "instruction is 3"),
        ('{"instruction": "fly", "until": 1}', "no command is called 'fly'"),
        ('{"instruction": "run forward", "until": "soon"}', "until is 'soon'"),
        ('{"instruction": "run forward", "until": 1e9}', "holds for"),
        ('{"instruction": "run forward", "until": -1}', "holds for"),
        ('{"instruction": "run forward", "until": NaN}', "holds for"),
    ],
)
def test_a_reply_that_is_no_subtask_is_refused(text, wrong):
    with pytest.raises(UserError, match=wrong) as caught:
        read_subtask(text, VOCABULARY)
    assert "\n" not in str(caught.value)


def test_a_reply_may_have_words_around_its_json():
    text = 'Sure:\n```json\n{"instruction": "Turn left.", "until": "planner decides", "note": "a\\nb"}\n```'
    assert read_subtask(text, VOCABULARY) == Subtask("Turn left", None, "a b")


def test_an_answer_that_is_none_is_sent_back_once_with_what_was_wrong():
    with ChatServer([said({**GOOD, "instruction": "fly"})], default=said()) as server:
        asked = planner(server)
        assert asked.plan(PICTURES, "go", ()).instruction == "run forward"
        again = server.requests[1].body["messages"]
    assert [message["role"] for message in again] == ["system", "user", "assistant", "user"]
    assert "no command is called 'fly'" in again[3]["content"] and asked.facts()["repairs"] == 1


FAULTS: dict[str, tuple[Behaviour, str, bool]] = {
    "429": (error(429, headers={"Retry-After": "0.05"}), "rate_limited", False),
    "429 for an hour": (error(429, headers={"Retry-After": "3600"}), "rate_limited", False),
    "500": (error(500), "server", False),
    "malformed JSON": (raw(b'{"choices": ['), "malformed", False),
    "no subtask": (reply("I am thinking."), "no_subtask", False),
    "outside the list": (said({**GOOD, "instruction": "fly"}), "no_subtask", False),
    "dropped": (drop(), "network", False),
    "hung": (hang(), "timeout", False),
    "refused key": (error(401, "invalid_api_key"), "auth", True),
    "no quota": (error(429, "insufficient_quota"), "quota", True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_an_error_of_its_kind_within_the_deadline(fault):
    behaviour, kind, final = FAULTS[fault]
    with ChatServer(default=behaviour) as server:
        asked = planner(server, retries=1, request_timeout_s=0.4, deadline_s=1.0)
        began = time.monotonic()
        with pytest.raises(PlannerError) as caught:
            asked.plan(PICTURES, "go", ())
        assert time.monotonic() - began < 5.0, "on a busy machine; 1 s at most is meant"
        assert server.key not in str(caught.value)
    assert (caught.value.kind, caught.value.final) == (kind, final)


def test_the_budget_ends_it():
    with ChatServer(default=said()) as server:
        asked = planner(server, max_tokens_total=200)
        asked.plan((), "go", ())
        asked.plan((), "go", ())
        with pytest.raises(PlannerError, match="token budget is spent: 300 of 200") as caught:
            asked.plan((), "go", ())
    assert caught.value.final and len(server.requests) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"model": ""}, "has no model"), ({"base_url": "loop"}, "expected http"), ({"image_detail": "fine"}, "low, high")],
)
def test_settings_that_cannot_work_are_one_line(monkeypatch, changes, said):
    monkeypatch.delenv("OPENAI_MODEL", raising=False)
    settings = {"model": "loop-1", "base_url": "http://127.0.0.1:1/v1"}
    with pytest.raises(UserError, match=said):
        OpenAIPlanner(PlannerConfig(**(settings | changes)), VOCABULARY, api_key="sk-xxxxxxxxxxxx")
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        OpenAIPlanner(PlannerConfig(**settings), VOCABULARY, api_key="")


# -- whole tours


def tour(
    server: ChatServer, box: list[Body], config: RuntimeConfig, seed: int = 1, **changes
) -> tuple[BodyResult, Journal]:
    """A tour of the puck, planned by whatever the server says."""
    task = PuckTour()
    env = make_env(task, 1, seed=seed, num_threads=1)
    journal = Journal(None)
    settings = {"vocabulary": Vocabulary(task.commands)}
    goal = task.tour_goals(env.sim)[0]
    asked = planner(server, **changes)
    box.append(
        Body(
            "puck",
            env,
            ExpertDriver(policy, task),
            asked,
            goal,
            config,
            journal,
            look=lambda state: PICTURES,
            **settings,
        )
    )
    (result,), _ = run(box, config)
    env.close()
    return result, journal


def from_the_oracle(box: list[Body], delay_s: float = 0.0) -> Callable[[Request], Behaviour]:
    """Answers each request as the oracle would."""
    task = PuckTour()
    oracle = OraclePlanner(lambda: task.tour_facts(box[0].view), task.commands, timed=True)

    def answer(request: Request) -> Behaviour:
        subtask = oracle.plan((), "", ())
        data = {"note": subtask.note, "instruction": subtask.instruction, "until": subtask.until}
        return said(data, delay_s=delay_s)

    return answer


def test_a_whole_tour_is_planned_over_http_through_every_passing_fault():
    """The world waits for the planner; faults come on the way, and the tour is done all the same."""
    box: list[Body] = []
    faults = [error(429, headers={"Retry-After": "0.05"}), error(500), raw(b"{"), drop("middle"),
              said({**GOOD, "instruction": "fly to the moon"}), reply("no JSON")]  # fmt: skip
    with ChatServer(default=from_the_oracle(box)) as server:
        server.script = [said({**GOOD, "instruction": "stand still", "until": 0.5}), *faults]
        result, journal = tour(server, box, RuntimeConfig(speed=0.0), retries=1)
        assert len(server.requests) > 10
    assert result.success, result.end
    failed = [event["what"] for event in journal.events if event["kind"] == "failed"]
    assert failed, "two tries do not pass the longest row of faults"
    assert result.planner["repairs"] >= 1 and result.planner["tokens_in"] > 500


def test_a_server_that_is_killed_half_way_leaves_the_body_standing():
    """In real time. What it said last runs out, the body stands, the record says why, and the loop went on."""
    box: list[Body] = []
    config = RuntimeConfig(speed=3.0, after_s=1.0, rhythm=Rhythm(hold_s=1.0, give_up_after=2))
    server = ChatServer(default=from_the_oracle(box))
    with server:
        ask = server.default

        def until_killed(request: Request) -> Behaviour:
            if len(server.requests) > 3:
                server.default = drop()
            return ask(request)  # type: ignore[operator]

        server.default = until_killed
        result, journal = tour(server, box, config, retries=0, request_timeout_s=0.5)
    assert result.end.startswith("the planner is dead: ") and "2 failures in a row" in result.end
    assert result.standing and result.speed_m_s < 0.1 and result.success is False
    assert [event["kind"] for event in journal.events if event["kind"] in ("failed", "dead")] == ["failed"] * 2 + [
        "dead"
    ]
    assert result.counts["network"] == 2 and result.counts["answered"] >= 3
