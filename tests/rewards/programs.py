"""A signal table, signals and reward programs that the tests of this folder share."""

import torch

from tasks.signals import Signal, Signals, SignalTable

TABLE = SignalTable(
    [
        Signal("torso_velocity_w", 3, "m/s", "world", "linear_velocity", "velocity of the torso"),
        Signal("up_axis_w", 3, "1", "world", "direction", "up axis of the torso"),
        Signal("height", 1, "m", "world", "position", "height of the torso"),
        Signal("actions", 2, "1", "-", "action", "what the policy asked for"),
    ]
)

GOOD = '''"""Forward speed, upright torso, small actions."""
import torch
import torch.nn.functional as F
from torch import Tensor
from typing import Dict, Tuple

WEIGHTS: Dict[str, float] = {"forward": 1.0, "upright_exp": 0.5}
SCALE = torch.tensor([1.0, 2.0])


def kernel(error: Tensor, sigma: float = 0.5, flip: bool = False) -> Tensor:
    """A bell: {1} at 0 % error (été)."""
    value = torch.exp(-error / sigma)
    if flip:
        value = 1.0 - value
    return value


@torch.jit.script
def compute_reward(
    torso_velocity_w: torch.Tensor, up_axis_w: Tensor, height: Tensor, actions: Tensor
) -> Tuple[Tensor, Dict[str, Tensor]]:
    import math

    with torch.no_grad():
        forward = torso_velocity_w[:, 0]
    upright: Tensor = kernel((1 - up_axis_w[:, 2]) ** 2)
    tall = torch.where(height.squeeze(-1) > 0.5, 1.0, 0.0) * math.sqrt(4.0)
    fast = torch.zeros_like(forward)
    fast[forward > 0] = 1.0
    cost = (actions * SCALE.to(actions.device)).square().sum(dim=-1)
    terms = {"forward": forward, "upright_exp": upright}
    total = torch.zeros(forward.shape[0], device=actions.device)
    for name, weight in WEIGHTS.items():
        total = total + weight * terms[name]
    for i in range(actions.shape[1]):
        total += F.softplus(actions[:, i])
    total = total - 0.1 * cost + sum([0.1 * term for term in (tall, fast)])
    terms["action_l2"] = cost
    terms.update({f"axis_{axis}": up_axis_w[:, axis] for axis in range(2)})
    return total, terms
'''


def signals(num_envs: int, seed: int = 0) -> Signals:
    """Signals of the table, normally distributed."""
    generator = torch.Generator().manual_seed(seed + num_envs)
    return {item.name: torch.randn(num_envs, item.dims, generator=generator) for item in TABLE}


def program(*lines: str, ret: str = "total, {'a': a}") -> str:
    """A program of fixed frame: `a` and `total` are (N,); the first of `lines` is line 5."""
    body = "\n".join(f"    {line}" for line in lines)
    return (
        "import torch\n"
        "def compute_reward(torso_velocity_w, height, actions):\n"
        "    a = torso_velocity_w[:, 0] * 1.0\n"
        "    total = 2.0 * a\n"
        f"{body}\n"
        f"    return {ret}\n"
    )
