"""Chunks joined under injected delays, and worlds in step, against schedules worked out by hand and by plain loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distill.policy import ChunkBroker, ChunkedPolicy, ChunkRequest, History, blended, joint_weights
from tasks.errors import UserError
from tests.distill.conftest import draw


def run(broker: ChunkBroker, delays: list[int], steps: int) -> tuple[list[tuple[int, float] | None], list[ChunkRequest]]:
    """Serve `steps` control steps; the n-th chunk is there `delays[n]` steps after it was asked for.

    Actions are (step that it is meant for, number of the chunk that it is of).
    """
    under_way: list[tuple[int, ChunkRequest]] = []
    served: list[tuple[int, float] | None] = []
    requests: list[ChunkRequest] = []
    for step in range(steps):
        arrive(broker, under_way, step)
        request = broker.request()
        if request is not None:
            assert request.step == step
            requests.append(request)
            under_way.append((step + delays[min(request.number, len(delays) - 1)], request))
            arrive(broker, under_way, step)  # without delay it is there at once
        action = broker.action()
        served.append(None if action is None else (int(action[0]), float(action[1])))
    return served, requests


def arrive(broker: ChunkBroker, under_way: list[tuple[int, ChunkRequest]], step: int) -> None:
    for due, request in [entry for entry in under_way if entry[0] <= step]:
        under_way.remove((due, request))
        steps = request.step + torch.arange(float(broker.horizon))
        broker.deliver(request.number, torch.stack([steps, torch.full_like(steps, request.number)], dim=1))


def test_weights_of_a_joint_by_hand():
    """c (e^c - 1) / (e - 1) at c = 2/3 and 1/3."""
    wanted = torch.tensor([1.0, 1.0, 0.36770, 0.07675, 0.0, 0.0])
    torch.testing.assert_close(joint_weights(6, 2, 4), wanted, atol=2e-5, rtol=0)
    assert joint_weights(4, 0, 0).tolist() == [0.0] * 4
    assert joint_weights(3, 3, 3).tolist() == [1.0] * 3


def test_without_delay_chunks_follow_each_other():
    served, requests = run(ChunkBroker(horizon=6, execute=3, delay=0), [0], 9)
    assert served == [(step, step // 3) for step in range(9)]
    assert [request.step for request in requests] == [0, 3, 6]


def test_with_a_delay_no_step_is_without_an_action_and_settled_ones_are_kept():
    """Chunks take 2 steps. The first is waited for; after that each is asked for 2 steps before it takes over, and its
    first two actions are those of the chunk before."""
    broker = ChunkBroker(horizon=6, execute=4, delay=2)
    served, requests = run(broker, [2], 15)
    assert served[:2] == [None, None]
    assert [request.step for request in requests] == [0, 4, 8, 12]
    #         steps 2..5 are chunk 0's; it settles 4 and 5; chunk 1, asked for at 4, begins with step 6, and so on
    assert served[2:] == [(step, (step - 2) // 4) for step in range(2, 15)]
    second = requests[1]
    assert second.previous is not None and second.weights is not None
    assert second.previous[:, 0].tolist() == [4.0, 5.0, 5.0, 5.0, 5.0, 5.0], "what is left, the last repeated"
    assert second.weights.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert (broker.late, broker.dropped) == (0, 0)


def test_settled_actions_are_those_of_the_old_chunk_to_the_bit():
    """Read from the joined chunk itself: a chunk that comes early is served at once, its settled part is the old one's."""
    broker = ChunkBroker(horizon=6, execute=2, delay=2)
    served, requests = run(broker, [0], 6)
    assert [request.step for request in requests] == [0, 2, 4]
    assert served == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 1), (5, 1)]


def test_a_chunk_that_comes_late_is_read_from_the_present_on():
    """It was to take 1 step and takes 3: the old chunk lasts that long, then the new one goes on at the right step."""
    broker = ChunkBroker(horizon=6, execute=2, delay=1)
    served, requests = run(broker, [0, 3, 0], 7)
    # Chunk 2, asked for as soon as chunk 1 is there and at once there itself, has step 5 settled by chunk 1.
    assert served == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 2)]
    assert broker.late == 1
    assert [request.step for request in requests] == [0, 2, 5]


