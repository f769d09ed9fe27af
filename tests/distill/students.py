"""Experts in closed form for the mass on a rail, and a small student that is cloned from them in seconds."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from distill.action_head import ActionHead
from distill.batch import Demonstration, Observation
from distill.config import encoder_config, head_config
from distill.embodiments import Embodiment, EmbodimentTable
from distill.encoder import ScratchEncoder
from distill.generalist import Generalist, Skill
from distill.normalize import compute_statistics
from tasks import registry
from tests.distill.conftest import draw
from tests.eureka.command_line import ROOT, SLIDER

COMMANDS = str(ROOT / "tests" / "data" / "slider_commands.py")
HORIZON, BATCH = 4, 64
DT_S, FORCE_N = 0.05, 4.0  # of the mass of 1 kg


def to_the_middle(observation: Tensor) -> Tensor:
    """The expert of `slider`: position and velocity (N, 2) -> force (N, 1)."""
    return (-2.0 * observation[:, :1] - 1.5 * observation[:, 1:2]).clamp(-1.0, 1.0)


def as_commanded(observation: Tensor) -> Tensor:
    """The expert of `slider-commands`: position, velocity and wanted velocity (N, 3) -> force (N, 1)."""
    return (2.0 * (observation[:, 2:] - observation[:, 1:2])).clamp(-1.0, 1.0)


def labelled(states: Tensor, expert: Callable[[Tensor], Tensor]) -> Tensor:
    """The expert's next actions (B, H, 1) from states (B, 2), by integrating the mass."""
    actions = []
    for _ in range(HORIZON):
        actions.append(expert(states))
        velocity = states[:, 1:] + FORCE_N * DT_S * actions[-1]
        states = torch.cat([states[:, :1] + DT_S * velocity, velocity], dim=1)
    return torch.stack(actions, dim=1)


def untrained(objective: str = "flow", tasks: tuple[str, ...] = (SLIDER, COMMANDS)) -> Generalist:
    """A student of the mass that knows nothing yet."""
    states = torch.rand(256, 2, generator=draw(1)) * 4.0 - 2.0
    body = Embodiment(
        name="mass",
        state_size=2,
        action_size=1,
        control_dt_s=DT_S,
        horizon=HORIZON,
        execute=2,
        history=1,
        state_normalization="min_max",
        action_normalization="min_max",
        state_statistics=compute_statistics(states),
        action_statistics=compute_statistics(torch.linspace(-1.0, 1.0, 64)[:, None]),
    )
    config = head_config("toy", {"objective": objective, "horizon": HORIZON})
    head = ActionHead(config, EmbodimentTable((body,)), seed=0).eval()
    skills = tuple(Skill(registry.make(ref).name, ref, "mass") for ref in tasks)
    return Generalist(head, ScratchEncoder(encoder_config("toy"), seed=0).eval(), skills)


@functools.cache
def cloned(steps: int = 200) -> Generalist:
    """A student that was taught both tasks, all wordings but the held-out ones."""
    generalist = untrained()
    head, encoder = generalist.head.train(), generalist.encoder
    assert isinstance(encoder, ScratchEncoder)
    commands = registry.make(COMMANDS).commands
    assert commands is not None
    told = [(registry.make(SLIDER).instruction, None)] * 8 + [
        (phrase, float(commands.values[place, 0])) for phrase, place in commands.phrases()
    ]
    optimiser = torch.optim.AdamW([*head.parameters(), *encoder.parameters()], lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    rng = draw(2)
    for _ in range(steps):
        picked = [told[i] for i in torch.randint(len(told), (BATCH,), generator=rng).tolist()]
        states = torch.rand(BATCH, 2, generator=rng) * torch.tensor([4.0, 2.5]) - torch.tensor([2.0, 1.25])
        middle = torch.tensor([wanted is None for _, wanted in picked])
        wanted = torch.tensor([[0.0 if value is None else value] for _, value in picked])
        follow = labelled(states, lambda seen, wanted=wanted: as_commanded(torch.cat([seen, wanted], dim=1)))
        actions = torch.where(middle[:, None, None], labelled(states, to_the_middle), follow)
        context, mask = encoder([phrase for phrase, _ in picked])
        samples = Demonstration(Observation(states[:, None], context, mask), actions)
        loss, _ = head.loss({"mass": samples}, generator=rng)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    head.eval()
    encoder.eval()
    return generalist
