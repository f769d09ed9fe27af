"""Worlds that differ, on both backends: against models that MuJoCo is given with the same numbers."""

from __future__ import annotations

import importlib.util

import mujoco
import numpy as np
import pytest
import torch

from tasks.env import make_env
from tasks.errors import UserError
from tasks.randomize import Push, Pushes, Randomize, Vary, derived_constants, draw
from tasks.sim_native import NativeSimulation
from tests.tasks.toy_tasks import CRAWLER_XML, Slider

XML = CRAWLER_XML.replace('solver="CG" iterations="3"', 'solver="Newton" iterations="50" cone="elliptic"').replace(
    '<motor joint="hip" gear="5" ctrlrange="-1 1"/>', '<position name="servo" joint="hip" kp="4" kv="0.2"/>'
).replace("<body pos=\"0 0 0.3\">", "<body name=\"trunk\" pos=\"0 0 0.3\">").replace('damping="0.1"', 'damping="0.1" armature="0.01"')  # fmt: skip
MODEL = mujoco.MjModel.from_xml_string(XML)
N, SUBSTEPS, STEPS = 4, 4, 25
EVERYTHING = Randomize(
    (Vary("mass", 0.5, 2.0, ("trunk",)), Vary("friction", 0.2, 1.0), Vary("gain", 0.5, 2.0), Vary("armature", 0.5, 2.0))
)
WARP = importlib.util.find_spec("mujoco_warp") is not None
BACKENDS = ["native", pytest.param("warp", marks=pytest.mark.skipif(not WARP, reason="needs the extra gpu"))]


def new_sim(backend: str, n: int = N):
    if backend == "native":
        return NativeSimulation(MODEL, n, SUBSTEPS, 1)
    from tasks.sim_warp import WarpSimulation
    from tasks.warp_room import Room

    return WarpSimulation(MODEL, n, SUBSTEPS, "cpu", Room(32, 64))


def model_of(fields, world: int) -> mujoco.MjModel:
    """The model with one world's numbers, its constants made by MuJoCo."""
    model = mujoco.MjModel.from_xml_string(XML)
    for name, values in fields.items():
        getattr(model, name)[:] = values[world]
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_world_moves_as_a_model_with_its_numbers(backend):
    """Through a fall, a contact and a servo's motion; and no two worlds move alike."""
    fields = draw(MODEL, EVERYTHING, N, seed=3)
    sim = new_sim(backend)
    sim.set_parameters(fields)
    qpos = torch.tensor(MODEL.qpos0, dtype=torch.float32).repeat(N, 1)
    qpos[:, 2], qvel = 0.22, torch.zeros(N, MODEL.nv)
    qvel[:, 0] = 0.5
    sim.set_state(torch.arange(N), qpos, qvel)
    datas = [(model, mujoco.MjData(model)) for model in (model_of(fields, world) for world in range(N))]
    for world, (_, data) in enumerate(datas):
        data.qpos[:], data.qvel[:] = qpos[world].numpy(), qvel[world].numpy()
    for step in range(STEPS):
        ctrl = torch.full((N, 1), 0.8 if step % 8 < 4 else -0.4)
        sim.set_ctrl(ctrl)
        sim.step()
        for model, data in datas:
            data.ctrl[:] = ctrl[0].numpy()
            mujoco.mj_step(model, data, SUBSTEPS)
    wanted = torch.from_numpy(np.stack([data.qpos for _, data in datas]).astype(np.float32))
    torch.testing.assert_close(sim.qpos, wanted, atol=1e-7 if backend == "native" else 2e-3, rtol=0)
    apart = (wanted[:, None] - wanted[None]).abs().amax(dim=-1) + torch.eye(N)
    assert apart.min() > 5e-3, "numbers that change nothing would say nothing"


@pytest.mark.parametrize(
    ("row", "field", "where"),
    [
        (Vary("mass", 2.0, 2.0, ("trunk",)), "body_mass", (1,)),
        (Vary("mass", 2.0, 2.0), "body_inertia", (slice(None),)),
        (Vary("friction", 2.0, 2.0), "geom_friction", (slice(None), 0)),
        (Vary("gain", 2.0, 2.0, ("servo",)), "actuator_gainprm", (0, 0)),
        (Vary("gain", 2.0, 2.0), "actuator_biasprm", (0, slice(1, 3))),
        (Vary("armature", 2.0, 2.0, ("hip",)), "dof_armature", (6,)),
    ],
)
def test_a_row_scales_what_it_names_and_nothing_else(row, field, where):
    wanted = getattr(MODEL, field).copy()
    wanted[where] *= 2.0
    found = draw(MODEL, Randomize((row,)), 3, seed=0)
    assert found[field].shape == (3, *wanted.shape)
    assert (found[field] == wanted).all() and np.any(wanted != getattr(MODEL, field))


def test_factors_are_uniform_and_reproducible():
    row = Randomize((Vary("friction", 0.5, 1.5),))
    factor = draw(MODEL, row, 2000, seed=1)["geom_friction"][:, 0, 0] / MODEL.geom_friction[0, 0]
    assert 0.5 <= factor.min() < 0.51 and 1.49 < factor.max() < 1.5 and factor.mean() == pytest.approx(1.0, abs=0.02)
    again, other = (draw(MODEL, row, 5, seed)["geom_friction"] for seed in (1, 2))
    assert np.array_equal(again, draw(MODEL, row, 5, 1)["geom_friction"]) and not np.array_equal(again, other)


