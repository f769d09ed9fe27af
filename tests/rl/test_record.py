"""Files of a run: requests, metrics with NaNs and torn lines, results, TensorBoard events."""

from __future__ import annotations

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rl.record import RunWriter, make_result, read_metrics, read_request, write_json_atomic, write_request
from tasks.errors import UserError


def line(iteration: int, fitness: float | None = 1.0) -> dict:
    stats = {"mean": 0.5, "min": float("nan"), "max": float("inf"), "nonfinite": 2}
    return {"iteration": iteration, "wall_s": 1.0, "fitness": fitness, "components": {"speed": stats},
            "terminations": {"fell": 3}, "truncations": 0}  # fmt: skip


def test_request_round_trip(make_request, tmp_path):
    request = make_request(time_limit_s=2.5, video=True)
    write_request(request, tmp_path / "new")
    assert read_request(tmp_path / "new") == request


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed is -1, expected a whole number of at least 0"),
        ({"time_limit_s": 0}, "time_limit_s is 0, expected a number above 0 or null"),
        ({"threads": 1.5}, "threads is 1.5"),
        ({"schema": 99}, "schema 99 is not the supported 1"),
        ({"reward": None}, "reward is None, expected str"),
        ({"rewerd": "x"}, "unknown field 'request.rewerd'. Did you mean 'reward'?"),
        ({"seed": ...}, "request: missing seed"),
    ],
)
def test_bad_requests(make_request, tmp_path, change, message):
    """`...` stands for a field that is left out."""
    path = write_request(make_request(), tmp_path)
    data = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    with pytest.raises(UserError) as caught:
        read_request(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_requests_that_are_no_json(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_request(tmp_path)
    (tmp_path / "request.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_request(tmp_path)


def test_metrics_keep_nan_as_text_and_forgive_a_torn_end(tmp_path):
    writer = RunWriter(tmp_path)
    writer.write(line(1, fitness=None))
    writer.write(line(2))
    writer.close()
    path = tmp_path / "metrics.jsonl"
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    with path.open("a") as file:
        file.write('{"iteration": 3, "fit')
    metrics = read_metrics(path)
    assert [m["iteration"] for m in metrics] == [1, 2]
    assert metrics[0]["fitness"] is None
    assert metrics[1]["components"]["speed"] == {"mean": 0.5, "min": "nan", "max": "inf", "nonfinite": 2}
    path.write_text('{"iteration": 1}\n{"iter\n{"iteration": 3}\n')
    with pytest.raises(UserError, match="line 2 is damaged"):
        read_metrics(path)
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_writer_that_continues_drops_what_comes_again(tmp_path):
    for keep_until, iterations in ((0, (1, 2, 3)), (2, (3, 4))):
        writer = RunWriter(tmp_path, keep_until=keep_until)
        for iteration in iterations:
            writer.write(line(iteration, fitness=10.0 * iteration + keep_until))
        writer.close()
    assert [m["iteration"] for m in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    events = EventAccumulator(str(tmp_path)).Reload()
    assert "components/speed" in events.Tags()["scalars"]
    curve = {event.step: event.value for event in events.Scalars("train/fitness")}
    assert curve == {1: 10.0, 2: 20.0, 3: 32.0, 4: 42.0}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = write_json_atomic(tmp_path / "result.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json_atomic(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_results_have_known_statuses_only(make_request):
    with pytest.raises(ValueError, match="fine"):
        make_result(make_request(), "fine")
    assert make_result(make_request(), "time_limit")["fitness"] is None
