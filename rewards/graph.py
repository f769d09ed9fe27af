"""The reward graph: a reward as data, read as data that nobody vouches for.

A graph is JSON: named inputs (N, dims), small constants, a list of tensor operators in the order they run, and which
values are the total and the components. `read_graph` believes none of it. It bounds every size, knows only the
operators of `rewards.operators`, lets arguments refer backwards only, compares every argument with the operator's
own signature, and runs the graph on tensors without memory, so that shapes are what torch says and not what the
text claims. What comes back can be rebuilt (`rewards.rebuild`) without running anything that the text holds.

Values are numbered: first inputs, then constants, then the outputs of the nodes. An argument is a plain number, text,
boolean or null, a list of arguments, or one of {"v": 7} (a value), {"n": [a, b]} (the size a + b N), {"dtype":
"float32"}, {"format": "contiguous_format"}, {"float": "inf"}. Axes: N worlds; total and components are (N,) float32.

Not covered: whether the values are sensible; an index that is out of range only for some states.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from rewards.check import COMPONENT_NAME, MAX_COMPONENTS
from rewards.operators import DROPPED_ARGUMENTS, DTYPES, MEMORY_FORMATS, overload
from tasks.errors import UserError

FORMAT = 1
"""Version of the layout."""
MAX_TEXT = 1_000_000
"""Longest graph as JSON text, in characters."""
MAX_NODES = 2_000
"""Most operators."""
MAX_INPUTS = 256
MAX_DIMS = 4_096
"""Widest signal."""
MAX_CONSTANT_NUMBERS = 16_384
"""Most numbers in all constants together."""
MAX_RANK = 8
MAX_LIST = 4_096
MAX_INT = 2**63 - 1
_INPUT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_TEXTS = ("floor", "trunc", "none", "tanh", "linear")
"""Texts that an operator may be given: rounding and approximation modes."""


class GraphError(UserError):
    """A text is no reward graph, or one beyond what is allowed."""


class Ref(NamedTuple):
    """A value by number."""

    value: int


class Size(NamedTuple):
    """A whole number that grows with the number of worlds: offset + slope N."""

    offset: int
    slope: int

    def at(self, worlds: int) -> int:
        """The number for so many worlds."""
        return self.offset + self.slope * worlds


@dataclass(frozen=True)
class Constant:
    """A small tensor; `data` are its numbers, row by row."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    data: tuple[float | int | bool, ...]

    def tensor(self, device: torch.device | str) -> torch.Tensor:
        """The tensor on a device."""
        return torch.tensor(self.data, dtype=self.dtype, device=device).reshape(self.shape)


@dataclass(frozen=True)
class Node:
    """One operator: its name, arguments as `Ref`, `Size`, torch dtype or format, tuple or plain data, and what it
    makes."""

    operator: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[tuple[torch.dtype, tuple[Size, ...]], ...]
    many: bool
    """Whether the operator returns several tensors."""
    line: int
    """Of the program; 0: unknown."""


@dataclass(frozen=True)
class RewardGraph:
    """A graph that has been read and found sound."""

    inputs: tuple[tuple[str, int], ...]
    """Names and dims of the signals, in order."""
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    total: int
    """Value that is the total."""
    components: tuple[tuple[str, int], ...]
    """Names and values of the components, in order."""

    @property
    def results(self) -> tuple[int, ...]:
        """Values that are returned: the total, then the components."""
        return (self.total, *(value for _, value in self.components))

    def sha256(self) -> str:
        """Hash of what the graph computes: equal for programs that differ in names, order, dead code or layout.

        A value's hash is that of its operator and of its arguments' hashes, so neither numbering nor repetition
        counts. Equal hashes mean equal graphs; equal functions written with other operators have other hashes.
        """
        values = [f"input {name} {dims}" for name, dims in self.inputs]
        values += [f"constant {item.dtype} {item.shape} {item.data}" for item in self.constants]
        values = [_digest(value) for value in values]
        for node in self.nodes:
            args = _canonical([node.args, sorted(node.kwargs.items())], values)
            whole = _digest(f"{node.operator} {args}")
            values += [_digest(f"{whole} {place}") for place in range(len(node.outputs))]
        results = sorted((name, values[value]) for name, value in self.components)
        return _digest(f"{FORMAT} {values[self.total]} {results}")


