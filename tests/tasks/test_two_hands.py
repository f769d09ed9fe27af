"""The tasks of two hands: starts, success and failure by states set by hand, rewards, signals against MuJoCo."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np
import pytest
import torch

from rewards.function import build_reward
from rewards.gate import admit_many
from rewards.library.library import load
from rl.episode_fitness import EpisodeFitness
from tasks import registry
from tasks.bimanual.two_hands import TwoHandsTask
from tasks.env import TaskEnv, make_env
from tasks.robots import shadow
from tasks.robots.menagerie import missing_reason
from tasks.robots.shadow_pair import Place, Reach, pair_spec, prefix
from tasks.sim_native import NativeSimulation

WORLDS = 6


@dataclass(frozen=True)
class Case:
    """What is particular to a task."""

    actions: int
    steps: int
    observations: int
    objects: list[tuple[list[float], bool]]
    """Positions of the objects' joints, and whether that is success."""
    good: dict[str, list[float]]
    """Signals of a good state; all others as at the start."""


def cube(x: float, y: float, z: float) -> list[float]:
    return [x, y, z, 1.0, 0.0, 0.0, 0.0]


def lying(opening: float) -> list[float]:
    return [0.04, 0.0, 0.603, 1.0, 0.0, 0.0, 0.0, opening]


def held(off: float) -> list[float]:
    return [0.013, -0.011, 0.557, math.sqrt(0.5), 0.0, 0.0, -math.sqrt(0.5), off, 0.0]


def blocks(right: tuple[float, float, float], left: tuple[float, float, float]) -> list[float]:
    return [*cube(*right), *cube(*left)]


LOW, HIGH = (0.0, 0.0, 0.625), (0.0, 0.0, 0.675)
FINGERS_NEAR = {"right_finger_distance": [0.2], "left_finger_distance": [0.2]}
CASES = {
    "shadow-over": Case(
        40,
        75,
        196,
        [(cube(0.195 - 0.028, 0.0, 0.6), True), (cube(0.195 - 0.032, 0.0, 0.6), False)],
        {"goal_distance": [0.02], "rotation_distance": [0.3]},
    ),
    "shadow-catch-underarm": Case(
        52,
        75,
        220,
        [(cube(0.245, 0.028, 0.65), True), (cube(0.245, 0.0, 0.65 + 0.032), False)],
        {"goal_distance": [0.02], "rotation_distance": [0.3]},
    ),
    # A handle 0.38 m from its hinge and 0.05 m before the leaf; hinges 0.9 m apart: 0.485 m and 0.519 m between them.
    "shadow-door-open-outward": Case(
        52, 250, 212, [([1.13, 1.13], False), ([1.18, 1.18], True), ([0.0, 1.5], False)], FINGERS_NEAR | {"handle_gap": [0.6]}
    ),
    "shadow-scissors": Case(
        52, 150, 222, [(lying(0.28), False), (lying(0.30), True)], FINGERS_NEAR | {"opening_pos": [0.4]}
    ),
    "shadow-bottle-cap": Case(
        52, 125, 220, [(held(0.028), False), (held(0.032), True)], {"right_finger_distance": [0.2], "cap_pos": [0.04]}
    ),
    "shadow-block-stack": Case(
        52,
        250,
        232,
        [
            (blocks(LOW, HIGH), True),
            (blocks(LOW, (0.0, 0.0, 0.675 - 0.028)), True),
            (blocks(LOW, (0.0, 0.0, 0.675 - 0.032)), False),
            (blocks(LOW, (0.06, 0.0, 0.675)), True),
            (blocks(LOW, (0.075, 0.0, 0.675)), False),
            (blocks((0.0, -0.075, 0.625), HIGH), False),
        ],
        FINGERS_NEAR | {"right_goal_distance": [0.01], "left_goal_distance": [0.01], "left_goal_offset_w": [0.0, 0.0, 0.01]},
    ),
}  # fmt: skip
THROWS = ("shadow-over", "shadow-catch-underarm")


@pytest.fixture(scope="module", autouse=True)
def _robot():
    reason = missing_reason(shadow.ROBOT)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def env_of() -> Callable[[str], TaskEnv]:
    """A task's environment of 6 worlds, built once and shared; each test resets it."""
    built: dict[str, TaskEnv] = {}

    def get(name: str) -> TaskEnv:
        if name not in built:
            built[name] = make_env(registry.make(name), WORLDS, seed=5, num_threads=1)
        built[name].reset()
        return built[name]

    return get


def still(env: TaskEnv) -> torch.Tensor:
    return torch.zeros(env.num_envs, env.num_actions)


