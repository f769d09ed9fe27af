"""One policy for many bodies, told by words what to do: a head with its encoder, and the skills that it was taught.

A skill is a task, the embodiment under which the head knows its body, and the expert that taught it. Several tasks of
one body may share an embodiment. On the disk a generalist is the folder of its head (`distill.checkpoint`), with the
skills in head.json: one file says all, and is written last.

`Generalist.actor` acts in the worlds of one task: what is seen and said goes in, chunks come out, and of each chunk as
many actions are carried out as the embodiment says. Where the words change, a new chunk begins.

Knows nothing of training and of fitness.

Axes: N worlds, T history, S state, H action horizon, A action, L context tokens, C context width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.action_head import ActionHead
from distill.batch import Observation
from distill.checkpoint import META, Backbone, StoredHead, load_head, save_head
from distill.embodiments import Embodiment
from distill.encoder import ContextEncoder, ScratchEncoder
from distill.policy import ChunkedPolicy
from distill.told import Words, told_words
from rl.config import check_types, complete_fields
from tasks import registry
from tasks.env import TaskEnv
from tasks.errors import UserError, did_you_mean
from tasks.task import Task

SKILLS = "skills"


@dataclass(frozen=True)
class Skill:
    """One task that a generalist was taught."""

    task: str
    """Name of the task."""
    task_ref: str
    """Registry reference of the task: its name, or a task file."""
    embodiment: str
    """Embodiment of the head that acts in it."""
    expert: str = ""
    """Where its expert was: a checkpoint, relative to the generalist's folder or absolute."""
    expert_sha256: str = ""
    """Digest of the expert's weights."""

    def __post_init__(self) -> None:
        check_types(self, "skill.")


@dataclass(frozen=True)
class Generalist:
    """A head, what encodes its context, and its skills."""

    head: ActionHead
    """The head."""
    encoder: ScratchEncoder | Backbone
    """The embedded encoder, or the name of a model."""
    skills: tuple[Skill, ...]
    """What it was taught, in the order in which it came."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What the training wants to be known of it: plain data."""

    def __post_init__(self) -> None:
        names = [skill.task for skill in self.skills]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"task '{name}' comes twice among the skills of a generalist: each has one embodiment.")
        for skill in self.skills:
            self.head.table.place(skill.embodiment)

    def skill(self, task: str) -> Skill:
        """The skill of a task. Raises UserError for one that it was not taught."""
        known = [skill.task for skill in self.skills]
        for skill in self.skills:
            if skill.task == task:
                return skill
        listed = ", ".join(known) or "none"
        raise UserError(f"the generalist was not taught '{task}'; its tasks: {listed}.{did_you_mean(task, known)}")

    def embodiment(self, task: str) -> Embodiment:
        """The body of a task, as the head knows it. Raises UserError like `skill`."""
        return self.head.table[self.skill(task).embodiment]

    def make_task(self, task: str) -> Task:
        """The task of a skill. Raises UserError like `skill`, and where the task is gone."""
        skill = self.skill(task)
        try:
            made = registry.make(skill.task_ref)
        except UserError as error:
            raise UserError(f"the generalist was taught '{task}', which is not here any more: {error}") from None
        if made.name != task:
            raise UserError(f"{skill.task_ref} holds the task '{made.name}', the generalist was taught '{task}'.")
        return made

    def context_encoder(self, device: str | torch.device = "cpu") -> ContextEncoder:
        """What encodes the words; a model of `transformers` is loaded. Raises UserError where it cannot be."""
        if isinstance(self.encoder, Backbone):
            from distill.vlm import load_transformers

            return load_transformers(self.encoder.source, self.encoder.layer, device)
        return self.encoder.to(device)

    def actor(self, task: Task, **options: Any) -> Actor:
        """A policy for the worlds of a task. options: those of `Actor`. Raises UserError like `skill`."""
        return Actor(self.head, self.context_encoder(), self.skill(task.name).embodiment, **options)


def save_generalist(generalist: Generalist, folder: Path) -> Path:
    """Write a generalist into a folder, which is made, and return the path of its weights. Raises UserError if it
    cannot."""
    skills = [{name: getattr(skill, name) for name in Skill.__dataclass_fields__} for skill in generalist.skills]
    about = {**generalist.about, SKILLS: skills}
    return save_head(StoredHead(generalist.head, generalist.encoder, about), folder)


def load_generalist(folder: Path) -> Generalist:
    """The generalist in a folder, on the CPU, in evaluation mode.

    Raises UserError if a file is missing, damaged or from another version, or if the head knows no skills.
    """
    stored = load_head(folder)
    about = dict(stored.about)
    rows = about.pop(SKILLS, None)
    where = f"{Path(folder) / META}: {SKILLS}"
    if not isinstance(rows, list):
        raise UserError(f"{where} is {str(rows)[:60]!r}, expected a list: a head alone, without what it was taught.")
    skills = tuple(Skill(**complete_fields(row, Skill, f"{where}[{number}]")) for number, row in enumerate(rows))
    return Generalist(stored.head, stored.encoder, skills, about)


