"""`eureka act` from the command line: a head that is told by words does a tour; its record, its page, and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from imageio_ffmpeg import read_frames

from distill.dataset.reader import EpisodeDataset
from distill.generalist import save_generalist
from eureka.act_page import EVENTS_SHOWN, _merged, _thinned
from rl.render_grid import CAPTION_PX
from tests.distill.puck_head import COMMAND_REF, TOUR_REF, taught
from tests.eureka.chat_server import ChatServer, reply
from tests.eureka.command_line import assert_one_line


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """The folder of the puck's head."""
    folder = tmp_path_factory.mktemp("head") / "puck"
    save_generalist(taught(), folder)
    return folder


@pytest.fixture
def eureka(capsys, monkeypatch, tmp_path):
    """Runs the command line in a folder of its own; (exit code, stdout, stderr)."""
    from eureka.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_a_head_that_is_told_by_words_does_tours(eureka, head):
    words = ("act", "--task", TOUR_REF, "--policy", head, "--speed", 0, "--record", "data")
    code, out, err = eureka(*words, "--tours", 2, "--out", "done")
    assert code == 0, out + err
    assert "2 of 2 tours succeeded" in out and "done/page.html" in out
    found = json.loads(Path("done/result.json").read_text())
    assert found["successes"] == 2 and found["asked"]["planner"] == "oracle"
    assert [tour["seed"] for tour in found["tours"]] == [900_001, 900_002]
    driver = found["tours"][0]["bodies"][0]["driver"]
    assert driver["system_1"] == "head" and driver["chunks"] > 50 and driver["steps_without_action"] == 0
    page = Path("done/page.html").read_text()
    assert "2 of 2" in page and "run forward" in page and "success" in page
    assert not re.search(r"<script|https?://", page), "nothing from elsewhere, and no program"
    events = [json.loads(line) for line in Path("done/tour_000/events.jsonl").read_text().splitlines()]
    assert {event["kind"] for event in events} == {"told"}
    code, _, err = eureka("act", "--task", TOUR_REF, "--policy", head, "--out", "done")
    assert_one_line(code, err, "holds a record already")
    the_tours_are_demonstrations(found)
    assert eureka(*words, "--out", "again")[0] == 0
    assert EpisodeDataset(Path("data")).num_episodes == 2, "the same tour is not recorded twice"


def test_one_head_drives_two_bodies_and_the_second_waits(eureka, head):
    words = ("act", "--task", TOUR_REF, "--second", TOUR_REF, "--policy", head, "--speed", 0, "--out", "two")
    code, out, err = eureka(*words)
    assert code == 0, out + err
    first, second = json.loads(Path("two/result.json").read_text())["tours"][0]["bodies"]
    assert (first["body"], second["body"]) == ("torso 1", "torso 2") and second["time_s"] > first["time_s"]
    assert second["planner"]["asked_while_waiting"] > 3 and "when the torso is at the" in second["goal"]
    page = Path("two/page.html").read_text()
    assert first["goal"] in page and "waits until the torso is at the" in page
    for wrong, said in (({"--second": COMMAND_REF}, "is no tour"), ({"--planner": "manual"}, "plans for one body")):
        given = dict(zip(words[1::2], words[2::2], strict=True)) | {"--out": "wrong"} | wrong
        code, _, err = eureka("act", *(word for pair in given.items() for word in pair))
        assert_one_line(code, err, said)


def the_tours_are_demonstrations(found) -> None:
    """What was recorded against what was told, frame by frame where the record says when."""
    data = EpisodeDataset(Path("data"))
    tours = found["tours"]
    assert list(data.tasks) == list(dict.fromkeys(tour["bodies"][0]["goal"] for tour in tours))
    assert [tour["recorded"] for tour in tours] == [True, True] and data.num_episodes == 2
    assert data.num_frames == sum(round(tour["bodies"][0]["time_s"] / 0.02) for tour in tours)
    frames = data.frames
    words = [data.subtasks[number] for number in frames.subtask]
    events = [json.loads(line) for line in Path("done/tour_000/events.jsonl").read_text().splitlines()]
    for event in events:
        assert words[round(event["time_s"] / 0.02)] == event["instruction"], event
    assert [origin.seed for origin in data.origins or ()] == [900_001, 900_002]


