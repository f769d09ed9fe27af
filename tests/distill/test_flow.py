"""Flow matching against closed forms: its times, its velocity and its flow between Gaussians, and guidance."""

from __future__ import annotations

import math

import pytest
import torch

from distill.flow import draw_times, euler, guidance_factor, guided_euler, interpolate, masked_mean
from tests.distill.conftest import draw

CPU = torch.device("cpu")


def test_times_are_the_beta_distribution_s():
    """Beta(1.5, 1) has mean 3/5 and variance 12/175; (1 - u) 0.999 of it is closer to noise, and never negative."""
    times = draw_times(200_000, 1.5, 0.999, generator=draw(0), device=CPU, dtype=torch.float64)
    assert float(times.min()) >= 0.0
    assert float(times.max()) <= 0.999
    assert times.mean().item() == pytest.approx(0.999 * 2 / 5, abs=4 * math.sqrt(12 / 175 / 200_000))
    assert times.var().item() == pytest.approx(0.999**2 * 12 / 175, rel=0.01)
    grid = torch.linspace(0.0, 0.999, 50, dtype=torch.float64)
    below = (times[:, None] <= grid).double().mean(dim=0)
    assert (below - (1.0 - (1.0 - grid / 0.999) ** 1.5)).abs().max() < 1.63 / math.sqrt(200_000)  # Kolmogorov, 1 %


def test_time_0_is_noise_and_time_1_is_data():
    noise, data = torch.full((2, 1, 1), 5.0), torch.full((2, 1, 1), -2.0)
    x, target = interpolate(noise, data, torch.tensor([0.0, 1.0]))
    assert x.flatten().tolist() == [5.0, -2.0]
    assert target.flatten().tolist() == [-7.0, -7.0]


MEAN, STD = 1.5, 0.4


def gaussian_velocity(x, t):
    """E[data - noise | x_t = x] for data of N(MEAN, STD^2) and noise of N(0, 1): the mean of a joint Gaussian."""
    slope = (t * STD**2 - (1.0 - t)) / ((1.0 - t) ** 2 + t**2 * STD**2)
    return MEAN + slope * (x - t * MEAN)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.8])
def test_the_target_s_mean_is_the_velocity_between_gaussians(t):
    """What a network that minimises the squared error learns: the regression of the target on x_t."""
    generator, n = draw(3), 200_000
    noise = torch.randn(n, 1, 1, generator=generator, dtype=torch.float64)
    data = MEAN + STD * torch.randn(n, 1, 1, generator=generator, dtype=torch.float64)
    x, target = (part.flatten() for part in interpolate(noise, data, torch.full((n,), t, dtype=torch.float64)))
    design = torch.stack([torch.ones(n, dtype=torch.float64), x], dim=1)
    intercept, slope = torch.linalg.lstsq(design, target).solution.tolist()
    assert intercept == pytest.approx(gaussian_velocity(0.0, t), abs=0.02)
    assert slope == pytest.approx(gaussian_velocity(1.0, t) - gaussian_velocity(0.0, t), abs=0.02)


def test_euler_follows_the_flow_between_gaussians():
    """It takes x_0 to MEAN + STD x_0 along the closed-form path; the error halves with twice the steps."""
    noise = torch.linspace(-3.0, 3.0, 13, dtype=torch.float64).reshape(13, 1, 1)
    before = noise.clone()
    errors = []
    for steps in (64, 128):
        end = euler(lambda x, k, steps=steps: gaussian_velocity(x, k / steps), noise, steps)
        errors.append(float((end - (MEAN + STD * noise)).abs().max()))
    assert errors[0] < 0.1
    assert 1.8 < errors[0] / errors[1] < 2.2
    assert torch.equal(noise, before)


def test_the_first_step_is_taken_at_time_0():
    """There x says nothing of the data: one step, from wherever, gives the data's mean, as L2 regression would."""
    noise = torch.linspace(-3.0, 3.0, 7, dtype=torch.float64).reshape(7, 1, 1)
    end = euler(lambda x, k: gaussian_velocity(x, float(k)), noise, 1)
    torch.testing.assert_close(end, torch.full_like(noise, MEAN))


def test_guidance_is_the_paper_s():
    """min(5, (1 - t) / (t r^2)) with r^2 = (1 - t)^2 / (t^2 + (1 - t)^2): 2 in the middle, 10/16 over 3/16 a quarter
    from either end, and cut off near the ends."""
    assert guidance_factor(0.5) == pytest.approx(2.0)
    assert guidance_factor(0.25) == guidance_factor(0.75) == pytest.approx(10.0 / 3.0)
    assert guidance_factor(0.0) == guidance_factor(0.999) == guidance_factor(0.01) == 5.0


CORRELATION = 0.9


def correlated_velocity(x, t):
    """The velocity for chunks of two steps of N(0, [[1, rho], [rho, 1]]) and noise of N(0, I)."""
    eye, ones = torch.eye(2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
    covariance = CORRELATION * ones + (1.0 - CORRELATION) * eye
    matrix = (t * covariance - (1.0 - t) * eye) @ torch.linalg.inv((1.0 - t) ** 2 * eye + t**2 * covariance)
    return (matrix @ x[:, :, 0].T).T[:, :, None]


def test_guidance_pulls_the_rest_of_a_chunk_along():
    """The first step is held to 2; the second is free, but the data correlate: given the first it has mean 1.8."""
    steps = 20
    noise = torch.randn(1000, 2, 1, generator=draw(1), dtype=torch.float64)
    before = noise.clone()

    def velocity(x, k):
        return correlated_velocity(x, k / steps)

    target = torch.tensor([2.0, -50.0], dtype=torch.float64).reshape(1, 2, 1).expand(1000, 2, 1)
    held = guided_euler(velocity, noise, steps, target, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert held[:, 0].mean().item() == pytest.approx(2.0, abs=0.15)
    assert held[:, 1].mean().item() == pytest.approx(1.8, abs=0.25), "and the target of a free step is not looked at"
    free = guided_euler(velocity, noise, steps, target, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(free, euler(velocity, noise, steps))
    assert free[:, 1].mean().item() == pytest.approx(0.0, abs=0.15)
    assert torch.equal(noise, before)


def test_the_masked_mean_is_over_valid_steps_alone():
    """Two steps of two numbers are valid of eight; the others hold what would show, and get no gradient."""
    values = torch.full((2, 2, 2), float("nan"))
    values[0, 0] = torch.tensor([1.0, 2.0])
    values[1, 1] = torch.tensor([3.0, 6.0])
    values.requires_grad_()
    mask = torch.tensor([[True, False], [False, True]])
    mean = masked_mean(values, mask)
    assert mean.item() == 3.0
    mean.backward()
    assert values.grad is not None
    assert torch.equal(values.grad, 0.25 * mask[:, :, None].expand(2, 2, 2))
    assert masked_mean(values, torch.zeros_like(mask)).item() == 0.0
