"""A small head that was taught, in seconds, to do with the puck what words say: the mapping from words to velocities."""

from __future__ import annotations

import functools

import torch

from distill.action_head import ActionHead
from distill.batch import Demonstration, Observation
from distill.config import encoder_config, head_config
from distill.embodiments import Embodiment, EmbodimentTable
from distill.encoder import ScratchEncoder
from distill.generalist import Generalist, Skill
from distill.normalize import compute_statistics
from tests.distill.conftest import draw
from tests.distill.puck import MOST, PuckCommand

HORIZON, BATCH = 8, 64
REF = f"{__file__.removesuffix('puck_head.py')}puck.py"
COMMAND_REF, TOUR_REF = f"{REF}:PuckCommand", f"{REF}:PuckTour"


def untaught(objective: str = "flow") -> Generalist:
    """The head before it was taught."""
    states = torch.rand(256, 6, generator=draw(1)) * 8.0 - 4.0
    body = Embodiment(
        name="puck",
        state_size=6,
        action_size=3,
        control_dt_s=0.02,
        horizon=HORIZON,
        execute=4,
        history=1,
        state_normalization="min_max",
        action_normalization="min_max",
        state_statistics=compute_statistics(states),
        action_statistics=compute_statistics(torch.rand(256, 3, generator=draw(2)) * 2.0 - 1.0),
    )
    config = head_config("toy", {"objective": objective, "horizon": HORIZON})
    head = ActionHead(config, EmbodimentTable((body,)), seed=0).eval()
    skills = (Skill("puck-command", COMMAND_REF, "puck"),)
    return Generalist(head, ScratchEncoder(encoder_config("toy"), seed=0).eval(), skills)


@functools.cache
def taught(steps: int = 200) -> Generalist:
    """The head that knows every phrase for training; regression, which needs few steps."""
    generalist = untaught("regression")
    head, encoder = generalist.head.train(), generalist.encoder
    assert isinstance(encoder, ScratchEncoder)
    told = PuckCommand.commands.phrases()
    actions = PuckCommand.commands.values / torch.tensor(MOST)
    optimiser = torch.optim.AdamW([*head.parameters(), *encoder.parameters()], lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    rng = draw(3)
    for _ in range(steps):
        picked = [told[place] for place in torch.randint(len(told), (BATCH,), generator=rng).tolist()]
        states = torch.rand(BATCH, 1, 6, generator=rng) * 10.0 - 5.0
        wanted = actions[[place for _, place in picked]][:, None].expand(-1, HORIZON, -1)
        context, mask = encoder([phrase for phrase, _ in picked])
        samples = Demonstration(Observation(states, context, mask), wanted)
        loss, _ = head.loss({"puck": samples}, generator=rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    head.eval()
    encoder.eval()
    return generalist