def test_a_chunk_that_never_comes_leaves_steps_without_an_action():
    """None, and no invented action; when it comes all its actions are past, and a new one is asked for."""
    broker = ChunkBroker(horizon=4, execute=2, delay=1)
    served, requests = run(broker, [0, 5, 0], 9)
    assert served[:4] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert served[4:7] == [None] * 3
    assert broker.dropped == 1
    assert requests[2].step == 7 and requests[2].previous is None
    assert served[7:] == [(7, 2), (8, 2)]


def test_an_episode_s_end_forgets_what_is_under_way():
    broker = ChunkBroker(horizon=4, execute=2, delay=1)
    old = broker.request()
    assert old is not None
    broker.reset()
    assert not broker.deliver(old.number, torch.zeros(4, 2))
    assert broker.action() is None
    assert broker.dropped == 1
    new = broker.request()
    assert new is not None and new.number != old.number


def test_a_chunk_s_owner_may_reuse_its_memory():
    broker = ChunkBroker(horizon=3, execute=3, delay=0)
    request = broker.request()
    chunk = torch.ones(3, 1)
    assert request is not None and broker.deliver(request.number, chunk)
    chunk.zero_()
    action = broker.action()
    assert action is not None and action.item() == 1.0
    action.zero_()


def test_blending_by_weights():
    request = ChunkRequest(1, 0, torch.tensor([[2.0], [2.0], [2.0]]), torch.tensor([1.0, 0.25, 0.0]))
    assert blended(request, torch.zeros(3, 1)).flatten().tolist() == [2.0, 0.5, 0.0]
    first = ChunkRequest(0, 0, None, None)
    assert blended(first, torch.ones(3, 1)).flatten().tolist() == [1.0] * 3


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: ChunkBroker(8, 6, 3), "a chunk has 8 actions, but 6 are carried out before the next is asked for, and 3"),
        (lambda: ChunkBroker(8, 0, 0), "chunks of 8, 0 carried out, delay 0: expected at least 1, 1 and 0."),
        (lambda: ChunkBroker(8, 4, 0).deliver(0, torch.zeros(7, 2)), "a chunk has shape (7, 2), expected (8, actions)."),
        (lambda: ChunkedPolicy(lambda s, m, w: torch.zeros(len(w), 2, 1), 3, 1)(torch.zeros(1, 1), torch.ones(1) > 0),
         "chunks of 2 actions, of which 3 are to be carried out."),
    ],
)  # fmt: skip
def test_what_cannot_work_gives_one_line(make, line):
    with pytest.raises(UserError) as caught:
        make()
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_history_is_the_episode_s_own():
    """Against a plain list for each world; episodes begin at random."""
    generator, length = draw(0), 3
    history, lists = History(length), [[], [], [], []]
    for _ in range(12):
        state = torch.randn(4, 2, generator=generator)
        first = torch.rand(4, generator=generator) < 0.3
        states, mask = history.push(state, first)
        for world in range(4):
            lists[world] = ([] if first[world] else lists[world]) + [state[world].clone()]
            recent = lists[world][-length:]
            assert mask[world].tolist() == [False] * (length - len(recent)) + [True] * len(recent)
            assert torch.equal(states[world][mask[world]], torch.stack(recent))
            assert not states[world][~mask[world]].any()
        state.fill_(9.0)  # a simulator's buffer


def test_worlds_in_step_are_each_by_itself():
    """Each action against a loop over worlds: a chunk from the state at which it was made, until `execute` actions are
    carried out or an episode begins."""
    asked: list[Tensor] = []

    def plan(states: Tensor, mask: Tensor, worlds: Tensor) -> Tensor:
        asked.append(worlds)
        assert states.shape == (len(worlds), 2, 1)
        return states[:, -1:] + 0.01 * torch.arange(4.0)[None, :, None]

    policy = ChunkedPolicy(plan, execute=3, history=2)
    generator, running = draw(1), [(0.0, 99)] * 5
    for step in range(20):
        state = torch.randn(5, 1, generator=generator)
        first = (torch.rand(5, generator=generator) < 0.15) | (step == 0)
        actions = policy(state, first)
        planned = []
        for world in range(5):
            base, used = running[world]
            if first[world] or used >= 3:
                base, used = state[world].item(), 0
                planned.append(world)
            assert actions[world].item() == pytest.approx(base + 0.01 * used, abs=1e-6)
            running[world] = (base, used + 1)
        if planned:
            assert asked.pop().tolist() == planned
        assert not asked, "no world is planned for before it is due"
