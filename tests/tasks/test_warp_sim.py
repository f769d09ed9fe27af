"""The Warp backend, on Warp's CPU device: what it promises as a simulation. MuJoCo's own C engine is the measure.

Graphs are captured and launched here as on a GPU (Warp captures on its CPU device too); CUDA itself is not run.
"""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from tasks.errors import UserError
from tests.tasks.toy_tasks import CRAWLER_XML, SLIDER_XML

pytest.importorskip("mujoco_warp", reason="needs the extra gpu: pip install 'eureka-skills[gpu]'")

from tasks.sim_warp import WarpSimulation
from tasks.warp_room import Room, with_head_room

N, SUBSTEPS = 5, 4
# Converged, where three CG iterations are short of it, and with elliptic cones: a pyramid depends on the tangents of a
# contact's frame, and at planes and capsules the engines choose others.
XML = CRAWLER_XML.replace('solver="CG" iterations="3"', 'solver="Newton" iterations="50" cone="elliptic"')
MODEL = mujoco.MjModel.from_xml_string(XML)
SENSORS = {"foot_position": 3, "velocity": 3, "gyro": 3, "touch": 1, "acceleration": 3}
FLOAT32 = 2e-5
"""Differences of quantities of order 1 that rounding to float32 explains, after a few operations."""


