"""What the adapter relies on, in the real package's source; and the stand-ins' surface against it."""

from __future__ import annotations

import ast
import itertools

import pytest

from tasks.isaaclab.found import data_fields
from tasks.isaaclab.names import lookup, registrations
from tasks.isaaclab.package import Source
from tasks.isaaclab.quantities import DATA_CLASSES
from tasks.isaaclab.settings import _PPO, DEFAULT_PHYSICS_DT_S, config_values, control_dt_s
from tasks.isaaclab.source import CONTRACT, ancestry, base_kind, leading_calls
from tests.tasks.isaaclab.conftest import FAKE

ENVS = {"DirectRLEnv": "isaaclab.envs.direct_rl_env", "ManagerBasedRLEnv": "isaaclab.envs.manager_based_rl_env"}
TASKS = {
    "Isaac-Cartpole-Direct-v0": ["CartpoleEnv", "DirectRLEnv"],
    "Isaac-Ant-Direct-v0": ["AntEnv", "LocomotionEnv", "DirectRLEnv"],
    "Isaac-Humanoid-Direct-v0": ["HumanoidEnv", "LocomotionEnv", "DirectRLEnv"],
    "Isaac-Quadcopter-Direct-v0": ["QuadcopterEnv", "DirectRLEnv"],
    "Isaac-Franka-Cabinet-Direct-v0": ["FrankaCabinetEnv", "DirectRLEnv"],
    "Isaac-Repose-Cube-Allegro-Direct-v0": ["InHandManipulationEnv", "DirectRLEnv"],
    "Isaac-Repose-Cube-Shadow-Direct-v0": ["InHandManipulationEnv", "DirectRLEnv"],
    "Isaac-Velocity-Flat-Anymal-C-Direct-v0": ["AnymalCEnv", "DirectRLEnv"],
    "Isaac-Velocity-Flat-Anymal-C-v0": ["ManagerBasedRLEnv", "ManagerBasedEnv"],
    "Isaac-Cartpole-v0": ["ManagerBasedRLEnv", "ManagerBasedEnv"],
}


def class_of(source: Source, module: str, name: str) -> ast.ClassDef:
    found = source.resolve(source.module(module), name)
    assert found is not None and isinstance(found.node, ast.ClassDef), f"{module}:{name}"
    return found.node


def methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {member.name: member for member in node.body if isinstance(member, ast.FunctionDef)}


def in_order(function: ast.FunctionDef, pieces: list[str]) -> None:
    """Every piece of text comes in the function, one after the other."""
    text, place = ast.unparse(function), 0
    for piece in pieces:
        at = text.find(piece, place)
        assert at >= 0, f"{piece!r} does not come after what is before it in {function.name}"
        place = at + len(piece)


def test_a_direct_environment_steps_in_the_order_that_we_rely_on(real_source):
    node = class_of(real_source, ENVS["DirectRLEnv"], "DirectRLEnv")
    in_order(
        methods(node)["step"],
        ["self._pre_physics_step(action)", "self._apply_action()", "self.scene.update(", "self.episode_length_buf += 1",
         "self._get_dones()", "self.reset_buf = self.reset_terminated | self.reset_time_outs",
         "self.reward_buf = self._get_rewards()", "self.reset_buf.nonzero(", "self._reset_idx(",
         "self.obs_buf = self._get_observations()",
         "return (self.obs_buf, self.reward_buf, self.reset_terminated, self.reset_time_outs, self.extras)"],
    )  # fmt: skip
    assert set(CONTRACT) - {"__init__"} <= set(methods(node)) and "_get_rewards" in methods(node)
    assert {"num_envs", "device", "step_dt", "max_episode_length", "max_episode_length_s", "close"} <= set(
        methods(node)
    )
    text = ast.unparse(node)
    for made in (
        "self.episode_length_buf = ",
        "self.reset_terminated = ",
        "self.single_action_space = ",
        "self.extras = ",
    ):
        assert made in text