def read_graph(source: str | Mapping[str, Any]) -> RewardGraph:
    """Read a graph from its JSON text, or from what that text holds.

    Raises:
        GraphError: it is no graph of this layout, is too large, or does what no reward graph may; one line.
    """
    data = _loaded(source)
    _keys(data, "the graph", {"format", "inputs", "constants", "nodes", "total", "components"}, {"torch"})
    if data["format"] != FORMAT:
        raise GraphError(f"reward graph: format {data['format']!r}, expected {FORMAT}; trace the program again.")
    inputs = tuple(_input(item) for item in _list(data["inputs"], "inputs", MAX_INPUTS))
    if not inputs or len({name for name, _ in inputs}) != len(inputs):
        raise GraphError("reward graph: inputs are missing or repeated.")
    constants = tuple(_constant(item) for item in _list(data["constants"], "constants", MAX_CONSTANT_NUMBERS))
    if sum(len(item.data) for item in constants) > MAX_CONSTANT_NUMBERS:
        raise GraphError(f"reward graph: its constants have more than {MAX_CONSTANT_NUMBERS} numbers.")
    known = len(inputs) + len(constants)
    nodes: list[Node] = []
    for item in _list(data["nodes"], "nodes", MAX_NODES):
        nodes.append(_node(item, known, len(nodes)))
        known += len(nodes[-1].outputs)
    components = tuple(_component(item, known) for item in _list(data["components"], "components", MAX_COMPONENTS))
    if not components or len({name for name, _ in components}) != len(components):
        raise GraphError("reward graph: components are missing or repeated.")
    total = _whole(data["total"], "total", 0, known - 1)
    return RewardGraph(inputs, constants, tuple(nodes), total, components)


def _loaded(source: str | Mapping[str, Any]) -> Mapping[str, Any]:
    def no_constant(word: str) -> None:
        raise ValueError(f"the number {word}")

    if not isinstance(source, str):
        try:
            source = json.dumps(source, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise GraphError(f"reward graph: no JSON data ({str(error)[:100]}).") from None
    if len(source) > MAX_TEXT:
        raise GraphError(f"reward graph: {len(source)} characters, at most {MAX_TEXT}.")
    try:
        data = json.loads(source, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"reward graph: no JSON ({' '.join(str(error).split())[:100]}).") from None
    if not isinstance(data, dict):
        raise GraphError(f"reward graph: a {type(data).__name__}, expected an object.")
    return data


def _input(item: Any) -> tuple[str, int]:
    pair = _list(item, "an input", 2)
    if len(pair) != 2 or not isinstance(pair[0], str) or not _INPUT_NAME.fullmatch(pair[0]):
        raise GraphError(f"reward graph: an input is {item!a:.80}, expected [name, dims].")
    return pair[0], _whole(pair[1], f"dims of '{pair[0]}'", 1, MAX_DIMS)


def _constant(item: Any) -> Constant:
    _keys(item, "a constant", {"dtype", "shape", "data"})
    dtype = _dtype(item["dtype"])
    shape = tuple(_whole(size, "a size", 0, MAX_CONSTANT_NUMBERS) for size in _list(item["shape"], "shape", MAX_RANK))
    data = tuple(_list(item["data"], "data", MAX_CONSTANT_NUMBERS))
    if math.prod(shape) != len(data):
        raise GraphError(f"reward graph: a constant of shape {shape} has {len(data)} numbers.")
    kinds = {torch.bool: bool, torch.float32: float}.get(dtype, int)
    limit = {torch.int32: 2**31 - 1, torch.float32: 3.5e38}.get(dtype, MAX_INT)
    for number in data:
        if type(number) is not kinds or not abs(number) <= limit:
            raise GraphError(f"reward graph: a constant of {dtype} holds {number!a:.40}.")
    return Constant(dtype, shape, data)


def _component(item: Any, known: int) -> tuple[str, int]:
    pair = _list(item, "a component", 2)
    if len(pair) != 2 or not isinstance(pair[0], str) or not COMPONENT_NAME.fullmatch(pair[0]) or pair[0] == "total":
        raise GraphError(f"reward graph: a component is {item!a:.80}, expected [name, value].")
    return pair[0], _whole(pair[1], f"component '{pair[0]}'", 0, known - 1)


def _node(item: Any, known: int, place: int) -> Node:
    _keys(item, f"node {place}", {"op", "args", "kwargs", "out"}, {"line"})
    name = item["op"]
    operator = overload(name) if isinstance(name, str) else None
    if operator is None:
        raise GraphError(f"reward graph: node {place} is {name!a:.80}, no operator that a reward may use.")
    args = _list(item["args"], "args", 32)
    kwargs = item["kwargs"]
    if not isinstance(kwargs, dict) or any(key in DROPPED_ARGUMENTS for key in kwargs):
        raise GraphError(f"reward graph: node {place}, '{name}': wrong keyword arguments.")
    arguments = list(operator._schema.arguments)
    by_name = {argument.name: argument for argument in arguments}
    positional = [argument for argument in arguments if not argument.kwarg_only]
    if len(args) > len(positional) or any(key not in by_name for key in kwargs):
        raise GraphError(f"reward graph: node {place}, '{name}': arguments that the operator does not have.")
    bound = list(zip(positional, args, strict=False)) + [(by_name[key], value) for key, value in kwargs.items()]
    for argument, value in bound:
        if not _fits(str(argument.real_type), value, known, name):
            problem = f"{argument.name} is {value!a:.80}, expected {argument.real_type}."
            raise GraphError(f"reward graph: node {place}, '{name}': {problem}")
    outputs = tuple(_output(out) for out in _list(item["out"], "out", MAX_LIST))
    many = len(operator._schema.returns) != 1 or str(operator._schema.returns[0].type) == "List[Tensor]"
    if not outputs or (len(outputs) != 1 and not many):
        raise GraphError(f"reward graph: node {place}, '{name}': {len(outputs)} outputs.")
    parsed = {key: _parsed(value) for key, value in kwargs.items()}
    line = _whole(item.get("line", 0), "line", 0, 10**6)
    return Node(name, tuple(_parsed(value) for value in args), parsed, outputs, many, line)


def _output(item: Any) -> tuple[torch.dtype, tuple[Size, ...]]:
    pair = _list(item, "an output", 2)
    if len(pair) != 2:
        raise GraphError(f"reward graph: an output is {item!a:.80}, expected [dtype, shape].")
    sizes = [size if _is_size(size) else {"n": [size, 0]} for size in _list(pair[1], "shape", MAX_RANK)]
    if not all(_is_size(size) for size in sizes):
        raise GraphError(f"reward graph: a shape is {pair[1]!a:.80}.")
    return _dtype(pair[0]), tuple(Size(*size["n"]) for size in sizes)


def _fits(kind: str, value: Any, known: int, operator: str) -> bool:
    """Whether an argument is of the kind that the operator's signature names."""
    if optional := re.fullmatch(r"Optional\[(.*)\]", kind):
        return value is None or _fits(optional[1], value, known, operator)
    if several := re.fullmatch(r"List\[(.*)\]", kind):
        one = several[1]
        if not isinstance(value, list):  # torch takes one number for a list of one
            return one in ("int", "SymInt") and _fits(one, value, known, operator)
        return len(value) <= MAX_LIST and all(_fits(one, item, known, operator) for item in value)
    if kind == "Tensor":
        if isinstance(value, dict):
            return set(value) == {"v"} and _is_int(value["v"]) and 0 <= value["v"] < known
        return _is_number(value)  # a Python number in a tensor's place
    if kind in ("int", "SymInt"):
        return _is_int(value) or _is_size(value)
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "float":
        return _is_number(value)
    if kind == "number":
        size = operator.startswith("arange") and _is_size(value)
        special = isinstance(value, dict) and set(value) == {"float"} and value["float"] in ("inf", "-inf")
        return _is_number(value) or isinstance(value, bool) or size or special
    if kind == "str":
        return value in _TEXTS
    tables = {"ScalarType": ("dtype", DTYPES), "MemoryFormat": ("format", MEMORY_FORMATS)}
    if kind in tables and isinstance(value, dict):
        key, table = tables[kind]
        return set(value) == {key} and isinstance(value[key], str) and value[key] in table
    return False


def _parsed(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_parsed(item) for item in value)
    if not isinstance(value, dict):
        return value
    ((key, inner),) = value.items()
    if key == "v":
        return Ref(inner)
    if key == "n":
        return Size(*inner)
    return {"dtype": DTYPES, "format": MEMORY_FORMATS}[key][inner] if key != "float" else float(inner)


def _canonical(value: Any, values: list[str]) -> Any:
    if isinstance(value, Ref):
        return f"<{values[value.value]}>"
    if isinstance(value, Size) or not isinstance(value, list | tuple):
        return f"{type(value).__name__} {value!r}"
    return [_canonical(item, values) for item in value]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_INT


def _is_number(value: Any) -> bool:
    return _is_int(value) or (isinstance(value, float) and math.isfinite(value))


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"n"}
        and isinstance(value["n"], list)
        and len(value["n"]) == 2
        and all(_is_int(number) and abs(number) < 2**31 for number in value["n"])
    )


