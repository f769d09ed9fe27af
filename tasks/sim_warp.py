"""MuJoCo Warp: N worlds on a GPU, behind the same contract as the CPU's; the only place that knows `mujoco_warp`.

A control step is one captured graph (the substeps, a check after each, then the stage that the sensors in use
need), a reset another one. A graph holds addresses: no array is replaced after its capture, and what changes the
graph's work (a sensor of a later stage, more room) drops it, to be captured anew. Warp also captures on its CPU
device, so everything but CUDA itself runs there; that device is for tests.

Positions, velocities and sensors are Warp's own arrays seen as tensors. What is handed out is a clone on the device,
since a step writes into the arrays. Nothing here waits for the device but `collect_overflows` and the constructor.

Differs from the C engine: float32; not bit-reproducible on a GPU (atomic sums); no PGS solver, Newton serves instead;
no check for divergence of its own, so that a kernel does after each substep what `mj_step` does: a world that is not
finite, or beyond 1e10, is put into the model's default state and reported in `diverged`.

Axes: N worlds, nq/nv/nu as in MuJoCo.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from tasks.errors import UserError, did_you_mean
from tasks.randomize import derived_constants
from tasks.sim_warp_device import MAX_VALUE, captured, catch_divergence, open_device, placed, start_worlds
from tasks.warp_room import Room

ROOM_GROWTH = 2
"""Room is made this many times larger when a world ran out of it."""

_ROOM = {
    mjw.OverflowType.NEFC: "constraints",
    mjw.OverflowType.NJMAX_NNZ: "constraints",
    mjw.OverflowType.BROADPHASE: "contacts",
    mjw.OverflowType.NARROWPHASE: "contacts",
    mjw.OverflowType.CCD: "contacts",
}
"""Overflows that more room mends, and room for what. The others (of iterations, of a height field) are the model's."""
_LOST = (*_ROOM, mjw.OverflowType.HFIELD, mjw.OverflowType.CONTACT_MATCH, mjw.OverflowType.EPA_HORIZON)
"""Overflows with which contacts or constraints are left out."""
_CONTACT_SENSORS = tuple(
    int(kind) for kind in (mujoco.mjtSensor.mjSENS_GEOMDIST, mujoco.mjtSensor.mjSENS_GEOMNORMAL,
                           mujoco.mjtSensor.mjSENS_GEOMFROMTO)
)  # fmt: skip
"""Sensors of the position stage that need collision detection."""

_log = logging.getLogger(__name__)


