"""Learning from labelled states: one optimiser step on the samples of many bodies, and the running mean of the weights.

Bodies are independent until their gradients are added, so each is computed by itself, several at once on threads of
their own; the sums are made in the order of the head's table, so that the result does not depend on the number of
threads. Every body's loss is its mean over its own valid actions, weighed by its share of the batch: many joints or
long chunks weigh no more, a body with two tasks weighs as two.

All that is random in step n follows from seed, n and the body's name; nothing is carried from step to step. Knows
nothing of where samples come from, of files and of simulators.

Axes: B batch, T history, S state, H action horizon, A action.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.action_head import ActionHead
from distill.batch import Demonstration, Observation
from distill.dataset.windows import Windows
from distill.encoder import ScratchEncoder
from distill.train_config import DistillConfig
from tasks.errors import UserError


def train_only(head: ActionHead, encoder: ScratchEncoder, bodies: Iterable[str], trunk: bool) -> None:
    """Let gradients reach the adapters of some bodies, and with `trunk` what all bodies share: transformer, positions
    and the reader of words. All else stays as it is, bit for bit."""
    wanted = set(bodies)
    for parameter in (*head.parameters(), *encoder.parameters()):
        parameter.requires_grad_(trunk)
    for name, adapter in head.adapters.items():
        adapter.requires_grad_(name in wanted)


def learning_rate(step: int, config: DistillConfig) -> float:
    """Of the step after `step` steps: rises along a line, then falls along a cosine to 0 at the end."""
    warmup = max(1, round(config.warmup_share * config.steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, config.steps - warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))


class Learner:
    """Head, encoder, optimiser and the running mean of the weights."""

    def __init__(self, head: ActionHead, encoder: ScratchEncoder, config: DistillConfig, threads: int = 1) -> None:
        """head and encoder are trained in place, as far as their parameters take gradients. Sets torch's own threads
        to one."""
        torch.set_num_threads(1)
        self.config = config
        self.head, self.encoder = head.to(config.device).train(), encoder.to(config.device).train()
        self.steps = 0
        """Steps so far."""
        everything = [*head.named_parameters(prefix="head"), *encoder.named_parameters(prefix="encoder")]
        self._trained = [parameter for _, parameter in everything if parameter.requires_grad]
        if not self._trained:
            raise UserError("nothing is left to train: all parameters are frozen.")
        self.optimizer = torch.optim.AdamW(
            self._trained,
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._mean = [parameter.detach().clone() for parameter in self._trained]
        self._threads = _Threads(threads if config.device == "cpu" else 1)

    def learn(self, batch: Mapping[str, Windows]) -> dict[str, Tensor]:
        """One step on the samples of some embodiments.

        Returns:
            Embodiment -> its loss, before the step.

        Raises:
            UserError: a loss or a gradient is not finite; the weights are those before the step.
        """
        names = sorted(batch, key=self.head.table.place)
        total = sum(len(batch[name].state) for name in names)
        # The largest first: it would be waited for if it came last.
        order = sorted(names, key=lambda name: -len(batch[name].state))
        found = dict(zip(order, self._threads.map(lambda name: self._gradients(name, batch[name]), order), strict=True))
        gradients: list[Tensor | None] = [None] * len(self._trained)
        for name in names:
            share = len(batch[name].state) / total
            for place, gradient in enumerate(found[name][1]):
                if gradient is not None:
                    before = gradients[place]
                    gradients[place] = share * gradient if before is None else before.add_(gradient, alpha=share)
        self._apply(gradients)
        return {name: found[name][0] for name in names}

    def student(self) -> tuple[ActionHead, ScratchEncoder]:
        """Copies of head and encoder with the running mean of the weights, on the device, in evaluation mode."""
        current = [parameter.detach().clone() for parameter in self._trained]
        try:
            self._put(self._mean)
            head, encoder = copy.deepcopy(self.head), copy.deepcopy(self.encoder)
        finally:
            self._put(current)
        for module in (head, encoder):
            module.eval().requires_grad_(False)
        return head, encoder

    def state_dict(self) -> dict[str, Any]:
        """What to save for `load_state_dict`."""
        return {
            "steps": self.steps,
            "head": self.head.state_dict(),
            "encoder": self.encoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "mean": self._mean,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another learner was. Raises UserError if it had other bodies or sizes."""
        try:
            self.head.load_state_dict(state["head"])
            self.encoder.load_state_dict(state["encoder"])
            self.optimizer.load_state_dict(state["optimizer"])
            if [one.shape for one in state["mean"]] != [one.shape for one in self._mean]:
                raise ValueError("other parameters are trained")
            self._mean = [one.clone().to(self.config.device) for one in state["mean"]]
            self.steps = int(state["steps"])
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"the saved state is of another student ({reason}); start anew.") from None

    def _gradients(self, name: str, windows: Windows) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """A body's loss, detached, and the gradient of each trained parameter; None where it has no part."""
        config = self.config
        device = torch.device(config.device)
        seed = np.random.SeedSequence([config.seed, self.steps, zlib.crc32(name.encode())]).generate_state(1)[0]
        generator = torch.Generator(device=device).manual_seed(int(seed))
        # Threads other than the main one have neither gradients' nor autocast's state of it.
        with torch.enable_grad(), torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            samples = {name: demonstration(windows, self.encoder, device)}
            loss, _ = self.head.loss(samples, generator=generator)
        return loss.detach(), torch.autograd.grad(loss, self._trained, allow_unused=True)

    def _apply(self, gradients: Sequence[Tensor | None]) -> None:
        config = self.config
        present = [gradient for gradient in gradients if gradient is not None]
        norm = torch.nn.utils.get_total_norm(present)
        if not bool(norm.isfinite()):
            raise UserError(
                f"step {self.steps + 1}: the gradient is not finite; lower learning_rate, now {config.learning_rate:g}."
            )
        factor = (config.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        for parameter, gradient in zip(self._trained, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient.mul_(factor)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, config)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        # Early means forget the first weights sooner, as in torch_ema.
        decay = min(config.ema_decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self._mean, self._trained, 1.0 - decay)

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self._trained, values, strict=True):
                parameter.copy_(value)


def demonstration(windows: Windows, encoder: nn.Module, device: torch.device) -> Demonstration:
    """Samples as a head takes them, their instructions encoded."""
    distinct = list(dict.fromkeys(windows.instructions))
    # One instruction for all: its keys and values are then made once.
    context, mask = encoder(distinct if len(distinct) == 1 else windows.instructions)
    seen = Observation(windows.state.to(device), context, mask, windows.state_mask.to(device))
    return Demonstration(seen, windows.actions.to(device), windows.action_mask.to(device))


class _Threads:
    """The calling thread alone, or `count` others with one intra-operation thread of torch's each."""

    def __init__(self, count: int) -> None:
        self._pool = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, "bodies", initializer=partial(torch.set_num_threads, 1))

    def map(self, function: Any, items: Sequence[Any]) -> list[Any]:
        """function(item) for all items, in their order."""
        return list(map(function, items) if self._pool is None else self._pool.map(function, items))
