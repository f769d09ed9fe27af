"""The action head: states of one body and context tokens in, a chunk of that body's actions out.

One transformer for all embodiments, an adapter (state encoder, action encoder, action decoder) for each. States and
actions go in and come out in the embodiment's own units; the head holds the scales. It is trained by flow matching, or
by plain L1 regression of the chunk on the same transformer (arXiv 2502.19645 finds the two equal on LIBERO), behind the
same interface.

Padding changes no valid output by a single bit, neither by what it holds nor by how much of it there is: inputs are
first brought to the embodiment's own sizes, what is masked is zeroed and attended to by nothing, and a context's valid
tokens are moved to the front and filled up to `context_tokens`. An embodiment's outputs do not depend on which others
are there.

Knows nothing of instructions, images, simulators, optimisers or files.

Axes: B batch, T history, S state, H action horizon, A action, L context tokens, C context width, D width.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.batch import Demonstration, MixedBatch, Observation, merge, split
from distill.config import HeadConfig
from distill.embodiments import Embodiment, EmbodimentTable
from distill.flow import draw_times, euler, guided_euler, interpolate, masked_mean
from distill.layers import Adapter, KeysValues, Modulation, Trunk, sinusoidal_code
from distill.normalize import Normalizer
from tasks.errors import UserError


@dataclass(frozen=True)
class Guide:
    """A chunk that the next one is held to."""

    actions: Tensor
    """(B, H, A) in the embodiment's units."""
    weights: Tensor
    """(H,) or (B, H), from 0 (free) to 1 (settled)."""


@dataclass(frozen=True)
class _Read:
    """An observation as the transformer takes it; the same for every Euler step."""

    states: Tensor  # (B, T, D)
    states_mask: Tensor | None  # (B, T)
    context: tuple[list[KeysValues], Tensor]


@dataclass(frozen=True)
class _Moment:
    """A flow time as the transformer takes it."""

    modulations: list[Modulation]
    bias: Tensor  # of the action encoder: (D,) or (B, 1, D)
    weight: Tensor  # of the same, (D, A)


