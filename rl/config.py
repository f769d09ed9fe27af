"""What a training may be told: frozen dataclasses, checked when built, and their way to JSON and back.

The fields of `PPOConfig` carry rsl_rl's names. Defaults are those of a lightly tuned ant on two CPU cores
(1024 worlds x 16 steps, 4 epochs, [128, 64] swish); presets per task are in `rl.presets`. Every value that
cannot work is refused here with one line, before a simulation is built.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rl.presets import PRESETS as PRESET_VALUES
from tasks.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from tasks.task import Task

SCHEDULES = ("adaptive", "fixed")
ACTIVATIONS = ("elu", "selu", "relu", "lrelu", "tanh", "sigmoid", "softplus", "gelu", "swish", "mish")
MATMUL_PRECISIONS = ("highest", "high", "medium")


@dataclass(frozen=True)
class PPOConfig:
    """Proximal policy optimisation, in the names of rsl_rl."""

    learning_rate: float = 1e-3
    """Adam's step size; the start value when the schedule is adaptive."""
    schedule: str = "adaptive"
    """"adaptive": the learning rate follows the KL divergence of each update (1e-5 to 1e-2); "fixed": it
    stays."""
    desired_kl: float = 0.01
    """KL divergence per update, in nats, that the adaptive schedule aims at."""
    num_learning_epochs: int = 4
    """Passes over each rollout."""
    num_mini_batches: int = 4
    """Minibatches per pass."""
    gamma: float = 0.99
    """Discount per control step."""
    lam: float = 0.95
    """Lambda of generalised advantage estimation."""
    clip_param: float = 0.2
    """Clip range of the probability ratio, and of the value's change."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    value_loss_coef: float = 1.0
    """Weight of the value loss."""
    max_grad_norm: float = 1.0
    """Gradient norm above which actor and critic gradients are scaled down, each by itself."""
    hidden_dims: tuple[int, ...] = (128, 64)
    """Hidden layer widths of the actor and of the critic."""
    activation: str = "swish"
    """Activation function of both networks."""
    obs_normalization: bool = True
    """Whether observations are normalised by their running mean and deviation; the policy keeps these."""
    init_noise_std: float = 1.0
    """Standard deviation of the action noise at the start; actions run from -1 to 1."""
    use_clipped_value_loss: bool = True
    """Whether the value may move by no more than clip_param in one update."""
    reward_normalization: bool = True
    """Whether PPO sees the reward divided by the running deviation of the discounted return, which makes
    learning independent of the reward's scale; statistics and fitness see the reward as it is."""

    def __post_init__(self) -> None:
        check_types(self, "ppo.")
        need(self, "ppo.", "a number above 0", lambda v: v > 0, "learning_rate", "desired_kl", "clip_param",
              "max_grad_norm", "init_noise_std")  # fmt: skip
        need(self, "ppo.", "a number of at least 0", lambda v: v >= 0, "entropy_coef", "value_loss_coef")
        need(self, "ppo.", "a number from 0 to 1", lambda v: 0 <= v <= 1, "gamma", "lam")
        need(self, "ppo.", "a whole number of at least 1", lambda v: v >= 1,
              "num_learning_epochs", "num_mini_batches")  # fmt: skip
        need(
            self,
            "ppo.",
            "one or more whole numbers of at least 1",
            lambda v: v and min(v) >= 1,
            "hidden_dims",
        )
        choice("ppo.schedule", self.schedule, SCHEDULES)
        choice("ppo.activation", self.activation, ACTIVATIONS)


@dataclass(frozen=True)
class TrainConfig:
    """One training: how many worlds, how long, and PPO."""

    num_envs: int = 512
    """Worlds simulated in parallel."""
    steps_per_env: int = 16
    """Control steps of each world per iteration."""
    iterations: int = 100
    """Rollouts, each followed by one PPO update."""
    ppo: PPOConfig = field(default_factory=PPOConfig)
    """The learning algorithm."""
    save_interval: int = 25
    """Iterations between checkpoints; the last iteration is always saved."""
    eval_episodes: int = 64
    """Held-out episodes behind the fitness of the result, one per world."""
    compile_reward_s: float = 0.0
    """Seconds that inductor may take to compile the reward (10 to 60 for half the time of a call); 0: not compiled."""
    matmul_precision: str = "highest"
    """float32 matrix products: "highest", or "medium" (bfloat16 where the processor has it; no faster on small
    networks)."""

    def __post_init__(self) -> None:
        check_types(self, "")
        need(self, "", "a whole number of at least 1", lambda v: v >= 1,
              "num_envs", "steps_per_env", "iterations", "save_interval", "eval_episodes")  # fmt: skip
        need(self, "", "a number of seconds, or 0", lambda v: v >= 0, "compile_reward_s")
        choice("matmul_precision", self.matmul_precision, MATMUL_PRECISIONS)
        if self.num_envs * self.steps_per_env < 2 * self.ppo.num_mini_batches:
            raise UserError(
                f"num_envs x steps_per_env is {self.num_envs * self.steps_per_env}, too few for "
                f"{self.ppo.num_mini_batches} minibatches of at least 2 samples: raise num_envs."
            )

    @property
    def env_steps(self) -> int:
        """Control steps over all worlds of the whole training."""
        return self.num_envs * self.steps_per_env * self.iterations