def _keys(item: Any, what: str, wanted: set[str], optional: Set[str] = frozenset()) -> None:
    if not isinstance(item, dict) or not wanted <= set(item) <= wanted | optional:
        came = sorted(item) if isinstance(item, dict) else f"a {type(item).__name__}"
        raise GraphError(f"reward graph: {what} has {came!a:.120}, expected {sorted(wanted)}.")


def _list(value: Any, what: str, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        came = f"{len(value)} items" if isinstance(value, list) else f"a {type(value).__name__}"
        raise GraphError(f"reward graph: {what}: {came}, expected a list of at most {most}.")
    return value


def _whole(value: Any, what: str, least: int, most: int) -> int:
    if not _is_int(value) or not least <= value <= most:
        raise GraphError(f"reward graph: {what} is {value!a:.40}, expected a whole number from {least} to {most}.")
    return value


def _dtype(name: Any) -> torch.dtype:
    if not isinstance(name, str) or name not in DTYPES:
        raise GraphError(f"reward graph: the dtype {name!a:.40}, expected one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def references(value: Any) -> Iterator[int]:
    """Numbers of the values in an argument."""
    if isinstance(value, Ref):
        yield value.value
    elif isinstance(value, Mapping):
        yield from references(tuple(value.values()))
    elif isinstance(value, list | tuple) and not isinstance(value, Size):
        for item in value:
            yield from references(item)
