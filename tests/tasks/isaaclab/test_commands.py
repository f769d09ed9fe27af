"""`eureka show`, `train`, `check`, `search` and `doctor` on Isaac Lab's tasks."""

from __future__ import annotations

import json

from eureka.cli import main
from tasks.isaaclab.task import IsaacLabTask

REF = "isaaclab:Isaac-Point-Direct-v0"
PROGRAM = """
import torch
from torch import Tensor


def compute_reward(to_goal: Tensor, actions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    near = torch.exp(-torch.sum(to_goal * to_goal, dim=1))
    effort = -0.01 * torch.sum(actions * actions, dim=1)
    return near + effort, {"near_exp": near, "effort_l2": effort}
"""


def test_show_prints_a_prompt_without_isaac_sim(fake_source, capsys):
    assert main(["show", REF, "--instruction", "Reach  the goals."]) == 0
    told = capsys.readouterr().out
    assert "The task: Reach the goals." in told
    assert "`actions` in the table, 2 wide" in told and "Control: 20 Hz" in told
    assert "robot_joint_pos" in told and "class PointEnv(DirectRLEnv)" in told
    assert "arrival" not in told and "closeness" not in told


def test_train_without_isaac_sim_says_what_to_install(fake_source, capsys):
    assert main(["train", REF]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "isaacsim cannot be found" in said and "pip install 'isaaclab[isaacsim]==2.3.*'" in said


def test_search_says_why_it_does_not(fake_source, capsys):
    assert main(["search", REF]) == 2
    assert "Isaac Sim starts in no such process" in capsys.readouterr().err


def test_doctor_tells_what_is_there(fake_source, monkeypatch):
    from eureka.commands import doctor

    (found,) = doctor._isaaclab()
    assert found.level == "without" and "the source of 2 tasks is here" in found.text and "isaacsim" in found.text
    monkeypatch.setattr("tasks.isaaclab.launch.missing", list)
    (found,) = doctor._isaaclab()
    assert found.level == "good" and "eureka train isaaclab:NAME" in found.text


def test_doctor_without_the_source_says_how_to_install_it(fake_source, monkeypatch, tmp_path):
    from eureka.commands import doctor

    monkeypatch.setenv("ISAACLAB_PATH", str(tmp_path))
    monkeypatch.setattr("tasks.isaaclab.package._installed", lambda package: [])
    (found,) = doctor._isaaclab()
    assert found.level == "without" and "pip install" in found.text


def test_a_program_trains_on_the_stand_in_and_the_original_reward_stays_apart(
    fake_isaac, tmp_path, monkeypatch, capsys
):
    """The whole way: the gate, PPO by the task's own settings, held-out episodes, what is written."""
    monkeypatch.setattr(IsaacLabTask, "default_device", lambda self: "cpu")
    program = tmp_path / "reward.py"
    program.write_text(PROGRAM)
    out = tmp_path / "run"
    words = [
        "train",
        REF,
        "--reward",
        str(program),
        "--iterations",
        "3",
        "--num-envs",
        "16",
        "--out",
        str(out),
        "--json",
    ]
    assert main([*words, "--set", "eval_episodes=6"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "ok" and result["eval"]["episodes"] == 6
    assert result["fitness"] != 0.0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert set(lines[0]["components"]) == {"near_exp", "effort_l2"}
    assert "original" not in (out / "metrics.jsonl").read_text()
    apart = [json.loads(line) for line in (out / "apart.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in apart] == [1, 2, 3]
    assert all(isinstance(line["original_reward_mean"], float) for line in apart)
    assert "to_goal" in result["eval"]["behaviour"] and "_fitness" not in result["eval"]["behaviour"]


def test_no_program_reads_the_fitness_or_the_rewards_own_books(fake_isaac, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(IsaacLabTask, "default_device", lambda self: "cpu")
    program = tmp_path / "reward.py"
    program.write_text(
        "from torch import Tensor\n\n\ndef compute_reward(_fitness: Tensor, arrivals: Tensor):\n"
        "    return _fitness[:, 0] + arrivals[:, 0], {}\n"
    )
    assert main(["check", str(program), "--task", REF]) == 3
    told = capsys.readouterr().out
    assert "_fitness" in told and "arrivals" in told