class ActionHead(nn.Module):
    """Flow-matching or regression head for the embodiments of a table."""

    def __init__(self, config: HeadConfig, table: EmbodimentTable | None = None, seed: int = 0) -> None:
        """Initial weights of the transformer depend on config and seed, those of an adapter on its embodiment's name as
        well, and on nothing else. Raises UserError for an embodiment that does not fit the config."""
        super().__init__()
        self.config = config
        self.seed = seed
        self.table = EmbodimentTable()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.trunk = Trunk(config.width, config.layers, config.heads, config.feedforward, config.context_width)
            self.action_position = nn.Parameter(0.02 * torch.randn(1, config.horizon, config.width))
            self.state_position = nn.Parameter(0.02 * torch.randn(1, config.history, config.width))
        self.adapters = nn.ModuleDict()
        self.state_scales = nn.ModuleDict()
        self.action_scales = nn.ModuleDict()
        for embodiment in table or ():
            self.add(embodiment)

    def add(self, embodiment: Embodiment) -> None:
        """Give one more embodiment an adapter; all other weights stay as they are.

        Raises UserError if the name is taken, or its horizon or history is longer than the config's.
        """
        config = self.config
        for name in ("horizon", "history"):
            asked, most = getattr(embodiment, name), getattr(config, name)
            if asked > most:
                raise UserError(
                    f"embodiment '{embodiment.name}': {name} is {asked}, the head was made for at most {most}: "
                    f"lower it, or make a head with a longer {name}."
                )
        self.table = self.table.with_new(embodiment)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed ^ zlib.crc32(embodiment.name.encode()))
            adapter = Adapter(embodiment.state_size, embodiment.action_size, config.width, config.state_hidden,
                              config.decoder_hidden)  # fmt: skip
        device = self.action_position.device
        self.adapters[embodiment.name] = adapter.to(device)
        states = Normalizer(embodiment.state_statistics, embodiment.state_normalization)
        actions = Normalizer(embodiment.action_statistics, embodiment.action_normalization)
        self.state_scales[embodiment.name] = states.to(device)
        self.action_scales[embodiment.name] = actions.to(device)

    def train_only(self, name: str, trunk: bool = False) -> None:
        """Let gradients reach one embodiment's adapter, and the transformer where `trunk`; nothing else.

        With the transformer (and the context's encoder) frozen, all other embodiments stay as they are, bit for bit.
        """
        self.table.place(name)
        for parameter in self.parameters():
            parameter.requires_grad_(trunk)
        for other, adapter in self.adapters.items():
            adapter.requires_grad_(other == name)

    def loss(
        self,
        demonstrations: Mapping[str, Demonstration],
        *,
        generator: torch.Generator | None = None,
        noise: Mapping[str, Tensor] | None = None,
        times: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over embodiments of each one's mean over its valid actions: many joints or long chunks weigh no more.

        Args:
            demonstrations: Embodiment -> its samples; not empty. What goes beyond its own sizes is padding.
            generator: Draws times and noise, embodiment by embodiment in the table's order; on the head's device.
            noise: Embodiment -> normalised noise (B, H, A) to use instead. For flow matching alone, like `times`.
            times: Embodiment -> flow times (B,) to use instead.

        Returns:
            The loss, and each embodiment's own, detached. Flow matching: squared error of the velocity; regression:
            absolute error; both of normalised actions.

        Raises:
            UserError: an unknown embodiment, or shapes that do not fit it.
        """
        if not demonstrations:
            raise UserError("the loss needs the demonstrations of at least one embodiment, got none.")
        losses = {}
        for name in sorted(demonstrations, key=self.table.place):
            given_noise = noise[name] if noise is not None else None
            given_times = times[name] if times is not None else None
            losses[name] = self._loss_of(name, demonstrations[name], generator, given_noise, given_times)
        return torch.stack(list(losses.values())).mean(), {name: value.detach() for name, value in losses.items()}

    def mixed_loss(
        self, batch: MixedBatch, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`loss` of a batch that mixes embodiments."""
        parts = split(batch, self.table)
        return self.loss({name: samples for name, (_, samples) in parts.items()}, generator=generator)

    @torch.no_grad()
    def sample(
        self,
        name: str,
        observation: Observation,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        steps: int | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """A chunk of actions (B, H, A) of embodiment `name`, in its units and at its own sizes.

        Args:
            name: The embodiment.
            observation: What it sees; columns beyond its state_size and states beyond its history are padding.
            generator: Draws the noise; on the head's device.
            noise: Normal noise (B, H, A) to start from instead.
            steps: Euler steps; None: the config's. Regression takes one step whatever is said.
            guide: A chunk to be held to. Regression pays it no heed: whoever carries chunks out blends them.

        Raises:
            UserError: an unknown embodiment, or shapes that do not fit it.
        """
        embodiment = self.table[name]
        read = self._read(name, observation, None)
        shape = (observation.state.shape[0], embodiment.horizon, embodiment.action_size)
        steps = self.config.sampling_steps if steps is None else steps
        if steps < 1:
            raise UserError(f"sampling steps are {steps}, expected at least 1.")
        scale = self.action_scales[name]
        if self.config.objective == "regression":
            x = self.action_position.new_zeros(shape)
            return scale.invert(self._predict(name, read, x, self._start(name), None))
        if noise is None:
            noise = torch.randn(shape, generator=generator, device=self.action_position.device)
        elif tuple(noise.shape) != shape:
            raise UserError(f"noise for '{name}' has shape {tuple(noise.shape)}, expected {shape}.")
        noise = noise.contiguous()  # a product's last bit may depend on strides
        times = torch.arange(steps, device=noise.device, dtype=noise.dtype) / steps
        moments = self._moments(name, times, shared=True)

        def velocity(x: Tensor, step: int) -> Tensor:
            return self._predict(name, read, x, moments[step], None)

        if guide is None:
            return scale.invert(euler(velocity, noise, steps))
        target = scale(self._fitted(name, "guide", guide.actions, shape))
        return scale.invert(guided_euler(velocity, noise, steps, target, guide.weights))

    def sample_mixed(self, batch: MixedBatch, *, generator: torch.Generator | None = None,
                     noise: Tensor | None = None, steps: int | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Chunks (B, H, A) for a batch that mixes embodiments, in its order, and a mask (B, H, A) of what there is.

        The batch's actions are not looked at. noise: (B, H, A) of the largest sizes or more.
        """
        parts = {}
        for name, (rows, samples) in split(batch, self.table).items():
            embodiment = self.table[name]
            own = None if noise is None else noise[rows, : embodiment.horizon, : embodiment.action_size]
            chunk = self.sample(name, samples.observation, generator=generator, noise=own, steps=steps)
            parts[name] = (rows, chunk)
        return merge(parts, len(batch.places))

    def _loss_of(self, name: str, demonstration: Demonstration, generator: torch.Generator | None,
                 noise: Tensor | None, times: Tensor | None) -> Tensor:  # fmt: skip
        embodiment, config = self.table[name], self.config
        size = demonstration.observation.state.shape[0]
        shape = (size, embodiment.horizon, embodiment.action_size)
        given = self._fitted(name, "actions", demonstration.actions, shape)
        mask = _mask_or_all(demonstration.action_mask, given[:, :, 0], "action_mask", exact=False)[:, : shape[1]]
        data = _zeroed(self.action_scales[name](given), mask)
        read = self._read(name, demonstration.observation, generator)
        if config.objective == "regression":
            predicted = self._predict(name, read, torch.zeros_like(data), self._start(name), mask)
            return masked_mean((predicted - data).abs(), mask)
        if times is None:
            times = draw_times(
                size, config.time_alpha, config.time_scale, generator=generator, device=data.device, dtype=data.dtype
            )
        if noise is None:
            noise = torch.randn(shape, generator=generator, device=data.device, dtype=data.dtype)
        x, target = interpolate(noise, data, times)
        (moment,) = self._moments(name, times, shared=False)
        return masked_mean((self._predict(name, read, x, moment, mask) - target).square(), mask)

    def _moments(self, name: str, times: Tensor, shared: bool) -> list[_Moment]:
        """What the transformer needs of flow times: of each of (n,) that holds for all samples, or of samples' own (B,)
        together."""
        codes = sinusoidal_code(times, self.config.width)
        weight, biases = self.adapters[name].action_encoder.folded(codes)
        modulations = self.trunk.modulations(codes, shared)
        each = biases.unbind(0) if shared else (biases[:, None],)
        return [_Moment(*parts, weight) for parts in zip(modulations, each, strict=True)]

    def _start(self, name: str) -> _Moment:
        """Time 0, for all samples."""
        return self._moments(name, self.action_position.new_zeros(1), shared=True)[0]

    def _predict(self, name: str, read: _Read, x: Tensor, moment: _Moment, mask: Tensor | None) -> Tensor:
        """What the transformer says of normalised actions x (B, H, A). mask: valid steps (B, H); None: all."""
        adapter, horizon = self.adapters[name], x.shape[1]
        tokens = adapter.action_encoder(x, moment.weight, moment.bias) + self.action_position[:, :horizon]
        whole = None
        if mask is not None or read.states_mask is not None:
            parts = ((read.states, read.states_mask), (tokens, mask))
            whole = torch.cat([_mask_or_all(given, part[:, :, 0], "mask", exact=True) for part, given in parts], dim=1)
        out = self.trunk(torch.cat([read.states, tokens], dim=1), moment.modulations, read.context, whole)
        return adapter.action_decoder(out[:, -horizon:])

    def _read(self, name: str, observation: Observation, generator: torch.Generator | None) -> _Read:
        """Encode states and context. generator: draws the states' noise, in training mode alone."""
        embodiment, config = self.table[name], self.config
        state, mask = self._history(embodiment, observation)
        state = self.state_scales[name](state).clamp(-config.state_clip, config.state_clip)
        if self.training and config.state_noise > 0.0:
            noise = torch.randn(state.shape, generator=generator, device=state.device, dtype=state.dtype)
            state = state + config.state_noise * noise
        states = self.adapters[name].state_encoder(_zeroed(state, mask))
        states = states + self.state_position[:, config.history - embodiment.history :]
        context, context_mask = canonical_context(observation.context, observation.context_mask, config)
        if context.shape[0] not in (1, state.shape[0]):
            raise UserError(
                f"'{name}': {context.shape[0]} contexts for {state.shape[0]} states, expected as many, or one."
            )
        # One state is always valid: then there is nothing to mask, and attention is faster without.
        return _Read(states, mask if embodiment.history > 1 else None, self.trunk.read_context(context, context_mask))

    @staticmethod
    def _history(embodiment: Embodiment, observation: Observation) -> tuple[Tensor, Tensor]:
        """The last states (B, T, S) at the embodiment's own sizes, and their mask (B, T)."""
        state, length = observation.state, embodiment.history
        if state.ndim != 3 or state.shape[1] < 1 or state.shape[2] < embodiment.state_size:
            raise UserError(
                f"'{embodiment.name}': state has shape {tuple(state.shape)}, expected (batch, history, "
                f"{embodiment.state_size}): one row of {embodiment.state_size} numbers for each past step."
            )
        mask = _mask_or_all(observation.state_mask, state[:, :, 0], "state_mask", exact=True)
        state, mask = state[:, -length:, : embodiment.state_size], mask[:, -length:]
        missing = length - state.shape[1]
        if missing:
            state = torch.cat([state.new_zeros(state.shape[0], missing, state.shape[2]), state], dim=1)
            mask = torch.cat([mask.new_zeros(mask.shape[0], missing), mask], dim=1)
        return state, torch.cat([mask[:, :-1], mask.new_ones(mask.shape[0], 1)], dim=1)

    def _fitted(self, name: str, what: str, actions: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """Actions without what goes beyond the embodiment's sizes."""
        sizes = tuple(actions.shape)
        if len(sizes) != 3 or sizes[0] != shape[0] or sizes[1] < shape[1] or sizes[2] < shape[2]:
            raise UserError(f"'{name}': {what} have shape {sizes}, expected {shape}; padding may follow.")
        return actions[:, : shape[1], : shape[2]]


def canonical_context(context: Tensor, mask: Tensor | None, config: HeadConfig) -> tuple[Tensor, Tensor]:
    """Context tokens (B, L, C) with their valid ones at the front in their order, zeros behind, L = context_tokens.

    So it does not matter on which side, where between and how much a context is padded. Raises UserError if its width
    is not the config's, or a sample has more valid tokens than context_tokens.
    """
    if context.ndim != 3 or context.shape[2] != config.context_width:
        raise UserError(
            f"context has shape {tuple(context.shape)}, expected (batch, tokens, {config.context_width}), the head's "
            "context_width."
        )
    length, most = context.shape[1], config.context_tokens
    if mask is None:
        mask = context.new_ones(context.shape[:2], dtype=torch.bool)
    else:
        mask = _mask_or_all(mask, context[:, :, 0], "context_mask", exact=True)
        # Every key is another one, so that any sort gives this order, also an exported graph's.
        order = (torch.arange(length, device=mask.device) + length * (~mask)).argsort(dim=1)
        mask = mask.gather(1, order)
        context = context.gather(1, order[:, :, None].expand(-1, -1, context.shape[2]))
    if length > most:
        longest = int(mask.sum(dim=1).max())
        if longest > most:
            raise UserError(
                f"a context has {longest} valid tokens, the head was made for at most {most}: shorten it, or make a "
                "head with more context_tokens."
            )
        context, mask = context[:, :most], mask[:, :most]
    elif length < most:
        context = torch.cat([context, context.new_zeros(context.shape[0], most - length, context.shape[2])], dim=1)
        mask = torch.cat([mask, mask.new_zeros(mask.shape[0], most - length)], dim=1)
    return _zeroed(context, mask), mask


def _zeroed(values: Tensor, mask: Tensor) -> Tensor:
    """(B, T, X) with zeros where the mask (B, T) is False, whatever stood there."""
    return torch.where(mask[:, :, None], values, values.new_zeros(()))


def _mask_or_all(mask: Tensor | None, like: Tensor, name: str, *, exact: bool) -> Tensor:
    """A mask for (B, T) entries `like`; `exact` False lets it be longer."""
    if mask is None:
        return torch.ones_like(like, dtype=torch.bool)
    fits = mask.ndim == 2 and mask.shape[0] == like.shape[0]
    fits = fits and (mask.shape[1] == like.shape[1] if exact else mask.shape[1] >= like.shape[1])
    if mask.dtype != torch.bool or not fits:
        raise UserError(f"{name} is {mask.dtype} {tuple(mask.shape)}, expected torch.bool {tuple(like.shape)}.")
    return mask