class WarpSimulation:
    """N worlds on `mujoco_warp`.

    Args:
        model: The compiled model; it is copied to the device.
        num_envs: N.
        substeps: Physics steps per `step`.
        device: torch device of the worlds, "cuda", "cuda:1", or "cpu" for tests.
        room: Memory for contacts and constraints (`tasks.warp_room` measures it).
        use_graphs: False launches every kernel by itself; slow, to look for faults.

    Raises:
        UserError: num_envs or substeps is not positive, the device is not there, or the model needs something that
            MuJoCo Warp does not have.
    """

    asynchronous = True

    def __init__(
        self,
        model: mujoco.MjModel,
        num_envs: int,
        substeps: int,
        device: str = "cuda",
        room: Room | None = None,
        use_graphs: bool = True,
    ) -> None:
        if num_envs < 1 or substeps < 1:
            raise UserError(f"num_envs={num_envs}, substeps={substeps}; both must be at least 1.")
        self._wp_device = open_device(device)
        self.num_envs = num_envs
        self.device = device
        self.model = model
        self.physics_dt_s = float(model.opt.timestep)
        self.substeps = substeps
        self.memory: dict[str, Tensor] = {}
        self.constants: dict[str, Tensor] = {}
        self.room = room or Room()
        self._use_graphs = use_graphs
        self._graphs: dict[str, Any] = {}
        self._stage = int(mujoco.mjtStage.mjSTAGE_NONE)
        self._collides_for_sensors = False
        self._sensor_slices: dict[str, slice] = {}
        self._on_device = _solvable(model)
        with placed(self._wp_device):
            try:
                self._m = mjw.put_model(self._on_device)
            except (NotImplementedError, ValueError) as error:
                text = " ".join(str(error).split())
                raise UserError(f"MuJoCo Warp cannot simulate this model: {text} Use --backend native.") from error
            self._m.opt.warn_overflow = 0  # `collect_overflows` tells; the kernels would print
            if self._wp_device.is_cuda and not wp.is_conditional_graph_supported():
                self._m.opt.graph_conditional = False
            # Substeps leave out the sensors: only the state after the last one is looked at.
            self._m_substep = copy.copy(self._m)
            self._m_substep.opt = copy.copy(self._m.opt)
            self._m_substep.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_SENSOR)
            self._chosen = wp.zeros(num_envs, dtype=int)
            self._diverged = wp.zeros(num_envs, dtype=int)
            self._new_qpos = wp.zeros((num_envs, model.nq), dtype=float)
            self._new_qvel = wp.zeros((num_envs, model.nv), dtype=float)
            self._still = wp.zeros((1, model.nv), dtype=float)
            self._d = self._make_data()
        self._bind()
        self._load_kernels()
        self._hand_out()

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
        return self._diverged_now

    def sensor(self, name: str) -> Tensor:
        """A named MJCF sensor (N, dim), fresh. Raises UserError on an unknown name."""
        if name not in self._sensor_slices:
            self._bind_sensor(name)
        return self._sensordata[:, self._sensor_slices[name]]

    def set_state(self, env_ids: Tensor, qpos: Tensor, qvel: Tensor, where: Tensor | None = None) -> None:
        """Put worlds into a new state: time, controls, activations and warm starts are cleared first."""
        if not len(env_ids):
            return
        chosen = self._views["chosen"]
        ones = torch.ones(len(env_ids), dtype=torch.int32, device=self.device)
        chosen.zero_()
        chosen.index_copy_(0, env_ids, ones if where is None else where.to(torch.int32))
        self._views["new_qpos"].index_copy_(0, env_ids, qpos.to(self._views["new_qpos"]))
        self._views["new_qvel"].index_copy_(0, env_ids, qvel.to(self._views["new_qvel"]))
        self._launch("reset", self._reset_work)
        self._hand_out(diverged=False)

    def set_ctrl(self, ctrl: Tensor) -> None:
        """Controls (N, nu) for the next step."""
        if not self.model.nu:
            raise UserError("the model has no actuators, yet controls were set.")
        self._views["ctrl"].copy_(ctrl)

    def set_parameters(self, fields: Mapping[str, np.ndarray]) -> None:
        """Fields of MjModel, (N, ...) each. What follows from them is computed by MuJoCo itself, world by world."""
        made = {**fields, **derived_constants(copy.copy(self._on_device), fields, self.num_envs)}
        with placed(self._wp_device):
            for name, values in made.items():
                shared = getattr(self._m, name)
                own = wp.array(np.ascontiguousarray(values, dtype=np.float32), dtype=shared.dtype)
                for model in (self._m, self._m_substep):
                    setattr(model, name, own)
        self._graphs.clear()
        self._load_kernels()
        self._hand_out()

    def add_velocity(self, change: Tensor) -> None:
        """Change the velocities by (N, nv)."""
        self._views["qvel"].add_(change)
        self._qvel = self._qvel + change

    def step(self) -> None:
        """Advance every world by `substeps` substeps, then refresh what is read."""
        self._launch("step", self._step_work)
        self._hand_out()

    def forward(self, env_ids: Tensor | None = None) -> None:
        """Recompute the sensors that are read, of all worlds: they are a function of the state alone."""
        if self._stage:
            self._launch("refresh", self._refresh_work)
            self._sensordata = self._views["sensordata"].clone()

    def collect_overflows(self) -> dict[str, int]:
        """Worlds in which contacts or constraints were left out since the last call, by what ran out; {} where none.

        More room is made for what ran out, so the next steps are captured anew. Waits for the device.
        """
        seen = self._views["overflow"].clone().cpu()
        if not int(seen.any()):
            return {}
        self._views["overflow"].zero_()
        hit = {kind: int((seen & int(kind)).ne(0).sum()) for kind in _LOST}
        lost = {kind.name.lower(): worlds for kind, worlds in hit.items() if worlds}
        short = {_ROOM[kind] for kind, worlds in hit.items() if worlds and kind in _ROOM}
        if short:
            contacts, constraints = (
                getattr(self.room, what) * (ROOM_GROWTH if what in short else 1) for what in ("contacts", "constraints")
            )
            self._make_room(Room(contacts, constraints))
        return lost

    def most_used(self) -> tuple[int, int]:
        """Contacts or pairs of near shapes at present, of all worlds together, and rows of the world that has most.
        Waits for the device."""
        d = self._d
        contacts, pairs, rows = (int(wp.to_torch(array).max()) for array in (d.nacon, d.ncollision, d.nefc))
        return max(contacts, pairs), rows

    def close(self) -> None:
        """Drop the worlds and their graphs."""
        self._graphs.clear()
        self._views.clear()
        del self._d, self._m, self._m_substep

    # What the graphs hold.

    def _step_work(self) -> None:
        self._diverged.zero_()
        self._check()  # a state that was set may be none
        for _ in range(self.substeps):
            mjw.step(self._m_substep, self._d)
            self._check()
        self._refresh_work()

    def _reset_work(self) -> None:
        self._start(start_worlds, [self._chosen, self._new_qpos, self._new_qvel])
        self._refresh_work()

    def _refresh_work(self) -> None:
        """Sensors up to the stage that is read, at the present state. Contacts are left out where none needs them."""
        if not self._stage:
            return
        if self._stage >= int(mujoco.mjtStage.mjSTAGE_ACC):
            mjw.forward(self._m, self._d)
            return
        mjw.fwd_kinematics(self._m, self._d)
        if self._collides_for_sensors:
            mjw.collision(self._m, self._d)
        mjw.transmission(self._m, self._d)
        self._d.sensordata.zero_()
        mjw.sensor_pos(self._m, self._d)
        mjw.fwd_velocity(self._m, self._d)
        mjw.sensor_vel(self._m, self._d)

    def _check(self) -> None:
        self._start(catch_divergence, [MAX_VALUE, self._diverged, self._m.qpos0, self._still])

    def _start(self, kernel: Any, first: list[Any]) -> None:
        d = self._d
        rest = [d.time, d.qpos, d.qvel, d.qacc, d.qacc_warmstart, d.ctrl, d.act, d.eq_active]
        wp.launch(kernel, dim=self.num_envs, inputs=[*first, self._m.eq_active0, *rest])

    def _launch(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` as a graph, which is captured the first time."""
        if self._use_graphs and name not in self._graphs:
            # Outside of torch's stream: its default one cannot be captured.
            with wp.ScopedDevice(self._wp_device):
                self._graphs[name] = captured(self._wp_device, work)
        with placed(self._wp_device) as stream:
            if self._use_graphs:
                wp.capture_launch(self._graphs[name], stream=stream)
            else:
                work()

    # Arrays.

    def _make_data(self) -> Any:
        return mjw.make_data(
            self._on_device, nworld=self.num_envs, nconmax=self.room.contacts, njmax=self.room.constraints
        )

    def _bind(self) -> None:
        d = self._d
        arrays = {"qpos": d.qpos, "qvel": d.qvel, "ctrl": d.ctrl, "act": d.act, "sensordata": d.sensordata,
                  "qacc": d.qacc, "warmstart": d.qacc_warmstart, "time": d.time, "overflow": d.overflow,
                  "chosen": self._chosen, "diverged": self._diverged,
                  "new_qpos": self._new_qpos, "new_qvel": self._new_qvel}  # fmt: skip
        self._views = {name: wp.to_torch(array) for name, array in arrays.items()}

    def _load_kernels(self) -> None:
        """Run everything once: a kernel must not be compiled while a graph is captured. Ends in the default state."""
        with placed(self._wp_device):
            self._step_work()
            self._chosen.fill_(1)
            wp.copy(self._new_qpos, wp.array(self.model.qpos0[None].repeat(self.num_envs, 0), dtype=float))
            self._reset_work()
            self._diverged.zero_()
            self._d.overflow.zero_()

    def _make_room(self, room: Room) -> None:
        """The same worlds in larger arrays."""
        _log.warning("MuJoCo Warp ran out of room: %s becomes %s", self.room, room)
        kept = {
            name: self._views[name].clone() for name in ("qpos", "qvel", "ctrl", "act", "qacc", "warmstart", "time")
        }
        self._graphs.clear()
        self.room = room
        with placed(self._wp_device):
            self._d = self._make_data()
            self._bind()
            self._load_kernels()
        for name, values in kept.items():
            self._views[name].copy_(values)
        self.forward()
        self._hand_out(diverged=False)

    def _hand_out(self, *, diverged: bool = True) -> None:
        self._qpos, self._qvel = self._views["qpos"].clone(), self._views["qvel"].clone()
        self._sensordata = self._views["sensordata"].clone()
        if diverged:
            self._diverged_now = self._views["diverged"] != 0

    def _bind_sensor(self, name: str) -> None:
        sensor_id = mujoco.mj_name2id(self.model, mujoco.mjtObj.mjOBJ_SENSOR, name)
        if sensor_id < 0:
            known = [self.model.sensor(i).name for i in range(self.model.nsensor)]
            raise UserError(f"the model has no sensor '{name}'.{did_you_mean(name, known)}")
        start, width = int(self.model.sensor_adr[sensor_id]), int(self.model.sensor_dim[sensor_id])
        self._sensor_slices[name] = slice(start, start + width)
        stage = max(int(self.model.sensor_needstage[sensor_id]), int(mujoco.mjtStage.mjSTAGE_VEL))
        collides = int(self.model.sensor_type[sensor_id]) in _CONTACT_SENSORS
        if stage > self._stage or (collides and not self._collides_for_sensors):
            self._stage, self._collides_for_sensors = max(stage, self._stage), collides or self._collides_for_sensors
            self._graphs.clear()
            with placed(self._wp_device):
                self._refresh_work()  # loads its kernels
            self._sensordata = self._views["sensordata"].clone()


def _solvable(model: mujoco.MjModel) -> mujoco.MjModel:
    """The model, with Newton's solver where it names PGS, which MuJoCo Warp does not have."""
    if model.opt.solver != mujoco.mjtSolver.mjSOL_PGS:
        return model
    _log.warning("the model names the PGS solver, which MuJoCo Warp does not have; Newton serves instead")
    changed = copy.copy(model)
    changed.opt.solver = int(mujoco.mjtSolver.mjSOL_NEWTON)
    return changed