def test_derived_constants_are_mujocos_and_the_model_stays():
    fields = draw(MODEL, EVERYTHING, N, seed=3)
    before = MODEL.body_invweight0.copy()
    made = derived_constants(MODEL, fields, N)
    for world in range(N):
        model = model_of(fields, world)
        for name, values in made.items():
            np.testing.assert_allclose(values[world], getattr(model, name), rtol=1e-12)
    assert np.array_equal(MODEL.body_invweight0, before) and len(made) == 5
    assert derived_constants(MODEL, {"geom_friction": fields["geom_friction"]}, N) == {}


def test_pushes_come_within_their_times_and_move_the_first_free_joint():
    pushes = Pushes(Push(0.5, (0.2, 0.4)), MODEL, 300, 0.1, "cpu", seed=0)
    steps = torch.stack([pushes.next() for _ in range(40)])  # (T, N, nv)
    pushed = steps.abs().amax(dim=-1) > 0
    assert not steps[..., 2:].any() and steps.abs().max() <= 0.5
    gaps = [row.nonzero()[:, 0].diff() for row in pushed.T]
    assert set(torch.cat(gaps).tolist()) == {2, 3, 4}
    assert steps[..., 0][pushed].mean().abs() < 0.05 and steps[..., 1][pushed].std() > 0.2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_change_of_velocity_is_felt(backend):
    sim = new_sim(backend)
    qpos = torch.tensor(MODEL.qpos0, dtype=torch.float32).repeat(N, 1) + torch.tensor([0, 0, 1.0, 0, 0, 0, 0, 0])
    sim.set_state(torch.arange(N), qpos, torch.zeros(N, MODEL.nv))
    change = torch.zeros(N, MODEL.nv)
    change[1, 0] = 0.7
    held = sim.qvel
    sim.add_velocity(change)
    assert torch.equal(sim.qvel, change) and not held.any()
    sim.step()
    moved = sim.qpos[:, 0] - qpos[:, 0]
    assert moved[1] == pytest.approx(0.7 * SUBSTEPS * 0.005, rel=1e-4) and moved[[0, 2, 3]].abs().max() < 1e-4


class Pushed(Slider):
    """A crawler that slides, for the environment's part."""

    xml = XML
    randomize = Randomize((Vary("mass", 0.5, 2.0),), Push(1.0, (0.04, 0.04)))
    signal_table = Slider.signal_table
    control_dt_s = 0.02

    def reset(self, sim, env_ids, rng):
        n = len(env_ids)
        qpos = torch.tensor(MODEL.qpos0, dtype=torch.float32).repeat(n, 1)
        qpos[:, 2] = 2.0 + torch.rand(n, generator=rng)
        sim.set_state(env_ids, qpos, torch.zeros(n, MODEL.nv))

    def signals(self, sim):
        actions = {name: sim.memory[name] for name in ("actions", "previous_actions")}
        return {"position": sim.qpos[:, :1], "velocity": sim.qvel[:, :1], **actions}


def test_environments_differ_only_where_it_is_asked_for():
    """Equal seeds: equal worlds and pushes; and the starts are those of worlds that are alike."""
    alike, first, second = (make_env(Pushed(), N, seed=5, num_threads=1, randomize=on) for on in (False, True, True))
    assert torch.equal(alike.sim.qpos, first.sim.qpos)
    for _ in range(6):
        for env in (alike, first, second):
            env.step(torch.zeros(N, 1))
    assert torch.equal(first.sim.qpos, second.sim.qpos)
    assert alike.sim.qvel[:, 0].abs().max() < 1e-6 and (first.sim.qvel[:, 0].abs() > 1e-3).all()


def test_bad_tables_are_one_line():
    with pytest.raises(UserError, match=r"no body 'trunc'\. Did you mean 'trunk'\?"):
        draw(MODEL, Randomize((Vary("mass", 0.5, 1.0, ("trunc",)),)), 2, 0)
    with pytest.raises(UserError, match="'weight' cannot vary; known: mass"):
        Vary("weight", 0.5, 1.0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="expected 0 < low <= high"):
        Vary("mass", 0.0, 1.0)
    with pytest.raises(UserError, match="expected numbers above 0"):
        Push(1.0, (0.0, 1.0))
    with pytest.raises(UserError, match="needs a free joint"):
        Pushes(Push(1.0, (1.0, 2.0)), Slider().build_model(), 1, 0.1, "cpu", 0)
    with pytest.raises(UserError, match="'slider' has no randomize table"):
        make_env(Slider(), 1, randomize=True)


class Foreign(Slider):
    """A task of another simulator."""

    def build_env(self, num_envs, *, seed, device):
        raise AssertionError("is not asked")


@pytest.mark.parametrize("words", [{"backend": "warp"}, {"randomize": True}])
def test_a_task_with_its_own_simulator_takes_neither(words):
    with pytest.raises(UserError, match="comes with its own simulator"):
        make_env(Foreign(), 1, **words)
