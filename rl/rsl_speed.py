"""Two parts of rsl_rl made cheaper on a CPU, equal in what they compute.

rsl_rl draws one permutation per update and gathers every minibatch anew in every epoch; `ShuffledStorage`
gathers once and hands out views. Its Gaussian expands the noise to (B, A) and takes logarithms of all of it
for each of log-probability, entropy and divergence; `DiagonalGaussian` works on the (A,) noise that it is.
Axes: B samples, A action.
"""

from __future__ import annotations

import math
from collections.abc import Generator

import torch
from rsl_rl.modules.distribution import GaussianDistribution
from rsl_rl.storage import RolloutStorage
from torch import Tensor

LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)


class ShuffledStorage(RolloutStorage):
    """A rollout storage whose minibatches are slices of data that was shuffled once per update."""

    def mini_batch_generator(
        self, num_mini_batches: int, num_epochs: int = 8
    ) -> Generator[RolloutStorage.Batch, None, None]:
        """Yield the minibatches of rsl_rl's storage for the same generator state, in the same order."""
        size = self.num_envs * self.num_transitions_per_env // num_mini_batches
        order = torch.randperm(num_mini_batches * size, device=self.device)
        assert self.distribution_params is not None
        observations = self.observations.flatten(0, 1)[order]
        fields = {
            name: getattr(self, source).flatten(0, 1)[order]
            for name, source in (
                ("actions", "actions"),
                ("values", "values"),
                ("returns", "returns"),
                ("old_actions_log_prob", "actions_log_prob"),
                ("advantages", "advantages"),
            )
        }
        params = [p.flatten(0, 1)[order] for p in self.distribution_params]
        batches = [
            RolloutStorage.Batch(
                observations=observations[start : start + size],  # type: ignore
                old_distribution_params=tuple(p[start : start + size] for p in params),
                **{name: value[start : start + size] for name, value in fields.items()},
            )
            for start in range(0, num_mini_batches * size, size)
        ]
        for _ in range(num_epochs):
            yield from batches


class DiagonalGaussian(GaussianDistribution):
    """A Gaussian over actions (B, A) whose noise (A,) does not depend on the state; its logarithm is learnt.

    The logarithm, because a plainly learnt deviation can step below zero, where it has no gradient.
    """

    def __init__(self, output_dim: int, init_std: float = 1.0) -> None:
        super().__init__(output_dim, init_std=init_std, std_type="log")
        self._mean = torch.zeros(0)
        self._log_std = torch.zeros(0)

    def update(self, mlp_output: Tensor) -> None:
        """Take the means (B, A)."""
        self._mean = mlp_output
        self._log_std = self.log_std_param.clamp(*self.log_std_range)

    def sample(self) -> Tensor:
        """Draw actions (B, A)."""
        with torch.no_grad():
            return torch.addcmul(self._mean, self._log_std.exp(), torch.randn_like(self._mean))

    @property
    def mean(self) -> Tensor:
        """Means (B, A)."""
        return self._mean

    @property
    def std(self) -> Tensor:
        """Standard deviations, (A,) expanded to (B, A)."""
        return self._log_std.exp().expand_as(self._mean)

    @property
    def entropy(self) -> Tensor:
        """Entropy in nats, the same for all samples, (B,)."""
        entropy = (self._log_std + 0.5 + LOG_SQRT_2_PI).sum()
        return entropy.expand(self._mean.shape[:-1])

    def log_prob(self, outputs: Tensor) -> Tensor:
        """Log density of actions (B, A), (B,)."""
        scaled = (outputs - self._mean) * (-self._log_std).exp()
        return -0.5 * scaled.square().sum(dim=-1) - (self._log_std + LOG_SQRT_2_PI).sum()

    def kl_divergence(self, old_params: tuple[Tensor, ...], new_params: tuple[Tensor, ...]) -> Tensor:
        """KL(old || new) from (mean, std) pairs of (B, A), (B,). Each std is equal over the samples."""
        (old_mean, old_std), (new_mean, new_std) = old_params, new_params
        old_std, new_std = old_std[0], new_std[0]
        constant = (new_std.log() - old_std.log() + 0.5 * (old_std / new_std).square() - 0.5).sum()
        return 0.5 * ((old_mean - new_mean) / new_std).square().sum(dim=-1) + constant
