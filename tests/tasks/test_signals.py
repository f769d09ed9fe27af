"""The signal table: what it accepts, prints and refuses."""

from __future__ import annotations

import pytest
import torch

from tasks.errors import UserError, did_you_mean
from tasks.signals import Signal, SignalTable

HEIGHT = Signal("height", 1, "m", "world", "position", "of the torso")
VELOCITY = Signal("velocity_w", 3, "m/s", "world", "linear_velocity", "of the torso")
TABLE = SignalTable([HEIGHT, VELOCITY])


def good_signals(num_envs: int = 5) -> dict[str, torch.Tensor]:
    return {"height": torch.zeros(num_envs, 1), "velocity_w": torch.zeros(num_envs, 3)}


def test_a_table_is_a_sequence_with_names():
    assert TABLE.names == ("height", "velocity_w")
    assert len(TABLE) == 2
    assert list(TABLE) == [HEIGHT, VELOCITY]
    assert TABLE["velocity_w"] is VELOCITY and TABLE[0] is HEIGHT
    assert "height" in TABLE and "weight" not in TABLE


def test_describe_is_one_aligned_line_a_signal():
    header, first, second = TABLE.describe().split("\n")
    assert header.split() == ["name", "shape", "unit", "frame", "kind", "meaning"]
    assert second.split() == ["velocity_w", "(N,", "3)", "m/s", "world", "linear_velocity", "of", "the", "torso"]
    for word, cell in (("shape", "(N, 1)"), ("kind", "position"), ("meaning", "of the torso")):
        assert header.index(word) == first.index(cell)


@pytest.mark.parametrize("name", ["2legs", "a b", "class", "höhe", ""])
def test_a_name_must_be_an_ascii_identifier(name):
    with pytest.raises(UserError, match="not an ASCII Python identifier"):
        Signal(name, 1, "m", "world", "position", "x")


def test_kind_and_width_are_checked():
    with pytest.raises(UserError, match="Did you mean 'linear_velocity'"):
        Signal("v", 1, "m/s", "world", "linear_velocty", "x")
    with pytest.raises(UserError, match="dims=0"):
        Signal("v", 0, "m/s", "world", "linear_velocity", "x")


def test_tables_refuse_repeated_names_and_nothing():
    with pytest.raises(UserError, match=r"repeated: height\.$"):
        SignalTable([HEIGHT, VELOCITY, HEIGHT])
    with pytest.raises(UserError, match="empty"):
        SignalTable([])


def test_unknown_name_gets_a_hint():
    with pytest.raises(UserError, match=r"no signal 'hieght'\. Did you mean 'height'\?"):
        TABLE["hieght"]


def test_validate_accepts_what_the_table_says():
    TABLE.validate(good_signals(), 5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("height"), "missing ['height']"),
        (lambda s: s.update(extra=torch.zeros(5, 1)), "not in the table ['extra']"),
        (lambda s: s.update(height=torch.zeros(5)), "shape (5,)"),
        (lambda s: s.update(velocity_w=torch.zeros(4, 3)), "the table says (5, 3)"),
        (lambda s: s.update(height=torch.zeros(5, 1, dtype=torch.float64)), "torch.float64"),
    ],
)
def test_validate_names_what_differs(change, told):
    signals = good_signals()
    change(signals)
    with pytest.raises(UserError) as caught:
        TABLE.validate(signals, 5)
    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_did_you_mean_ignores_case_and_stays_silent_when_far():
    assert did_you_mean("Ant-Run", ["ant-run", "humanoid-run"]) == " Did you mean 'ant-run'?"
    assert did_you_mean("zzz", ["ant-run"]) == ""
    assert did_you_mean("x", []) == ""
