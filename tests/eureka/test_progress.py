"""What `eureka search` shows while it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from eureka.candidate import Candidate, Status
from eureka.commands.progress import LiveListener, ProgressListener, last_metrics
from eureka.search_config import SearchConfig
from tests.eureka.command_line import SLIDER


def _listen(listener: ProgressListener, folder: Path) -> None:
    """Generation 1 of 2 with two samples: one is refused, one trains to its middle."""
    listener.generation_started(1, 2)
    listener.judged(Candidate("g01_c00", 1, 0, status=Status.REFUSED, error="Broken.\n\n1. line 3, R101: [bold]no[/]"))
    listener.run_started("g01_c01_s0", folder, 10)
    (folder / "metrics.jsonl").write_text(
        '{"iteration": 4, "fitness": 1.5}\n{"iteration": 5, "fitness": null}\n{"iteration": 6, "fit'
    )
    listener.tick()


def test_plain_progress_tells_what_happened(tmp_path):
    out = io.StringIO()
    listener = ProgressListener(
        SearchConfig(SLIDER, samples=2, generations=2, final_seeds=1, train={"iterations": 10}),
        "m",
        Console(file=out, width=200),
    )
    _listen(listener, tmp_path)
    assert listener.runs["g01_c01_s0"].done == 5
    listener._training_s, listener._since = 50.0, None  # half a training took 50 s
    # Ahead: half of this one, two of generation 2, three of the comparison, 100 s each.
    assert listener.left_s() == pytest.approx(5.5 * 100)
    listener.run_ended("g01_c01_s0", "ok", 2.0)
    best = Candidate("g01_c01", 1, 1, status=Status.TRAINED, fitness=2.0)
    listener.generation_ended(1, best, True)
    assert "best 2 m (g01_c01)" in listener.headline()
    text = out.getvalue()
    for words in ("generation 1 of 2", "g01_c00: refused (line 3, R101: [bold]no[/])", "fitness 2 m", "now g01_c01"):
        assert words in text


def test_live_progress_draws_a_bar_for_each_running_training(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    listener = LiveListener(SearchConfig(SLIDER, samples=2, generations=2), "m", console)
    _listen(listener, tmp_path)
    assert "g01_c01_s0" in out.getvalue() and "5/10" in out.getvalue()
    listener.run_ended("g01_c01_s0", "reward_error", None)
    assert "reward_error" in out.getvalue()
    listener.close()


def test_the_last_whole_line_of_a_long_file_is_found(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_metrics(path) is None
    path.write_text("".join(json.dumps({"iteration": i, "pad": "x" * 500}) + "\n" for i in range(1000)) + '{"iter')
    assert last_metrics(path) == {"iteration": 999, "pad": "x" * 500}
