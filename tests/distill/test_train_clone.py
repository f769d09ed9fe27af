"""One step of learning against what torch does alone; threads, running mean, freezing, saved states."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from distill.action_head import ActionHead
from distill.clone import Learner, demonstration, learning_rate, train_only
from distill.config import encoder_config, head_config
from distill.dataset.windows import Windows
from distill.embodiments import EmbodimentTable
from distill.encoder import ScratchEncoder
from distill.train_config import distill_config, from_json, to_json
from tasks.errors import UserError
from tests.distill.conftest import SIZES, body, draw, observation

CPU = torch.device("cpu")
CONFIG = distill_config("toy", {"steps": 100, "warmup_share": 0.1, "max_grad_norm": 1e9, "ema_decay": 0.5})


def windows(name: str, size: int, seed: int = 0) -> Windows:
    """Random samples of a body; every second one is told something else, and some chunks are cut short."""
    it = body(name)
    actions = 4.0 + 0.3 * torch.randn(size, it.horizon, it.action_size, generator=draw(seed + 50))
    mask = torch.ones(size, it.horizon, dtype=torch.bool)
    mask[::3, it.horizon // 2 :] = False
    words = tuple(("go on", "stand still")[row % 2] for row in range(size))
    seen = observation(it, size, seed).state
    return Windows(seen, torch.ones(seen.shape[:2], dtype=torch.bool), actions, mask, words, ("",) * size)


BATCH = {"ant": windows("ant", 12), "hand": windows("hand", 20), "drone": windows("drone", 7)}


def learner(config=CONFIG, threads=1, bodies=tuple(SIZES), trunk=True, objective="flow") -> Learner:
    head = ActionHead(head_config("toy", {"objective": objective}), EmbodimentTable(tuple(map(body, SIZES))), seed=3)
    encoder = ScratchEncoder(encoder_config("toy"), seed=3)
    train_only(head, encoder, bodies, trunk)
    return Learner(head, encoder, config, threads)


def weights(one: Learner) -> list[torch.Tensor]:
    return [value.detach().clone() for value in (*one.head.state_dict().values(), *one.encoder.state_dict().values())]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


def test_the_learning_rate_rises_and_falls():
    """10 steps up along a line, then a cosine over 90: halfway down at 10 + 45 steps."""
    config = dataclasses.replace(CONFIG, learning_rate=2.0)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.2) and rates[4] == pytest.approx(1.0) and rates[9] == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and rates[40] == pytest.approx(1.0 + math.cos(math.pi / 3))
    assert rates[100] == pytest.approx(0.0)


def test_a_step_is_the_optimisers_on_the_mean_over_the_samples_of_each_body():
    """Against plain torch: one loss, weighed by the bodies' shares of the batch, its gradient, AdamW."""
    config = dataclasses.replace(CONFIG, max_grad_norm=0.3)
    ours, theirs = (learner(config, objective="regression") for _ in range(2))  # regression draws nothing
    parameters = [*theirs.head.parameters(), *theirs.encoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate(0, config), betas=(0.9, 0.99), weight_decay=1e-5)
    expected = {}
    for name, samples in BATCH.items():
        expected[name], _ = theirs.head.loss({name: demonstration(samples, theirs.encoder, CPU)})
    loss = (12 * expected["ant"] + 20 * expected["hand"] + 7 * expected["drone"]) / 39
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(parameters, 0.3)
    optimizer.step()
    assert norm > 0.3  # the clipping is at work
    found = ours.learn(BATCH)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-5
    )
    for mine, other in zip(weights(ours), weights(theirs), strict=True):
        assert torch.allclose(mine, other, rtol=1e-4, atol=2e-6)


def test_threads_and_the_order_of_bodies_change_nothing():
    one, two = learner(), learner(threads=2)
    for _ in range(4):
        one.learn(BATCH)
        two.learn(dict(reversed(BATCH.items())))
    assert same(weights(one), weights(two))
    other = learner(dataclasses.replace(CONFIG, seed=1))
    for _ in range(4):
        other.learn(BATCH)
    assert not same(weights(one), weights(other))


def test_every_step_draws_times_and_noise_of_its_own():
    """Of weights that hardly move the loss differs from step to step, and another learner finds the same losses."""
    still = dataclasses.replace(CONFIG, learning_rate=1e-30)
    first, second = ([float(one.learn(BATCH)["hand"]) for _ in range(3)] for one in (learner(still), learner(still)))
    assert len(set(first)) == 3 and first == second


