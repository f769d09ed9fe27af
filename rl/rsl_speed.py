"""Parts of rsl_rl made cheaper on a CPU, equal in what they compute.

rsl_rl draws one permutation per update and gathers every minibatch anew in every epoch; `ShuffledStorage`
gathers once and hands out views. Its Gaussian expands the noise to (B, A) and takes logarithms of all of it
for each of log-probability, entropy and divergence; `DiagonalGaussian` works on the (A,) noise that it is.
`split_rows` puts the rows of a minibatch on several threads, each with its whole forward and backward pass: torch's
own threads meet after every operation, which on small networks costs what they gain.
Axes: B samples, A action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, TypeVar

import torch
from rsl_rl.modules.distribution import GaussianDistribution
from rsl_rl.storage import RolloutStorage
from torch import Tensor, nn

LOG_SQRT_2_PI = 0.5 * math.log(2.0 * math.pi)

MIN_ROWS = 512
"""Fewer rows than this are not worth another thread."""

T = TypeVar("T")


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


def split_rows(layers: nn.Sequential, threads: int) -> nn.Sequential:
    """`layers` with the same parameters and names; training passes put the rows of (B, I) on `threads` threads."""
    # Not named_children(): rsl_rl uses one activation object for all layers, and that lists it once.
    return RowSplit(list(layers), threads) if threads > 1 else layers


class RowSplit(nn.Sequential):
    """A sequence of layers that treat every row by itself, with the rows of a training pass split over threads.

    Use it with one intra-operation thread (`torch.set_num_threads(1)`), or torch's threads fight with these.
    """

    def __init__(self, layers: Sequence[nn.Module], threads: int) -> None:
        super().__init__(*layers)
        self._threads = _Threads(threads)

    def forward(self, input: Tensor) -> Tensor:
        """Rows (B, I) to rows (B, O). Rows that need a gradient themselves, or none, or are few, are not split."""
        parts = min(self._threads.count, len(input) // MIN_ROWS)
        if parts < 2 or input.requires_grad or not torch.is_grad_enabled():
            return super().forward(input)
        output: Any = _SplitPass.apply(super().forward, self._threads, parts, input, *self.parameters())
        return output


class _SplitPass(torch.autograd.Function):
    """Forward and backward of a function of rows, whose graph lives in parts."""

    @staticmethod
    def forward(
        ctx: Any, layers: Callable[[Tensor], Tensor], threads: _Threads, parts: int, rows: Tensor, *parameters: Tensor
    ) -> Tensor:
        def run(part: Tensor) -> Tensor:
            with torch.enable_grad():  # of each thread its own; autograd has switched it off in this one
                return layers(part)

        outputs = threads.map(run, rows.chunk(parts))
        ctx.threads, ctx.outputs, ctx.parameters = threads, outputs, parameters
        return torch.cat([output.detach() for output in outputs])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        def run(part: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
            return torch.autograd.grad(part[0], ctx.parameters, part[1])

        pieces = gradients[0].split([len(output) for output in ctx.outputs])
        of_parts = ctx.threads.map(run, list(zip(ctx.outputs, pieces, strict=True)))
        ctx.outputs = None  # the graph is spent
        return None, None, None, None, *(torch.stack(each).sum(dim=0) for each in zip(*of_parts, strict=True))


class _Threads:
    """The calling thread and count - 1 others, each with one intra-operation thread of torch's."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._others = ThreadPoolExecutor(count - 1, "rows", initializer=partial(torch.set_num_threads, 1))

    def map(self, function: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
        """function(item) for at most `count` items, at once; an exception is raised when all have ended."""
        futures = [self._others.submit(function, item) for item in items[1:]]
        try:
            first = function(items[0])
        finally:
            wait(futures)
        return [first, *(future.result() for future in futures)]
