"""Numbers of a task's configuration, and of its training by rsl_rl, read from the source as far as they stand there.

It follows class bodies and `__post_init__` from the base class down, as dataclasses do, and works out plain
arithmetic. What is computed otherwise it does not know; such a value is missing.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from tasks.isaaclab.names import Registration
from tasks.isaaclab.package import Definition, Source
from tasks.isaaclab.source import ancestry

DEFAULT_PHYSICS_DT_S = 1.0 / 60.0
"""`SimulationCfg.dt` (isaaclab/sim/simulation_cfg.py, 2.3)."""
UNKNOWN = object()

Values = dict[str, Any]
""""sim.dt" -> value."""

_ARITHMETIC: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Pow: operator.pow,
}  # fmt: skip

_PPO = {
    "learning_rate": "algorithm.learning_rate", "schedule": "algorithm.schedule", "desired_kl": "algorithm.desired_kl",
    "num_learning_epochs": "algorithm.num_learning_epochs", "num_mini_batches": "algorithm.num_mini_batches",
    "gamma": "algorithm.gamma", "lam": "algorithm.lam", "clip_param": "algorithm.clip_param",
    "entropy_coef": "algorithm.entropy_coef", "value_loss_coef": "algorithm.value_loss_coef",
    "max_grad_norm": "algorithm.max_grad_norm", "hidden_dims": "policy.actor_hidden_dims",
    "use_clipped_value_loss": "algorithm.use_clipped_value_loss", "activation": "policy.activation",
    "obs_normalization": "policy.actor_obs_normalization", "init_noise_std": "policy.init_noise_std",
}  # fmt: skip
"""Field of `rl.config.PPOConfig` -> field of `RslRlOnPolicyRunnerCfg` (isaaclab_rl/rsl_rl/rl_cfg.py, 2.3)."""


def config_values(source: Source, place: tuple[str, str]) -> Values:
    """What a configuration class sets, by dotted path; {} where the class is not in the source."""
    module = source.module(place[0])
    found = source.resolve(module, place[1]) if module else None
    if found is None:
        return {}
    family = [d for d in reversed(ancestry(source, found)) if not d.module.name.startswith("isaaclab.")]
    values: Values = {}
    for definition in family:
        _body(definition, values)
    for definition in family:
        for member in _members(definition):
            if isinstance(member, ast.FunctionDef) and member.name == "__post_init__":
                _post_init(member, values)
    return values


def training(source: Source, registration: Registration, cfg: Values) -> dict[str, Any]:
    """Settings of a training as `rl.config.TrainConfig` has them, where the task's rsl_rl configuration says them."""
    agent = config_values(source, registration.agent) if registration.agent else {}
    pairs = (
        ("num_envs", cfg.get("scene.num_envs")),
        ("steps_per_env", agent.get("num_steps_per_env")),
        ("iterations", agent.get("max_iterations")),
        ("save_interval", agent.get("save_interval")),
    )
    found: dict[str, Any] = {name: value for name, value in pairs if isinstance(value, int)}
    ppo = {name: agent[path] for name, path in _PPO.items() if agent.get(path) is not None}
    if "hidden_dims" in ppo:
        ppo["hidden_dims"] = tuple(ppo["hidden_dims"])
    return found | ({"ppo": ppo} if ppo else {})


def control_dt_s(values: Values) -> float | None:
    """Seconds of one control step; None where the source does not say."""
    decimation = values.get("decimation")
    return decimation * values.get("sim.dt", DEFAULT_PHYSICS_DT_S) if decimation else None


def _members(definition: Definition) -> list[ast.stmt]:
    return definition.node.body if isinstance(definition.node, ast.ClassDef) else []


def _body(definition: Definition, values: Values) -> None:
    for member in _members(definition):
        if isinstance(member, ast.Assign | ast.AnnAssign) and member.value is not None:
            targets = member.targets if isinstance(member, ast.Assign) else [member.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    _set(target.id, member.value, values)


def _post_init(function: ast.FunctionDef, values: Values) -> None:
    for node in function.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                path = ast.unparse(target)
                if path.startswith("self."):
                    _set(path[5:], node.value, values)


def _set(path: str, node: ast.expr, values: Values) -> None:
    """Set a path, and what lies below it: `SimulationCfg(dt=0.01)` sets "sim.dt"."""
    value = evaluate(node, values)
    if value is not UNKNOWN:
        values[path] = value
        return
    values.pop(path, None)
    if isinstance(node, ast.Call):
        for word in node.keywords:
            if word.arg:
                _set(f"{path}.{word.arg}", word.value, values)


def evaluate(node: ast.expr, values: Values) -> Any:
    """The value of a constant expression over names of `values`; UNKNOWN where it is none."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Tuple | ast.List):
        items = [evaluate(item, values) for item in node.elts]
        return UNKNOWN if UNKNOWN in items else items
    if isinstance(node, ast.Name | ast.Attribute):
        path = ast.unparse(node)
        return math.pi if path in ("math.pi", "np.pi", "torch.pi") else values.get(path.removeprefix("self."), UNKNOWN)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = evaluate(node.operand, values)
        return -value if isinstance(value, int | float) else UNKNOWN
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = evaluate(node.left, values), evaluate(node.right, values)
        if isinstance(left, int | float) and isinstance(right, int | float):
            try:
                return _ARITHMETIC[type(node.op)](left, right)
            except (ArithmeticError, ValueError):
                return UNKNOWN
    return UNKNOWN
