"""Whether a program's graph computes what the program computes, on states of every sort.

Runs in the trial's child process, after the trial has found nothing. Program and graph are called with equal
signals: the sampled states at each of their numbers of worlds, mixtures of them at others, and two made-up states.
In the ZERO state every signal is 0; in the EXTREME states every signal of every world is `EXTREME` times the largest
magnitude that the samples have in that column, with signs that change from world to world. Directions and
orientations keep sampled values in all of them (a direction of length 0 or 3 is no state), and contacts and distances
stay at least 0. There a reward has to be finite as well: training visits states that no sample holds, and one NaN
ends it.

Not covered: states between these, and other devices than the CPU.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from rewards.check import entry_arguments
from rewards.expressions import Violation
from rewards.graph import GraphError, RewardGraph, read_graph
from rewards.rebuild import interpret, refuse_excess
from rewards.recorder import Untraceable, record
from rewards.trace import Program
from tasks.signals import Signals, SignalTable

EXTREME = 3.0
"""How far beyond the samples the extreme states are."""
STEADY_KINDS = ("orientation", "direction")
POSITIVE_KINDS = ("contact", "distance")
OTHER_WORLDS = (2, 33)
"""Numbers of worlds besides those of the samples."""
MADE_UP_WORLDS = 16
PROBED_WORLDS = 4_096
"""Number of worlds at which memory and work of a graph are bounded in the gate; a training bounds its own."""
RELATIVE_TOLERANCE = 1e-6
"""Of the largest result: the same operators give the same bits, unless memory is laid out differently."""

_FINITE_HINT = "guard divisions, logarithms, roots and exp: x / (y + 1e-6), torch.clamp(x, min=1e-6)"


def graph_of(
    text: str,
    program: Program,
    table: SignalTable,
    states: Sequence[tuple[str, Signals]],
    lines: Mapping[str, int],
) -> tuple[dict[str, Any] | None, list[Violation]]:
    """The graph of a sound program as plain data and no violations, or None and what is wrong.

    `states` are those of `states_of`; `lines` are the lines of the components and, as "", of the last return. Whatever
    the program raises is a violation, never an exception.
    """
    names = entry_arguments(text)
    try:
        data = record(program, [(name, table[name].dims) for name in names])
        graph = read_graph(data)
        refuse_excess(graph, PROBED_WORLDS)
    except Untraceable as refusal:
        found = refusal.violation
        return None, [found if found.line else Violation(lines[""], found.code, found.message, found.hint)]
    except GraphError as error:
        return None, [Violation(lines[""], "T215", str(error), "make smaller tensors and fewer operations")]
    for state, signals in states:
        problems = list(_compare(program, graph, state, [signals[name] for name in names], lines))
        if problems:
            return None, problems
    return data, []


def _compare(
    program: Program, graph: RewardGraph, state: str, arguments: Sequence[torch.Tensor], lines: Mapping[str, int]
) -> Iterator[Violation]:
    with torch.no_grad():
        try:
            total, components = program(*[tensor.clone() for tensor in arguments])  # type: ignore[misc]
            values = interpret(graph, arguments)  # none of a graph's operators writes to its arguments
            again = interpret(graph, arguments)
        except Exception as error:
            message = f"on {state}: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            yield Violation(lines[""], "T201", message, "make the computation valid for every state")
            return
    expected = {"total": total, **components}
    if [*expected][1:] != [name for name, _ in graph.components]:
        message = f"on {state} the components have other names."
        yield Violation(lines[""], "T216", message, "return the same form always")
        return
    if _all_well([*expected.values()], values, again):
        return
    scale = max([1e-6, *(float(v[torch.isfinite(v)].abs().max()) for v in values if torch.isfinite(v).any())])
    for (name, value), came, repeated in zip(expected.items(), values, again, strict=True):
        line, what = lines.get(name, lines[""]), "the total" if name == "total" else f"component '{name}'"
        if came.shape != value.shape or not _close(came, value, scale):
            yield Violation(line, "T216", f"on {state} the graph gives other values of {what}.", "keep no state")
        elif not _close(came, repeated, 0.0):
            yield Violation(line, "T207", f"two equal calls gave two different values of {what}.", "keep no state")
        elif not bool(torch.isfinite(value).all()):
            broken = int((~torch.isfinite(value)).sum())
            message = f"{what} is not finite in {broken} of {len(value)} worlds on {state}."
            yield Violation(line, "T206", message, _FINITE_HINT)


def _all_well(expected: Sequence[Any], values: Sequence[torch.Tensor], again: Sequence[torch.Tensor]) -> bool:
    """Whether all results are equal bit by bit and finite, in a few operators; what is not is looked at one by one."""
    if not all(came.shape == value.shape for came, value in zip(expected, values, strict=True)):
        return False
    came, first, second = torch.stack([*expected]), torch.stack([*values]), torch.stack([*again])
    return torch.equal(came, first) and torch.equal(first, second) and bool(torch.isfinite(first).all())


def _close(a: torch.Tensor, b: torch.Tensor, scale: float) -> bool:
    tolerance = RELATIVE_TOLERANCE if scale else 0.0
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def states_of(table: SignalTable, batches: Sequence[Signals]) -> Iterator[tuple[str, Signals]]:
    """What program and graph are called with, each with words for it."""
    for batch in batches:
        yield f"the {_worlds(batch)} sampled states", batch
    largest = max(batches, key=_worlds)
    for seed, worlds in enumerate(OTHER_WORLDS):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(_worlds(largest), (2, worlds), generator=generator)
        share = torch.rand(worlds, 1, generator=generator)
        mixed = {name: torch.lerp(tensor[rows[0]], tensor[rows[1]], share) for name, tensor in largest.items()}
        yield f"{worlds} mixtures of sampled states", mixed
    yield "the zero state (all signals 0; directions as sampled)", _made_up(table, largest, 0.0)
    words = f"extreme states ({EXTREME:g} times the largest sampled magnitudes; directions as sampled)"
    yield words, _made_up(table, largest, EXTREME)


def _made_up(table: SignalTable, batch: Signals, factor: float) -> Signals:
    generator = torch.Generator().manual_seed(len(OTHER_WORLDS))
    rows = torch.randint(_worlds(batch), (MADE_UP_WORLDS,), generator=generator)
    made: Signals = {}
    for signal in table:
        sampled = batch[signal.name]
        signs = torch.randint(2, (MADE_UP_WORLDS, signal.dims), generator=generator) * 2.0 - 1.0
        if signal.kind in POSITIVE_KINDS:
            signs = signs.abs()
        made[signal.name] = sampled[rows] if signal.kind in STEADY_KINDS else signs * factor * sampled.abs().amax(dim=0)
    return made


def _worlds(batch: Signals) -> int:
    return next(iter(batch.values())).shape[0]
