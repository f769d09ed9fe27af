"""Three small bodies of different sizes, a toy head for them, and random samples."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.action_head import ActionHead
from distill.batch import Demonstration, Observation
from distill.config import HeadConfig, head_config
from distill.embodiments import Embodiment, EmbodimentTable
from distill.normalize import compute_statistics

SIZES = {"ant": (7, 3, 8, 1), "hand": (5, 6, 4, 3), "drone": (4, 2, 6, 2)}
"""Body -> numbers of a state, numbers of an action, horizon, history."""
CONTEXT = 32
"""Width of the toy head's context."""


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def body(name: str, **changes) -> Embodiment:
    """A body with the sizes above and statistics of its own."""
    state, action, horizon, history = SIZES.get(name, (6, 4, 5, 1))
    seed = sum(name.encode())
    values = {
        "name": name,
        "state_size": state,
        "action_size": action,
        "control_dt_s": 0.02,
        "horizon": horizon,
        "execute": 2,
        "history": history,
        "state_normalization": "mean_std",
        "action_normalization": "quantile",
        "state_statistics": compute_statistics(3.0 + 2.0 * torch.randn(40, state, generator=draw(seed))),
        "action_statistics": compute_statistics(4.0 + 0.3 * torch.randn(40, action, generator=draw(seed + 1))),
    }
    return Embodiment(**(values | changes))


def make_head(*names: str, config: HeadConfig | None = None, seed: int = 0) -> ActionHead:
    """A toy head for bodies; its modulation, which starts as nothing, is filled so that flow times matter everywhere."""
    head = ActionHead(config or head_config("toy"), EmbodimentTable(tuple(map(body, names or SIZES))), seed=seed)
    torch.nn.init.normal_(head.trunk.modulation.weight, std=0.1, generator=draw(9))
    return head.eval()


def observation(embodiment: Embodiment, size: int, seed: int = 0, tokens: int = 5) -> Observation:
    """Random samples without any padding."""
    generator = draw(seed)
    return Observation(
        state=3.0 + 2.0 * torch.randn(size, embodiment.history, embodiment.state_size, generator=generator),
        context=torch.randn(size, tokens, CONTEXT, generator=generator),
    )


def demonstration(embodiment: Embodiment, size: int, seed: int = 0) -> Demonstration:
    """Random samples with random actions, without any padding."""
    shape = (size, embodiment.horizon, embodiment.action_size)
    return Demonstration(observation(embodiment, size, seed), 4.0 + 0.3 * torch.randn(shape, generator=draw(seed + 100)))


def noise_for(embodiment: Embodiment, size: int, seed: int = 7) -> Tensor:
    return torch.randn(size, embodiment.horizon, embodiment.action_size, generator=draw(seed))
