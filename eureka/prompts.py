"""Prompts: what a designer is told, from templates in `prompts/*.j2`. Pure but for reading those files.

Never in a prompt: the fitness code, its description, the human-written or sparse reward. The fitness VALUE
and its unit are told. What an LLM wrote before (programs, component names, error texts) is quoted inside
fences that it cannot close, and cut to a length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from eureka.candidate import Candidate, Status, ranked
from eureka.designers.base import Message
from eureka.reflection import figure, summarise
from rewards import allowed
from rl.config import TrainConfig, config_for
from tasks.source_view import designer_source
from tasks.task import Task

PROGRAM_CAP = 20_000  # characters, about 5,000 tokens
PROBLEMS_CAP = 8_000
REFLECTION_CAP = 10_000
REPLY_CAP = 24_000
FEEDBACK_CAP = 2_000
MEMORY_LINES = 60

FIRST_STYLES = (
    "dense shaping. Every step towards the goal pays a little, by smooth kernels whose gradient never dies.",
    "minimal. Two or three terms, the fewest that define the task, each of them scaled to order one.",
    "gated. Multiply what drives progress by how well its precondition (posture, height, ...) is kept.",
    "progress and energy. Pay for motion or energy where the task needs it; charge for waste.",
    "robust. Bounded kernels only (tanh, exp), so that no state can pay or cost more than a few units.",
    "wide and narrow. For each goal a wide kernel that is felt everywhere and a narrow one for precision.",
    "regular motion. A plain main term plus small costs on effort, jerk, useless speed and joints at their limits.",
    "asymmetric. A strong linear main term, and penalties only beyond a limit (relu or clamp).",
)
NEXT_STYLES = (
    "refine. Keep the structure of the best program; mend the scales and weights its figures speak against.",
    "rewrite the weakest component of the best program in another form; leave the rest as it is.",
    "combine the best program with what worked in another attempt.",
    "simplify. Take away whatever the figures do not justify, and make the main term stronger.",
    "a different idea. Solve the task by another main term than the best program has.",
    "smoother. Keep the aims of the best program with kernels that give a gradient in every state visited.",
    "sharper. Reward the last part of the way: what separates the present fitness from an excellent one.",
    "gated. Keep the best program's aims, but multiply its main term by its most important precondition.",
)


@dataclass(frozen=True)
class Remembered:
    """What the samples of a generation are told alike of the attempts before them; worked out once for all."""

    text: str
    """`memory` of the history."""
    rival: Candidate | None
    """The next best program, as `runner_up` finds it."""


@dataclass(frozen=True)
class TaskView:
    """What a designer may know of a task: all of it is text or a plain number."""

    name: str
    instruction: str
    signals: str
    action_doc: str
    action_dims: int | str
    control_rate_hz: str
    episode_length_s: str
    max_steps: int
    fitness_unit: str
    source: str
    learning: str
    """By what a policy learns: sentences."""

    @classmethod
    def of(cls, task: Task, training: TrainConfig | None = None, halving: str = "") -> TaskView:
        """The view of a task that is trained by `training`, the task's own settings where None; `halving` is a sentence
        on which trainings are cut short.

        Raises OSError where the task's source cannot be read.
        """
        return cls(
            name=task.name,
            instruction=task.instruction,
            signals=task.describe_signals(),
            action_doc=task.action_doc,
            action_dims=task.num_actions(),
            control_rate_hz=f"{1.0 / task.control_dt_s:g}",
            episode_length_s=f"{task.episode_length_s:g}",
            max_steps=round(task.episode_length_s / task.control_dt_s),
            fitness_unit=task.fitness_unit,
            source=designer_source(task),
            learning=learning(training or config_for(task), task.control_dt_s) + halving,
        )


def learning(training: TrainConfig, control_dt_s: float) -> str:
    """What a designer is told of the training: how much there is to see, and how far ahead a policy looks."""
    gamma = training.ppo.gamma
    steps = training.env_steps
    text = (
        f"PPO, {training.num_envs} worlds at once, {training.iterations} rollouts of {training.steps_per_env} steps: "
        f"{steps / 1e6:.3g} million steps in all, and then it is over. While it learns "
        "the policy acts with Gaussian noise (standard deviation "
        f"{training.ppo.init_noise_std:g} at the start, learned from then on); in the end it is measured without."
    )
    if gamma >= 1.0:
        return text + " Future reward is not discounted."
    # The weights gamma^k sum to 1 / (1 - gamma).
    return text + (
        f" Future reward is discounted by {gamma:g} a step, so the policy looks about "
        f"{control_dt_s / (1.0 - gamma):.2g} s ahead."
    )


def initial_messages(
    view: TaskView,
    *,
    index: int = 0,
    samples: int = 1,
    history: Sequence[Candidate] = (),
    remembered: Remembered | None = None,
) -> tuple[Message, ...]:
    """The conversation that asks for sample `index` of `samples` as long as nothing has been scored.

    `history` are attempts that failed; why they did is told. `remembered` is what follows from it, where it is known.
    """
    told = memory(history) if remembered is None else remembered.text
    text = _render(
        "first.j2",
        task=_task_text(view),
        memory=told,
        fence=fence_for(told),
        index=index,
        samples=samples,
        style=FIRST_STYLES[index % len(FIRST_STYLES)],
    )
    return (Message("system", _system_text()), Message("user", text))


def next_messages(
    view: TaskView,
    best: Candidate,
    history: Sequence[Candidate],
    *,
    reflection: str | None = None,
    index: int = 0,
    samples: int = 1,
    remembered: Remembered | None = None,
    feedback: str | None = None,
) -> tuple[Message, ...]:
    """The conversation that asks for a better program.

    Args:
        view: the task.
        best: the best candidate so far.
        history: candidates of earlier generations.
        reflection: what the best's training looked like; `best.reflection` where None.
        index, samples: which sample is asked for, and how many there are.
        remembered: what follows from the history, where it is known; the samples of a generation share it.
        feedback: what a person said of the best policy.
    """
    said = cut((feedback or "").strip(), FEEDBACK_CAP)
    source = cut(best.source or "", PROGRAM_CAP)
    happened = cut(reflection or best.reflection or "no record", REFLECTION_CAP)
    remembered = remembered or Remembered(memory(history), runner_up(best, ranked(history)))
    rival = remembered.rival
    rival_source = cut(rival.source or "", PROGRAM_CAP) if rival else ""
    text = _render(
        "next.j2",
        task=_task_text(view),
        view=view,
        best=best,
        best_fitness=figure(best.fitness),
        best_source=source,
        reflection=happened,
        memory=remembered.text,
        said=said,
        fence=fence_for(source, happened, remembered.text, rival_source, said),
        index=index,
        samples=samples,
        style=NEXT_STYLES[index % len(NEXT_STYLES)],
        rival=rival,
        rival_fitness=figure(rival.fitness) if rival else "",
        rival_source=rival_source,
    )
    return (Message("system", _system_text()), Message("user", text))


def runner_up(best: Candidate, in_order: Iterable[Candidate]) -> Candidate | None:
    """The first of scored candidates, best first, that is another program than `best`; None where there is none."""
    same = {best.candidate_id, best.equal_to} - {None}
    for candidate in in_order:
        copy = candidate.candidate_id in same or candidate.equal_to in same or candidate.source == best.source
        if candidate.source and not copy:
            return candidate
    return None


def repair_messages(previous: Sequence[Message], reply: str | None, problems: str) -> tuple[Message, ...]:
    """The conversation `previous`, the reply that was refused, and what the gate said about it."""
    told = cut(problems.strip() or "no reply arrived", PROBLEMS_CAP)
    empty = not (reply or "").strip()
    text = _render("repair.j2", problems=told, empty=empty, fence=fence_for(told))
    # Some endpoints refuse an empty message of the assistant, others two user messages in a row.
    said = "(no reply)" if empty else cut(reply or "", REPLY_CAP)
    return (*previous, Message("assistant", said), Message("user", text))


def memory(history: Sequence[Candidate], lines: int = MEMORY_LINES, further: int = 0) -> str:
    """At most `lines` earlier attempts, a line each: the scored, best first; then those stopped early and failures,
    newest first. Fitness at a rung ranks nothing: it stands for its own rung alone.

    `further` attempts that are not in `history` are counted with those that get no line.
    """
    scored = ranked(history)
    unranked = (Status.ELIMINATED, Status.REFUSED, Status.NO_REPLY, Status.FAILED)
    failed = [c for c in history if not c.scored and c.status in unranked]
    failed.sort(key=lambda c: (-c.generation, c.index))
    # They are kept in sight: a third of the lines is theirs where there are that many.
    room = max(lines - len(failed), lines - lines // 3)
    chosen = scored[:room] + failed[: lines - min(len(scored), room)]
    left_out = len(scored) + len(failed) + further - len(chosen)
    rows = [summarise(candidate) for candidate in chosen]
    return "\n".join(rows + ([f"... and {left_out} more"] if left_out else []))


def cut(text: str, limit: int) -> str:
    """`text`, its middle left out where it is longer than `limit` characters."""
    if len(text) <= limit:
        return text.rstrip("\n")
    head, tail = int(limit * 0.7), int(limit * 0.25)
    return f"{text[:head]}\n[... {len(text) - head - tail} characters left out ...]\n{text[-tail:]}"


def fence_for(*texts: str) -> str:
    """A Markdown fence that nothing in `texts` can close: longer than any run of backticks in them."""
    longest = max((len(run) for text in texts for run in re.findall(r"`+", text)), default=0)
    return "`" * max(3, longest + 1)


def as_markdown(messages: Sequence[Message]) -> str:
    """The conversation as one readable text, for files and the command line."""
    return "\n\n".join(f"## {message.role}\n\n{message.content.strip()}" for message in messages) + "\n"


def _system_text() -> str:
    linalg = ", ".join(f"torch.linalg.{name}" for name in sorted(allowed.LINALG_FUNCTIONS))
    return _render("system.j2", torch_functions=" ".join(sorted(allowed.TORCH_FUNCTIONS)), linalg_functions=linalg)


def _task_text(view: TaskView) -> str:
    return _render("task.j2", view=view, fence=fence_for(view.signals, view.source))


@cache
def _environment() -> Environment:
    folder = Path(__file__).with_name("prompts")
    # Plain text, not HTML: escaping would change the programs.
    return Environment(loader=FileSystemLoader(folder), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values).strip() + "\n"


def planner_messages(goal: str, names: Sequence[str], free: bool, turns: Sequence[Any]) -> tuple[str, str]:
    """What a planner is told: the system message, and the text beside its pictures.

    Args:
        goal: What the person wants.
        names: The instructions that the body was taught.
        free: Whether other words may be used.
        turns: `distill.planner.Turn` of what was said before, oldest first.
    """
    return (
        _render("planner_system.j2", names=names, free=free),
        _render("planner_user.j2", goal=goal, turns=turns),
    )