def put(env: TaskEnv, objects: list[float]) -> None:
    """Objects of all worlds in one place, the hands where they are, nothing moving."""
    qpos = env.sim.qpos.clone()
    qpos[:, -len(objects) :] = torch.tensor(objects)
    env.sim.set_state(torch.arange(env.num_envs), qpos, torch.zeros(env.num_envs, env.sim.model.nv))


@pytest.mark.parametrize("name", CASES)
def test_a_thousand_random_steps_neither_diverge_nor_differ_by_run(name, env_of):
    """4 worlds, longer than an episode: bit for bit the same per seed, over resets; every signal as the table has it, and
    finite."""
    case, task, model = CASES[name], env_of(name).task, env_of(name).sim.model
    first, second = (TaskEnv(task, NativeSimulation(model, 4, substeps=2, num_threads=1), seed=5) for _ in range(2))
    assert (first.num_actions, first.max_episode_steps, first.num_observations) == (
        case.actions, case.steps, case.observations
    )  # fmt: skip
    rng = torch.Generator().manual_seed(0)
    ended = 0
    for number in range(260):
        actions = torch.rand(4, first.num_actions, generator=rng) * 2 - 1
        step = first.step(actions)
        assert not step.reasons["diverged"].any()
        ended += int(step.done.sum())
        if number < 90:
            assert torch.equal(step.observation, second.step(actions).observation)
    task.signal_table.validate(step.signals, 4)
    assert all(torch.isfinite(tensor).all() for tensor in step.signals.values())
    assert ended >= 4


@pytest.mark.parametrize("name", CASES)
def test_an_episode_starts_clear_of_the_hands_and_stays_so(name, env_of):
    """At most 6 mm of a cube's corner or a bottle's side are in a finger; action 0 throws nothing about, drops little and is no
    success."""
    env = env_of(name)
    data = mujoco.MjData(env.sim.model)
    for world in range(WORLDS):
        data.qpos[:] = env.sim.qpos[world].numpy()
        mujoco.mj_forward(env.sim.model, data)
        assert all(contact.dist > -0.006 for contact in data.contact)
    ended, fastest = torch.zeros(WORLDS, dtype=torch.bool), 0.0
    for _ in range(60):
        step = env.step(still(env))
        ended |= step.terminated
        fastest = max(fastest, float(env.sim.qvel.abs().max()))
        assert not env.task.fitness(step.signals).any()
    assert int(ended.sum()) <= 1 and fastest < 25.0


@pytest.mark.parametrize("name", THROWS)
def test_a_cube_in_the_air_falls_as_g_says(name, env_of):
    """From rest, n steps of 1/120 s of a semi-implicit integrator: g dt^2 n (n + 1) / 2."""
    env = env_of(name)
    put(env, cube(0.0, 1.0, 1.5))
    for number in range(1, 31):
        signals = env.step(still(env)).signals
        fallen = 9.81 / 120.0**2 * (2 * number) * (2 * number + 1) / 2
        torch.testing.assert_close(signals["object_position_w"][:, 2], torch.full((WORLDS,), 1.5 - fallen))
    assert fallen > 1.2


