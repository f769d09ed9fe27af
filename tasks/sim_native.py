"""MuJoCo's C engine on CPU threads: the embedded default backend, and the only place that knows `mujoco.batch`.

The batch keeps warm starts and integrates exactly like a loop of `mj_step`. Derived quantities are one substep
old after a step unless asked for; as soon as a task reads a sensor, each step ends with the stage that sensor
needs (position and velocity sensors cost about a tenth of a step, acceleration sensors a whole substep).

MuJoCo resets a world that has diverged to the model's default state and only counts a warning; the counters are
read after every step and such worlds reported in `diverged`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from tasks.errors import UserError, did_you_mean

# The warnings after which mj_step has reset the state (mjtWarning: BADQPOS, BADQVEL, BADQACC).
_DIVERGENCE_WARNINGS = (
    int(mujoco.mjtWarning.mjWARN_BADQPOS),
    int(mujoco.mjtWarning.mjWARN_BADQVEL),
    int(mujoco.mjtWarning.mjWARN_BADQACC),
)

_log = logging.getLogger(__name__)


def _log_warning(message: str) -> None:
    _log.debug("MuJoCo: %s", message)


# Without a handler MuJoCo prints every warning and appends it to MUJOCO_LOG.TXT in the working directory, from many
# threads at once. Divergence is read from the counters; the text goes to the log.
mujoco.set_mju_user_warning(_log_warning)


class NativeSimulation:
    """N worlds on `mujoco.batch.Batch`.

    Args:
        model: The compiled model; the batch works on a copy of it.
        num_envs: N.
        substeps: Physics steps per `step`.
        num_threads: Threads that step the worlds; 0 means all cores.

    Raises:
        UserError: num_envs or substeps is not positive.
    """

    asynchronous = False

    def __init__(self, model: mujoco.MjModel, num_envs: int, substeps: int, num_threads: int = 0) -> None:
        if num_envs < 1 or substeps < 1:
            raise UserError(f"num_envs={num_envs}, substeps={substeps}; both must be at least 1.")
        self.num_envs = num_envs
        self.device = "cpu"
        self.model = model
        self.physics_dt_s = float(model.opt.timestep)
        self.substeps = substeps
        self.memory: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}
        self._batch = Batch(model, num_envs, num_threads)
        self._qpos64 = self._batch.bind("qpos")
        self._qvel64 = self._batch.bind("qvel")
        self._ctrl64 = self._batch.bind("ctrl") if model.nu else None
        self._stage = mujoco.mjtStage.mjSTAGE_NONE
        self._sensordata: np.ndarray | None = None
        self._sensor_slices: dict[str, slice] = {}
        self._batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        self._diverged = torch.zeros(num_envs, dtype=torch.bool)
        self._qpos = torch.empty(num_envs, model.nq)
        self._qvel = torch.empty(num_envs, model.nv)
        self._refresh()

    @property
    def num_threads(self) -> int:
        """Threads that step the worlds."""
        return self._batch.nthread

    @property
    def qpos(self) -> Tensor:
        """Generalised positions (N, nq)."""
        return self._qpos

    @property
    def qvel(self) -> Tensor:
        """Generalised velocities (N, nv)."""
        return self._qvel

    @property
    def diverged(self) -> Tensor:
        """Worlds whose last step blew up, (N,) bool."""
        return self._diverged

    def sensor(self, name: str) -> Tensor:
        """A named MJCF sensor (N, dim), fresh. Raises UserError on an unknown name."""
        if name not in self._sensor_slices:
            self._bind_sensor(name)
        assert self._sensordata is not None
        return torch.from_numpy(self._sensordata[:, self._sensor_slices[name]].astype(np.float32))

    def _bind_sensor(self, name: str) -> None:
        sensor_id = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SENSOR, name)
        if sensor_id < 0:
            known = [self.model.sensor(i).name for i in range(self.model.nsensor)]
            raise UserError(f"the model has no sensor '{name}'.{did_you_mean(name, known)}")
        if self._sensordata is None:
            self._sensordata = self._batch.bind("sensordata")
        start, width = int(self.model.sensor_adr[sensor_id]), int(self.model.sensor_dim[sensor_id])
        self._sensor_slices[name] = slice(start, start + width)
        stage = mujoco.mjtStage(int(self.model.sensor_needstage[sensor_id]))
        # Velocity is the least that helps: the batch offers no position-only stage that is cheaper in practice.
        self._stage = max(self._stage, stage, mujoco.mjtStage.mjSTAGE_VEL, key=int)
        self.forward()

    def set_state(self, env_ids: Tensor, qpos: Tensor, qvel: Tensor, where: Tensor | None = None) -> None:
        """Put worlds into a new state: time, controls, activations and warm starts are cleared first."""
        if where is not None:
            env_ids, qpos, qvel = env_ids[where], qpos[where], qvel[where]
        ids = env_ids.cpu().numpy().astype(np.int32)
        if ids.size == 0:
            return
        self._batch.reset(np.sort(ids), stage=mujoco.mjtStage.mjSTAGE_NONE)  # the batch wants ids in ascending order
        self._qpos64[ids] = qpos.cpu().numpy()
        self._qvel64[ids] = qvel.cpu().numpy()
        # Out of place: signals handed out before this reset are views of the old tensors.
        self._qpos = self._qpos.index_copy(0, env_ids, qpos.to(torch.float32))
        self._qvel = self._qvel.index_copy(0, env_ids, qvel.to(torch.float32))
        self.forward(env_ids)

    def set_ctrl(self, ctrl: Tensor) -> None:
        """Controls (N, nu) for the next step."""
        if self._ctrl64 is None:
            raise UserError("the model has no actuators, yet controls were set.")
        np.copyto(self._ctrl64, ctrl.numpy(), casting="same_kind")

    def set_parameters(self, fields: Mapping[str, np.ndarray]) -> None:
        """Fields of MjModel, (N, ...) each."""
        for name, values in fields.items():
            self._batch.expand(name)[:] = values
        if fields:
            self._batch.set_const()

    def add_velocity(self, change: Tensor) -> None:
        """Change the velocities by (N, nv)."""
        if change.any():
            self._qvel64 += change.numpy()
            self._qvel = self._qvel + change

    def step(self) -> None:
        """Advance every world by `substeps` substeps, then refresh what is read."""
        self._batch.step(nstep=self.substeps, stage=int(self._stage))
        counts = self._batch.warning[:, _DIVERGENCE_WARNINGS, 1]  # (N, 3) times each kind was raised
        self._diverged = torch.from_numpy(counts.any(axis=-1))
        if self._diverged.any():
            # The engine's own reset restarts the count at one, so a second divergence would not show as a rise.
            self._batch.warning[:] = 0
        self._refresh()

    def forward(self, env_ids: Tensor | None = None) -> None:
        """Recompute the sensors that are read, for the present state of the given worlds."""
        if self._stage != mujoco.mjtStage.mjSTAGE_NONE:
            ids = None if env_ids is None else np.sort(env_ids.cpu().numpy().astype(np.int32))
            self._batch.forward(ids, stage=int(self._stage))

    def collect_overflows(self) -> dict[str, int]:
        """Nothing: the C engine takes the memory that a world needs."""
        return {}

    def close(self) -> None:
        """Drop the worlds and their threads."""
        del self._batch, self._qpos64, self._qvel64, self._ctrl64
        self._sensordata = None

    def _refresh(self) -> None:
        # copy_ into the same tensors would change what earlier callers hold; a step hands out new ones.
        self._qpos = torch.from_numpy(self._qpos64.astype(np.float32))
        self._qvel = torch.from_numpy(self._qvel64.astype(np.float32))