def is_generalist(place: Path) -> bool:
    """Whether a path is the folder of a head."""
    return (Path(place) / META).is_file()


class Actor:
    """A head in the N worlds of a task: `act` gives each step's actions. One actor serves one environment."""

    def __init__(
        self,
        head: ActionHead,
        encoder: ContextEncoder,
        embodiment: str,
        *,
        execute: int | None = None,
        steps: int | None = None,
        noise: float = 1.0,
        seed: int = 0,
        words: Words = told_words,
    ) -> None:
        """
        Args:
            head: The head; it is not changed, and computes where it is.
            encoder: What encodes the words, on the head's device.
            embodiment: Name of the body.
            execute: Actions of a chunk that are carried out; None: the embodiment's.
            steps: Euler steps of a chunk; None: the head's.
            noise: Standard deviation of the noise that a chunk starts from: 1 as in training, 0 for none.
            seed: Of the noise.
            words: What each world is told.

        Raises:
            UserError: an unknown embodiment, or a number that cannot work.
        """
        self.embodiment = head.table[embodiment]
        self.execute = self.embodiment.execute if execute is None else execute
        if not 1 <= self.execute <= self.embodiment.horizon:
            raise UserError(
                f"execute is {self.execute}, expected 1 to {self.embodiment.horizon}, the actions of a chunk of "
                f"'{embodiment}'."
            )
        if not noise >= 0.0:
            raise UserError(f"noise is {noise}, expected a number of at least 0.")
        self._head, self._encoder, self._steps, self._noise = head, encoder, steps, noise
        self._words = words
        self._device = head.action_position.device
        self._generator = torch.Generator(device=self._device).manual_seed(seed)
        self._known: dict[str, int] = {}
        self._tokens: Tensor | None = None  # (phrases, L, C) of all phrases heard so far, in the order of `_known`
        self._mask: Tensor | None = None  # (phrases, L)
        self._heard: Tensor | None = None  # (N,) int64: number of the phrase that each world was told last
        self._policy = ChunkedPolicy(self._plan, self.execute, self.embodiment.history)

    @torch.no_grad()
    def act(self, env: TaskEnv) -> Tensor:
        """Actions (N, A) of this step, on the environment's device. Raises UserError for a body of other sizes."""
        body, state = self.embodiment, env.observe_told()
        if (state.shape[1], env.num_actions) != (body.state_size, body.action_size):
            raise UserError(
                f"task '{env.task.name}' has {state.shape[1]} numbers of state and {env.num_actions} actions, "
                f"embodiment '{body.name}' has {body.state_size} and {body.action_size}: the task was changed since."
            )
        heard = self._numbers(self._words(env))
        changed = torch.zeros_like(heard, dtype=torch.bool) if self._heard is None else heard != self._heard
        self._heard = heard
        first = (env.episode_step == 0).to(self._device)
        return self._policy(state.to(self._device), first, changed).to(env.device)

    def _numbers(self, words: Sequence[str]) -> Tensor:
        """Each phrase's number (N,); phrases that were never heard are encoded."""
        new = [phrase for phrase in dict.fromkeys(words) if phrase not in self._known]
        if new:
            rows = [self._encoder([phrase]) for phrase in new]  # one at a time: lengths may differ
            tokens = [row for tokens, _ in rows for row in tokens]
            masks = [row for _, mask in rows for row in mask]
            if self._tokens is not None and self._mask is not None:
                tokens, masks = [*self._tokens, *tokens], [*self._mask, *masks]
            self._tokens = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
            self._mask = torch.nn.utils.rnn.pad_sequence(masks, batch_first=True)
            self._known |= {phrase: len(self._known) + row for row, phrase in enumerate(new)}
        return torch.tensor([self._known[phrase] for phrase in words], device=self._device)

    def _plan(self, states: Tensor, mask: Tensor, worlds: Tensor) -> Tensor:
        """Chunks (n, H, A) of worlds (n,) from their states (n, T, S) and masks (n, T)."""
        body = self.embodiment
        assert self._heard is not None and self._tokens is not None and self._mask is not None
        heard = self._heard[worlds]
        if bool((heard == heard[0]).all()):  # one context for all of them
            heard = heard[:1]
        seen = Observation(states, self._tokens[heard], self._mask[heard], mask)
        shape = (len(worlds), body.horizon, body.action_size)
        noise = self._noise * torch.randn(shape, generator=self._generator, device=self._device)
        with torch.inference_mode():  # at batch 1 a tenth less time than no_grad
            chunks = self._head.sample(body.name, seen, noise=noise, steps=self._steps)
        return chunks.clone()  # an ordinary tensor again: environments keep actions
