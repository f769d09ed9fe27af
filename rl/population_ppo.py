"""PPO for K candidates at once: networks as stacked parameters, each candidate learning what it would learn alone.

The algorithm is rsl_rl's `PPO.act`, `compute_returns` and `update` (5.5) with the networks, noise and minibatches of
`rl.rsl_adapter`: the same first weights, draws and order of samples for the same seed, each candidate with a learning
rate, gradient norms, normalisers and a random generator of its own. Sums are taken in another order, so it is equal
to a lone training up to the last bits of a float; these grow with the iterations, as they do between two machines.

Nothing is computed over candidates: every product is a batched one and every sum within a row, and the shapes never
change, so what one candidate does (a NaN, being frozen) cannot change another one by one bit.
On a GPU K candidates take as many kernel launches as one, which is what small networks wait for.

Axes: K candidates, N worlds of each, T steps of a rollout, S samples of one candidate's rollout, B samples of a
minibatch, O observation, A action, P parameters of one candidate (actor, then critic).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from rl.config import PPOConfig
from rl.rsl_adapter import make_actor, make_critic, make_optimizer
from rl.rsl_speed import LOG_SQRT_2_PI

MIN_RATE, MAX_RATE = 1e-5, 1e-2
"""Bounds of the adaptive learning rate, rsl_rl's `PPO.update`."""
BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8
"""torch.optim.Adam's defaults."""
CLIP_EPS = 1e-6
"""Added to a gradient norm before it divides, as in torch.nn.utils.clip_grad_norm_."""


