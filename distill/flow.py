"""Flow matching: from noise at time 0 to data at time 1 along straight lines, and back out of a learned velocity.

    x_t = (1 - t) noise + t data        target = data - noise

A network learns the target's mean given x_t; following it from noise draws from the data (rectified flow, arXiv
2209.03003; flow matching, arXiv 2210.02747). Times in training are those of GR00T N1.6 and pi0 (arXiv 2410.24164),
Beta-distributed towards noise and never outside [0, time_scale].

A guided sampler holds a new chunk to actions that are settled already: real-time chunking (arXiv 2506.07339), which
corrects the velocity by the gradient of the weighted distance to them.

Knows nothing of networks, embodiments, masks or units. No argument is changed.

Axes: B batch, H action horizon, A action.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, int], Tensor]
"""Of x (B, H, A) at Euler step k of K, which is time k / K."""
MAX_GUIDANCE = 5.0
"""Largest factor of the guidance, beta of real-time chunking; the paper finds that more does not help."""


def draw_times(count: int, alpha: float, scale: float, *, generator: torch.Generator | None, device: torch.device,
               dtype: torch.dtype = torch.float32) -> Tensor:  # fmt: skip
    """Flow times (count,): (1 - u) scale, u ~ Beta(alpha, 1).

    The distribution function of Beta(alpha, 1) is u^alpha, so u is a uniform number to the power 1 / alpha.
    """
    uniform = torch.rand(count, generator=generator, device=device, dtype=dtype)
    return (1.0 - uniform.pow(1.0 / alpha)) * scale


def interpolate(noise: Tensor, data: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """x_t and target, both (B, H, A), of noise and data (B, H, A) at times (B,)."""
    t = times[:, None, None]
    return (1.0 - t) * noise + t * data, data - noise


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (B, H, A) over the valid steps, mask (B, H), and all of A; 0 where no step is valid.

    Values of masked steps have no part in it, whatever they are, and no gradient.
    """
    kept = torch.where(mask[:, :, None], values, torch.zeros_like(values))
    return kept.sum() / (mask.sum() * values.shape[2]).clamp(min=1)


def euler(velocity: Velocity, noise: Tensor, steps: int) -> Tensor:
    """Follow a velocity from noise (B, H, A) at time 0 to time 1 in equal steps."""
    x = noise
    for step in range(steps):
        x = x + velocity(x, step) / steps
    return x


def guided_euler(velocity: Velocity, noise: Tensor, steps: int, target: Tensor, weights: Tensor) -> Tensor:
    """Follow a velocity like `euler`, held to a target chunk (B, H, A) by weights (H,) or (B, H) from 0 to 1.

    Each step estimates the end, x + (1 - t) v, and corrects v by the gradient of the weighted distance between it and
    the target (arXiv 2506.07339, eq. 2 to 4, after arXiv 2310.04432). Where the weight is 1 the result is near the
    target, not equal to it. The velocity is differentiated once a step with regard to x.
    """
    weights = weights[..., :, None]
    x = noise
    for step in range(steps):
        t = step / steps
        with torch.enable_grad():
            here = x.detach().requires_grad_()
            v = velocity(here, step)
            end = here + (1.0 - t) * v
            distance = ((target - end) * weights).detach()
            (correction,) = torch.autograd.grad(end, here, distance)
        x = x + (v.detach() + guidance_factor(t) * correction) / steps
    return x


def guidance_factor(t: float) -> float:
    """min(beta, (1 - t) / (t r^2)) with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2), for t in [0, 1)."""
    if t == 0.0:
        return MAX_GUIDANCE
    return min(MAX_GUIDANCE, (t**2 + (1.0 - t) ** 2) / (t * (1.0 - t)))
