"""`compile_reward_s`: off unless asked for, in time or not at all, and under confinement as elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rewards import confine
from rl import config, train, verdicts, worker_common
from rl.record import RESULT, write_request
from tasks.errors import UserError

ROOT = Path(__file__).parents[2]
SLOW = pytest.mark.skipif(not os.environ.get("EUREKA_SLOW_TESTS"), reason="takes up to 2 min; set EUREKA_SLOW_TESTS=1")


def test_it_is_off_unless_asked_for() -> None:
    assert config.TrainConfig().compile_reward_s == 0.0
    earlier = config.to_json(config.TrainConfig())
    del earlier["compile_reward_s"]
    assert config.from_json(earlier) == config.TrainConfig()
    with pytest.raises(UserError, match="compile_reward_s is -1"):
        config.replace(config.TrainConfig(), {"compile_reward_s": -1.0})


@pytest.mark.parametrize(("seconds", "limit"), [(0.0, None), (20.0, 20.0)])
def test_a_training_hands_its_limit_on(make_request, tmp_path, monkeypatch, seconds, limit) -> None:
    def build(*_: object, compile_limit_s: float | None) -> None:
        raise UserError(f"limit {compile_limit_s}")

    monkeypatch.setattr(verdicts, "build_reward", build)
    result = train.train(make_request({"iterations": 1, "compile_reward_s": seconds}), tmp_path)
    assert result["error"]["message"] == f"limit {limit}"


@pytest.mark.parametrize("seconds", [0.0, 20.0])
def test_a_worker_may_start_programs_only_where_it_compiles(make_request, tmp_path, monkeypatch, seconds) -> None:
    before = str(tmp_path / "before")  # torch reads it, and what it makes of an empty one it writes back
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", before)
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "2")  # put back afterwards
    granted: dict[str, object] = {}
    monkeypatch.setattr(confine, "confine", lambda _, **grants: granted.update(grants))
    worker_common.confine_worker([make_request({"compile_reward_s": seconds})], [tmp_path])
    assert granted["programs"] is (seconds > 0)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == (str(tmp_path / "compiled") if seconds else before)


@SLOW
def test_a_confined_worker_compiles(make_request, tmp_path) -> None:
    write_request(make_request({"iterations": 2, "compile_reward_s": 120.0}), tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "rl.worker", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / RESULT).read_text())["status"] == "ok"
    assert [*(tmp_path / "compiled").rglob("*.so")]
