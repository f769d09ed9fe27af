"""Finding written rewards: by task, beside a user's task, and the zero reward for anything."""

from pathlib import Path

import pytest

from rewards.check import check
from rewards.library.library import load
from rewards.trial import examine
from tasks.errors import UserError
from tests.rewards.programs import TABLE, program, signals


def test_zero_runs_on_any_table() -> None:
    source = load("no-such-task", "zero")
    assert check(source.text, TABLE) == []
    assert examine(source.text, TABLE, [signals(16)])["problems"] == []


def test_library_rewards_are_found_by_task_name() -> None:
    source = load("cartpole-balance", "human")
    assert "def compute_reward" in source.text
    assert source.origin == "library:cartpole-balance/human"
    with pytest.raises(UserError, match="Did you mean 'cartpole-balance'"):
        load("cartpole-balnce", "human")
    with pytest.raises(UserError, match="Did you mean 'sparse'"):
        load("cartpole-balance", "spars")


def test_tasks_that_share_a_program_are_found_by_their_own_names() -> None:
    programs = [load(task, "human") for task in ("allegro-reorient", "shadow-reorient")]
    assert programs[0].text == programs[1].text and programs[0].origin == "library:allegro-reorient/human"
    with pytest.raises(UserError, match="Did you mean 'shadow-reorient'") as caught:
        load("shadow-reorent", "human")
    assert "cube-reorient" not in str(caught.value)


def test_rewards_beside_a_users_task(tmp_path: Path) -> None:
    task = tmp_path / "my_task.py"
    (tmp_path / "my_task_human.py").write_text(program("pass"), encoding="utf-8")
    (tmp_path / "my_task_sparse.py").write_bytes(b"\xff\xfe")
    source = load("my-task", "human", beside=task)
    assert source.text == program("pass")
    with pytest.raises(UserError, match="UTF-8"):
        load("my-task", "sparse", beside=task)
    (tmp_path / "my_task_sparse.py").unlink()
    with pytest.raises(UserError, match=r"no sparse reward: expected a reward program in .*my_task_sparse\.py"):
        load("my-task", "sparse", beside=task)