@pytest.mark.parametrize(
    ("name", "place"), [("shadow-scissors", 2), ("shadow-block-stack", 2), ("shadow-block-stack", 9)]
)
def test_what_lies_on_the_table_stays_there(name, place, env_of):
    """Its height is the 3rd, or 10th, number of the objects' positions."""
    env = env_of(name)
    place += env.sim.model.nq - len(CASES[name].objects[0][0])
    before = env.sim.qpos[:, place].clone()
    for _ in range(30):
        env.step(still(env))
    torch.testing.assert_close(env.sim.qpos[:, place], before, atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("name", CASES)
def test_success_is_what_the_table_says_and_is_kept_for_the_episode(name, env_of):
    env, case = env_of(name), CASES[name]
    task, values = env.task, {}
    for objects, success in case.objects:
        put(env, objects)
        value = task.fitness(task.signals(env.sim))
        assert (value == float(success)).all(), (objects, value)
        values[success] = value
    keep = EpisodeFitness(WORLDS, case.steps, task.fitness_reduce, task.fitness_failed)
    never, done = torch.zeros(WORLDS, dtype=torch.bool), torch.ones(WORLDS, dtype=torch.bool)
    for value in (values[False], values[True], values[False]):
        keep.add(value, never, never)
    assert keep.add(values[False], done, never).tolist() == [1.0] * WORLDS
    keep.add(values[False], never, never)
    assert keep.add(values[False], done, never).tolist() == [0.0] * WORLDS


@pytest.mark.parametrize("name", CASES)
def test_rewards_pass_the_gate_and_rank_states(name, env_of):
    """The human reward is higher in a good state than at the start; the sparse one is the fitness."""
    env, case = env_of(name), CASES[name]
    task = env.task
    sources = [load(name, kind) for kind in ("human", "sparse")]
    start = {key: value.clone() for key, value in task.signals(env.sim).items()}
    for _ in range(10):
        moved = env.step(torch.rand(WORLDS, env.num_actions) * 2 - 1).signals
    verdicts = admit_many([source.text for source in sources], task.signal_table, [start, moved])
    assert all(verdict.accepted for verdict in verdicts), [verdict.explain() for verdict in verdicts]
    human, sparse = (
        build_reward(source.text, task.signal_table, verdict.graph)
        for source, verdict in zip(sources, verdicts, strict=True)
    )
    good = start | {key: torch.tensor(value).repeat(WORLDS, 1) for key, value in case.good.items()}
    assert (human(good)[0] > human(start)[0] + 0.1).all()
    for objects, success in case.objects:
        put(env, objects)
        assert (sparse(task.signals(env.sim))[0] == float(success)).all(), objects


def test_bi_dex_hands_rewards_by_hand():
    """Their formulas with numbers: exp(-0.2 (50 0.02 + 0.5)); 2 - 0.3 - 0.4 + 2 0.6, without the last beyond 0.5 m; and so on."""
    table = {
        "shadow-over": [({"goal_distance": 0.02, "rotation_distance": 0.5}, math.exp(-0.3))],
        "shadow-door-open-outward": [
            ({"right_finger_distance": 0.3, "left_finger_distance": 0.4, "handle_gap": 0.6}, 2.5),
            ({"right_finger_distance": 0.3, "left_finger_distance": 0.6, "handle_gap": 0.6}, 1.1),
        ],
        "shadow-scissors": [({"right_finger_distance": 0.3, "left_finger_distance": 0.4, "opening_pos": 0.2}, 2.3)],
        "shadow-bottle-cap": [
            ({"right_finger_distance": 0.25, "left_palm_distance": 0.05, "cap_pos": 0.02}, 2.3),
            ({"right_finger_distance": 0.35, "left_palm_distance": 0.05, "cap_pos": 0.02}, 1.6),
        ],
        "shadow-block-stack": [
            ({"right_finger_distance": 0.2, "left_finger_distance": 0.3, "right_goal_distance": 0.05,
              "left_goal_distance": 0.04, "left_goal_offset_w": 0.01}, 1.0 + 0.3 + 2.0),
            ({"right_finger_distance": 0.2, "left_finger_distance": 0.3, "right_goal_distance": 0.1,
              "left_goal_distance": 0.04, "left_goal_offset_w": 0.01}, 1.0 + 0.2),
        ],
    }  # fmt: skip
    for name, rows in table.items():
        signals = registry.make(name).signal_table
        reward = build_reward(load(name, "human").text, signals)
        for given, expected in rows:
            tensors = {key: torch.full((3, signals[key].dims), value) for key, value in given.items()}
            torch.testing.assert_close(reward(tensors)[0], torch.full((3,), expected), msg=f"{name} {given}")


@pytest.mark.parametrize(
    ("name", "objects", "reason"),
    [
        ("shadow-over", cube(0.0, 1.0, 0.19), "dropped"),
        ("shadow-catch-underarm", cube(0.0, 1.0, 0.09), "dropped"),
        ("shadow-scissors", [0.6, *lying(0.0)[1:]], "left_hand_far"),
        ("shadow-bottle-cap", [0.013, -0.011, 0.44, *held(0.0)[3:]], "dropped"),
        ("shadow-bottle-cap", [0.3, -0.011, 0.557, *held(0.0)[3:]], "bottle_far"),
        ("shadow-block-stack", blocks((0.2, -0.1, 0.625), (0.0, 0.1, 0.625)), "right_hand_far"),
    ],
)
def test_failures_end_an_episode(name, objects, reason, env_of):
    env = env_of(name)
    assert not torch.stack(tuple(env.task.terminate(env.task.signals(env.sim)).values())).any()
    put(env, objects)
    assert env.task.terminate(env.task.signals(env.sim))[reason].all()


@pytest.mark.parametrize("name", ["shadow-over", "shadow-door-open-outward"])
def test_signals_agree_with_mujoco(name, env_of):
    """Fingertips, palms, servos and distances in states of a random rollout, with both hands' bases turned."""
    env = env_of(name)
    task, model = env.task, env.sim.model
    assert isinstance(task, TwoHandsTask)
    rng = torch.Generator().manual_seed(1)
    for _ in range(12):
        signals = env.step(torch.rand(WORLDS, env.num_actions, generator=rng) * 2 - 1).signals
    data, hand = mujoco.MjData(model), env.num_actions // 2
    for world in range(2):
        data.qpos[:], data.qvel[:] = env.sim.qpos[world].numpy(), env.sim.qvel[world].numpy()
        mujoco.mj_forward(model, data)
        for place, (side, mark) in enumerate((("right", ""), ("left", "left/"))):
            tips = np.stack([data.site(mark + tip).xpos for tip in shadow.tips(side)])
            palm = data.body(prefix(side) + "palm")
            rotation = palm.xmat.reshape(3, 3)
            target = env.sim.memory["servo_target"][world, place * hand : place * hand + 20].numpy()
            expected = {
                f"{side}_fingertip_position_w": tips.ravel(),
                f"{side}_palm_normal_w": -rotation[:, 1],
                f"{side}_palm_position_w": palm.xpos + rotation @ [0.0, -0.02, 0.08],
                f"{side}_servo_target_offset": target - data.actuator_length[place * hand : place * hand + 20],
            }
            if name != "shadow-over":
                handle = data.geom(f"{side}_handle").xpos
                expected[f"{side}_finger_distance"] = [np.linalg.norm(tips - handle, axis=1).sum()]
                expected[f"{side}_base_slide"] = [data.joint(f"{prefix(side)}base_{axis}").qpos[0] for axis in "xyz"]
                expected[f"{side}_base_slide_vel"] = [
                    data.joint(f"{prefix(side)}base_{axis}").qvel[0] for axis in "xyz"
                ]
            for key, value in expected.items():
                np.testing.assert_allclose(signals[key][world], value, atol=1e-5, err_msg=key)


def test_a_base_goes_where_its_action_says(env_of):
    """After 1 s of action 0.3 along the world's z it is 0.12 m higher, thumbs up as it is; the left one, told to turn by -0.5 about
    the palm's normal, has turned by -0.4 rad."""
    env = env_of("shadow-door-open-outward")
    before = env.task.signals(env.sim)["right_palm_position_w"].clone()
    actions = still(env)
    actions[:, 22], actions[:, 26 + 23] = 0.3, -0.5
    env.step(actions)
    target = env.sim.memory["servo_target"]
    assert target[:, 22].allclose(torch.tensor(0.06)) and target[:, 49].allclose(torch.tensor(-0.2))  # half the way
    for _ in range(59):
        signals = env.step(actions).signals
    moved = signals["right_palm_position_w"] - before
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.0, 0.12]).expand(WORLDS, 3), atol=0.01, rtol=0.0)
    assert signals["left_base_turn"][:, 0].allclose(torch.tensor(-0.4), atol=0.01)
    assert signals["left_base_slide"].abs().max() < 0.02


