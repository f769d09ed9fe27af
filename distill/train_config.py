"""What a distillation is told: the student, its bodies' chunks, how much is shown to it and how it learns.

Every value that cannot work is refused here with one line. A config holds no clock: how many steps fit into some
minutes is measured once, before the training, and what it came to stands in the config (`distill.pace`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from distill.config import (
    EncoderConfig,
    HeadConfig,
    config_to_json,
    encoder_config,
    encoder_from_json,
    head_config,
    head_from_json,
)
from distill.normalize import MODES
from rl.config import check_types, choice, complete_fields, need, refuse_unknown
from tasks.errors import UserError

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class BodyConfig:
    """How a body takes chunks."""

    horizon: int = 4
    """Actions that a chunk predicts."""
    execute: int = 1
    """Actions of a chunk that are carried out before the next one is made: 1 where a body cannot run blind."""
    history: int = 1
    """Observations that the student is shown, the present one included."""

    def __post_init__(self) -> None:
        check_types(self, "body.")
        need(self, "body.", "a whole number of at least 1", lambda v: v >= 1, "horizon", "execute", "history")
        if self.execute > self.horizon:
            raise UserError(
                f"body.execute is {self.execute}, more than the {self.horizon} actions of a chunk: lower execute, or "
                "raise horizon."
            )


@dataclass(frozen=True)
class DistillConfig:
    """A whole distillation."""

    head: HeadConfig = field(default_factory=head_config)
    """The student's head; its horizon and history are at least those of all bodies."""
    encoder: EncoderConfig = field(default_factory=encoder_config)
    """What reads the words."""
    body: BodyConfig = field(default_factory=BodyConfig)
    """How bodies take chunks that `bodies` does not name."""
    bodies: dict = field(default_factory=dict)
    """Embodiment -> `BodyConfig`: how it takes chunks."""
    state_normalization: str = "mean_std"
    """How states are scaled: quantile, min_max or mean_std."""
    action_normalization: str = "mean_std"
    """How actions are scaled."""
    steps: int = 6000
    """Optimiser steps in all: cloning and all rounds."""
    clone_share: float = 0.2
    """Share of the steps that go before the first round; the rounds have equal parts of the rest."""
    rounds: int = 6
    """Rounds in which the student acts and the experts label what it visits; 0: cloning alone."""
    episodes: int = 32
    """Episodes of each task that its expert plays for cloning."""
    round_episodes: int = 16
    """Episodes of each task that the student plays in a round."""
    clone_noise_std: float = 0.1
    """Standard deviation of the noise on the expert's actions while it plays for cloning, in units of an action; what
    it wanted is what is learnt (DART, arXiv 1703.09327)."""
    expert_share: float = 0.5
    """Share of the time in which the expert acts in the first round; from the second round on the student is alone."""
    batch_size: int = 256
    """Samples of a step, all tasks together."""
    learning_rate: float = 1e-3
    """AdamW's, after the warm-up; falls to 0 along a cosine."""
    warmup_share: float = 0.03
    """Share of the steps in which the learning rate rises from 0."""
    beta1: float = 0.9
    """AdamW's."""
    beta2: float = 0.99
    """AdamW's."""
    weight_decay: float = 1e-5
    """AdamW's."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    ema_decay: float = 0.998
    """The student that acts is the running mean of the weights that are trained, of some 1 / (1 - this) steps."""
    precision: str = "float32"
    """What products are computed in while training: float32 or bfloat16 (torch's autocast)."""
    seed: int = 0
    """Of the weights, the episodes, the order of samples and the noise."""
    threads: int = 0
    """CPU threads of physics and of training, 0 for all cores; the student does not depend on it."""
    device: str = "cpu"
    """torch device of the student; the worlds are on the CPU."""
    save_steps: int = 250
    """Steps from one saved state to the next: what a kill may cost."""

    def __post_init__(self) -> None:
        check_types(self, "")
        need(self, "", "a whole number of at least 1", lambda v: v >= 1,
             "steps", "episodes", "round_episodes", "batch_size", "save_steps")  # fmt: skip
        need(self, "", "a number of at least 0", lambda v: v >= 0,
             "rounds", "clone_noise_std", "weight_decay", "seed", "threads")  # fmt: skip
        need(self, "", "a number above 0", lambda v: v > 0, "learning_rate", "max_grad_norm")
        need(self, "", "a number from 0 to 1", lambda v: 0 <= v <= 1, "clone_share", "expert_share", "warmup_share")
        need(self, "", "a number of at least 0 and below 1", lambda v: 0 <= v < 1, "beta1", "beta2", "ema_decay")
        for kind in ("state", "action"):
            choice(f"{kind}_normalization", getattr(self, f"{kind}_normalization"), MODES)
        choice("precision", self.precision, PRECISIONS)
        _require_device(self.device)
        if self.encoder.tokens > self.head.context_tokens or self.encoder.width != self.head.context_width:
            raise UserError(
                f"the encoder gives {self.encoder.tokens} tokens of width {self.encoder.width}, the head takes "
                f"{self.head.context_tokens} of {self.head.context_width}: change encoder or head."
            )
        if self.encoder.image_size:
            raise UserError(
                f"encoder.image_size is {self.encoder.image_size}: states and words are distilled; set it to 0."
            )
        for where, body in (("body", self.body), *((f"bodies.{name}", body) for name, body in self.bodies.items())):
            for name in ("horizon", "history"):
                if getattr(body, name) > getattr(self.head, name):
                    raise UserError(
                        f"{where}.{name} is {getattr(body, name)}, the head was made for at most "
                        f"{getattr(self.head, name)}: raise head.{name}."
                    )

    def body_of(self, embodiment: str) -> BodyConfig:
        """How a body takes chunks."""
        return self.bodies.get(embodiment, self.body)

    @property
    def phase_steps(self) -> tuple[int, ...]:
        """Steps after which cloning and each round's training end, rising to `steps`."""
        if not self.rounds:
            return (self.steps,)
        clone = round(self.clone_share * self.steps)
        return tuple(clone + (self.steps - clone) * number // self.rounds for number in range(self.rounds + 1))


def distill_config(
    preset: str = "tiny",
    settings: Mapping[str, Any] | None = None,
    made: tuple[HeadConfig, EncoderConfig] | None = None,
) -> DistillConfig:
    """A preset of head and encoder, or the configs of a head that was `made` before, with some fields replaced.

    settings: fields of `DistillConfig`; "head", "encoder" and "body" hold mappings of their own fields, "bodies" one
    such mapping for each embodiment, over "body". Raises UserError for an unknown field and a value that cannot work.
    A head that was made keeps its sizes.
    """
    values = dict(settings or {})
    refuse_unknown(values, DistillConfig, "")
    groups = {name: _group(values.pop(name, {}), name) for name in ("head", "encoder", "body", "bodies")}
    refuse_unknown(groups["body"], BodyConfig, "body.")
    body = dataclasses.replace(BodyConfig(), **groups["body"])
    bodies = {}
    for name, changes in groups["bodies"].items():
        refuse_unknown(_group(changes, f"bodies.{name}"), BodyConfig, f"bodies.{name}.")
        bodies[name] = dataclasses.replace(body, **changes)
    if made is not None:
        if groups["head"] or groups["encoder"]:
            raise UserError("head and encoder are those of the trained generalist; leave settings of them away.")
        return DistillConfig(head=made[0], encoder=made[1], body=body, bodies=bodies, **values)
    encoder = {"image_size": 0, **groups["encoder"]}
    return DistillConfig(
        head=head_config(preset, groups["head"]), encoder=encoder_config(preset, encoder), body=body, bodies=bodies,
        **values,
    )  # fmt: skip


def to_json(config: DistillConfig) -> dict[str, Any]:
    """Plain data for `json.dumps`."""
    data = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    data |= {"head": config_to_json(config.head), "encoder": config_to_json(config.encoder)}
    data["body"] = dataclasses.asdict(config.body)
    data["bodies"] = {name: dataclasses.asdict(body) for name, body in config.bodies.items()}
    return data


def from_json(data: Any) -> DistillConfig:
    """The inverse of `to_json`. Raises UserError for unknown, missing or impossible fields."""
    values = complete_fields(data, DistillConfig, "config")
    values |= {"head": head_from_json(values["head"]), "encoder": encoder_from_json(values["encoder"])}
    values["body"] = BodyConfig(**complete_fields(values["body"], BodyConfig, "config.body"))
    values["bodies"] = {
        name: BodyConfig(**complete_fields(body, BodyConfig, f"config.bodies.{name}"))
        for name, body in _group(values["bodies"], "config.bodies").items()
    }
    return DistillConfig(**values)


def _require_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a torch that was built without CUDA
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"device is '{device}', which is not here ({reason}); use device 'cpu'.") from None


def _group(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{name} is {value!r}, expected fields of its own, such as {name}.NAME=VALUE.")
    return value
