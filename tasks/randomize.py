"""Worlds that differ: masses, friction, servo gains and armature drawn once for each world, and pushes while it runs.

A task says what may vary in its `randomize` table; nothing varies unless it is asked for (`make_env(randomize=True)`).
Draws come from a generator of their own on the CPU, so that equal seeds give equal worlds on every backend, and the
episodes' starts are those of worlds that are all alike. It does not know how a backend holds the numbers.

Axes: N worlds; fields of MuJoCo's model as there, with N in front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
import torch
from torch import Tensor

from tasks.errors import UserError, did_you_mean
from tasks.math import uniform

Kind = Literal["mass", "friction", "gain", "armature"]

Parameters = dict[str, np.ndarray]
"""Field of MjModel -> its values in every world (N, ...)."""

DERIVED = ("body_subtreemass", "body_invweight0", "dof_invweight0", "tendon_invweight0", "actuator_acc0")
"""Fields that mj_setConst makes of masses, inertias and armature."""

_NAMED_BY = {
    "mass": mujoco.mjtObj.mjOBJ_BODY,
    "friction": mujoco.mjtObj.mjOBJ_GEOM,
    "gain": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "armature": mujoco.mjtObj.mjOBJ_JOINT,
}


@dataclass(frozen=True)
class Vary:
    """One factor a world, uniform, for all that the row names.

    mass: of bodies, with their inertia. friction: sliding, of geoms; MuJoCo takes the larger of two that touch, so that
    a floor has to vary along. gain: of actuators, stiffness and damping of a servo alike. armature: of joints.
    """

    what: Kind
    """Which number."""
    low: float
    """Least factor, above 0."""
    high: float
    """Largest factor."""
    names: tuple[str, ...] = ()
    """Bodies, geoms, actuators or joints; empty: all of them."""

    def __post_init__(self) -> None:
        if self.what not in _NAMED_BY:
            raise UserError(f"randomize: '{self.what}' cannot vary; known: {', '.join(_NAMED_BY)}.")
        if not 0.0 < self.low <= self.high:
            raise UserError(f"randomize: {self.what} from {self.low} to {self.high}; expected 0 < low <= high.")


@dataclass(frozen=True)
class Push:
    """Now and then the body of the first free joint gets another velocity, as legged_gym's pushes."""

    speed_m_s: float
    """Largest change of its velocity along world x, and along y."""
    every_s: tuple[float, float]
    """Least and longest time between two pushes of a world."""

    def __post_init__(self) -> None:
        if not self.speed_m_s > 0 or not 0 < self.every_s[0] <= self.every_s[1]:
            raise UserError(
                f"randomize: a push of {self.speed_m_s} m/s every {self.every_s} s; expected numbers above 0."
            )


@dataclass(frozen=True)
class Randomize:
    """What may vary in a task."""

    vary: Sequence[Vary] = ()
    push: Push | None = None


def draw(model: mujoco.MjModel, table: Randomize, num_envs: int, seed: int) -> Parameters:
    """The fields that differ, for N worlds.

    Raises:
        UserError: a row names something that the model does not have.
    """
    rng = torch.Generator().manual_seed(seed)
    found: Parameters = {}

    def scale(field: str, factor: np.ndarray, where: tuple) -> None:
        if field not in found:
            found[field] = np.repeat(getattr(model, field)[None], num_envs, axis=0)
        part = found[field][(slice(None), *where)]
        found[field][(slice(None), *where)] = part * factor.reshape(-1, *[1] * (part.ndim - 1))

    for row in table.vary:
        factor = uniform((num_envs,), row.low, row.high, rng).double().numpy()
        ids = _ids(model, row)
        if row.what == "mass":
            scale("body_mass", factor, (ids,))
            scale("body_inertia", factor, (ids,))
        elif row.what == "friction":
            scale("geom_friction", factor, (ids, 0))
        elif row.what == "gain":
            scale("actuator_gainprm", factor, (ids, 0))
            scale("actuator_biasprm", factor, (ids, slice(1, 3)))
        else:
            scale("dof_armature", factor, (np.flatnonzero(np.isin(model.dof_jntid, ids)),))
    return found


def derived_constants(model: mujoco.MjModel, fields: Mapping[str, np.ndarray], num_envs: int) -> Parameters:
    """What mj_setConst makes of `fields`, world by world: `DERIVED`, (N, ...) each; {} where none depends on them."""
    if not set(fields) & {"body_mass", "body_inertia", "dof_armature"}:
        return {}
    given = {name: getattr(model, name).copy() for name in (*fields, *DERIVED)}
    made = {name: np.repeat(given[name][None], num_envs, axis=0) for name in DERIVED}
    data = mujoco.MjData(model)
    try:
        for world in range(num_envs):
            for name, values in fields.items():
                getattr(model, name)[:] = values[world]
            mujoco.mj_setConst(model, data)
            for name, values in made.items():
                values[world] = getattr(model, name)
    finally:
        for name, values in given.items():
            getattr(model, name)[:] = values
        mujoco.mj_setConst(model, data)
    return made


def _ids(model: mujoco.MjModel, row: Vary) -> np.ndarray:
    """Numbers of what a row names."""
    kind = _NAMED_BY[row.what]
    count = {"mass": model.nbody, "friction": model.ngeom, "gain": model.nu, "armature": model.njnt}[row.what]
    if not row.names:
        return np.arange(count)
    ids = [mujoco.mj_name2id(model, kind, name) for name in row.names]
    for name, number in zip(row.names, ids, strict=True):
        if number < 0:
            known = [mujoco.mj_id2name(model, kind, i) or "" for i in range(count)]
            what = kind.name.removeprefix("mjOBJ_").lower()
            raise UserError(f"randomize: the model has no {what} '{name}'.{did_you_mean(name, known)}")
    return np.array(ids)


class Pushes:
    """When which world is pushed. Never asks the device.

    Args:
        push: How strong and how often.
        model: Its first free joint is pushed.
        num_envs: N.
        control_dt_s: Time between two calls of `next`.
        device: torch device of the worlds.
        seed: Of the draws.

    Raises:
        UserError: the model has no free joint.
    """

    def __init__(
        self, push: Push, model: mujoco.MjModel, num_envs: int, control_dt_s: float, device: str, seed: int
    ) -> None:
        free = np.flatnonzero(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE)
        if not len(free):
            raise UserError("randomize: a push needs a free joint, and the model has none.")
        self._first_dof = int(model.jnt_dofadr[free[0]])
        self._push, self._num_envs, self._nv, self._dt_s = push, num_envs, int(model.nv), control_dt_s
        self._rng = torch.Generator(device=device).manual_seed(seed)
        self._steps_left = self._pauses()

    def next(self) -> Tensor:
        """The change of the velocities (N, nv) before this step; 0 in worlds whose time has not come."""
        self._steps_left = self._steps_left - 1
        due = self._steps_left <= 0
        speed = self._push.speed_m_s
        change = torch.zeros(self._num_envs, self._nv, device=self._rng.device)
        change[:, self._first_dof : self._first_dof + 2] = uniform((self._num_envs, 2), -speed, speed, self._rng)
        self._steps_left = torch.where(due, self._pauses(), self._steps_left)
        return torch.where(due[:, None], change, 0.0)

    def _pauses(self) -> Tensor:
        low, high = (seconds / self._dt_s for seconds in self._push.every_s)
        return uniform((self._num_envs,), low, high, self._rng).round().clamp(min=1.0)