def test_hands_are_mirrored_float_and_cannot_pass_through_each_other():
    """Both at one place, the left one turned to face the right one: with moving bases they touch, with fixed ones they do not;
    a moving one keeps its place for a second without servo targets."""
    touching = []
    for reach in (None, Reach(slide_m=0.2, turn_rad=0.5)):
        model = pair_spec(Place((-0.3, 0.0, 0.5)), Place((0.3, 0.0, 0.5), math.pi), reach).compile()
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        pairs = [{model.geom(geom).name[:3] for geom in contact.geom} for contact in data.contact]
        tips = sum(pair == {"rh_", "lef"} for pair in pairs)
        touching.append(tips)
        for number in range(5):
            right, left = (data.sensor(f"{side}_tip{number}_position").data for side in ("right", "left"))
            np.testing.assert_allclose(right * [-1.0, 1.0, 1.0], left, atol=1e-9)
    assert touching[1] > touching[0]
    apart = pair_spec(Place((-1.0, 0.0, 0.5)), Place((1.0, 0.0, 0.5), math.pi), Reach(0.2, 0.5)).compile()
    data = mujoco.MjData(apart)
    mujoco.mj_step(apart, data, nstep=120)
    assert np.abs(data.qpos).max() < 1e-6


@pytest.mark.parametrize("name", ["shadow-over", "shadow-scissors"])
def test_videos_show_the_hands_as_shipped(name, env_of):
    env = env_of(name)
    visual, model = env.task.build_visual_model(), env.sim.model
    qpos = env.task.visual_qpos(env.sim.qpos, env.sim.memory)
    assert qpos.shape == (WORLDS, visual.nq) and visual.nmesh > 20
    assert [visual.joint(i).name for i in range(model.njnt)] == [model.joint(i).name for i in range(model.njnt)]
    if name == "shadow-over":
        goal = visual.geom("goal")
        assert not goal.contype[0] and not goal.conaffinity[0]
        torch.testing.assert_close(qpos[:, -7:-4], torch.tensor([0.195, 0.0, 0.6]).expand(WORLDS, 3))
