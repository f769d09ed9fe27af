"""ONNX export: the file against a forward pass written out by hand, and everything it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from rl import export
from rl.checkpoint import load_policy
from rl.config import config_for
from rl.record import TrainRequest
from rl.train import train
from tasks import registry
from tasks.errors import UserError
from tests.rl.conftest import HUMAN_REWARD, SLIDER


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A short training of the slider."""
    request = TrainRequest(
        run_id="run",
        task=SLIDER,
        reward=HUMAN_REWARD,
        config=config_for(registry.make(SLIDER), {"ppo": {"hidden_dims": (16, 8)}}),
        seed=1,
        eval_seed=2,
        threads=1,
    )
    folder = tmp_path_factory.mktemp("run")
    assert train(request, folder)["status"] == "ok"
    return folder


@pytest.fixture(scope="module")
def exported(run_dir) -> tuple[Path, dict]:
    """The exported policy and the report on it."""
    path = run_dir / "deep" / "policy.onnx"
    return path, export.export_onnx(run_dir / "model_000004.pt", path)


def by_hand(run_dir: Path, observation: np.ndarray) -> np.ndarray:
    """Normalise, two hidden layers with x * sigmoid(x), a linear layer: from the weights alone."""
    state = torch.load(run_dir / "model_000004.pt", weights_only=True)["actor_state_dict"]
    weights = {name: value.double().numpy() for name, value in state.items()}
    mean, std = weights["obs_normalizer._mean"], weights["obs_normalizer._std"]
    assert np.abs(std - 1.0).max() > 0.1, "a normaliser that has seen nothing would prove nothing"
    x = (observation - mean) / (std + 1e-2)  # rsl_rl's EmpiricalNormalization: eps = 1e-2
    layers = sorted({name.split(".")[1] for name in weights if name.startswith("mlp.")}, key=int)
    for number, layer in enumerate(layers):
        x = x @ weights[f"mlp.{layer}.weight"].T + weights[f"mlp.{layer}.bias"]
        if number < len(layers) - 1:
            x = x / (1.0 + np.exp(-x))
    return x


@pytest.mark.parametrize("batch", [1, 2, 7, 300])
def test_the_graph_is_the_normalised_policy_for_any_batch(run_dir, exported, batch):
    """Raw observations in, mean actions out."""
    path, _ = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    observation = np.random.default_rng(0).normal(0.0, 2.0, (batch, 2)).astype(np.float32)
    (actions,) = session.run(["actions"], {"observation": observation})
    np.testing.assert_allclose(actions, by_hand(run_dir, observation.astype(float)), atol=1e-5)


def test_the_report_says_how_close_it_is(exported):
    """Both kinds of observations were compared, and the figures are those of a working export."""
    path, report = exported
    assert report["path"] == str(path) and report["bytes"] == path.stat().st_size
    assert (report["num_observations"], report["num_actions"], report["task"]) == (2, 1, "slider")
    assert report["max_abs_diff"] == max(report["max_abs_diff_random"], report["max_abs_diff_real"]) < 1e-5
    assert report["observations_checked"] > 1000


def test_the_metadata_tells_a_robot_what_goes_in_and_out(exported):
    """Task, rate, layout, range and names, all readable without this project."""
    path, _ = exported
    model = onnx.load(path)
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert found["task"] == "slider" and found["control_rate_hz"] == "20"
    assert json.loads(found["observation_layout"]) == [
        {"first": 0, "last": 0, "signals": ["mass_position"]},
        {"first": 1, "last": 1, "signals": ["mass_velocity"]},
    ]
    assert json.loads(found["action_range"]) == [-1.0, 1.0]
    assert json.loads(found["joint_names"]) == ["rail"]
    assert json.loads(found["actuator_ctrlrange"]) == [[-1.0, 1.0]]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param, "the batch dimension has a name, no number"
    assert b".py" not in path.read_bytes(), "no source file of the machine that exported"


def test_layout_of_a_body_in_space():
    """The ant's columns name the signals they are made of; rotated vectors depend on the orientation."""
    layout = export.observation_layout(registry.make("ant-run"), num_envs=16)
    by_column = {column: run["signals"] for run in layout for column in range(run["first"], run["last"] + 1)}
    assert by_column[0] == ["torso_position_w"]
    assert sorted(by_column) == list(range(len(by_column)))
    assert any(names == ["joint_vel"] for names in by_column.values())


@pytest.mark.parametrize("diff", [2e-4, float("nan")])
def test_an_export_that_differs_is_not_written(run_dir, monkeypatch, tmp_path, diff):
    """A graph that computes something else must not reach a robot."""
    monkeypatch.setattr(export, "_difference", lambda *_: diff)
    with pytest.raises(UserError, match="differ"):
        export.export_onnx(run_dir / "model_000004.pt", tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


def test_the_comparison_sees_another_policy(run_dir, exported):
    """The check that guards the file is no rubber stamp: one changed weight shows."""
    path, _ = exported
    policy = load_policy(run_dir / "model_000004.pt")
    with torch.no_grad():
        next(policy.module.parameters()).add_(0.05)
    assert export._difference(path.read_bytes(), policy, torch.ones(3, 2)) > 1e-3


def test_a_task_that_was_changed_since_is_refused(run_dir, tmp_path):
    """The policy would read other columns than it was trained on."""
    changed = (
        Path(SLIDER)
        .read_text()
        .replace('torch.cat([signals["mass_position"], signals["mass_velocity"]], dim=1)', 'signals["mass_position"]')
    )
    (tmp_path / "slider.py").write_text(changed)
    (tmp_path / "model_000004.pt").write_bytes((run_dir / "model_000004.pt").read_bytes())
    meta = json.loads((run_dir / "model_000004.json").read_text())
    (tmp_path / "model_000004.json").write_text(json.dumps({**meta, "task_ref": str(tmp_path / "slider.py")}))
    with pytest.raises(UserError, match="changed since"):
        export.export_onnx(tmp_path / "model_000004.pt", tmp_path / "policy.onnx")
    assert not (tmp_path / "policy.onnx").exists()


def test_a_missing_checkpoint_is_named(tmp_path):
    """One line."""
    with pytest.raises(UserError, match="no such checkpoint"):
        export.export_onnx(tmp_path / "model_000001.pt", tmp_path / "policy.onnx")
