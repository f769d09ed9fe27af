"""The native backend against a plain loop of MuJoCo's own mj_step, one MjData a world."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
import pytest
import torch

from tasks.errors import UserError
from tasks.sim_native import NativeSimulation
from tests.tasks.toy_tasks import CRAWLER_XML, SLIDER_XML

N = 5
SUBSTEPS = 4
MODEL = mujoco.MjModel.from_xml_string(CRAWLER_XML)
SENSORS = {"foot_position": 3, "velocity": 3, "gyro": 3, "touch": 1, "acceleration": 3}


def start_states(seed: int = 0, n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes just above the floor, moving."""
    rng = torch.Generator().manual_seed(seed)
    qpos = torch.tensor(MODEL.qpos0, dtype=torch.float32).repeat(n, 1)
    qpos[:, 2] = 0.18 + 0.1 * torch.rand(n, generator=rng)
    return qpos, 0.5 * torch.randn(n, MODEL.nv, generator=rng)


def controls(seed: int = 1) -> torch.Tensor:
    """(T, N, nu)."""
    return torch.rand(60, N, MODEL.nu, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def new_sim(sensors: Sequence[str] = (), num_threads: int = 2) -> NativeSimulation:
    sim = NativeSimulation(MODEL, N, SUBSTEPS, num_threads)
    for name in sensors:
        sim.sensor(name)
    sim.set_state(torch.arange(N), *start_states())
    return sim


def new_datas() -> list[mujoco.MjData]:
    datas = []
    for qpos, qvel in zip(*start_states(), strict=True):
        data = mujoco.MjData(MODEL)
        data.qpos[:], data.qvel[:] = qpos.numpy(), qvel.numpy()
        datas.append(data)
    return datas


def loop(datas: list[mujoco.MjData], ctrl: torch.Tensor, *, keep_warm: bool = True) -> None:
    for data, row in zip(datas, ctrl, strict=True):
        data.ctrl[:] = row.numpy()
        for _ in range(SUBSTEPS):
            if not keep_warm:
                data.qacc_warmstart[:] = 0.0
            mujoco.mj_step(MODEL, data)


def as_float32(datas: list[mujoco.MjData], field: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([getattr(data, field) for data in datas]).astype(np.float32))


@pytest.mark.parametrize("sensors", [(), ("foot_position",), ("velocity",), ("touch", "acceleration")])
def test_states_equal_a_loop_of_mj_step(sensors):
    """Bit-equal over 60 steps with contacts, whatever stage the sensors that are read add to a step."""
    sim, datas = new_sim(sensors), new_datas()
    contacts = 0
    for ctrl in controls():
        sim.set_ctrl(ctrl)
        sim.step()
        loop(datas, ctrl)
        contacts += sum(data.ncon for data in datas)
        assert torch.equal(sim.qpos, as_float32(datas, "qpos"))
        assert torch.equal(sim.qvel, as_float32(datas, "qvel"))
    assert contacts > 100
    assert sim.qpos.dtype == torch.float32 and sim.qpos.shape == (N, MODEL.nq)


def test_the_comparison_would_notice_a_lost_warm_start():
    """The model is such that warm starts matter: else the equality above would say nothing about them."""
    warm, cold = new_datas(), new_datas()
    for ctrl in controls():
        loop(warm, ctrl)
        loop(cold, ctrl, keep_warm=False)
    assert not torch.equal(as_float32(warm, "qpos"), as_float32(cold, "qpos"))


def test_sensors_equal_mj_forward_at_the_new_state():
    """Also those of the acceleration stage, and none is one substep old."""
    sim, datas = new_sim(SENSORS), new_datas()
    stale_differs = touched = False
    for ctrl in controls():
        sim.set_ctrl(ctrl)
        sim.step()
        loop(datas, ctrl)
        stale = as_float32(datas, "sensordata")
        for data in datas:
            mujoco.mj_forward(MODEL, data)
        fresh = as_float32(datas, "sensordata")
        stale_differs |= not torch.equal(stale, fresh)
        start = 0
        for name, width in SENSORS.items():
            value = sim.sensor(name)
            assert value.shape == (N, width) and value.dtype == torch.float32
            assert torch.equal(value, fresh[:, start : start + width]), name
            start += width
        touched |= bool((sim.sensor("touch") > 0).any())
    assert stale_differs and touched


def test_sensors_are_fresh_after_set_state_and_on_first_use():
    sim = new_sim(["velocity"])
    sim.step()
    qpos, qvel = start_states(seed=7, n=2)
    sim.set_state(torch.tensor([3, 1]), qpos, qvel)
    for row, world in enumerate((3, 1)):
        data = mujoco.MjData(MODEL)
        data.qpos[:], data.qvel[:] = qpos[row].numpy(), qvel[row].numpy()
        mujoco.mj_forward(MODEL, data)
        for name in ("velocity", "acceleration"):  # the second is bound only now
            expected = torch.from_numpy(data.sensor(name).data.astype(np.float32))
            assert torch.equal(sim.sensor(name)[world], expected), name


def test_set_state_of_some_worlds_leaves_the_others_alone():
    """The others go on bit for bit as if nothing had happened, warm starts included."""
    touched, untouched = new_sim(["acceleration"]), new_sim(["acceleration"])
    for step, ctrl in enumerate(controls()):
        for sim in (touched, untouched):
            sim.set_ctrl(ctrl)
        if step == 20:
            before = touched.qpos.clone(), touched.sensor("acceleration").clone()
            touched.set_state(torch.tensor([4, 1]), *start_states(seed=9, n=2))
            others = torch.tensor([0, 2, 3])
            assert torch.equal(touched.qpos[others], before[0][others])
            assert torch.equal(touched.sensor("acceleration")[others], before[1][others])
        touched.step()
        untouched.step()
    assert torch.equal(touched.qpos[others], untouched.qpos[others])
    assert torch.equal(touched.qvel[others], untouched.qvel[others])
    assert not torch.equal(touched.qpos[1], untouched.qpos[1])


def test_a_reset_world_remembers_nothing():
    """After set_state a used world goes the way of a new one: warm start, time and controls are gone."""
    used, new = new_sim(), new_sim()
    for ctrl in controls():
        used.set_ctrl(ctrl)
        used.step()
    used.set_state(torch.arange(N), *start_states())
    for _ in range(30):
        used.step()
        new.step()
    assert torch.equal(used.qpos, new.qpos) and torch.equal(used.qvel, new.qvel)


def test_an_empty_set_state_changes_nothing():
    sim = new_sim(["velocity"])
    sim.step()
    before = sim.qpos.clone()
    sim.set_state(torch.zeros(0, dtype=torch.int64), torch.zeros(0, MODEL.nq), torch.zeros(0, MODEL.nv))
    assert torch.equal(sim.qpos, before)


def test_tensors_handed_out_do_not_change_later():
    sim = new_sim(["velocity"])
    held = sim.qpos, sim.qvel, sim.sensor("velocity"), sim.diverged
    copies = [tensor.clone() for tensor in held]
    sim.set_state(torch.tensor([0]), *start_states(seed=5, n=1))
    sim.step()
    for tensor, copy in zip(held, copies, strict=True):
        assert torch.equal(tensor, copy)


def test_thread_count_does_not_change_results():
    single, several = new_sim(num_threads=1), new_sim(num_threads=3)
    assert (single.num_threads, several.num_threads) == (1, 3)
    for ctrl in controls():
        for sim in (single, several):
            sim.set_ctrl(ctrl)
            sim.step()
    assert torch.equal(single.qpos, several.qpos) and torch.equal(single.qvel, several.qvel)


@pytest.mark.parametrize(
    ("field", "value"),
    [("qpos", torch.nan), ("qpos", torch.inf), ("qvel", torch.nan), ("qvel", 1e12), ("qvel", -torch.inf)],
)
@pytest.mark.parametrize("sensors", [(), ("acceleration",)])
def test_divergence_is_flagged_once_and_only_there(field, value, sensors):
    sim = new_sim(sensors)
    sim.step()
    assert not sim.diverged.any()
    for _ in range(2):  # the engine's own reset restarts its counters, so twice in a row is a case of its own
        qpos, qvel = start_states(seed=2, n=1)
        (qpos if field == "qpos" else qvel)[0, 0] = value
        sim.set_state(torch.tensor([2]), qpos, qvel)
        sim.step()
        assert sim.diverged.tolist() == [False, False, True, False, False]
        assert torch.isfinite(sim.qpos).all() and torch.isfinite(sim.qvel).all()
    sim.step()
    assert not sim.diverged.any()


def test_divergence_twice_in_a_row_without_a_reset_between():
    """A force that blows the world up in every step: flagged in every step, whatever the engine's reset does."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint name='j' type='slide'/><geom size='0.1' mass='1'/></body></worldbody>"
        "<actuator><motor joint='j' gear='1e9' ctrlrange='-1e9 1e9'/></actuator></mujoco>"
    )
    sim = NativeSimulation(model, 3, 1)
    for _ in range(3):
        sim.set_ctrl(torch.tensor([[0.0], [1e9], [0.0]]))
        sim.step()
        assert sim.diverged.tolist() == [False, True, False]
    sim.set_ctrl(torch.zeros(3, 1))
    sim.step()
    assert not sim.diverged.any()


def test_controls_are_held_and_in_actuator_units():
    """1 kg under 3 N: v = 3 t, and semi-implicit Euler puts x at 3 dt^2 n (n + 1) / 2."""
    sim = NativeSimulation(mujoco.MjModel.from_xml_string(SLIDER_XML), 1, 5)
    sim.set_ctrl(torch.tensor([[3.0]]))
    sim.step()
    sim.step()
    assert sim.qvel.item() == pytest.approx(3 * 10 * 0.01, rel=1e-6)
    assert sim.qpos.item() == pytest.approx(3 * 0.01**2 * 10 * 11 / 2, rel=1e-6)
    assert sim.physics_dt_s == 0.01 and sim.substeps == 5


def test_bad_input_is_one_line():
    with pytest.raises(UserError, match="num_envs=0"):
        NativeSimulation(MODEL, 0, 1)
    with pytest.raises(UserError, match="substeps=0"):
        NativeSimulation(MODEL, 1, 0)
    with pytest.raises(UserError, match=r"no sensor 'velocty'\. Did you mean 'velocity'\?"):
        new_sim().sensor("velocty")
    free = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><freejoint/><geom size='1'/></body></worldbody></mujoco>"
    )
    with pytest.raises(UserError, match="no actuators"):
        NativeSimulation(free, 1, 1).set_ctrl(torch.zeros(1, 1))


def test_nothing_is_written_beside_the_user(tmp_path, monkeypatch):
    """MuJoCo would append each warning to MUJOCO_LOG.TXT in the working directory."""
    monkeypatch.chdir(tmp_path)
    sim = new_sim()
    qpos, qvel = start_states(n=1)
    sim.set_state(torch.tensor([0]), qpos * torch.nan, qvel)
    sim.step()
    assert sim.diverged[0] and not list(tmp_path.iterdir())


def test_close_releases():
    sim = new_sim(["velocity"])
    sim.close()
    with pytest.raises(AttributeError):
        sim.step()
