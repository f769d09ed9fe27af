"""Experts from checkpoints and ONNX files, and which tasks share a body."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from distill.bodies import name_embodiments, same_body
from distill.experts import load_checkpoint_expert, load_onnx_expert
from rl.checkpoint import load_policy, make_meta, save
from rl.config import PPOConfig
from rl.rsl_adapter import make_actor
from tasks import registry
from tasks.errors import UserError
from tests.distill.conftest import draw
from tests.distill.students import COMMANDS
from tests.distill.teachers import GAINS, PAIR, linear_onnx, teacher
from tests.eureka.command_line import SLIDER

SMALL = PPOConfig(hidden_dims=(8,))


def checkpoint(folder: Path, task_ref: str, sizes: tuple[int, int] = (2, 1)) -> Path:
    """A checkpoint of an untrained policy."""
    actor = make_actor(*sizes, SMALL)
    meta = make_meta(registry.make(task_ref), task_ref, *sizes, SMALL)
    more = {"env_steps": 0, "reward_sha256": ""}
    folder.mkdir(parents=True, exist_ok=True)
    return save(folder, 7, {"actor_state_dict": actor.state_dict()}, meta | more)


def test_a_checkpoint_is_its_policy(tmp_path):
    path = checkpoint(tmp_path, SLIDER)
    expert, seen = load_checkpoint_expert(path), torch.randn(5, 2, generator=draw(0))
    assert torch.equal(expert.policy(seen), load_policy(path)(seen))
    assert (expert.task.name, expert.task_ref) == ("slider", SLIDER)
    assert expert.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and expert.sha256[:12] in expert.source


def test_an_onnx_file_is_its_network(tmp_path):
    seen = torch.randn(5, 2, generator=draw(0))
    expert = load_onnx_expert(SLIDER, teacher(tmp_path, SLIDER))
    assert torch.allclose(expert.policy(seen), -2.0 * seen[:, :1] - 1.5 * seen[:, 1:], atol=1e-6)


def truncated(tmp_path):
    path = checkpoint(tmp_path, SLIDER)
    path.write_bytes(path.read_bytes()[:300])
    return lambda: load_checkpoint_expert(path)


def foreign(tmp_path):
    (tmp_path / "model_000001.pt").write_bytes(b"not ours")
    (tmp_path / "model_000001.json").write_text('{"a": 1}')
    return lambda: load_checkpoint_expert(tmp_path / "model_000001.pt")


def task_gone(tmp_path):
    mine = shutil.copy(SLIDER, tmp_path / "mine.py")
    path = checkpoint(tmp_path, str(mine))
    (tmp_path / "mine.py").unlink()
    return lambda: load_checkpoint_expert(path)


def task_changed(tmp_path):
    path = checkpoint(tmp_path, SLIDER, sizes=(3, 1))
    return lambda: load_checkpoint_expert(path)


def onnx_truncated(tmp_path):
    path = teacher(tmp_path, SLIDER)
    path.write_bytes(path.read_bytes()[:40])
    return lambda: load_onnx_expert(SLIDER, path)


def onnx_of_another_task(tmp_path):
    path = teacher(tmp_path, PAIR)
    return lambda: load_onnx_expert(SLIDER, path)


def onnx_with_too_many_actions(tmp_path):
    path = linear_onnx(tmp_path / "a.onnx", [[1.0, 2.0], [3.0, 4.0]])
    return lambda: load_onnx_expert(SLIDER, path)


def onnx_with_two_inputs(tmp_path):
    path = linear_onnx(tmp_path / "a.onnx", GAINS[SLIDER], inputs=2)
    return lambda: load_onnx_expert(SLIDER, path)


def unknown_task(tmp_path):
    path = teacher(tmp_path, SLIDER)
    return lambda: load_onnx_expert("cartpole-balanc", path)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (truncated, ("damaged", "300 bytes")),
        (foreign, ("schema None", "another version")),
        (task_gone, ("the expert's task is gone", "mine.py", "no task file")),
        (task_changed, ("does not take the 2 numbers", "slider", "changed since")),
        (onnx_truncated, ("damaged, or no ONNX file",)),
        (onnx_of_another_task, ("does not take the 2 numbers", "slider")),
        (onnx_with_too_many_actions, ("gives 2 actions", "takes 1")),
        (onnx_with_two_inputs, ("2 inputs and 1 outputs", "eureka export")),
        (unknown_task, ("Did you mean 'cartpole-balance'",)),
    ],
)
def test_what_is_no_expert_is_refused_in_one_line(tmp_path, made, words):
    with pytest.raises(UserError) as caught:
        made(tmp_path)()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_tasks_of_one_body_share_it_where_they_see_the_same():
    slider, commands, pair = (registry.make(ref) for ref in (SLIDER, COMMANDS, PAIR))
    assert same_body(slider, commands) and same_body(commands, slider)
    assert not same_body(slider, pair)
    slower = registry.make(SLIDER)
    slower.control_dt_s = 0.1  # type: ignore[misc]
    assert not same_body(slider, slower)
    blind = registry.make(SLIDER)
    blind.observe = lambda signals: signals["mass_position"].repeat(1, 2)  # type: ignore[method-assign]
    assert not same_body(slider, blind)


def test_embodiments_are_called_after_their_body():
    names = ("cartpole-swingup", "cartpole-balance", "ball-balance")
    tasks = [registry.make(name) for name in names]
    # the two cartpoles are controlled at other rates
    assert list(name_embodiments(tasks).values()) == ["cartpole", "cartpole-balance", "ball-balance"]
    slider, commands = registry.make(SLIDER), registry.make(COMMANDS)
    assert name_embodiments([slider, commands]) == {"slider": "slider", "slider-commands": "slider"}
    assert name_embodiments([commands], {"mass": slider}) == {"slider-commands": "mass"}
    assert name_embodiments([registry.make(PAIR)], {"pair": slider}) == {"pair": "pair-2"}
    with pytest.raises(UserError, match="two experts for task 'slider'"):
        name_embodiments([slider, registry.make(SLIDER)])
