"""What the trial measures: one reward program run on sampled signals, every broken promise found at once.

This is the side that runs in the confined child; `rewards.sandbox` starts it. What it checks is what a
trainer takes for granted: form, shape (N,), float32, device, finite values, equal results for equal signals,
arguments left alone, and each world's reward computed from that world's signals alone. A program that passes is
traced to its graph, and the graph compared with it (`rewards.agreement`); programs without a graph (a tensor turned
into a Python number, output shapes that depend on values, random numbers) are refused.

Axes: N worlds. Not covered: inputs that are not finite.
"""

import ast
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rewards.agreement import graph_of, states_of
from rewards.check import entry_arguments
from rewards.expressions import Violation
from rewards.recorder import Untraceable, record
from rewards.result import RewardError, one_line, structure_problem
from rewards.source import entry_points, parsed
from rewards.trace import Program, load_checked, load_program, program_line
from rewards.watch import CHANGED_HINT, Watch, changed
from tasks.signals import Signals, SignalTable

RELATIVE_TOLERANCE = 1e-4
"""Largest relative difference that regrouping worlds may make: vectorised and scalar kernels differ by some
ulp."""
LONE_WORLDS = 16
"""How many worlds are also tried in the company of nothing but a copy of themselves."""
TRACED_WORLDS = 17
"""Number of worlds of the run before a trace without a trial."""

_HINTS = (
    (r"Boolean value of Tensor", "use torch.where(condition, a, b), and & | ~ between conditions"),
    (
        r"converted to|only one element tensors",
        "use torch functions on the tensor; it has one value per world",
    ),
    (
        r"must match|shape|size|broadcast|[Dd]imension|index .* out of|out of (?:bounds|range)",
        "every signal is (N, dims), also with dims = 1: take a column by x[:, 0], reduce with dim=-1",
    ),
    (r"not enough memory|allocate", "make smaller tensors"),
    (r"recursion", "a function may not call itself"),
)


_Variant = tuple[tuple[torch.Tensor, torch.Tensor], Signals]


@dataclass(frozen=True)
class Inputs:
    """What programs are called with, the same for all of them: made once, before any of them runs."""

    batches: tuple[Signals, ...]
    """The sampled states, most worlds first."""
    variants: tuple[_Variant, ...]
    """Batches in which some worlds are as before: ((index before, index now), signals)."""
    states: tuple[tuple[str, Signals], ...]
    """What program and graph are compared on."""

    @classmethod
    def of(cls, table: SignalTable, batches: Sequence[Signals]) -> "Inputs":
        """From signals of different numbers of worlds, finite, each at least 2 worlds; the largest is used for the
        comparisons and the clock."""
        ordered = sorted(batches, key=_worlds, reverse=True)
        variants = _variants({name: ordered[0][name] for name in table.names}, _worlds(ordered[0]))
        return cls(tuple(ordered), tuple(variants), tuple(states_of(table, ordered)))


def examine(text: str, table: SignalTable, batches: Sequence[Signals]) -> dict[str, Any]:
    """Run the trial of one checked program; a JSON-ready verdict. See `examine_on`."""
    return examine_on(text, table, Inputs.of(table, batches))


def examine_on(text: str, table: SignalTable, inputs: Inputs, *, checked: bool = False) -> dict[str, Any]:
    """Run the trial of one program; a JSON-ready verdict.

    `checked`: whoever calls has checked it already. The inputs are used up: a program may change them.
    Returns {"problems": [[line, code, message, hint]], "components":
    [name], "time_per_call_s": float | None, "graph": the reward graph as plain data or None}. Whatever the program
    raises is a problem, never an exception of `examine`.
    """
    batches = inputs.batches
    trial = _Trial(text, batches[0])
    try:
        program = load_checked(text) if checked else load_program(text, table)
    except RewardError as error:
        trial.raised(error.error_type, error.detail, error.line)
        return trial.verdict(None)
    components = trial.run_watched(program, batches[0])
    if components:
        trial.compare_worlds(program, batches[0], inputs.variants)
        if not trial.problems:  # a smaller batch would only repeat them
            for smaller in batches[1:]:
                trial.run_watched(program, smaller, pairs=False)
    if not components or trial.problems:
        return trial.verdict(None)
    graph, found = graph_of(text, program, table, inputs.states, trial.lines)
    trial.problems.extend(found)
    if graph is None:
        return trial.verdict(None)
    return trial.verdict(statistics.median(trial.times_s)) | {"graph": graph}