class StackedPPO:
    """K learners.

    Args:
        seeds: K, one a candidate; equal ones give equal first weights and noise.
        num_envs: N.
        steps_per_env: T.
        num_observations: O.
        num_actions: A.
        config: Of all.
        device: Where everything lies.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        num_envs: int,
        steps_per_env: int,
        num_observations: int,
        num_actions: int,
        config: PPOConfig,
        device: str = "cpu",
    ) -> None:
        self.config, self.device, self.steps_per_env = config, torch.device(device), steps_per_env
        self.count = k = len(seeds)
        drawn = [self._draw(seed, num_observations, num_actions) for seed in seeds]
        self.generators = [generator for _, generator in drawn]
        self._layout()
        self.parameters = torch.stack([row for row, _ in drawn]).to(self.device).requires_grad_()
        """(K, P)."""
        self._exp_avg, self._exp_avg_sq = (torch.zeros_like(self.parameters, requires_grad=False) for _ in range(2))
        self._updates = torch.zeros(k, 1, dtype=torch.float64, device=self.device)
        self.learning_rate = torch.full_like(self._updates, config.learning_rate)
        """(K, 1) float64."""
        self._mean = torch.zeros(k, 1, num_observations, device=self.device)
        self._var, self._std = torch.ones_like(self._mean), torch.ones_like(self._mean)
        self._seen = torch.zeros(k, dtype=torch.int64, device=self.device)
        self.noise_std = torch.full((k,), config.init_noise_std, device=self.device)
        """(K,) mean deviation of the noise in the latest minibatch."""
        samples = (k, steps_per_env, num_envs)
        self._raw, self._latents = (torch.zeros(*samples, num_observations, device=self.device) for _ in range(2))
        self._actions, self._means = (torch.zeros(*samples, num_actions, device=self.device) for _ in range(2))
        self._values, self._log_probs, self._rewards = (torch.zeros(samples, device=self.device) for _ in range(3))
        self._returns, self._advantages = (torch.zeros(samples, device=self.device) for _ in range(2))
        self._dones = torch.zeros(samples, dtype=torch.bool, device=self.device)
        self._log_std = torch.zeros(k, 1, num_actions, device=self.device)
        self._step = 0

    def _draw(self, seed: int, num_observations: int, num_actions: int) -> tuple[Tensor, torch.Generator]:
        """Fresh weights (P,) and the generator as a lone training of this seed has them then."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._actor = make_actor(num_observations, num_actions, self.config)
            self._critic = make_critic(num_observations, self.config)
            state = torch.get_rng_state()
        row = parameters_to_vector([*self._actor.parameters(), *self._critic.parameters()]).detach()
        generator = torch.Generator(self.device)
        if self.device.type == "cpu":
            generator.set_state(state)
        else:  # weights are drawn on the CPU; the device's own generator is untouched by that
            generator.manual_seed(seed)
        return row, generator

    def _layout(self) -> None:
        """Where things lie in a row; the two networks are kept for names, shapes and activations alone."""
        named = [*self._actor.named_parameters(), *self._critic.named_parameters()]
        self._shapes = [parameter.shape for _, parameter in named]
        self._sizes = [parameter.numel() for _, parameter in named]
        self._of_actor = len(list(self._actor.parameters()))
        self._noise = [name for name, _ in named].index("distribution.log_std_param")
        assert self._actor.distribution is not None
        self._log_std_range = self._actor.distribution.log_std_range  # type: ignore[union-attr]

    def draw_episode_steps(self, num_envs: int, max_steps: int) -> Tensor:
        """Random points (K, N) of the time limit, at which the first episodes start."""
        return torch.stack(
            [torch.randint(max_steps, (num_envs,), generator=g, device=self.device) for g in self.generators]
        )

    def act(self, observation: Tensor) -> Tensor:
        """Sample actions (K, N, A) for observations (K, N, O), and keep what learning needs of them."""
        step, latent = self._step, self._normalised(observation)
        pieces = self._pieces()
        mean = _forward(self._actor.mlp, self._actor_weights(pieces), latent)
        values = _forward(self._critic.mlp, pieces[self._of_actor :], latent)[..., 0]
        log_std = pieces[self._noise].clamp(*self._log_std_range).unsqueeze(1)
        noise = torch.empty_like(mean)
        for row, generator in zip(noise, self.generators, strict=True):
            torch.randn(row.shape, generator=generator, out=row)
        actions = torch.addcmul(mean, log_std.exp(), noise)
        self._raw[:, step], self._latents[:, step] = observation, latent
        self._actions[:, step], self._means[:, step] = actions, mean
        self._values[:, step], self._log_std = values, log_std
        self._log_probs[:, step] = _log_prob(actions, mean, log_std)
        return actions

    def record(self, reward: Tensor, done: Tensor, time_outs: Tensor) -> None:
        """What came of the actions: (K, N) each. The value of what a time limit cut off is put on its reward."""
        step = self._step
        self._rewards[:, step] = reward + self.config.gamma * (self._values[:, step] * time_outs)
        self._dones[:, step] = done
        self._step += 1

    def compute_returns(self, observation: Tensor) -> None:
        """Returns and normalised advantages of the rollout, which ended at observations (K, N, O)."""
        gamma, lam, values = self.config.gamma, self.config.lam, self._values
        weights = self._pieces()[self._of_actor :]
        following = _forward(self._critic.mlp, weights, self._normalised(observation))[..., 0]
        advantage = torch.zeros_like(following)
        for step in reversed(range(self.steps_per_env)):
            going_on = 1.0 - self._dones[:, step].float()
            delta = self._rewards[:, step] + going_on * gamma * following - values[:, step]
            advantage = delta + going_on * gamma * lam * advantage
            self._returns[:, step] = advantage + values[:, step]
            following = values[:, step]
        advantages = (self._returns - values).flatten(1)
        mean, std = advantages.mean(dim=1, keepdim=True), advantages.std(dim=1, keepdim=True)
        self._advantages.copy_(((advantages - mean) / (std + 1e-8)).view_as(self._advantages))

    def update(self, alive: Tensor) -> dict[str, Tensor]:
        """Learn from the rollout; mean losses, name -> (K,). alive (K,) bool: others keep their weights."""
        config = self.config
        batch = self._shuffled()
        size = batch["actions"].shape[1] // config.num_mini_batches
        sums = dict.fromkeys(("value", "surrogate", "entropy"), torch.zeros(self.count, device=self.device))
        for _ in range(config.num_learning_epochs):
            for start in range(0, config.num_mini_batches * size, size):
                self._skip_noise(size)
                losses, gradient = self._losses({name: x[:, start : start + size] for name, x in batch.items()})
                self._descend(gradient, alive[:, None])
                sums = {name: total + losses[name] for name, total in sums.items()}
        if config.obs_normalization:
            self._normalise(self._raw.flatten(1, 2))
        self._step = 0
        return {name: total / (config.num_learning_epochs * config.num_mini_batches) for name, total in sums.items()}

    def _skip_noise(self, size: int) -> None:
        """rsl_rl samples actions in its update too, and leaves them; later noise of a lone training is what follows.
        On a GPU these launches are not worth it, and the noise is other noise."""
        if self.device.type == "cpu":
            for generator in self.generators:
                torch.randn(size, self._actions.shape[-1], generator=generator)

    def _shuffled(self) -> dict[str, Tensor]:
        """The rollout's samples (K, S, ...) in each candidate's own random order, as many as fill the minibatches."""
        samples = self._values[0].numel()
        used = samples // self.config.num_mini_batches * self.config.num_mini_batches
        orders = [torch.randperm(used, generator=g, device=self.device) for g in self.generators]
        order = torch.cat([row + k * samples for k, row in enumerate(orders)])
        fields = {
            "latents": self._latents,
            "actions": self._actions,
            "means": self._means,
            "values": self._values,
            "returns": self._returns,
            "log_probs": self._log_probs,
            "advantages": self._advantages,
        }
        return {name: x.flatten(0, 2)[order].unflatten(0, (self.count, used)) for name, x in fields.items()}

    def _losses(self, batch: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Losses (K,) of a minibatch, (K, B, ...) each, and their gradient (K, P); sets the learning rates."""
        config, clip = self.config, self.config.clip_param
        pieces = self._pieces()
        mean = _forward(self._actor.mlp, self._actor_weights(pieces), batch["latents"])
        values = _forward(self._critic.mlp, pieces[self._of_actor :], batch["latents"])[..., 0]
        log_std = pieces[self._noise].clamp(*self._log_std_range).unsqueeze(1)
        with torch.no_grad():
            self._adapt(mean, log_std, batch["means"])
            self.noise_std = log_std.exp().mean(dim=(1, 2))
        ratio = torch.exp(_log_prob(batch["actions"], mean, log_std) - batch["log_probs"])
        gain = -batch["advantages"]
        surrogate = torch.max(gain * ratio, gain * torch.clamp(ratio, 1.0 - clip, 1.0 + clip)).mean(dim=1)
        value = (values - batch["returns"]).square()
        if config.use_clipped_value_loss:
            clipped = batch["values"] + (values - batch["values"]).clamp(-clip, clip)
            value = torch.max(value, (clipped - batch["returns"]).square())
        value = value.mean(dim=1)
        entropy = (log_std + 0.5 + LOG_SQRT_2_PI).sum(dim=(1, 2))
        loss = surrogate + config.value_loss_coef * value - config.entropy_coef * entropy
        # The sum is over candidates, but each one's loss has its own weights alone.
        (gradient,) = torch.autograd.grad(loss.sum(), self.parameters)
        losses = {"value": value.detach(), "surrogate": surrogate.detach(), "entropy": entropy.detach()}
        return losses, gradient

    def _adapt(self, mean: Tensor, log_std: Tensor, old_mean: Tensor) -> None:
        """Let each learning rate follow the KL divergence from the policy that sampled.

        Before the first step of an update that is 0, or a rounding error, which rsl_rl tells apart: by chance the rate
        rises there or stays, and not for the same seeds as in a lone training.
        """
        if self.config.schedule != "adaptive":
            return
        kl, wanted = self._divergence(mean, log_std.exp(), old_mean), self.config.desired_kl
        slower, faster = (self.learning_rate / 1.5).clamp(min=MIN_RATE), (self.learning_rate * 1.5).clamp(max=MAX_RATE)
        rate = torch.where((kl < wanted / 2.0) & (kl > 0.0), faster, self.learning_rate)
        self.learning_rate = torch.where(kl > wanted * 2.0, slower, rate)

    def _divergence(self, mean: Tensor, std: Tensor, old_mean: Tensor) -> Tensor:
        """KL(sampled || present) in nats, mean over the minibatch (K, 1)."""
        old_std = self._log_std.exp()
        constant = (std.log() - old_std.log() + 0.5 * (old_std / std).square() - 0.5).sum(dim=-1)
        return (0.5 * ((old_mean - mean) / std).square().sum(dim=-1) + constant).mean(dim=1, keepdim=True)

    @torch.no_grad()
    def _descend(self, gradient: Tensor, alive: Tensor) -> None:
        """Clip actor's and critic's gradients by their norms, then one step of Adam. alive: (K, 1)."""
        split = sum(self._sizes[: self._of_actor])
        for part in (gradient[:, :split], gradient[:, split:]):
            norm = part.square().sum(dim=1, keepdim=True).sqrt()
            part.mul_((self.config.max_grad_norm / (norm + CLIP_EPS)).clamp(max=1.0))
        self._updates += 1.0
        self._exp_avg.lerp_(gradient, 1.0 - BETA1)
        self._exp_avg_sq.mul_(BETA2).addcmul_(gradient, gradient, value=1.0 - BETA2)
        step = (self.learning_rate / (1.0 - BETA1**self._updates)).float()
        scale = (1.0 - BETA2**self._updates).sqrt().float()
        stepped = self.parameters - step * self._exp_avg / (self._exp_avg_sq.sqrt() / scale + ADAM_EPS)
        self.parameters.copy_(torch.where(alive, stepped, self.parameters))

    @torch.no_grad()
    def _normalise(self, raw: Tensor) -> None:
        """Take observations (K, S, O) into the running mean and variance, as rsl_rl's EmpiricalNormalization."""
        var, mean = torch.var_mean(raw, dim=1, correction=0, keepdim=True)
        self._seen += raw.shape[1]
        rate = (raw.shape[1] / self._seen)[:, None, None]
        delta = mean - self._mean
        self._mean = self._mean + rate * delta
        self._var = self._var + rate * (var - self._var + delta * (mean - self._mean))
        self._std = self._var.sqrt()

    def _normalised(self, observation: Tensor) -> Tensor:
        if not self.config.obs_normalization:
            return observation
        return (observation - self._mean) / (self._std + self._actor.obs_normalizer.eps)  # type: ignore[operator]

    def _pieces(self) -> list[Tensor]:
        """Parameters by layer, (K, ...) each."""
        parts = self.parameters.split(self._sizes, dim=1)
        return [part.view(self.count, *shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def _actor_weights(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        return [piece for place, piece in enumerate(pieces[: self._of_actor]) if place != self._noise]

    def finite(self) -> Tensor:
        """(K,) bool: all weights are finite."""
        return self.parameters.detach().isfinite().all(dim=1)

    def save(self, k: int) -> dict[str, Any]:
        """Candidate k as rsl_rl's `PPO.save` writes it."""
        rows = [row[k].split(self._sizes) for row in (self.parameters.detach(), self._exp_avg, self._exp_avg_sq)]
        values, averages, squares = (
            [part.reshape(shape).clone() for part, shape in zip(row, self._shapes, strict=True)] for row in rows
        )
        told = {"_mean": self._mean[k], "_var": self._var[k], "_std": self._std[k], "count": self._seen[k]}
        buffers = {f"obs_normalizer.{name}": value.clone() for name, value in told.items()}
        state: dict[str, Any] = {}
        for name, network, own in (
            ("actor", self._actor, values[: self._of_actor]),
            ("critic", self._critic, values[self._of_actor :]),
        ):
            known = dict(zip([n for n, _ in network.named_parameters()], own, strict=True)) | buffers
            state[f"{name}_state_dict"] = {key: known[key] for key in network.state_dict()}
        optimizer = make_optimizer(self._actor, self._critic, float(self.learning_rate[k])).state_dict()
        step = self._updates[k, 0].float()
        moments = enumerate(zip(averages, squares, strict=True))
        if float(step):
            optimizer["state"] = {i: {"step": step.clone(), "exp_avg": m, "exp_avg_sq": v} for i, (m, v) in moments}
        return {**state, "optimizer_state_dict": optimizer}

    def rng_state(self, k: int) -> Tensor:
        """State of the generator of candidate k where that is the CPU's, else of torch's own, as a lone training
        keeps it."""
        return self.generators[k].get_state() if self.device.type == "cpu" else torch.get_rng_state()

    @torch.no_grad()
    def load(self, k: int, state: Mapping[str, Any]) -> None:
        """Put candidate k into a state that `save`, or a lone training, has written.

        Raises KeyError, RuntimeError or ValueError if it is of other networks.
        """
        self._actor.load_state_dict(state["actor_state_dict"])
        self._critic.load_state_dict(state["critic_state_dict"])
        self.parameters[k] = parameters_to_vector([*self._actor.parameters(), *self._critic.parameters()])
        optimizer = state["optimizer_state_dict"]
        self.learning_rate[k] = float(optimizer["param_groups"][0]["lr"])
        of_parameters = [optimizer["state"][place] for place in range(len(self._sizes))]
        self._updates[k] = float(of_parameters[0]["step"])
        for mine, name in ((self._exp_avg, "exp_avg"), (self._exp_avg_sq, "exp_avg_sq")):
            mine[k] = torch.cat([each[name].flatten() for each in of_parameters])
        if self.config.obs_normalization:
            known = dict(self._actor.obs_normalizer.named_buffers())
            self._mean[k], self._var[k], self._std[k] = known["_mean"], known["_var"], known["_std"]
            self._seen[k] = known["count"]
        if self.device.type == "cpu":
            self.generators[k].set_state(state["torch_rng"].cpu())


def _forward(layers: Iterable[nn.Module], weights: Sequence[Tensor], rows: Tensor) -> Tensor:
    """A sequence of linear layers and activations on rows (K, B, I): (K, B, O). weights: weight (K, O, I) and bias
    (K, O) of each linear layer in turn."""
    place = 0
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight, bias = weights[place], weights[place + 1]
            rows, place = torch.baddbmm(bias.unsqueeze(1), rows, weight.transpose(1, 2)), place + 2
        else:
            rows = layer(rows)
    return rows


def _log_prob(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log density (K, B) of actions (K, B, A) for noise (K, 1, A)."""
    scaled = (actions - mean) * (-log_std).exp()
    return -0.5 * scaled.square().sum(dim=-1) - (log_std + LOG_SQRT_2_PI).sum(dim=-1)
