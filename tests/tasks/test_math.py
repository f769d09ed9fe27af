"""Quaternion functions against MuJoCo's own C functions and rotation matrices."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch

from tasks import math as tm

RNG = np.random.default_rng(0)
COUNT = 50
A = RNG.normal(size=(COUNT, 4))
A /= np.linalg.norm(A, axis=1, keepdims=True)
B = RNG.normal(size=(COUNT, 4))
B /= np.linalg.norm(B, axis=1, keepdims=True)
V = RNG.normal(size=(COUNT, 3))


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array)


def matrices(quats: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n, 3, 3) by mju_quat2Mat."""
    flat = np.zeros((len(quats), 9))
    for q, m in zip(quats, flat, strict=True):
        mujoco.mju_quat2Mat(m, q)
    return flat.reshape(-1, 3, 3)


def test_rotate_matches_mujoco():
    expected = np.zeros_like(V)
    for out, q, v in zip(expected, A, V, strict=True):
        mujoco.mju_rotVecQuat(out, v, q)
    np.testing.assert_allclose(tm.quat_rotate(tensor(A), tensor(V)).numpy(), expected, atol=1e-12)


def test_rotate_inverse_is_the_transposed_matrix():
    expected = np.einsum("nji,nj->ni", matrices(A), V)
    np.testing.assert_allclose(tm.quat_rotate_inverse(tensor(A), tensor(V)).numpy(), expected, atol=1e-12)


def test_multiply_matches_mujoco():
    expected = np.zeros_like(A)
    for out, a, b in zip(expected, A, B, strict=True):
        mujoco.mju_mulQuat(out, a, b)
    np.testing.assert_allclose(tm.quat_multiply(tensor(A), tensor(B)).numpy(), expected, atol=1e-12)


def test_conjugate_matches_mujoco():
    expected = np.zeros_like(A)
    for out, a in zip(expected, A, strict=True):
        mujoco.mju_negQuat(out, a)
    np.testing.assert_array_equal(tm.quat_conjugate(tensor(A)).numpy(), expected)


def test_axis_angle_matches_mujoco():
    axes = V / np.linalg.norm(V, axis=1, keepdims=True)
    angles = RNG.uniform(-6.0, 6.0, size=COUNT)
    expected = np.zeros_like(A)
    for out, axis, angle in zip(expected, axes, angles, strict=True):
        mujoco.mju_axisAngle2Quat(out, axis, angle)
    np.testing.assert_allclose(tm.quat_from_axis_angle(tensor(axes), tensor(angles)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axis_is_a_column_of_the_matrix(axis):
    np.testing.assert_allclose(tm.quat_axis(tensor(A), axis).numpy(), matrices(A)[:, :, axis], atol=1e-12)


def test_matrix_is_mujocos():
    np.testing.assert_allclose(tm.quat_to_matrix(tensor(A)).numpy(), matrices(A), atol=1e-12)
    assert tm.quat_to_matrix(tensor(A[:12]).reshape(3, 4, 4).float()).shape == (3, 4, 3, 3)
    expected = np.einsum("nji,nj->ni", matrices(A), V)
    rotated = tm.matrix_rotate_inverse(tensor(matrices(A)), tensor(V))
    np.testing.assert_allclose(rotated.numpy(), expected, atol=1e-12)


def test_axis_refuses_a_fourth():
    with pytest.raises(ValueError, match="axis is 3"):
        tm.quat_axis(tensor(A), 3)


def test_yaw_is_the_heading_of_the_forward_axis():
    forward = matrices(A)[:, :, 0]
    np.testing.assert_allclose(tm.quat_yaw(tensor(A)).numpy(), np.arctan2(forward[:, 1], forward[:, 0]), atol=1e-12)
    quarter_turn = torch.tensor([math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)])
    assert tm.quat_yaw(quarter_turn).item() == pytest.approx(math.pi / 2)


def test_leading_axes_are_free():
    q = tensor(A[:12]).reshape(3, 4, 4)
    v = tensor(V[:12]).reshape(3, 4, 3)
    flat = tm.quat_rotate(tensor(A[:12]), tensor(V[:12]))
    torch.testing.assert_close(tm.quat_rotate(q, v).reshape(12, 3), flat)


def test_uniform_fills_its_range_and_follows_its_seed():
    sample = tm.uniform((20000,), -2.0, 5.0, torch.Generator().manual_seed(3))
    again = tm.uniform((20000,), -2.0, 5.0, torch.Generator().manual_seed(3))
    assert torch.equal(sample, again) and sample.dtype == torch.float32
    assert -2.0 <= sample.min() < -1.99 and 4.99 < sample.max() < 5.0
    # Mean and deviation of a uniform law: (a + b) / 2 and (b - a) / sqrt(12); the bounds are four standard errors.
    assert sample.mean().item() == pytest.approx(1.5, abs=4 * 7 / math.sqrt(12 * 20000))
    assert sample.std().item() == pytest.approx(7 / math.sqrt(12), abs=0.03)