def start_states(seed: int = 0, n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes just above the floor, moving."""
    rng = torch.Generator().manual_seed(seed)
    qpos = torch.tensor(MODEL.qpos0, dtype=torch.float32).repeat(n, 1)
    qpos[:, 2] = 0.18 + 0.1 * torch.rand(n, generator=rng)
    return qpos, 0.5 * torch.randn(n, MODEL.nv, generator=rng)


def controls(steps: int = 30, seed: int = 1) -> torch.Tensor:
    """(T, N, nu)."""
    return torch.rand(steps, N, MODEL.nu, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def new_sim(sensors=(), model=MODEL, **options) -> WarpSimulation:
    sim = WarpSimulation(model, N, SUBSTEPS, "cpu", options.pop("room", Room(32, 64)), **options)
    for name in sensors:
        sim.sensor(name)
    sim.set_state(torch.arange(N), *start_states())
    return sim


def measured(sim: WarpSimulation, ctrl: torch.Tensor) -> list[mujoco.MjData]:
    """What MuJoCo computes at the states of `sim`."""
    datas = []
    for world in range(N):
        data = mujoco.MjData(MODEL)
        data.qpos[:], data.qvel[:], data.ctrl[:] = (x[world].numpy() for x in (sim.qpos, sim.qvel, ctrl))
        mujoco.mj_forward(MODEL, data)
        datas.append(data)
    return datas


def test_free_flight_and_contact_follow_mj_step():
    """A dozen control steps of flight follow to rounding; through impacts float32 grows to a millimetre."""
    sim, contacts, in_flight = new_sim(), 0, 0
    qpos, qvel = start_states()
    qpos[:, 2] += 0.3
    sim.set_state(torch.arange(N), qpos, qvel)
    datas = [mujoco.MjData(MODEL) for _ in range(N)]
    for data, position, velocity in zip(datas, qpos, qvel, strict=True):
        data.qpos[:], data.qvel[:] = position.numpy(), velocity.numpy()
    for ctrl in controls():
        sim.set_ctrl(ctrl)
        sim.step()
        for data, row in zip(datas, ctrl, strict=True):
            data.ctrl[:] = row.numpy()
            mujoco.mj_step(MODEL, data, SUBSTEPS)
        wanted = torch.from_numpy(np.stack([data.qpos for data in datas]).astype(np.float32))
        contacts += sum(data.ncon for data in datas)
        in_flight += not contacts
        torch.testing.assert_close(sim.qpos, wanted, atol=2e-3 if contacts else FLOAT32, rtol=0)
    assert in_flight >= 6 and contacts > 50
    assert sim.qpos.dtype == torch.float32 and sim.qpos.shape == (N, MODEL.nq)
    assert not sim.collect_overflows()


def test_sensors_of_every_stage_are_those_of_the_new_state():
    sim, touched = new_sim(SENSORS), False
    for ctrl in controls():
        sim.set_ctrl(ctrl)
        sim.step()
        for world, data in enumerate(measured(sim, ctrl)):
            for name, width in SENSORS.items():
                value = sim.sensor(name)
                assert value.shape == (N, width) and value.dtype == torch.float32
                wanted = torch.from_numpy(data.sensor(name).data.astype(np.float32))
                # Forces are the solver's, which ends at a tolerance; the others are kinematics.
                forces = name in ("touch", "acceleration")
                torch.testing.assert_close(value[world], wanted, atol=5e-3 if forces else 1e-4, rtol=5e-3)
        touched |= bool((sim.sensor("touch") > 0).any())
    assert touched


def test_a_sensor_of_a_later_stage_has_the_graphs_captured_anew():
    sim = new_sim(["foot_position"])
    for ctrl in controls(3):
        sim.set_ctrl(ctrl)
        sim.step()
    sim.sensor("acceleration")
    for ctrl in controls(3, seed=2):
        sim.set_ctrl(ctrl)
        sim.step()
    for world, data in enumerate(measured(sim, ctrl)):
        wanted = torch.from_numpy(data.sensor("acceleration").data.astype(np.float32))
        torch.testing.assert_close(sim.sensor("acceleration")[world], wanted, atol=1e-3, rtol=1e-3)


def test_graphs_give_what_single_launches_give():
    """Bit for bit on the CPU device, resets between included."""
    graphs, single = new_sim(["velocity"]), new_sim(["velocity"], use_graphs=False)
    for step, ctrl in enumerate(controls(12)):
        for sim in (graphs, single):
            sim.set_ctrl(ctrl)
            sim.step()
            if step == 6:
                sim.set_state(torch.tensor([4, 1]), *start_states(seed=9, n=2))
        assert torch.equal(graphs.qpos, single.qpos) and torch.equal(graphs.qvel, single.qvel)
        assert torch.equal(graphs.sensor("velocity"), single.sensor("velocity"))


def test_set_state_of_some_worlds_leaves_the_others_alone():
    touched, untouched = new_sim(["velocity"]), new_sim(["velocity"])
    others = torch.tensor([0, 2, 3])
    for step, ctrl in enumerate(controls(20)):
        for sim in (touched, untouched):
            sim.set_ctrl(ctrl)
        if step == 10:
            qpos, qvel = start_states(seed=9, n=2)
            touched.set_state(torch.tensor([4, 1]), qpos, qvel)
            assert torch.equal(touched.qpos[[4, 1]], qpos) and torch.equal(touched.qvel[[4, 1]], qvel)
        touched.step()
        untouched.step()
    assert torch.equal(touched.qpos[others], untouched.qpos[others])
    assert torch.equal(touched.sensor("velocity")[others], untouched.sensor("velocity")[others])
    assert not torch.equal(touched.qpos[1], untouched.qpos[1])


def test_set_state_goes_by_its_mask():
    sim = new_sim()
    sim.step()
    before = sim.qpos.clone()
    qpos, qvel = start_states(seed=3)
    sim.set_state(torch.arange(N), qpos, qvel, torch.tensor([False, True, False, False, True]))
    assert torch.equal(sim.qpos[[1, 4]], qpos[[1, 4]]) and torch.equal(sim.qpos[[0, 2, 3]], before[[0, 2, 3]])


def test_a_reset_world_remembers_nothing():
    used, new = new_sim(), new_sim()
    for ctrl in controls(10):
        used.set_ctrl(ctrl)
        used.step()
    used.set_state(torch.arange(N), *start_states())
    for _ in range(10):
        used.step()
        new.step()
    assert torch.equal(used.qpos, new.qpos) and torch.equal(used.qvel, new.qvel)


def test_tensors_handed_out_do_not_change_later():
    sim = new_sim(["velocity"])
    held = sim.qpos, sim.qvel, sim.sensor("velocity"), sim.diverged
    copies = [tensor.clone() for tensor in held]
    sim.set_state(torch.tensor([0]), *start_states(seed=5, n=1))
    sim.step()
    for tensor, copy in zip(held, copies, strict=True):
        assert torch.equal(tensor, copy)


@pytest.mark.parametrize(
    ("field", "value"), [("qpos", torch.nan), ("qvel", torch.inf), ("qvel", 1e12), ("qvel", -torch.inf)]
)
def test_divergence_is_flagged_once_and_only_there(field, value):
    sim, calm = new_sim(["velocity"]), new_sim(["velocity"])
    for each in (sim, calm):
        each.step()
    assert not sim.diverged.any()
    for _ in range(2):
        qpos, qvel = start_states(seed=2, n=1)
        (qpos if field == "qpos" else qvel)[0, 0] = value
        sim.set_state(torch.tensor([2]), qpos, qvel)
        for each in (sim, calm):
            each.step()
        assert sim.diverged.tolist() == [False, False, True, False, False]
        assert all(x.isfinite().all() for x in (sim.qpos, sim.qvel, sim.sensor("velocity")))
    others = [0, 1, 3, 4]
    assert torch.equal(sim.qpos[others], calm.qpos[others]), "a world that blows up disturbs no other"
    sim.step()
    assert not sim.diverged.any()


def test_divergence_within_a_step_and_again_in_the_next():
    """A force that blows a world up in every step: flagged in every step, and never handed out."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body><joint name='j' type='slide'/><geom size='0.1' mass='1'/></body></worldbody>"
        "<actuator><motor joint='j' gear='1e9' ctrlrange='-1e9 1e9'/></actuator></mujoco>"
    )
    sim = WarpSimulation(model, 3, 1, "cpu")
    for _ in range(3):
        sim.set_ctrl(torch.tensor([[0.0], [1e9], [0.0]]))
        sim.step()
        assert sim.diverged.tolist() == [False, True, False]
        assert not sim.qpos[1].any() and not sim.qvel[1].any(), "the default state"
    sim.set_ctrl(torch.zeros(3, 1))
    sim.step()
    assert not sim.diverged.any()