def test_a_managed_environment_steps_in_the_order_that_we_rely_on(real_source):
    node = class_of(real_source, ENVS["ManagerBasedRLEnv"], "ManagerBasedRLEnv")
    in_order(
        methods(node)["step"],
        ["self.action_manager.process_action(", "self.scene.update(", "self.episode_length_buf += 1",
         "self.reset_buf = self.termination_manager.compute()",
         "self.reset_terminated = self.termination_manager.terminated",
         "self.reset_time_outs = self.termination_manager.time_outs",
         "self.reward_buf = self.reward_manager.compute(dt=self.step_dt)", "self.reset_buf.nonzero(", "self._reset_idx(",
         "self.command_manager.compute(", "self.obs_buf = self.observation_manager.compute(",
         "return (self.obs_buf, self.reward_buf, self.reset_terminated, self.reset_time_outs, self.extras)"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name", "members"),
    [
        ("isaaclab.managers.termination_manager", "TerminationManager", "active_terms get_term get_term_cfg"),
        ("isaaclab.managers.action_manager", "ActionManager", "total_action_dim"),
        ("isaaclab.managers.command_manager", "CommandManager", "active_terms get_command"),
        ("isaaclab.scene.interactive_scene", "InteractiveScene",
         "articulations rigid_objects sensors env_origins"),
        ("isaaclab.app.app_launcher", "AppLauncher", "app"),
    ],
)  # fmt: skip
def test_what_the_adapter_calls_is_there(real_source, module, name, members):
    assert set(members.split()) <= set(methods(class_of(real_source, module, name)))


def test_other_things_that_are_taken_for_granted(real_source):
    assert "create_new_stage" in real_source.module("isaaclab.sim.utils.stage").defined
    assert real_source.resolve(real_source.module("isaaclab.sim.utils"), "create_new_stage") is not None
    assert "time_out" in ast.unparse(class_of(real_source, "isaaclab.managers.manager_term_cfg", "TerminationTermCfg"))
    assert (
        config_values(real_source, ("isaaclab.sim.simulation_cfg", "SimulationCfg")) == {}
    )  # Isaac Lab's own: not read
    node = class_of(real_source, "isaaclab.sim.simulation_cfg", "SimulationCfg")
    (default,) = [m.value for m in node.body if isinstance(m, ast.AnnAssign) and ast.unparse(m.target) == "dt"]
    assert ast.unparse(default) == "1.0 / 60.0" and pytest.approx(1 / 60) == DEFAULT_PHYSICS_DT_S


def test_settings_of_rsl_rl_have_the_names_that_are_read(real_source):
    module = real_source.module("isaaclab_rl.rsl_rl.rl_cfg")
    text = {"policy": "RslRlPpoActorCriticCfg", "algorithm": "RslRlPpoAlgorithmCfg"}
    for path in _PPO.values():
        group, name = path.split(".")
        fields = {ast.unparse(m.target) for m in module.defined[text[group]].body if isinstance(m, ast.AnnAssign)}
        assert name in fields, path


@pytest.mark.parametrize("thing", DATA_CLASSES)
def test_data_is_documented_where_it_is_read(real_source, thing):
    fields = data_fields(real_source, thing)
    assert fields
    assert not [name for name, (_, doc) in fields.items() if not doc or ":attr:" in doc]
    if thing == "Articulation":
        assert fields["joint_pos"][0] == "(N, num_joints)" and fields["root_quat_w"][0] == "(N, 4)"


@pytest.mark.parametrize("name", TASKS)
def test_tasks_have_the_classes_that_were_read(real_source, name):
    entry = lookup(real_source, name)
    env = real_source.resolve(real_source.module(entry.env[0]), entry.env[1])
    assert [cls.name for cls in ancestry(real_source, env)][: len(TASKS[name])] == TASKS[name]
    assert base_kind(real_source, env) == ("DirectRLEnv" if "DirectRLEnv" in TASKS[name] else "ManagerBasedRLEnv")
    assert leading_calls(real_source, env) == (["_compute_intermediate_values"] if "Franka" in name else [])
    values = config_values(real_source, entry.cfg)
    assert control_dt_s(values) and values["episode_length_s"] > 0 and values["scene.num_envs"] >= 1024


def test_every_registration_is_read(real_source):
    calls = 0
    for _, path in real_source.files("isaaclab_tasks", "__init__.py"):
        calls += path.read_text(encoding="utf-8").count("gym.register(")
    assert len(registrations(real_source)) == calls > 100


def test_the_stand_ins_have_no_method_that_the_real_classes_lack(real_source, fake_source):
    compared = 0
    pairs = [(module, name) for name, module in ENVS.items()]
    pairs += [
        ("isaaclab.managers", name)
        for name in ("ActionManager", "CommandManager", "TerminationManager", "RewardManager")
    ]
    for module, name in [*pairs, ("isaaclab.assets", "Articulation"), ("isaaclab.app", "AppLauncher")]:
        fake = [d.node for d in ancestry(fake_source, fake_source.resolve(fake_source.module(module), name))]
        real = [d.node for d in ancestry(real_source, real_source.resolve(real_source.module(module), name))]
        known = dict(itertools.chain.from_iterable(methods(node).items() for node in reversed(real)))
        for method in itertools.chain.from_iterable(methods(node).values() for node in fake):
            if method.name in ("__init__", "initialise", "advance"):  # the last two stand for the engine
                continue
            assert method.name in known, f"{name}.{method.name}"
            theirs = [argument.arg for argument in known[method.name].args.args]
            ours = [argument.arg for argument in method.args.args]
            assert ours == theirs[: len(ours)], f"{name}.{method.name}"
            compared += 1
    assert compared > 40 and FAKE.is_dir()
