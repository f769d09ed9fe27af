"""Names and settings that are read from the source."""

from __future__ import annotations

import ast
import sys

import pytest

from tasks import registry
from tasks.errors import UserError
from tasks.isaaclab.names import registrations
from tasks.isaaclab.package import PATH_VARIABLE
from tasks.isaaclab.settings import UNKNOWN, config_values, evaluate


def test_registrations_are_read_with_their_classes(fake_source):
    found = registrations(fake_source)
    assert set(found) == {"Isaac-Point-Direct-v0", "Isaac-Point-v0"}
    direct = found["Isaac-Point-Direct-v0"]
    assert direct.env == ("isaaclab_tasks.direct.point.point_env", "PointEnv")
    assert direct.agent == ("isaaclab_tasks.direct.point.agents.rsl_rl_ppo_cfg", "PointPPORunnerCfg")
    assert found["Isaac-Point-v0"].env == ("isaaclab.envs", "ManagerBasedRLEnv")


def test_a_task_is_made_without_importing_isaac_lab(fake_source):
    task = registry.make("isaaclab:Isaac-Point-Direct-v0")
    assert task.control_dt_s == 0.05  # 2 x 1/40, in the class body
    assert task.episode_length_s == 2.0
    assert task.training == {
        "num_envs": 64, "steps_per_env": 8, "iterations": 6,
        "ppo": {"hidden_dims": (16, 8), "activation": "elu", "init_noise_std": 0.5},
    }  # fmt: skip
    assert task.instruction.endswith("A point on a plane that has to reach one goal after another.")
    assert task.num_actions() == 2
    assert not [name for name in sys.modules if name.split(".")[0] in ("isaaclab", "isaaclab_tasks")]


def test_settings_of_post_init_count_last(fake_source):
    entry = registrations(fake_source)["Isaac-Point-v0"]
    values = config_values(fake_source, entry.cfg)
    assert (values["decimation"], values["sim.dt"], values["scene.num_envs"]) == (2, 0.025, 64)
    assert registry.make("isaaclab:Isaac-Point-v0").instruction.endswith("A point that is sent to places.")


@pytest.mark.parametrize(
    ("text", "value"),
    [("1 / 120", 1 / 120), ("10 * 2**15", 327680), ("-math.pi", -3.141592653589793), ("[1, (2, 3)]", [1, [2, 3]]),
     ("decimation * 3", 12), ("self.decimation", 4), ("f(1)", UNKNOWN), ("1 / 0", UNKNOWN), ("[1, other]", UNKNOWN)],
)  # fmt: skip
def test_plain_arithmetic_is_worked_out(text, value):
    assert evaluate(ast.parse(text, mode="eval").body, {"decimation": 4}) == value


def test_a_misspelt_name_gets_a_hint(fake_source):
    with pytest.raises(UserError, match="Did you mean 'Isaac-Point-Direct-v0'"):
        registry.make("isaaclab:Isaac-Piont-Direct-v0")


def test_without_the_source_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path))
    monkeypatch.setattr("tasks.isaaclab.package._installed", lambda package: [])
    with pytest.raises(UserError, match=r"pip install 'isaaclab\[isaacsim\]==2.3.*ISAACLAB_PATH"):
        registry.make("isaaclab:Isaac-Ant-Direct-v0")


def test_a_file_of_the_users_says_what_the_source_does_not(fake_source, tmp_path):
    file = tmp_path / "my_point.py"
    file.write_text(
        "from tasks.isaaclab.task import IsaacLabTask\n\n\n"
        "class MyPoint(IsaacLabTask):\n"
        "    isaac_name = 'Isaac-Point-Direct-v0'\n"
        "    instruction = 'Reach as many goals as you can.'\n"
        "    fitness_entry = 'arrivals'\n"
        "    fitness_unit = 'goals'\n"
    )
    task = registry.make(str(file))
    assert (task.instruction, task.fitness_unit, task.fitness_reduce) == (
        "Reach as many goals as you can.",
        "goals",
        "last",
    )
    assert task.name == "Isaac-Point-Direct-v0"
    assert registry.user_file(task) == file