def trace(text: str, table: SignalTable, *, checked: bool = False) -> dict[str, Any]:
    """The graph of one program without a trial: {"problems": [[line, code, message, hint]], "graph": data or None}. For
    programs that have been through the gate or are ours. `checked`: as for `examine`."""
    inputs = [(name, table[name].dims) for name in entry_arguments(text)]
    try:
        program = load_checked(text) if checked else load_program(text, table)
        with torch.no_grad():  # a plain error is told better by a plain run
            program(*[torch.rand(TRACED_WORLDS, dims) for _, dims in inputs])
        graph = record(program, inputs)
    except RewardError as error:
        return {"problems": [[error.line, error.error_type, error.detail, ""]], "graph": None}
    except Untraceable as refusal:
        found = refusal.violation
        return {"problems": [[found.line, refusal.error_type, found.message, found.hint]], "graph": None}
    except Exception as error:
        return {"problems": [[program_line(error), type(error).__name__, one_line(error), ""]], "graph": None}
    return {"problems": [], "graph": graph}


def _worlds(signals: Signals) -> int:
    return next(iter(signals.values())).shape[0]


class _Trial:
    """Findings about one program."""

    def __init__(self, text: str, signals: Signals) -> None:
        self.inputs = entry_arguments(text)
        self.problems: list[Violation] = []
        self.components: tuple[str, ...] = ()
        self.lines = result_lines(text)
        self.times_s: list[float] = []
        """Of calls on as many worlds as the largest batch has."""
        self._worlds = _worlds(signals)
        self._took_s = 0.0
        self._shapes = ", ".join(f"{name} {tuple(signals[name].shape)}" for name in self.inputs)

    def verdict(self, time_per_call_s: float | None) -> dict[str, Any]:
        unique = sorted(dict.fromkeys(self.problems))
        problems = [[item.line, item.code, item.message, item.hint] for item in unique]
        clock = {"time_per_call_s": time_per_call_s, "graph": None}
        return {"problems": problems, "components": self.components, **clock}

    def raised(self, kind: str, message: str, line: int) -> None:
        hint = next((hint for pattern, hint in _HINTS if re.search(pattern, message)), "correct this line")
        self._note(line, "T201", f"{kind}: {message}", f"{hint}. Shapes of the arguments: {self._shapes}")

    def _note(self, line: int, code: str, message: str, hint: str) -> None:
        self.problems.append(Violation(line, code, message, hint))

    def _line(self, name: str) -> int:
        return self.lines.get(name, self.lines[""])

    def _call(self, program: Program, signals: Signals) -> object:
        """One call; None after an exception, which is noted. A program that returns None is told by its
        structure."""
        arguments = [signals[name] for name in self.inputs]
        try:
            with torch.no_grad():
                began = time.perf_counter()
                result = program(*arguments)
                self._took_s = time.perf_counter() - began
                return result
        except Exception as error:
            self.raised(type(error).__name__, one_line(error), program_line(error))
            return None

    def run_watched(self, program: Program, signals: Signals, pairs: bool = True) -> tuple[str, ...]:
        """One watched call on a batch; returns the components' names, () if it went too wrong to compare worlds.

        `pairs`: look for shapes (N, N). One batch is enough: constants may have the size of another by chance."""
        worlds = _worlds(signals)
        widths = [tensor.shape[1] for tensor in signals.values()]
        given = {name: signals[name].clone() for name in self.inputs}
        versions = {name: tensor._version for name, tensor in given.items()}
        before = len(self.problems)
        with Watch(worlds, pairs and worlds > 16 and worlds not in widths, given) as watch:
            result = self._call(program, given)
        self.problems.extend(watch.violations)
        if any(item.code == "T201" for item in self.problems[before:]):
            return ()
        for name, tensor in given.items():
            altered = tensor._version != versions[name] or not _same(tensor, signals[name])
            if altered and not any(item.message == changed(name) for item in watch.violations):
                self._note(self._line(""), "T208", changed(name), CHANGED_HINT)
        if problem := structure_problem(result):
            hint = "end with: return total, {'component_name': component, ...}"
            self._note(self._line(""), "T202", problem, hint)
            return ()
        total, components = result  # type: ignore[misc]
        self.components = tuple(components)
        sound = [self._look_at(name, value, given) for name, value in [("total", total), *components.items()]]
        return self.components if all(sound) else ()

    def _look_at(self, name: str, value: torch.Tensor, signals: Signals) -> bool:
        """Note what is wrong with one result; False if it cannot be compared world by world."""
        like = signals[self.inputs[0]]
        worlds, line = like.shape[0], self._line(name)
        what = "the total" if name == "total" else f"component '{name}'"
        if tuple(value.shape) != (worlds,):
            message = f"{what} has shape {tuple(value.shape)}; expected ({worlds},), one value per world."
            self._note(line, "T203", message, _shape_hint(tuple(value.shape), worlds))
            return False
        if value.dtype != torch.float32:
            message = f"{what} is {value.dtype}; expected torch.float32."
            self._note(line, "T204", message, "convert it with .float()")
            return False
        if value.device != like.device:
            message = f"{what} is on {value.device}; the signals are on {like.device}."
            self._note(line, "T205", message, f"make tensors with device={self.inputs[0]}.device")
            return False
        broken = int((~torch.isfinite(value)).sum())
        if broken:
            nans = int(torch.isnan(value).sum())
            message = f"{what} is not finite in {broken} of {worlds} worlds ({nans} NaN, {broken - nans} infinite)."
            hint = "guard divisions, logarithms, roots and exp: x / (y + 1e-6), torch.clamp(x, min=1e-6)"
            self._note(line, "T206", message, hint)
        return True

    def compare_worlds(self, program: Program, signals: Signals, variants: Sequence[_Variant]) -> None:
        """Calls again on equal, permuted, partly replaced and fewer worlds, and compares world by world."""
        inputs = {name: signals[name] for name in self.inputs}
        first = self._values(program, _copied(inputs))
        first = None if first is None else _copied(first)  # a program may hand out what it changes at its next call
        again = self._values(program, _copied(inputs))
        if first is None or again is None:
            return
        for name, value in first.items():
            if name not in again or not _same(value, again[name]):
                hint = "a reward is a pure function of its arguments; keep no state and no randomness"
                self._note(self._line(name), "T207", f"two equal calls gave two different values of '{name}'.", hint)
                return
        scale = _scale(first)
        mixed: set[str] = set()
        together = torch.stack([*first.values()])
        for kept, variant in variants:
            other = self._values(program, variant)
            if other is None:
                return
            now = torch.stack([*other.values()])
            if _differs(together.index_select(1, kept[0]), now.index_select(1, kept[1]), scale):
                mixed |= {
                    name for name, value in first.items() if _differs(value[kept[0]], other[name][kept[1]], scale)
                }
        for name in sorted(mixed):
            message = f"'{name}' of one world changes when only other worlds change."
            hint = "reduce over dim=-1, never over worlds: no x.mean(), x.max(), x.any(), x.sum(dim=0)"
            self._note(self._line(name), "T209", message, hint)

    def _values(self, program: Program, signals: Signals) -> dict[str, torch.Tensor] | None:
        """Total and components by name, or None when this call failed or changed its form (which is
        noted). The signals are this call's own."""
        result = self._call(program, signals)
        if result is None:
            return None
        if problem := structure_problem(result):
            self._note(self._line(""), "T202", problem, "return the same form for every number of worlds")
            return None
        total, components = result  # type: ignore[misc]
        values = {"total": total, **components}
        sound = all(tuple(value.shape) == (_worlds(signals),) for value in values.values())
        if not sound or tuple(components) != self.components:
            message = f"with {_worlds(signals)} worlds the components or their shapes differ from the first call."
            self._note(self._line(""), "T203", message, "let every shape follow from the arguments' shapes")
            return None
        if _worlds(signals) == self._worlds:
            self.times_s.append(self._took_s)
        return values