def test_the_student_is_the_running_mean_of_the_weights():
    """decay min(0.5, (1 + n) / (10 + n)) after step n, worked out beside it."""
    one = learner()
    mean = one.head.trunk.modulation.weight.detach().double().clone()
    for number in range(1, 13):
        one.learn(BATCH)
        decay = min(0.5, (1 + number) / (10 + number))
        mean = decay * mean + (1 - decay) * one.head.trunk.modulation.weight.detach().double()
    now = weights(one)
    head, _ = one.student()
    assert torch.allclose(head.trunk.modulation.weight.double(), mean, atol=1e-6)
    assert not torch.allclose(head.trunk.modulation.weight, one.head.trunk.modulation.weight, atol=1e-4)
    assert same(now, weights(one))  # and what learns stays where it was
    assert not head.training and not any(parameter.requires_grad for parameter in head.parameters())


@pytest.mark.parametrize("trunk", [False, True])
def test_what_is_frozen_stays_bit_for_bit(trunk):
    one = learner(bodies=("hand",), trunk=trunk)
    learns = {name for name, adapter in one.head.adapters.items() if any(p.requires_grad for p in adapter.parameters())}
    assert learns == {"hand"}
    before = {name: value.clone() for name, value in one.head.state_dict().items()}
    words = [value.clone() for value in one.encoder.state_dict().values()]
    for _ in range(3):
        one.learn({"hand": BATCH["hand"]})
    for head in (one.head, one.student()[0]):
        moved = {name.split(".")[1] if name.startswith("adapters") else "shared"
                 for name, value in head.state_dict().items() if not torch.equal(value, before[name])}  # fmt: skip
        assert moved == ({"hand", "shared"} if trunk else {"hand"})
    assert same(words, list(one.encoder.state_dict().values())) != trunk


def test_a_saved_state_goes_on_bit_for_bit(tmp_path):
    whole, first, second = learner(), learner(), learner()
    for _ in range(6):
        whole.learn(BATCH)
    for _ in range(3):
        first.learn(BATCH)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for _ in range(3):
        second.learn(BATCH)
    assert second.steps == 6 and same(weights(whole), weights(second))
    assert same(list(whole.student()[0].state_dict().values()), list(second.student()[0].state_dict().values()))
    with pytest.raises(UserError, match="state is of another student"):
        learner(bodies=("hand",), trunk=False).load_state_dict(first.state_dict())


def test_a_gradient_that_is_not_finite_ends_it_before_it_is_applied():
    one = learner()
    one.learn(BATCH)
    before = weights(one)
    broken = BATCH["hand"].actions.clone()
    broken[1, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"step 2: the gradient is not finite; lower learning_rate"):
        one.learn({**BATCH, "hand": dataclasses.replace(BATCH["hand"], actions=broken)})
    assert same(before, weights(one))


def test_bfloat16_is_near_float32():
    losses = [learner(dataclasses.replace(CONFIG, precision=p), objective="regression").learn(BATCH)
              for p in ("float32", "bfloat16")]  # fmt: skip
    for name in BATCH:
        assert 0.0 < abs(float(losses[0][name] - losses[1][name])) < 0.05 * float(losses[0][name])


def test_configs_go_to_json_and_back_and_refuse_nonsense():
    config = distill_config("toy", {"bodies": {"ant": {"execute": 2}}, "rounds": 3, "clone_share": 0.25, "steps": 100})
    assert from_json(to_json(config)) == config
    assert config.phase_steps == (25, 50, 75, 100) and dataclasses.replace(config, rounds=0).phase_steps == (100,)
    assert config.body_of("ant").execute == 2 and config.body_of("ant").horizon == config.body_of("x").horizon == 4
    for settings, words in (
        ({"round": 1}, "Did you mean 'rounds'"),
        ({"rounds": -1}, "rounds is -1"),
        ({"body": {"execute": 9}}, "more than the 4 actions"),
        ({"bodies": {"ant": {"horizon": 40}}}, "raise head.horizon"),
        ({"bodies": {"ant": 3}}, "expected fields of its own"),
        ({"precision": "float16"}, "expected one of float32, bfloat16"),
        ({"device": "cud"}, "use device 'cpu'"),
        ({"encoder": {"words": 20}}, "change encoder or head"),
    ):
        with pytest.raises(UserError, match=words):
            distill_config("toy", settings)