def test_contacts_without_room_are_told_and_given_room():
    """With room for 4 rows a world, boxes on the floor sink; what was lost is told once, then there is room for it."""
    small, roomy = new_sim(room=Room(32, 4)), new_sim()
    for sim in (small, roomy):
        qpos, _ = start_states()
        qpos[:, 2] = 0.05
        sim.set_state(torch.arange(N), qpos, torch.zeros(N, MODEL.nv))
        sim.step()
    lost = small.collect_overflows()
    assert lost == {"nefc": N} and not roomy.collect_overflows()
    assert small.room.constraints > 4 and small.room.contacts == 32
    for _ in range(4):  # each time twice as much
        small.step()
        if not (lost := small.collect_overflows()):
            break
    assert not lost and small.room.constraints >= 12
    for sim in (small, roomy):
        sim.set_state(torch.arange(N), *start_states(seed=4))
        for ctrl in controls(8):
            sim.set_ctrl(ctrl)
            sim.step()
    torch.testing.assert_close(small.qpos, roomy.qpos, atol=1e-5, rtol=0)


def test_more_room_changes_no_state():
    grown, same = new_sim(["velocity"]), new_sim(["velocity"])
    for ctrl in controls(8):
        for sim in (grown, same):
            sim.set_ctrl(ctrl)
            sim.step()
    grown._make_room(Room(64, 128))
    for name in ("qpos", "qvel"):
        assert torch.equal(getattr(grown, name), getattr(same, name))
    torch.testing.assert_close(grown.sensor("velocity"), same.sensor("velocity"), atol=1e-6, rtol=0)
    for _ in range(4):
        grown.step()
        same.step()
    torch.testing.assert_close(grown.qpos, same.qpos, atol=1e-5, rtol=0)


def test_most_used_counts_contacts_and_rows():
    sim = new_sim()
    qpos = start_states()[0]
    qpos[:, 2] = 0.05
    sim.set_state(torch.arange(N), qpos, torch.zeros(N, MODEL.nv))
    sim.step()
    contacts, rows = sim.most_used()
    data = mujoco.MjData(MODEL)
    data.qpos[:] = sim.qpos[0].numpy()
    mujoco.mj_forward(MODEL, data)
    assert contacts >= N * data.ncon > 0 and rows >= data.nefc > 0
    assert with_head_room(7.5, 20) == Room(24, 40)


def test_controls_are_held_and_in_actuator_units():
    """1 kg under 3 N: v = 3 t, and semi-implicit Euler puts x at 3 dt^2 n (n + 1) / 2."""
    sim = WarpSimulation(mujoco.MjModel.from_xml_string(SLIDER_XML), 1, 5, "cpu")
    sim.set_ctrl(torch.tensor([[3.0]]))
    sim.step()
    sim.step()
    assert sim.qvel.item() == pytest.approx(3 * 10 * 0.01, rel=1e-5)
    assert sim.qpos.item() == pytest.approx(3 * 0.01**2 * 10 * 11 / 2, rel=1e-5)
    assert sim.physics_dt_s == 0.01 and sim.substeps == 5


def test_a_model_that_names_pgs_is_solved_by_newton(caplog):
    xml = SLIDER_XML.replace('timestep="0.01"', 'timestep="0.01" solver="PGS"')
    model = mujoco.MjModel.from_xml_string(xml)
    sim = WarpSimulation(model, 1, 1, "cpu")
    sim.step()
    assert "PGS" in caplog.text and "Newton" in caplog.text
    assert model.opt.solver == mujoco.mjtSolver.mjSOL_PGS, "the caller's model stays as it is"


def test_bad_input_is_one_line():
    with pytest.raises(UserError, match="num_envs=0"):
        WarpSimulation(MODEL, 0, 1, "cpu")
    with pytest.raises(UserError, match=r"no sensor 'velocty'\. Did you mean 'velocity'\?"):
        new_sim().sensor("velocty")
    with pytest.raises(UserError, match="not on 'banana'"):
        WarpSimulation(MODEL, 1, 1, "banana")
    refused = mujoco.MjModel.from_xml_string(
        SLIDER_XML.replace("<option", '<option><flag midphase="disable"/></option><option')
    )
    with pytest.raises(UserError, match=r"cannot simulate this model.*--backend native"):
        WarpSimulation(refused, 1, 1, "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="torch finds no CUDA device for 'cuda'"):
            WarpSimulation(MODEL, 1, 1)


def test_close_releases():
    sim = new_sim()
    sim.close()
    with pytest.raises((AttributeError, KeyError)):
        sim.step()