def test_a_vision_planner_sees_pictures_and_they_are_kept(eureka, head, monkeypatch):
    """Drawn for real; the page shows each picture beside the words that it led to, and what the model wrote is escaped."""
    answer = {"note": "<script>alert(1)</script>", "instruction": "turn left", "until": 0.5}
    with ChatServer(default=reply(json.dumps(answer))) as server:
        monkeypatch.setenv("OPENAI_API_KEY", server.key)
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        code, out, err = eureka(
            "act", "--task", TOUR_REF, "--policy", head, "--planner", "openai", "--model", "loop-1", "--speed", 0,
            "--max-s", 1.5, "--image-size", "64x48", "--video", "--out", "seen",
        )  # fmt: skip
        sent = [part for part in server.requests[0].body["messages"][1]["content"] if part["type"] == "image_url"]
    assert code == 1, out + err
    assert "time limit after 1.5 s" in out and len(sent) == 2
    events = [json.loads(line) for line in Path("seen/tour_000/events.jsonl").read_text().splitlines()]
    told = [event for event in events if event["kind"] == "told"]
    assert len(told) == 3 and all(len(event["images"]) == 2 for event in told)
    kept = [Path("seen/tour_000", name).read_bytes() for event in told for name in event["images"]]
    assert all(data.startswith(b"\xff\xd8") for data in kept) and len(set(kept)) > 3, "it sees itself turn"
    page = Path("seen/page.html").read_text()
    video = read_frames("seen/tour_000/video.mp4")
    assert 'href="tour_000/video.mp4"' in page and next(video)["size"] == (640, 240 + CAPTION_PX), "two panels"
    assert sum(1 for _ in video) == pytest.approx(1.5 / 0.08, abs=1), "every frame that was kept"
    assert page.count("data:image/jpeg;base64,") == 6
    assert "<script>" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--planner", "oracel"], "Did you mean 'oracle'"),
        (["--planner", "script"], "needs --script FILE"),
        (["--speed", "-1"], "speed is -1"),
        (["--delay-s", "1"], "only at speed 0"),
        (["--image-size", "big"], "expected WIDTHxHEIGHT"),
        (["--tours", "0"], "expected at least 1"),
        (["--policy", "nowhere"], "there is no run or checkpoint nowhere"),
        (["--task", "cartpole-balance"], "has no commands"),
        (["--task", COMMAND_REF], "the oracle knows its way on tours alone"),
        (["--task", "ant-tour"], "was not taught 'ant-command'"),
        (["--hold-s", "0"], "hold_s is 0.0"),
    ],
)
def test_what_cannot_work_is_one_line(eureka, head, words, said):
    given = {"--task": TOUR_REF, "--policy": str(head), "--speed": "0"}
    if "--delay-s" in words:
        given["--speed"] = "1"
    given |= dict(zip(words[::2], words[1::2], strict=True))
    code, _, err = eureka("act", *(word for pair in given.items() for word in pair))
    assert_one_line(code, err, said)


def test_the_page_of_a_long_run_leaves_out_what_is_alike():
    events = [{"kind": "told", "time_s": 0.1 * n, "body": "a", "instruction": "run", "until": None} for n in range(900)]
    assert [row["times"] for row in _merged(events)] == [900]
    events = [{**event, "instruction": f"i{n}"} for n, event in enumerate(events)]
    events[450] = {"kind": "failed", "time_s": 45.0, "body": "a"}
    rows = _thinned(_merged(events), EVENTS_SHOWN)
    assert len(rows) == EVENTS_SHOWN and any(row["kind"] == "failed" for row in rows)
    assert rows[0]["instruction"] == "i0" and rows[-1]["instruction"] == "i899"