def config_for(task: Task, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration of `task`: preset of its name, then `task.training`, then `overrides`.

    Each layer is a mapping of `TrainConfig` fields; "ppo" holds a mapping of `PPOConfig` fields. Raises
    UserError for an unknown field (with "did you mean") and for a value that cannot work.
    """
    config = TrainConfig()
    for layer in (PRESET_VALUES.get(task.name, {}), task.training, overrides or {}):
        config = replace(config, layer)
    return config


def replace(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """`config` with the fields in `changes` replaced. Raises UserError like `config_for`."""
    changes = dict(changes)
    ppo = changes.pop("ppo", {})
    if isinstance(ppo, PPOConfig):
        ppo = dataclasses.asdict(ppo)
    if not isinstance(ppo, Mapping):
        raise UserError(f"ppo: expected a mapping of PPO fields, got {ppo!r}.")
    refuse_unknown(changes, TrainConfig, "")
    refuse_unknown(ppo, PPOConfig, "ppo.")
    new_ppo = dataclasses.replace(config.ppo, **_tuples(ppo))
    return dataclasses.replace(config, **changes, ppo=new_ppo)


def to_json(config: TrainConfig) -> dict[str, Any]:
    """`config` as plain data for `json.dumps`."""
    data = dataclasses.asdict(config)
    data["ppo"]["hidden_dims"] = list(config.ppo.hidden_dims)
    return data


def from_json(data: Any) -> TrainConfig:
    """The inverse of `to_json`. Raises UserError if a field is unknown, missing, or has a value that cannot
    work."""
    if isinstance(data, Mapping):
        data = {"compile_reward_s": 0.0, **data}  # requests of earlier versions do not have it
    values = complete_fields(data, TrainConfig, "config")
    ppo = complete_fields(values.pop("ppo"), PPOConfig, "config.ppo")
    return TrainConfig(**values, ppo=PPOConfig(**_tuples(ppo)))


def complete_fields(data: Any, cls: type, where: str) -> dict[str, Any]:
    """`data` as a new dict, if its keys are exactly the fields of the dataclass `cls`; else UserError."""
    if not isinstance(data, Mapping):
        raise UserError(f"{where}: expected an object with fields, got {type(data).__name__}.")
    refuse_unknown(data, cls, f"{where}.")
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in data]
    if missing:
        raise UserError(f"{where}: missing {', '.join(missing)}.")
    return dict(data)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    # JSON has no tuples; a single width may come from a command line as a list as well.
    return {k: tuple(v) if k == "hidden_dims" and isinstance(v, Sequence) else v for k, v in values.items()}


def refuse_unknown(values: Mapping[str, Any], cls: type, prefix: str) -> None:
    """UserError with "did you mean" for a key of `values` that is no field of the dataclass `cls`."""
    names = [f.name for f in dataclasses.fields(cls)]
    for key in values:
        if key not in names:
            raise UserError(f"unknown field '{prefix}{key}'.{did_you_mean(str(key), names)}")


def check_types(config: Any, prefix: str) -> None:
    """UserError unless every field of a dataclass has its declared type, with finite floats; ints become floats where
    these are declared. `prefix` goes before a field's name, here and below."""
    for f in dataclasses.fields(config):
        value, kind = getattr(config, f.name), str(f.type)
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
            object.__setattr__(config, f.name, value)  # 1 is a fine way to write 1.0
        if not _has_type(value, kind):
            raise UserError(f"{prefix}{f.name} is {value!r}, expected {_TYPE_NAMES.get(kind, kind)}.")


_TYPE_NAMES = {
    "int": "a whole number",
    "float": "a finite number",
    "bool": "true or false",
    "str": "a text",
    "tuple[int, ...]": "a list of whole numbers",
}


def _has_type(value: Any, kind: str) -> bool:
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        return isinstance(value, float) and math.isfinite(value)
    if kind == "tuple[int, ...]":
        return isinstance(value, tuple) and all(_has_type(v, "int") for v in value)
    if kind in ("bool", "str"):
        return isinstance(value, {"bool": bool, "str": str}[kind])
    return type(value).__name__ == kind  # a dataclass within it


def need(config: Any, prefix: str, wanted: str, holds: Any, *names: str) -> None:
    """UserError unless `holds(value)` for the fields `names`; `wanted` says in words what is expected."""
    for name in names:
        value = getattr(config, name)
        if not holds(value):
            raise UserError(f"{prefix}{name} is {value!r}, expected {wanted}.")


def choice(name: str, value: str, options: Iterable[str]) -> None:
    """UserError with "did you mean" unless `value` is one of `options`."""
    options = tuple(options)
    if value not in options:
        raise UserError(f"{name} is '{value}', expected one of {', '.join(options)}.{did_you_mean(value, options)}")


PRESETS: dict[str, TrainConfig] = {name: replace(TrainConfig(), values) for name, values in PRESET_VALUES.items()}
