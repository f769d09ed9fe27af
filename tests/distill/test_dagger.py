"""Rounds of play on the mass on a rail: who acts, what is learnt from it, and that it happened as recorded."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill import dagger
from distill.dagger import Disturbed, Played, TakingTurns, open_round, play, round_folder
from distill.dataset.layout import ACTION, EXECUTED, STATE
from distill.dataset.windows import cut_windows
from distill.experts import load_onnx_expert
from rl.evaluate import evaluate
from tasks.errors import UserError
from tests.distill.students import COMMANDS, as_commanded, to_the_middle
from tests.distill.teachers import teacher, tiny_config
from tests.eureka.command_line import SLIDER

CONFIG = tiny_config(episodes=8, round_episodes=6, clone_noise_std=0.3, expert_share=0.5)


class Pushes:
    """A student that pushes to the right for ever."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def act(self, env):
        return torch.full((env.num_envs, env.num_actions), 0.25)


def expert(tmp_path, task=SLIDER):
    return load_onnx_expert(task, teacher(tmp_path / "experts", task))


def recorded(tmp_path, task, number):
    dataset = open_round(tmp_path / "data", task, number)
    return dataset, [dataset.episode(place) for place in range(dataset.num_episodes)]


def test_taking_turns_by_stretches():
    """Who acts changes at multiples of half a second alone: 10 steps of 0.05 s."""
    worlds, wanted = 400, torch.ones(400, 1)
    env = SimpleNamespace(num_envs=worlds, num_actions=1, task=SimpleNamespace(control_dt_s=0.05))
    shares = {}
    for share in (0.0, 0.3, 1.0):
        turns = TakingTurns(Pushes(), share, seed=1)
        by_step = []
        for step in range(40):
            env.episode_step = torch.full((worlds,), step)
            by_step.append(turns(env, wanted)[:, 0] == 1.0)
        acted = torch.stack(by_step).reshape(4, 10, worlds)
        assert bool((acted == acted[:, :1]).all())
        shares[share] = float(acted.float().mean())
    assert shares[0.0] == 0.0 and shares[1.0] == 1.0 and abs(shares[0.3] - 0.3) < 0.05


def test_noise_in_every_second_world():
    noisy = Disturbed(0.3, seed=2)
    moved = torch.stack([noisy(None, torch.zeros(100, 2)) for _ in range(50)])
    assert not moved[:, ::2].any() and abs(float(moved[:, 1::2].std()) - 0.3) < 0.02


def test_the_student_acts_and_the_expert_labels(tmp_path):
    """By Newton the states follow from what the student did; the labels are the expert's for these states."""
    student: list[Pushes] = []

    def make(seed):
        student.append(Pushes(seed))
        return student[-1]

    played = play(expert(tmp_path), "slider", 2, CONFIG, tmp_path / "data", make)
    dataset, episodes = recorded(tmp_path, "slider", 2)
    assert dataset.info.robot_type == "slider" and len(student) == 1 and len(episodes) == played.episodes == 6
    assert (played.task, played.round, played.player) == ("slider", 2, "student")
    assert played.frames == sum(len(found[STATE]) for found in episodes)
    for found in episodes:
        assert np.all(found[EXECUTED] == np.float32(0.25))
        assert found[ACTION] == pytest.approx(to_the_middle(torch.from_numpy(found[STATE])).numpy(), abs=1e-6)
        speed = found[STATE][:, 1].astype(float)
        assert np.allclose(np.diff(speed), 0.05 * 4.0 * 0.25, atol=1e-5)
    pushed = evaluate(expert(tmp_path).task, Pushes(), episodes=6, seed=dataset.origins[0].seed, num_threads=1)
    assert played.fitness == pytest.approx(pushed.fitness, abs=1e-5)
    assert played.fitness_std == pytest.approx(pushed.fitness_std, abs=1e-5)


def test_chunks_are_the_labels_of_the_states_that_were_visited_next(tmp_path):
    play(expert(tmp_path), "slider", 2, CONFIG, tmp_path / "data", Pushes)
    dataset = open_round(tmp_path / "data", "slider", 2)
    frames = dataset.frames
    cut = cut_windows(dataset, np.array([dataset.frame(1, 0)]), history=1, horizon=4)
    states = torch.from_numpy(frames.state[dataset.frame(1, 0) : dataset.frame(1, 0) + 4])
    assert torch.allclose(cut.actions[0], to_the_middle(states), atol=1e-6)


def test_who_plays_in_which_round(tmp_path):
    teacher_of_it = expert(tmp_path)
    players = [play(teacher_of_it, "slider", number, CONFIG, tmp_path / "data", Pushes) for number in range(3)]
    assert [one.player for one in players] == ["expert", "both", "student"]
    assert [one.episodes for one in players] == [8, 6, 6]
    _, own = recorded(tmp_path, "slider", 0)
    clean = [np.array_equal(found[EXECUTED], found[ACTION]) for found in own]
    assert clean == [True, False] * 4
    _, both = recorded(tmp_path, "slider", 1)
    by_student = np.concatenate([found[EXECUTED][:, 0] == np.float32(0.25) for found in both])
    assert 0.2 < by_student.mean() < 0.8
    # The expert's fitness is that of its episodes without noise.
    origins = open_round(tmp_path / "data", "slider", 0).origins
    undisturbed = evaluate(teacher_of_it.task, teacher_of_it.policy, episodes=8, seed=origins[0].seed, num_threads=1)
    assert players[0].fitness == pytest.approx(float(undisturbed.per_episode[::2].mean()), abs=1e-5)


def test_the_student_sees_no_command_and_is_told_in_words(tmp_path):
    play(expert(tmp_path, COMMANDS), "slider", 0, dataclasses.replace(CONFIG, clone_noise_std=0.0), tmp_path / "data")
    dataset, episodes = recorded(tmp_path, "slider-commands", 0)
    assert dataset.state_size == 2 and len(dataset.tasks) > 6
    commands = expert(tmp_path, COMMANDS).task.commands
    assert not set(dataset.tasks) & {phrase for phrase, _ in commands.phrases(held_out=True)}
    for found in episodes[:3]:
        places = [commands.understand(dataset.tasks[task]) for task in found["task_index"][:, 0]]
        assert len(set(places)) == 2  # one after a second
        seen = torch.cat([torch.from_numpy(found[STATE]), commands.values[places]], dim=1)
        assert found[ACTION] == pytest.approx(as_commanded(seen).numpy(), abs=1e-6)


def test_a_round_is_played_once(tmp_path, monkeypatch):
    first = play(expert(tmp_path), "slider", 2, CONFIG, tmp_path / "data", Pushes)
    again = play(expert(tmp_path), "slider", 2, CONFIG, tmp_path / "other", Pushes)
    assert first == again
    monkeypatch.setattr(dagger, "collect", None)
    assert play(expert(tmp_path), "slider", 2, CONFIG, tmp_path / "data", None) == first
    report = round_folder(tmp_path / "data", "slider", 2).with_suffix(".json")
    report.write_text('{"task": "slider"}')
    with pytest.raises(UserError, match="missing round"):
        play(expert(tmp_path), "slider", 2, CONFIG, tmp_path / "data", None)


def test_reports_keep_what_is_no_number(tmp_path):
    path = tmp_path / "round_00.json"
    path.write_text('{"task": "a", "round": 0, "player": "expert", "episodes": 1, "frames": 2, '
                    '"fitness": "nan", "fitness_std": "nan"}')  # fmt: skip
    found = dagger._read_report(path)
    assert isinstance(found, Played) and np.isnan(found.fitness) and np.isnan(found.fitness_std)
