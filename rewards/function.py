"""A reward that can be called on signals, built from its graph. Runs nothing that a designer wrote.

`build_reward` is the one door to a runnable reward: with a graph it reads that as untrusted data; with a program's
text alone it has a confined child process trace the program first. A rebuilt function is made once for each number
of worlds and device, after its memory has been bounded.

Axes: N worlds. Signals are (N, dims); the total and every component are (N,) float32.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rewards.graph import GraphError, RewardGraph, read_graph
from rewards.rebuild import Function, compiled, rebuild
from rewards.result import RewardError, one_line, storage_of, tensors_problem
from rewards.sandbox import trace_in_child
from tasks.errors import UserError
from tasks.signals import Signals, SignalTable

COMPILE_LIMIT_S = 120.0
"""Longest wait for a compilation; a cold one of a usual reward takes 15 s."""


@dataclass
class _Ready:
    """The function for one number of worlds on one device."""

    run: Function
    constants: frozenset[int]
    """Memory of the constants that it holds."""
    copied: tuple[int, ...] | None = None
    """Places of the results that share memory with something else and are copied; None before the first call."""


class RewardFunction:
    """A reward that can be called on signals.

    `inputs` are the names of the signals it reads, `components` the names of its components, `sha256` the hash of
    what it computes (equal for programs that differ in names only). `note` says why the reward runs uncompiled
    although it was to be compiled; "" otherwise.
    """

    inputs: tuple[str, ...]
    components: tuple[str, ...]
    sha256: str
    note: str

    def __init__(self, graph: RewardGraph, *, compile_limit_s: float | None = None) -> None:
        """`compile_limit_s`: seconds that inductor may take at the first call; None: not compiled."""
        self.inputs = tuple(name for name, _ in graph.inputs)
        self.components = tuple(name for name, _ in graph.components)
        self.sha256 = graph.sha256()
        self.note = ""
        self._graph = graph
        self._compile_limit_s = compile_limit_s
        self._ready: dict[tuple[int, torch.device], _Ready] = {}

    def __call__(self, signals: Signals) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Rewards of all worlds: total (N,) and components name -> (N,), float32, none sharing memory with a
        signal.

        Raises RewardError when an operator fails; on the first call with a number of worlds also when the signals
        are not those of the graph or the reward needs too much memory. Values are not looked at: a NaN is
        returned as it is.
        """
        arguments = [signals[name] for name in self.inputs]
        first = arguments[0]
        ready = self._ready.get((first.shape[0], first.device))
        if ready is None:
            ready = self._prepare(arguments)
        try:
            if torch.is_grad_enabled():
                with torch.no_grad():
                    results = ready.run(*arguments)
            else:
                results = ready.run(*arguments)
        except Exception as error:
            raise RewardError(type(error).__name__, one_line(error), 0) from error
        if ready.copied is None:
            ready.copied = self._shared(results, arguments, ready.constants)
        if ready.copied:
            results = list(results)
            for place in ready.copied:
                results[place] = results[place].clone()
        return results[0], dict(zip(self.components, results[1:], strict=True))

    def _prepare(self, arguments: list[torch.Tensor]) -> _Ready:
        worlds, device = arguments[0].shape[0], arguments[0].device
        for (name, dims), tensor in zip(self._graph.inputs, arguments, strict=True):
            came = (tuple(tensor.shape), tensor.dtype, tensor.device)
            if came != ((worlds, dims), torch.float32, device):
                form, wanted = "{} {} on {}", ((worlds, dims), torch.float32, device)
                problem = f"signal '{name}' is {form.format(*came)}; expected {form.format(*wanted)}."
                raise RewardError("ValueError", problem, 0)
        try:
            run = rebuild(self._graph, worlds, device)
        except GraphError as error:
            raise RewardError("GraphError", str(error), 0) from None
        constants = frozenset(storage_of(tensor) for tensor in vars(run.__self__).values())  # type: ignore[attr-defined]
        if self._compile_limit_s is not None:
            inputs = [tensor.detach() for tensor in arguments]
            run, self.note = compiled(self._graph, run, inputs, self._compile_limit_s)
            if self.note:
                warnings.warn(self.note, stacklevel=2)
        ready = _Ready(run, constants)
        self._ready[worlds, device] = ready
        return ready

    def _shared(
        self, results: tuple[torch.Tensor, ...], arguments: list[torch.Tensor], constants: frozenset[int]
    ) -> tuple[int, ...]:
        """A caller may work in place on a result, so each has to own its memory: which do not, and are copied.

        They share it with a signal, a constant of the graph, another result or themselves (an expanded tensor).
        """
        if problem := tensors_problem((results[0], dict(zip(self.components, results[1:], strict=True))), arguments[0]):
            raise RewardError("ValueError", problem, 0)
        taken = {storage_of(tensor) for tensor in arguments} | constants
        copied: list[int] = []
        for place in [*range(1, len(results)), 0]:
            if storage_of(results[place]) in taken or not results[place].is_contiguous():
                copied.append(place)
            taken.add(storage_of(results[place]))
        return tuple(copied)


def build_reward(
    text: str, table: SignalTable, graph: Mapping[str, Any] | None = None, *, compile_limit_s: float | None = None
) -> RewardFunction:
    """A callable reward.

    Args:
        text: the program. It is never run here; with a `graph` it is not looked at.
        table: the signals of the task.
        graph: what the gate made of the program; None: a child process traces the program now.
        compile_limit_s: see `RewardFunction`.

    Raises:
        UserError: the check refuses the text, or the graph is none or not of this task.
        RewardError: the program fails or cannot be traced; with its line.
    """
    data = reward_graph(text, table) if graph is None else graph
    read = read_graph(data)
    for name, dims in read.inputs:
        if name not in table or table[name].dims != dims:
            raise UserError(f"the reward graph reads '{name}' with {dims} dims, which the task does not have.")
    return RewardFunction(read, compile_limit_s=compile_limit_s)


def reward_graph(text: str, table: SignalTable) -> dict[str, Any]:
    """The graph of a program as plain data, traced in a confined child process; see `build_reward`."""
    return trace_in_child(text, table)
