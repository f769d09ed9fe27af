"""A generalist on the disk, and acting in worlds: against a loop over worlds that plans for each one alone."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from distill.batch import Observation
from distill.checkpoint import META, StoredHead, save_head
from distill.generalist import Generalist, Skill, is_generalist, load_generalist, save_generalist
from distill.told import held_out_words, told_words
from tasks import registry
from tasks.env import make_env
from tasks.errors import UserError
from tests.distill.students import COMMANDS, HORIZON, untrained
from tests.eureka.command_line import SLIDER


@pytest.fixture(scope="module")
def generalist() -> Generalist:
    return untrained()


def test_a_loaded_generalist_is_the_saved_one(generalist, tmp_path):
    skill = dataclasses.replace(generalist.skills[0], expert="../experts/slider/model.pt", expert_sha256="ab12")
    saved = dataclasses.replace(generalist, skills=(skill, generalist.skills[1]), about={"rounds": 3})
    save_generalist(saved, tmp_path)
    loaded = load_generalist(tmp_path)
    assert is_generalist(tmp_path) and not is_generalist(tmp_path.parent)
    assert loaded.skills == saved.skills and loaded.about == {"rounds": 3}
    assert loaded.make_task("slider-commands").name == "slider-commands"
    assert loaded.embodiment("slider") == generalist.head.table["mass"]
    env = make_env(registry.make(SLIDER), 3, seed=1, num_threads=1)
    actions = [one.actor(env.task, seed=4).act(env) for one in (saved, loaded)]
    assert torch.equal(*actions)
    assert not torch.equal(actions[0], saved.actor(env.task, seed=5).act(env)), "the seed is of the noise"


@pytest.mark.parametrize("words", [told_words, held_out_words])
def test_an_actor_does_in_each_world_what_it_would_do_there_alone(generalist, words):
    """Over ends of episodes and changes of words, which both come in the middle of chunks: the second begins a new
    chunk at once. Without noise, so that a world's chunk does not depend on who is planned for beside it."""
    task, execute = registry.make(COMMANDS), 3  # words change every 20 steps
    env = make_env(task, 4, seed=3, num_threads=1)
    env.episode_step += torch.tensor([0, 13, 27, 35])  # their time is up at different steps
    actor = generalist.actor(task, execute=execute, noise=0.0, words=words)
    running = [(torch.zeros(0, 1), 99, "")] * 4
    changes = ends = 0
    for _ in range(60):
        told, state = words(env), env.observe_told()
        assert state.shape == (4, 2), "the command's number is not among what is seen"
        actions = actor.act(env)
        for world in range(4):
            chunk, used, heard = running[world]
            new = int(env.episode_step[world]) == 0
            if new or used >= execute or told[world] != heard:
                changes += told[world] != heard and not new and used < execute
                ends += new and used < execute
                context, mask = generalist.encoder([told[world]])
                seen = Observation(state[world][None, None], context, mask)
                chunk = generalist.head.sample("mass", seen, noise=torch.zeros(1, HORIZON, 1))[0]
                used = 0
            assert actions[world].item() == pytest.approx(chunk[used].item(), abs=1e-5)
            running[world] = (chunk, used + 1, told[world])
        env.step(actions)
    assert changes > 3 and ends > 1


def test_a_task_without_commands_is_told_its_instruction(generalist):
    env = make_env(registry.make(SLIDER), 2, num_threads=1)
    assert list(told_words(env)) == list(held_out_words(env)) == [env.task.instruction] * 2
    said = [
        generalist.actor(env.task, noise=0.0, words=words).act(env) for words in (told_words, lambda e: ["stop"] * 2)
    ]
    assert not torch.allclose(*said), "words reach the head"


def spoil(folder, change):
    meta = json.loads((folder / META).read_text())
    change(meta)
    (folder / META).write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda meta: meta["about"].pop("skills"), "expected a list: a head alone, without what it was taught"),
        (lambda meta: meta["about"]["skills"][0].pop("embodiment"), "skills[0]: missing embodiment"),
        (lambda meta: meta["about"]["skills"][0].update(task=3), "skill.task is 3, expected a text"),
        (
            lambda meta: meta["about"]["skills"][1].update(embodiment="masse"),
            "unknown embodiment 'masse'; known: mass.",
        ),
        (lambda meta: meta["about"]["skills"][1].update(task="slider"), "task 'slider' comes twice among the skills"),
    ],
)
def test_a_damaged_folder_gives_one_line(generalist, tmp_path, change, line):
    save_generalist(generalist, tmp_path)
    spoil(tmp_path, change)
    with pytest.raises(UserError) as caught:
        load_generalist(tmp_path)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (lambda g: g.skill("slidr"), "was not taught 'slidr'; its tasks: slider, slider-commands. Did you mean 'slider'?"),
        (lambda g: g.actor(registry.make("ball-balance")), "was not taught 'ball-balance'"),
        (lambda g: g.actor(registry.make(SLIDER), execute=5), "execute is 5, expected 1 to 4, the actions of a chunk"),
        (lambda g: g.actor(registry.make(SLIDER), noise=-1.0), "noise is -1.0, expected a number of at least 0"),
        (lambda g: dataclasses.replace(g, skills=(Skill("slider", "gone.py", "mass"),)).make_task("slider"),
         "was taught 'slider', which is not here any more: no task file gone.py"),
        (lambda g: dataclasses.replace(g, skills=(Skill("slider", "ball-balance", "mass"),)).make_task("slider"),
         "ball-balance holds the task 'ball-balance', the generalist was taught 'slider'"),
        (lambda g: dataclasses.replace(g, skills=(Skill("ball-balance", "ball-balance", "mass"),))
         .actor(registry.make("ball-balance")).act(make_env(registry.make("ball-balance"), 1, num_threads=1)),
         "embodiment 'mass' has 2 and 1: the task was changed since"),
    ],
)  # fmt: skip
def test_what_cannot_work_gives_one_line(generalist, ask, line):
    with pytest.raises(UserError) as caught:
        ask(generalist)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_a_head_alone_is_no_generalist(generalist, tmp_path):
    save_head(StoredHead(generalist.head, generalist.encoder, {}), tmp_path)
    with pytest.raises(UserError, match="a head alone"):
        load_generalist(tmp_path)