def _copied(signals: Signals) -> Signals:
    return {name: tensor.clone() for name, tensor in signals.items()}


def _rows(signals: Signals, worlds: torch.Tensor) -> Signals:
    """Copies of some worlds, in this order."""
    return {name: tensor.index_select(0, worlds) for name, tensor in signals.items()}


def _variants(signals: Signals, worlds: int) -> Iterator[_Variant]:
    """See `Inputs`; all of them are copies."""
    generator = torch.Generator().manual_seed(0)
    everyone = torch.arange(worlds)
    order = torch.randperm(worlds, generator=generator)
    yield (order, everyone), _rows(signals, order)
    half = worlds // 2
    for kept, replaced in ((everyone[:half], everyone[half:]), (everyone[half:], everyone[:half])):
        replaced_rows = _copied(signals)
        for tensor in replaced_rows.values():
            rows = kept[torch.randint(len(kept), (len(replaced),), generator=generator)]
            tensor[replaced] = 1.5 * tensor[rows] + 0.25
        yield (kept, kept), replaced_rows
        yield (kept, torch.arange(len(kept))), _rows(signals, kept)
    # Among many worlds x.any() is always true and x.all() never: worlds that see only their like tell.
    two = torch.arange(2)
    for world in everyone[:: max(1, worlds // LONE_WORLDS)]:
        twins = world.repeat(2)
        yield (twins, two), _rows(signals, twins)


def _scale(values: dict[str, torch.Tensor]) -> float:
    """Largest finite magnitude: results are differences of terms of that size, so rounding is in proportion
    to it."""
    finite = [value[torch.isfinite(value)].abs() for value in values.values()]
    return max([1e-6, *(float(value.max()) for value in finite if value.numel())])


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=0.0, atol=0.0, equal_nan=True)


def _differs(a: torch.Tensor, b: torch.Tensor, scale: float) -> bool:
    tolerance = RELATIVE_TOLERANCE * 0.1 * scale
    return not torch.allclose(a, b, rtol=RELATIVE_TOLERANCE, atol=tolerance, equal_nan=True)


def _shape_hint(shape: tuple[int, ...], worlds: int) -> str:
    if shape == (worlds, 1):
        return "take the column: x[:, 0] or x.squeeze(-1)"
    if shape == (worlds, worlds):
        return "a (N,) and a (N, 1) tensor were combined: take columns by x[:, 0] before"
    if shape == ():
        return "it was reduced over all worlds: reduce with dim=-1; constants: torch.full_like(x[:, 0], 1.0)"
    return "reduce over the last dimension, for example with .sum(dim=-1)"


def result_lines(text: str) -> dict[str, int]:
    """Line of each component in the returned dict as far as it is written out; "" is the line of the last
    return."""
    entry = entry_points(parsed(text))[0]
    returns = [node for node in ast.walk(entry) if isinstance(node, ast.Return)]
    lines = {"": returns[-1].lineno if returns else entry.lineno}
    for node in ast.walk(entry):
        if isinstance(node, ast.Dict):
            for key in node.keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    lines[key.value] = key.lineno
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
            key = node.slice.value if isinstance(node.slice, ast.Constant) else None
            if isinstance(key, str):
                lines[key] = node.lineno
    return lines
