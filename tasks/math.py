"""Quaternions and frames: tensors in, tensors out.

Quaternions are (..., 4), w first, as in MuJoCo; vectors are (..., 3). Formulas: J. Sola, "Quaternion
kinematics for the error-state Kalman filter", arXiv:1711.02508, sections 1 and 2.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def quat_rotate(q: Tensor, v: Tensor) -> Tensor:
    """Rotate v from the body frame into the world frame. q (..., 4) unit, v (..., 3) -> (..., 3)."""
    w, xyz = q[..., :1], q[..., 1:]
    t = 2.0 * torch.linalg.cross(xyz, v)
    return v + w * t + torch.linalg.cross(xyz, t)


def quat_rotate_inverse(q: Tensor, v: Tensor) -> Tensor:
    """Rotate v from the world frame into the body frame. q (..., 4) unit, v (..., 3) -> (..., 3)."""
    w, xyz = q[..., :1], q[..., 1:]
    t = 2.0 * torch.linalg.cross(xyz, v)
    return v - w * t + torch.linalg.cross(xyz, t)


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product a b: first the rotation b, then a. (..., 4), (..., 4) -> (..., 4)."""
    aw, av = a[..., :1], a[..., 1:]
    bw, bv = b[..., :1], b[..., 1:]
    w = aw * bw - (av * bv).sum(dim=-1, keepdim=True)
    return torch.cat([w, aw * bv + bw * av + torch.linalg.cross(av, bv)], dim=-1)


def quat_conjugate(q: Tensor) -> Tensor:
    """The inverse rotation of a unit quaternion. (..., 4) -> (..., 4)."""
    return torch.cat([q[..., :1], -q[..., 1:]], dim=-1)


def quat_from_axis_angle(axis: Tensor, angle: Tensor) -> Tensor:
    """Rotation by angle (...,) in radians about a unit axis (..., 3) -> (..., 4)."""
    half = 0.5 * angle.unsqueeze(-1)
    return torch.cat([torch.cos(half), torch.sin(half) * axis], dim=-1)


def quat_axis(q: Tensor, axis: int) -> Tensor:
    """World direction of a body axis (0 x, 1 y, 2 z): one column of the rotation matrix. (..., 4) -> (..., 3)."""
    w, x, y, z = q.unbind(dim=-1)
    if axis == 0:
        columns = (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y))
    elif axis == 1:
        columns = (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x))
    elif axis == 2:
        columns = (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y))
    else:
        raise ValueError(f"axis is {axis}; expected 0, 1 or 2.")
    return torch.stack(columns, dim=-1)


def quat_to_matrix(q: Tensor) -> Tensor:
    """Rotation matrix from body to world of a unit quaternion. (..., 4) -> (..., 3, 3).

    Columns are the body's axes in the world, rows the world's axes in the body. A handful of operations, where
    `quat_axis` and `quat_rotate` take a dozen each.
    """
    a, b, c, d, ab_weight, cd_weight, identity = _matrix_terms(q.device, q.dtype)
    ab = q.index_select(-1, a) * q.index_select(-1, b)
    cd = q.index_select(-1, c) * q.index_select(-1, d)
    return identity.addcmul(ab, ab_weight).addcmul(cd, cd_weight).unflatten(-1, (3, 3))


def matrix_rotate_inverse(m: Tensor, v: Tensor) -> Tensor:
    """Rotate v from the world into the body frame of the rotation matrix m. (..., 3, 3), (..., 3) -> (..., 3)."""
    x, y, z = v.split(1, dim=-1)
    return (x * m[..., 0, :]).addcmul(y, m[..., 1, :]).addcmul(z, m[..., 2, :])


_MATRIX_ENTRIES = (
    ("yy", -2, "zz", -2), ("xy", 2, "wz", -2), ("xz", 2, "wy", 2),
    ("xy", 2, "wz", 2), ("xx", -2, "zz", -2), ("yz", 2, "wx", -2),
    ("xz", 2, "wy", -2), ("yz", 2, "wx", 2), ("xx", -2, "yy", -2),
)  # fmt: skip
"""Rotation matrix minus identity, row by row: each entry is two weighted products of components."""


@functools.cache
def _matrix_terms(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """`_MATRIX_ENTRIES` as tensors (9,): the components' places, four of them, two weights; and the identity."""
    places = [
        torch.tensor(["wxyz".index(entry[product][factor]) for entry in _MATRIX_ENTRIES], device=device)
        for product, factor in ((0, 0), (0, 1), (2, 0), (2, 1))
    ]
    weights = [torch.tensor([entry[k] for entry in _MATRIX_ENTRIES], dtype=dtype, device=device) for k in (1, 3)]
    return (*places, *weights, torch.eye(3, dtype=dtype, device=device).flatten())


def quat_yaw(q: Tensor) -> Tensor:
    """Heading angle about world z, rad, in (-pi, pi]. (..., 4) -> (...,)."""
    w, x, y, z = q.unbind(dim=-1)
    return torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def quat_to_rotation_vector(q: Tensor) -> Tensor:
    """Axis times angle in rad of a unit quaternion's rotation, the shorter way round: (..., 4) -> (..., 3)."""
    sine = torch.linalg.norm(q[..., 1:], dim=-1, keepdim=True).clamp(max=1.0)
    # angle / sine tends to 2 where both vanish.
    scale = torch.where(sine > 1e-6, 2.0 * torch.asin(sine) / sine.clamp(min=1e-6), 2.0)
    return torch.where(q[..., :1] < 0.0, -1.0, 1.0) * scale * q[..., 1:]


@functools.cache
def constant(values: tuple, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers (nested tuples) as a tensor that is made once for a device and shared: do not write into it. To make it
    anew in every step would have the host wait for a GPU each time."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def uniform(shape: tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    """Uniform float32 samples in [low, high) from a seeded generator, on the generator's device."""
    return torch.rand(shape, generator=rng, device=rng.device) * (high - low) + low
